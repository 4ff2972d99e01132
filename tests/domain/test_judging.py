"""From what was found in a turn to techniques with a quality, and one attitude."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coach_server import paths
from coach_server.domain.cuefile import parse_cues
from coach_server.domain.cues import Finding, words_of
from coach_server.domain.method import judging
from coach_server.domain.method.cues import compile_method
from coach_server.domain.method.judging import JudgingWords, Reading, Reason, Spoken
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Quality, TechniqueUse, Turn
from coach_server.domain.transcript import Speaker, Utterance
from tests.domain.talks import method

HUGO = method()
NL = parse_cues((paths.catalog() / "cues" / "nl.toml").read_text("utf-8"), "nl.toml")
SENTENCES = JudgingWords(
    {reason: {"nl": str(reason) + " {technique} {phase} {attitude}"} for reason in Reason}
)


def with_marks(*marks: tuple[str, ...]) -> Methodology:
    """Hugo without cues, and with these marks for every technique."""
    techniques = tuple(replace(t, cues={}, marks={"nl": marks}) for t in HUGO.techniques)
    return replace(HUGO, techniques=techniques)


def read(
    text: str,
    *found: tuple[str, float],
    phase: int = 2,
    speaker: Speaker = Speaker.AGENT,
    before: tuple[Turn, ...] = (),
    by: Methodology | None = None,
) -> Reading:
    by = by or with_marks(("klopt",), ("vermijden",), ("bereiken",))
    findings = [Finding(name, text, strength) for name, strength in found]
    spoken = Spoken(words_of(text), speaker, "nl", phase, before)
    return judging.read(by, compile_method(by, NL), spoken, findings, SENTENCES)


def seller(text: str, *uses: str, question: bool = True) -> Turn:
    used = tuple(TechniqueUse(name, Quality.GOED, text) for name in uses)
    return Turn(1, Speaker.AGENT, text, 0.0, 2, used, is_question=question)


def customer(attitude: str) -> Turn:
    return Turn(2, Speaker.CUSTOMER, "tja", 0.0, 4, attitude=attitude)


def quality(reading: Reading) -> Quality:
    (use,) = reading.uses
    return use.quality


def test_all_marks_make_it_perfect() -> None:
    found = read("U wilt groei bereiken en fouten vermijden, klopt dat?", ("2.1.8", 0.7))
    assert quality(found) is Quality.PERFECT
    assert found.uses[0].followed == ("klopt", "vermijden", "bereiken")


def test_half_the_marks_make_it_good() -> None:
    assert quality(read("U wilt groei bereiken, klopt dat?", ("2.1.8", 0.5))) is Quality.GOED


def test_no_marks_and_an_unsure_finding_is_almost() -> None:
    found = read("En als ik nu eens samenvat?", ("2.1.8", 0.5))
    assert quality(found) is Quality.BIJNA
    assert found.uses[0].rationale.startswith("thin Lock questioning")


def test_own_words_that_leave_no_doubt_are_good() -> None:
    assert quality(read("En als ik nu eens samenvat?", ("2.1.8", 0.95))) is Quality.GOED


def test_a_technique_that_the_phase_forbids_is_a_mistake() -> None:
    found = read("Dat zetten we even opzij.", ("2.1.4", 0.8), phase=4)
    assert quality(found) is Quality.GEMIST
    assert "Beslissingsfase" in found.uses[0].rationale


def test_an_unsure_finding_is_not_held_against_the_seller() -> None:
    assert read("Dat zetten we even opzij.", ("2.1.4", 0.5), phase=4).uses == ()


def test_a_technique_out_of_its_phases_does_not_count() -> None:
    assert read("Wat een mooi gebouw.", ("1.1", 0.9), phase=3).uses == ()


def test_a_question_technique_that_was_told_instead_of_asked_is_almost() -> None:
    found = read("U werkt met tien mensen en dat klopt zo te bereiken en te vermijden.", ("2.1.1", 0.95))
    assert quality(found) is Quality.BIJNA
    assert found.uses[0].rationale.startswith("not_asked")


def test_what_meets_the_customers_attitude_is_good_without_marks() -> None:
    found = read("Te duur, tegenover wat?", ("4.2.4", 0.5), phase=4, before=(customer("H7"),))
    assert quality(found) is Quality.GOED
    assert found.uses[0].rationale.startswith("meets")


def test_passing_by_an_objection_costs_a_level() -> None:
    text = "Mijn voorstel is dat we dit bereiken en dat vermijden, het klopt."
    heard = read(text, ("3.2", 0.9), phase=4)
    passed = read(text, ("3.2", 0.9), phase=4, before=(customer("H7"),))
    assert (quality(heard), quality(passed)) == (Quality.PERFECT, Quality.GOED)
    assert "Bezwaar" in passed.uses[0].rationale


def test_two_techniques_at_most_and_one_for_each_step() -> None:
    found = read("Zo, klopt dat?", ("2.1.8", 0.9), ("2.1.6", 0.8), ("2.1.2", 0.7), ("2.1.8", 0.6))
    assert [use.id for use in found.uses] == ["2.1.8", "2.1.6"]


def test_a_detail_is_named_rather_than_its_step() -> None:
    found = read("Wat kost u dat vandaag, klopt het?", ("2.1.7", 0.9), ("2.3", 0.6))
    assert [(use.id, use.confidence) for use in found.uses] == [("2.3", 0.9)]


def test_a_theme_counts_as_its_step_and_is_told_apart() -> None:
    by = replace(
        with_marks(),
        techniques=tuple(replace(t, cues={"nl": ("budget",)} if t.theme else {}) for t in HUGO.techniques),
    )
    found = read("Welk budget hebt u?", ("2.1.1.6", 0.7), by=by)
    assert [use.id for use in found.uses] == ["2.1.1"]
    assert "budget" in found.themes


def test_the_quote_is_the_sentence_the_words_stand_in() -> None:
    by = with_marks()
    text = "Dank u. Welke leverancier hebt u? Ik noteer het."
    spoken = Spoken(words_of(text), Speaker.AGENT, "nl", 2)
    found = judging.read(
        by, compile_method(by, NL), spoken, [Finding("2.1.1", "Welke leverancier", 0.8)], SENTENCES
    )
    assert found.uses[0].quote == "Welke leverancier hebt u"
    assert found.is_question


# --- the customer


def attitude(*found: tuple[str, float], phase: int = 4) -> str | None:
    settled = judging.settle(HUGO, [Finding(name, "tja", strength) for name, strength in found], phase)
    return settled.name if settled else None


def test_the_surest_attitude_wins() -> None:
    assert attitude(("H6", 0.9), ("H7", 0.6)) == "H6"


def test_close_ones_are_settled_by_priority() -> None:
    assert attitude(("H6", 0.70), ("H8", 0.68), ("H7", 0.66), ("H1", 0.7)) == "H7"


@pytest.mark.parametrize("phase", [1, 2])
def test_an_attitude_the_phase_does_not_know_falls_back(phase: int) -> None:
    assert attitude(("H7", 0.9), phase=phase) == "H3"


def test_nothing_found_is_no_attitude() -> None:
    assert attitude() is None
    assert attitude(("4.1", 0.9)) is None


@pytest.mark.parametrize(
    ("text", "expected", "is_yes"),
    [("Ja.", "H1", True), ("Nee, niet echt.", "H2", False)],
    ids=["yes", "no"],
)
def test_a_bare_answer_to_a_question_is_read_by_it(text: str, expected: str, is_yes: bool) -> None:
    found = read(text, ("H3", 0.9), speaker=Speaker.CUSTOMER, before=(seller("Klopt dat?"),))
    assert (found.attitude, found.is_yes) == (expected, is_yes)


def test_any_positive_answer_to_a_summary_is_a_yes() -> None:
    text = "Precies, dat is het."
    summed_up = (seller("U wilt dus groeien?", "2.1.8"),)
    asked = (seller("Wat vindt u belangrijk?", "2.1.2"),)
    assert read(text, ("H1", 0.9), speaker=Speaker.CUSTOMER, before=summed_up).is_yes
    assert not read(text, ("H1", 0.9), speaker=Speaker.CUSTOMER, before=asked).is_yes


@pytest.mark.parametrize("found", ["H3", "H5", "H7"])
def test_a_yes_with_something_else_in_it_is_none(found: str) -> None:
    reading = read(
        "Ja, maar het blijft duur", (found, 0.9), speaker=Speaker.CUSTOMER, phase=4, before=(seller("Goed?"),)
    )
    assert not reading.is_yes


def test_a_reading_makes_a_turn() -> None:
    reading = Reading(attitude="H7", attitude_quote="te duur", is_yes=False)
    turn = judging.turn(reading, Utterance(3, Speaker.CUSTOMER, "Dat is te duur.", 12.5, 13.0), 4)
    assert (turn.sequence, turn.at, turn.phase, turn.attitude) == (3, 12.5, 4, "H7")


def test_unknown_names_are_ignored() -> None:
    assert read("Goed, klopt dat?", ("9.9", 0.9)).uses == ()
