from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach_server.domain.customer import dynamics
from coach_server.domain.customer.dynamics import Dynamics
from coach_server.domain.customer.mind import Customer, Memory, Tone, begin
from coach_server.domain.customer.persona import BehaviourStyle, BuyingClock, Difficulty, Experience, Persona
from coach_server.domain.method.methodology import Epic, Methodology, TipType
from coach_server.domain.method.turns import Quality, TechniqueUse
from coach_server.services.method.methodologies import Methodologies

METHODS = {method.id: method for method in Methodologies.load().all()}
HUGO = METHODS["hugo"]
PHASES = [phase.id for phase in HUGO.flow]
BEST_FIRST = list(Quality)

personas = st.builds(
    Persona,
    st.sampled_from(BehaviourStyle),
    st.sampled_from(BuyingClock),
    st.sampled_from(Experience),
    st.sampled_from(Difficulty),
)
shares = st.floats(0, 1)
states = st.builds(Dynamics, shares, shares, shares)
methods = st.sampled_from(list(METHODS.values()))


def use(technique: str, quality: Quality = Quality.GOED) -> TechniqueUse:
    return TechniqueUse(technique, quality, "")


def at(now: Dynamics, persona: Persona | None = None, method: Methodology = HUGO) -> Customer:
    customer = begin(persona or Persona(), method, 1)
    customer.dynamics = now
    return customer


def resisting(method: Methodology) -> set[str]:
    return {a.id for a in method.attitudes if a.tip_type not in (TipType.POSITIEF, TipType.WEDERVRAAG)}


@pytest.mark.parametrize(
    ("persona", "rapport", "tension", "commit"),
    [
        (Persona(), 0.25, 0.45, 0.3015),
        (
            Persona(
                BehaviourStyle.PROMOVEREND,
                BuyingClock.SITUATION_AS_IS,
                Experience.GEEN,
                Difficulty.ONBEWUSTE_ONKUNDE,
            ),
            0.50,
            0.05,
            0.078,
        ),
        (
            Persona(
                BehaviourStyle.CONTROLEREND,
                BuyingClock.DECISION,
                Experience.VEEL,
                Difficulty.ONBEWUSTE_KUNDE,
            ),
            0.20,
            0.90,
            0.729,
        ),
    ],
    ids=["default", "easy", "expert"],
)
def test_a_talk_starts_with_the_figures_of_the_contract(
    persona: Persona, rapport: float, tension: float, commit: float
) -> None:
    assert dynamics.start(persona) == Dynamics(rapport, tension, pytest.approx(commit))


@pytest.mark.parametrize(
    ("technique", "quality", "rapport", "tension", "commit"),
    [
        ("3.1", Quality.PERFECT, 0.07, 0.05, 0.03),
        ("3.1", Quality.GOED, 0.05, 0.03, 0.02),
        ("3.1", Quality.BIJNA, 0.02, 0.01, 0.01),
        ("3.1", Quality.GEMIST, -0.03, 0.0, 0.0),
        ("2.3", Quality.GOED, 0.05, 0.08, 0.04),
        ("2.3", Quality.GEMIST, -0.03, 0.0, 0.0),
        ("2.1.8", Quality.GOED, 0.05, 0.03, 0.08),
        ("2.1.1.2", Quality.GOED, 0.07, 0.07, 0.04),
        ("2.1.1.2", Quality.BIJNA, 0.04, 0.01, 0.01),
    ],
)
def test_a_turn_moves_the_customer_by_the_figures_of_the_contract(
    technique: str, quality: Quality, rapport: float, tension: float, commit: float
) -> None:
    customer = at(Dynamics(0.5, 0.5, 0.5))

    customer.hear([use(technique, quality)], 2)

    moved = customer.dynamics
    assert moved.rapport - 0.5 == pytest.approx(rapport)
    assert moved.tension - 0.5 == pytest.approx(tension)
    assert moved.commit - 0.5 == pytest.approx(commit)


