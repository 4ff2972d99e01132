from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach_server.domain.detection import Detection, Objection, Signal
from coach_server.domain.ledger import (
    TAKEN_FROM,
    Fate,
    Line,
    Reaction,
    content_words,
    follow,
    outcomes,
    similarity,
    turns,
)
from coach_server.domain.tip import Label, ShownTip, Source, Stage, Tip, TipOption, Trigger
from coach_server.domain.transcript import Speaker, Utterance

BUYING = Detection(signals=(Signal.BUYING,))
PRICE = Detection(objections=(Objection.PRICE,))
NOTHING = Detection()


def call(*said: tuple[str, str] | tuple[str, str, Detection]) -> tuple[Line, ...]:
    utterances, detections = [], []
    for number, (who, text, *rest) in enumerate(said, start=1):
        speaker = Speaker.AGENT if who == "a" else Speaker.CUSTOMER
        utterances.append(Utterance(number, speaker, text, float(number), float(number)))
        detections.append(rest[0] if rest else NOTHING)
    return follow(utterances, detections)


def tip(
    heard: int,
    *,
    scripts: Sequence[str] = (
        "Shall we look at your budget?",
        "Many customers ask about the price because it pays back.",
        "You said nine hundred a month goes to late drops.",
    ),
    name: str = "t1",
    selected: int | None = None,
) -> ShownTip:
    minimal, explanative, contextual = (
        TipOption(label, text) for label, text in zip(Label, scripts, strict=True)
    )
    made = Tip(Stage.DISCOVERY, "Ask more", "why", (minimal, explanative, contextual), Source.OFFLINE)
    return ShownTip(name, made, Trigger.INTERVAL, float(heard) + 0.5, heard, 12, selected)


@pytest.mark.parametrize(
    ("said", "script", "language", "taken"),
    [
        ("Does Thursday at ten suit you?", "Would Thursday at ten work for you?", "en", True),
        (
            "Right, okay. So may I ask, what are you comparing it with at the moment?",
            "I understand. May I ask what you are comparing it with?",
            "en",
            True,
        ),
        (
            "We have offices in Leeds and we ship every night.",
            "What are you comparing the price with?",
            "en",
            False,
        ),
        ("Waar vergelijkt u het dan mee?", "Mag ik vragen waar je het mee vergelijkt?", "nl", True),
        ("Onze monteurs rijden in heel Nederland.", "Mag ik vragen waar je het mee vergelijkt?", "nl", False),
        ("אז למה אתה משווה את המחיר?", "אפשר לשאול למה אתה משווה את זה?", "he", True),
        ("אנחנו עובדים בכל הארץ", "אפשר לשאול למה אתה משווה את זה?", "he", False),
    ],
)
def test_a_script_said_in_other_words_is_near_and_another_sentence_is_not(
    said: str, script: str, language: str, taken: bool
) -> None:
    assert (similarity(said, script, language) >= TAKEN_FROM) is taken


@given(st.text(max_size=80), st.text(max_size=80), st.sampled_from(["en", "nl", "he", "fr"]))
def test_similarity_is_between_nothing_and_all(said: str, script: str, language: str) -> None:
    assert 0.0 <= similarity(said, script, language) <= 1.0
    if content_words(script, language):
        assert similarity(script, script, language) == pytest.approx(1.0)


def test_small_words_endings_accents_and_placeholders_do_not_count() -> None:
    assert content_words("The vans, [Customer Name], are planned", "en") == {"van", "plan"}
    assert (
        content_words("de kosten van één bus", "nl") == content_words("kost een bus", "nl") == {"kos", "bus"}
    )
    assert content_words("can you", "en") == {"can", "you"}, "only small words: better those than none"


def test_consecutive_lines_of_one_speaker_are_one_turn() -> None:
    lines = call(("a", "one"), ("a", "two"), ("c", "three"), ("a", "four"))
    assert [[line.sequence for line in turn] for turn in turns(lines)] == [[1, 2], [3], [4]]


def test_a_tip_that_was_said_is_taken_without_a_click() -> None:
    lines = call(
        ("c", "It costs a lot."),
        ("a", "Hm."),
        ("c", "Yes."),
        ("a", "You told me nine hundred a month goes to late drops.", NOTHING),
        ("c", "True.", BUYING),
    )
    (outcome,) = outcomes([tip(1)], lines, "en")
    assert (outcome.fate, outcome.clicked, outcome.option) == (Fate.TAKEN, False, 3)
    assert [line.sequence for line in outcome.said] == [4]
    assert outcome.similarity > 0.8
    assert outcome.reaction is Reaction.WARMED
    assert (outcome.stage_before, outcome.stage_after, outcome.moved) == (Stage.GREETING, Stage.NEXT_STEPS, 4)


