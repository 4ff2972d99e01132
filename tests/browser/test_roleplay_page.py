"""The practice page in a real browser, with the real server: from choosing a customer to the result."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import WebSocketRoute, expect

from tests.browser.console import browsing, need_socket_client
from tests.browser.practice import Practising, answer, at
from tests.serving import KEY, Server, serving

pytestmark = pytest.mark.browser

HOSTILE = (
    '<img src=x onerror="document.title=\'owned\'"> <b>zeven</b> <script>document.title="owned"</script>'
)
NARROW = {"width": 360, "height": 780}
WIDE = {"width": 1280, "height": 860}


@pytest.fixture(autouse=True)
def _npm_packages() -> None:
    need_socket_client()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        yield running


def feedback(**changes: Any) -> dict[str, Any]:
    """A feedback document as the server makes it, of a talk that went half well."""
    document: dict[str, Any] = {
        "sessionId": "any",
        "status": "completed",
        "method": {"id": "hugo", "version": 1},
        "source": "offline",
        "provisional": False,
        "insufficient": False,
        "overallScore": 58,
        "delta": -3,
        "band": 9,
        "subScores": {"luisteren": 71, "samenvatten": 40, "objections": 58, "nextStep": 0},
        "notApplicable": ["objections"],
        "comparedToPrevious": {"luisteren": {"previous": 64, "current": 71, "delta": 7}},
        "highlights": [{"type": "good", "text": "Doorgevraagd: “Hoe lang al?”", "plain": ""}],
        "advice": "Vat samen voor je aanbeveelt.",
        "nextStepSuggestion": "1.1",
        "techniquesUsed": ["1.1"],
        "techniqueScores": {"1.1": 70},
        "missedMoments": [],
        "drills": [],
        "sessionDuration": "04:12",
    }
    return document | changes


@pytest.mark.parametrize(
    ("language", "viewport", "scheme", "texts"),
    [
        ("nl", WIDE, "light", ("Kies een klant", "Wat het gesprek waard was", "Luisteren")),
        ("en", NARROW, "dark", ("Choose a customer", "What the talk was worth", "Listening")),
        ("he", NARROW, "light", ("בוחרים לקוח", "מה השיחה הייתה שווה", "הקשבה")),
    ],
    ids=["Dutch, wide, light", "English, narrow, dark", "Hebrew, narrow, light"],
)
async def test_somebody_chooses_a_customer_talks_and_reads_what_it_was_worth(
    server: Server,
    language: str,
    viewport: dict[str, int],
    scheme: str,
    texts: tuple[str, str, str],
) -> None:
    choose, worth, listening = texts
    async with browsing(viewport=viewport, color_scheme=scheme) as context:
        talk = await at(context, server, f"/roleplay?lang={language}")
        page = talk.page
        direction = "rtl" if language == "he" else "ltr"
        await expect(page.locator("html")).to_have_attribute("dir", direction)
        await expect(page.locator("#choose-heading")).to_have_text(re.compile(choose))
        await expect(page.locator("#talk-language")).to_have_value(language)
        assert await talk.overflow() <= 0

        await talk.start()
        await expect(page.locator("#flow-phases .phase")).to_have_count(4)
        await expect(page.locator("#flow-phases .step")).to_have_count(23)
        await expect(page.locator("#flow-phases [aria-current=step]")).to_have_count(1)
        assert await talk.overflow() <= 0
        await talk.talk(language)
        await expect(page.locator("#share-text")).to_have_text(re.compile(r"\d+%.*\d+%"))
        await expect(page.locator("#answered-by")).to_be_visible()
        assert await talk.overflow() <= 0

        await talk.stop()
        await expect(page.locator("#analysis-heading")).to_have_text(worth)
        await expect(page.locator("#overall-score")).to_have_text(re.compile(r"^\d{1,3}$"))
        await expect(page.locator(".parts .part")).to_have_count(4)
        await expect(page.locator(".parts")).to_contain_text(listening)
        await expect(page.locator("#analysis-body .drill").first).to_be_visible()
        assert await talk.overflow() <= 0
        assert talk.faults == []


async def test_a_step_tells_what_it_is_for_and_can_be_ticked_off(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        await talk.start()
        first = talk.page.locator("#flow-phases .step").first
        await expect(first).to_have_attribute("data-status", "current")
        await first.locator(".step-name").click()
        await expect(first.locator(".more")).to_contain_text("Doel")
        await expect(first.locator(".more")).to_contain_text("Wanneer")
        await first.locator(".tick-off").click()
        await expect(first).to_have_attribute("data-status", "completed")
        second = talk.page.locator("#flow-phases .step").nth(1)
        await expect(second).to_have_attribute("data-status", "current")
        await expect(talk.page.locator(".phase .count").first).to_have_text("1 van 4")
        assert talk.faults == []


async def complete_the_opening(talk: Practising) -> None:
    for number in range(4):
        step = talk.page.locator("#flow-phases .step").nth(number)
        await expect(step).to_have_attribute("data-status", "current")
        await step.locator(".step-name").click()
        await step.locator(".tick-off").click()
        await expect(step).to_have_attribute("data-status", "completed")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
async def test_a_completed_phase_is_celebrated_and_opens_the_next(server: Server, motion: str) -> None:
    async with browsing(viewport=WIDE, reduced_motion=motion) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        await talk.start()
        await complete_the_opening(talk)
        page = talk.page
        await expect(page.locator("#celebration")).to_be_visible()
        await expect(page.locator("#cheer-name")).to_have_text("Openingsfase")
        await expect(page.locator("#cheer-next")).to_contain_text("Ontdekkingsfase")
        pieces = await page.locator("#confetti i").count()
        assert (pieces > 0) == (motion == "no-preference")
        await expect(page.locator("#flow-phases .phase").nth(1)).to_have_attribute("data-state", "current")
        await expect(page.locator("#flow-phases .phase").nth(1)).to_have_attribute("open", "")
        await expect(page.locator("#celebration")).to_be_hidden()
        await page.locator("#stop").focus()
        assert talk.faults == []


async def test_a_hint_stands_beside_the_talk_and_names_the_step(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        await talk.start()
        await expect(talk.page.locator("#hints-empty")).to_be_visible()
        for text in (
            "Ons product is het beste op de markt en kost maar honderd euro per maand.",
            "We hebben ook een uitgebreide module voor rapporten, die zit erbij.",
            "Zal ik u meteen het contract sturen?",
            "U kunt vandaag nog tekenen.",
        ):
            await talk.utter(text)
        await expect(talk.page.locator("#hints .hint-card").first).to_be_visible()
        await expect(talk.page.locator("#hints-empty")).to_be_hidden()


async def cut_off(server: Server) -> None:
    sio = server.coaching.sio
    for sid, _ in list(sio.manager.get_participants("/", None)):
        await sio.disconnect(sid)


async def test_a_talk_goes_on_after_the_connection_was_lost(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        page = talk.page
        await talk.start()
        await talk.utter("Goeiedag, fijn dat u tijd hebt.")
        await cut_off(server)
        await expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
        await page.locator("#words").fill("Hoe lang werkt u al met uw leverancier?")
        await page.keyboard.press("Enter")
        await expect(page.locator("#connection-text")).to_contain_text("Weer terug")
        await expect(talk.lines("caller")).to_have_count(3)
        await expect(talk.lines("agent")).to_have_count(2)
        assert talk.faults == []


@dataclass
class Line:
    """The socket between the page and the server. While `mute`, the customer's answers get lost on it."""

    mute: bool = False

    def between(self, client: WebSocketRoute) -> None:
        server = client.connect_to_server()

        def forth(message: str | bytes) -> None:
            if not (self.mute and "roleplay:reply" in str(message)):
                client.send(message)

        server.on_message(forth)


