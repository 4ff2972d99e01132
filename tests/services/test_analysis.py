from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coach_server.domain.detection import Detection, Objection, Signal
from coach_server.domain.tip import Label, ShownTip, Source, Stage, Tip, TipOption, Trigger
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.errors import ConfigError, Unavailable
from coach_server.paths import bundled, catalog
from coach_server.services.analysis import QUOTE_CHARS, CallRecord, analyse, polish
from coach_server.services.analysis_wording import load_wordings, read_wording, wording_for
from coach_server.services.answers import SCHEMAS
from coach_server.services.demo import load_demo
from coach_server.services.detector import Detector
from coach_server.services.prompts import Prompts

START = 1_700_000_000.0
OPEN = Detection(signals=(Signal.QUESTION_OPEN,))
CLOSED = Detection(signals=(Signal.QUESTION_CLOSED,))
BUYING = Detection(signals=(Signal.BUYING,))
REFUSAL = Detection(signals=(Signal.REFUSAL,))
PAIN = Detection(signals=(Signal.PAIN,))
PITCH = Detection(stage=Stage.VALUE_PROP, confidence=0.9)


def objecting(kind: Objection) -> Detection:
    return Detection(objections=(kind,))


@pytest.fixture(autouse=True, scope="module")
def wording_is_read() -> None:
    """The server analyses in a thread; the tests here may do it on the loop once the files are read."""
    for language in ("en", "nl", "he", "fr"):
        wording_for(language)


class ScriptedEyes:
    """Sees what it was told to see in each text, and notes what it was asked."""

    def __init__(self, seen: Mapping[str, Detection]) -> None:
        self.seen = dict(seen)
        self.asked: list[tuple[str, Speaker, str, tuple[str, ...]]] = []

    def detect_rules(
        self, text: str, *, speaker: Speaker, language: str, context: tuple[str, ...] = ()
    ) -> Detection:
        self.asked.append((text, speaker, language, tuple(context)))
        if text in self.seen:
            return self.seen[text]
        # One sentence of an utterance: it carries the utterance's question when it is one.
        whole = next((d for known, d in self.seen.items() if text in known), Detection())
        asked = {Signal.QUESTION_OPEN, Signal.QUESTION_CLOSED} if text.endswith("?") else set()
        return Detection(signals=tuple(signal for signal in whole.signals if signal in asked))


Said = tuple[str, str] | tuple[str, str, Detection]


def call(*said: Said, language: str = "en", **changes: Any) -> tuple[CallRecord, ScriptedEyes]:
    utterances, seen = [], {}
    for number, (who, text, *rest) in enumerate(said, start=1):
        at = START + 5.0 * number
        speaker = Speaker.AGENT if who == "a" else Speaker.CUSTOMER
        utterances.append(Utterance(number, speaker, text, at, at + 0.2))
        seen[text] = rest[0] if rest else Detection()
    record = CallRecord(
        conversation_id="c-1",
        language=language,
        started_at=START,
        ended_at=START + 5.0 * len(said) + 3.0,
        status="ended",
        utterances=tuple(utterances),
        tips=(),
        last_stage=Stage.GREETING,
        facts={},
    )
    return replace(record, **changes), ScriptedEyes(seen)


GOOD_CALL: tuple[Said, ...] = (
    ("a", "Good morning, how do you plan the rounds today?", OPEN),
    ("c", "By hand, and it goes wrong every week, that is a real problem.", PAIN),
    ("a", "What does it cost you when it goes wrong?", OPEN),
    ("c", "About nine hundred a month, I think, and sometimes a customer who leaves us."),
    ("a", "So if I hear you right, nine hundred a month. Is that a fair summary?", CLOSED),
    ("c", "Yes, it is."),
    ("a", "Then our planner takes that away.", PITCH),
    ("c", "It is too expensive.", objecting(Objection.PRICE)),
    ("a", "I understand. What are you comparing the price with?", OPEN),
    ("c", "Fair point. How soon can we start?", BUYING),
    ("a", "Does Thursday the twelfth at ten suit you for a demo?", CLOSED),
    ("c", "Thursday is fine."),
)


