"""The practice session as a machine: every row of its table, every unlock rule, and what never breaks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Quality, TechniqueUse, Turn
from coach_server.domain.practice.roleplay import (
    Effect,
    Ended,
    Hinted,
    PhaseCompleted,
    Roleplay,
    Status,
    StepMoved,
    StepStatus,
    Timing,
)
from coach_server.errors import CoachError, Conflict, Invalid, NotFound
from coach_server.services.method.methodologies import Methodologies
from coach_server.services.practice.memory import dump_machine, load_machine
from tests.domain.talks import customer, method, seller

T0 = 1_700_000_000.0
TIMING = Timing(abandon_s=120, grace_s=900, session_s=7200, drill_s=90)
OPENING = ("1.1", "1.2", "1.3", "1.4")
ALL = tuple(Methodologies.load().all())
OTHER = next(known for known in ALL if known.id != "hugo")


def begun(
    phase: int = 1, step: str | None = None, open_phases: Sequence[int] = (1,), *, is_drill: bool = False
) -> Roleplay:
    known = method()
    first = step or known.steps_of(phase)[0].id
    machine = Roleplay.begin(known, T0, phase=phase, step=first, open_phases=open_phases, is_drill=is_drill)
    machine.record(T0)
    return machine


class Talk:
    """Speaks to a machine and remembers what was said before."""

    def __init__(self, machine: Roleplay, language: str = "nl") -> None:
        self.machine = machine
        self.turns: list[Turn] = []
        self.now = T0
        self._language = language

    def hear(self, turn: Turn) -> list[Effect]:
        self.now += 10
        effects = self.machine.hear(method(), turn, self.turns, self._language, self.now)
        self.turns.append(turn)
        return effects

    def use(self, *ids: str, quality: str = "goed", phase: int = 1) -> list[Effect]:
        return self.hear(seller("Wat vindt u?", phase, *((id, quality) for id in ids)))

    def do(self, *ids: str) -> list[Effect]:
        """Each technique in a turn of its own; all effects but hints."""
        found: list[Effect] = []
        for id in ids:
            found += [effect for effect in self.use(id) if not isinstance(effect, Hinted)]
        return found


def current(machine: Roleplay) -> list[str]:
    return [id for id, step in machine.steps.items() if step.status is StepStatus.CURRENT]


def completions(effects: Sequence[Effect]) -> list[PhaseCompleted]:
    return [effect for effect in effects if isinstance(effect, PhaseCompleted)]


# --- the table


def test_a_session_that_is_set_up_records() -> None:
    machine = Roleplay.begin(method(), T0, phase=1, step="1.1", open_phases=[1])
    assert machine.status is Status.IDLE
    machine.record(T0 + 3)
    assert (machine.status, machine.last_seen_at) == (Status.RECORDING, T0 + 3)


def test_a_technique_used_well_completes_its_step_and_moves_on() -> None:
    machine = begun()
    moved = Talk(machine).use("1.1")
    assert moved == [StepMoved("1.2", "1.1", StepStatus.COMPLETED)]
    assert machine.completed_steps == ["1.1"] and machine.step == "1.2"
    assert machine.steps["1.1"].completed_at == T0 + 10 and not machine.steps["1.1"].manual


@pytest.mark.parametrize(("quality", "completes"), [("perfect", 1), ("goed", 1), ("bijna", 0), ("gemist", 0)])
def test_only_good_use_completes_a_step(quality: str, completes: int) -> None:
    machine = begun()
    Talk(machine).use("1.1", quality=quality)
    assert len(machine.completed_steps) == completes
    assert machine.steps["1.1"].quality == quality


def test_the_best_quality_of_a_step_is_kept() -> None:
    machine = begun()
    talk = Talk(machine)
    for quality in ("gemist", "perfect", "bijna"):
        talk.use("1.1", quality=quality)
    assert machine.steps["1.1"].quality is Quality.PERFECT


def test_a_later_judgement_of_a_turn_moves_steps() -> None:
    machine = begun()
    Talk(machine).hear(seller("Dag.", 1))
    effects = machine.judged(method(), [TechniqueUse("1.1", Quality.PERFECT, "Dag.")], T0 + 30)
    assert effects == [StepMoved("1.2", "1.1", StepStatus.COMPLETED)]


def test_a_judgement_after_the_end_changes_nothing() -> None:
    machine = begun()
    machine.stop(T0 + 5)
    before = dump_machine(machine)
    assert machine.judged(method(), [TechniqueUse("1.1", Quality.PERFECT, "Dag.")], T0 + 30) == []
    assert dump_machine(machine) == before


def test_a_step_completed_by_hand_is_marked_as_such() -> None:
    machine = begun()
    assert machine.complete_step(method(), "1.1", T0 + 5) == [StepMoved("1.2", "1.1", StepStatus.COMPLETED)]
    assert machine.steps["1.1"].manual


def test_completing_a_step_again_is_nothing() -> None:
    machine = begun()
    machine.complete_step(method(), "1.1", T0 + 5)
    before = dump_machine(machine)["steps"]
    assert machine.complete_step(method(), "1.1", T0 + 9) == []
    assert dump_machine(machine)["steps"] == before


@pytest.mark.parametrize("step", ["9.9", "", "1", "H1", "sessionId"])
def test_a_step_that_is_not_in_the_catalog_is_not_found(step: str) -> None:
    with pytest.raises(NotFound) as refused:
        begun().complete_step(method(), step, T0 + 5)
    assert refused.value.field == "stepId"


@pytest.mark.parametrize("detail", ["2.3", "2.1.1.1", "4.ABC"])
def test_a_technique_beneath_a_step_is_no_step_to_complete(detail: str) -> None:
    with pytest.raises(Invalid) as refused:
        begun(open_phases=[1, 2, 3, 4]).complete_step(method(), detail, T0 + 5)
    assert refused.value.field == "stepId"


def test_a_step_may_be_named_by_its_newer_number() -> None:
    """Naming 2.1.8 by its alias 2.4 once broke on the lookup of its state."""
    machine = begun(2, open_phases=[1, 2])
    effects = machine.complete_step(method(), "2.4", T0 + 5)
    assert [effect.phase_id for effect in completions(effects)] == [2]
    assert machine.completed_steps == ["2.1.8"]


def test_a_locked_step_cannot_be_completed_by_hand() -> None:
    machine = begun()
    before = dump_machine(machine)["steps"]
    with pytest.raises(Invalid) as refused:
        machine.complete_step(method(), "2.1.1", T0 + 5)
    assert refused.value.field == "stepId" and dump_machine(machine)["steps"] == before


def test_without_a_sign_of_life_a_session_is_abandoned() -> None:
    machine = begun()
    assert machine.tick(TIMING, T0 + 119) == [] and machine.status is Status.RECORDING
    assert machine.tick(TIMING, T0 + 120) == []
    assert (machine.status, machine.abandoned_at, machine.is_over) == (Status.ABANDONED, T0 + 120, False)


def test_each_sign_of_life_puts_off_the_abandonment() -> None:
    machine = begun()
    machine.seen(T0 + 100)
    machine.tick(TIMING, T0 + 219)
    assert machine.status is Status.RECORDING


def test_an_abandoned_session_goes_on_where_it_was_within_its_grace() -> None:
    machine = begun()
    Talk(machine).use("1.1")
    machine.tick(TIMING, T0 + 200)
    assert machine.seen(T0 + 1000) is True
    assert (machine.status, machine.step, machine.abandoned_at) == (Status.RECORDING, "1.2", None)
    assert machine.seen(T0 + 1001) is False


def test_speaking_brings_an_abandoned_session_back() -> None:
    machine = begun()
    machine.tick(TIMING, T0 + 200)
    machine.hear(method(), seller("Ik ben er weer.", 1), [], "nl", T0 + 300)
    assert machine.status is Status.RECORDING


def test_after_its_grace_an_abandoned_session_is_over_as_of_when_it_was_last_seen() -> None:
    machine = begun()
    machine.seen(T0 + 60)
    machine.tick(TIMING, T0 + 180)
    assert machine.tick(TIMING, T0 + 1079) == []
    assert machine.tick(TIMING, T0 + 1080) == [Ended(Status.ABANDONED)]
    assert (machine.ended_at, machine.duration_s, machine.is_over) == (T0 + 60, 60, True)


def test_one_look_long_after_gives_what_many_looks_would_have_given() -> None:
    """Whoever looks hours later (the server was off) must not find a session completed that was left."""
    often, once = begun(), begun()
    for at in range(0, 8000, 10):
        often.tick(TIMING, T0 + at)
    once.tick(TIMING, T0 + 8000)
    assert dump_machine(once) == dump_machine(often)
    assert once.status is Status.ABANDONED


def test_a_session_that_is_never_left_ends_completed_at_its_longest() -> None:
    machine = begun()
    for at in range(0, 7200, 60):
        machine.seen(T0 + at)
        assert machine.tick(TIMING, T0 + at) == []
    assert machine.tick(TIMING, T0 + 7205) == [Ended(Status.COMPLETED)]
    assert machine.duration_s == 7200


def test_a_drill_ends_when_its_time_is_over() -> None:
    machine = begun(2, open_phases=[1, 2, 3, 4], is_drill=True)
    assert machine.tick(TIMING, T0 + 89) == []
    assert machine.tick(TIMING, T0 + 95) == [Ended(Status.COMPLETED)]
    assert machine.duration_s == 90


def test_a_stop_completes_a_session() -> None:
    machine = begun()
    assert machine.stop(T0 + 734) == [Ended(Status.COMPLETED)]
    assert (machine.status, machine.duration_s) == (Status.COMPLETED, 734)


def test_a_second_stop_is_nothing() -> None:
    machine = begun()
    machine.stop(T0 + 10)
    assert machine.stop(T0 + 99) == [] and machine.duration_s == 10


def test_stopping_an_abandoned_session_ends_it_as_abandoned() -> None:
    machine = begun()
    machine.tick(TIMING, T0 + 200)
    assert machine.stop(T0 + 300) == [Ended(Status.ABANDONED)]
    assert (machine.status, machine.duration_s) == (Status.ABANDONED, 0)


@pytest.mark.parametrize("what", ["hear", "seen", "complete_step"])
def test_nothing_more_happens_to_a_session_that_is_over(what: str) -> None:
    machine = begun()
    machine.stop(T0 + 10)
    before = dump_machine(machine)
    doings: dict[str, Any] = {
        "hear": lambda: machine.hear(method(), seller("Nog iets.", 1), [], "nl", T0 + 20),
        "seen": lambda: machine.seen(T0 + 20),
        "complete_step": lambda: machine.complete_step(method(), "1.1", T0 + 20),
    }
    with pytest.raises(Conflict):
        doings[what]()
    assert dump_machine(machine) == before
    assert machine.tick(TIMING, T0 + 99_999) == []


def test_a_clock_that_goes_back_makes_no_negative_duration() -> None:
    machine = begun()
    machine.stop(T0 - 5)
    assert machine.duration_s == 0


# --- steps and phases


def test_at_the_start_steps_of_closed_phases_are_locked() -> None:
    machine = begun()
    locked = {id for id, step in machine.steps.items() if step.status is StepStatus.LOCKED}
    assert locked == {step.id for step in method().steps if step.phase != 1}
    assert current(machine) == ["1.1"]


def test_a_skipped_step_of_the_opening_is_picked_up_again() -> None:
    machine = begun()
    talk = Talk(machine)
    assert talk.do("1.2") == []  # 1.1 stays the step to work on
    assert machine.step == "1.1"
    assert talk.do("1.1") == [StepMoved("1.3", "1.1", StepStatus.COMPLETED)]


def test_the_opening_is_completed_by_its_four_steps_and_opens_the_discovery() -> None:
    machine = begun()
    effects = Talk(machine).do(*OPENING)
    unlocked = tuple(step.id for step in method().steps_of(2))
    assert completions(effects) == [PhaseCompleted(1, 2, unlocked)]
    assert effects[-2:] == [StepMoved("2.1.1", "1.4", StepStatus.COMPLETED), effects[-1]]
    assert (machine.phase, machine.step, machine.open_phases) == (2, "2.1.1", [1, 2])


def test_the_opening_is_completed_in_any_order() -> None:
    effects = Talk(begun()).do("1.4", "1.2", "1.3", "1.1")
    assert [effect.phase_id for effect in completions(effects)] == [1]


def test_a_phase_is_completed_once_in_a_session() -> None:
    machine = begun()
    talk = Talk(machine)
    assert len(completions(talk.do(*OPENING))) == 1
    assert completions(talk.do(*OPENING, *OPENING)) == []


def test_in_discovery_the_next_step_follows_the_one_last_completed() -> None:
    machine = begun(2, open_phases=[1, 2])
    assert Talk(machine).do("2.1.5") == [StepMoved("2.1.6", "2.1.1", StepStatus.UPCOMING)]


def test_the_summary_completes_the_discovery_with_steps_left() -> None:
    machine = begun(2, open_phases=[1, 2])
    talk = Talk(machine)
    talk.do("2.1.6", "2.1.7")
    assert machine.step == "2.1.8"
    effects = talk.do("2.1.8")
    assert [effect.phase_id for effect in completions(effects)] == [2]
    assert machine.phase == 3, "the summary completes the discovery: the recommendation follows"


def test_a_locked_phase_does_not_become_the_current_one() -> None:
    machine = begun()
    talk = Talk(machine)
    assert talk.do("3.2", "4.1") == []
    assert (machine.phase, machine.step) == (1, "1.1")
    assert machine.steps["3.2"].status is StepStatus.LOCKED
    assert machine.steps["3.2"].quality is Quality.GOED
    assert machine.talk_phase == 3  # where the talk is runs ahead of the step shown


def test_a_session_may_begin_in_a_later_open_phase() -> None:
    machine = begun(3, open_phases=[1, 2, 3])
    assert current(machine) == ["3.1"] and machine.phase == 3
    assert machine.steps["4.1"].status is StepStatus.LOCKED
    Talk(machine).do("1.1")
    assert machine.phase == 3, "what is done of an earlier phase does not bring the talk back"


def test_the_decision_opens_after_the_three_phases_before_it() -> None:
    machine = begun()
    talk = Talk(machine)
    talk.do(*OPENING)
    talk.do("2.1.8")
    assert 4 not in machine.open_phases
    last = completions(talk.do("3.4"))
    assert last == [PhaseCompleted(3, 4, tuple(step.id for step in method().steps_of(4)))]


def test_the_decision_opens_also_when_an_earlier_session_did_the_opening() -> None:
    """Phases that were open at the start count as reached by what they need; phase 4 once stayed shut."""
    machine = begun(2, open_phases=[1, 2])
    talk = Talk(machine)
    talk.do("2.1.8", "3.4")
    assert machine.open_phases == [1, 2, 3, 4] and machine.phase == 4
    assert machine.steps["4.1"].status is StepStatus.CURRENT


def test_without_the_recommendation_the_decision_stays_locked() -> None:
    machine = begun(2, open_phases=[1, 2])
    Talk(machine).do("2.1.8", "3.1", "3.2", "3.3", "3.5")
    assert 4 not in machine.open_phases


def test_the_trial_close_completes_the_decision_and_there_is_no_next_phase() -> None:
    machine = begun(4, open_phases=[1, 2, 3, 4])
    assert completions(Talk(machine).do("4.1")) == [PhaseCompleted(4, None, ())]


@pytest.mark.parametrize(("detail", "step"), [("2.2", "2.1.7"), ("2.4", "2.1.8"), ("2.1.1.1", None)])
def test_techniques_beneath_a_step_count_for_it(detail: str, step: str | None) -> None:
    machine = begun(2, open_phases=[1, 2])
    Talk(machine).do(detail)
    found = method().step(detail)
    assert found is not None and (step is None or found.id == step)
    assert machine.completed_steps == [found.id]


def test_ids_that_are_not_in_the_catalog_do_nothing() -> None:
    machine = begun()
    assert Talk(machine).do("9.9", "ROOT", "") == []
    assert machine.completed_steps == []


def test_two_techniques_of_one_turn_complete_two_steps() -> None:
    machine = begun()
    Talk(machine).use("1.1", "1.2")
    assert machine.completed_steps == ["1.1", "1.2"] and machine.step == "1.3"


# --- commitment


def test_a_yes_to_a_summary_is_a_commitment() -> None:
    machine = begun(2, open_phases=[1, 2])
    talk = Talk(machine)
    talk.use("2.1.8", phase=2)
    assert machine.committed is False
    talk.hear(customer("Ja, precies.", 2, "H1", yes=True))
    assert machine.committed is True


def test_a_commitment_is_not_taken_back() -> None:
    machine = begun(2, open_phases=[1, 2])
    talk = Talk(machine)
    talk.use("2.4", phase=2)
    talk.hear(customer("Ja.", 2, "H1", yes=True))
    talk.hear(customer("Nee, toch niet.", 2, "H2"))
    assert machine.committed is True


@pytest.mark.parametrize("case", ["no summary", "no yes", "a summary that failed", "somebody else between"])
def test_no_commitment_without_a_yes_to_a_summary(case: str) -> None:
    machine = begun(2, open_phases=[1, 2])
    talk = Talk(machine)
    quality = "gemist" if case == "a summary that failed" else "goed"
    talk.use("2.1.1" if case == "no summary" else "2.1.8", quality=quality, phase=2)
    if case == "somebody else between":
        talk.hear(customer("Hm.", 2, "H3"))
    talk.hear(customer("Ja.", 2, "H1", yes=case != "no yes"))
    assert machine.committed is False


def test_whoever_begins_beyond_the_summary_has_its_yes() -> None:
    """A session begun in the recommendation was warned for every offer it made."""
    assert begun(3, open_phases=[1, 2, 3]).committed is True
    assert begun(2, open_phases=[1, 2, 3]).committed is False


# --- where the talk is


def test_a_talk_goes_through_its_phases_by_what_is_used_in_it() -> None:
    """A talk that began in the opening once stayed there, and what came later was never heard."""
    machine = begun()
    talk = Talk(machine)
    seen = [machine.talk_phase]
    for id in (*OPENING, "2.1.1", "2.1.8"):
        talk.use(id)
        seen.append(machine.talk_phase)
    talk.hear(customer("Ja, dat klopt.", 2, "H1", yes=True))
    seen.append(machine.talk_phase)
    for id in ("3.2", "4.1"):
        talk.use(id)
        seen.append(machine.talk_phase)
    assert seen == [1, 1, 1, 1, 2, 2, 2, 3, 3, 4]


def test_the_first_question_leads_from_the_opening_on_however_it_is_asked() -> None:
    machine = begun()
    Talk(machine).use("1.4", quality="bijna")
    assert machine.talk_phase == 2 and machine.completed_steps == []


def test_a_summary_without_a_yes_leaves_the_talk_in_the_discovery() -> None:
    machine = begun(2, open_phases=[1, 2])
    Talk(machine).use("2.1.8", quality="perfect")
    assert machine.talk_phase == 2


def test_one_turn_takes_a_talk_one_phase_on_at_most() -> None:
    machine = begun()
    talk = Talk(machine)
    talk.use("4.1", "3.2", quality="gemist")
    assert machine.talk_phase == 2


def test_a_models_judgement_takes_a_talk_on_only_by_what_went_well() -> None:
    machine = begun()
    machine.judged(method(), [TechniqueUse("3.2", Quality.GEMIST, "")], T0 + 5)
    assert machine.talk_phase == 1
    machine.judged(method(), [TechniqueUse("2.1.1", Quality.BIJNA, "")], T0 + 6)
    assert machine.talk_phase == 2


def test_a_question_of_the_discovery_does_not_take_a_talk_back() -> None:
    machine = begun(4, open_phases=[1, 2, 3, 4])
    Talk(machine).use("2.1.5")
    assert machine.talk_phase == 4


# --- hints go through the machine


def test_a_drill_shows_no_hints() -> None:
    machine = begun(3, open_phases=[1, 2, 3, 4], is_drill=True)
    assert not [effect for effect in Talk(machine).use("3.2", phase=3) if isinstance(effect, Hinted)]


def test_the_first_hint_follows_the_moves_of_its_turn() -> None:
    machine = begun(2, open_phases=[1, 2, 3])
    effects = Talk(machine).use("3.1", phase=3)
    assert isinstance(effects[0], StepMoved) and isinstance(effects[-1], Hinted)
    assert len(effects) == 2


# --- kept between events


def test_a_machine_that_was_stored_goes_on_as_if_it_had_not_been() -> None:
    kept, stored = begun(), begun()
    talk, other = Talk(kept), Talk(stored)
    for id in (*OPENING, "2.1.2", "3.1", "2.1.8"):
        first = talk.use(id)
        other.machine = load_machine(dump_machine(other.machine))
        assert other.use(id) == first
    assert dump_machine(kept) == dump_machine(other.machine)


# --- whatever happens

_QUALITIES = st.sampled_from(list(Quality))


def _events(known: Methodology) -> st.SearchStrategy[tuple[Any, ...]]:
    ids = st.sampled_from([technique.id for technique in known.techniques] + ["9.9", "2.4", "H1"])
    uses = st.lists(st.tuples(ids, _QUALITIES), max_size=2)
    attitudes = st.sampled_from([None, *(attitude.id for attitude in known.attitudes)])
    return st.one_of(
        st.tuples(st.just("seller"), uses),
        st.tuples(st.just("customer"), attitudes, st.booleans()),
        st.tuples(st.just("judged"), uses),
        st.tuples(st.just("complete"), ids),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 30.0, 121.0, 1100.0])),
        st.tuples(st.just("seen")),
        st.tuples(st.just("stop")),
    )


def _apply(
    machine: Roleplay, known: Methodology, event: tuple[Any, ...], turns: list[Turn], now: float
) -> Any:
    match event:
        case ("seller", uses):
            turn = seller("Woorden.", 1, *((id, quality.value) for id, quality in uses))
        case ("customer", attitude, yes):
            turn = customer("Woorden.", 1, attitude, yes=yes)
        case ("judged", uses):
            return machine.judged(known, [TechniqueUse(id, quality, "") for id, quality in uses], now)
        case ("complete", id):
            return machine.complete_step(known, id, now)
        case ("seen",):
            machine.seen(now)
            return []
        case ("stop",):
            return machine.stop(now)
        case _:
            return machine.tick(TIMING, now)
    effects = machine.hear(known, turn, turns[-12:], "nl", now)
    turns.append(turn)
    return effects


def _check(machine: Roleplay, known: Methodology, effects: list[Effect]) -> None:
    steps = {step.id for step in known.steps}
    left = [id for id, step in machine.steps.items() if step.status is not StepStatus.COMPLETED]
    assert set(machine.steps) == steps and machine.step in steps
    assert len(current(machine)) <= 1
    if current(machine):
        assert current(machine) == [machine.step]
    else:
        # Nothing is left to show in the phases that may be shown.
        here = [id for id in left if known.technique(id).phase == machine.phase]
        assert here == [], "a step is left and none is current"
    assert known.technique(machine.step).phase in machine.open_phases
    assert machine.phase in machine.open_phases
    assert len(set(machine.completed_phases)) == len(machine.completed_phases)
    moves = [effect for effect in effects if isinstance(effect, StepMoved)]
    assert [move.current for move in moves][-1:] in ([], [machine.step])
    assert all(one.current == following.previous for one, following in pairwise(moves))
    for effect in effects:
        match effect:
            case StepMoved():
                assert {effect.current, effect.previous} <= steps
            case PhaseCompleted():
                assert set(effect.unlocked) <= steps
            case Hinted():
                assert effect.hint.step_id in steps and effect.hint.text
                assert effect.hint.kind in ("tip", "warning")


@st.composite
def _scripts(draw: st.DrawFn, known: Methodology) -> tuple[list[int], str, bool, list[tuple[Any, ...]]]:
    """Open phases, the step to begin with, whether it is a drill, and what happens."""
    reach = draw(st.integers(1, len(known.flow)))
    open_phases = [phase.id for phase in known.flow[:reach]]
    step = draw(st.sampled_from([step.id for step in known.steps if step.phase in open_phases]))
    return open_phases, step, draw(st.booleans()), draw(st.lists(_events(known), max_size=40))


def _play(known: Methodology, open_phases: list[int], step: str, is_drill: bool, events: list[Any]) -> None:
    phase = known.technique(step).phase
    machine = Roleplay.begin(known, T0, phase=phase, step=step, open_phases=open_phases, is_drill=is_drill)
    machine.record(T0)
    told: list[int] = []
    turns: list[Turn] = []
    now, done = T0, set[str]()
    for event in events:
        now += event[1] if event[0] == "wait" else 1.0
        before = dump_machine(machine)
        try:
            effects = _apply(machine, known, event, turns, now)
        except CoachError:
            assert _without_life(dump_machine(machine)) == _without_life(before)
            continue
        _check(machine, known, effects)
        told += [effect.phase_id for effect in completions(effects)]
        assert done <= set(machine.completed_steps), "a completed step was undone"
        done = set(machine.completed_steps)
    assert len(set(told)) == len(told), "a phase was completed twice"
    assert machine.completed_phases == told


def _without_life(machine: dict[str, Any]) -> dict[str, Any]:
    """A refused event is a sign of life all the same."""
    kept = ("status", "last_seen_at", "abandoned_at")
    return {name: value for name, value in machine.items() if name not in kept}


@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=_scripts(method()))
def test_no_order_of_events_breaks_a_session(
    script: tuple[list[int], str, bool, list[tuple[Any, ...]]],
) -> None:
    _play(method(), *script)


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=_scripts(OTHER))
def test_no_order_of_events_breaks_a_session_by_another_method(
    script: tuple[list[int], str, bool, list[tuple[Any, ...]]],
) -> None:
    _play(OTHER, *script)


@pytest.mark.parametrize("known", ALL, ids=lambda known: known.id)
def test_a_talk_by_the_book_completes_every_phase_in_order(known: Methodology) -> None:
    first = known.flow[0].id
    machine = Roleplay.begin(known, T0, phase=first, step=known.steps_of(first)[0].id, open_phases=[first])
    machine.record(T0)
    told: list[int] = []
    for step in known.steps:
        turn = seller("Woorden.", step.phase, (step.id, "perfect"))
        told += [e.phase_id for e in completions(machine.hear(known, turn, [], "nl", T0 + 1))]
    assert told == [phase.id for phase in known.flow]
    assert machine.completed_steps == [step.id for step in known.steps]
    assert current(machine) == []
