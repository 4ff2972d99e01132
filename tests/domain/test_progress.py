"""How far somebody is: what counts, what unlocks, and what clients are shown of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach_server import paths
from coach_server.domain.method.methodology import Methodology, SubScore
from coach_server.domain.method.progress import (
    DAY_S,
    Practice,
    PracticeKind,
    Progress,
    StepStatus,
    progress_document,
    progress_of,
    scenario_flow,
    what_is_missing,
)
from coach_server.domain.method.unlocking import ordered_steps
from coach_server.errors import NotFound
from coach_server.services.method.methodologies import read_methodology

METHODS = {
    path.stem: read_methodology(path) for path in sorted((paths.catalog() / "methodologies").glob("*.toml"))
}
HUGO = METHODS["hugo"]
EVERY_METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
ENOUGH = HUGO.unlock.step_score
OPENING = ("1.1", "1.2", "1.3", "1.4")
T0 = 1_736_950_500.0  # 2025-01-15 14:15:00 UTC


def practised(number: int = 1, scores: Mapping[str, int] | None = None, **changes: Any) -> Practice:
    """The practice of day `number`."""
    practice = Practice(
        session_id=f"s{number}",
        kind=PracticeKind.ROLEPLAY,
        completed_at=T0 + (number - 1) * DAY_S,
        overall=60,
        technique_scores=scores or {},
        duration_s=600,
    )
    return replace(practice, **changes)


def well(*steps: str, number: int = 1) -> Practice:
    return practised(number, dict.fromkeys(steps, ENOUGH))


def seen(*history: Practice, method: Methodology = HUGO, now: float = T0) -> Progress:
    return progress_of(history, method, now)


def statuses(progress: Progress, *steps: str) -> list[str]:
    return [progress.steps[step].status for step in steps]


# Where somebody stands


def test_a_beginner_stands_at_the_first_step_and_nothing_else_is_open() -> None:
    progress = seen()

    assert (progress.current_phase, progress.current_step) == (1, "1.1")
    assert progress.unlocked_phases == (1,)
    assert progress.unlocked_steps == ("1.1",)
    assert statuses(progress, *OPENING) == ["current", "locked", "locked", "locked"]


def test_without_sessions_there_are_no_scores_rather_than_zeros() -> None:
    progress = seen()

    assert progress.total_sessions == 0
    assert progress.average_score is progress.best_score is progress.last_session_at is None


@pytest.mark.parametrize(
    ("score", "status"), [(ENOUGH - 1, "current"), (ENOUGH, "completed"), (100, "completed")]
)
def test_a_step_is_completed_by_a_best_score_of_at_least_the_methods(score: int, status: str) -> None:
    assert seen(practised(scores={"1.1": score})).steps["1.1"].status == status


def test_a_worse_try_afterwards_takes_nothing_away() -> None:
    progress = seen(well("1.1"), practised(2, {"1.1": 5}))

    step = progress.steps["1.1"]
    assert (step.status, step.attempts, step.best) == (StepStatus.COMPLETED, 2, ENOUGH)
    assert step.average == round((ENOUGH + 5) / 2)


def test_a_score_of_zero_is_a_score() -> None:
    progress = seen(practised(scores={"1.1": 0}, overall=0))

    assert (progress.steps["1.1"].attempts, progress.steps["1.1"].best) == (1, 0)
    assert (progress.average_score, progress.best_score) == (0, 0)
    assert progress.curve == ((T0, 0, PracticeKind.ROLEPLAY),)


def test_a_step_ticked_off_by_hand_is_completed_without_an_attempt() -> None:
    step = seen(practised(manual_steps=("1.1",))).steps["1.1"]

    assert (step.status, step.attempts, step.best) == (StepStatus.COMPLETED, 0, None)


def test_a_method_may_not_count_what_is_ticked_off_by_hand() -> None:
    strict = replace(HUGO, unlock=replace(HUGO.unlock, manual=False))

    assert seen(practised(manual_steps=("1.1",)), method=strict).steps["1.1"].status == "current"


def test_a_detail_counts_for_its_step_by_the_best_of_the_practice() -> None:
    step = seen(practised(scores={"4.3.1": 40, "4.ABC": 80, "4.1": 10})).steps["4.1"]

    assert (step.attempts, step.best, step.average) == (1, 80, 80)


def test_an_alias_counts_for_the_step_it_names() -> None:
    alias = next((alias, t.id) for t in HUGO.steps for alias in t.aliases)

    assert seen(practised(scores={alias[0]: 90})).steps[alias[1]].best == 90


def test_what_the_method_does_not_know_does_not_count() -> None:
    progress = seen(practised(scores={"9.9": 100, "drop table": 100}, manual_steps=("nonsense", "")))

    assert not any(step.attempts for step in progress.steps.values())
    assert progress.completed_steps == ()


@pytest.mark.parametrize(("told", "kept"), [(-40, 0), (250, 100)])
def test_scores_out_of_bounds_are_clamped(told: int, kept: int) -> None:
    progress = seen(practised(scores={"1.1": told}, overall=told))

    assert (progress.steps["1.1"].best, progress.best_score, progress.curve[0][1]) == (kept, kept, kept)


# What opens


def test_the_steps_of_an_ordered_phase_open_one_after_the_other() -> None:
    progress = seen(well("1.1"))

    assert statuses(progress, *OPENING) == ["completed", "current", "locked", "locked"]
    assert statuses(seen(well("1.1", "1.2")), *OPENING) == ["completed", "completed", "current", "locked"]


def test_a_step_done_before_its_turn_stays_open_and_does_not_open_the_next() -> None:
    progress = seen(well("1.3"))

    assert statuses(progress, *OPENING) == ["current", "locked", "completed", "locked"]
    assert progress.unlocked_steps == ("1.1", "1.3")


def test_a_completed_phase_opens_the_next_with_all_its_steps() -> None:
    progress = seen(well(*OPENING))

    assert progress.completed_phases == (1,)
    assert progress.unlocked_phases == (1, 2)
    assert (progress.current_phase, progress.current_step) == (2, "2.1.1")
    assert set(statuses(progress, *(f"2.1.{n}" for n in range(2, 9)))) == {"upcoming"}


def test_discovery_is_completed_by_a_commitment_and_not_by_empathy() -> None:
    assert seen(well(*OPENING, "2.1.6", "3.1")).completed_phases == (1,)
    assert seen(well(*OPENING, "2.1.8")).completed_phases == (1, 2)
    assert seen(well(*OPENING, "2.4")).unlocked_phases == (1, 2, 3)


def test_the_last_phase_opens_only_after_all_earlier_ones() -> None:
    assert 4 not in seen(well("2.1.8", "3.4")).unlocked_phases
    assert 4 not in seen(well(*OPENING, "3.4")).unlocked_phases
    assert seen(well(*OPENING, "2.1.8", "3.4")).unlocked_phases == (1, 2, 3, 4)


def test_what_was_done_in_a_closed_phase_counts_as_soon_as_it_opens() -> None:
    early = seen(well("4.1"))
    later = seen(well("4.1"), well(*OPENING, "2.1.8", "3.4", number=2))

    assert early.steps["4.1"].status == "completed"
    assert (early.completed_phases, 4 in early.unlocked_phases) == ((), False)
    assert "4.1" not in early.unlocked_steps
    assert later.completed_phases == (1, 2, 3, 4)


def test_steps_left_over_are_next_when_every_phase_is_completed() -> None:
    progress = seen(well(*OPENING, "2.1.8", "3.4", "4.1", "2.1.1"))

    assert (progress.current_phase, progress.current_step) == (2, "2.1.2")


def test_somebody_who_completed_everything_stands_at_the_last_step() -> None:
    progress = seen(well(*(step.id for step in HUGO.steps)))

    assert set(statuses(progress, *progress.steps)) == {"completed"}
    assert (progress.current_phase, progress.current_step) == (4, "4.2.5")


def test_the_number_of_a_step_is_compared_by_its_parts() -> None:
    steps = [step.id for step in ordered_steps(HUGO)]

    assert steps[3:6] == ["1.4", "2.1.1", "2.1.2"]
    assert [step.id for step in ordered_steps(HUGO, 3)] == ["3.1", "3.2", "3.3", "3.4", "3.5"]


# What is missing


def test_a_locked_phase_names_the_steps_that_are_missing_in_their_order() -> None:
    missing = what_is_missing(seen(well("1.1", "1.4")), HUGO, "nl", phase_id=3)

    assert missing == [
        "1.2 Gentleman's agreement",
        "1.3 Firmavoorstelling + reference",
        "2.1.8 Lock questioning",
    ]


def test_a_locked_step_names_those_before_it() -> None:
    assert what_is_missing(seen(), HUGO, "nl", step_id="1.2") == ["1.1 Koopklimaat creëren"]
    assert what_is_missing(seen(well(*OPENING)), HUGO, "nl", step_id="3.1") == ["2.1.8 Lock questioning"]


def test_nothing_is_missing_for_what_is_open() -> None:
    progress = seen(well(*OPENING))

    assert what_is_missing(progress, HUGO, "nl", phase_id=2, step_id="2.1.5") == []
    assert all(what_is_missing(progress, HUGO, "en", step_id=step) == [] for step in progress.unlocked_steps)


@pytest.mark.parametrize("asked", [{"phase_id": 99}, {"step_id": "9.9"}, {"step_id": ""}])
def test_what_the_method_does_not_have_cannot_be_started(asked: dict[str, Any]) -> None:
    with pytest.raises(NotFound):
        what_is_missing(seen(), HUGO, "nl", **asked)


# Practice and reality


def test_a_real_call_counts_for_a_step_as_a_roleplay_does() -> None:
    call = replace(well(*OPENING), kind=PracticeKind.CALL, overall=90)

    progress = seen(call)

    assert progress.unlocked_phases == (1, 2)
    assert progress.steps["1.1"].attempts == 1
    assert progress.curve == ((T0, 90, PracticeKind.CALL),)


def test_calls_and_drills_are_no_sessions() -> None:
    history = [
        practised(1, overall=40),
        practised(2, overall=80),
        practised(3, overall=100, kind=PracticeKind.CALL),
        practised(4, overall=10, kind=PracticeKind.DRILL),
    ]

    progress = seen(*history)

    assert (progress.total_sessions, progress.average_score, progress.best_score) == (2, 60, 80)
    assert (progress.total_calls, progress.average_call_score) == (1, 100)
    assert progress.last_session_at == T0 + DAY_S
    assert [kind for _, _, kind in progress.curve] == ["roleplay", "roleplay", "call", "drill"]


def test_a_session_without_a_score_is_counted_and_pulls_no_average_down() -> None:
    progress = seen(practised(1, overall=None), practised(2, overall=70))

    assert (progress.total_sessions, progress.scored_sessions, progress.average_score) == (2, 1, 70)
    assert len(progress.curve) == 1


def test_the_order_in_which_the_history_comes_does_not_matter() -> None:
    history = [practised(n, {"1.1": 10 * n, "2.1.1": 5 * n}, overall=n) for n in range(1, 8)]

    assert seen(*history) == seen(*reversed(history))


# Skill over time


def test_the_skill_of_a_phase_is_the_average_of_its_last_five_practices() -> None:
    scores = (10, 20, 30, 40, 50, 60)
    progress = seen(*(practised(n, {"1.1": score, "1.2": score}) for n, score in enumerate(scores, 1)))

    assert [score for _, score in progress.skill[1]] == [10, 15, 20, 25, 30, 40]
    assert progress.skill[4] == ()


def test_sub_scores_that_were_not_given_are_left_out_of_their_average() -> None:
    progress = seen(
        practised(1, sub_scores={SubScore.LUISTEREN: 40, SubScore.OBJECTIONS: None}),
        practised(2, sub_scores={SubScore.LUISTEREN: 0}),
    )

    assert progress.sub_scores == {SubScore.LUISTEREN: 20}


def test_a_completed_step_grows_stale_when_it_is_not_practised() -> None:
    days = HUGO.unlock.stale_days
    history = [well("1.1"), practised(1, {"1.2": 10})]

    fresh = seen(*history, now=T0 + days * DAY_S)
    later = seen(*history, now=T0 + days * DAY_S + 1)

    assert not fresh.steps["1.1"].stale
    assert later.steps["1.1"].stale
    assert not later.steps["1.2"].stale, "never completed, so nothing can be forgotten"
    assert later.steps["1.1"].status == "completed", "stale is a hint, not a lock"


def test_practising_a_step_again_makes_it_fresh() -> None:
    later = T0 + 40 * DAY_S
    again = replace(practised(2, {"1.1": 3}), completed_at=later)

    assert not seen(well("1.1"), again, now=later).steps["1.1"].stale


# Rules that hold for every history and every method


def histories(method: Methodology) -> st.SearchStrategy[list[Practice]]:
    ids = st.sampled_from([t.id for t in method.techniques] + ["9.9", "x"])
    practices = st.builds(
        Practice,
        session_id=st.text("abc", min_size=1, max_size=3),
        kind=st.sampled_from(PracticeKind),
        completed_at=st.floats(0, 2e9),
        overall=st.none() | st.integers(-10, 120),
        technique_scores=st.dictionaries(ids, st.integers(-10, 120), max_size=12),
        manual_steps=st.lists(ids, max_size=4).map(tuple),
        duration_s=st.floats(0, 1e4),
    )
    return st.lists(practices, max_size=8)


@EVERY_METHOD
@given(data=st.data())
def test_more_history_never_locks_anything(method: Methodology, data: st.DataObject) -> None:
    history, more = data.draw(histories(method)), data.draw(histories(method))

    before, after = seen(*history, method=method), seen(*history, *more, method=method)

    assert set(before.unlocked_phases) <= set(after.unlocked_phases)
    assert set(before.unlocked_steps) <= set(after.unlocked_steps)
    assert set(before.completed_phases) <= set(after.completed_phases)
    assert set(before.completed_steps) <= set(after.completed_steps)


@EVERY_METHOD
@given(data=st.data())
def test_everything_named_is_of_the_method_and_every_score_in_bounds(
    method: Methodology, data: st.DataObject
) -> None:
    progress = seen(*data.draw(histories(method)), method=method)
    steps, flow = {step.id for step in method.steps}, {phase.id for phase in method.flow}

    assert {progress.current_step, *progress.unlocked_steps, *progress.steps} <= steps
    assert {progress.current_phase, *progress.unlocked_phases, *progress.skill} <= flow
    scores = [score for _, score, _ in progress.curve]
    scores += [score for points in progress.skill.values() for _, score in points]
    scores += [n for s in progress.steps.values() for n in (s.best, s.average) if n is not None]
    assert all(0 <= score <= 100 for score in scores)


@EVERY_METHOD
@given(data=st.data())
def test_a_step_is_open_exactly_when_nothing_is_missing(method: Methodology, data: st.DataObject) -> None:
    progress = seen(*data.draw(histories(method)), method=method)

    for step in progress.steps:
        missing = what_is_missing(progress, method, "en", step_id=step)
        assert (step in progress.unlocked_steps) == (missing == [])
    for phase in method.flow:
        missing = what_is_missing(progress, method, "en", phase_id=phase.id)
        assert (phase.id in progress.unlocked_phases) == (missing == [])


@EVERY_METHOD
@given(data=st.data())
def test_the_current_step_may_be_started_and_is_the_only_one_shown_as_current(
    method: Methodology, data: st.DataObject
) -> None:
    progress = seen(*data.draw(histories(method)), method=method)

    current = [name for name, step in progress.steps.items() if step.status is StepStatus.CURRENT]
    assert progress.current_step in progress.unlocked_steps
    assert current in ([], [progress.current_step])


@EVERY_METHOD
def test_every_method_can_be_walked_through_from_the_first_step_to_the_last(method: Methodology) -> None:
    history: list[Practice] = []
    for _ in method.steps:
        here = seen(*history, method=method)
        score = {here.current_step: method.unlock.step_score}
        history.append(practised(len(history) + 1, score))

    progress = seen(*history, method=method)
    assert progress.completed_phases == tuple(phase.id for phase in method.flow)
    assert set(progress.completed_steps) == {step.id for step in method.steps}


# What clients are shown


@pytest.fixture
def on_the_way() -> Progress:
    return seen(well(*OPENING), practised(2, {"2.1.3": 50, "2.1.1": 80}, overall=84), now=T0 + 2 * DAY_S)


def test_the_progress_document_has_the_fields_of_the_seed(on_the_way: Progress) -> None:
    document = progress_document(on_the_way, HUGO, "nl", "user-7")

    assert document["userId"] == "user-7"
    assert (document["totalSessions"], document["averageScore"]) == (2, 72)
    assert (document["currentPhase"], document["currentStep"]) == (2, "2.1.2")
    assert document["unlockedPhases"] == [1, 2]
    assert document["lastSessionAt"] == "2025-01-16T14:15:00Z"
    assert document["stepProgress"]["4.1"] == {"status": "locked"}
    step = document["stepProgress"]["2.1.3"]
    assert {key: step[key] for key in ("status", "attempts", "bestScore")} == {
        "status": "upcoming",
        "attempts": 1,
        "bestScore": 50,
    }
    assert list(document["stepProgress"]) == [step.id for step in ordered_steps(HUGO)]


def test_the_progress_document_is_plain_json(on_the_way: Progress) -> None:
    document = progress_document(on_the_way, HUGO, "nl", "user-7")

    assert json.loads(json.dumps(document)) == document


def test_a_document_without_sessions_says_zero_and_that_nothing_was_scored() -> None:
    document = progress_document(seen(), HUGO, "nl", "new")

    assert (document["totalSessions"], document["scoredSessions"], document["averageScore"]) == (0, 0, 0)
    assert document["bestScore"] is document["lastSessionAt"] is None
    assert document["stepProgress"]["1.1"] == {"status": "current", "attempts": 0}


def test_the_sales_flow_has_the_shape_the_web_client_reads(on_the_way: Progress) -> None:
    flow = scenario_flow(on_the_way, HUGO, "nl")

    assert [(phase["id"], phase["name"]) for phase in flow] == [
        (1, "Openingsfase"),
        (2, "Ontdekkingsfase"),
        (3, "Aanbevelingsfase"),
        (4, "Beslissingsfase"),
    ]
    assert all(set(phase) == {"id", "name", "color", "themas", "uitleg", "steps"} for phase in flow)
    assert flow[1]["themas"][0] == "Bron"
    assert flow[0]["color"] == "#6B7A92"
    assert flow[0]["steps"][1] == {
        "id": "1.2",
        "nummer": "1.2",
        "name": "Gentleman's agreement",
        "status": "completed",
        "duration": "1 min",
        "isVerplicht": True,
    }
    assert "isVerplicht" not in flow[1]["steps"][0]
    assert [len(phase["steps"]) for phase in flow] == [4, 8, 5, 6]


@pytest.mark.parametrize("language", ["nl", "nl-BE", "en", "he"])
@EVERY_METHOD
def test_every_language_has_words_for_the_whole_flow(method: Methodology, language: str) -> None:
    flow = scenario_flow(seen(method=method), method, language)

    named = [phase["name"] for phase in flow] + [s["name"] for phase in flow for s in phase["steps"]]
    assert all(named)


def test_the_figures_of_a_client_agree_with_one_another(on_the_way: Progress) -> None:
    document = progress_document(on_the_way, HUGO, "nl", "user-7")
    shown: Sequence[Mapping[str, Any]] = [s for phase in document["scenarioFlow"] for s in phase["steps"]]

    assert {s["id"]: s["status"] for s in shown} == {
        step: told["status"] for step, told in document["stepProgress"].items()
    }
