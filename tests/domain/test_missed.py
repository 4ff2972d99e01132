from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from coach_server.domain.method.methodology import say_all
from coach_server.domain.method.turns import Quality, Turn
from coach_server.domain.practice.missed import RULES, missed_moments
from coach_server.domain.practice.scorecard import Missed
from coach_server.domain.practice.talk import TalkWords, review
from coach_server.services.practice.feedback_wording import feedback_wording
from tests.domain.talks import STARTED_AT, customer, hurried, method, seller, talk, whole

WORDS = feedback_wording("nl").words


def missed(turns: Sequence[Turn], words: TalkWords = WORDS, language: str = "nl") -> dict[str, Missed]:
    """By rule, the first of each."""
    found = missed_moments(review(turns, method(), language=language, started_at=STARTED_AT, words=words))
    rules = {kind.id: kind.rule for kind in method().missed}
    return {rules[moment.moment]: moment for moment in reversed(found)}


EXPLORED = (
    seller("Met hoeveel bent u?", 2, ("2.1.1", "goed")),
    customer("Met zes.", 2, "H1"),
    seller("Hoe lang al?", 2, ("2.1.1", "goed")),
    customer("Tien jaar.", 2, "H1"),
    seller("Wat vindt u daarvan?", 2, ("2.1.2", "goed")),
    customer("Dat gaat.", 2, "H1"),
)
COMMITTED = (
    seller("U wilt rust en geen zondagswerk, klopt dat?", 2, ("2.1.8", "goed")),
    customer("Ja.", 2, "H1", yes=True),
)
OFFER = (seller("Wij bieden een programma.", 3, ("3.2", "goed")), customer("Mooi.", 3, "H1"))


def test_a_talk_by_the_book_misses_nothing() -> None:
    assert missed(whole()) == {}


def test_the_method_file_names_every_rule() -> None:
    assert {kind.rule for kind in method().missed} == set(RULES)


def test_an_offer_after_one_question_is_too_early() -> None:
    moment = missed(hurried())["te_vroeg_fase_3_4"]
    assert moment.seller is not None and moment.seller.quote.startswith("Wij hebben een systeem")
    assert moment.customer is not None and moment.customer.quote.startswith("Twaalf")


def test_three_explorations_are_enough_for_an_offer() -> None:
    assert "te_vroeg_fase_3_4" not in missed(talk(*EXPLORED, *COMMITTED, *OFFER))


def test_an_exploration_that_came_to_nothing_does_not_count() -> None:
    poor = [
        replace(turn, uses=tuple(replace(use, quality=Quality.GEMIST) for use in turn.uses))
        for turn in EXPLORED
    ]
    assert "te_vroeg_fase_3_4" in missed(talk(*poor, *COMMITTED, *OFFER))


def test_a_practice_that_begins_with_the_offer_is_not_too_early() -> None:
    assert missed(talk(*OFFER, *OFFER)) == {}


def test_an_offer_without_a_commitment_is_missed() -> None:
    assert "commit_gemist" in missed(talk(*EXPLORED, *OFFER))
    assert "commit_gemist" not in missed(talk(*EXPLORED, *COMMITTED, *OFFER))


def test_a_commitment_after_the_offer_comes_too_late() -> None:
    assert "commit_gemist" in missed(talk(*EXPLORED, *OFFER, *COMMITTED))


PAIN = customer("We verliezen uren aan de planning.", 2, "H1")


def test_a_pain_that_nobody_goes_into_is_a_missed_probe() -> None:
    moment = missed(talk(*EXPLORED, PAIN, EXPLORED[0], EXPLORED[1], EXPLORED[2]))["probe_gemist"]
    assert moment.customer is not None and moment.customer.quote == PAIN.text
    assert moment.seller is not None and moment.seller.quote == EXPLORED[0].text


@pytest.mark.parametrize("technique", ["2.1.7", "2.3"])
def test_a_pain_may_be_taken_up_within_two_answers(technique: str) -> None:
    into_it = seller("Stel dat dat zo blijft, wat dan?", 2, (technique, "goed"))
    assert "probe_gemist" not in missed(talk(PAIN, *EXPLORED[:2], into_it, *EXPLORED[1:4]))
    assert "probe_gemist" in missed(talk(PAIN, *EXPLORED[:4], into_it, customer("Tja.", 2)))


