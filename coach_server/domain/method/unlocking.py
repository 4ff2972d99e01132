"""Which phases and steps of a method are open, given the steps that are done. Nothing about scores.

    a phase opens           when the phases it needs are completed
    a phase is completed    when it is open and the steps it completes with are done
    a step opens            with its phase; in an ordered phase after the steps before it, or once done

More steps done never close anything.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from coach_server.domain.method.methodology import Methodology, Phase, Technique


def ordered_steps(method: Methodology, phase_id: int | None = None) -> tuple[Technique, ...]:
    """The steps of the flow, or of one phase, in the order in which they are walked through."""
    phases = [phase.id for phase in method.flow if phase_id in (None, phase.id)]
    return tuple(step for phase in phases for step in method.steps_of(phase))


@dataclass(frozen=True, slots=True)
class Flow:
    """A method with the steps that are `done`. Build it with `of`. The flow must have a step."""

    method: Methodology
    steps: tuple[Technique, ...]
    done: Set[str]
    open: Set[int]
    completed: Set[int]

    @classmethod
    def of(cls, method: Methodology, done: Set[str]) -> Flow:
        opened: set[int] = set()
        completed: set[int] = set()
        # One round a phase is enough for any order in which they stand in the file.
        for _ in method.phases:
            opened |= {phase.id for phase in method.phases if completed.issuperset(phase.needs)}
            completed |= {p.id for p in method.phases if p.id in opened and not _lacking(p, done, method)}
        return cls(method, ordered_steps(method), done, opened, completed)

    def is_open(self, step: Technique) -> bool:
        return step.phase in self.open and not self._earlier(step)

    @property
    def next_step(self) -> Technique | None:
        """The first step to do: of the first phase that is not completed, else the first one left at all."""
        todo = [step for step in self.steps if step.id not in self.done and self.is_open(step)]
        return next((step for step in todo if step.phase not in self.completed), next(iter(todo), None))

    @property
    def current(self) -> Technique:
        """The next step; the last one when nothing is left to do."""
        return self.next_step or self.steps[-1]

    def before_phase(self, phase: Phase) -> list[str]:
        """The steps missing in the phases it needs, and in those that they need."""
        lacking: list[str] = []
        todo, seen = [*phase.needs], {phase.id}
        while todo:
            needed = self.method.phase(todo.pop())
            if needed.id not in seen:
                seen.add(needed.id)
                lacking += _lacking(needed, self.done, self.method)
                todo += needed.needs
        return lacking

    def before_step(self, step: Technique) -> list[str]:
        """The steps missing before this one may be started; empty when it is open."""
        return [*self.before_phase(self.method.phase(step.phase)), *self._earlier(step)]

    def _earlier(self, step: Technique) -> list[str]:
        """The steps that come before this one in an ordered phase and are not done."""
        if step.id in self.done or not self.method.phase(step.phase).ordered:
            return []
        steps = self.method.steps_of(step.phase)
        return [one.id for one in steps[: steps.index(step)] if one.id not in self.done]


def _lacking(phase: Phase, done: Set[str], method: Methodology) -> list[str]:
    """The steps that complete a phase and are not done; all its steps count where the file names none."""
    named = [step.id for wanted in phase.completes_with if (step := method.step(wanted)) is not None]
    return [s for s in named or [step.id for step in method.steps_of(phase.id)] if s not in done]
