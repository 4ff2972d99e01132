"""Turns of a talk: which use is the best, whose they are, how the customer stood last."""

from __future__ import annotations

from itertools import pairwise

import pytest

from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import (
    RANK,
    Quality,
    best,
    last_attitude,
    phase_after,
    phase_said_in,
    seller_turns,
)
from coach_server.services.method.methodologies import Methodologies
from tests.domain.talks import customer, method, seller, talk


def test_qualities_rank_from_missed_to_perfect() -> None:
    worst_first = ["gemist", "bijna", "goed", "perfect"]
    assert sorted(Quality, key=lambda quality: RANK[quality]) == [Quality(name) for name in worst_first]
    assert all(RANK[better] > RANK[worse] for better, worse in pairwise(Quality))


def test_the_best_use_is_the_one_of_the_highest_quality() -> None:
    turn = seller("Hoe loopt het?", 2, ("2.1.1", "bijna"), ("2.1.2", "perfect"))
    found = best(turn.uses)
    assert found is not None and found.id == "2.1.2"


def test_of_equal_uses_the_first_one_is_the_best() -> None:
    turn = seller("Hoe loopt het?", 2, ("2.1.1", "goed"), ("2.1.2", "goed"))
    found = best(turn.uses)
    assert found is not None and found.id == "2.1.1"


def test_a_turn_without_a_technique_has_no_best_use() -> None:
    assert best(seller("Ja.", 1).uses) is None


def test_seller_turns_leave_the_customers_words_out() -> None:
    said = talk(seller("Dag.", 1), customer("Dag.", 1), seller("Hoe gaat het?", 1))
    assert [turn.text for turn in seller_turns(said)] == ["Dag.", "Hoe gaat het?"]


def test_the_last_attitude_is_that_of_the_customers_last_turn() -> None:
    said = talk(customer("Te duur.", 3, "H7"), customer("Misschien.", 3, "H3"), seller("Waarom?", 3))
    assert last_attitude(said) == "H3"


def test_a_last_turn_without_an_attitude_does_not_bring_an_older_one_back() -> None:
    said = talk(customer("Te duur.", 3, "H7"), customer("Hm.", 3))
    assert last_attitude(said) is None


def test_without_a_customer_there_is_no_attitude() -> None:
    assert last_attitude(talk(seller("Dag.", 1))) is None


def test_a_turn_counts_where_it_led_the_talk() -> None:
    asked = seller("Hoeveel mensen?", 1, ("2.1.1", "goed"))
    assert phase_said_in(method(), 1, 2, asked.uses) == 2


def test_a_turn_with_something_that_has_its_place_only_before_counts_there() -> None:
    both = seller("Fijn dat u tijd maakt, vertelt u eens?", 1, ("1.1", "goed"), ("1.4", "goed"))
    assert phase_said_in(method(), 1, 2, both.uses) == 1


@pytest.mark.parametrize("known", Methodologies.load().all(), ids=lambda known: known.id)
def test_every_phase_of_a_method_is_reached_from_the_one_before(known: Methodology) -> None:
    for phase in known.flow[1:]:
        before = known.flow[known.flow.index(phase) - 1].id
        found = seller("Woorden.", before, (known.steps_of(phase.id)[0].id, "goed"))
        assert phase_after(known, before, found, []) == phase.id


def test_after_the_last_phase_a_talk_stays_there() -> None:
    assert phase_after(method(), 4, seller("Dan beginnen we?", 4, ("4.1", "perfect")), []) == 4