def test_a_pain_in_the_customers_last_words_is_not_held_against_the_seller() -> None:
    assert "probe_gemist" not in missed(talk(*EXPLORED, PAIN))


def test_without_words_for_pain_no_probe_is_called_missed() -> None:
    assert "probe_gemist" not in missed(talk(*EXPLORED, PAIN, *EXPLORED), words=TalkWords())


def test_a_probe_without_its_consequence_misses_the_impact() -> None:
    probe = seller("Stel dat dat zo blijft?", 2, ("2.1.7", "goed"))
    impact = seller("Wat betekent dat voor uw gezin?", 2, ("2.3", "goed"))
    answer = customer("Dan werk ik elke zondag.", 2, "H1")
    moment = missed(talk(probe, answer, *EXPLORED))["impact_gemist"]
    assert moment.customer is not None and moment.customer.quote == answer.text
    assert "impact_gemist" not in missed(talk(probe, answer, impact, answer, *EXPLORED))
    assert "impact_gemist" not in missed(talk(*EXPLORED, probe, answer))


def at_the_end(attitude: str, *answer: Turn) -> dict[str, Missed]:
    return missed(talk(customer("Ik weet het niet hoor.", 4, attitude), *answer, customer("Tja.", 4, "H1")))


def test_a_doubt_that_is_talked_over_is_not_unpacked() -> None:
    found = at_the_end("H6", seller("Het is een heel goed programma.", 4))
    assert set(found) == {"twijfel_niet_uitgepakt"}
    assert found["twijfel_niet_uitgepakt"].technique == "4.2.2"


@pytest.mark.parametrize(
    "answer",
    [
        seller("Ik hoor dat u twijfelt.", 4, ("4.2.2", "bijna")),
        seller("Wat houdt u tegen?", 4),
    ],
    ids=["its technique", "a question"],
)
def test_a_doubt_is_unpacked_by_its_technique_or_a_question(answer: Turn) -> None:
    assert at_the_end("H6", answer) == {}


@pytest.mark.parametrize(
    ("attitude", "technique"), [("H7", "4.2.4"), ("H8", "4.2.3"), ("H9", "4.2.5")], ids=str
)
def test_other_resistance_that_is_passed_by_asks_for_its_own_technique(attitude: str, technique: str) -> None:
    found = at_the_end(attitude, seller("We leveren ook in het blauw.", 4))
    assert set(found) == {"bezwaar_overgeslagen"}
    assert found["bezwaar_overgeslagen"].technique == technique


def test_setting_an_objection_aside_where_that_is_forbidden_is_passing_it_by() -> None:
    aside = seller("Mag ik daar straks op terugkomen?", 4, ("2.1.4", "perfect"))
    assert "bezwaar_overgeslagen" in at_the_end("H7", aside)


def test_an_advantage_without_its_benefit_is_missed() -> None:
    advantage = seller("Het is sneller dan de rest.", 3, ("3.3", "goed"))
    benefit = seller("Voor u betekent dat: vroeger naar huis.", 3, ("3.4", "goed"))
    nod = customer("Juist.", 3, "H1")
    assert "baat_niet_gemaakt" in missed(talk(advantage, nod, *OFFER, *OFFER))
    assert missed(talk(advantage, nod, benefit, nod, *OFFER)) == {}
    assert missed(talk(replace(advantage, uses=advantage.uses + benefit.uses), nod, *OFFER)) == {}


def test_no_rule_gives_more_than_two_moments() -> None:
    passed = (customer("Te duur.", 4, "H7"), seller("We leveren ook in het blauw.", 4))
    turns = talk(*passed * 5, customer("Tja.", 4))
    found = missed_moments(review(turns, method(), language="nl", started_at=STARTED_AT, words=WORDS))
    assert [moment.moment for moment in found] == ["bezwaar_overgeslagen"] * 2


@pytest.mark.parametrize("language", ["nl", "en", "he"])
def test_the_better_question_is_one_of_the_file_in_the_talks_language(language: str) -> None:
    kinds = {kind.rule: kind for kind in method().missed}
    found = missed(hurried(), language=language)
    assert found
    for rule, moment in found.items():
        assert moment.better in say_all(kinds[rule].better, language)


def test_the_heaviest_moment_comes_first() -> None:
    found = missed_moments(review(hurried(), method(), language="nl", started_at=STARTED_AT, words=WORDS))
    assert [m.weight for m in found] == sorted((m.weight for m in found), reverse=True)
