"""The customer without a model: whole talks with the catalog's personas, and every row of his table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from coach_server.domain.phrases import sentences
from coach_server.domain.simulation.checklist import raised
from coach_server.domain.simulation.offline import Cast, Moment, OfflineReply, OfflineState, reply
from coach_server.domain.simulation.persona import pick
from coach_server.domain.simulation.scene import Scene
from coach_server.domain.simulation.talk import Outcome, Role, TalkPhase, Utterance
from coach_server.domain.wording import same_words
from coach_server.services.simulation.personas import Personas

PERSONAS = Personas.load()
NONE: Mapping[str, bool] = {"age": False, "user": False}
BOTH: Mapping[str, bool] = {"age": True, "user": True}
CASTS = [
    pytest.param(scenario.id, language, id=f"{scenario.persona_id}-{language}")
    for scenario in PERSONAS.scenarios()
    for language in scenario.title
]


def cast_of(scenario_id: str, language: str) -> Cast:
    scenario = PERSONAS.scenario(scenario_id)
    persona = PERSONAS.persona(scenario.persona_id)
    return Cast(persona, scenario, PERSONAS.domain(persona.domain), language)


KAREL = cast_of("fmc_resistant", "en")
NEUTRAL, COLD, WARM = 4.0, 2.0, 7.0


def says(
    text: str, attitude: float = NEUTRAL, state: OfflineState | None = None, **more: object
) -> OfflineReply:
    moment = Moment(text, attitude, **{"checks": BOTH, **more})  # type: ignore[arg-type]
    return reply(KAREL, state or OfflineState(turns=1), moment)


def line_in(lines: Mapping[str, Sequence[str]], text: str, language: str = "en") -> bool:
    return any(line in text for line in lines[language])


def hold(
    cast: Cast, turns: Sequence[str], attitude: float, phase: TalkPhase = TalkPhase.SCEPTICAL, seed: int = 0
) -> list[str]:
    """What the customer says to these turns, in order; the first line is his own."""
    state, said = OfflineState(seed=seed), []
    for text in ("", *turns):
        answer = reply(cast, state, Moment(text, attitude, phase, BOTH))
        state = answer.state
        said.append(answer.text)
        if answer.ends:
            break
    return said


# --- rows of the table


def test_the_customer_begins_with_a_greeting_when_nothing_was_said() -> None:
    answer = reply(KAREL, OfflineState(), Moment("", COLD))

    assert answer.text in KAREL.persona.phrases.greeting["en"]
    assert answer.ends is None


@pytest.mark.parametrize("outcome", list(Outcome))
def test_when_the_talk_is_being_ended_he_says_the_farewell_of_the_outcome(outcome: Outcome) -> None:
    answer = says("And another thing", ending=outcome)

    assert answer.text in KAREL.persona.phrases.farewells[outcome]["en"]
    assert answer.state.over


def test_after_his_farewell_he_says_nothing_more() -> None:
    answer = says("Wait!", state=says("So?", ending=Outcome.REJECTED).state)

    assert answer.text == ""


def test_a_product_named_before_any_check_makes_him_go() -> None:
    answer = says("I have the glo HYPER X2 for you.", checks=NONE)

    assert answer.ends is Outcome.COMPLIANCE_FAIL
    assert answer.text in KAREL.persona.phrases.farewells["compliance_fail"]["en"]


@pytest.mark.parametrize("made", ["age", "user"])
def test_one_check_made_is_enough_for_him_to_stay(made: str) -> None:
    assert says("I have the glo HYPER X2 for you.", checks={**NONE, made: True}).ends is None


def test_a_check_in_the_same_breath_as_the_product_counts() -> None:
    assert says("How old are you? I have the glo for you.", checks=NONE).ends is None


def test_a_trade_without_fatal_checks_lets_a_product_be_named_at_once() -> None:
    cast = cast_of("software_burnt_once", "en")

    assert reply(cast, OfflineState(turns=1), Moment("Our Stroomplan is here.", NEUTRAL)).ends is None


def test_age_and_use_are_answered_plainly_at_any_attitude() -> None:
    answer = says("How old are you, and do you smoke?", attitude=0.5)

    assert answer.text == "I'm forty-five. I do, yes, I smoke."


def test_a_warm_customer_tells_more_than_a_cool_one() -> None:
    asked = "What do you smoke these days, which brand?"
    known = OfflineState(turns=1, told={"user": 1})

    cool, warm = says(asked, COLD, known).text, says(asked, WARM, known).text

    assert cool == "Marlboro, the red ones."
    assert warm.startswith(cool) and len(warm) > len(cool)


def test_a_question_asked_again_brings_the_next_detail() -> None:
    first = says("Which brand do you like?", COLD)
    again = says("Which brand was it again?", COLD, first.state)

    assert "Marlboro" in first.text
    assert "abroad" in again.text


def test_an_objection_answered_softens_him() -> None:
    objection = KAREL.persona.objections[2]
    state = OfflineState(turns=3, raised=("taste", "ritual", "price"), pending="price")

    answer = says("It is 990 crowns now, and a pack of neo is 129.", NEUTRAL, state)

    assert answer.text in objection.softens["en"]
    assert answer.state.pending is None


def test_an_objection_passed_over_is_insisted_on_and_then_the_next_one_comes() -> None:
    state = OfflineState(turns=3, raised=("taste",), pending="taste")

    insists = says("It is very modern.", NEUTRAL, state)
    goes_on = says("And it looks nice.", NEUTRAL, insists.state)

    assert insists.text in KAREL.persona.phrases.sceptical["en"]
    assert goes_on.text in KAREL.persona.objections[1].says["en"]


def test_objections_come_in_their_order() -> None:
    state, heard = OfflineState(turns=2), []
    for _ in range(20):
        answer = says("We have something new for you.", NEUTRAL, state)
        state = answer.state
        heard += [o.id for o in KAREL.persona.objections if line_in(o.says, answer.text)]

    assert heard == [objection.id for objection in KAREL.persona.objections]


def test_a_weak_point_touched_is_let_be_seen_once() -> None:
    point = KAREL.persona.weak_points[0]

    first = says("Your family would be happier without the smell.")
    second = says("As I said, your family would be happier.", state=first.state)

    assert first.text in point.shows["en"]
    assert second.text not in point.shows["en"]


def test_pushing_annoys_and_drives_a_cold_customer_away() -> None:
    state = OfflineState(turns=1)
    first = says("You have to buy it now.", COLD, state)
    second = says("Just buy it, trust me.", COLD, first.state)
    third = says("You must take it today.", COLD, second.state)

    assert first.text in KAREL.persona.phrases.annoyed["en"]
    assert second.text in KAREL.persona.phrases.annoyed["en"]
    assert third.ends is Outcome.WALKED_AWAY
    assert third.text in KAREL.persona.phrases.farewells["walked_away"]["en"]


def test_won_over_and_asked_he_agrees_and_leaves_as_a_customer() -> None:
    agrees = says("Would you like to try it?", WARM)
    leaves = says("Great, thank you.", WARM, agrees.state)

    assert agrees.text in KAREL.persona.phrases.convinced["en"]
    assert leaves.ends is Outcome.CONVERTED


def test_asked_too_early_he_says_what_holds_him_back() -> None:
    answer = says("Would you like to try it?", NEUTRAL)

    assert answer.text in KAREL.persona.objections[0].says["en"]
    assert not answer.state.won


def test_a_goodbye_without_agreement_is_a_rejection() -> None:
    answer = says("Have a nice day!", WARM)

    assert answer.ends is Outcome.REJECTED


def test_a_greeting_and_a_chat_are_answered_as_such() -> None:
    greeted = says("Good morning!", COLD, OfflineState())
    chat = says("How are you today?", COLD, greeted.state)

    assert greeted.text in KAREL.persona.phrases.greeting["en"]
    assert chat.text in KAREL.persona.phrases.small_talk["en"]


def test_the_same_session_says_the_same_and_another_may_not() -> None:
    openings = {seed: reply(KAREL, OfflineState(seed=seed), Moment("", COLD)).text for seed in range(20)}

    assert reply(KAREL, OfflineState(seed=3), Moment("", COLD)).text == openings[3]
    assert len(set(openings.values())) > 2


# --- a talk taken up again


def test_a_talk_that_is_taken_up_is_not_begun_anew() -> None:
    objection = KAREL.persona.objections[0].says["en"][0]
    history = [
        Utterance(1, Role.AVATAR, "I'm forty-five.", 0, 1),
        Utterance(2, Role.AVATAR, objection, 2, 3),
    ]

    answer = says("We have a new device.", NEUTRAL, OfflineState(turns=2), history=history)

    assert answer.text == KAREL.persona.objections[1].says["en"][0]
    assert answer.state.told == {"age": 1}


def test_what_he_remembers_survives_a_restart() -> None:
    state = says("Do you smoke? And when do you smoke?").state
    adapter = TypeAdapter(OfflineState)

    assert adapter.validate_json(adapter.dump_json(state)) == state


# --- whole talks

TRAINEE_TURNS = {
    "en": ["Hello, how are you?", "How long have you done that?", "What bothers you most?", "I understand.",
           "We have something new for you.", "It costs less per month.", "Let me show you.",
           "What do you think?",           "It is simple.", "Would you like to try it?"],
    "cs": ["Dobrý den, jak se máte?", "Jak dlouho už?", "Co vám nejvíc vadí?", "Rozumím.",
           "Mám pro vás něco nového.", "Měsíčně to vyjde levněji.", "Ukážu vám to.", "Co si o tom myslíte?",
           "Je to jednoduché.", "Chcete si to vyzkoušet?"],
    "nl": ["Dag, hoe gaat het?", "Hoe plant u vandaag?", "Wat stoort u het meest?", "Ik begrijp het.",
           "Wij hebben iets nieuws.", "Het kost minder per maand.", "Laat me het u tonen.", "Wat vindt u?",
           "Het is eenvoudig.", "Wilt u het proberen?"],
    "he": ["שלום, מה שלומך?", "איך אתם מתכננים היום?", "מה הכי מפריע?", "אני מבין.", "יש לנו משהו חדש.",
           "זה עולה פחות לחודש.", "אפשר להראות לך?", "מה דעתך?", "זה פשוט.", "רוצה לנסות?"],
}  # fmt: skip


@pytest.mark.parametrize(("scenario", "language"), CASTS)
@pytest.mark.parametrize("attitude", [0.5, 2.0, 4.0, 5.5, 8.0])
def test_no_persona_repeats_a_line_or_falls_silent_in_a_whole_talk(
    scenario: str, language: str, attitude: float
) -> None:
    said = hold(cast_of(scenario, language), TRAINEE_TURNS[language], attitude)

    assert all(said)
    assert len({same_words(text) for text in said}) == len(said)
    assert max(sentences(text) for text in said) <= 2


@pytest.mark.parametrize(("scenario", "language"), CASTS)
def test_a_talk_of_nonsense_is_answered_with_something_new_each_time(scenario: str, language: str) -> None:
    said = hold(cast_of(scenario, language), ["hm hm"] * 18, 2.0)

    assert len(set(said)) == len(said) == 19


@pytest.mark.parametrize(("scenario", "language"), CASTS)
def test_the_rules_see_an_objection_in_its_line_and_in_no_other(scenario: str, language: str) -> None:
    cast = cast_of(scenario, language)
    phrases = cast.persona.phrases
    others = [
        *(
            pick(getattr(phrases, name), language)
            for name in ("sceptical", "interested", "annoyed", "greeting")
        ),
        *(pick(lines, language) for lines in phrases.facts.values()),
        *(pick(point.shows, language) for point in cast.persona.weak_points),
        *(pick(objection.softens, language) for objection in cast.persona.objections),
    ]

    def seen(line: str) -> list[str]:
        said = [Utterance(1, Role.AVATAR, line, 0, 1)]
        return [o.id for o, _ in raised(Scene.of(said, [], cast.persona, cast.domain, language))]

    assert {line: seen(line) for lines in others for line in lines if seen(line)} == {}
    for objection in cast.persona.objections:
        assert objection.id in seen(pick(objection.says, language)[0])


@given(
    turns=st.lists(st.sampled_from([*TRAINEE_TURNS["en"], "", "?", "You have to buy it now."]), max_size=30),
    attitudes=st.lists(st.floats(0, 10), min_size=30, max_size=30),
    phase=st.sampled_from(list(TalkPhase)),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_said_he_answers_until_he_leaves(
    turns: list[str], attitudes: list[float], phase: TalkPhase
) -> None:
    state = OfflineState()
    for text, attitude in zip(turns, attitudes, strict=False):
        answer = reply(KAREL, state, Moment(text, attitude, phase, BOTH))
        assert (answer.text == "") == state.over
        assert len(answer.text) <= 300
        state = answer.state