def test_a_turn_without_any_technique_costs_more_than_a_missed_one() -> None:
    customer = at(Dynamics(0.5, 0.5, 0.5))

    customer.hear([], 2)

    assert customer.dynamics == Dynamics(0.45, 0.48, 0.49)


@given(
    methods,
    personas,
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from(Quality), st.integers(0, 5)), max_size=40),
)
def test_the_dynamics_stay_within_nought_and_one_and_attitudes_come_from_the_catalog(
    method: Methodology, persona: Persona, turns: list[tuple[int, Quality, int]]
) -> None:
    customer = begin(persona, method, 7)
    known = {attitude.id for attitude in method.attitudes}

    for number, quality, phase in turns:
        technique = method.techniques[number % len(method.techniques)]
        customer.hear([use(technique.id, quality), use("no.such", quality)], phase)

        now = customer.dynamics
        assert all(0 <= value <= 1 for value in (now.rapport, now.tension, now.commit))
        assert sum(customer.chances().values()) == pytest.approx(1)
        assert customer.next_attitude() in known


@given(methods, states, personas, st.data())
def test_a_better_turn_never_leaves_the_customer_worse_than_a_poorer_one(
    method: Methodology, now: Dynamics, persona: Persona, data: st.DataObject
) -> None:
    technique = data.draw(st.sampled_from(method.techniques))
    better, worse = sorted(data.draw(st.tuples(*[st.sampled_from(BEST_FIRST)] * 2)), key=BEST_FIRST.index)
    themes = data.draw(st.lists(st.sampled_from([t.id for p in method.phases for t in p.themes] or ["-"])))
    after = {}
    for quality in (better, worse):
        customer = at(now, persona, method)
        customer.hear([use(technique.id, quality)], technique.phase, themes)
        after[quality] = customer.dynamics

    for name in ("rapport", "tension", "commit"):
        assert getattr(after[better], name) >= getattr(after[worse], name)


@given(methods, states, shares, personas, st.sampled_from(["rapport", "tension", "commit"]))
def test_no_rise_of_a_dynamic_makes_a_resisting_attitude_likelier(
    method: Methodology, now: Dynamics, other: float, persona: Persona, name: str
) -> None:
    low, high = sorted((getattr(now, name), other))
    chances = [
        dynamics.chances(method.attitudes, replace(now, **{name: value}), persona, {})
        for value in (low, high)
    ]

    for attitude in resisting(method):
        assert chances[1][attitude] <= chances[0][attitude] + 1e-12


def test_the_epic_steps_come_in_their_order() -> None:
    customer = begin(Persona(), HUGO, 1)

    seen = []
    for technique in ("2.1.8", "2.1.1", "2.1.7", "2.1.8", "2.3", "2.1.7", "3.1", "2.1.1"):
        customer.hear([use(technique)], 2)
        seen.append(customer.epic)

    assert seen == [
        Epic.EXPLORE,
        Epic.EXPLORE,
        Epic.PROBE,
        Epic.PROBE,
        Epic.IMPACT,
        Epic.IMPACT,
        Epic.COMMIT,
        Epic.COMMIT,
    ]


def test_a_missed_technique_does_not_move_the_epic_step() -> None:
    customer = begin(Persona(), HUGO, 1)

    customer.hear([use("2.3", Quality.GEMIST)], 2)

    assert customer.epic is Epic.EXPLORE


LOCKS = {"H6", "H7", "H8", "H9"}


@pytest.mark.parametrize("phase", PHASES)
def test_doubts_and_objections_come_in_their_phases_after_their_trigger_only(phase: int) -> None:
    customer = begin(Persona(), HUGO, 1)
    customer.hear([use("2.3")], phase)
    assert not LOCKS & customer.chances().keys()

    customer.hear([use("4.1")], phase)

    assert bool(LOCKS & customer.chances().keys()) is (phase in (3, 4))


