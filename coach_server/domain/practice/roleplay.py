"""A practice talk as a pure machine: what was said and the time in, effects out.

    status       on                                       becomes      and
    RECORDING    somebody spoke                           same         steps and phases move, maybe a hint
    RECORDING    a judgement of an earlier turn came      same         steps and phases move
    RECORDING    step:complete                            same         that step is completed by hand
    RECORDING    nobody was seen for `abandon_s`          ABANDONED
    RECORDING    a drill's or session's time is over      COMPLETED
    ABANDONED    somebody is back within `grace_s`        RECORDING    goes on where it was
    ABANDONED    `grace_s` is over, or stop               ABANDONED    `is_over`: its analysis may begin
    RECORDING    stop                                     COMPLETED
    is over      anything but stop                        same         Conflict

Steps move by use: a technique used well completes its step. The current step is the first of the current
phase that is not completed, in an ordered phase; elsewhere the next one after the step last completed, and
skipped ones are picked up at the end. A phase is completed when the steps that the method names for it are;
each phase once. A phase that is locked, for this user and in this talk, does not become the current one.

Nothing that was said is kept here: the turns have a table of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import (
    RANK,
    Quality,
    TechniqueUse,
    Turn,
    agrees_to_summary,
    phase_after,
    phase_reached,
)
from coach_server.domain.practice.hints import Hint, HintMemory, Scene, find_hint
from coach_server.errors import Conflict, Invalid

LOOK_BACK = 12


class Status(StrEnum):
    IDLE = "idle"
    RECORDING = "recording"
    COMPLETED = "completed"
    ABANDONED = "abandoned"


class StepStatus(StrEnum):
    COMPLETED = "completed"
    CURRENT = "current"
    UPCOMING = "upcoming"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `abandon_s`: without a sign of life; `grace_s`: how long after that it can be resumed;
    `session_s`: the longest a session may last; `drill_s`: a drill."""

    abandon_s: float = 120.0
    grace_s: float = 900.0
    session_s: float = 7200.0
    drill_s: float = 90.0


@dataclass(slots=True)
class Step:
    """What became of a step in this talk. Times are seconds since the epoch."""

    status: StepStatus = StepStatus.UPCOMING
    started_at: float | None = None
    completed_at: float | None = None
    manual: bool = False
    quality: Quality | None = None


# --- effects


@dataclass(frozen=True, slots=True)
class StepMoved:
    """`status`: what the previous step became."""

    current: str
    previous: str
    status: StepStatus


@dataclass(frozen=True, slots=True)
class PhaseCompleted:
    phase_id: int
    next_phase_id: int | None
    unlocked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hinted:
    hint: Hint


@dataclass(frozen=True, slots=True)
class Ended:
    status: Status


Effect = StepMoved | PhaseCompleted | Hinted | Ended


