"""What rules see of checks, products and words, in every row of the table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coach_server.domain.simulation import compliance
from coach_server.domain.simulation.compliance import examine, sight
from coach_server.domain.simulation.effects import Breach, Sight
from coach_server.domain.simulation.persona import SimPersona
from coach_server.domain.simulation.talk import EventType, SessionEvent, Utterance
from tests.domain.simulation.scenes import (
    AVATAR,
    DOMAIN,
    PERSONA,
    STRANGER,
    TRAINEE,
    dob,
    en,
    said,
    scene,
    trainee,
)


def seen(utterances: tuple[Utterance, ...], *events: SessionEvent, persona: SimPersona = PERSONA) -> Sight:
    return sight(utterances, events, persona, DOMAIN, "en")


def test_a_product_named_before_every_fatal_check_is_a_breach() -> None:
    assert seen(trainee("Hello.", "Look at the City 5.")).breach is Breach.PRODUCT_BEFORE_CHECKS
    assert examine(scene(trainee("Look at the City 5."))).product_before_checks


@pytest.mark.parametrize("check", ["How old are you?", "Do you ride?", "May I ask your age?"])
def test_a_single_check_made_before_prevents_the_breach(check: str) -> None:
    assert seen(trainee(check, "Look at the City 5.")).breach is None


def test_a_check_that_is_not_fatal_does_not_prevent_it() -> None:
    assert seen(trainee("Do you have a helmet?", "The City 5.")).breach is Breach.PRODUCT_BEFORE_CHECKS


def test_a_question_in_the_same_sentence_counts_when_it_comes_first() -> None:
    assert seen(trainee("How old are you, and do you know the City 5?")).breach is None
    assert seen(trainee("Do you know the City 5, and how old are you?")).breach is not None


def test_small_talk_and_a_pitch_without_a_product_are_no_breach() -> None:
    assert seen(trainee("Good morning, our model is the best on the market.")).breach is None


def test_only_the_trainees_words_count() -> None:
    assert seen(said((AVATAR, "I saw the City 5. How old are you?"))) == Sight()
    assert seen(said((AVATAR, "How old are you?"), (TRAINEE, "The City 5."))).breach is not None


def test_only_the_first_naming_can_be_a_breach() -> None:
    assert seen(trainee("The City 5.", "Yes, the City 5.")).breach is None


def test_a_right_date_of_birth_proves_the_age_check() -> None:
    talk = said((AVATAR, "Hi."), (TRAINEE, "The City 5."))

    assert seen(talk, dob(1.0)).breach is None
    assert examine(scene(talk, dob(1.0))).checks == {"age": True, "rider": False, "helmet": False}


def test_a_date_of_birth_entered_after_the_product_does_not_undo_the_breach() -> None:
    talk = said((TRAINEE, "The City 5."), (AVATAR, "Hm."))

    assert examine(scene(talk, dob(30.0))).product_before_checks
    assert examine(scene(talk, dob(30.0))).late == ("age",)


def test_a_wrong_date_of_birth_fails_the_check_until_a_right_one_comes() -> None:
    talk = trainee("How old are you?")

    failed = examine(scene(talk, dob(1.0, False)))
    assert (failed.checks["age"], failed.failed) == (False, ("age",))
    passed = examine(scene(talk, dob(1.0, False), dob(2.0)))
    assert (passed.checks["age"], passed.failed) == (True, ())


@pytest.mark.parametrize("data", [None, "yes", {}, {"correct": "true"}, {"correct": 1}, ["correct"]])
def test_an_event_that_does_not_say_whether_it_was_right_proves_nothing(data: object) -> None:
    found = examine(scene(trainee("Hello."), SessionEvent(1.0, EventType.DOB_CHECK, data)))

    assert found.checks["age"] is False
    assert found.failed == ()


def test_events_of_another_type_prove_nothing() -> None:
    event = SessionEvent(1.0, EventType.TABLET_CHOICE, {"correct": True})

    assert examine(scene(trainee("Hello."), event)).checks["age"] is False


def test_a_missing_single_check_is_noted_and_a_late_one_is_late() -> None:
    found = examine(scene(trainee("How old are you?", "The City 5.", "Do you ride?")))

    assert found.checks == {"age": True, "rider": True, "helmet": False}
    assert found.late == ("rider",)
    assert not found.product_before_checks


def test_a_forbidden_word_is_reported_with_place_and_quote_once_for_each_use() -> None:
    talk = trainee("Hello.", "It is free. The lights are free too!")

    found = examine(scene(talk)).words

    assert [(use.word, use.sequence, use.position) for use in found] == [("free", 2, 6), ("free", 2, 27)]
    assert found[0].quote == "It is free"
    assert talk[1].text[27:31] == "free"
    assert seen(talk).forbidden == found


@pytest.mark.parametrize(
    "text",
    [
        "Freedom on two wheels.",
        "A carefree ride.",
        "A smoke-free shop.",
        "Feel free to ask.",
        "It is freezing.",
    ],
)
def test_a_forbidden_word_is_never_found_inside_other_words_or_harmless_phrases(text: str) -> None:
    assert seen(trainee(text)).forbidden == ()


def test_a_stem_finds_inflections() -> None:
    assert [use.word for use in seen(trainee("Riding is healthier, and health counts.")).forbidden] == [
        "healthy",
        "healthy",
    ]


def test_a_longer_forbidden_phrase_is_one_use() -> None:
    assert len(seen(trainee("It comes free of charge.")).forbidden) == 1


def test_the_customer_may_say_what_is_forbidden() -> None:
    assert examine(scene(said((AVATAR, "Is it free?")))).words == ()


def test_selling_on_to_somebody_who_is_no_user_is_a_breach() -> None:
    talk = said(
        (TRAINEE, "Do you ride?"), (AVATAR, "I never ride."), (TRAINEE, "Our model will change that.")
    )

    assert seen(talk, persona=STRANGER).breach is Breach.PITCH_AFTER_STOP
    assert examine(scene(talk, persona=STRANGER)).pitched_after_stop
    found = compliance.breach(scene(talk, persona=STRANGER))
    assert found is not None
    assert (found[0], found[1].quote) == (Breach.PITCH_AFTER_STOP, "Our model will change that")


def test_stopping_when_the_customer_is_no_user_is_right() -> None:
    talk = said((TRAINEE, "Do you ride?"), (AVATAR, "I never ride."), (TRAINEE, "Then have a good day."))

    assert seen(talk, persona=STRANGER) == Sight()


def test_a_customer_whom_a_product_suits_is_a_user_whatever_it_says_of_another_kind() -> None:
    talk = said((TRAINEE, "Do you ride?"), (AVATAR, "I never ride."), (TRAINEE, "The City 5 is for you."))

    assert seen(talk).breach is None
    assert not examine(scene(talk)).pitched_after_stop


def test_a_trade_without_fatal_checks_knows_no_such_breach() -> None:
    checks = tuple(replace(check, fatal=False) for check in DOMAIN.checks)
    domain = replace(DOMAIN, checks=checks)

    assert sight(trainee("The City 5."), (), PERSONA, domain, "en").breach is None


def test_stems_work_in_a_language_with_endings() -> None:
    words = replace(DOMAIN.forbidden[0], stems={**en("free"), "cs": ("zdarma", "bezplatn*")}, unless={})
    domain = replace(DOMAIN, forbidden=(words,))

    found = sight(trainee("Je to úplně bezplatné!"), (), PERSONA, domain, "cs").forbidden

    assert [(use.word, use.position) for use in found] == [("free", 12)]
