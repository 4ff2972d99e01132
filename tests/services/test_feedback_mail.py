"""The feedback as an e-mail: what is in it, and what can never get into it."""

from __future__ import annotations

import copy
from datetime import timedelta, timezone
from html.parser import HTMLParser
from typing import Any

import pytest

from coach_server.domain.method.turns import Quality, TechniqueUse, Turn
from coach_server.domain.transcript import Speaker
from coach_server.errors import Invalid
from coach_server.providers.mail import MailMessage
from coach_server.services.practice.feedback import TalkFrame, feedback_document, score_talk
from coach_server.services.practice.feedback_mail import LANGUAGES, MOST_MISSED, feedback_message
from tests.domain.test_progress import HUGO

DOCUMENT: dict[str, Any] = {
    "sessionId": "s-42",
    "overallScore": 84,
    "delta": 7,
    "subScores": {"luisteren": 92, "samenvatten": 78, "objections": 84, "nextStep": 0},
    "notApplicable": ["objections"],
    "highlights": [
        {"type": "warning", "text": "Je noemde features, niet de waarde.", "plain": "p"},
        {"type": "good", "text": 'Je vroeg door: "duur tegenover wat?"', "plain": "p"},
    ],
    "advice": "Oefen nog twee keer deze week met bezwaren.",
    "techniquesUsed": ["1.1", "2.1.5"],
    "techniqueScores": {"2.1.5": 82, "1.1": 95},
    "nextStepSuggestion": "2.1.4",
    "provisional": False,
    "insufficient": False,
    "missedMoments": [
        {
            "id": f"m{n}",
            "name": f"Moment {n}",
            "why": "De klant zei waarom.",
            "better": "Wat maakt het zo dringend?",
            "technique": "2.2",
            "customer": {"quote": "Het loopt elke maand fout."} if n == 1 else None,
            "seller": None,
        }
        for n in range(1, 6)
    ],
    "sessionDuration": "12:34",
    "completedAt": "2025-01-15T14:15:00Z",
}


def message(language: str = "nl", **changes: Any) -> MailMessage:
    document = copy.deepcopy(DOCUMENT) | changes
    return feedback_message(
        document, HUGO, sender="Hugo <hugo@example.com>", to="trainee@example.com", language=language
    )


