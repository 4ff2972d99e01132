"""A sales method as data: phases, techniques, customer attitudes, and the rules that score and unlock.

Read from `catalog/methodologies/<id>.toml` by `services/method/methodologies.py`, which checks it. Nothing in
the code knows a technique by its number: what the rules need is named in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from coach_server.domain.tip import Stage
from coach_server.errors import NotFound

# Words by language code.
Words = Mapping[str, str]


class Epic(StrEnum):
    """The customer's mind during discovery, in its order (contract §5)."""

    EXPLORE = "explore"
    PROBE = "probe"
    IMPACT = "impact"
    COMMIT = "commit"


class SubScore(StrEnum):
    """The four criteria of the seed's feedback."""

    LUISTEREN = "luisteren"
    SAMENVATTEN = "samenvatten"
    OBJECTIONS = "objections"
    NEXT_STEP = "nextStep"


class TipType(StrEnum):
    """What kind of help an attitude asks for (contract §6)."""

    POSITIEF = "positief"
    WAARSCHUWING = "waarschuwing"
    OPEN = "open"
    WEDERVRAAG = "wedervraag"
    LOCK = "lock"


def say(words: Words, language: str) -> str:
    """The words in that language, else in English, else in the first one there is; empty without any."""
    code = re.split("[-_]", language.lower(), maxsplit=1)[0]
    return words.get(code) or words.get("en") or next(iter(words.values()), "")


def say_all(words: Mapping[str, tuple[str, ...]], language: str) -> tuple[str, ...]:
    """As `say`, for lists."""
    code = re.split("[-_]", language.lower(), maxsplit=1)[0]
    return words.get(code) or words.get("en") or next(iter(words.values()), ())


@dataclass(frozen=True, slots=True)
class Effect:
    """What a well used technique does to the customer: shifts on the three dynamics, each -1..1."""

    rapport: float = 0.0
    tension: float = 0.0
    commit: float = 0.0


@dataclass(frozen=True, slots=True)
class Theme:
    """A subject to talk about in a phase (Bron, Budget, …). `weighs`: its own effect when asked well."""

    id: str
    name: Words
    weighs: Effect = field(default_factory=Effect)


@dataclass(frozen=True, slots=True)
class Phase:
    """`completes_with`: the steps that complete it. `needs`: phases that must be completed before it opens.
    `ordered`: its steps open one after the other. `in_flow`: shown to clients as part of the sales flow."""

    id: int
    name: Words
    goal: Words
    explanation: Words
    color: str
    themes: tuple[Theme, ...]
    needs: tuple[int, ...]
    completes_with: tuple[str, ...]
    ordered: bool
    in_flow: bool
    weight: float
    """Its share of the overall score; the shares of a method sum up to one."""
    key_techniques: tuple[str, ...]
    """What its score is measured against."""


@dataclass(frozen=True, slots=True)
class Technique:
    """`is_step`: one of the steps that clients know; others are detail beneath the step `counts_as`.

    `cues`: patterns of `domain/cues.py` by language, evidence that the seller uses it; `marks`: groups of
    patterns by language, each group one thing that doing it well takes. `question`: only a question counts.
    `phases`: where it may be used; elsewhere it is a mistake when `forbidden` names the phase, else it does
    not count.
    """

    id: str
    phase: int
    name: Words
    goal: Words
    what: Words
    when: Words
    how: Mapping[str, tuple[str, ...]]
    examples: Mapping[str, tuple[str, ...]]
    minutes: int
    required: bool
    is_step: bool
    counts_as: str | None
    parent: str | None
    theme: str | None
    epic: Epic | None
    aliases: tuple[str, ...]
    phases: tuple[int, ...]
    forbidden: tuple[int, ...]
    question: bool
    effect: Effect
    sub_scores: tuple[SubScore, ...]
    cues: Mapping[str, tuple[str, ...]]
    marks: Mapping[str, tuple[tuple[str, ...], ...]]

    @property
    def step_id(self) -> str | None:
        """The step it counts for."""
        return self.id if self.is_step else self.counts_as


@dataclass(frozen=True, slots=True)
class Attitude:
    """How the customer answers (contract §6). `needs`: it shows only after one of these techniques.
    `answers`: the techniques that meet it best, by phase where that matters."""

    id: str
    key: str
    name: Words
    meaning: Words
    phases: tuple[int, ...]
    needs: tuple[str, ...]
    answers: tuple[str, ...]
    answers_by_phase: Mapping[int, tuple[str, ...]]
    tip_type: TipType
    cues: Mapping[str, tuple[str, ...]]

    def best_answers(self, phase: int) -> tuple[str, ...]:
        return self.answers_by_phase.get(phase, self.answers)


@dataclass(frozen=True, slots=True)
class MissedMoment:
    """A kind of moment that was let go. `rule` names the rule of `domain/practice/missed.py` that finds it,
    `technique` what would have been right; `better`: questions that would have been better, by language."""

    id: str
    rule: str
    technique: str
    name: Words
    why: Words
    better: Mapping[str, tuple[str, ...]]
    weight: float