def shown(heard: int, script: str, *, name: str = "t1", selected: int | None = None) -> ShownTip:
    options = (
        TipOption(Label.MINIMAL, script, "line-7"),
        TipOption(Label.EXPLANATIVE, "Something else entirely about horses."),
        TipOption(Label.CONTEXTUAL, "A third sentence that nobody says."),
    )
    tip = Tip(Stage.DISCOVERY, "Ask cost", "They named a problem", options, Source.OFFLINE)
    return ShownTip(name, tip, Trigger.INTERVAL, START + 5.0 * heard + 1, heard, 14, selected)


def texts_in(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in texts_in(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item)]
    return []


def ids(remarks: Sequence[Mapping[str, Any]]) -> list[str]:
    return [remark["id"] for remark in remarks]


def test_a_good_call_is_told_with_its_figures_stages_and_next_step() -> None:
    document = analyse(*call(*GOOD_CALL, facts={"budget": "nine hundred", "email_known": "yes"}))
    assert document["source"] == "offline"
    assert (document["insufficient"], document["provisional"]) == (False, False)
    assert document["durationMs"] == 63_000
    assert document["summary"] == (
        "The call took 1 min 3 s and got as far as the next steps. One objection came up (price); the agent "
        "asked what was behind it. The customer showed interest in buying. Told during the call: budget: "
        "nine hundred. Agreed: Thursday the twelfth at ten."
    )
    assert document["stage"]["reached"] == Stage.NEXT_STEPS
    assert [(entry["stage"], entry["sequence"]) for entry in document["stage"]["path"]] == [
        ("GREETING", 1),
        ("DISCOVERY", 2),
        ("VALUE_PROP", 7),
        ("OBJECTION_HANDLING", 8),
        ("NEXT_STEPS", 10),
    ]
    assert document["questions"] == {"open": 3, "closed": 2, "openShare": 0.6}
    assert document["conduct"] == {
        "talkShare": 0.57,
        "agentWords": 59,
        "customerWords": 44,
        "longestMonologueWords": 15,
        "longestMonologueMs": 200,
        "wordsPerMinute": None,
    }
    assert ids(document["strengths"]) == ["next_step", "objection_explored", "buying_taken_up"]
    assert document["improvements"] == []


def test_an_objection_carries_quote_place_response_and_how_it_was_met() -> None:
    (objection,) = analyse(*call(*GOOD_CALL))["objections"]
    assert objection == {
        "kind": "price",
        "quote": "It is too expensive.",
        "speaker": "caller",
        "sequence": 8,
        "atMs": 40_000,
        "met": "explored",
        "aftermath": "accepted",
        "response": {
            "quote": "I understand. What are you comparing the price with?",
            "speaker": "agent",
            "sequence": 9,
            "atMs": 45_000,
        },
        "betterLine": None,
    }


@pytest.mark.parametrize(
    ("reply", "detection", "met"),
    [
        ("I understand. It pays for itself in a month.", Detection(), "answered"),
        ("And what else is on your list?", OPEN, "explored"),
        ("No, but it really is not expensive at all.", Detection(), "argued"),
        ("Let me see, we can do ten percent discount then.", Detection(), "conceded"),
        ("We also have a depot in the north of Leeds.", Detection(), "ignored"),
    ],
)
def test_objections_are_met_in_five_ways(reply: str, detection: Detection, met: str) -> None:
    document = analyse(
        *call(
            ("a", "Here is the offer."),
            ("c", "That is too dear.", objecting(Objection.PRICE)),
            ("a", reply, detection),
            ("c", "Hm."),
        )
    )
    (objection,) = document["objections"]
    assert objection["met"] == met
    assert (objection["betterLine"] is None) is (met in ("answered", "explored"))
    if met in ("argued", "ignored", "conceded"):
        improvement = next(i for i in document["improvements"] if i["id"] == f"objection_{met}")
        assert improvement["betterLine"] == objection["betterLine"]
        assert [quote["sequence"] for quote in improvement["evidence"]] == [2, 3]


