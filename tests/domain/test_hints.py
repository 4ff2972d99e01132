"""When a hint helps and when it would not: each rule, its words, the pause between two, and the most of a
kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from coach_server.domain.method.methodology import Methodology, say
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.hints import RULES, Hint, HintMemory, Scene, find_hint
from coach_server.services.method.methodologies import Methodologies
from tests.domain.talks import customer, method, seller, talk

OPENED = frozenset({"1.1", "1.2", "1.3", "1.4"})
ALL = tuple(Methodologies.load().all())


def only(rule: str) -> Methodology:
    """The method with this rule alone."""
    known = method()
    return dataclasses.replace(known, hints=tuple(hint for hint in known.hints if hint.rule == rule))


def scene(
    *turns: Turn,
    rule: str | None = None,
    phase: int = 2,
    step: str = "2.1.1",
    done: frozenset[str] = OPENED,
    committed: bool = False,
    language: str = "nl",
    seller_count: int = 10,
) -> Scene:
    return Scene(
        method=method() if rule is None else only(rule),
        language=language,
        turns=talk(*turns),
        phase=phase,
        step_id=step,
        done=done,
        committed=committed,
        seller_count=seller_count,
    )


def hint(*turns: Turn, rule: str, phase: int = 2, **more: object) -> Hint | None:
    return find_hint(scene(*turns, rule=rule, phase=phase, **more), HintMemory())  # type: ignore[arg-type]


# --- a phase too early


def test_an_offer_before_the_yes_is_warned_of() -> None:
    found = hint(seller("Ons pakket lost dat op.", 2, ("3.2", "gemist")), rule="phase_too_early")
    assert found is not None
    assert (found.step_id, found.kind) == ("2.1.8", "warning")


@pytest.mark.parametrize("technique", ["3.2", "4.1", "4.ABC", "3.6"])
def test_any_technique_of_a_later_phase_is_too_early(technique: str) -> None:
    assert hint(seller("Dan beginnen we.", 2, (technique, "goed")), rule="phase_too_early") is not None


def test_after_the_yes_an_offer_is_in_time() -> None:
    offer = seller("Ons pakket lost dat op.", 3, ("3.2", "goed"))
    assert hint(offer, rule="phase_too_early", committed=True) is None


@pytest.mark.parametrize(
    "turn",
    [
        seller("Hoe loopt de planning?", 2, ("2.1.1", "goed")),
        seller("Ja, ja.", 2),
        customer("Toon mij uw oplossing.", 2, "H5"),
    ],
    ids=["a question", "nothing", "the customer"],
)
def test_what_is_no_offer_is_not_too_early(turn: Turn) -> None:
    assert hint(turn, rule="phase_too_early") is None


def test_a_method_without_a_commitment_warns_of_no_phase() -> None:
    free = dataclasses.replace(only("phase_too_early"), commitment=(), commitment_before=None)
    offer = scene(seller("Ons pakket.", 2, ("3.2", "goed")))
    assert find_hint(dataclasses.replace(offer, method=free), HintMemory()) is None


# --- an attitude that asks for something


def test_an_answer_that_does_not_meet_the_attitude_is_told_what_would() -> None:
    found = hint(
        customer("Dat is te duur.", 4, "H7"),
        seller("Ons pakket is het snelste.", 4, ("3.3", "goed")),
        rule="attitude_asks",
        phase=4,
    )
    assert found is not None and found.step_id == "4.2.4"


def test_an_answer_that_meets_the_attitude_needs_no_hint() -> None:
    asked = customer("Dat is te duur.", 4, "H7")
    met = seller("Te duur waarmee vergeleken?", 4, ("4.2.4", "goed"))
    assert hint(asked, met, rule="attitude_asks", phase=4) is None


def test_an_answer_that_meets_it_poorly_still_gets_a_hint() -> None:
    asked = customer("Dat is te duur.", 4, "H7")
    poor = seller("Te duur.", 4, ("4.2.4", "bijna"))
    assert hint(asked, poor, rule="attitude_asks", phase=4) is not None


def test_a_positive_customer_asks_for_nothing() -> None:
    said = (customer("Dat klopt.", 2, "H1"), seller("Ja.", 2))
    assert hint(*said, rule="attitude_asks") is None


def test_the_same_resistance_twice_is_hinted_at_before_the_seller_answers() -> None:
    found = hint(
        customer("Dat is te duur.", 4, "H7"),
        seller("Dat valt mee.", 4),
        customer("Toch te duur.", 4, "H7"),
        rule="attitude_asks",
        phase=4,
    )
    assert found is not None and found.step_id == "4.2.4"


@pytest.mark.parametrize("second", ["H8", None, "H3"])
def test_another_attitude_the_second_time_is_left_to_the_seller(second: str | None) -> None:
    said = (customer("Te duur.", 4, "H7"), seller("Hm.", 4), customer("Ik weet niet.", 4, second))
    assert hint(*said, rule="attitude_asks", phase=4) is None


def test_vagueness_that_comes_back_is_no_resistance() -> None:
    said = (customer("Ja, zeker.", 2, "H3"), seller("Hm.", 2), customer("Ja, ja.", 2, "H3"))
    assert hint(*said, rule="attitude_asks") is None


def test_what_the_phase_forbids_is_never_suggested() -> None:
    """Parking is the answer to a misfit in discovery and forbidden in the decision."""
    said = (customer("Dat past niet bij ons.", 4, "H2"), seller("Toch wel.", 4))
    found = hint(*said, rule="attitude_asks", phase=4)
    assert found is not None and found.step_id != "2.1.4"


# --- a required step that was passed


def test_a_required_step_that_was_passed_is_asked_for() -> None:
    found = hint(
        seller("Wij helpen veertig firma's.", 1, ("1.3", "goed")),
        rule="missed_required_step",
        phase=1,
        done=frozenset({"1.1"}),
    )
    assert found is not None and (found.step_id, found.kind) == ("1.2", "tip")


def test_discovery_with_the_opening_done_misses_nothing() -> None:
    asked = seller("Hoeveel mensen?", 2, ("2.1.1", "goed"))
    assert hint(asked, rule="missed_required_step") is None


@pytest.mark.parametrize("quality", ["bijna", "gemist"])
def test_a_step_that_failed_passed_nothing(quality: str) -> None:
    said = seller("Wij helpen firma's.", 1, ("1.3", quality))
    assert hint(said, rule="missed_required_step", phase=1, done=frozenset()) is None


def test_steps_that_are_not_required_may_be_passed() -> None:
    said = seller("Vertel eens meer?", 2, ("2.1.7", "perfect"))
    assert hint(said, rule="missed_required_step", phase=2) is None


# --- a seller who is lost


def test_after_five_turns_without_the_method_the_step_is_shown_again() -> None:
    lost = [seller(f"Zin {number}.", 2) for number in range(5)]
    found = hint(*lost, rule="stay_on_step", step="2.1.6")
    assert found is not None and found.step_id == "2.1.6"


def test_four_turns_are_not_lost_yet() -> None:
    assert hint(*[seller(f"Zin {n}.", 2) for n in range(4)], rule="stay_on_step") is None


def test_one_good_turn_of_five_is_not_lost() -> None:
    turns = [seller(f"Zin {number}.", 2) for number in range(4)]
    turns.insert(1, seller("Hoeveel?", 2, ("2.1.1", "goed")))
    assert hint(*turns, rule="stay_on_step") is None


def test_the_customers_turn_never_says_that_the_seller_is_lost() -> None:
    turns: list[Turn] = [seller(f"Zin {number}.", 2) for number in range(5)]
    assert hint(*turns, customer("Hm.", 2), rule="stay_on_step") is None


# --- one at a time


def _early(at: int) -> Scene:
    return scene(seller("Ons pakket.", 2, ("3.2", "goed")), rule="phase_too_early", seller_count=at)


def test_never_two_hints_within_two_of_the_sellers_turns() -> None:
    memory = HintMemory()
    given = [at for at in range(1, 8) if find_hint(_early(at), memory) is not None]
    assert given == [1, 4]


def test_the_same_hint_comes_twice_at_most() -> None:
    memory = HintMemory()
    given = [at for at in range(1, 40) if find_hint(_early(at), memory) is not None]
    assert len(given) == 2


def test_the_second_time_another_example_is_given() -> None:
    memory = HintMemory()
    first, second = find_hint(_early(1), memory), find_hint(_early(9), memory)
    assert first is not None and second is not None
    assert first.id == second.id and first.text != second.text


def test_when_one_is_used_up_the_next_rule_may_speak() -> None:
    memory = HintMemory()
    both = scene(
        customer("Dat is te duur.", 3, "H7"),
        seller("Ons pakket is snel.", 3, ("3.2", "goed")),
        phase=3,
    )
    rules = []
    for at in range(1, 30, 3):
        found = find_hint(dataclasses.replace(both, seller_count=at), memory)
        if found is not None:
            rules.append(found.id.split(":")[0])
    assert rules == ["phase_too_early"] * 2 + ["attitude_asks"] * 2


def test_nothing_was_said_nothing_is_hinted() -> None:
    assert find_hint(scene(), HintMemory()) is None


def test_a_hint_is_remembered_with_the_turn_it_came_at() -> None:
    memory = HintMemory()
    found = find_hint(_early(7), memory)
    assert found is not None
    assert (memory.given, memory.seller_turn) == ({found.id: 1}, 7)


# --- words


@pytest.mark.parametrize("language", ["nl", "en", "he"])
@pytest.mark.parametrize("known", ALL, ids=lambda known: known.id)
def test_every_hint_of_a_method_is_a_whole_sentence_in_every_language(
    known: Methodology, language: str
) -> None:
    for rule in known.hints:
        assert rule.rule in RULES and rule.kind in ("tip", "warning")
        text = say(rule.text, language)
        filled = text.format(technique="A", step="B", question="C?")
        assert text and "{" not in filled


@pytest.mark.parametrize("language", ["nl", "en", "he"])
def test_a_hint_names_the_technique_as_the_catalog_does(language: str) -> None:
    found = hint(
        seller("Wij.", 1, ("1.3", "goed")),
        rule="missed_required_step",
        phase=1,
        done=frozenset({"1.1"}),
        language=language,
    )
    assert found is not None
    assert say(method().technique("1.2").name, language) in found.text
    assert "{" not in found.text and not found.text.rstrip().endswith(":")


def _steps(known: Methodology) -> Sequence[str]:
    return [step.id for step in known.steps]


@pytest.mark.parametrize("known", ALL, ids=lambda known: known.id)
def test_a_hint_always_names_a_step_of_the_method(known: Methodology) -> None:
    last = known.steps[-1]
    for technique in known.techniques:
        for attitude in known.attitudes:
            turns = talk(
                customer("Nee.", last.phase, attitude.id), seller("Ja.", last.phase, (technique.id, "goed"))
            )
            looked_at = Scene(known, "nl", turns, last.phase, last.id, frozenset(), False, 9)
            found = find_hint(looked_at, HintMemory())
            assert found is None or found.step_id in _steps(known)