class Reader(HTMLParser):
    """The tags of a page, and the text a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "html":
            self.attributes = dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_message_tells_the_score_the_change_and_what_to_practise() -> None:
    made = message()

    assert made.subject == "Je feedback op het rollenspel: 84/100"
    assert (made.to, made.conversation_id) == (("trainee@example.com",), "s-42")
    for text in (made.text, " ".join(Reader(made.html).text.split())):
        assert "84/100" in text
        assert "(+7 tegenover de vorige keer)" in text
        assert "Oefen nog twee keer deze week met bezwaren." in text
        assert "Oefen nu: 2.1.4 Ter zijde schuiven" in text
        assert 'Je vroeg door: "duur tegenover wat?"' in text
        assert "Het loopt elke maand fout." in text
        assert text.index("1.1 Koopklimaat creëren") < text.index("2.1.5 Pingpong techniek")


def test_what_went_well_comes_before_what_can_be_better() -> None:
    text = message().text

    assert text.index("WAT GOED GING") < text.index("WAT BETER KAN")


def test_a_criterion_that_did_not_come_up_shows_no_number_and_a_zero_shows() -> None:
    text = message().text

    assert "Bezwaren: niet aan bod gekomen" in text
    assert "Volgende stap: 0/100" in text


@pytest.mark.parametrize(("delta", "shown"), [(7, "+7"), (-3, "-3"), (0, "+0"), (None, None)])
def test_the_change_is_shown_with_its_sign_and_left_out_without_a_previous_talk(
    delta: int | None, shown: str | None
) -> None:
    text = message(delta=delta).text

    assert (f"({shown} tegenover" in text) == (shown is not None)
    assert ("vorige keer" in text) == (shown is not None)


def test_a_score_of_zero_is_shown_as_one() -> None:
    made = message(overallScore=0)

    assert made.subject.endswith(": 0/100")
    assert "Totaalscore: 0/100" in made.text


def test_a_talk_that_was_too_short_has_no_score_at_all() -> None:
    made = message(
        overallScore=None,
        delta=None,
        insufficient=True,
        subScores=dict.fromkeys(DOCUMENT["subScores"]),
        techniqueScores={},
        highlights=[],
        missedMoments=[],
        nextStepSuggestion=None,
    )

    assert made.subject == "Je feedback op het rollenspel"
    assert "te weinig gezegd" in made.text
    assert "/100" not in made.text + made.html
    assert "None" not in made.text + made.html


def test_a_provisional_score_says_so() -> None:
    assert "voorlopig" in message(provisional=True).text
    assert "voorlopig" not in message().text


def test_at_most_three_missed_moments_are_mailed() -> None:
    assert sum(f"Moment {n}" in message().text for n in range(1, 6)) == MOST_MISSED


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_complete_and_reads_in_its_own_direction(language: str) -> None:
    made = message(language)
    page = Reader(made.html)

    assert page.attributes == {"lang": language, "dir": "rtl" if language == "he" else "ltr"}
    assert made.subject.endswith("84/100")
    assert HUGO.technique("2.1.5").name[language] in made.text


@pytest.mark.parametrize(("language", "tag"), [("nl-BE", "nl"), ("fr", "en"), ("", "en"), ("../he", "en")])
def test_a_language_without_words_is_answered_in_english(language: str, tag: str) -> None:
    assert Reader(message(language).html).attributes["lang"] == tag


def test_a_call_is_named_as_one() -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != "sessionId"}

    made = feedback_message(
        document | {"conversationId": "c-1"},
        HUGO,
        sender="hugo@example.com",
        to="a@example.com",
        language="en",
    )

    assert made.subject == "Your call feedback: 84/100"
    assert made.conversation_id == "c-1"


def test_moments_are_shown_in_the_readers_zone() -> None:
    zone = timezone(timedelta(hours=1), "CET")

    made = feedback_message(DOCUMENT, HUGO, sender="hugo@example.com", to="a@example.com", zone=zone)

    assert "2025-01-15 15:15 CET" in made.text


def test_whatever_stands_in_the_document_is_escaped_and_on_one_line() -> None:
    bad = '<script>alert(1)</script>\r\nBcc: x@evil.example\u202e<img src=x onerror="y">'
    moment = {
        **DOCUMENT["missedMoments"][0],
        "why": bad,
        "better": bad,
        "name": bad,
        "customer": {"quote": bad},
    }

    made = message(advice=bad, highlights=[{"type": "good", "text": bad}], missedMoments=[moment])

    page = Reader(made.html)
    assert {"script", "img"}.isdisjoint(page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert not any(line.startswith("Bcc") for line in made.text.splitlines())
    assert "\u202e" not in made.text + made.html
    assert "\n" not in made.subject


def test_an_id_the_method_does_not_have_is_shown_as_it_is() -> None:
    assert "Oefen nu: 9.9\n" in message(nextStepSuggestion="9.9", techniqueScores={"9.9": 1}).text


@pytest.mark.parametrize("to", ["nobody", "a@example.com\r\nBcc: b@example.com", ""])
def test_what_is_no_address_is_refused(to: str) -> None:
    with pytest.raises(Invalid):
        feedback_message(DOCUMENT, HUGO, sender="hugo@example.com", to=to)


CANARY = "Zebrapad zeventien is mijn geheime leverancier."


def talk() -> list[Turn]:
    use = TechniqueUse("1.1", Quality.GOED, "fijn dat u tijd maakt")
    said = [
        (Speaker.AGENT, "Goedemorgen, fijn dat u tijd maakt.", (use,)),
        (Speaker.CUSTOMER, CANARY, ()),
        *[(Speaker.AGENT, "Waarom is dat voor u zo belangrijk?", ()), (Speaker.CUSTOMER, "Zomaar.", ())] * 4,
    ]
    return [Turn(n, who, text, float(n), 1, uses) for n, (who, text, uses) in enumerate(said, 1)]


@pytest.mark.parametrize("keep_words", [True, False])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_real_document_can_be_mailed_and_brings_no_more_of_the_talk_than_it_quotes(
    language: str, keep_words: bool
) -> None:
    turns = talk()
    card = score_talk(turns, HUGO, language="nl", started_at=0.0)
    document = feedback_document(
        card,
        turns,
        HUGO,
        language="nl",
        session=TalkFrame("s", 0.0, 90.0, "completed"),
        keep_words=keep_words,
    )

    made = feedback_message(document, HUGO, sender="hugo@example.com", to="a@example.com", language=language)

    quoted = CANARY in str(document["highlights"]) + str(document["missedMoments"])
    assert (CANARY in made.text) <= quoted
    assert keep_words or "Zebrapad" not in made.text + made.html
    assert "None" not in made.text + made.html
