"""Turns of a talk: which use is the best, whose they are, how the customer stood last."""

from __future__ import annotations

from itertools import pairwise

from coach_server.domain.turns import RANK, Quality, best, last_attitude, seller_turns
from tests.domain.talks import customer, seller, talk


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