def test_an_objection_nobody_replied_to_is_ignored_and_one_that_comes_back_is_repeated() -> None:
    document = analyse(
        *call(
            ("c", "That is too dear.", objecting(Objection.PRICE)),
            ("a", "I understand, it is a lot of money."),
            ("c", "Still too dear.", objecting(Objection.PRICE)),
            ("a", "Okay."),
            ("c", "And we have no time.", objecting(Objection.TIMING)),
        )
    )
    first, second, third = document["objections"]
    assert (first["met"], first["aftermath"]) == ("answered", "repeated")
    assert (second["met"], third["met"]) == ("ignored", "ignored")
    assert second["response"] is None, "a lone okay is no answer"
    assert "objection_repeated" in ids(document["improvements"]) or len(document["improvements"]) == 3


def test_every_quote_is_the_very_words_of_the_utterance_it_names() -> None:
    record, eyes = call(*GOOD_CALL, tips=(shown(2, "What does it cost you when it goes wrong?"),))
    document = analyse(record, eyes)
    quotes: list[Mapping[str, Any]] = []

    def collect(value: object) -> None:
        if isinstance(value, Mapping):
            if value.get("quote") is not None:
                quotes.append(value)
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(document)
    assert len(quotes) > 10
    by_sequence = {u.sequence: u for u in record.utterances}
    for quote in quotes:
        utterance = by_sequence[quote["sequence"]]
        assert quote["quote"] == utterance.text
        assert quote["atMs"] == round((utterance.said_at - START) * 1000)
        assert quote["speaker"] == ("agent" if utterance.speaker is Speaker.AGENT else "caller")


@pytest.mark.parametrize("language", ["en", "nl", "he", "fr"])
def test_nothing_that_was_said_is_in_the_document_when_it_may_not_be_kept(language: str) -> None:
    canary = "kanariegeel"
    said = tuple((who, f"{text} {canary}", *rest) for who, text, *rest in GOOD_CALL)
    record, eyes = call(
        *said,
        language=language,
        store_text=False,
        facts={"budget": canary},
        tips=(shown(2, f"What does it cost you when it goes wrong? {canary}"),),
    )
    document = analyse(record, eyes)
    assert canary not in json.dumps(document)
    assert document["facts"] == {}
    words = set(" ".join(texts_in(document)).lower().split())
    assert not words & {"rounds", "thursday", "twelfth", "nine"}
    assert document["objections"][0]["quote"] is None
    assert document["objections"][0]["sequence"] == 8
    assert document["tips"]["taken"] == 1, "figures stay"
    assert document["tips"]["ledger"][0]["lineId"] == "line-7"


def test_a_call_of_three_utterances_is_not_judged() -> None:
    document = analyse(
        *call(
            ("a", "Hello."),
            ("c", "Too expensive.", objecting(Objection.PRICE)),
            ("a", "Bye."),
            tips=(shown(1, "Hello there."),),
        )
    )
    assert document["insufficient"] is True
    assert document["summary"] == "The call was too short to say anything useful about it."
    assert document["objections"] == document["strengths"] == document["improvements"] == []
    assert document["nextStep"] is document["conduct"] is document["questions"] is None
    assert document["tips"]["shown"] == 1


def test_a_call_without_a_word_has_a_document_too() -> None:
    document = analyse(*call())
    assert (document["insufficient"], document["utterances"]) == (True, 0)
    assert document["stage"] == {"reached": "GREETING", "last": "GREETING", "path": []}


def test_the_same_record_gives_the_same_document_and_it_is_json() -> None:
    record, eyes = call(
        *GOOD_CALL, tips=(shown(2, "x y z"), shown(6, "Our planner takes that away", name="t2"))
    )
    first = json.dumps(analyse(record, eyes), sort_keys=True)
    assert first == json.dumps(analyse(record, eyes), sort_keys=True)
    assert json.loads(first)["conversationId"] == "c-1"


def test_the_detector_gets_speaker_language_and_what_went_before() -> None:
    record, eyes = call(*GOOD_CALL)
    analyse(record, eyes)
    text, speaker, language, context = eyes.asked[5]
    assert (text, speaker, language) == ("Yes, it is.", Speaker.CUSTOMER, "en")
    assert context == tuple(said[1] for said in GOOD_CALL[1:5])


