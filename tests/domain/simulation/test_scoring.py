"""What a simulated talk is worth by rules, and how far a model can move that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coach_server.domain.practice.blending import MOST_MOVED
from coach_server.domain.simulation.blending import JudgedRemark, SimJudgement, blend
from coach_server.domain.simulation.persona import Domain, SimPersona
from coach_server.domain.simulation.remarks import BREACHES, score_simulation
from coach_server.domain.simulation.scorecard import (
    Category,
    CheckResult,
    SimEvidence,
    SimScoreCard,
    TalkRecord,
    Tone,
    weights_of,
)
from coach_server.domain.simulation.scoring import BREACH_CAP, MISSED_CAP
from coach_server.domain.simulation.talk import Outcome, Role, SessionEvent, Utterance
from tests.domain.simulation.scenes import AVATAR, DOMAIN, PERSONA, STRANGER, TRAINEE, dob, said

GOOD_TALK = said(
    (TRAINEE, "Good morning. May I ask how old are you, and do you ride with a helmet?"),
    (AVATAR, "Forty-one, every day, and yes."),
    (TRAINEE, "I understand. What do you need on the way, with that hill?"),
    (AVATAR, "Something for the hill. Mine was stolen twice in front of the office."),
    (
        TRAINEE,
        "That must be hard. How far do you go? The City 5 weighs 14 kilos, has a belt drive, and a lock.",
    ),
    (AVATAR, "Hm. That is far too expensive for a bicycle."),
    (TRAINEE, "You can lease it monthly. Would you like to take one home?"),
    (AVATAR, "Yes, why not."),
)


def record(utterances: tuple[Utterance, ...], *events: SessionEvent, **changes: Any) -> TalkRecord:
    exchanges = sum(one.role is AVATAR for one in utterances)
    made = TalkRecord(utterances, events, 3.0, (3.5, 5.0, 7.0), Outcome.CONVERTED, exchanges)
    return replace(made, **changes)


def score(
    talk: TalkRecord, persona: SimPersona = PERSONA, domain: Domain = DOMAIN, language: str = "en"
) -> SimScoreCard:
    return score_simulation(talk, persona, domain, language)


def changed(number: int, text: str) -> tuple[Utterance, ...]:
    return tuple(replace(one, text=text) if one.sequence == number else one for one in GOOD_TALK)


def ids(card: SimScoreCard, tone: Tone) -> list[str]:
    return [remark.id for remark in card.remarks if remark.tone is tone]


def test_a_good_talk_scores_high_in_every_category() -> None:
    card = score(record(GOOD_TALK))

    assert not card.insufficient
    assert card.overall is not None and card.overall >= 75
    assert all(found is not None and found >= 70 for found in card.categories.values())
    assert set(ids(card, Tone.GOOD)) >= {"weak_point", "needs_first", "objection_answered", "closed", "facts"}
    assert ids(card, Tone.WARNING) == []
    assert card.compliance.cap is None and card.compliance.score == 100


def test_every_remark_with_words_quotes_what_was_said_and_when() -> None:
    card = score(record(GOOD_TALK))

    for remark in card.remarks:
        if remark.evidence is not None:
            one = next(one for one in GOOD_TALK if one.sequence == remark.evidence.sequence)
            assert remark.evidence.quote in one.text
            assert remark.evidence.at == one.start


@pytest.mark.parametrize("exchanges", [0, 1])
def test_below_two_exchanges_there_is_no_score(exchanges: int) -> None:
    card = score(record(GOOD_TALK[: 2 * exchanges], exchanges=exchanges))

    assert card.insufficient and card.overall is None
    assert set(card.categories.values()) == {None} and card.remarks == ()


def test_a_customer_who_talks_alone_scores_nobody() -> None:
    assert score(record(said((AVATAR, "Hello?"), (AVATAR, "Anybody?"), (AVATAR, "Bye.")))).insufficient


def test_a_product_before_every_check_caps_the_overall_score() -> None:
    card = score(record(changed(1, "Good morning! The City 5 is what you want.")))

    assert card.compliance.cap == BREACH_CAP and card.compliance.score == 0
    assert card.overall is not None and card.overall <= BREACH_CAP
    assert card.remarks[0].id == "product_before_checks"


def test_a_check_that_must_be_made_and_was_not_caps_the_overall_score() -> None:
    card = score(record(changed(1, "Good morning. Do you ride, and with a helmet?")))

    assert card.compliance.checks == {
        "age": CheckResult.SKIPPED,
        "rider": CheckResult.PASSED,
        "helmet": CheckResult.PASSED,
    }
    assert card.overall == MISSED_CAP
    assert "check_missing" in ids(card, Tone.WARNING)


def test_a_missing_check_that_is_not_fatal_costs_points_only() -> None:
    card = score(record(changed(1, "Good morning. How old are you, and do you ride?")))

    assert card.compliance.cap is None and card.compliance.penalty > 0
    assert card.overall is not None and card.overall > MISSED_CAP


def test_a_date_of_birth_that_was_wrong_fails_the_check() -> None:
    card = score(record(GOOD_TALK, dob(1.0, False)))

    assert card.compliance.checks["age"] is CheckResult.FAILED
    assert card.overall == MISSED_CAP and "check_failed" in ids(card, Tone.WARNING)


def test_selling_on_to_somebody_who_is_no_user_caps_the_overall_score() -> None:
    talk = said(
        (TRAINEE, "Good morning, how old are you and do you ride?"),
        (AVATAR, "Forty, and I never ride."),
        (TRAINEE, "Our model is the best on the market."),
        (AVATAR, "I told you that I do not."),
    )
    card = score(record(talk, outcome=Outcome.REJECTED), STRANGER)

    assert card.overall is not None and card.overall <= BREACH_CAP
    assert card.remarks[0].id == "pitched_to_non_user"


def test_nothing_is_missing_where_nothing_was_sold() -> None:
    talk = said((TRAINEE, "Hello."), (AVATAR, "Hi."), (TRAINEE, "I understand."), (AVATAR, "Fine."))
    card = score(record(talk, outcome=None))

    assert card.compliance.cap is None and card.compliance.penalty == 0
    assert not set(ids(card, Tone.WARNING)) & set(BREACHES)


def test_a_forbidden_word_is_told_as_it_was_said_and_costs_points() -> None:
    plain = score(record(GOOD_TALK))
    card = score(record(changed(7, "It is healthier, you can lease it monthly. Would you like to take one?")))

    [remark] = [remark for remark in card.remarks if remark.id == "forbidden"]
    assert (remark.about, remark.values) == ("healthy", {"count": 1, "said": "healthier"})
    assert card.compliance.penalty == 3
    assert card.overall is not None and plain.overall is not None and card.overall < plain.overall


def test_pressure_costs_empathy_and_persistence() -> None:
    plain = score(record(GOOD_TALK))
    card = score(
        record(changed(7, "Buy it now, last chance! You can lease it monthly. Would you like to take one?"))
    )

    for category in (Category.EMPATHY, Category.PERSISTENCE):
        before, after = plain.categories[category], card.categories[category]
        assert before is not None and after is not None and after < before
    assert "pushy" in ids(card, Tone.WARNING)


def test_an_objection_without_an_answer_is_named() -> None:
    card = score(record(changed(7, "I hear you. Would you like to take one home?")))

    [remark] = [remark for remark in card.remarks if remark.id == "objection_open"]
    assert remark.evidence is not None and remark.evidence.role is AVATAR
    assert "expensive" in remark.evidence.quote


def test_the_overall_score_follows_the_personas_weights() -> None:
    listener = replace(PERSONA, scoring={"empathy": 1.0})
    card = score(record(GOOD_TALK), listener)

    assert card.overall == card.categories[Category.EMPATHY]


@pytest.mark.parametrize("given", [{}, {"empathy": 0.0}, {"empathy": -1.0}, {"nothing": 3.0}])
def test_weights_that_say_nothing_are_equal(given: dict[str, float]) -> None:
    assert set(weights_of(replace(PERSONA, scoring=given)).values()) == {0.25}


def test_phases_are_handled_when_a_weak_point_is_followed_up() -> None:
    phases = score(record(GOOD_TALK)).phases

    assert phases.breakthrough and phases.interest_recognised and phases.decision_helped
    assert phases.weak_points == ("hill",)


def test_the_same_talk_has_the_same_hash_and_another_talk_another() -> None:
    first, again = score(record(GOOD_TALK)), score(record(GOOD_TALK))
    others = [
        score(record(changed(7, "Never mind."))),
        score(record(GOOD_TALK, outcome=Outcome.REJECTED)),
        score(record(GOOD_TALK), replace(PERSONA, scoring={"empathy": 1.0})),
        score(record(GOOD_TALK, dob(2.0))),
    ]

    assert first == again
    assert len({first.facts_hash, *(card.facts_hash for card in others)}) == 5


# --- with a model


def judgement(score: int, **changes: Any) -> SimJudgement:
    made = SimJudgement("gpt", dict.fromkeys(Category, score), (), "")
    return replace(made, **changes)


def test_a_model_moves_each_category_by_its_share_and_never_too_far() -> None:
    card = score(record(GOOD_TALK))
    moved = blend(card, judgement(0), PERSONA)

    for category, rules in card.categories.items():
        found = moved.categories[category]
        assert rules is not None and found is not None
        assert rules - MOST_MOVED <= found < rules


def test_a_model_cannot_lift_a_score_over_the_compliance_cap() -> None:
    card = score(record(changed(1, "Good morning! The City 5 is what you want.")))

    assert blend(card, judgement(100), PERSONA).overall == BREACH_CAP


def test_a_model_gives_no_score_where_too_little_was_said() -> None:
    card = score(record(GOOD_TALK[:2]))

    assert blend(card, judgement(100), PERSONA).overall is None


def test_a_category_that_the_model_did_not_judge_stays_as_it_was() -> None:
    card = score(record(GOOD_TALK))
    moved = blend(card, judgement(0, categories={Category.EMPATHY: 0}), PERSONA)

    same = [category for category in Category if moved.categories[category] == card.categories[category]]
    assert same == [Category.ARGUMENT_QUALITY, Category.PERSISTENCE, Category.ADAPTABILITY]


def test_a_judgement_is_read_back_as_it_was_kept() -> None:
    evidence = SimEvidence("model", "that hill", Role.TRAINEE, 3, 6.0)
    kept = judgement(61, remarks=(JudgedRemark(Tone.WARNING, "Ask more.", evidence),), summary="Fine.")

    assert SimJudgement.from_dict(kept.to_dict()) == kept


_LINES = st.sampled_from(
    [one.text for one in GOOD_TALK]
    + ["Buy it now", "It is free", "Racer!", "City 5 weighs 5 kilos", "", "I never ride", "¿?", "a" * 500]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([AVATAR, TRAINEE]), _LINES), max_size=14),
    st.lists(st.floats(0, 10), max_size=5),
    st.sampled_from([None, *Outcome]),
    st.sampled_from([PERSONA, STRANGER]),
)
def test_any_talk_has_scores_within_bounds_under_its_cap(
    lines: list[tuple[Role, str]], attitudes: list[float], outcome: Outcome | None, persona: SimPersona
) -> None:
    card = score(record(said(*lines), attitudes=tuple(attitudes), outcome=outcome), persona)

    for found in (card.overall, *card.categories.values()):
        assert (found is None) == card.insufficient
        assert found is None or 0 <= found <= 100
    if card.overall is not None and card.compliance.cap is not None:
        assert card.overall <= card.compliance.cap
