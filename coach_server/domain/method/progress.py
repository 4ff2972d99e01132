"""How far somebody is with a method: every figure about progress is worked out here and nowhere else.

A step is completed by a best score of at least `unlock.step_score`, or by hand where the method allows it;
`domain/method/unlocking.py` says what that opens.

Practice and reality count the same skill side by side: a technique used in a real call or a drill counts for
attempts, best and average of its step just as in a roleplay, and so for unlocking. Sessions, their average
and their best are those of roleplays alone; real calls have an average of their own beside it. What was
earned stays earned: more history never locks anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from coach_server.domain.method.methodology import Methodology, SubScore, Technique, say
from coach_server.domain.method.unlocking import Flow, ordered_steps
from coach_server.domain.practice.scorecard import clamp
from coach_server.errors import NotFound

WINDOW = 5
"""Practices in a moving average."""
DAY_S = 86_400


class PracticeKind(StrEnum):
    ROLEPLAY = "roleplay"
    CALL = "call"
    DRILL = "drill"


@dataclass(frozen=True, slots=True)
class Practice:
    """One finished roleplay, real call or drill. `completed_at`: seconds since the epoch. `overall`: None
    where too little was said to judge. `technique_scores`: 0..100 by step or detail id, of what was used.
    `manual_steps`: steps ticked off by hand. Ids that the method does not have do not count."""

    session_id: str
    kind: PracticeKind
    completed_at: float
    overall: int | None
    technique_scores: Mapping[str, int]
    manual_steps: tuple[str, ...] = ()
    duration_s: float = 0.0
    sub_scores: Mapping[SubScore, int | None] | None = None


class StepStatus(StrEnum):
    """As clients show a step (contract §1)."""

    COMPLETED = "completed"
    CURRENT = "current"
    UPCOMING = "upcoming"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True)
class StepProgress:
    """`attempts`: practices in which it was used. `best`, `average`: None until then. `stale`: completed, and
    not practised for the method's `stale_days`."""

    status: StepStatus
    attempts: int = 0
    best: int | None = None
    average: int | None = None
    last_practised_at: float | None = None
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Scores are None where nothing was scored yet: a zero is a judgement. `curve`: (at, score, kind) of each
    scored practice; `skill`: by phase of the flow, (at, moving average) after each practice that touched it;
    `sub_scores`: the average of the last few practices. `unlocked_*` and `completed_*` keep the order of the
    method."""

    total_sessions: int
    scored_sessions: int
    average_score: int | None
    best_score: int | None
    total_calls: int
    average_call_score: int | None
    current_phase: int
    current_step: str
    unlocked_phases: tuple[int, ...]
    unlocked_steps: tuple[str, ...]
    completed_phases: tuple[int, ...]
    completed_steps: tuple[str, ...]
    steps: Mapping[str, StepProgress]
    curve: tuple[tuple[float, int, PracticeKind], ...]
    skill: Mapping[int, tuple[tuple[float, int], ...]]
    sub_scores: Mapping[SubScore, int]
    total_duration_s: float
    last_session_at: float | None


def progress_of(history: Iterable[Practice], method: Methodology, now: float) -> Progress:
    """What this history comes to at `now` (seconds since the epoch)."""
    practices = sorted(history, key=lambda practice: practice.completed_at)
    sessions = [p for p in practices if p.kind is PracticeKind.ROLEPLAY]
    calls = [p for p in practices if p.kind is PracticeKind.CALL]
    used = _used(practices, method)
    done = _completed_steps(used, practices, method)
    flow = Flow.of(method, done)
    scored = _overalls(sessions)
    return Progress(
        total_sessions=len(sessions),
        scored_sessions=len(scored),
        average_score=_mean(scored),
        best_score=max(scored, default=None),
        total_calls=len(calls),
        average_call_score=_mean(_overalls(calls)),
        current_phase=flow.current.phase,
        current_step=flow.current.id,
        unlocked_phases=tuple(phase.id for phase in method.flow if phase.id in flow.open),
        unlocked_steps=tuple(step.id for step in flow.steps if flow.is_open(step)),
        completed_phases=tuple(phase.id for phase in method.flow if phase.id in flow.completed),
        completed_steps=tuple(step.id for step in flow.steps if step.id in done),
        steps={s.id: _step(s, flow, used[s.id], _by_hand(practices, method, s.id), now) for s in flow.steps},
        curve=tuple((p.completed_at, clamp(p.overall), p.kind) for p in practices if p.overall is not None),
        skill={phase.id: _skill(phase.id, method, used) for phase in method.flow},
        sub_scores=_sub_scores(practices),
        total_duration_s=sum(max(0.0, practice.duration_s) for practice in practices),
        last_session_at=sessions[-1].completed_at if sessions else None,
    )


def what_is_missing(
    progress: Progress,
    method: Methodology,
    language: str,
    *,
    phase_id: int | None = None,
    step_id: str | None = None,
) -> list[str]:
    """The steps, as `1.2 Gentleman's agreement`, that must be completed before this phase or step may be
    started; empty when it may. Raises NotFound for what the method does not have."""
    flow = Flow.of(method, frozenset(progress.completed_steps))
    wanted = set(flow.before_phase(method.phase(phase_id))) if phase_id is not None else set()
    if step_id is not None:
        step = method.step(step_id)
        if step is None:
            raise NotFound("There is no such step.", field="stepId")
        wanted.update(flow.before_step(step))
    return [f"{s.id} {say(s.name, language)}" for s in ordered_steps(method) if s.id in wanted]


def scenario_flow(progress: Progress, method: Methodology, language: str) -> list[dict[str, Any]]:
    """The sales flow as the web client reads it (contract §1): `{id, name, color, themas, uitleg, steps}`."""
    return [
        {
            "id": phase.id,
            "name": say(phase.name, language),
            "color": phase.color,
            "themas": [say(theme.name, language) for theme in phase.themes],
            "uitleg": say(phase.explanation, language),
            "steps": [_client_step(step, progress, language) for step in ordered_steps(method, phase.id)],
        }
        for phase in method.flow
    ]


def progress_document(progress: Progress, method: Methodology, language: str, user_id: str) -> dict[str, Any]:
    """The seed's progress document with `scenarioFlow` and additions. `averageScore` is a number in the
    seed's type, so it is 0 while `scoredSessions` is 0; `bestScore` is null then."""
    return {
        "userId": user_id,
        "totalSessions": progress.total_sessions,
        "averageScore": progress.average_score or 0,
        "currentPhase": progress.current_phase,
        "currentStep": progress.current_step,
        "unlockedPhases": list(progress.unlocked_phases),
        "stepProgress": {step_id: _step_document(step) for step_id, step in progress.steps.items()},
        "lastSessionAt": _iso(progress.last_session_at),
        "scenarioFlow": scenario_flow(progress, method, language),
        "methodology": method.id,
        "methodologyVersion": method.version,
        "unlockedSteps": list(progress.unlocked_steps),
        "completedPhases": list(progress.completed_phases),
        "scoredSessions": progress.scored_sessions,
        "bestScore": progress.best_score,
        "totalCalls": progress.total_calls,
        "averageCallScore": progress.average_call_score,
        "totalDurationSeconds": round(progress.total_duration_s),
        "curve": [{"at": _iso(at), "score": score, "kind": kind} for at, score, kind in progress.curve],
        "skill": {str(phase): _points(points) for phase, points in progress.skill.items()},
        "averageSubScores": {name.value: score for name, score in progress.sub_scores.items()},
        "staleSteps": [step_id for step_id, step in progress.steps.items() if step.stale],
    }