def test_the_tip_ledger_tells_what_was_suggested_what_was_said_and_how_it_landed() -> None:
    record, eyes = call(
        *GOOD_CALL,
        tips=(shown(2, "What would it cost you when it goes wrong?"), shown(12, "Bye.", name="t2")),
    )
    tips = analyse(record, eyes)["tips"]
    assert (tips["shown"], tips["taken"], tips["ignored"], tips["unanswered"]) == (2, 1, 0, 1)
    entry = tips["ledger"][0]
    assert entry["recommendationId"] == "t1"
    assert (entry["fate"], entry["clicked"], entry["option"], entry["label"]) == (
        "taken",
        False,
        1,
        "Minimal",
    )
    assert entry["similarity"] > 0.9
    assert entry["said"]["sequence"] == 3
    assert entry["reaction"] == "neutral"
    assert entry["answer"]["sequence"] == 4
    assert (entry["stageBefore"], entry["stageAfter"], entry["moved"]) == ("DISCOVERY", "DISCOVERY", 0)


@pytest.mark.parametrize(
    ("language", "proposal", "answer", "when"),
    [
        ("en", "Shall I call you tomorrow at ten?", "Yes, that works.", "tomorrow at ten"),
        ("en", "Could we meet on the 12th of March?", "Sure, see you then.", "the 12th of March"),
        (
            "nl",
            "Zal ik je dinsdag de negende om half twee bellen?",
            "Ja, prima.",
            "dinsdag de negende om half twee",
        ),
        ("nl", "Dan maken we een afspraak op 3 maart.", "Akkoord.", "3 maart"),
        ("he", "נקבע פגישה ביום שלישי בשעה עשר?", "כן, מתאים לי.", "ביום שלישי בשעה עשר"),
    ],
)
def test_an_agreed_next_step_is_found_in_each_language(
    language: str, proposal: str, answer: str, when: str
) -> None:
    record, eyes = call(("a", "x"), ("c", "y"), ("a", proposal), ("c", answer), language=language)
    document = analyse(record, eyes)
    assert document["wordingLanguage"] == language
    step = document["nextStep"]
    assert (step["agreed"], step["when"], step["sequence"]) == (True, when, 3)
    assert step["confirmation"]["sequence"] == 4
    assert ids(document["strengths"])[0] == "next_step"


@pytest.mark.parametrize(
    ("proposal", "answer", "proposed"),
    [
        ("Shall I call you tomorrow at ten?", "I can't tomorrow.", True),
        ("Shall I call you tomorrow at ten?", "We called you last Monday.", True),
        ("Shall I call you some time?", "Yes, fine.", False),
        ("We met last Thursday, didn't we?", "Yes.", False),
        ("The order list comes at two in the morning.", "Okay.", False),
    ],
)
def test_no_next_step_is_claimed_without_a_day_and_a_yes(proposal: str, answer: str, proposed: bool) -> None:
    document = analyse(*call(("a", "x"), ("c", "y"), ("a", proposal), ("c", answer)))
    assert document["nextStep"]["agreed"] is False
    assert document["nextStep"]["proposed"] is proposed
    assert "no_next_step" in ids(document["improvements"])


def test_going_on_after_a_clear_no_is_the_first_thing_to_improve() -> None:
    document = analyse(
        *call(
            ("a", "We have a planner."),
            ("c", "No thank you, we are not interested, stop calling.", REFUSAL),
            ("a", "But it is really good."),
            ("c", "No."),
            ("a", "And it saves time."),
            ("c", "No."),
            ("a", "You should try it."),
            ("c", "Goodbye."),
        )
    )
    assert document["improvements"][0]["id"] == "pushed_on"
    assert document["improvements"][0]["evidence"][0]["sequence"] == 2
    assert "The customer said a clear no." in document["summary"]
    assert document["stage"]["reached"] != "CLOSING", "the no closed it, not the agent"
    assert "no_next_step" not in ids(document["improvements"])


def test_interest_that_was_talked_over_is_named_with_its_quote() -> None:
    document = analyse(
        *call(
            ("a", "Our planner has colours."),
            ("c", "Great, I want to have it.", BUYING),
            ("a", "It has many more colours."),
            ("c", "Hm."),
            ("a", "And a red one."),
        )
    )
    missed = next(i for i in document["improvements"] if i["id"] == "buying_missed")
    assert [quote["sequence"] for quote in missed["evidence"]] == [2, 3]
    assert document["signals"][0]["takenUp"] is False