@dataclass(frozen=True, slots=True)
class Scoring:
    """`turn_points`: points of one turn by quality (0..10); `use_points`: of the best use of a technique in
    the post-call analysis (0..10); `bonus`: for a technique that meets the customer's last attitude.
    `model_share`: how much of a blended score is the model's judgement (0..1). `min_turns`: seller turns
    below which nothing is scored. `weights`: of parts of a metric, by metric and part."""

    turn_points: Mapping[str, float]
    use_points: Mapping[str, float]
    bonus: float
    model_share: float
    min_turns: int
    min_customer_turns: int
    weights: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Unlock:
    """`step_score`: a step is completed by a score of at least this (0..100). `manual`: `step:complete`
    counts too. `stale_days`: a completed step not practised for so long grows stale."""

    step_score: int
    manual: bool
    stale_days: int


@dataclass(frozen=True, slots=True)
class HintRule:
    """`rule` names the rule of `domain/practice/hints.py`; `text`: what is shown, with `{technique}`,
    `{step}`, `{question}`; `kind`: tip or warning."""

    id: str
    rule: str
    kind: str
    text: Words


@dataclass(frozen=True)
class Methodology:
    """One method. `stages`: the phase of each stage of a live call."""

    id: str
    version: int
    name: Words
    description: Words
    phases: tuple[Phase, ...]
    techniques: tuple[Technique, ...]
    attitudes: tuple[Attitude, ...]
    attitude_priority: tuple[str, ...]
    attitude_fallback: tuple[str, ...]
    commitment: tuple[str, ...]
    """Techniques of which one must have been answered with a yes before `commitment_before`."""
    commitment_before: int | None
    missed: tuple[MissedMoment, ...]
    hints: tuple[HintRule, ...]
    scoring: Scoring
    unlock: Unlock
    stages: Mapping[Stage, int]
    source_hash: str = ""
    """Names the exact bytes of the file."""

    @cached_property
    def _by_id(self) -> dict[str, Technique]:
        known = {technique.id: technique for technique in self.techniques}
        for technique in self.techniques:
            for alias in technique.aliases:
                known.setdefault(alias, technique)
        return known

    @cached_property
    def steps(self) -> tuple[Technique, ...]:
        """What clients know as steps, in their order."""
        return tuple(technique for technique in self.techniques if technique.is_step)

    @cached_property
    def flow(self) -> tuple[Phase, ...]:
        """The phases of the sales flow."""
        return tuple(phase for phase in self.phases if phase.in_flow)

    @property
    def stamp(self) -> str:
        """Id and version, as stored with every score."""
        return f"{self.id}@{self.version}"

    def find(self, technique_id: str) -> Technique | None:
        """By id or alias; None for anything that is not in the catalog."""
        return self._by_id.get(technique_id)

    def technique(self, technique_id: str) -> Technique:
        """Raises NotFound."""
        found = self.find(technique_id)
        if found is None:
            raise NotFound("There is no such technique.", field="stepId")
        return found

    def step(self, technique_id: str) -> Technique | None:
        """The step a technique counts for: itself, or the one above it."""
        found = self.find(technique_id)
        if found is None or found.is_step:
            return found
        return self.find(found.counts_as) if found.counts_as else None

    def phase(self, phase_id: int) -> Phase:
        """Raises NotFound."""
        for phase in self.phases:
            if phase.id == phase_id:
                return phase
        raise NotFound("There is no such phase.", field="phaseId")

    def steps_of(self, phase_id: int) -> tuple[Technique, ...]:
        return tuple(step for step in self.steps if step.phase == phase_id)

    def attitude(self, attitude_id: str) -> Attitude | None:
        """By id (`H7`) or key (`bezwaar`)."""
        return next((a for a in self.attitudes if attitude_id in (a.id, a.key)), None)

    def next_step(self, step_id: str) -> Technique | None:
        """The step after this one in the flow; None after the last."""
        ids = [step.id for step in self.steps]
        at = ids.index(step_id) + 1 if step_id in ids else 0
        return self.steps[at] if at < len(self.steps) else None

    def next_phase(self, phase_id: int) -> Phase | None:
        later = [phase for phase in self.flow if phase.id > phase_id]
        return later[0] if later else None

    def answers(self, attitude_id: str | None, phase: int) -> Iterator[Technique]:
        """The techniques that meet an attitude best in this phase, the best first."""
        attitude = self.attitude(attitude_id) if attitude_id else None
        for technique_id in attitude.best_answers(phase) if attitude else ():
            if (found := self.find(technique_id)) is not None and phase not in found.forbidden:
                yield found

    def meets(self, technique_id: str, attitude_id: str | None, phase: int) -> bool:
        """Whether a technique is, or is beneath, one that meets the attitude."""
        found = self.find(technique_id)
        if found is None:
            return False
        family = {found.id, found.parent, found.counts_as, *found.aliases} - {None}
        return any({answer.id, *answer.aliases} & family for answer in self.answers(attitude_id, phase))

    def epic_of(self, technique_id: str) -> Epic | None:
        found = self.find(technique_id)
        return found.epic if found else None


def sort_key(technique_id: str) -> tuple[tuple[int, int, str], ...]:
    """Orders `2.1.10` after `2.1.9`, and parts that are words (`4.ABC`) after numbers."""
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in technique_id.split("."))
