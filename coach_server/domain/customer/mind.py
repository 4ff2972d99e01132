"""The simulated customer as a pure machine: what the seller does goes in, moods and an attitude come out.

    hear(uses, phase, themes)   rapport, tension and commit move; then the clock, then the EPIC step:
                                  explore -> probe    a probing technique
                                  explore, probe -> impact    an impact technique
                                  impact -> commit    a committing technique, or one of a later phase
    next_attitude()             one of the method's attitudes, drawn by chances; those that need a technique
                                first (a trial close) may come in the three answers after it, and only in
                                their phases

The EPIC step is the customer's mind; the sales phase is where the seller stands. They are two things. All
chance comes from `seed` and the number of the turn, so a session can be replayed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from coach_server.domain.customer import dynamics
from coach_server.domain.customer.dynamics import TRIGGER_ANSWERS, Dynamics, clamped
from coach_server.domain.customer.persona import (
    BehaviourStyle,
    BuyingClock,
    Difficulty,
    Experience,
    Persona,
    Scenario,
)
from coach_server.domain.method.methodology import Attitude, Epic, Methodology, Technique
from coach_server.domain.method.turns import Quality, TechniqueUse

_ORDER = list(Epic)


class Tone(StrEnum):
    """How warmly the customer speaks."""

    RESERVED = "reserved"
    NEUTRAL = "neutral"
    WARM = "warm"


@dataclass(slots=True)
class Memory:
    """What the customer said already. `told`: how many lines of each topic; `used`: keys of lines that may
    not come again; `dodged`: topics he evaded once; `pending`: the objection that waits for an answer,
    `pending_as` the attitude it showed, `pushed` how often it was answered badly; `evaded`: his last answer
    told nothing; `lost`: turns in a row that led nowhere; `spoken`: his turns; `met`: good answers in a
    drill; `agreed`: he said yes to a summary; `won`: he said yes to the offer; `over`: he ended the talk."""

    told: dict[str, int] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    dodged: set[str] = field(default_factory=set)
    pending: str | None = None
    pending_as: str | None = None
    pushed: int = 0
    evaded: bool = False
    lost: int = 0
    spoken: int = 0
    met: int = 0
    agreed: bool = False
    won: bool = False
    over: bool = False

    def copy(self) -> Memory:
        return Memory.from_dict(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "used": sorted(self.used), "dodged": sorted(self.dodged)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Memory:
        known = {name: state[name] for name in cls.__dataclass_fields__ if name in state}
        made = cls(**known)
        made.told, made.used, made.dodged = dict(made.told), set(made.used), set(made.dodged)
        return made


@dataclass(slots=True)
class Customer:
    """Build it with `begin`; keep it with `to_dict` and `from_dict`."""

    persona: Persona
    method: Methodology
    seed: int
    dynamics: Dynamics
    clock: BuyingClock
    phase: int
    epic: Epic = Epic.EXPLORE
    turn: int = 0
    attitude: str | None = None
    triggered: dict[str, int] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)

    def hear(self, uses: Sequence[TechniqueUse], phase: int, themes: Sequence[str] = ()) -> None:
        """One turn of the seller: the techniques in it (ids of the method; others do not count), the sales
        phase it was said in, and the themes it asked about."""
        known = [use for use in uses if self.method.find(use.id) is not None]
        self.turn += 1
        self.phase = phase
        self.dynamics = self.dynamics.moved(dynamics.effects(known, themes, self.method))
        self.clock = dynamics.next_clock(self.clock, self.dynamics)
        self._run_down()
        for use in known:
            self._take(use)

    def chances(self) -> dict[str, float]:
        """Attitude id -> probability of the next answer; they sum to one."""
        allowed = [a for a in self.method.attitudes if self._may(a)] or [self._fallback()]
        return dynamics.chances(allowed, self.dynamics, self.persona, self.triggered)

    def next_attitude(self, rng: random.Random | None = None) -> str:
        """Draws the attitude of the next answer. Without `rng` by this turn's own."""
        drawn = self.chances()
        chosen = (rng or self.random("attitude")).choices(list(drawn), list(drawn.values()))[0]
        self.attitude = chosen
        return chosen

    def random(self, purpose: str = "reply") -> random.Random:
        """The source of chance of this turn; the same again after a replay."""
        return random.Random(f"{self.seed}:{self.turn}:{purpose}")

    @property
    def tone(self) -> Tone:
        if self.dynamics.rapport < 0.35:
            return Tone.RESERVED
        return Tone.WARM if self.dynamics.rapport > 0.65 else Tone.NEUTRAL

    def _run_down(self) -> None:
        self.triggered = {a: left - 1 for a, left in self.triggered.items() if left > 1}

    def _take(self, use: TechniqueUse) -> None:
        technique = self.method.technique(use.id)
        names = {technique.id, technique.parent, technique.counts_as, *technique.aliases} - {None}
        for attitude in self.method.attitudes:
            if names & set(attitude.needs):
                self.triggered[attitude.id] = TRIGGER_ANSWERS
        if use.quality is not Quality.GEMIST:
            self.epic = self._moved(technique)

    def _moved(self, technique: Technique) -> Epic:
        at = _ORDER.index(self.epic)
        if technique.epic in (Epic.PROBE, Epic.IMPACT):
            return _ORDER[max(at, _ORDER.index(technique.epic))]
        later = technique.epic is None and technique.phase > self._discovery
        if self.epic is Epic.IMPACT and (technique.epic is Epic.COMMIT or later):
            return Epic.COMMIT
        return self.epic

    @property
    def _discovery(self) -> int:
        """The phase in which the EPIC techniques stand."""
        return max((t.phase for t in self.method.techniques if t.epic is not None), default=0)

    def _may(self, attitude: Attitude) -> bool:
        return self.phase in attitude.phases and (not attitude.needs or attitude.id in self.triggered)

    def _fallback(self) -> Attitude:
        wanted = (*self.method.attitude_fallback, self.method.attitudes[0].id)
        return next(found for name in wanted if (found := self.method.attitude(name)) is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON. The method is not part of it, only its stamp."""
        return {
            "method": self.method.stamp,
            "persona": asdict(self.persona),
            "seed": self.seed,
            "dynamics": asdict(self.dynamics),
            "clock": self.clock,
            "phase": self.phase,
            "epic": self.epic,
            "turn": self.turn,
            "attitude": self.attitude,
            "triggered": dict(self.triggered),
            "memory": self.memory.to_dict(),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], method: Methodology) -> Customer:
        """A state that `to_dict` wrote; attitudes that the method no longer has are forgotten."""
        triggered = {a: left for a, left in state["triggered"].items() if method.attitude(a) is not None}
        values = {name: clamped(float(state["dynamics"][name])) for name in ("rapport", "tension", "commit")}
        attitude = state["attitude"]
        return cls(
            persona_from(state["persona"]),
            method,
            int(state["seed"]),
            Dynamics(**values),
            BuyingClock(state["clock"]),
            int(state["phase"]),
            Epic(state["epic"]),
            int(state["turn"]),
            attitude if attitude and method.attitude(attitude) else None,
            triggered,
            Memory.from_dict(state["memory"]),
        )


def persona_from(state: Mapping[str, str]) -> Persona:
    """Raises ValueError for a value that is on none of the axes."""
    return Persona(
        BehaviourStyle(state["style"]),
        BuyingClock(state["clock"]),
        Experience(state["experience"]),
        Difficulty(state["difficulty"]),
    )


def begin(persona: Persona | Scenario, method: Methodology, seed: int) -> Customer:
    """A new customer at the start of a talk, in the first phase of the sales flow."""
    axes = persona.persona if isinstance(persona, Scenario) else persona
    first = next(iter(method.flow or method.phases)).id
    return Customer(axes, method, seed, dynamics.start(axes), axes.clock, first)