def test_at_most_three_of_each_and_each_with_evidence() -> None:
    long_pitch = "and then it also does this " * 30
    document = analyse(
        *call(
            ("a", long_pitch, PITCH),
            ("c", "Too dear.", objecting(Objection.PRICE)),
            ("a", "No, but it is not expensive."),
            ("c", "We want it though.", BUYING),
            ("a", "It has colours."),
            ("c", "It is a real problem here.", PAIN),
            ("a", "It has wheels."),
            ("c", "Hm."),
        )
    )
    assert ids(document["improvements"]) == ["no_next_step", "objection_argued", "buying_missed"]
    assert all(item["evidence"] for item in document["improvements"] + document["strengths"])


def test_a_language_without_wording_is_not_judged_by_english_words() -> None:
    record, eyes = call(
        ("a", "Bonjour."),
        ("c", "C'est trop cher.", objecting(Objection.PRICE)),
        ("a", "Voici notre nouvelle brochure."),
        ("c", "Bien."),
        language="fr",
    )
    document = analyse(record, eyes)
    assert document["wordingLanguage"] == "en"
    assert document["objections"][0]["met"] == "unknown"
    assert document["nextStep"] is None
    assert "no_next_step" not in ids(document["improvements"])


@pytest.mark.parametrize(("tag", "wording"), [("nl-BE", "nl"), ("EN-gb", "en"), ("he", "he")])
def test_a_region_of_a_language_uses_that_language(tag: str, wording: str) -> None:
    assert wording_for(tag).language == wording


def test_a_wrong_client_clock_does_not_throw_the_times_off() -> None:
    record, eyes = call(*GOOD_CALL)
    wrong = tuple(replace(u, said_at=u.said_at - 7200) for u in record.utterances)
    document = analyse(replace(record, utterances=wrong), eyes)
    assert document["objections"][0]["atMs"] == 40_200


def test_a_long_quote_is_cut_between_words() -> None:
    text = "I have a doubt " * 60
    document = analyse(*call(("a", "x"), ("c", text, objecting(Objection.TRUST)), ("a", "y"), ("c", "z")))
    quote = document["objections"][0]["quote"]
    assert len(quote) <= QUOTE_CHARS
    assert quote.endswith(("doubt…", "a…", "have…", "I…"))


class ScriptedModel:
    def __init__(self, answer: str | None | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    async def __call__(self, name: str, language: str, **variables: str) -> str | None:
        self.asked.append((name, language, variables))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


ARGUED: tuple[Said, ...] = (
    ("a", "Here is the offer, what do you think?", OPEN),
    ("c", "That is too dear.", objecting(Objection.PRICE)),
    ("a", "No, but it is not expensive."),
    ("c", "Hm."),
)


async def test_a_model_rewords_summary_and_advice_and_nothing_else() -> None:
    record, eyes = call(*ARGUED)
    offline = analyse(record, eyes)
    advice = [f"Do this, number {word}." for word in ("one", "two", "three")][: len(offline["improvements"])]
    model = ScriptedModel(
        json.dumps({"summary": "A short call.\u0000\nIt ended openly.", "do_better": advice})
    )
    document = await polish(offline, record, model)
    assert document["summary"] == "A short call. It ended openly."
    assert [item["advice"] for item in document["improvements"]] == advice
    assert (document["source"], document["provisional"]) == ("openai", False)
    kept = lambda d: {k: v for k, v in d.items() if k not in ("summary", "improvements", "source")}  # noqa: E731
    assert kept(document) == kept(offline)
    assert [{**a, "advice": ""} for a in document["improvements"]] == [
        {**a, "advice": ""} for a in offline["improvements"]
    ]
    ((name, language, variables),) = model.asked
    assert (name, language) == ("summary", "en")
    assert "caller: That is too dear." in variables["call"]
    assert "objection_argued" in variables["figures"]


async def test_what_the_model_is_asked_fits_the_real_prompt_in_every_language() -> None:
    record, eyes = call(*ARGUED)
    model = ScriptedModel(None)
    await polish(analyse(record, eyes), record, model)
    variables = model.asked[0][2]
    prompts = await asyncio.to_thread(lambda: Prompts.load(bundled("prompts"), outputs=SCHEMAS))
    for language in ("en", "nl", "he"):
        rendered = prompts.render("summary", language, language="x", **variables)
        assert "That is too dear." in rendered.user
        assert "That is too dear." not in rendered.system
    assert set(SCHEMAS["summary"]["properties"]) >= {"summary", "do_better"}


async def test_a_model_never_sees_words_that_may_not_be_kept() -> None:
    record, eyes = call(*ARGUED, store_text=False)
    model = ScriptedModel(json.dumps({"summary": "Fine."}))
    document = await polish(analyse(record, eyes), record, model)
    assert document["summary"] == "Fine."
    variables = model.asked[0][2]
    assert variables["call"] == ""
    assert "dear" not in variables["figures"]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Unavailable("down"),
        "no json",
        "[]",
        "{}",
        '{"summary": 7}',
        '{"summary": "   "}',
        json.dumps({"summary": "x" * 5000}),
        '{"summary": "You scored 97 points."}',
        "[" * 100_000,
    ],
    ids=["none", "raised", "text", "list", "empty", "number", "blank", "long", "invented-figure", "deep"],
)
async def test_an_unusable_answer_keeps_the_offline_text_and_says_provisional(answer: Any) -> None:
    record, eyes = call(*ARGUED)
    offline = analyse(record, eyes)
    document = await polish(offline, record, ScriptedModel(answer))
    assert document == {**offline, "provisional": True}