def test_a_script_spread_over_two_segments_is_recognised() -> None:
    lines = call(
        ("c", "Hm."), ("a", "You said nine hundred"), ("a", "a month goes to late drops."), ("c", "Yes.")
    )
    (outcome,) = outcomes([tip(1)], lines, "en")
    assert [line.sequence for line in outcome.said] == [2, 3]
    assert outcome.fate is Fate.TAKEN


def test_what_was_said_instead_is_kept_for_an_ignored_tip() -> None:
    lines = call(("c", "Hm."), ("a", "We have a depot in Leeds."), ("c", "That is too expensive.", PRICE))
    (outcome,) = outcomes([tip(1)], lines, "en")
    assert outcome.fate is Fate.IGNORED
    assert outcome.similarity < TAKEN_FROM
    assert outcome.said[0].utterance.text == "We have a depot in Leeds."
    assert outcome.reaction is Reaction.OBJECTED


def test_a_clicked_tip_is_taken_and_compared_with_the_clicked_option_only() -> None:
    lines = call(("c", "Hm."), ("a", "You said nine hundred a month goes to late drops."), ("c", "Yes."))
    (outcome,) = outcomes([tip(1, selected=1)], lines, "en")
    assert (outcome.fate, outcome.clicked, outcome.option) == (Fate.TAKEN, True, 1)
    assert outcome.similarity < TAKEN_FROM


def test_a_tip_followed_by_no_agent_words_is_not_judged() -> None:
    lines = call(("a", "Hello."), ("c", "Bye."))
    (outcome,) = outcomes([tip(1)], lines, "en")
    assert (outcome.fate, outcome.option, outcome.said) == (Fate.UNANSWERED, None, ())
    assert outcome.reaction is Reaction.SILENT
    assert outcome.moved == 0


def test_words_after_the_next_tip_belong_to_that_tip() -> None:
    lines = call(
        ("c", "Hm."), ("a", "Shall we look at the budget?"), ("c", "Yes."), ("a", "Next words here.")
    )
    first, second = outcomes([tip(1, name="t1"), tip(3, name="t2")], lines, "en")
    assert [line.sequence for line in first.said] == [2]
    assert [line.sequence for line in second.said] == [4]


def test_a_tip_replaced_before_anyone_spoke_is_unanswered_unless_it_was_clicked() -> None:
    lines = call(("c", "Hm."), ("a", "Shall we look at the budget?"), ("c", "Yes."))
    replaced, kept = outcomes([tip(1, name="t1"), tip(1, name="t2")], lines, "en")
    assert (replaced.fate, kept.fate) == (Fate.UNANSWERED, Fate.TAKEN)
    clicked, _ = outcomes([tip(1, name="t1", selected=1), tip(1, name="t2")], lines, "en")
    assert (clicked.fate, [line.sequence for line in clicked.said]) == (Fate.TAKEN, [2])


@pytest.mark.parametrize(
    ("detection", "reaction"),
    [
        (Detection(objections=(Objection.NEED,), signals=(Signal.REFUSAL,)), Reaction.REFUSED),
        (Detection(objections=(Objection.NEED,), signals=(Signal.BUYING,)), Reaction.OBJECTED),
        (Detection(signals=(Signal.BUYING, Signal.QUESTION_OPEN)), Reaction.WARMED),
        (Detection(signals=(Signal.QUESTION_CLOSED,)), Reaction.ASKED),
        (Detection(), Reaction.NEUTRAL),
    ],
)
def test_the_strongest_reaction_counts(detection: Detection, reaction: Reaction) -> None:
    lines = call(("c", "Hm."), ("a", "Shall we look at the budget?"), ("c", "Well.", detection))
    assert outcomes([tip(1)], lines, "en")[0].reaction is reaction


def test_a_call_without_lines_or_without_tips_has_a_plain_ledger() -> None:
    assert outcomes([], call(("a", "Hello.")), "en") == ()
    assert outcomes([tip(0)], (), "en")[0].fate is Fate.UNANSWERED


def test_the_same_call_gives_the_same_ledger_whatever_the_order_of_the_tips() -> None:
    lines = call(("c", "Hm."), ("a", "Shall we look at the budget?"), ("c", "Yes."), ("a", "Fine then."))
    tips = [tip(1, name="t1"), tip(3, name="t2")]
    assert outcomes(tips, lines, "en") == outcomes(tips[::-1], lines, "en")
