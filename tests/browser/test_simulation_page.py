"""The browser client of the simulation: choosing, talking aloud and by typing, lines that break, the end. In
front of a scripted stand-in, and once in front of the real server."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import WebSocketRoute, expect

from tests.browser.console import browsing
from tests.browser.simulating import (
    NARROW,
    QUOTE,
    SCORE,
    WIDE,
    Stand,
    Talking,
    hearing,
    looking,
    said,
    session,
    standing,
    talking,
    tone,
)
from tests.serving import serving

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
PIECE_BYTES = 2 * 960
WORDS = (
    "Good afternoon, thank you for making time for me.",
    "What do you use today, and what do you like about it?",
    "What bothers you most about the way it goes now?",
)


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(Stand()) as ready:
        yield ready


# --- a whole talk


@pytest.mark.parametrize(
    ("language", "viewport", "scheme", "heading", "who"),
    [
        ("nl", WIDE, "light", "Kies een klant en begin te praten.", "Jij"),
        ("en", NARROW, "dark", "Choose a customer and start talking.", "You"),
        ("he", NARROW, "light", "בוחרים לקוח ומתחילים לדבר.", "אני"),
        ("he", WIDE, "dark", "בוחרים לקוח ומתחילים לדבר.", "אני"),
    ],
)
async def test_somebody_chooses_types_and_reads_what_it_was_worth(
    stand: Stand, language: str, viewport: dict[str, int], scheme: str, heading: str, who: str
) -> None:
    async with browsing(viewport=viewport, color_scheme=scheme) as context:
        look = await looking(context, stand.port, f"/practice?lang={language}")
        talk = Talking(look.page, look.complaints, stand)
        page = talk.page
        await expect(page.locator("#choose-heading")).to_have_text(heading)
        assert await talk.overflow() <= 0
        await talk.start()
        await stand.tell(
            {"type": "attitude", "value": 2, "direction": "stable"},
            said("AVATAR", "One lighter, please.", 0.5),
        )
        await expect(page.locator("#lines .line.caller .who")).to_have_text("Karel")
        await talk.utter("Good afternoon!", 3.0)
        await expect(page.locator("#lines .line.agent .who")).to_have_text(who)
        await stand.tell({"type": "attitude", "value": 7, "direction": "rising"})
        await expect(page.locator(".mood-bar")).to_have_attribute("aria-valuenow", "7")
        await expect(page.locator(".mood-bar .full")).to_have_count(7)
        assert await talk.overflow() <= 0
        await talk.end()
        await expect(page.locator("#result")).to_have_attribute("data-state", "waiting")
        await stand.tell({"type": "score", "data": SCORE})
        await expect(page.locator("#overall-score")).to_have_text("74")
        await expect(page.locator("#result .outcome")).to_have_attribute("data-outcome", "converted")
        await expect(page.locator("#say")).to_be_hidden()
        await expect(page.locator("#again")).to_be_visible()
        assert await talk.overflow() <= 0
        assert talk.complaints == []


async def test_what_is_asked_of_the_server_is_what_was_chosen(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/practice?lang=en")).page
        await page.locator("#talk-language").select_option("cs")
        await page.locator("#keep-nothing").check()
        await page.locator(".start").first.click()
        await stand.until(lambda: stand.tickets)
    assert stand.created == [
        {
            "scenarioId": "fmc_resistant",
            "traineeId": "practice-local",
            "language": "cs",
            "client": "web",
            "storeTranscript": False,
        }
    ]


async def test_only_customers_who_speak_the_language_are_shown(stand: Stand) -> None:
    stand.scenarios.append(stand.scenarios[0] | {"id": "crm", "title": "Software", "languages": ["nl", "en"]})
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/practice?lang=nl")).page
        await expect(page.locator("#talk-language")).to_have_value("nl")
        await expect(page.locator(".scenario")).to_have_count(1)
        await page.locator("#talk-language").select_option("en")
        await expect(page.locator(".scenario")).to_have_count(2)


async def test_lines_stand_in_the_order_in_which_they_were_spoken(stand: Stand) -> None:
    async with talking(stand) as talk:
        await stand.tell(
            said("AVATAR", "first", 1.0),
            said("AVATAR", "third", 9.0),
            said("TRAINEE", "second", 4.0),
            said("AVATAR", "third, cut", 9.0),
        )
        lines = talk.page.locator("#lines .line > p:last-child")
        await expect(lines).to_have_text(["first", "second", "third, cut"])


async def test_what_the_customer_says_is_only_text(stand: Stand) -> None:
    async with talking(stand, viewport=NARROW) as talk:
        await stand.tell(said("AVATAR", HOSTILE, 1.0), said("TRAINEE", "z" * 2000, 2.0))
        await expect(talk.page.locator("#lines .line")).to_have_count(2)
        await expect(talk.page.locator("#lines img, #lines script")).to_have_count(0)
        assert await talk.overflow() <= 0
        assert "owned" not in await talk.page.title()
        assert talk.complaints == []


async def test_evidence_of_the_score_leads_to_the_line(stand: Stand) -> None:
    async with talking(stand) as talk:
        await stand.tell(said("TRAINEE", QUOTE, 27.2))
        await talk.end()
        await stand.tell({"type": "score", "data": SCORE})
        await talk.page.locator("#highlights .because").click()
        await expect(talk.page.locator("#lines mark")).to_have_count(1)


# --- sound


async def test_the_microphone_is_sent_as_24_khz_pcm_in_pieces_of_40_ms(stand: Stand) -> None:
    async with hearing(viewport=WIDE) as context:
        look = await looking(context, stand.port, "/practice?lang=en")
        talk = Talking(look.page, look.complaints, stand)
        await talk.start()
        await expect(talk.page.locator("#microphone")).to_have_attribute("aria-pressed", "true")
        await stand.until(lambda: len(stand.sent("audio")) >= 40)
        pieces = [base64.b64decode(frame["data"], validate=True) for frame in stand.sent("audio")]
        assert {len(piece) for piece in pieces} == {PIECE_BYTES}
        values = [
            int.from_bytes(piece[at : at + 2], "little", signed=True)
            for piece in pieces
            for at in range(0, PIECE_BYTES, 2)
        ]
        assert max(map(abs, values)) > 300, "the beep of the fake microphone is in it"
        await talk.page.locator("#microphone").click()
        await expect(talk.page.locator("#microphone")).to_have_attribute("aria-pressed", "false")
        await talk.utter("Now I type.", 5.0)
        count = len(stand.sent("audio"))
        await talk.utter("And again.", 7.0)
        assert len(stand.sent("audio")) == count, "a microphone that is off sends nothing"
        assert talk.complaints == []


async def test_the_microphone_is_let_go_when_the_talk_is_over(stand: Stand) -> None:
    async with hearing(viewport=WIDE) as context:
        look = await looking(context, stand.port, "/practice?lang=en")
        talk = Talking(look.page, look.complaints, stand)
        await talk.start()
        await stand.until(lambda: stand.sent("audio"))
        await talk.end()
        await expect(talk.page.locator("#microphone")).to_be_hidden()
        await expect(talk.page.locator("#microphone")).to_have_attribute("data-live", "false")


async def test_without_a_microphone_the_page_says_so_and_one_types(stand: Stand) -> None:
    async with talking(stand) as talk:
        await expect(talk.page.locator("#say-hint")).to_contain_text("You can type.")
        await talk.utter("I type.", 1.0)
        assert stand.sent("text") == [{"type": "text", "text": "I type."}]
        assert stand.sent("audio") == []
        assert talk.complaints == []


async def test_an_interruption_silences_the_customer_at_once(stand: Stand) -> None:
    async with talking(stand) as talk:
        await stand.tell(*({"type": "audio", "data": tone(1.0)} for _ in range(20)))
        await expect(talk.page.locator("#speaking")).to_have_text("Karel is speaking")
        await stand.tell({"type": "interrupted", "heardMs": 300})
        await expect(talk.page.locator("#speaking")).to_be_hidden(timeout=3000)
        await stand.tell({"type": "audio", "data": tone(5.0)})
        await expect(talk.page.locator("#speaking")).to_be_visible()


GAPLESS = """async (piece) => {
  const { Speaker } = await import("/static/simulation/speaker.js");
  const starts = [];
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (at) {
    starts.push([at, this.buffer.duration]);
    return start.call(this, at);
  };
  const speaker = new Speaker(() => {});
  speaker.open();
  for (let at = 0; at < 8; at += 1) speaker.play(piece);
  AudioBufferSourceNode.prototype.start = start;
  speaker.close();
  return starts;
}"""


async def test_pieces_of_the_voice_are_played_without_a_gap(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/practice?lang=en")).page
        starts: list[list[float]] = await page.evaluate(GAPLESS, tone(0.1))
    assert len(starts) == 8
    for (start, length), (following, _) in zip(starts, starts[1:], strict=False):
        assert following == pytest.approx(start + length, abs=1e-6)


RESAMPLED = """async ([from, hertz, piece]) => {
  const { Resampler } = await import("/static/simulation/resampler.js");
  const { RATE } = await import("/static/simulation/pcm.js");
  const wave = Float32Array.from({ length: from }, (_, at) => Math.sin((2 * Math.PI * hertz * at) / from));
  const resampler = new Resampler(from, RATE);
  const made = [];
  for (let at = 0; at < wave.length; at += piece) made.push(...resampler.push(wave.slice(at, at + piece)));
  const middle = made.slice(2000, -2000);
  return [made.length, Math.sqrt(middle.reduce((sum, value) => sum + value * value, 0) / middle.length)];
}"""


async def test_speech_keeps_its_loudness_at_any_rate_of_the_microphone(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/practice?lang=en")).page
        for rate in (16_000, 24_000, 44_100, 48_000, 96_000):
            for piece in (128, 1000):
                count, loud = await page.evaluate(RESAMPLED, [rate, 1000, piece])
                assert count == pytest.approx(24_000, abs=100), rate
                assert loud == pytest.approx(0.707, abs=0.02), rate


async def test_what_24_khz_cannot_hold_does_not_fold_into_speech(stand: Stand) -> None:
    async with browsing(viewport=WIDE) as context:
        page = (await looking(context, stand.port, "/practice?lang=en")).page
        for rate in (44_100, 48_000):
            _, loud = await page.evaluate(RESAMPLED, [rate, 16_000, 128])
            assert loud < 0.01, rate


# --- lines that break


async def test_a_line_that_breaks_is_opened_again_with_the_next_ticket(stand: Stand) -> None:
    async with talking(stand) as talk:
        await talk.utter("Before the gap.", 1.0)
        # What was said while nobody was connected stands in the session.
        lines = [
            {"startTime": 1.0, "endTime": 2.5, "speaker": "TRAINEE", "text": "Before the gap."},
            {"startTime": 4.0, "endTime": 5.0, "speaker": "AVATAR", "text": "In the gap."},
        ]
        stand.detail = session(status="active", outcome=None, score=None, transcript=lines)
        await stand.drop()
        await stand.until(lambda: stand.tickets == ["t0", "t1"])
        await talk.connected()
        await expect(talk.page.locator("#lines .line")).to_have_count(2)
        await talk.utter("After the gap.", 9.0)
        await expect(talk.page.locator("#lines .line")).to_have_count(3)


async def test_words_that_were_on_their_way_are_given_back(stand: Stand) -> None:
    async with talking(stand) as talk:
        await talk.page.locator("#words").fill("Did you hear me?")
        await talk.page.keyboard.press("Enter")
        await stand.until(lambda: stand.sent("text"))
        await expect(talk.page.locator("#words")).to_have_value("")
        await stand.drop()
        await stand.until(lambda: len(stand.tickets) == 2)
        await expect(talk.page.locator("#words")).to_have_value("Did you hear me?")
        await expect(talk.page.locator("#say-hint")).to_contain_text("say it again")


async def test_a_session_that_ended_while_the_line_was_down_shows_its_end(stand: Stand) -> None:
    async with talking(stand) as talk:
        stand.detail = session(outcome="walked_away", endTrigger="disconnect")
        stand.refuses = True
        await stand.drop()
        await expect(talk.page.locator("#result .outcome")).to_have_attribute("data-outcome", "walked_away")
        await expect(talk.page.locator("#overall-score")).to_have_text("74")


async def test_a_score_that_does_not_come_by_the_line_is_fetched(stand: Stand) -> None:
    async with talking(stand) as talk:
        stand.detail = session(score=None, analysisStatus="pending")
        await talk.end()
        await stand.drop()
        await expect(talk.page.locator("#result")).to_have_attribute("data-state", "waiting")
        stand.detail = session()
        await expect(talk.page.locator("#overall-score")).to_have_text("74")


async def test_a_talk_too_short_to_judge_is_said_to_be_so(stand: Stand) -> None:
    async with talking(stand) as talk:
        stand.detail = session(score=None, analysisStatus="none", outcome=None, endTrigger="client")
        await talk.end(None, "client")
        await stand.drop()
        await expect(talk.page.locator("#result")).to_contain_text("Too little was said")
        await expect(talk.page.locator("#result .outcome")).to_have_attribute("data-outcome", "none")


async def test_a_talk_that_goes_on_elsewhere_is_not_fetched_back(stand: Stand) -> None:
    async with talking(stand) as talk:
        await stand.drop(1008)
        await expect(talk.page.locator("#notice-text")).to_contain_text("opened elsewhere")
        await expect(talk.page.locator("#again")).to_be_visible()
        assert stand.tickets == ["t0"]


async def test_the_line_stays_with_the_pages_own_host(stand: Stand) -> None:
    """The stand-in's wsUrl names another host, as a server behind a proxy may."""
    async with talking(stand) as talk:
        assert stand.tickets == ["t0"]
        assert talk.complaints == []