async def test_an_answer_that_was_missed_while_away_is_fetched(server: Server) -> None:
    line, asked = Line(), list[str]()
    async with browsing(viewport=WIDE) as context:
        await context.route_web_socket(re.compile("/socket.io/"), line.between)
        talk = await at(context, server, "/roleplay?lang=nl")
        page = talk.page
        page.on("request", lambda request: asked.append(request.url))
        await talk.start()
        line.mute = True
        await page.locator("#words").fill("Goeiedag, fijn dat u tijd hebt.")
        await page.keyboard.press("Enter")
        await expect(talk.lines("agent")).to_have_count(1)
        await cut_off(server)
        await expect(talk.lines("caller")).to_have_count(2)
        await expect(talk.lines("agent")).to_have_count(1)
    assert any(url.endswith("/message") for url in asked)


async def test_nothing_is_kept_of_a_talk_whose_words_are_not_to_be_kept(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        page = talk.page
        await page.locator("#keep-nothing").check()
        async with page.expect_request("**/sessions/start") as asked:
            await page.locator(".scenario .start").first.click()
        assert (await asked.value).post_data_json["storeTranscript"] is False
        await expect(page.locator("#say-hint")).to_contain_text("niet bewaard")
        await page.locator("#words").fill("Een zin die nergens mag blijven staan: kanariegeel.")
        await page.keyboard.press("Enter")
        await expect(talk.lines("agent").locator(".state")).to_contain_text("niet bewaard")
        await talk.stop()
    for path in server.data_dir.rglob("*"):
        assert not path.is_file() or b"kanariegeel" not in path.read_bytes(), path.name


async def test_a_drill_of_the_result_is_played_at_once(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        page = talk.page
        await talk.start()
        await talk.talk("nl")
        await talk.stop()
        await page.locator("#analysis-body .play-again").first.click()
        await talk.begun()
        await expect(page.locator("#elapsed")).to_have_attribute("title", "Tijd over")
        await talk.utter("Tja.")
        await talk.stop()
        await expect(page.locator("#replayed")).to_have_attribute("data-status", "open")
        await expect(page.locator("#honest")).to_have_count(0)
        await page.locator("#replayed button").click()
        await talk.begun()
        await talk.stop()
        await page.locator("#again").click()
        await expect(page.locator("#open-drills")).to_be_visible()
        assert talk.faults == []


DELTAS = [(-3, "−3", "down"), (7, "+7", "up"), (0, "Evenveel", "same"), (None, "Geen score", "")]


@pytest.mark.parametrize(("delta", "shown", "kind"), DELTAS, ids=["worse", "better", "equal", "first"])
async def test_the_change_since_the_last_time_is_shown_with_its_sign(
    server: Server, delta: int | None, shown: str, kind: str
) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        await answer(talk.page, "**/feedback", feedback(delta=delta))
        await talk.start()
        await talk.utter("Goeiedag.")
        await talk.stop()
        line = talk.page.locator(".delta")
        await expect(line).to_contain_text(shown)
        assert kind in (await line.get_attribute("class") or "")


async def test_a_zero_is_a_score_and_what_had_no_occasion_is_none(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        await answer(talk.page, "**/feedback", feedback(overallScore=0))
        await talk.start()
        await talk.utter("Goeiedag.")
        await talk.stop()
        parts = talk.page.locator(".parts .part")
        await expect(talk.page.locator("#overall-score")).to_have_text("0")
        await expect(parts.nth(3).locator(".value")).to_have_text("0")
        await expect(parts.nth(2)).to_contain_text("geen aanleiding")
        await expect(parts.nth(0).locator(".change")).to_have_text("+7")


async def test_a_result_without_a_model_or_without_enough_words_says_so(server: Server) -> None:
    scores = dict.fromkeys(("luisteren", "samenvatten", "objections", "nextStep"))
    short = feedback(insufficient=True, provisional=True, overallScore=None, subScores=scores, delta=None)
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        await answer(talk.page, "**/feedback", short)
        await talk.start()
        await talk.utter("Goeiedag.")
        await talk.stop()
        await expect(talk.page.locator("#honest")).to_contain_text("te weinig gezegd")
        await expect(talk.page.locator("#honest")).to_contain_text("taalmodel was niet beschikbaar")
        await expect(talk.page.locator("#overall-score")).to_have_count(0)


async def test_a_talk_in_which_nothing_was_said_is_not_scored(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        await talk.start()
        await talk.stop()
        await expect(talk.page.locator("#honest")).to_contain_text("te weinig gezegd")
        await expect(talk.page.locator("#overall-score")).to_have_count(0)
        assert talk.complaints == []


async def test_markup_that_somebody_says_stays_text_everywhere(server: Server) -> None:
    hostile = feedback(
        advice=HOSTILE,
        highlights=[{"type": "warning", "text": HOSTILE}],
        missedMoments=[
            {
                "id": "x",
                "name": HOSTILE,
                "why": HOSTILE,
                "better": HOSTILE,
                "technique": "1.1",
                "customer": {"quote": HOSTILE, "speaker": "hugo"},
                "seller": None,
            }
        ],
    )
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        page = talk.page
        await answer(page, "**/feedback", hostile)
        await talk.start()
        await talk.utter(HOSTILE)
        assert await page.locator("#lines .line.agent > p:last-child").inner_text() == HOSTILE
        await talk.stop()
        await expect(page.locator("#analysis-body")).to_contain_text("<img src=x")
        await expect(page.locator("#lines img, #analysis-body img, #analysis-body script")).to_have_count(0)
        assert "owned" not in await page.title()
        assert talk.faults == []


async def test_everything_can_be_done_from_the_keyboard(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=en")
        page, keys = talk.page, talk.page.keyboard
        await page.locator(".scenario .start").first.focus()
        await keys.press("Enter")
        await talk.begun()
        await expect(page.locator("#words")).to_be_focused()
        await keys.type("Good morning, thank you for your time.")
        await keys.press("Enter")
        await expect(talk.lines("caller")).to_have_count(2)
        await expect(page.locator("#announcer")).to_contain_text(":")
        step = page.locator("#flow-phases .step-name").first
        await step.focus()
        await keys.press("Enter")
        await expect(step).to_have_attribute("aria-expanded", "true")
        await page.locator("#stop").focus()
        await keys.press("Enter")
        await expect(page.locator("#analysis")).to_be_focused()
        await expect(page.locator("#analysis")).to_have_attribute("data-state", "ready")


SPEECH = """
window.SpeechRecognition = class extends EventTarget {
  start() { window.heard = this; }
  stop() { this.dispatchEvent(new Event("end")); }
  abort() { this.dispatchEvent(new Event("end")); }
  hear(text) {
    this.dispatchEvent(Object.assign(new Event("result"), { results: [[{ transcript: text }]] }));
    this.stop();
  }
};
"""


async def test_what_is_spoken_is_said_where_the_browser_recognises_speech(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        await context.add_init_script(SPEECH)
        talk = await at(context, server, "/roleplay?lang=nl")
        page = talk.page
        await talk.start()
        await page.locator("#microphone").click()
        await expect(page.locator("#microphone")).to_have_attribute("aria-pressed", "true")
        assert await page.evaluate("heard.lang") == "nl-BE"
        await page.evaluate("heard.hear('Goeiedag, stoor ik u niet?')")
        await expect(talk.lines("caller")).to_have_count(2)
        await expect(page.locator("#lines .line.agent")).to_contain_text("stoor ik u niet")
        await expect(page.locator("#microphone")).to_have_attribute("aria-pressed", "false")


async def test_without_speech_recognition_there_is_no_microphone(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        await context.add_init_script(
            "delete window.webkitSpeechRecognition; delete window.SpeechRecognition"
        )
        talk = await at(context, server, "/roleplay")
        await talk.start()
        await expect(talk.page.locator("#microphone")).to_be_hidden()


async def test_behind_a_proxy_a_user_token_lets_its_user_practise(tmp_path: Path) -> None:
    async with serving(tmp_path, TRUST_PROXY="true") as server, browsing() as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        page = talk.page
        await expect(page.locator("#access")).to_be_visible()
        await page.locator("#access-key").fill("not the key")
        await page.locator("#access-form button").click()
        await expect(page.locator("#access-fault")).to_contain_text("niet aanvaard")
        await page.locator("#access-key").fill(await server.token("maya", "trainee"))
        await page.locator("#access-form button").click()
        await talk.start()
        await talk.utter("Goeiedag!")
        assert await page.evaluate("localStorage.length + document.cookie.length") == 0


async def test_an_api_key_practises_as_a_user_of_this_browser(tmp_path: Path) -> None:
    async with serving(tmp_path, TRUST_PROXY="true") as server, browsing() as context:
        talk = await at(context, server, "/roleplay?lang=nl")
        page = talk.page
        await page.locator("#access-key").fill(KEY)
        await page.locator("#access-form button").click()
        await talk.start()
        assert re.fullmatch(r"practice-\w{12}", await page.evaluate("localStorage['practice-user']"))
        assert KEY not in await page.content()


async def test_a_locked_step_is_refused_with_what_is_missing(server: Server) -> None:
    async with browsing(viewport=WIDE) as context:
        talk = await at(context, server, "/roleplay?lang=nl&step=4.1")
        page = talk.page
        await expect(page.locator("#begin-at")).to_contain_text("4.1")
        await page.locator(".scenario .start").first.click()
        await expect(page.locator("#notice")).to_contain_text("1.1")
        await expect(page.locator("body")).to_have_attribute("data-phase", "idle")
