"""The sales steps as rules see them, in every row of the table."""

from __future__ import annotations

import pytest

from coach_server.domain.simulation.checklist import DONE, FAILED, OPEN, RULES, checklist
from coach_server.domain.simulation.talk import SessionEvent, StepState, Utterance
from tests.domain.simulation.scenes import AVATAR, DOMAIN, TRAINEE, dob, said, scene, trainee

PRICE = "That is far too expensive for a bicycle."


def step(
    id: str, utterances: tuple[Utterance, ...], *events: SessionEvent, is_over: bool = False
) -> StepState:
    states = checklist(scene(utterances, *events), is_over=is_over)
    return next(state for state in states if state.id == id)


def test_every_step_of_the_trade_has_a_state_in_its_order() -> None:
    states = checklist(scene(()))

    assert [state.id for state in states] == [step.id for step in DOMAIN.steps]
    assert {state.state for state in states} == {OPEN}


def test_a_greeting_counts_in_the_first_two_utterances() -> None:
    assert step("greet", trainee("Well.", "Good morning!")) == StepState("greet", DONE, "Good morning", 2)
    assert step("greet", trainee("Well.", "So.", "Hello")).state == FAILED
    assert step("greet", trainee("Well.")).state == OPEN


def test_needs_must_be_asked_for_before_the_first_pitch() -> None:
    asked = step("needs", trainee("What do you need?", "The City 5."))
    assert (asked.state, asked.sequence) == (DONE, 1)
    assert step("needs", trainee("The City 5.", "What do you need?")).state == FAILED
    assert step("needs", trainee("Our model is new.")).state == FAILED
    assert step("needs", trainee("Hello.")).state == OPEN


def test_the_right_product_is_one_that_suits_the_customer() -> None:
    assert step("product", trainee("The Racer.", "Or the City 5.")).sequence == 2
    assert step("product", trainee("The Racer.")).state == OPEN
    assert step("product", trainee("The Racer."), is_over=True).state == FAILED


def test_a_check_is_done_when_it_was_made_before_a_product_was_named() -> None:
    assert step("age_check", trainee("How old are you?", "The City 5.")).state == DONE
    assert step("age_check", trainee("Hello."), dob(0.5)) == StepState("age_check", DONE)
    assert step("age_check", trainee("The City 5.", "How old are you?")).state == FAILED
    assert step("age_check", trainee("How old are you?"), dob(9.0, False)).state == FAILED
    assert step("age_check", trainee("Hello.")).state == OPEN


def test_two_facts_of_a_named_product_make_the_step_and_a_false_claim_fails_it() -> None:
    told = step("facts", trainee("The City 5 has a belt drive, it weighs 14 kilos."))
    assert (told.state, told.sequence) == (DONE, 1)
    assert step("facts", trainee("The City 5 is nice.")).state == OPEN
    assert step("facts", trainee("It weighs 14 kilos and has a belt.")).state == OPEN
    assert step("facts", trainee("The City 5 weighs 5 kilos only.")).state == FAILED


def test_no_forbidden_words_is_done_only_at_the_end() -> None:
    assert step("words", trainee("Hello.")).state == OPEN
    assert step("words", trainee("Hello."), is_over=True).state == DONE
    assert step("words", (), is_over=True).state == FAILED
    used = step("words", trainee("Hello.", "It is free."))
    assert (used.state, used.quote, used.sequence) == (FAILED, "It is free", 2)


def test_objections_are_done_when_every_one_that_was_raised_is_answered() -> None:
    raised = ((TRAINEE, "Hello."), (AVATAR, PRICE))
    answered = (*raised, (TRAINEE, "You can pay monthly."))

    assert step("objections", said(*answered)).state == DONE
    assert step("objections", said(*raised)).state == OPEN
    assert step("objections", said(*raised), is_over=True).state == FAILED
    more = said(*answered, (AVATAR, "Mine was stolen twice in front of the office."))
    assert step("objections", more, is_over=True).state == FAILED


def test_objections_stay_open_where_none_was_raised() -> None:
    assert step("objections", trainee("You can pay monthly."), is_over=True).state == OPEN


def test_an_objection_is_known_also_in_the_words_of_a_model() -> None:
    raised = said((AVATAR, "Honestly, this is far too expensive, for a bicycle!"))

    assert step("objections", raised).sequence == 1


def test_the_close_is_asking_for_the_decision() -> None:
    assert step("close", trainee("Would you like to take it along?")).state == DONE
    assert step("close", trainee("Hello.")).state == OPEN


@pytest.mark.parametrize("step_id", ["greet", "needs", "product", "age_check", "facts", "close"])
def test_what_is_open_at_the_end_has_failed(step_id: str) -> None:
    assert step(step_id, trainee("Well."), is_over=True).state == FAILED


def test_every_rule_of_the_trade_is_known() -> None:
    assert {step.rule for step in DOMAIN.steps} == RULES
