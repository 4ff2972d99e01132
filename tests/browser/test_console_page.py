"""The console page in a real browser: what a newcomer sees and does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser.console import Console, browsing, need_socket_client, opened
from tests.fakes import openai as fakes
from tests.fakes.openai import FakeOpenAI
from tests.serving import KEY, Server, serving

pytestmark = pytest.mark.browser

HOSTILE = (
    '<img src=x onerror="document.title=\'owned\'"> <script>document.title="owned"</script> too expensive'
)


@pytest.fixture(autouse=True)
def _npm_packages() -> None:
    need_socket_client()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        yield running


async def stored_tips(server: Server) -> list[dict[str, object]]:
    """What the server kept of the only call there is."""
    bearer = f"Bearer {await server.token('boss', 'admin')}"
    _, page = await server.get("/api/conversations", key=None, Authorization=bearer)
    (call,) = page["conversations"]
    _, tips = await server.get(
        f"/api/conversations/{call['conversationId']}/tips", key=None, Authorization=bearer
    )
    stored: list[dict[str, object]] = tips["tips"]
    return stored


@pytest.mark.parametrize(
    ("language", "width", "scheme", "texts"),
    [
        ("en", 1280, "light", ("Play a demo call", "What the call came to", "Got as far as")),
        ("nl", 400, "dark", ("Speel een demogesprek", "Wat het gesprek opleverde", "Gekomen tot")),
    ],
    ids=["English, wide, light", "Dutch, narrow, dark"],
)
async def test_a_newcomer_plays_the_demo_call_takes_a_tip_and_reads_the_analysis(
    server: Server, language: str, width: int, scheme: str, texts: tuple[str, str, str]
) -> None:
    play, came_to, reached = texts
    options = {"viewport": {"width": width, "height": 860}, "color_scheme": scheme}
    async with browsing(**options) as context:
        console = await opened(context, server, f"/?lang={language}")
        page = console.page
        await expect(page.locator("html")).to_have_attribute("lang", language)
        await expect(page.locator("#play")).to_have_text(re.compile(play))
        assert await console.overflow() <= 0

        await console.play()
        await console.wait_for_tips(2)
        await expect(page.locator("#lines .line.agent").first).to_be_visible()
        await expect(page.locator("#lines .line.caller").first).to_be_visible()
        await expect(page.locator("#lines .line[data-state=saved]").nth(3)).to_be_visible()
        await expect(page.locator("#tip-options .option")).to_have_count(3)
        await expect(page.locator("#stages [aria-current=step]")).to_have_count(1)
        await expect(page.locator("#share-text")).to_have_text(re.compile(r"\d+%.*\d+%"))
        await expect(page.locator("#connection")).to_have_attribute("data-state", "connected")

        await page.locator("#tip-options .option").nth(1).click()
        await expect(page.locator("#tip-options .option").nth(1)).to_have_attribute("aria-pressed", "true")
        assert await console.overflow() <= 0

        await page.locator("#end").click()
        await expect(page.locator("#analysis-heading")).to_have_text(came_to)
        await expect(page.locator("#analysis-body .summary")).to_be_visible()
        await expect(page.locator("#analysis-body .figures")).to_contain_text(reached)
        assert await console.overflow() <= 0
        assert console.complaints == []
    tips = await stored_tips(server)
    assert len(tips) >= 2
    assert [tip["selectedOption"] for tip in tips].count(2) == 1


async def test_markup_that_somebody_says_stays_text_everywhere(server: Server) -> None:
    async with browsing() as context:
        console = await opened(context, server)
        page = console.page
        await console.talk()
        await console.utter("caller", HOSTILE)
        await console.wait_for_tips(1)
        await console.utter("agent", "I understand. <b>What</b> do you compare it with?")
        await console.utter("caller", f"With {HOSTILE}")
        await console.utter("agent", "Shall we look at it on Thursday?")
        await expect(page.locator("#lines .line[data-state=saved]")).to_have_count(4)
        assert await page.locator("#lines .line > p:last-child").first.inner_text() == HOSTILE
        await page.locator("#end").click()
        await expect(page.locator("#analysis-body .summary")).to_be_visible()
        await expect(page.locator("#analysis-body")).to_contain_text("<img src=x")
        await expect(page.locator("#lines img, #lines b, #lines script")).to_have_count(0)
        await expect(page.locator("#tip img, #tip script")).to_have_count(0)
        await expect(page.locator("#analysis-body img, #analysis-body script")).to_have_count(0)
        assert "owned" not in await page.title()
        assert console.complaints == []


async def test_the_browser_itself_refuses_to_read_a_text_as_markup(server: Server) -> None:
    async with browsing() as context:
        page = (await opened(context, server)).page
        refused = await page.evaluate(
            "() => { try { document.body.innerHTML = 'x'; return ''; } catch (e) { return e.name; } }"
        )
        assert refused == "TypeError"


async def test_a_call_goes_on_after_the_connection_was_lost(server: Server) -> None:
    async with browsing() as context:
        console = await opened(context, server)
        page = console.page
        await console.talk()
        await console.utter("caller", "This is too expensive for us.")
        await console.wait_for_tips(1)

        sio = server.coaching.sio
        for sid, _ in list(sio.manager.get_participants("/", None)):
            await sio.disconnect(sid)
        await expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
        await console.utter("agent", "What are you comparing it with?")
        await expect(page.locator("#connection-text")).to_contain_text("Back again")
        await expect(page.locator("#lines .line[data-state=saved]")).to_have_count(2)
        await page.locator("#next-tip").click()
        await console.wait_for_tips(2)
        assert console.complaints == []
    (call,) = (await server.get("/api/conversations", key=None, Authorization=await _admin(server)))[1][
        "conversations"
    ]
    assert call["status"] == "active"


async def _admin(server: Server) -> str:
    return f"Bearer {await server.token('boss', 'admin')}"


async def test_a_server_behind_a_proxy_asks_for_a_key_and_the_tab_forgets_it(tmp_path: Path) -> None:
    async with serving(tmp_path, TRUST_PROXY="true") as server, browsing() as context:
        console = await opened(context, server)
        page = console.page
        await expect(page.locator("#access")).to_be_visible()
        await expect(page.locator("#play")).to_be_disabled()

        await page.locator("#access-key").fill("not the key")
        await page.locator("#access-form button").click()
        await page.locator("#talk").click()
        await expect(page.locator("#access-fault")).to_contain_text("did not accept")
        await expect(page.locator("body")).to_have_attribute("data-phase", "idle")

        await page.locator("#access-key").fill(KEY)
        await page.locator("#access-form button").click()
        await console.talk()
        await console.utter("caller", "We already have a supplier.")
        await console.wait_for_tips(1)
        await page.locator("#end").click()
        await expect(page.locator("#analysis-body .summary")).to_be_visible()
        assert await page.evaluate("localStorage.length + document.cookie.length") == 0
        assert KEY not in await page.content()
        await page.locator("#again").click()
        await page.locator("#forget").click()
        assert await page.evaluate("sessionStorage.length") == 0
        await expect(page.locator("#access")).to_be_visible()


async def test_a_user_token_is_as_good_as_a_key(tmp_path: Path) -> None:
    async with serving(tmp_path, TRUST_PROXY="true") as server, browsing() as context:
        console = await opened(context, server)
        await console.page.locator("#access-key").fill(await server.token("maya"))
        await console.page.locator("#access-form button").click()
        await console.talk()
        await console.utter("caller", "We already have a supplier.")
        await console.wait_for_tips(1)


async def test_everything_can_be_done_from_the_keyboard(server: Server) -> None:
    async with browsing() as context:
        console = await opened(context, server)
        page, keys = console.page, console.page.keyboard
        await page.locator("#talk").focus()
        await keys.press("Enter")
        await expect(page.locator("#words")).to_be_focused()
        await keys.type("It is 3 times too expensive.")
        await keys.press("Enter")
        await console.wait_for_tips(1)
        await expect(page.locator("#announcer")).to_contain_text("New tip")
        await page.locator("#coach").focus()
        await keys.press("3")
        await expect(page.locator("#tip-options .option").nth(2)).to_have_attribute("aria-pressed", "true")
        await keys.press("Tab")
        await expect(page.locator("#tip-because")).to_be_focused()
        await keys.press("Enter")
        await expect(page.locator("#lines")).to_be_focused()
        await expect(page.locator("#lines mark")).to_have_count(1)


async def test_tips_can_be_muted_and_the_demo_be_paused(server: Server) -> None:
    async with browsing() as context:
        console = await opened(context, server)
        page = console.page
        await console.play()
        await console.wait_for_tips(1)
        await page.locator("#mute").click()
        await expect(page.locator("#mute")).to_have_attribute("aria-pressed", "true")
        await page.locator("#settings label:has(input[value='high'])").click()
        await expect(page.locator("input[value='high']")).to_be_checked()
        await page.locator("#pause").click()
        await expect(page.locator("#pause")).to_have_text("Go on")
        said = await page.locator("#lines .line").count()
        await page.locator("#mute").click()
        await expect(page.locator("#mute")).to_have_attribute("aria-pressed", "false")
        assert await page.locator("#lines .line").count() == said, "nobody speaks while the demo is paused"
        await page.locator("#pause").click()
        await expect(page.locator("#lines .line").nth(said)).to_be_visible()
        assert console.complaints == []


async def test_in_event_driven_mode_the_next_tip_follows_the_reaction(tmp_path: Path) -> None:
    async with serving(tmp_path, SILENCE_MS="200") as server, browsing() as context:
        console = await opened(context, server)
        page = console.page
        await page.locator("#options label:has(input[value='event-driven'])").click()
        await expect(page.locator("#mode-hint")).to_contain_text("once you chose a line")
        await console.talk()
        await console.wait_for_tips(1)
        await page.locator("#tip-options .option").first.click()
        await expect(page.locator("#tip-hint")).to_contain_text("Line chosen")
        await console.utter("agent", "May I ask how you do it today?")
        await console.utter("caller", "On a whiteboard, and it goes wrong each week.")
        await console.wait_for_tips(2)
        await expect(page.locator("#tip-badges")).to_contain_text("after the reaction")
        await expect(page.locator("#earlier-tips .badge.took")).to_have_count(1)


async def test_a_tip_grows_while_the_model_writes_it(tmp_path: Path) -> None:
    async with FakeOpenAI() as model:
        model.always(fakes.drip(fakes.tip(), every_s=0.02, piece=6))
        settings: dict[str, Any] = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "k"}
        async with serving(tmp_path, **settings) as server, browsing() as context:
            console = await opened(context, server)
            page = console.page
            await console.talk()
            await console.utter("caller", "We have delays each week.")
            await expect(page.locator("#tip-badges .offline, #tip-badges .writing")).to_be_visible()
            await expect(page.locator("#tip-badges .openai:not(.writing)")).to_be_visible()
            await expect(page.locator("#tip-heading")).to_have_text("Ask more")
            first = page.locator("#tip-options .script-text").first
            await expect(first).to_have_text("What would help you most?")
            await expect(page.locator("#earlier-tips > li")).to_have_count(0)
            await page.locator("#end").click()
            await expect(page.locator("#analysis-body .figures")).to_contain_text("tokens")
            assert console.complaints == []


async def test_a_second_call_starts_with_a_clean_page(server: Server) -> None:
    async with browsing() as context:
        console = await opened(context, server)
        page = console.page
        await console.talk()
        await console.utter("caller", "This is too expensive for us.")
        await console.wait_for_tips(1)
        await page.locator("#end").click()
        await expect(page.locator("#analysis-body .summary")).to_be_visible()
        await page.locator("#again").click()
        await expect(page.locator("#play")).to_be_focused()
        await console.talk()
        await expect(page.locator("#lines .line")).to_have_count(0)
        await expect(page.locator("#tip")).to_be_hidden()
        await expect(page.locator("#analysis")).to_be_hidden()
        await console.utter("caller", "How much is it?")
        await console.wait_for_tips(1)
        assert console.complaints == []


async def test_a_chosen_playbook_is_followed_line_by_line(server: Server) -> None:
    async with browsing() as context:
        console = await opened(context, server)
        await console.page.locator("#playbook").select_option("b2b")
        await console.talk()
        await console.utter("caller", "That is too expensive for us.")
        await console.wait_for_tips(1)
    (tip,) = await stored_tips(server)
    options = tip["options"]
    assert isinstance(options, list) and any(option["id"] for option in options)


async def test_leaving_the_page_ends_the_call(server: Server) -> None:
    async with browsing() as context:
        console = await opened(context, server)
        await console.talk()
        assert server.coaching.calls.active == 1
        await console.page.goto(f"http://localhost:{server.port}/health")
        async with asyncio.timeout(10):
            while (await server.get("/health"))[1]["activeConversations"]:
                pass  # each look is a request: the server has time to hear of it


async def test_a_call_that_was_refused_says_why(tmp_path: Path) -> None:
    async with serving(tmp_path, MAX_CALLS_PER_KEY="1") as server, browsing() as context:
        first = await opened(context, server)
        await first.talk()
        second = Console(await context.new_page())
        await second.page.goto(f"http://localhost:{server.port}/")
        await second.page.locator("#talk").click()
        await expect(second.page.locator("#notice-text")).to_contain_text("too many live conversations")