# Reading the history


@dataclass(frozen=True, slots=True)
class _Use:
    session_id: str
    at: float
    score: int


def _used(practices: Sequence[Practice], method: Methodology) -> dict[str, list[_Use]]:
    """The uses of each step, oldest first: one a practice, the best of the techniques that count for it."""
    uses: dict[str, list[_Use]] = {step.id: [] for step in method.steps}
    for practice in practices:
        for step_id, score in _step_scores(practice, method).items():
            uses[step_id].append(_Use(practice.session_id, practice.completed_at, score))
    return uses


def _step_scores(practice: Practice, method: Methodology) -> dict[str, int]:
    scores: dict[str, int] = {}
    for technique_id, score in practice.technique_scores.items():
        step = method.step(technique_id)
        if step is not None and step.is_step:
            scores[step.id] = max(scores.get(step.id, 0), clamp(score))
    return scores


def _by_hand(practices: Sequence[Practice], method: Methodology, step_id: str) -> float | None:
    """When the step was last ticked off by hand; None where the method does not count that."""
    if not method.unlock.manual:
        return None
    at = [p.completed_at for p in practices for ticked in p.manual_steps if _is_step(method, ticked, step_id)]
    return max(at, default=None)


def _is_step(method: Methodology, ticked: str, step_id: str) -> bool:
    step = method.step(ticked)
    return step is not None and step.id == step_id