async def test_a_refusal_of_the_server_is_told(stand: Stand) -> None:
    async with talking(stand) as talk:
        await stand.tell({"type": "error", "code": "VOICE_LOST", "message": "x", "retryable": True})
        await expect(talk.page.locator("#notice-text")).to_contain_text("gone for a moment")
        await stand.tell({"type": "error", "code": "INVALID", "message": "text must not be empty."})
        await expect(talk.page.locator("#notice-text")).to_contain_text("text must not be empty")


async def test_the_end_is_asked_for_and_another_talk_can_begin(stand: Stand) -> None:
    async with talking(stand) as talk:
        await talk.utter("Hello.", 1.0)
        await talk.page.locator("#stop").click()
        await stand.until(lambda: stand.sent("end_session"))
        await talk.end(None, "client")
        await talk.page.locator("#again").click()
        await expect(talk.page.locator("#choose")).to_be_visible()
        await talk.start()
        await expect(talk.page.locator("#lines .line")).to_have_count(0)
        await expect(talk.page.locator("#result")).to_be_hidden()
        assert len(stand.created) == 2


# --- the real server


async def test_a_talk_with_the_built_in_customer_stands_on_the_dashboard(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, browsing(viewport=WIDE) as context:
        look = await looking(context, server.port, "/practice?lang=en")
        page = look.page
        await page.locator(".start").first.click()
        await expect(page.locator("#connection")).to_have_attribute("data-state", "connected")
        for number, text in enumerate(WORDS, 1):
            await page.locator("#words").fill(text)
            await page.keyboard.press("Enter")
            await expect(page.locator("#lines .line.agent")).to_have_count(number)
            await expect(page.locator("#lines .line.caller")).to_have_count(number)
        await expect(page.locator(".mood-bar")).not_to_have_attribute("data-level", "")
        await page.locator("#stop").click()
        await expect(page.locator("#result .outcome")).to_be_visible()
        score = await page.locator("#overall-score").inner_text()
        await page.goto(f"http://localhost:{server.port}/dashboard?lang=en")
        await expect(page.locator("#rows tr")).to_have_count(1)
        await expect(page.locator("#stats dd").first).to_have_text("1")
        await expect(page.locator("#rows .of-score b")).to_have_text(score)
        await page.locator("#rows a").click()
        await expect(page.locator("#lines .line")).to_have_count(2 * len(WORDS))
        await expect(page.locator("svg.clock .attitude circle").first).to_be_attached()
        await expect(page.locator("#overall-score")).to_have_text(score)
        await expect(page.locator("#checklist li").first).to_be_visible()
        for button, beginning in (("#report", b"%PDF"), ("#files", b"PK")):
            async with page.expect_download() as waiting:
                await page.locator(button).click()
            saved = await (await waiting.value).path()
            assert saved.read_bytes().startswith(beginning)
        assert faults(look.complaints) == []


async def test_a_talk_with_the_real_server_goes_on_after_its_line_broke(tmp_path: Path) -> None:
    lines: list[tuple[WebSocketRoute, WebSocketRoute]] = []
    async with serving(tmp_path) as server, browsing(viewport=WIDE) as context:
        await context.route_web_socket("**/ws/sessions/**", lambda line: _through(line, lines))
        look = await looking(context, server.port, "/practice?lang=en")
        page = look.page
        await page.locator(".start").first.click()
        await expect(page.locator("#connection")).to_have_attribute("data-state", "connected")
        for number, text in enumerate(WORDS, 1):
            await page.locator("#words").fill(text)
            await page.keyboard.press("Enter")
            await expect(page.locator("#lines .line.caller")).to_have_count(number)
            for side in lines[-1]:
                await side.close(code=3000)
            await expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
            await expect(page.locator("#connection")).to_have_attribute("data-state", "connected")
        assert len(lines) == len(WORDS) + 1
        await expect(page.locator("#lines .line.agent > p:last-child")).to_have_text(list(WORDS))


def _through(line: WebSocketRoute, lines: list[tuple[WebSocketRoute, WebSocketRoute]]) -> None:
    """To the real server, by a line that the test can break."""
    lines.append((line, line.connect_to_server()))


def faults(complaints: list[str]) -> list[Any]:
    return [text for text in complaints if "409" not in text]
