"""Nods and interruptions."""

from __future__ import annotations

import pytest

from coach_server.domain.simulation.bargein import BargeIn, Decision, heard_part, is_backchannel

NL = frozenset({"ja", "jaja", "jo", "hm", "mhm", "ok", "oké", "nee", "juist"})
EN = frozenset({"yeah", "yes", "uh", "huh", "uhhuh", "mhm", "hm", "right", "i see"})
HE = frozenset({"כן", "אהה", "בסדר", "נכון"})
CS = frozenset({"jo", "ano", "aha", "hm"})


@pytest.mark.parametrize(
    ("text", "nods"),
    [
        ("Ja.", NL),
        ("Hm", NL),
        ("ja, ja", NL),
        ("JA!", NL),
        ("Oké…", NL),
        ("Uh-huh.", EN),
        ("uh huh", EN),
        ("I see.", EN),
        ("כן.", HE),
        ("כן, כן", HE),
        ("Jo, jo.", CS),
    ],
)
def test_a_nod_is_no_interruption(text: str, nods: frozenset[str]) -> None:
    assert is_backchannel(text, nods)


@pytest.mark.parametrize(
    ("text", "nods"),
    [
        ("Ja maar wacht eens", NL),
        ("Nee, dat klopt niet", NL),
        ("ja ja ja ja", NL),
        ("jammer", NL),
        ("", NL),
        ("…", NL),
        ("Wat kost dat?", NL),
        ("כן אבל", HE),
        ("ja", frozenset()),
    ],
)
def test_other_words_are_one(text: str, nods: frozenset[str]) -> None:
    assert not is_backchannel(text, nods)


def holding(now: float = 0.0) -> BargeIn:
    barge = BargeIn(NL)
    assert barge.started("u1", True, now) is Decision.HOLD
    return barge


def test_speech_while_nothing_plays_is_an_ordinary_turn() -> None:
    barge = BargeIn(NL)
    assert barge.started("u1", False, 0) is Decision.NOTHING
    assert barge.heard("u1", "hallo") is Decision.NOTHING
    assert barge.deadline is None


def test_audio_is_held_and_a_nod_lets_it_go_on() -> None:
    barge = holding()
    barge.stopped("u1", 0.8)
    assert barge.heard("u1", "ja") is Decision.RESUME
    assert barge.deadline is None


def test_short_words_that_are_no_nod_interrupt() -> None:
    barge = holding()
    barge.stopped("u1", 0.8)
    assert barge.heard("u1", "Stop.") is Decision.INTERRUPT


def test_somebody_who_goes_on_speaking_interrupts_before_the_words_are_known() -> None:
    barge = holding()
    assert barge.deadline == 1.0
    assert barge.tick(0.9) is Decision.NOTHING
    assert barge.tick(1.0) is Decision.INTERRUPT
    assert barge.heard("u1", "ja") is Decision.NOTHING


def test_a_cough_lets_the_audio_go_on() -> None:
    barge = holding()
    barge.stopped("u1", 0.6)
    assert barge.tick(2.0) is Decision.NOTHING
    assert barge.tick(2.1) is Decision.RESUME
    other = holding()
    other.stopped("u1", 0.6)
    assert other.heard("u1", " ") is Decision.RESUME


def test_words_that_come_after_the_audio_went_on_still_interrupt() -> None:
    barge = holding()
    barge.stopped("u1", 0.6)
    barge.tick(2.1)
    assert barge.heard("u1", "Wacht even") is Decision.INTERRUPT


def test_a_second_nod_while_the_first_is_judged_is_judged_as_well() -> None:
    barge = holding()
    barge.stopped("u1", 0.8)
    assert barge.started("u2", True, 0.9) is Decision.NOTHING
    assert barge.heard("u1", "ja") is Decision.NOTHING
    barge.stopped("u2", 1.5)
    assert barge.heard("u2", "ja") is Decision.RESUME


def test_words_of_a_first_turn_interrupt_although_a_second_one_has_begun() -> None:
    barge = holding()
    barge.stopped("u1", 0.8)
    barge.started("u2", True, 0.9)
    assert barge.heard("u1", "Dat is te duur") is Decision.INTERRUPT
    assert barge.item_id is None


def test_the_end_of_another_turn_does_not_count() -> None:
    barge = holding()
    barge.stopped("u0", 0.5)
    assert barge.tick(1.0) is Decision.INTERRUPT


def test_a_dropped_decision_is_forgotten() -> None:
    barge = holding()
    barge.drop()
    assert barge.tick(9) is Decision.NOTHING
    assert barge.heard("u1", "Stop") is Decision.NOTHING


@pytest.mark.parametrize(
    ("heard_ms", "total_ms", "part"),
    [
        (0, 1000, ""),
        (-5, 1000, ""),
        (500, 1000, "een twee…"),
        (1000, 1000, "een twee drie vier"),
        (2000, 1000, "een twee drie vier"),
        (300, 0, "een twee drie vier"),
    ],
)
def test_what_was_heard_is_whole_words_in_proportion(heard_ms: int, total_ms: int, part: str) -> None:
    assert heard_part("een twee drie vier", heard_ms, total_ms) == part
