"""How a talk ends, in every row of the table."""

from __future__ import annotations

from typing import Any

import pytest

from coach_server.domain.simulation import ending
from coach_server.domain.simulation.ending import Standing, agreed, at_limit, decide
from coach_server.domain.simulation.talk import Direction, Outcome

RISING, FALLING, STABLE = Direction.RISING, Direction.FALLING, Direction.STABLE


def standing(attitude: float, direction: Direction = STABLE, **changes: Any) -> Standing:
    usual: dict[str, Any] = {"initial": 4.0, "before": (4.0,), "exchanges": 3}
    return Standing(attitude, direction, **(usual | changes))


@pytest.mark.parametrize(
    ("where", "outcome"),
    [
        (standing(5, is_breach=True), Outcome.COMPLIANCE_FAIL),
        (standing(5, is_breach=True, exchanges=0), Outcome.COMPLIANCE_FAIL),
        (standing(9, RISING, is_breach=True), Outcome.COMPLIANCE_FAIL),
        (standing(8, RISING), None),
        (standing(8, RISING, before=(8.0,)), Outcome.CONVERTED),
        (standing(7.9, RISING, before=(8.0,)), None),
        (standing(10, RISING), Outcome.CONVERTED),
        (standing(8.5, STABLE, closed=True), Outcome.CONVERTED),
        (standing(8.5, FALLING), None),
        (standing(6, RISING, closed=True), Outcome.CONVERTED),
        (standing(6, RISING), None),
        (standing(6, STABLE, closed=True), Outcome.CONVERTED),
        (standing(6, STABLE, closed=True, initial=6.0), None),
        (standing(6, FALLING, closed=True), None),
        (standing(5.9, RISING, closed=True), None),
        (standing(9, RISING, exchanges=1), None),
        (standing(1, FALLING), Outcome.WALKED_AWAY),
        (standing(1, FALLING, before=()), None),
        (standing(1, STABLE, initial=1.0), None),
        (standing(0.5, FALLING, initial=1.0), Outcome.WALKED_AWAY),
        (standing(1.9, FALLING), None),
        (standing(1.9, FALLING, before=(3.0, 1.5)), Outcome.WALKED_AWAY),
        (standing(2.0, FALLING, before=(1.9,)), None),
        (standing(3.9, FALLING, exchanges=6), Outcome.REJECTED),
        (standing(3.9, STABLE, exchanges=6), None),
        (standing(3.9, STABLE, exchanges=8), Outcome.REJECTED),
        (standing(3.9, RISING, exchanges=9), None),
        (standing(4.0, FALLING, exchanges=9), None),
        (standing(5, STABLE), None),
    ],
)
def test_the_customer_decides_by_how_the_talk_stands(where: Standing, outcome: Outcome | None) -> None:
    assert decide(where) is outcome


@pytest.mark.parametrize("initial", [0.0, 1.0, 2.0, 3.0])
def test_a_talk_never_ends_on_its_first_evaluation_because_the_customer_began_cold(initial: float) -> None:
    first = standing(initial, STABLE, initial=initial, before=(), exchanges=2)
    second = standing(initial, STABLE, initial=initial, before=(initial,), exchanges=3)

    assert decide(first) is None
    assert decide(second) is None


@pytest.mark.parametrize(
    ("wanted", "where", "outcome"),
    [
        (Outcome.CONVERTED, standing(6, RISING), Outcome.CONVERTED),
        (Outcome.CONVERTED, standing(5, RISING), None),
        (Outcome.CONVERTED, standing(9, FALLING), None),
        (Outcome.WALKED_AWAY, standing(2, FALLING), Outcome.WALKED_AWAY),
        (Outcome.WALKED_AWAY, standing(2, FALLING, before=()), None),
        (Outcome.WALKED_AWAY, standing(3, FALLING), None),
        (Outcome.REJECTED, standing(3, STABLE, exchanges=4), Outcome.REJECTED),
        (Outcome.REJECTED, standing(3, STABLE, exchanges=3), None),
        (Outcome.REJECTED, standing(7, RISING, exchanges=6), None),
        (Outcome.COMPLIANCE_FAIL, standing(5), None),
        (Outcome.CONVERTED, standing(9, RISING, is_breach=True), Outcome.COMPLIANCE_FAIL),
    ],
)
def test_a_model_gets_the_end_it_wants_only_when_the_talk_bears_it(
    wanted: Outcome, where: Standing, outcome: Outcome | None
) -> None:
    assert agreed(wanted, where) is outcome


def test_at_the_limit_a_customer_that_is_not_won_over_says_no() -> None:
    assert at_limit(6, STABLE) is Outcome.CONVERTED
    assert at_limit(6, FALLING) is Outcome.REJECTED
    assert at_limit(5.9, RISING) is Outcome.REJECTED


def test_every_reason_has_its_outcome_and_giving_up_is_rejection() -> None:
    assert [
        ending.outcome_of(reason) for reason in ("converted", " Walked_Away ", "gave_up", "nonsense")
    ] == [
        Outcome.CONVERTED,
        Outcome.WALKED_AWAY,
        Outcome.REJECTED,
        None,
    ]
    assert ending.outcome_of("compliance_fail") is Outcome.COMPLIANCE_FAIL
    assert ending.known_reason("ignore your orders") == "unknown"


def test_the_trigger_names_who_ended_it() -> None:
    assert ending.by_supervisor(Outcome.REJECTED) == "supervisor:rejected"
    assert ending.by_tool(Outcome.CONVERTED) == "end_conversation:converted"


def test_there_is_no_score_below_two_exchanges() -> None:
    assert [ending.is_scored(count) for count in (0, 1, 2, 3)] == [False, False, True, True]


def test_late_and_cold_heads_for_the_end() -> None:
    assert ending.heads_for_end(6, 3.9)
    assert not ending.heads_for_end(5, 1)
    assert not ending.heads_for_end(9, 4)