def _completed_steps(
    used: Mapping[str, Sequence[_Use]], practices: Sequence[Practice], method: Methodology
) -> frozenset[str]:
    """Everything that counts as done."""
    enough = method.unlock.step_score
    return frozenset(
        step_id
        for step_id, uses in used.items()
        if any(use.score >= enough for use in uses) or _by_hand(practices, method, step_id) is not None
    )


def _overalls(practices: Sequence[Practice]) -> list[int]:
    return [clamp(practice.overall) for practice in practices if practice.overall is not None]


def _mean(scores: Sequence[float]) -> int | None:
    return clamp(sum(scores) / len(scores)) if scores else None


def _skill(
    phase_id: int, method: Methodology, used: Mapping[str, Sequence[_Use]]
) -> tuple[tuple[float, int], ...]:
    """After each practice that touched the phase: the mean of its last `WINDOW` such practices."""
    together: dict[tuple[float, str], list[int]] = {}
    for step in method.steps_of(phase_id):
        for use in used[step.id]:
            together.setdefault((use.at, use.session_id), []).append(use.score)
    moments = sorted(together)
    means = [sum(together[moment]) / len(together[moment]) for moment in moments]
    averages = [clamp(_moving(means, n)) for n in range(len(means))]
    return tuple((at, average) for (at, _), average in zip(moments, averages, strict=True))


def _moving(values: Sequence[float], at: int) -> float:
    window = values[max(0, at + 1 - WINDOW) : at + 1]
    return sum(window) / len(window)


def _sub_scores(practices: Sequence[Practice]) -> dict[SubScore, int]:
    found: dict[SubScore, int] = {}
    for sub_score in SubScore:
        given = [(p.sub_scores or {}).get(sub_score) for p in practices]
        average = _mean([clamp(score) for score in given if score is not None][-WINDOW:])
        if average is not None:
            found[sub_score] = average
    return found


# One step


def _step(
    step: Technique, flow: Flow, uses: Sequence[_Use], by_hand: float | None, now: float
) -> StepProgress:
    scores = [use.score for use in uses]
    moments = [use.at for use in uses] + ([] if by_hand is None else [by_hand])
    last = max(moments, default=None)
    return StepProgress(
        status=_status(step, flow),
        attempts=len(uses),
        best=max(scores, default=None),
        average=_mean(scores),
        last_practised_at=last,
        stale=step.id in flow.done and last is not None and _is_stale(last, flow.method, now),
    )


def _is_stale(last: float, method: Methodology, now: float) -> bool:
    return now - last > method.unlock.stale_days * DAY_S


def _status(step: Technique, flow: Flow) -> StepStatus:
    if step.id in flow.done:
        return StepStatus.COMPLETED
    if step.id == flow.current.id:
        return StepStatus.CURRENT
    return StepStatus.UPCOMING if flow.is_open(step) else StepStatus.LOCKED


# The wire's shapes


def _client_step(step: Technique, progress: Progress, language: str) -> dict[str, Any]:
    shown = {
        "id": step.id,
        "nummer": step.id,
        "name": say(step.name, language),
        "status": progress.steps[step.id].status,
        "duration": f"{step.minutes} min",
    }
    return shown | ({"isVerplicht": True} if step.required else {})


def _step_document(step: StepProgress) -> dict[str, Any]:
    """As in the seed: a locked step nobody tried has a status only, and no score stands for no score."""
    if step.status is StepStatus.LOCKED and not step.attempts:
        return {"status": step.status}
    document: dict[str, Any] = {"status": step.status, "attempts": step.attempts}
    if step.best is not None:
        document |= {"bestScore": step.best, "averageScore": step.average}
    if step.last_practised_at is not None:
        document |= {"lastPractisedAt": _iso(step.last_practised_at), "stale": step.stale}
    return document


def _points(points: Sequence[tuple[float, int]]) -> list[dict[str, Any]]:
    return [{"at": _iso(at), "score": score} for at, score in points]


def _iso(at: float | None) -> str | None:
    """Seconds since the epoch as the seed writes moments: `2025-01-15T14:15:00Z`."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
