from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach_server.domain.detection import Objection, Signal
from coach_server.domain.playbook import (
    Conditions,
    Playbook,
    PlaybookLine,
    Situation,
    candidates,
    fill,
    first_name,
    missing,
    placeholders_of,
    spoken,
)
from coach_server.domain.stage import rank
from coach_server.domain.tip import Stage
from coach_server.services.content import Content

B2B = [Content.load().playbook("b2b", language) for language in ("en", "nl")]


def line(
    line_id: str, stage: Stage = Stage.DISCOVERY, text: str = "Say this.", **rest: object
) -> PlaybookLine:
    return PlaybookLine(line_id, stage, text, **rest)  # type: ignore[arg-type]


def book(*lines: PlaybookLine) -> Playbook:
    return Playbook("own", "Own", "en", lines)


def ids(playbook: Playbook, situation: Situation) -> list[str]:
    return [found.id for found in candidates(playbook, situation)]


@pytest.mark.parametrize("name", ["Agent Name", "agent_name", "agentName", "[Agent Name]", "AGENT NAME"])
def test_a_placeholder_is_found_however_it_is_spelt(name: str) -> None:
    assert fill("This is [Agent Name] speaking.", {name: "Maya"}) == "This is Maya speaking."


def test_people_are_addressed_by_their_first_name() -> None:
    assert fill("Hi [Customer Name].", {"customer_name": "Anna de Vries"}) == "Hi Anna."
    assert fill("Dag [Customer Name].", {"customer_name": "mevrouw Van Dam"}) == "Dag mevrouw Van Dam."
    assert first_name("Jo") == "Jo"


def test_a_line_whose_placeholders_are_known_is_spoken_as_written() -> None:
    known = line("a", text="Hi [Customer Name], it's [Agent Name].", neutral="Hi there.")
    assert spoken(known, {"customer_name": "Tom", "agent_name": "Maya"}) == "Hi Tom, it's Maya."


def test_an_unknown_placeholder_takes_the_neutral_variant() -> None:
    half = line("a", text="Hi [Customer Name], it's [Agent Name].", neutral="Hi, it's [Agent Name].")
    assert spoken(half, {"agent_name": "Maya"}) == "Hi, it's Maya."


def test_a_line_that_cannot_be_filled_gives_way() -> None:
    assert spoken(line("a", text="Hi [Customer Name]."), {}) is None
    assert spoken(line("a", text="Hi [Customer Name].", neutral="From [Location]."), {}) is None


def test_a_gap_that_must_be_shown_is_a_cue_in_words() -> None:
    assert fill("Hi [Customer Name]!", {}) == "Hi (customer name)!"
    assert missing("Hi [Customer Name] in [Location]", {"location": "Leeds"}) == ("Customer Name",)
    assert placeholders_of("[A] and [B]") == ("A", "B")


@given(st.text(max_size=200), st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=5))
def test_no_bracket_survives_filling(text: str, values: dict[str, str]) -> None:
    filled = fill(text, values)
    assert "[" not in filled
    assert "]" not in filled


def test_a_line_for_an_objection_needs_that_objection() -> None:
    own = book(
        line(
            "price", Stage.OBJECTION_HANDLING, conditions=Conditions(objections=frozenset({Objection.PRICE}))
        ),
        line("any", Stage.OBJECTION_HANDLING),
    )
    stage = Stage.OBJECTION_HANDLING
    assert ids(own, Situation(stage)) == ["any"]
    assert ids(own, Situation(stage, objections=frozenset({Objection.PRICE}))) == ["price", "any"]
    assert ids(own, Situation(stage, objections=frozenset({Objection.TRUST}))) == ["any"]


def test_a_line_for_a_signal_needs_that_signal() -> None:
    own = book(line("pain", conditions=Conditions(signals=frozenset({Signal.PAIN}))))
    assert ids(own, Situation(Stage.DISCOVERY)) == []
    assert ids(own, Situation(Stage.DISCOVERY, signals=frozenset({Signal.PAIN}))) == ["pain"]


def test_nothing_known_is_asked_and_nothing_unknown_is_used() -> None:
    own = book(
        line("ask", conditions=Conditions(unknown=frozenset({"budget"}))),
        line("use", conditions=Conditions(known=frozenset({"budget"}))),
    )
    assert ids(own, Situation(Stage.DISCOVERY)) == ["ask"]
    assert ids(own, Situation(Stage.DISCOVERY, facts=frozenset({"budget"}))) == ["use"]


def test_lines_for_a_refusal_are_for_nothing_else() -> None:
    own = book(
        line("bye", Stage.CLOSING, conditions=Conditions(after_refusal=True)), line("sell", Stage.CLOSING)
    )
    assert ids(own, Situation(Stage.CLOSING)) == ["sell"]
    assert ids(own, Situation(Stage.CLOSING, refused=True)) == ["bye"]


def test_a_line_may_wait_for_its_stage() -> None:
    own = book(line("ask", Stage.CLOSING, conditions=Conditions(not_before=Stage.NEXT_STEPS)))
    assert ids(own, Situation(Stage.DISCOVERY)) == []
    assert ids(own, Situation(Stage.NEXT_STEPS)) == ["ask"]


def test_after_conversion_only_lines_of_conversion_are_left() -> None:
    own = book(line("sell", Stage.CLOSING), line("thank", Stage.CONVERSION))
    assert ids(own, Situation(Stage.CONVERSION)) == ["thank"]


def test_the_wanted_stage_comes_first_and_a_stage_left_behind_last() -> None:
    own = book(line("back", Stage.GREETING), line("ahead", Stage.VALUE_PROP), line("here", Stage.DISCOVERY))
    assert ids(own, Situation(Stage.DISCOVERY)) == ["here", "ahead", "back"]


@pytest.mark.parametrize("playbook", B2B, ids=lambda p: p.language)
def test_the_b2b_playbook_covers_every_stage_and_objection(playbook: Playbook) -> None:
    assert len(playbook.lines) >= 30
    assert {found.stage for found in playbook.lines} == set(Stage)
    for objection in Objection:
        handling = [x for x in playbook.lines if objection in x.conditions.objections]
        assert {x.label for x in handling} == {"Minimal", "Explanative", "Contextual"}, objection


def test_the_b2b_playbook_is_the_same_book_in_both_languages() -> None:
    english, dutch = B2B
    assert [(x.id, x.stage, x.label, x.conditions) for x in english.lines] == [
        (x.id, x.stage, x.label, x.conditions) for x in dutch.lines
    ]


@pytest.mark.parametrize("playbook", B2B, ids=lambda p: p.language)
def test_every_b2b_line_can_be_said_when_nothing_is_known(playbook: Playbook) -> None:
    unsaid = [x.id for x in playbook.lines if spoken(x, {}) is None]
    assert unsaid == ["greet-location"]
    assert all(len(x.text) <= 220 for x in playbook.lines)


@pytest.mark.parametrize("playbook", B2B, ids=lambda p: p.language)
@given(
    stage=st.sampled_from(Stage),
    objections=st.frozensets(st.sampled_from(Objection), max_size=2),
    facts=st.frozensets(st.sampled_from(["budget", "pain", "supplier", "preferred_time"])),
    refused=st.booleans(),
)
def test_the_b2b_playbook_always_has_three_lines(
    playbook: Playbook,
    stage: Stage,
    objections: frozenset[Objection],
    facts: frozenset[str],
    refused: bool,
) -> None:
    found = candidates(playbook, Situation(stage, objections, frozenset(), facts, refused))
    assert len(found) >= 3
    distances = [abs(rank(x.stage) - rank(stage)) for x in found]
    assert distances == sorted(distances)
