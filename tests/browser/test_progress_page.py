"""The progress page in a real browser: empty at first, and what practising leaves on it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from coach_server.api.practice.pages.page import LOCAL_USER
from coach_server.clock import SystemClock
from coach_server.domain.method.progress import Practice, PracticeKind, progress_document, progress_of
from coach_server.services.method.methodologies import Methodologies
from tests.browser.console import browsing, need_socket_client
from tests.browser.practice import answer, at
from tests.serving import Server, serving

pytestmark = pytest.mark.browser

DAY = 86_400
NARROW = {"width": 360, "height": 780}
WIDE = {"width": 1280, "height": 860}
HISTORY: tuple[tuple[PracticeKind, int, dict[str, int]], ...] = (
    (PracticeKind.ROLEPLAY, 41, {"1.1": 80, "1.2": 55}),
    (PracticeKind.CALL, 39, {"1.1": 70, "2.1.1": 30}),
    (PracticeKind.ROLEPLAY, 57, {"1.2": 75, "1.3": 90}),
    (PracticeKind.DRILL, 64, {"1.4": 72}),
    (PracticeKind.CALL, 52, {"2.1.1": 74}),
    (PracticeKind.ROLEPLAY, 0, {"2.1.2": 0}),
)


@pytest.fixture(autouse=True)
def _npm_packages() -> None:
    need_socket_client()


@pytest.fixture(scope="module")
def grown() -> dict[str, Any]:
    """The document of somebody who has practised for two months."""
    now = SystemClock().now()
    practices = [
        Practice(f"s{number}", kind, now - (60 - 10 * number) * DAY, overall, scores)
        for number, (kind, overall, scores) in enumerate(HISTORY)
    ]
    method = Methodologies.load().default
    return progress_document(progress_of(practices, method, now), method, "nl", "maya")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        yield running


async def shown(page: Page) -> None:
    await expect(page.locator("#progress-body")).to_be_visible()


@pytest.mark.parametrize(
    ("language", "viewport", "scheme", "heading"),
    [
        ("nl", WIDE, "light", "Je vooruitgang"),
        ("en", NARROW, "dark", "Your progress"),
        ("he", WIDE, "light", "ההתקדמות שלך"),
        ("he", NARROW, "dark", "ההתקדמות שלך"),
    ],
)
async def test_the_curve_and_the_steps_show_practice_and_real_calls(
    server: Server,
    grown: dict[str, Any],
    language: str,
    viewport: dict[str, int],
    scheme: str,
    heading: str,
) -> None:
    async with browsing(viewport=viewport, color_scheme=scheme) as context:
        looking = await at(context, server, f"/progress?lang={language}")
        page = looking.page
        await answer(page, "**/progress?*language=*", grown)
        await page.reload()
        await shown(page)
        await expect(page.locator("#grown-heading")).to_have_text(heading)
        await expect(page.locator("svg.curve [data-series=practice] circle")).to_have_count(4)
        await expect(page.locator("svg.curve [data-series=real] rect")).to_have_count(2)
        await expect(page.locator("#curve-empty")).to_be_hidden()
        await expect(page.locator(".as-table tbody tr")).to_have_count(6)
        await expect(page.locator("#steps .phase-card")).to_have_count(4)
        await expect(page.locator("#steps .grid-step")).to_have_count(23)
        await expect(page.locator("#steps [data-status=completed]")).to_have_count(5)
        await expect(page.locator("#steps .grid-step").first).to_contain_text("80")
        await expect(page.locator("#steps .badge.warn").first).to_be_visible()
        await expect(page.locator("#steps [data-status=locked] a")).to_have_count(0)
        assert await looking.overflow() <= 0
        assert looking.faults == []


async def test_somebody_new_sees_where_to_begin_and_no_made_up_figures(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await at(context, server, "/progress?lang=nl")).page
        await shown(page)
        await expect(page.locator("#curve-empty")).to_be_visible()
        await expect(page.locator("svg.curve")).to_have_count(0)
        await expect(page.locator("#figures")).to_contain_text("1.1")
        await expect(page.locator("#figures")).not_to_contain_text("Gemiddelde")
        await expect(page.locator("#drills-lead")).to_contain_text("geen momenten")


async def test_a_practised_talk_stands_on_the_page_also_after_a_reload(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        page = talk.page
        await talk.start()
        await talk.talk("nl")
        await talk.stop()
        score = await page.locator("#overall-score").inner_text()
        await page.locator("#analysis a.button").click()
        for _ in range(2):
            await shown(page)
            await expect(page.locator("svg.curve circle")).to_have_count(1)
            await expect(page.locator(".as-table tbody td").last).to_have_text(score)
            await expect(page.locator("#drills .drill").first).to_be_visible()
            await page.reload()
        await page.locator("#drills .play-again").first.click()
        await talk.begun()
        assert talk.faults == []


async def test_a_step_can_be_practised_from_the_page(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/progress?lang=nl")
        page = talk.page
        await page.locator("#steps .grid-step a").first.click()
        await expect(page).to_have_url(re.compile(r"/roleplay\?lang=nl&step=1\.1"))
        await expect(page.locator("#begin-at")).to_contain_text("1.1")
        await talk.start()
        await expect(page.locator("#flow-phases .step").first).to_have_attribute("data-status", "current")


async def test_an_admin_sees_the_progress_of_a_user_and_may_not_play_it(tmp_path: Path) -> None:
    async with serving(tmp_path, TRUST_PROXY="true") as server, browsing(viewport=WIDE) as context:
        page = (await at(context, server, "/progress?lang=nl&user=maya")).page
        await page.locator("#access-key").fill(await server.token("boss", "admin"))
        await page.locator("#access-form button").click()
        await shown(page)
        await expect(page.locator("#whose")).to_have_text("Vooruitgang van maya")
        await expect(page.locator("#steps a")).to_have_count(0)
        hebrew = await page.locator(".languages a[lang=he]").get_attribute("href")
        assert hebrew is not None and "user=maya" in hebrew


async def test_a_trainee_does_not_see_somebody_else(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await at(context, server, f"/progress?lang=nl&user=not-{LOCAL_USER}")).page
        await expect(page.locator("#progress-state")).to_contain_text("kon niet")
        await expect(page.locator("#progress-body")).to_be_hidden()