def test_a_trigger_counts_for_three_answers() -> None:
    customer = begin(Persona(), HUGO, 1)
    customer.hear([use("4.1")], 4)

    open_for = 0
    while LOCKS & customer.chances().keys() and open_for < 10:
        open_for += 1
        customer.hear([use("3.3")], 4)

    assert open_for == 3


def test_the_epic_step_of_discovery_is_not_taken_for_the_sales_phase() -> None:
    customer = begin(Persona(), HUGO, 1)
    for technique in ("2.1.7", "2.3", "2.1.8", "4.1"):
        customer.hear([use(technique)], 2)

    assert customer.epic is Epic.COMMIT
    assert not LOCKS & customer.chances().keys()


def test_most_answers_to_a_trial_close_resist_when_the_customer_is_not_ready() -> None:
    customer = at(Dynamics(0.6, 0.6, 0.5))
    customer.hear([use("4.1")], 4)

    chances = customer.chances()

    assert sum(chances[attitude] for attitude in LOCKS) > 0.5


def test_the_clock_moves_on_hour_by_hour_and_never_back() -> None:
    customer = begin(Persona(clock=BuyingClock.SITUATION_AS_IS), HUGO, 1)
    customer.dynamics = Dynamics(0.9, 0.9, 0.9)
    hours = []
    for _ in range(5):
        customer.hear([use("3.1")], 3)
        hours.append(customer.clock)
    customer.dynamics = Dynamics(0.0, 0.0, 0.0)
    customer.hear([], 3)

    assert hours == [*list(BuyingClock)[1:], BuyingClock.DECISION]
    assert customer.clock is BuyingClock.DECISION


@pytest.mark.parametrize(
    ("rapport", "tone"),
    [(0.34, Tone.RESERVED), (0.35, Tone.NEUTRAL), (0.65, Tone.NEUTRAL), (0.66, Tone.WARM)],
)
def test_the_tone_follows_the_rapport(rapport: float, tone: Tone) -> None:
    assert at(Dynamics(rapport, 0.5, 0.5)).tone is tone


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_session_is_replayed_from_its_seed(method: Methodology) -> None:
    def attitudes(seed: int) -> list[str]:
        customer = begin(Persona(), method, seed)
        drawn = []
        for technique in method.techniques:
            customer.hear([use(technique.id)], technique.phase)
            drawn.append(customer.next_attitude())
        return drawn

    assert attitudes(5) == attitudes(5)
    assert len({tuple(attitudes(seed)) for seed in range(4)}) > 1


def test_a_given_source_of_chance_is_used() -> None:
    customer = begin(Persona(), HUGO, 1)
    customer.hear([use("2.1.1")], 2)

    assert customer.next_attitude(random.Random(4)) == customer.next_attitude(random.Random(4))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_customer_comes_back_from_json_as_he_was(method: Methodology) -> None:
    customer = begin(Persona(BehaviourStyle.FACILITEREND), method, 3)
    for technique in method.techniques[-6:]:
        customer.hear([use(technique.id)], technique.phase)
        customer.next_attitude()
    customer.memory = Memory(told={"budget": 1}, used={"a#1", "b#2"}, pending="price", spoken=4)

    again = Customer.from_dict(json.loads(json.dumps(customer.to_dict())), method)

    assert again == customer
    assert again.next_attitude() == customer.next_attitude()


def test_an_attitude_the_method_no_longer_has_is_forgotten() -> None:
    state = begin(Persona(), HUGO, 1).to_dict()
    state["attitude"], state["triggered"] = "H99", {"H99": 2}

    again = Customer.from_dict(state, HUGO)

    assert again.attitude is None
    assert again.triggered == {}


def test_a_phase_in_which_nothing_is_allowed_gives_the_fallback() -> None:
    customer = begin(Persona(), HUGO, 1)
    customer.hear([use("2.1.1")], 99)

    assert customer.next_attitude() == HUGO.attitude_fallback[0]
