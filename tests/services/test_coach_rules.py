"""The offline coach: the sense of its tips, not their wording."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coach_server.domain import stage as stages
from coach_server.domain.detection import Detection, Objection, Signal
from coach_server.domain.phrases import normal, sentences
from coach_server.domain.playbook import spoken
from coach_server.domain.stage import rank
from coach_server.domain.tip import (
    CONTEXT_CHARS,
    HEADING_CHARS,
    HEADING_WORDS,
    RECENT_TIPS,
    SCRIPT_CHARS,
    Exchange,
    Label,
    Source,
    Stage,
    Tip,
    TipRequest,
    Trigger,
)
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.services.coach_rules import RulesCoach
from coach_server.services.content import Content
from coach_server.services.detector import Detector

CONTENT = Content.load()
DETECTOR = Detector.load()
LANGUAGES = ("en", "nl", "he")
FULL = ("en", "nl")
CUSTOMER, AGENT = Speaker.CUSTOMER, Speaker.AGENT


class ScriptedEyes:
    """Sees what it was told to see in a text, and nothing in any other."""

    def __init__(
        self, seen: Mapping[str, Detection] = MappingProxyType({}), later: Detection | None = None
    ) -> None:
        self.seen, self.later, self.second_looks = seen, later, 0

    def detect_rules(
        self, text: str, *, speaker: Speaker, language: str, context: tuple[str, ...] = ()
    ) -> Detection:
        return self.seen.get(text, Detection())

    async def detect(
        self, text: str, *, speaker: Speaker, language: str, context: tuple[str, ...] = ()
    ) -> Detection:
        self.second_looks += 1
        if self.later is None:
            await asyncio.Event().wait()
        return self.later or Detection()


def said(*lines: tuple[str, str]) -> tuple[Utterance, ...]:
    """`("A", "Hello")` is the agent, `("C", "Hi")` the customer."""
    return tuple(
        Utterance(number, AGENT if who == "A" else CUSTOMER, text, float(number), float(number))
        for number, (who, text) in enumerate(lines, 1)
    )


def request(
    *lines: tuple[str, str], language: str = "en", stage: Stage = Stage.DISCOVERY, **rest: object
) -> TipRequest:
    given_: dict[str, object] = {"turn": 1, "trigger": Trigger.INTERVAL, **rest}
    return TipRequest(language=language, stage=stage, utterances=said(*lines), **given_)  # type: ignore[arg-type]


def seeing(**seen: object) -> Detection:
    return Detection(confidence=0.9, **seen)  # type: ignore[arg-type]


async def advise(asked: TipRequest, seen: Mapping[str, Detection] | None = None) -> Tip:
    eyes = DETECTOR if seen is None else ScriptedEyes(seen)
    return await RulesCoach(CONTENT, eyes).tip(asked)


def scripts(tip: Tip) -> list[str]:
    return [option.script for option in tip.options]


def check_form(tip: Tip) -> None:
    """What holds for every tip."""
    assert [o.label for o in tip.options] == [Label.MINIMAL, Label.EXPLANATIVE, Label.CONTEXTUAL]
    assert tip.source is Source.OFFLINE
    assert not tip.degraded
    assert tip.technique_id is None
    assert 0 < len(tip.heading) <= HEADING_CHARS
    assert len(tip.heading.split()) <= HEADING_WORDS
    assert 0 < len(tip.context) <= CONTEXT_CHARS
    assert len(set(map(normal, scripts(tip)))) == 3
    for text in (tip.heading, tip.context, *scripts(tip)):
        assert not set("[]{}<>|\n\x00") & set(text), text
        text.encode("utf-8")
    for script in scripts(tip):
        assert 0 < len(script) <= SCRIPT_CHARS


def check_free(tip: Tip) -> None:
    """What holds for every tip that follows no playbook."""
    check_form(tip)
    minimal, explanative, contextual = scripts(tip)
    assert sentences(minimal) == 1, minimal
    assert sentences(explanative) in (2, 3), explanative
    assert sentences(contextual) in (2, 3), contextual
    assert all(option.line_id is None for option in tip.options)


# --- the start


@pytest.mark.parametrize("language", LANGUAGES)
async def test_before_anything_is_said_the_tip_is_an_opening(language: str) -> None:
    tip = await advise(request(language=language, stage=Stage.GREETING, trigger=Trigger.WARMUP))
    check_free(tip)
    assert tip.stage is Stage.GREETING
    assert tip.why is None


async def test_the_opening_uses_the_customers_name_when_it_is_known() -> None:
    asked = request(stage=Stage.GREETING, placeholders={"customer_name": "Daniel Reed"})
    tips = [await advise(replace(asked, turn=turn)) for turn in range(6)]
    assert any("Daniel" in script for tip in tips for script in scripts(tip))
    assert not any("Reed" in script for tip in tips for script in scripts(tip))


async def test_at_the_front_desk_the_tip_asks_for_help_and_never_for_an_email() -> None:
    lines = (("A", "Good morning, is Mr Reed there?"), ("C", "He's in a meeting, can I take a message?"))
    for turn in range(8):
        tip = await advise(request(*lines, stage=Stage.GREETING, turn=turn), {})
        assert tip.stage is Stage.GREETING
        assert not any("mail" in script.lower() for script in scripts(tip))
        assert any(
            word in " ".join(scripts(tip)).lower() for word in ("moment", "time", "call back", "catching")
        )


# --- answering the last words


@pytest.mark.parametrize("language", FULL)
@pytest.mark.parametrize("objection", list(Objection))
async def test_an_objection_is_what_the_tip_is_about(objection: Objection, language: str) -> None:
    words = "Ik weet het niet zo." if language == "nl" else "I am not so sure about that."
    seen = {words: seeing(objections=(objection,), evidence={str(objection): words})}
    tip = await advise(request(("A", "…"), ("C", words), language=language, stage=Stage.VALUE_PROP), seen)
    check_free(tip)
    assert tip.stage is Stage.OBJECTION_HANDLING
    assert tip.why == words
    assert tip.heading in CONTENT.phrases(language).moves[f"objection_{objection}"].headings


@pytest.mark.parametrize(
    ("signals", "objections", "move"),
    [
        ((Signal.QUESTION_OPEN, Signal.PAIN), (Objection.PRICE,), "objection_price"),
        ((Signal.QUESTION_CLOSED, Signal.PAIN), (), "question"),
        ((Signal.QUESTION_OPEN, Signal.BUYING), (), "buying"),
        ((Signal.BUYING, Signal.PAIN), (), "buying"),
        ((Signal.PAIN,), (), "pain"),
        ((Signal.POSTPONE, Signal.QUESTION_CLOSED), (), "postpone"),
        ((Signal.REFUSAL, Signal.QUESTION_OPEN), (Objection.NEED,), "refusal"),
        ((), (), "gap_supplier"),
    ],
)
async def test_a_no_then_an_objection_then_a_question_then_interest_then_pain(
    signals: tuple[Signal, ...], objections: tuple[Objection, ...], move: str
) -> None:
    words = "It takes us quite long every single day."
    seen = {words: seeing(signals=signals, objections=objections)}
    tip = await advise(request(("A", "…"), ("C", words)), seen)
    assert tip.heading in CONTENT.phrases("en").moves[move].headings


async def test_the_quote_is_exact_and_is_the_sentence_that_caused_it() -> None:
    text = "We like it a lot.  But £480 a month, that's way too expensive for us! Anyway."
    seen = {text: seeing(objections=(Objection.PRICE,), evidence={"price": "too expensive"})}
    tip = await advise(request(("A", "It is £480."), ("C", text), stage=Stage.VALUE_PROP), seen)
    assert tip.why == "But £480 a month, that's way too expensive for us!"
    assert tip.why in text


async def test_a_very_long_sentence_is_quoted_in_part_but_word_for_word() -> None:
    text = "and then " * 80 + "it is far too expensive for us " + "and so on " * 40
    seen = {text: seeing(objections=(Objection.PRICE,), evidence={"price": "too expensive"})}
    tip = await advise(request(("A", "…"), ("C", text)), seen)
    assert tip.why is not None
    assert len(tip.why) <= 200
    assert tip.why in text
    assert "too expensive" in tip.why


@pytest.mark.parametrize(
    ("language", "words", "named"),
    [
        ("en", "We lose about six hours a week when somebody is ill.", "six hours a week"),
        ("en", "Last month the deliveries were a mess, really.", "the deliveries"),
        ("en", "My dispatcher does it from memory.", "My dispatcher does it from memory"),
        ("nl", "Dat kost ons zo'n twee dagen per week.", "twee dagen per week"),
        ("nl", "Vorige maand waren de leveringen een drama.", "de leveringen"),
        ("nl", "Marloes doet dat uit haar hoofd.", "Marloes doet dat uit haar hoofd"),
    ],
)
async def test_the_contextual_option_names_the_customers_own_figure_topic_or_words(
    language: str, words: str, named: str
) -> None:
    tips = [
        await advise(request(("A", "…"), ("C", words), language=language, turn=turn)) for turn in range(4)
    ]
    assert all(named in tip.options[2].script for tip in tips) or any(
        named in tip.options[2].script for tip in tips[:2]
    )


async def test_words_that_fit_what_was_said_come_first() -> None:
    for words, expected in (
        ("There is no budget for this.", "budget"),
        ("Can you do something about the price, a discount?", "discount"),
    ):
        seen = {words: seeing(objections=(Objection.PRICE,), evidence={"price": words})}
        tip = await advise(request(("A", "…"), ("C", words), stage=Stage.OBJECTION_HANDLING), seen)
        assert expected in tip.options[1].script.lower()


async def test_asking_to_send_something_is_met_with_a_definite_next_step() -> None:
    tip = await advise(request(("A", "Shall I show you?"), ("C", "Just send me some information.")), {})
    assert tip.stage is Stage.NEXT_STEPS
    assert tip.heading in CONTENT.phrases("en").moves["postpone"].headings


async def test_an_objection_that_was_answered_at_length_is_checked_not_answered_again() -> None:
    words = "That is too expensive."
    seen = {words: seeing(objections=(Objection.PRICE,), evidence={"price": words})}
    answer = "I understand, and with the six hours a week you told me about it pays for itself in a month."
    tip = await advise(request(("C", words), ("A", answer), stage=Stage.OBJECTION_HANDLING), seen)
    assert tip.heading in CONTENT.phrases("en").moves["check"].headings
    assert tip.stage is Stage.OBJECTION_HANDLING


async def test_what_the_agent_just_said_is_not_suggested() -> None:
    asked = request(("A", "…"), ("C", "It is what it is."))
    first = await advise(asked, {})
    agent_said_it = request(("A", scripts(first)[0]), ("C", "It is what it is."))
    assert scripts(first)[0] not in scripts(await advise(agent_said_it, {}))


async def test_a_monologue_is_broken_by_an_invitation() -> None:
    long = " ".join(["and this is another thing that we do for our customers"] * 10)
    tip = await advise(request(("C", "Tell me about it then, go on."), ("A", long)), {})
    assert tip.heading in CONTENT.phrases("en").moves["no_reaction"].headings


async def test_the_dutch_coach_addresses_the_customer_as_the_agent_does() -> None:
    polite = await advise(
        request(("A", "Hoe heeft u dat geregeld?"), ("C", "Gewoon, met de hand."), language="nl"), {}
    )
    casual = await advise(
        request(("A", "Hoe doen jullie dat?"), ("C", "Gewoon, met de hand."), language="nl"), {}
    )
    words = {
        name: set(normal(" ".join(scripts(tip))).split()) for name, tip in (("u", polite), ("je", casual))
    }
    assert words["u"] & {"u", "uw"}
    assert not words["u"] & {"je", "jij", "jullie", "jouw"}
    assert words["je"] & {"je", "jij", "jullie", "jouw"}
    assert not words["je"] & {"u", "uw"}


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "Thanks Maya, speak to you Thursday."),
        ("nl", "Tot dinsdag, Sanne, fijne dag."),
        ("he", "תודה, להתראות."),
    ],
)
async def test_a_goodbye_is_answered_by_a_goodbye(language: str, words: str) -> None:
    for turn in range(5):
        asked = request(("A", "…"), ("C", words), language=language, stage=Stage.CLOSING, turn=turn)
        tip = await advise(asked, {})
        check_free(tip)
        assert not any("?" in script for script in scripts(tip))
        assert tip.heading in CONTENT.phrases(language).moves["goodbye"].headings


async def test_a_moment_that_was_agreed_is_confirmed_not_sold_again() -> None:
    for stage in (Stage.NEXT_STEPS, Stage.CLOSING):
        asked = request(
            ("A", "…"),
            ("C", "Thursday it is, at ten."),
            stage=stage,
            facts={"preferred_time": "Thursday at ten"},
        )
        tip = await advise(asked, {})
        assert tip.stage is stage
        assert tip.heading in CONTENT.phrases("en").moves["agreed"].headings


# --- pacing and sense


@pytest.mark.parametrize("language", LANGUAGES)
async def test_after_a_clear_no_nothing_is_sold_any_more(language: str) -> None:
    move = CONTENT.phrases(language).moves["refusal"]
    allowed = {
        normal(text)
        for group in (move.minimal, move.explanative, move.reasons)
        for phrase in group
        for text in (phrase.formal, phrase.informal)
    }
    for turn in range(10):
        for trigger in (Trigger.INTERVAL, Trigger.ALTERNATIVE, Trigger.NEXT_TIP):
            asked = request(
                ("A", "…"), ("C", "…"), language=language, refused=True, turn=turn, trigger=trigger
            )
            tip = await advise(asked, {})
            check_free(tip)
            assert tip.stage is Stage.CLOSING
            assert normal(tip.options[0].script) in allowed
            assert tip.heading in move.headings
            assert not [script for script in scripts(tip) if "?" in script]


async def test_a_no_that_was_just_heard_counts_before_the_request_knows_it() -> None:
    words = "No thank you, we are not interested."
    seen = {words: seeing(signals=(Signal.REFUSAL,), evidence={"refusal": words})}
    tip = await advise(request(("A", "…"), ("C", words), stage=Stage.VALUE_PROP), seen)
    assert tip.stage is Stage.CLOSING
    assert "?" not in tip.options[0].script


ASKING = {
    "budget": r"budget|\brange\b|set anything aside|amount|cost, if you|marge|gereserveerd|orde van grootte",
    "team_size": r"how many people|how large|how big|hoeveel mensen|hoe groot|om hoeveel",
    "supplier": r"what do you use|what you use today|how do you do it now|wat gebruik\w+ (u|jullie)",
    "decision_maker": r"who else (will|would|at)|wie wil hier|wie moet zich|wie heeft daar",
    "timeline": r"by when|when would you|wanneer zou|wanneer moet",
    "pain": r"what goes wrong most|what annoys|where do you lose|wat gaat er het vaakst|waar erger",
    "preferred_time": r"tuesday or|what day|half an hour in the diary|dinsdag of|welke dag",
}


@pytest.mark.parametrize("language", FULL)
@pytest.mark.parametrize("fact", sorted(ASKING))
@pytest.mark.parametrize("stage", [Stage.DISCOVERY, Stage.NEXT_STEPS])
async def test_what_was_told_is_never_asked_again(fact: str, language: str, stage: Stage) -> None:
    asking = re.compile(ASKING[fact], re.IGNORECASE)
    avoid: list[str] = []
    for turn in range(12):
        asked = request(
            ("A", "…"), ("C", "So it goes here."), language=language, stage=stage, turn=turn,
            facts={fact: "x y"}, avoid=tuple(avoid[-30:]),
        )  # fmt: skip
        tip = await advise(asked, {})
        avoid += scripts(tip)
        assert not [s for s in scripts(tip) if asking.search(s)]


# The agent's question, the customer's answer in words that no rule reads, and what must not be asked then.
ANSWERED = {
    "supplier-en": (
        "How do you send reminders now?",
        "Our receptionist rings everybody the day before, one after the other.",
        r"what do you use for it|how do you do it now|how have you arranged|walk me through",
    ),
    "pain-en": (
        "What happens when she is ill?",
        "Then nobody rings, and half of the chairs stay empty.",
        r"what goes wrong most|what annoys|what would you like to be rid of",
    ),
    "supplier-nl": (
        "Hoe is het nu geregeld?",
        "Via de bank, al heel wat jaren.",
        r"hoe doe[t]? (u|je) het nu|wat gebruikt u|gewone dag",
    ),
    "pain-nl": (
        "Wat gebeurt er dan?",
        "Dan staan er acht man te wachten op de kraan.",
        r"wat gaat er het vaakst mis|waar loopt het vast|er op een slechte dag",
    ),
}


@pytest.mark.parametrize("name", sorted(ANSWERED))
async def test_a_question_that_was_answered_is_not_asked_again_whatever_the_words(name: str) -> None:
    question, answer, asks = ANSWERED[name]
    for turn in range(12):
        asked = request(("A", "…"), ("C", "…"), ("A", question), ("C", answer), language=name[-2:], turn=turn)
        tip = await advise(asked, {})
        assert not [s for s in scripts(tip) if re.search(asks, s, re.IGNORECASE)]


async def test_a_question_that_was_dodged_may_be_asked_again() -> None:
    headings = CONTENT.phrases("en").moves["gap_supplier"].headings
    for dodge in ("Hm.", "Why do you want to know that?"):
        asked = request(("A", "Hello"), ("C", "Hi"), ("A", "How do you send them now?"), ("C", dodge))
        assert (await advise(asked, {})).heading in headings


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("stage", list(Stage))
async def test_the_last_ten_tips_are_never_repeated(language: str, stage: Stage) -> None:
    shown: list[str] = []
    for turn in range(25):
        asked = request(
            ("A", "…"), ("C", "So it goes, with the planning and the rest."), language=language, stage=stage,
            turn=turn, avoid=tuple(shown[-3 * RECENT_TIPS :]),
        )  # fmt: skip
        tip = await advise(asked, {})
        check_free(tip)
        recent = set(map(normal, shown[-3 * RECENT_TIPS :]))
        assert not recent & set(map(normal, scripts(tip)))
        shown += scripts(tip)


@pytest.mark.parametrize("language", FULL)
@pytest.mark.parametrize("objection", list(Objection))
async def test_one_objection_can_be_met_ten_times(objection: Objection, language: str) -> None:
    words = "No, no, no."
    seen = {words: seeing(objections=(objection,))}
    shown: list[str] = []
    for _ in range(RECENT_TIPS + 2):
        tip = await advise(
            request(("A", "…"), ("C", words), language=language, avoid=tuple(shown[-30:])), seen
        )
        assert not set(map(normal, shown[-30:])) & set(map(normal, scripts(tip)))
        shown += scripts(tip)


async def test_punctuation_and_case_do_not_make_an_old_tip_new() -> None:
    first = await advise(request(("A", "…"), ("C", "So it goes.")), {})
    loud = tuple(script.upper().replace(",", " ") for script in scripts(first))
    again = await advise(request(("A", "…"), ("C", "So it goes."), avoid=loud), {})
    assert not set(map(normal, loud)) & set(map(normal, scripts(again)))


async def test_the_same_request_gives_the_same_tip() -> None:
    asked = request(("A", "How does that go?"), ("C", "We do it by hand."))
    assert await advise(asked) == await advise(asked)


async def test_another_turn_gives_other_words() -> None:
    asked = request(("A", "How does that go?"), ("C", "We do it by hand."))
    assert scripts(await advise(asked)) != scripts(await advise(replace(asked, turn=2)))


@pytest.mark.parametrize("trigger", list(Trigger))
async def test_after_conversion_every_tip_is_of_conversion(trigger: Trigger) -> None:
    words = "But what about the price?"
    for seen in ({}, {words: seeing(objections=(Objection.PRICE,))}, {words: seeing(signals=(Signal.PAIN,))}):
        asked = request(("A", "…"), ("C", words), trigger=trigger, floor=Stage.CONVERSION)
        assert (await advise(asked, seen)).stage is Stage.CONVERSION


async def test_an_objection_after_the_yes_is_still_answered() -> None:
    words = "I am afraid my people will hate it."
    seen = {words: seeing(objections=(Objection.FEAR,))}
    tip = await advise(request(("A", "…"), ("C", words), stage=Stage.CONVERSION), seen)
    assert tip.stage is Stage.CONVERSION
    assert tip.heading in CONTENT.phrases("en").moves["objection_fear"].headings


async def test_enough_known_leads_from_questions_to_value() -> None:
    facts = {"supplier": "Excel", "pain": "we lose hours", "team_size": "14 drivers"}
    tip = await advise(request(("A", "…"), ("C", "And so it goes."), facts=facts), {})
    assert tip.stage is Stage.VALUE_PROP


# --- alternatives and exchanges


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_alternative_is_other_words_of_the_same_stage(stage: Stage, language: str) -> None:
    lines = (("A", "…"), ("C", "So it goes, with the rest."))
    first = await advise(request(*lines, language=language, stage=stage, trigger=Trigger.ALTERNATIVE), {})
    for current in scripts(first):
        asked = request(
            *lines, language=language, stage=stage, trigger=Trigger.ALTERNATIVE, alternative_to=current
        )
        tip = await advise(asked, {})
        check_free(tip)
        assert tip.stage is stage
        assert normal(current) not in map(normal, scripts(tip))


async def test_an_alternative_to_an_objection_stays_with_that_objection() -> None:
    words = "That is too expensive."
    seen = {words: seeing(objections=(Objection.PRICE,))}
    lines = (("C", words), ("A", "I see."), ("C", "Yes."))
    tip = await advise(request(*lines, stage=Stage.OBJECTION_HANDLING, trigger=Trigger.ALTERNATIVE), seen)
    assert tip.heading in CONTENT.phrases("en").moves["objection_price"].headings


@pytest.mark.parametrize(
    ("agent_words", "told"),
    [
        ("So compared with what does it feel expensive to you?", "You used the suggestion"),
        ("Tell me, is it expensive then, in your eyes?", "You put the suggestion in your own words"),
        ("Let me tell you about our features.", "You took another road than the suggestion"),
    ],
)
async def test_event_mode_says_what_became_of_the_suggestion(agent_words: str, told: str) -> None:
    reaction = "I would have to ask my partner."
    exchange = Exchange("Compared with what does it feel expensive?", agent_words, reaction)
    seen = {reaction: seeing(objections=(Objection.AUTHORITY,), evidence={"authority": reaction})}
    lines = (("A", agent_words), ("C", reaction))
    tip = await advise(request(*lines, trigger=Trigger.CAPTURE, exchange=exchange), seen)
    check_free(tip)
    assert tip.context.startswith(told)
    assert "objected" in tip.context
    assert tip.heading in CONTENT.phrases("en").moves["objection_authority"].headings


async def test_event_mode_takes_up_a_reaction_that_only_the_client_heard() -> None:
    exchange = Exchange(
        "How many people work with this?", "How many people is that?", "We have 14 drivers on it."
    )
    tip = await advise(request(trigger=Trigger.NEXT_TIP, exchange=exchange), {})
    assert tip.why == "We have 14 drivers on it."


@pytest.mark.parametrize("language", LANGUAGES)
async def test_no_reaction_at_all_is_met_with_an_invitation(language: str) -> None:
    exchange = Exchange("Say this.", "I said this and that.", "")
    lines = (("C", "Hm."), ("A", "I said this and that."))
    tip = await advise(request(*lines, language=language, trigger=Trigger.CAPTURE, exchange=exchange), {})
    check_free(tip)
    assert tip.heading in CONTENT.phrases(language).moves["no_reaction"].headings


async def test_what_was_suggested_is_not_suggested_again() -> None:
    lines = (("A", "…"), ("C", "So it goes."))
    first = await advise(request(*lines), {})
    for script in scripts(first):
        asked = request(*lines, trigger=Trigger.CAPTURE, exchange=Exchange(script, "…", "So it goes."))
        assert normal(script) not in map(normal, scripts(await advise(asked, {})))


# --- playbooks


@pytest.mark.parametrize("language", FULL)
@pytest.mark.parametrize("stage", list(Stage))
async def test_in_playbook_mode_every_script_is_a_line_word_for_word(stage: Stage, language: str) -> None:
    book = CONTENT.playbook("b2b", language)
    values = {"agent_name": "Maya", "customer_name": "Daniel", "company": "Finch Lane"}
    lines = (("A", "…"), ("C", "So it goes."))
    tip = await advise(
        request(*lines, language=language, stage=stage, playbook="b2b", placeholders=values), {}
    )
    check_form(tip)
    for option in tip.options:
        assert option.line_id is not None
        line = book.line(option.line_id)
        assert line is not None
        assert option.script == spoken(line, values)


@pytest.mark.parametrize("language", FULL)
@pytest.mark.parametrize("objection", list(Objection))
async def test_in_playbook_mode_an_objection_gets_its_own_lines(objection: Objection, language: str) -> None:
    words = "No no no."
    book = CONTENT.playbook("b2b", language)
    asked = request(("A", "…"), ("C", words), language=language, playbook="b2b")
    tip = await advise(asked, {words: seeing(objections=(objection,))})
    for option in tip.options:
        line = book.line(option.line_id or "")
        assert line is not None
        assert objection in line.conditions.objections
        assert line.label == option.label
    assert tip.stage is Stage.OBJECTION_HANDLING


async def test_lines_that_were_shown_give_way_to_fresh_ones() -> None:
    lines = (("A", "…"), ("C", "So it goes."))
    shown: list[str] = []
    for turn in range(3):
        asked = request(*lines, playbook="b2b", turn=turn, avoid_lines=tuple(shown))
        tip = await advise(asked, {})
        now = [o.line_id for o in tip.options]
        assert not set(now) & set(shown)
        shown += [x for x in now if x]


@pytest.mark.parametrize("language", FULL)
async def test_after_a_no_the_playbook_only_says_goodbye(language: str) -> None:
    book = CONTENT.playbook("b2b", language)
    asked = request(("A", "…"), ("C", "…"), language=language, refused=True, playbook="b2b")
    tip = await advise(asked, {})
    for option in tip.options:
        line = book.line(option.line_id or "")
        assert line is not None
        assert line.conditions.after_refusal


async def test_a_playbook_that_has_no_goodbye_leaves_it_to_the_coach() -> None:
    book = CONTENT.playbook("b2b", "en")
    short = replace(book, id="short", lines=tuple(x for x in book.lines if not x.conditions.after_refusal))
    content = replace(CONTENT, books={("short", "en"): short})
    coach = RulesCoach(content, ScriptedEyes())
    tip = await coach.tip(request(("A", "…"), ("C", "…"), refused=True, playbook="short"))
    check_free(tip)
    assert tip.heading in CONTENT.phrases("en").moves["refusal"].headings


async def test_no_bracket_reaches_the_agent_when_nothing_is_known() -> None:
    for stage in Stage:
        check_form(await advise(request(("A", "…"), ("C", "Hm."), stage=stage, playbook="b2b"), {}))


async def test_an_alternative_line_is_another_line() -> None:
    lines = (("A", "…"), ("C", "So it goes."))
    first = await advise(request(*lines, playbook="b2b"), {})
    for option in first.options:
        for current in (option.line_id, option.script):
            asked = request(*lines, playbook="b2b", trigger=Trigger.ALTERNATIVE, alternative_to=current)
            tip = await advise(asked, {})
            assert option.line_id not in [o.line_id for o in tip.options]


async def test_a_playbook_that_was_taken_away_is_done_without() -> None:
    check_free(await advise(request(("A", "…"), ("C", "Hm."), playbook="gone"), {}))


# --- the second look


async def test_embeddings_are_asked_only_when_the_rules_saw_nothing() -> None:
    eyes = ScriptedEyes({"Hm, no.": seeing(objections=(Objection.PRICE,))}, later=Detection())
    coach = RulesCoach(CONTENT, eyes, second_look_s=5)
    await coach.tip(request(("A", "…"), ("C", "Hm, no.")))
    await coach.tip(request(("A", "…"), ("C", "Okay.")))
    assert eyes.second_looks == 0
    await coach.tip(request(("A", "…"), ("C", "My brother sells these for less.")))
    assert eyes.second_looks == 1


async def test_a_second_look_that_comes_in_time_counts() -> None:
    eyes = ScriptedEyes(later=seeing(objections=(Objection.COMPETITOR,)))
    coach = RulesCoach(CONTENT, eyes, second_look_s=5)
    tip = await coach.tip(request(("A", "…"), ("C", "My brother sells these for less.")))
    assert tip.heading in CONTENT.phrases("en").moves["objection_competitor"].headings


async def test_a_second_look_that_is_late_is_done_without() -> None:
    coach = RulesCoach(CONTENT, ScriptedEyes(later=None), second_look_s=0.01)
    check_free(await coach.tip(request(("A", "…"), ("C", "My brother sells these for less."))))


async def test_streaming_gives_just_the_tip() -> None:
    coach = RulesCoach(CONTENT, DETECTOR)
    asked = request(("A", "…"), ("C", "So it goes."))
    assert [piece async for piece in coach.stream(asked)] == [await coach.tip(asked)]


# --- whole calls, with the real rules


def played(language: str, *lines: tuple[str, str]) -> Callable[[], Iterable[TipRequest]]:
    """The requests a call machine would make: one after each turn of the customer."""

    def requests() -> Iterable[TipRequest]:
        heard: list[Utterance] = []
        facts: dict[str, str] = {}
        stage, refused, converted = Stage.GREETING, False, False
        for turn, utterance in enumerate(said(*lines), 1):
            before = tuple(u.text for u in heard[-2:])
            seen = DETECTOR.detect_rules(
                utterance.text, speaker=utterance.speaker, language=language, context=before
            )
            facts = CONTENT.facts.collect(facts, utterance, language)
            stage = stages.advance(stage, seen, utterance.speaker)
            heard.append(utterance)
            if utterance.speaker is AGENT:
                continue
            refused = refused or Signal.REFUSAL in seen.signals
            converted = converted or stage is Stage.CONVERSION
            yield TipRequest(
                turn=turn,
                trigger=Trigger.INTERVAL,
                language=language,
                stage=stage,
                utterances=tuple(heard[-10:]),
                facts=dict(facts),
                refused=refused,
                floor=Stage.CONVERSION if converted else None,
            )

    return requests


SOFTWARE = played(
    "en",
    ("A", "Good morning Daniel, this is Maya from Kestrel Routes. Have I caught you at an okay moment?"),
    ("C", "Morning. I've got a few minutes, the vans have just gone out."),
    ("A", "Thanks. How do you plan your routes today?"),
    ("C", "It's a spreadsheet and a whiteboard. My dispatcher starts at three in the morning."),
    ("A", "And where does that get stuck?"),
    ("C", "We lose about six hours a week when somebody is ill."),
    ("A", "How many drivers is that?"),
    ("C", "We have 14 drivers, so it adds up."),
    ("A", "Kestrel plans the routes and your dispatcher only checks them."),
    ("C", "And what would that cost?"),
    ("A", "For 14 drivers that is 480 pounds a month."),
    ("C", "That's too expensive, honestly."),
    ("A", "I see."),
    ("C", "How soon could we start?"),
    ("A", "Within two weeks."),
    ("C", "Great, let's do it. Send me the contract."),
    ("A", "Wonderful."),
    ("C", "Thanks!"),
)
INSURANCE = played(
    "nl",
    ("A", "Goedemiddag mevrouw Van Dam, u spreekt met Karim Haddad van Zekerwerk. Bel ik gelegen?"),
    ("C", "Even kort dan, ik zit zo in een overleg."),
    ("A", "Hoe is uw verzuimverzekering nu geregeld?"),
    ("C", "Via een tussenpersoon, en we hebben veel verzuim. Dat kost ons zo'n twee dagen per week."),
    ("A", "Om hoeveel mensen gaat het?"),
    ("C", "We hebben 35 medewerkers."),
    ("A", "Wij begeleiden het verzuim zelf."),
    ("C", "Wat zou dat kosten dan?"),
    ("A", "Rond de 1.400 euro per maand."),
    ("C", "Dat vind ik te duur."),
    ("A", "Dat begrijp ik."),
    ("C", "Dit moet ik ook met de directie bespreken."),
    ("A", "Natuurlijk."),
    ("C", "Nee, doe toch maar niet. We hebben geen interesse."),
)
STAFFING = played(
    "nl",
    ("A", "Hoi Robert, met Sanne van Planvast. Heb je even?"),
    ("C", "Ja hoor, kort."),
    ("A", "Hoe komen jullie nu aan monteurs?"),
    ("C", "We kunnen geen goede mensen vinden, er staan vier vacatures open."),
    ("A", "Vervelend. Wat doen jullie daaraan?"),
    ("C", "We werken nu met Randstaf, maar ik heb daar slechte ervaringen mee."),
    ("A", "Wat ging er mis?"),
    ("C", "Ik ben bang dat het met jullie net zo gaat."),
    ("A", "Snap ik."),
    ("C", "Oké, stuur maar een voorstel, dat klinkt goed."),
)
CALLS = pytest.mark.parametrize(
    "call", [SOFTWARE, INSURANCE, STAFFING], ids=["software", "insurance", "staffing"]
)


async def tips_of(call: Callable[[], Iterable[TipRequest]]) -> list[tuple[TipRequest, Tip]]:
    coach = RulesCoach(CONTENT, DETECTOR)
    shown: list[str] = []
    made = []
    for asked in call():
        tip = await coach.tip(replace(asked, avoid=tuple(shown[-30:])))
        shown += scripts(tip)
        made.append((asked, tip))
    return made


@CALLS
async def test_a_whole_call_gets_sound_tips(call: Callable[[], Iterable[TipRequest]]) -> None:
    made = await tips_of(call)
    everything = [normal(s) for _, tip in made for s in scripts(tip)]
    assert len(everything) == len(set(everything))
    for asked, tip in made:
        check_free(tip)
        assert tip.why is not None
        assert any(tip.why in u.text for u in asked.utterances)


@CALLS
async def test_over_a_call_the_stage_never_falls_back_to_the_greeting(
    call: Callable[[], Iterable[TipRequest]],
) -> None:
    reached = [tip.stage for _, tip in await tips_of(call)]
    left = next(i for i, stage in enumerate(reached) if stage is not Stage.GREETING)
    assert Stage.GREETING not in reached[left:]


async def test_the_software_call_goes_from_greeting_to_conversion() -> None:
    made = await tips_of(SOFTWARE)
    reached = [tip.stage for _, tip in made]
    assert reached[0] is Stage.GREETING
    assert Stage.DISCOVERY in reached
    assert Stage.OBJECTION_HANDLING in reached
    assert reached[-1] is reached[-2] is Stage.CONVERSION
    after = [rank(s) for s in reached[reached.index(Stage.CONVERSION) :]]
    assert set(after) == {rank(Stage.CONVERSION)}


async def test_the_insurance_call_ends_in_a_graceful_goodbye() -> None:
    asked, tip = (await tips_of(INSURANCE))[-1]
    assert asked.refused
    assert tip.stage is Stage.CLOSING
    assert tip.heading in CONTENT.phrases("nl").moves["refusal"].headings


async def test_the_staffing_call_is_coached_informally() -> None:
    words = {word for _, tip in await tips_of(STAFFING) for s in scripts(tip) for word in normal(s).split()}
    assert words & {"je", "jij", "jullie"}
    assert not words & {"u", "uw"}


async def test_a_model_free_tip_takes_a_few_milliseconds() -> None:
    coach = RulesCoach(CONTENT, DETECTOR)
    asked = list(SOFTWARE())[-3]
    loop = asyncio.get_running_loop()
    taken = []
    for turn in range(60):
        begun = loop.time()
        await coach.tip(replace(asked, turn=turn))
        taken.append(loop.time() - begun)
    assert sorted(taken)[len(taken) // 2] < 0.010


# --- any text in


spoken_words = st.text(max_size=120) | st.sampled_from(
    [
        "That is too expensive, honestly.",
        "Can you send me something?",
        "[laughs] {name} We pay €900 a month <b>",
        "Wij hebben geen interesse.",
        "How much for 40 people?",
        "ok",
        "",
        "\ud83d \x00 …",
        "זה יקר מדי",
    ]
)
turns = st.lists(st.tuples(st.sampled_from("AC"), spoken_words), max_size=8)
asked_for = st.fixed_dictionaries(
    {
        "turn": st.integers(0, 10_000),
        "trigger": st.sampled_from(Trigger),
        "language": st.sampled_from(["en", "nl", "he", "nl-BE", "fr", ""]),
        "stage": st.sampled_from(Stage),
        "refused": st.booleans(),
        "floor": st.none() | st.sampled_from(Stage),
        "facts": st.dictionaries(
            st.sampled_from(["pain", "team_size", "supplier", "budget", "decision_maker", "customer_name"]),
            spoken_words,
            max_size=4,
        ),
        "placeholders": st.dictionaries(
            st.sampled_from(["Agent Name", "customerName", "[Location]", "company", "?"]),
            spoken_words,
            max_size=3,
        ),
        "exchange": st.none() | st.builds(Exchange, spoken_words, spoken_words, spoken_words),
        "alternative_to": st.none() | spoken_words,
        "playbook": st.sampled_from([None, "b2b", "gone"]),
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(turns, asked_for)
async def test_whatever_is_said_the_tip_is_well_formed(
    lines: list[tuple[str, str]], asked: dict[str, object]
) -> None:
    wanted = request(*lines, **asked)  # type: ignore[arg-type]
    coach = RulesCoach(CONTENT, DETECTOR)
    first = await coach.tip(wanted)
    (check_free if wanted.playbook != "b2b" else check_form)(first)
    assert rank(first.stage) >= rank(wanted.floor or Stage.GREETING)
    if Stage.CONVERSION in (wanted.stage, wanted.floor):
        assert first.stage is Stage.CONVERSION
    second = await coach.tip(
        replace(
            wanted,
            avoid=tuple(scripts(first)),
            avoid_lines=tuple(o.line_id for o in first.options if o.line_id),
        )
    )
    if wanted.playbook != "b2b":
        assert not set(map(normal, scripts(first))) & set(map(normal, scripts(second)))