async def test_a_call_too_short_to_judge_is_not_sent_to_a_model() -> None:
    record, eyes = call(("a", "Hello."))
    model = ScriptedModel("{}")
    offline = analyse(record, eyes)
    assert await polish(offline, record, model) == offline
    assert model.asked == []


def test_all_languages_have_checked_wording() -> None:
    wordings = load_wordings()
    assert set(wordings) >= {"en", "nl", "he"}
    assert all(wording.cues.known for wording in wordings.values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("buying = ", "bying = ", r"analysis/en\.toml summary\.buying must be a text"),
        ("$duration", "$length", r"analysis/en\.toml summary\.length: unknown placeholder \$length"),
        ("$duration", "$", r"analysis/en\.toml summary\.length: a \$ without a name"),
        ('"noon"', '"no(on"', r"analysis/en\.toml cues\.hour: not a pattern"),
        ("[better]", "[best]", r"analysis/en\.toml better: the table \[better\] is missing"),
        ("[improvements.pace]", "[improvements.speed]", r"the table \[pace\] is missing"),
        ("[stages]", "[stages", r"analysis/en\.toml: not valid TOML"),
    ],
)
def test_a_mistake_in_the_wording_stops_with_its_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (catalog() / "analysis" / "en.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "en.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_wording(tmp_path / "en.toml")


def test_a_folder_without_english_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"analysis/en\.toml is missing"):
        load_wordings(tmp_path)


@pytest.mark.parametrize("language", ["en", "nl"])
def test_the_demo_calls_are_understood_by_the_real_rules(language: str) -> None:
    demo = load_demo(language)
    at, said = START, []
    for number, turn in enumerate(demo.turns, start=1):
        at += turn.pause_ms / 1000
        said.append(Utterance(number, turn.speaker, turn.text, at, at))
    record, _ = call(language=language)
    record = replace(record, utterances=tuple(said), ended_at=at + 1, last_stage=Stage.NEXT_STEPS)
    document = analyse(record, Detector.load())
    kinds = {objection["kind"] for objection in document["objections"]}
    assert {"price", "competitor"} <= kinds
    assert "buying" in {signal["kind"] for signal in document["signals"]}
    assert document["nextStep"]["agreed"] is True
    assert document["nextStep"]["when"] in ("Thursday the twelfth at ten", "dinsdag de negende om half twee")
    assert document["questions"]["open"] >= 6
    assert document["strengths"][0]["id"] == "next_step"
    price = next(objection for objection in document["objections"] if objection["kind"] == "price")
    assert price["met"] == "explored"