@dataclass(slots=True)
class Roleplay:
    """`open_phases`: unlocked for this user before, or in this talk. `talk_phase`: where the talk itself is,
    which may run ahead of the step shown. `committed`: the customer said yes to a summary."""

    started_at: float
    phase: int
    step: str
    is_drill: bool = False
    status: Status = Status.IDLE
    last_seen_at: float = 0.0
    abandoned_at: float | None = None
    ended_at: float | None = None
    steps: dict[str, Step] = field(default_factory=dict)
    open_phases: list[int] = field(default_factory=list)
    completed_phases: list[int] = field(default_factory=list)
    talk_phase: int = 1
    committed: bool = False
    seller_count: int = 0
    customer_count: int = 0
    hints: HintMemory = field(default_factory=HintMemory)

    @classmethod
    def begin(
        cls,
        method: Methodology,
        now: float,
        *,
        phase: int,
        step: str,
        open_phases: Sequence[int],
        is_drill: bool = False,
    ) -> Roleplay:
        new = cls(
            started_at=now,
            phase=phase,
            step=step,
            is_drill=is_drill,
            last_seen_at=now,
            open_phases=sorted({*open_phases, phase}),
            talk_phase=phase,
            # Whoever begins beyond the summary is taken to have its yes.
            committed=method.commitment_before is not None and phase >= method.commitment_before,
        )
        for known in method.steps:
            is_open = known.phase in new.open_phases
            new.steps[known.id] = Step(StepStatus.UPCOMING if is_open else StepStatus.LOCKED)
        new._enter(step, now)
        return new

    @property
    def is_over(self) -> bool:
        """Nothing more can happen to it."""
        return self.ended_at is not None

    @property
    def duration_s(self) -> float:
        """Seconds from the start to the end, or to the last sign of life."""
        return max(0.0, (self.ended_at or self.last_seen_at) - self.started_at)

    @property
    def completed_steps(self) -> list[str]:
        """Steps completed in this talk, in the order of the method."""
        return [id for id, step in self.steps.items() if step.status is StepStatus.COMPLETED]

    # --- events

    def record(self, now: float) -> None:
        """The session is set up; talking may begin."""
        self.status = Status.RECORDING
        self.last_seen_at = now

    def seen(self, now: float) -> bool:
        """A sign of life. True when this brought an abandoned session back."""
        if self.is_over:
            raise Conflict("This session is over.")
        self.last_seen_at = now
        if self.status is not Status.ABANDONED:
            return False
        self.status, self.abandoned_at = Status.RECORDING, None
        return True

    def hear(
        self, method: Methodology, turn: Turn, before: Sequence[Turn], language: str, now: float
    ) -> list[Effect]:
        """Somebody spoke. `before`: the turns before this one, oldest first. Raises Conflict when over."""
        self.seen(now)
        self.talk_phase = phase_after(method, self.talk_phase, turn, before)
        effects: list[Effect] = []
        if turn.is_seller:
            self.seller_count += 1
            effects += self._use(method, turn.uses, now)
        else:
            self.customer_count += 1
            self.committed = self.committed or agrees_to_summary(method, turn, before)
        scene = self._scene(method, [*before[-LOOK_BACK:], turn], language)
        hint = None if self.is_drill else find_hint(scene, self.hints)
        return effects if hint is None else [*effects, Hinted(hint)]

    def judged(self, method: Methodology, uses: Sequence[TechniqueUse], now: float) -> list[Effect]:
        """A better judgement of a turn that was heard before."""
        if self.is_over:
            return []
        well = [use for use in uses if use.quality is not Quality.GEMIST]
        self.talk_phase = phase_reached(method, self.talk_phase, well)
        return self._use(method, uses, now)

    def complete_step(self, method: Methodology, step_id: str, now: float) -> list[Effect]:
        """`step:complete` of the client. Raises NotFound for no step, Invalid for a locked one, Conflict."""
        self.seen(now)
        technique = method.technique(step_id)
        if not technique.is_step:
            raise Invalid("stepId must be a step of the method.", field="stepId")
        # It may have been named by an alias.
        if self.steps[technique.id].status is StepStatus.LOCKED:
            raise Invalid("This step is still locked.", field="stepId")
        return self._complete(method, technique.id, now, manual=True)

    def stop(self, now: float) -> list[Effect]:
        """The client stops. Again: nothing. An abandoned session stays so and is over now."""
        if self.is_over:
            return []
        was_abandoned = self.status is Status.ABANDONED
        return self._end(
            Status.ABANDONED if was_abandoned else Status.COMPLETED,
            self.last_seen_at if was_abandoned else now,
        )

    def tick(self, timing: Timing, now: float) -> list[Effect]:
        """What time alone does."""
        if self.is_over:
            return []
        ends_at = self.started_at + (timing.drill_s if self.is_drill else timing.session_s)
        leaves_at = self.last_seen_at + timing.abandon_s
        # What comes first counts, however late anybody looks.
        if self.status is Status.RECORDING and ends_at <= min(now, leaves_at):
            return self._end(Status.COMPLETED, ends_at)
        if self.status is not Status.ABANDONED and now >= leaves_at:
            self.status, self.abandoned_at = Status.ABANDONED, leaves_at
        if self.status is Status.ABANDONED and now >= (self.abandoned_at or now) + timing.grace_s:
            return self._end(Status.ABANDONED, self.last_seen_at)
        return []

    # --- steps and phases

    def _use(self, method: Methodology, uses: Sequence[TechniqueUse], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for use in uses:
            step = method.step(use.id)
            if step is None or step.id not in self.steps:
                continue
            self._note(step.id, use.quality)
            if RANK[use.quality] >= RANK[Quality.GOED] and step.phase in self.open_phases:
                effects += self._complete(method, step.id, now, manual=False)
        return effects

    def _note(self, step_id: str, quality: Quality) -> None:
        known = self.steps[step_id].quality
        if known is None or RANK[quality] > RANK[known]:
            self.steps[step_id].quality = quality

    def _complete(self, method: Methodology, step_id: str, now: float, *, manual: bool) -> list[Effect]:
        step = self.steps[step_id]
        if step.status is StepStatus.COMPLETED:
            return []
        step.status, step.completed_at, step.manual = StepStatus.COMPLETED, now, manual
        step.started_at = step.started_at or now
        self.phase = max(self.phase, method.technique(step_id).phase)
        effects: list[Effect] = list(self._finish_phases(method))
        moved = self._move_on(method, step_id, now)
        return [moved, *effects] if moved else effects

    def _finish_phases(self, method: Methodology) -> list[PhaseCompleted]:
        finished = []
        for phase in method.flow:
            wanted = phase.completes_with
            if phase.id in self.completed_phases or not wanted or phase.id not in self.open_phases:
                continue
            if all(self.steps[id].status is StepStatus.COMPLETED for id in wanted):
                self.completed_phases.append(phase.id)
                following = method.next_phase(phase.id)
                unlocked = self._open(method)
                finished.append(PhaseCompleted(phase.id, following.id if following else None, unlocked))
        return finished

    def _open(self, method: Methodology) -> tuple[str, ...]:
        """Open every phase whose needs are met by now; the steps that this unlocked."""
        unlocked: list[str] = []
        for phase in method.flow:
            if phase.id in self.open_phases or not all(self._is_behind(method, n) for n in phase.needs):
                continue
            self.open_phases.append(phase.id)
            for step in method.steps_of(phase.id):
                if self.steps[step.id].status is StepStatus.LOCKED:
                    self.steps[step.id].status = StepStatus.UPCOMING
                    unlocked.append(step.id)
        return tuple(unlocked)

    def _is_behind(self, method: Methodology, phase_id: int) -> bool:
        """Completed in this talk, or by this user before: a phase that is open needed it."""
        opened = [phase for phase in method.phases if phase.id in self.open_phases]
        return phase_id in self.completed_phases or any(phase_id in phase.needs for phase in opened)

    def _move_on(self, method: Methodology, finished: str, now: float) -> StepMoved | None:
        """Go to the next step, if the one that was shown is not it."""
        shown = self.step
        following = self._following(method, finished)
        if following is None or following == shown:
            return None
        status = self.steps[shown].status
        if status is StepStatus.CURRENT:
            status = self.steps[shown].status = StepStatus.UPCOMING
        self._enter(following, now)
        self.phase = method.technique(following).phase
        return StepMoved(following, shown, status)

    def _following(self, method: Methodology, finished: str) -> str | None:
        phase = method.phase(self.phase)
        while phase.id in self.completed_phases:
            following = method.next_phase(phase.id)
            if following is None or following.id not in self.open_phases:
                break
            phase = following
        left = [step.id for step in method.steps_of(phase.id) if not self._is_done(step.id)]
        if not left:
            return None
        ids = [step.id for step in method.steps]
        after = [id for id in left if ids.index(id) > ids.index(finished)]
        return left[0] if phase.ordered or not after else after[0]

    def _is_done(self, step_id: str) -> bool:
        return self.steps[step_id].status is StepStatus.COMPLETED

    def _enter(self, step_id: str, now: float) -> None:
        self.step = step_id
        step = self.steps.setdefault(step_id, Step())
        step.status = StepStatus.CURRENT
        step.started_at = step.started_at or now

    def _end(self, status: Status, at: float) -> list[Effect]:
        self.status, self.ended_at = status, at
        return [Ended(status)]

    def _scene(self, method: Methodology, turns: Sequence[Turn], language: str) -> Scene:
        return Scene(
            method=method,
            language=language,
            turns=turns,
            phase=self.talk_phase,
            step_id=self.step,
            done=frozenset(self.completed_steps),
            committed=self.committed,
            seller_count=self.seller_count,
        )
