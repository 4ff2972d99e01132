"""What moves the customer, in every row of the table; and the rules' verdict that follows from it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coach_server.domain.simulation.attitude import (
    MOST_STEP,
    Cause,
    clamp,
    direction_of,
    moves,
    phase_of,
    shown,
    step_of,
)
from coach_server.domain.simulation.persona import SimPersona
from coach_server.domain.simulation.talk import Direction, Outcome, Role, TalkPhase, Utterance
from coach_server.domain.simulation.verdict import Guidance, rules_verdict
from tests.domain.simulation.scenes import (
    AVATAR,
    DOMAIN,
    PERSONA,
    STRANGER,
    TRAINEE,
    said,
    scene,
    so_far,
    trainee,
)

PRICE = (AVATAR, "That is far too expensive for a bicycle.")
CHECKED = (TRAINEE, "Good morning, how old are you, and do you ride?")


def moved(utterances: tuple[Utterance, ...], cause: Cause, persona: SimPersona = PERSONA) -> list[float]:
    return [move.amount for move in moves(scene(utterances, persona=persona)) if move.cause is cause]


@pytest.mark.parametrize(
    ("lines", "cause", "amounts"),
    [
        (["It must be that hill."], Cause.WEAK_POINT, [2.0]),
        (["It must be that hill.", "Yes, that hill."], Cause.WEAK_POINT, [2.0]),
        (["What do you need?", "The City 5."], Cause.FITTING, [1.5]),
        (["The City 5."], Cause.FITTING, [1.0]),
        (["The City 5.", "The City 5 again."], Cause.FITTING, [1.0]),
        (["I understand."], Cause.EMPATHY, [0.75]),
        (["I understand.", "I hear you.", "Take your time."], Cause.EMPATHY, [0.75, 0.75, 0.5]),
        (["I understand.", "I understand!"], Cause.EMPATHY, [0.75]),
        (["What do you need?"], Cause.NEEDS, [0.5]),
        (["Buy it now, last chance!"], Cause.PUSHY, [-2.0]),
        (["Buy it now.", "Last chance."], Cause.PUSHY, [-2.0, -3.0]),
        (["It is the best on the market."], Cause.GENERIC, [-0.5]),
        (["It is the best on the market.", "Really, our model."], Cause.GENERIC, [-0.5, -1.0]),
        (["The best on the market: 14 kilos."], Cause.GENERIC, []),
        (["Our model takes that hill."], Cause.GENERIC, []),
        (["The Racer.", "The Racer again."], Cause.WRONG_PRODUCT, [-1.0]),
        (["The City 5 weighs 5 kilos."], Cause.FALSE_CLAIM, [-1.0]),
        (["It is free, and healthy."], Cause.FORBIDDEN, [-1.0, -1.0]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value and isinstance(value[0], str) else None,
)
def test_each_thing_a_trainee_does_moves_the_attitude_by_its_step(
    lines: list[str], cause: Cause, amounts: list[float]
) -> None:
    assert moved(trainee(*lines), cause) == amounts


def test_an_answered_concern_moves_it_once() -> None:
    talk = said(PRICE, (TRAINEE, "You can lease it."), (AVATAR, "Hm."), (TRAINEE, "Monthly, that is."))

    assert moved(talk, Cause.ANSWERED) == [1.0]
    assert moved(said((TRAINEE, "You can lease it."), PRICE), Cause.ANSWERED) == []


@pytest.mark.parametrize(
    ("reply", "amounts"),
    [
        ("Our model is new.", [-2.0]),
        ("Anyway, nice weather.", [-1.0]),
        ("I understand.", []),
        ("What do you need?", []),
        ("You can pay monthly.", []),
    ],
)
def test_an_objection_that_is_passed_over_costs_and_more_when_the_trainee_sells_on(
    reply: str, amounts: list[float]
) -> None:
    assert moved(said(PRICE, (TRAINEE, reply)), Cause.IGNORED) == amounts


def test_selling_on_to_somebody_who_is_no_user_costs() -> None:
    talk = said((TRAINEE, "Do you ride?"), (AVATAR, "I never ride."), (TRAINEE, "Our model is new."))

    assert moved(talk, Cause.NO_USER, STRANGER) == [-2.0]
    assert moved(talk, Cause.NO_USER) == []


def test_one_evaluation_moves_it_by_three_at_most() -> None:
    bad = moves(scene(trainee("Buy it now. It is free.", "Last chance, it is free and healthy.")))
    good = moves(scene(trainee("I understand. What do you need?", "The City 5 takes that hill. I hear you.")))

    assert step_of(bad) == -MOST_STEP
    assert step_of(good) == MOST_STEP


def test_half_points_are_kept_inside_and_rounded_upwards_for_show() -> None:
    assert [shown(value) for value in (2.4, 2.5, 3.5, 9.6, -1, 11)] == [2, 3, 4, 10, 0, 10]


def test_what_is_no_number_leaves_the_attitude() -> None:
    assert clamp(math.nan, 4.5) == 4.5
    assert clamp(math.inf, 4.5) == 4.5
    assert (clamp(12, 0), clamp(-3, 5)) == (10, 0)


def test_a_small_move_is_stable() -> None:
    assert direction_of(0.5) is Direction.RISING
    assert direction_of(-0.5) is Direction.FALLING
    assert direction_of(0.1) is Direction.STABLE


# --- phases


def phase(utterances: tuple[Utterance, ...], attitude: float = 5.0, exchanges: int = 2) -> TalkPhase:
    here = scene(utterances)
    return phase_of(here, moves(here), attitude, exchanges)


def test_the_phase_follows_what_was_said_and_not_the_number_of_turns() -> None:
    assert phase(trainee("Hello."), exchanges=9) is TalkPhase.SCEPTICAL
    assert phase(trainee("It must be that hill."), attitude=2.0) is TalkPhase.INTERESTED
    assert phase(trainee("The City 5.")) is TalkPhase.INTERESTED
    assert phase(trainee("The City 5."), attitude=3.0) is TalkPhase.SCEPTICAL
    closing = trainee("It must be that hill.", "Would you like to take it?")
    assert phase(closing) is TalkPhase.DECIDING
    assert phase(trainee("It must be that hill."), exchanges=6) is TalkPhase.DECIDING


# --- the verdict


def test_the_rules_alone_give_a_whole_verdict() -> None:
    talk = so_far(
        said(CHECKED, (AVATAR, "Yes."), (TRAINEE, "I understand, it is that hill."), (AVATAR, "Yes."))
    )

    verdict = rules_verdict(talk, PERSONA, DOMAIN, "en")

    assert verdict.attitude == 3 + 2.0 + 0.75
    assert verdict.direction is Direction.RISING
    assert verdict.guidance == Guidance.TOUCHED
    assert verdict.topics == ("hill",)
    assert verdict.phase is TalkPhase.INTERESTED
    assert verdict.source == "rules"
    assert [step.state for step in verdict.steps].count("done") == 2
    assert not verdict.should_end


def test_only_what_is_new_moves_the_attitude() -> None:
    talk = said(CHECKED, (AVATAR, "Yes."), (TRAINEE, "It must be that hill."), (AVATAR, "Yes."))

    again = rules_verdict(so_far(talk, since=4, attitude=5.5), PERSONA, DOMAIN, "en")

    assert (again.attitude, again.direction) == (5.5, Direction.STABLE)
    assert again.guidance == Guidance.STAY_SCEPTICAL


@pytest.mark.parametrize(
    ("lines", "guidance"),
    [
        (["How old are you? Buy it now."], Guidance.PUSHED),
        (["It is free."], Guidance.FORBIDDEN),
        (["It is the best on the market."], Guidance.UNCONVINCED),
        (["I understand."], Guidance.OPEN_UP),
        (["It must be that hill.", "Would you like to take it?"], Guidance.DECIDE),
        (["Hm."], Guidance.STAY_SCEPTICAL),
        (["The City 5."], Guidance.BREACH),
    ],
)
def test_the_guidance_names_what_hurts_before_what_pleases(lines: list[str], guidance: Guidance) -> None:
    assert rules_verdict(so_far(trainee(*lines)), PERSONA, DOMAIN, "en").guidance == guidance


def test_late_and_cold_the_customer_grows_short() -> None:
    talk = so_far(trainee("Hm."), exchanges=6)

    assert rules_verdict(talk, PERSONA, DOMAIN, "en").guidance == Guidance.GROW_SHORT


def test_a_breach_ends_the_talk_as_compliance_fail() -> None:
    verdict = rules_verdict(so_far(trainee("The City 5.")), PERSONA, DOMAIN, "en")

    assert (verdict.should_end, verdict.end_reason) == (True, Outcome.COMPLIANCE_FAIL)


def test_a_customer_that_lectures_is_off_track() -> None:
    lecture = (AVATAR, "One. Two. Three. Four. Five.")

    assert not rules_verdict(so_far(said(lecture)), PERSONA, DOMAIN, "en").is_on_track
    assert rules_verdict(so_far(said(lecture), since=1), PERSONA, DOMAIN, "en").is_on_track


LINES = st.sampled_from(
    [
        "How old are you, do you ride?",
        "I understand.",
        "What do you need?",
        "The City 5.",
        "The Racer.",
        "Buy it now!",
        "It is free.",
        "It must be that hill.",
        "You can pay monthly.",
        "Would you like to take it?",
        "Mine was stolen twice in front of the office.",
        PRICE[1],
        "",
    ]
)
TALKS = st.lists(st.tuples(st.sampled_from(list(Role)), LINES), max_size=16)


@settings(max_examples=150, deadline=None)
@given(TALKS, st.floats(-5, 15), st.integers(0, 16))
def test_the_attitude_stays_within_its_bounds_and_moves_by_three_at_most(
    lines: list[tuple[Role, str]], attitude: float, since: int
) -> None:
    talk = replace(so_far(said(*lines)), attitude=attitude, since=since)

    verdict = rules_verdict(talk, PERSONA, DOMAIN, "en")

    assert 0 <= verdict.attitude <= 10
    assert abs(verdict.attitude - clamp(attitude, 0)) <= MOST_STEP + 1e-9
    assert verdict == rules_verdict(talk, PERSONA, DOMAIN, "en")
    assert verdict.should_end == (verdict.end_reason is not None)
