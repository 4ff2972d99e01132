from __future__ import annotations

from collections.abc import Sequence

import pytest

from coach_server.domain.method.metrics import attitudes, balance, impact, metrics, structure, weighted
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.talk import Talk, TalkWords, review
from coach_server.services.practice.feedback_wording import feedback_wording
from tests.domain.talks import STARTED_AT, customer, hurried, method, opening, seller, talk, whole

WORDS = feedback_wording("nl").words


def look(turns: Sequence[Turn], words: TalkWords = WORDS, name: str = "hugo", language: str = "nl") -> Talk:
    return review(turns, method(name), language=language, started_at=STARTED_AT, words=words)


def test_the_four_metrics_are_named_as_the_contract_names_them() -> None:
    assert list(metrics(look(whole()))) == ["structure", "attitudes", "balance", "impact"]


def test_a_whole_talk_flows() -> None:
    parts = structure(look(whole()))
    assert (parts["flow"], parts["opening"], parts["epic"]) == (100, 100, 100)


def test_a_talk_without_discovery_loses_forty_points_of_flow() -> None:
    turns = talk(*opening(), seller("Wij bieden een programma.", 3), customer("Mooi.", 3))
    assert structure(look(turns))["flow"] == 60


def test_a_phase_in_which_everything_was_missed_was_not_visited() -> None:
    turns = talk(
        *opening(),
        seller("Hoeveel?", 2, ("2.1.1", "gemist")),
        seller("Wij bieden een programma.", 3),
        customer("Mooi.", 3),
    )
    assert structure(look(turns))["flow"] == 60


def test_going_back_to_ask_makes_up_for_something() -> None:
    value = (seller("Wij bieden een programma.", 3), customer("Mooi.", 3))
    back = (seller("Hoeveel doet u er?", 2), customer("Zes.", 2))
    far = (seller("Beginnen we?", 4), customer("Nee.", 4))
    straight = talk(*opening(), *value, *far)
    # Phase 2 was left out on the way, and is visited by the way back.
    assert structure(look(straight))["flow"] == 60
    assert structure(look(talk(*opening(), *value, *back, *far)))["flow"] == 100


def test_themes_count_against_all_of_them_once_the_discovery_is_left() -> None:
    asked = (seller("Sinds wanneer?", 2, themes=("ervaring",)), customer("Lang.", 2))
    still_there = structure(look(talk(*opening(), *asked)))
    moved_on = structure(look(talk(*opening(), *asked, seller("Wij bieden iets.", 3), customer("Oké.", 3))))
    assert still_there["themes"] == 100
    assert moved_on["themes"] == pytest.approx(100 / 8)


def test_the_opening_alone_says_nothing_about_themes_or_the_customers_mind() -> None:
    parts = structure(look(opening()))
    assert (parts["themes"], parts["epic"]) == (None, None)


def test_an_attitude_met_with_its_technique_counts_full_and_another_half() -> None:
    def after(attitude: str, technique: str) -> float | None:
        turns = talk(*opening(), customer("Ach ja.", 2, attitude), seller("Zo?", 2, (technique, "perfect")))
        return attitudes(look(turns))["phase2"]

    assert after("H3", "2.1.5") == 100
    assert after("H3", "2.1.1") == 50


def test_an_attitude_that_nobody_answered_any_more_is_no_occasion() -> None:
    turns = talk(*opening(), customer("Ach ja.", 2, "H3"))
    assert attitudes(look(turns))["phase2"] is None


def test_a_positive_answer_asks_for_nothing() -> None:
    turns = talk(*opening(), customer("Dat klopt.", 2, "H1"), seller("Mooi.", 2))
    assert attitudes(look(turns))["phase2"] is None


@pytest.mark.parametrize(
    ("seller_words", "customer_words", "score"),
    [(3, 7, 100), (13, 7, 100), (1, 9, 33), (9, 1, 29)],
    ids=["thirty percent", "sixty-five", "ten", "ninety"],
)
def test_the_talk_share_is_good_from_thirty_to_sixty_five_percent(
    seller_words: int, customer_words: int, score: int
) -> None:
    turns = talk(seller("woord " * seller_words, 2), customer("woord " * customer_words, 2))
    assert balance(look(turns))["talk"] == pytest.approx(score, abs=0.5)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("U en uw team willen dat, en u ook, wij ook.", 100),
        ("Wij en ik en ons bedrijf: wij doen dat voor u.", 15.625),
    ],
    ids=["the customer", "himself"],
)
def test_perspective_is_you_against_we(text: str, score: float) -> None:
    assert balance(look(talk(seller(text, 2), customer("Ja.", 2))))["perspective"] == pytest.approx(score)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "We think our plan is what we and I need."),
        ("he", "אנחנו חושבים שלנו הוא הטוב, אצלנו הכול מסודר, לנו יש"),
    ],
)
def test_perspective_has_words_in_every_language(language: str, text: str) -> None:
    words = feedback_wording(language).words
    found = balance(look(talk(seller(text, 2), customer("x", 2)), words, language=language))["perspective"]
    assert found is not None and found < 50


def test_without_words_of_the_language_perspective_is_not_judged() -> None:
    turns = talk(seller("U en uw team en u.", 2), customer("Ja.", 2))
    assert balance(look(turns, TalkWords()))["perspective"] is None


def test_questions_are_counted_in_the_discovery_only() -> None:
    assert balance(look(opening()))["questions"] is None
    turns = talk(seller("Hoeveel?", 2), customer("Zes.", 2), seller("Mooi.", 2), seller("Goed.", 2))
    assert balance(look(turns))["questions"] == pytest.approx(100 * (1 / 3) / 0.5)


def test_words_of_the_customer_that_come_back_are_an_echo() -> None:
    told = customer("De planning van het magazijn is een ramp.", 2)
    assert balance(look(talk(told, seller("Die planning, hoe loopt die?", 2))))["echo"] == 100
    assert balance(look(talk(told, seller("Ons pakket is snel.", 2))))["echo"] == 0


def test_a_bare_yes_is_nothing_to_pick_up() -> None:
    assert balance(look(talk(customer("Ja.", 2), seller("Ja, mooi.", 2))))["echo"] is None


def test_the_commitment_counts_full_with_a_yes_and_half_without() -> None:
    assert impact(look(whole()))["commitment"] == 100
    without = [turn for turn in whole() if turn.text != "Ja, precies."]
    assert impact(look(without))["commitment"] == 50
    assert impact(look(hurried()))["commitment"] == 0
    assert impact(look(opening()))["commitment"] is None


def test_a_pain_that_comes_back_in_the_offer_was_used() -> None:
    told = customer("We verliezen uren aan de planning.", 2, "H1")
    used = talk(*opening(), told, seller("Ons programma maakt die planning voor u.", 3, ("3.2", "goed")))
    passed = talk(*opening(), told, seller("Ons programma is blauw.", 3, ("3.2", "goed")))
    assert impact(look(used))["pains"] == 100
    assert impact(look(passed))["pains"] == 0


def test_the_offer_is_solution_advantage_benefit_and_an_opinion() -> None:
    assert impact(look(whole()))["ovb"] == 100
    assert impact(look(opening()))["ovb"] is None


def test_a_metric_is_the_mean_of_the_parts_it_has() -> None:
    assert weighted({"a": 100.0, "b": None, "c": 50.0}, {"a": 0.3, "b": 0.5, "c": 0.1}) == 87.5
    assert weighted({"a": None}, {"a": 1.0}) is None
    assert weighted({"a": 100.0, "b": 50.0}, {}) == 75.0
