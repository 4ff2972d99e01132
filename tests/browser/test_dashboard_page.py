"""The dashboard and the page of a session in a real browser, in front of a stand-in with as many sessions
as a test wants."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import expect

from coach_server.services.access import Role
from tests.browser.console import browsing
from tests.browser.simulating import (
    NARROW,
    QUOTE,
    SCORE,
    TALK,
    WIDE,
    Stand,
    looking,
    row,
    session,
    standing,
    token,
)
from tests.serving import KEY

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
OVERRIDE = "\u202egro.live\u202d"
MANY = 5000


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(Stand(rows=[row(number) for number in range(1, 121)])) as ready:
        yield ready


def last_query(stand: Stand, path: str = "/api/dashboard") -> dict[str, str]:
    asked = [urlsplit(one) for one in stand.asked if urlsplit(one).path == path]
    return {name: values[0] for name, values in parse_qs(asked[-1].query).items()}


# --- the list


@pytest.mark.parametrize(
    ("language", "viewport", "scheme", "heading"),
    [
        ("nl", WIDE, "light", "Geoefende sessies"),
        ("nl", NARROW, "dark", "Geoefende sessies"),
        ("en", WIDE, "dark", "Practised sessions"),
        ("en", NARROW, "light", "Practised sessions"),
        ("he", WIDE, "light", "שיחות שתורגלו"),
        ("he", NARROW, "light", "שיחות שתורגלו"),
        ("cs", NARROW, "light", "Proběhlé tréninky"),
    ],
)
async def test_a_reader_sees_the_figures_and_the_newest_sessions(
    stand: Stand, language: str, viewport: dict[str, int], scheme: str, heading: str
) -> None:
    async with browsing(viewport=viewport, color_scheme=scheme) as context:
        look = await looking(context, stand.port, f"/dashboard?lang={language}")
        page = look.page
        await expect(page.locator("#board-heading")).to_have_text(heading)
        await expect(page.locator("html")).to_have_attribute("dir", "rtl" if language == "he" else "ltr")
        await expect(page.locator("#stats dd").first).to_have_text("120")
        await expect(page.locator("#stats .card")).to_have_count(4)
        await expect(page.locator(".share-key li")).to_have_count(4)
        await expect(page.locator("#rows tr")).to_have_count(50)
        await expect(page.locator("#rows tr").first).to_contain_text("BAT-001")
        await expect(page.locator("#heads th")).to_have_count(7)
        assert await look.overflow() <= 0
        assert look.complaints == []


async def test_filters_narrow_the_list_and_stand_in_the_address(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard?lang=en")).page
        await page.locator("#by-outcome").select_option("converted")
        await expect(page.locator("#stats dd").first).to_have_text("30")
        await page.locator("#by-trainee").select_option("REP_04")
        await expect(page).to_have_url(re.compile("outcome=converted"))
        await expect(page).to_have_url(re.compile("trainee=REP_04"))
        outcomes = page.locator("#rows .outcome")
        await expect(outcomes.first).to_have_text("Converted")
        assert await page.locator("#rows .outcome:not([data-outcome=converted])").count() == 0
        await page.go_back()
        await expect(page.locator("#by-trainee")).to_have_value("")
        await expect(page.locator("#by-outcome")).to_have_value("converted")
        await expect(page.locator("#stats dd").first).to_have_text("30")
        await expect(page.locator("#clear")).to_have_text("Clear the filters")
        await page.locator("#clear").click()
        await expect(page.locator("#stats dd").first).to_have_text("120")


async def test_days_are_the_readers_own_and_the_last_one_counts_whole(stand: Stand) -> None:
    async with browsing(viewport=WIDE, timezone_id="Europe/Brussels") as context:
        page = (await looking(context, stand.port, "/dashboard?lang=nl")).page
        await page.locator("#by-from").fill("2026-11-24")
        await page.locator("#by-to").fill("2026-11-25")
        await page.locator("#filters button[type=submit]").click()
        await expect(page).to_have_url(re.compile("to=2026-11-25"))
        await expect(page.locator("#clear")).to_be_visible()
        query = last_query(stand)
        assert (query["from"], query["to"]) == ("2026-11-23T23:00:00.000Z", "2026-11-25T23:00:00.000Z")


async def test_a_click_on_a_head_sorts_and_another_one_turns_it_round(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard?lang=en")).page
        head = page.locator("#heads .of-score")
        for order, told, first in (("desc", "descending", "99"), ("asc", "ascending", "20")):
            await head.locator("a").click()
            await expect(head).to_have_attribute("aria-sort", told)
            await expect(page.locator("#rows tr").first.locator(".of-score b")).to_have_text(first)
            assert last_query(stand) == {"sort": "score", "order": order}


async def test_the_way_to_other_pages_keeps_filter_and_order(stand: Stand) -> None:
    stand.rows = [row(number) for number in range(1, MANY + 1)]
    async with browsing(viewport=WIDE) as context:
        page = (
            await looking(context, stand.port, "/dashboard?lang=en&outcome=rejected&sort=id&order=asc")
        ).page
        await expect(page.locator("#pages")).to_contain_text("1 to 50 of 1,250")
        await page.locator("#pages a[rel=next]").click()
        await expect(page.locator("#pages")).to_contain_text("51 to 100 of 1,250")
        assert last_query(stand) == {"outcome": "rejected", "sort": "id", "order": "asc", "page": "2"}
        await page.locator("#pages a[rel=prev]").click()
        await expect(page.locator("#pages")).to_contain_text("Page 1 of 25")


async def test_an_address_opens_the_view_it_stands_for(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard?lang=en&persona=velo_user&page=1")).page
        await expect(page.locator("#by-persona")).to_have_value("velo_user")
        await expect(page.locator("#stats dd").first).to_have_text("30")


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
async def test_names_of_any_kind_are_only_names(stand: Stand, viewport: dict[str, int]) -> None:
    stand.rows[:4] = [
        row(1, traineeId=HOSTILE),
        row(2, traineeId="x" * 5000, personaName=HOSTILE),
        row(3, personaName=OVERRIDE),
        row(4, traineeId="שרה כהן"),
    ]
    async with browsing(viewport=viewport) as context:
        look = await looking(context, stand.port, "/dashboard?lang=en")
        page = look.page
        await expect(page.locator("#rows tr").first.locator(".of-trainee bdi")).to_have_text(HOSTILE)
        await expect(page.locator("#rows tr").nth(2).locator(".of-persona bdi")).to_have_text("gro.live")
        await expect(page.locator("#rows img, #rows script")).to_have_count(0)
        tall = await page.locator("#rows tr").nth(1).locator(".of-trainee .cell").bounding_box()
        assert tall is not None and tall["height"] < 80
        assert await look.overflow() <= 0
        assert "owned" not in await page.title()
        assert look.complaints == []


async def test_a_session_that_goes_on_has_a_state_and_no_figures(stand: Stand) -> None:
    stand.rows[0] = row(1, status="active", outcome=None, score=None, durationMs=None)
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard?lang=en")).page
        first = page.locator("#rows tr").first
        await expect(first.locator(".outcome")).to_have_text("Going on")
        await expect(first.locator(".of-score")).to_have_text("–")
        await expect(first.locator(".of-duration")).to_have_text("–")


async def test_without_sessions_the_page_shows_where_to_begin(stand: Stand) -> None:
    stand.rows = []
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard?lang=nl")).page
        await expect(page.locator("#nothing-text")).to_contain_text("nog geen sessies")
        await expect(page.locator("#nothing-way")).to_have_attribute("href", "/practice?lang=nl")
        await expect(page.locator("#stats")).to_contain_text("–")
        await expect(page.locator("#csv")).to_be_disabled()


async def test_filters_that_nothing_fits_can_be_cleared(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard?lang=en&trainee=nobody")).page
        await expect(page.locator("#nothing-text")).to_contain_text("No session fits")
        await expect(page.locator("#by-trainee")).to_have_value("nobody")
        await page.locator("#nothing-way").click()
        await expect(page.locator("#rows tr")).to_have_count(50)


async def test_the_table_is_saved_with_its_filters(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        look = await looking(context, stand.port, "/dashboard?lang=en&outcome=converted&sort=score&page=1")
        async with look.page.expect_download() as waiting:
            await look.page.locator("#csv").click()
        download = await waiting.value
        assert re.fullmatch(r"sessions \d{4}-\d\d-\d\d\.csv", download.suggested_filename)
        assert last_query(stand, "/api/dashboard/csv") == {"outcome": "converted"}
        assert look.complaints == []


# --- who looks


async def test_the_page_says_whose_sessions_it_shows(stand: Stand) -> None:
    boss, trainee = token("boss", Role.MANAGER, "north"), token("maya", Role.TRAINEE)
    for key, text in ((boss, "the team north"), (trainee, "your own sessions (maya)"), (KEY, "all sessions")):
        async with browsing(viewport=WIDE) as context:
            look = await looking(context, stand.port, "/dashboard?lang=en")
            await expect(look.page.locator("#whose")).to_contain_text("practice-local")
            await look.page.locator("#other-key").click()
            await look.give_key(key)
            await expect(look.page.locator("#whose")).to_contain_text(text)
            await look.page.reload()
            await expect(look.page.locator("#whose")).to_contain_text(text)
            await look.page.locator("#forget").click()
            await expect(look.page.locator("#whose")).to_contain_text("practice-local")


async def test_elsewhere_the_page_asks_for_a_key_and_tells_a_wrong_one() -> None:
    rows = [row(number) for number in range(1, 4)]
    async with (
        standing(Stand(rows=rows), hands_out_tokens=False) as stand,
        browsing(viewport=NARROW) as context,
    ):
        look = await looking(context, stand.port, "/dashboard?lang=en")
        await expect(look.page.locator("#access")).to_be_visible()
        await expect(look.page.locator("#board")).to_be_hidden()
        await look.give_key("not-a-key")
        await expect(look.page.locator("#access-fault")).to_contain_text("did not accept")
        await look.give_key(KEY)
        await expect(look.page.locator("#rows tr")).to_have_count(3)


# --- a session


@pytest.mark.parametrize(
    ("language", "viewport", "scheme"),
    [("nl", WIDE, "light"), ("en", NARROW, "dark"), ("he", WIDE, "light"), ("he", NARROW, "light")],
)
async def test_a_session_shows_talk_attitude_events_steps_and_score(
    stand: Stand, language: str, viewport: dict[str, int], scheme: str
) -> None:
    async with browsing(viewport=viewport, color_scheme=scheme) as context:
        look = await looking(context, stand.port, f"/dashboard/BAT-001?lang={language}")
        page = look.page
        await expect(page.locator("#record-heading")).to_have_text("BAT-001 · Tereza")
        await expect(page.locator("#overall-score")).to_have_text("74")
        await expect(page.locator(".parts .part")).to_have_count(4)
        await expect(page.locator(".parts .value").last).to_have_text("0")
        await expect(page.locator("#lines .line")).to_have_count(len(TALK))
        await expect(page.locator("svg.clock .attitude circle")).to_have_count(6)
        await expect(page.locator("svg.clock .strip")).to_have_count(len(TALK))
        await expect(page.locator("svg.clock .event.client")).to_have_count(2)
        await expect(page.locator("svg.clock .event.error")).to_have_count(1)
        await expect(page.locator("svg.clock .event.supervisor")).to_have_count(2)
        await expect(page.locator("#checklist li")).to_have_count(3)
        for list_id in ("highlights", "fails", "improvements"):
            await expect(page.locator(f"#{list_id} li")).to_have_count(1)
        await expect(page.locator("#compliance")).to_contain_text("It is healthier.")
        await expect(page.locator("#phases")).to_contain_text("smell at home")
        await expect(page.locator("#provisional")).to_be_visible()
        await expect(page.locator("#exports")).to_be_visible()
        assert await look.overflow() <= 0
        assert look.complaints == []


async def test_curve_and_events_stand_on_one_clock(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard/BAT-001?lang=en")).page
        circles = page.locator("svg.clock .attitude circle")
        xs = [float(await circles.nth(at).get_attribute("cx") or 0) for at in range(6)]
        event = float(await page.locator("svg.clock .event.client").last.get_attribute("cx") or 0)
        # 47 s lies between the moods of 46 s and 64 s.
        assert xs == sorted(xs) and xs[3] < event < xs[4]


async def test_evidence_leads_to_the_line_it_was_taken_from(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard/BAT-001?lang=en")).page
        await page.locator("#highlights .because").click()
        cited = page.locator("#lines .line.cited")
        await expect(cited).to_have_count(1)
        await expect(cited.locator("mark")).to_have_text(QUOTE)
        await expect(cited).to_be_in_viewport()
        await page.locator("#checklist .because").click()
        await expect(page.locator("#lines mark")).to_have_text("Good afternoon!")


async def test_a_click_on_the_clock_shows_what_was_said_then(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard/BAT-001?lang=en")).page
        await page.locator("svg.clock .strip").last.click()
        await expect(page.locator("#lines .cited")).to_contain_text("show me quickly")


async def test_report_and_data_are_saved_with_the_readers_key(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard/BAT-001?lang=en")).page
        for button, name in (("#report", "BAT-001.pdf"), ("#files", "BAT-001.zip")):
            async with page.expect_download() as waiting:
                await page.locator(button).click()
            assert (await waiting.value).suggested_filename == name


async def test_a_session_that_is_not_there_is_said_to_be_so(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard/BAT-999?lang=en")).page
        await expect(page.locator("#state")).to_contain_text("no such session")
        await expect(page.locator("#record-body")).to_be_hidden()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"status": "active", "outcome": None, "analysisStatus": "none"}, "still going on"),
        ({"analysisStatus": "pending"}, "being judged"),
        ({"analysisStatus": "failed"}, "could not be judged"),
        ({"analysisStatus": "none"}, "Too little was said"),
    ],
    ids=["runs", "waits", "failed", "too short"],
)
async def test_a_session_without_a_score_says_why(stand: Stand, changes: dict[str, Any], text: str) -> None:
    stand.detail = session(score=None, transcript=[], events=[], attitude=[], supervisorLogs=[], **changes)
    async with browsing(viewport=WIDE) as context:
        look = await looking(context, stand.port, "/dashboard/BAT-001?lang=en")
        await expect(look.page.locator("#no-score")).to_contain_text(text)
        await expect(look.page.locator("#overall-score")).to_have_count(0)
        await expect(look.page.locator("#lines-empty")).to_be_visible()
        assert look.complaints == []


async def test_the_score_appears_by_itself_when_it_is_made(stand: Stand) -> None:
    stand.detail = session(score=None, analysisStatus="pending")
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/dashboard/BAT-001?lang=en")).page
        await expect(page.locator("#report")).to_be_disabled()
        stand.detail = session()
        await expect(page.locator("#overall-score")).to_have_text("74")
        await expect(page.locator("#report")).to_be_enabled()
        await expect(page.locator("#lines .line")).to_have_count(len(TALK))


async def test_hostile_words_of_a_session_stay_words(stand: Stand) -> None:
    score = json.loads(json.dumps(SCORE))
    words = [{"word": HOSTILE, "sequence": 1, "position": 0, "quote": HOSTILE}]
    score |= {
        "summary": HOSTILE,
        "complianceDetails": {"checks": {HOSTILE: HOSTILE}, "forbiddenWords": words},
    }
    score["steps"][0] |= {"name": HOSTILE, "quote": HOSTILE}
    score["remarks"][0] |= {"text": HOSTILE, "quote": OVERRIDE + HOSTILE}
    stand.detail = session(
        personaName=HOSTILE,
        traineeId="y" * 5000,
        scenarioId="z" * 400,
        score=score,
        transcript=[{"startTime": 0.1, "endTime": 2.0, "speaker": "AVATAR", "text": HOSTILE * 40}],
        events=[{"time": 1.0, "type": "VR_INTERACTION", "data": {"a": HOSTILE * 20}}],
        supervisorLogs=[{"time": 1.0, "kind": HOSTILE, "guidance": HOSTILE * 50}],
    )
    for viewport in (WIDE, NARROW):
        async with browsing(viewport=viewport) as context:
            look = await looking(context, stand.port, "/dashboard/BAT-001?lang=en")
            page = look.page
            await expect(page.locator("#lines .line")).to_have_count(1)
            await page.locator(".trail summary").click()
            await expect(page.locator("#record img, #record script")).to_have_count(0)
            assert await look.overflow() <= 0
            assert "owned" not in await page.title()
            assert look.complaints == []
