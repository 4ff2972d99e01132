"""The numbers of the simulated customer (contract §7): three dynamics, and how likely each attitude is.

The earlier engine applied negative weights to (1 - value), so that warmth made refusals likelier. Here every
attitude's weight is its base times one factor for each dynamic, and all that resist share the same, falling
factors: whatever the normalisation does, a rise of a dynamic cannot make a resisting attitude likelier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coach_server.domain.customer.persona import BehaviourStyle, BuyingClock, Difficulty, Experience, Persona
from coach_server.domain.method.methodology import Attitude, Effect, Epic, Methodology, TipType
from coach_server.domain.method.turns import Quality, TechniqueUse, best

NONE = Effect()
BY_QUALITY: Mapping[Quality | None, Effect] = {
    Quality.PERFECT: Effect(0.07, 0.05, 0.03),
    Quality.GOED: Effect(0.05, 0.03, 0.02),
    Quality.BIJNA: Effect(0.02, 0.01, 0.01),
    Quality.GEMIST: Effect(-0.03, 0.0, 0.0),
    None: Effect(-0.05, -0.02, -0.01),
}
BY_EPIC: Mapping[Epic | None, Effect] = {
    Epic.EXPLORE: Effect(0.02, 0.0, 0.0),
    Epic.PROBE: Effect(0.01, 0.03, 0.0),
    Epic.IMPACT: Effect(0.0, 0.05, 0.02),
    Epic.COMMIT: Effect(0.0, 0.0, 0.06),
    None: NONE,
}
GOOD = (Quality.PERFECT, Quality.GOED)
EARNS = (*GOOD, Quality.BIJNA)

_STYLE_RAPPORT = {
    BehaviourStyle.PROMOVEREND: 0.10,
    BehaviourStyle.FACILITEREND: 0.10,
    BehaviourStyle.CONTROLEREND: -0.05,
    BehaviourStyle.ANALYSEREND: -0.05,
}
_HARDNESS = {
    Difficulty.ONBEWUSTE_ONKUNDE: -0.05,
    Difficulty.BEWUSTE_ONKUNDE: 0.0,
    Difficulty.BEWUSTE_KUNDE: 0.05,
    Difficulty.ONBEWUSTE_KUNDE: 0.10,
}
_CLOCK_TENSION = dict(zip(BuyingClock, (0.10, 0.30, 0.40, 0.60, 0.75), strict=True))
_CLOCK_FACTOR = dict(zip(BuyingClock, (0.30, 0.45, 0.60, 0.75, 0.90), strict=True))

# The base weight of an attitude by its key; of one that another method calls otherwise, by its kind of tip.
_BASE = {
    "positief": 0.40,
    "negatief": 0.25,
    "vaag": 0.20,
    "ontwijkend": 0.15,
    "vraag": 0.15,
    "twijfel": 0.10,
    "bezwaar": 0.08,
    "uitstel": 0.08,
    "angst": 0.05,
}
_BASE_OF_KIND = {
    TipType.POSITIEF: 0.40,
    TipType.WAARSCHUWING: 0.25,
    TipType.OPEN: 0.18,
    TipType.WEDERVRAAG: 0.15,
    TipType.LOCK: 0.08,
}
# How steeply a weight follows rapport, tension and commit: 1 + slope * (value - 0.5).
_WELCOMES = (0.8, 0.5, 1.0)
_ASKS = (0.5, 0.4, 0.2)
_RESISTS = (-1.0, -0.6, -1.2)
# A trigger is answered with resistance at once, or hardly at all: by answers left, of `TRIGGER_ANSWERS`.
TRIGGER_ANSWERS = 3
_FRESH = {3: 12.0, 2: 4.0, 1: 1.0}


@dataclass(frozen=True, slots=True)
class Dynamics:
    """Each 0..1: trust in the seller, the pull of a change, the readiness to decide."""

    rapport: float
    tension: float
    commit: float

    def moved(self, effects: Iterable[Effect]) -> Dynamics:
        rapport, tension, commit = self.rapport, self.tension, self.commit
        for effect in effects:
            rapport += effect.rapport
            tension += effect.tension
            commit += effect.commit
        return Dynamics(clamped(rapport), clamped(tension), clamped(commit))


def clamped(value: float) -> float:
    return round(min(1.0, max(0.0, value)), 6)


def start(persona: Persona) -> Dynamics:
    hard = _HARDNESS[persona.difficulty]
    rapport = clamped(0.35 + _STYLE_RAPPORT[persona.style] - hard)
    pushes = 0.05 if persona.style is BehaviourStyle.CONTROLEREND else 0.0
    tension = clamped(_CLOCK_TENSION[persona.clock] + pushes + hard)
    ready = (0.15 + 0.70 * tension + 0.15 * rapport) * _CLOCK_FACTOR[persona.clock]
    return Dynamics(rapport, tension, clamped(ready))


def effects(uses: Sequence[TechniqueUse], themes: Iterable[str], method: Methodology) -> list[Effect]:
    """What one seller turn does. A missed technique earns its loss only; none at all is worse."""
    top = best(uses)
    used = [found for use in uses if use.quality in EARNS and (found := method.find(use.id)) is not None]
    made = [BY_QUALITY[top.quality if top else None]]
    made += [BY_EPIC[epic] for epic in dict.fromkeys(technique.epic for technique in used)]
    if top is not None and top.quality in GOOD:
        made += _by_themes({*themes, *(technique.theme for technique in used)}, method)
    return made


def _by_themes(themes: set[str | None], method: Methodology) -> list[Effect]:
    return [theme.weighs for phase in method.phases for theme in phase.themes if theme.id in themes]


def next_clock(clock: BuyingClock, now: Dynamics) -> BuyingClock:
    """One hour on when the dynamics ask for it; the clock never goes back."""
    due = {
        BuyingClock.SITUATION_AS_IS: now.tension >= 0.25,
        BuyingClock.FIELD_OF_TENSION: now.tension >= 0.45,
        BuyingClock.MARKET_RESEARCH: now.commit >= 0.65,
        BuyingClock.HESITATION: now.commit >= 0.80,
    }
    hours = list(BuyingClock)
    return hours[hours.index(clock) + 1] if due.get(clock, False) else clock


def chances(
    attitudes: Sequence[Attitude], now: Dynamics, persona: Persona, fresh: Mapping[str, int]
) -> dict[str, float]:
    """Attitude id -> probability; they sum to one. `fresh`: answers left of those a technique triggered."""
    weights = {a.id: _weight(a, now, persona) * _FRESH.get(fresh.get(a.id, 0), 1.0) for a in attitudes}
    total = sum(weights.values())
    return {attitude: weight / total for attitude, weight in weights.items()}


def _weight(attitude: Attitude, now: Dynamics, persona: Persona) -> float:
    weight = _BASE.get(attitude.key, _BASE_OF_KIND[attitude.tip_type])
    for value, slope in zip((now.rapport, now.tension, now.commit), _slopes(attitude), strict=True):
        weight *= max(0.05, 1 + slope * (value - 0.5))
    return weight * _of_persona(attitude, persona)


def _slopes(attitude: Attitude) -> tuple[float, float, float]:
    match attitude.tip_type:
        case TipType.POSITIEF:
            return _WELCOMES
        case TipType.WEDERVRAAG:
            return _ASKS
        case _:
            return _RESISTS


def _of_persona(attitude: Attitude, persona: Persona) -> float:
    """Hard customers resist more, the experienced ask more, the cautious doubt more."""
    match attitude.tip_type:
        case TipType.POSITIEF:
            return 1 - 2 * _HARDNESS[persona.difficulty]
        case TipType.WEDERVRAAG:
            return {Experience.GEEN: 1.2, Experience.ENIGE: 1.0, Experience.VEEL: 1.3}[persona.experience]
        case TipType.LOCK:
            return 1 + 2 * _HARDNESS[persona.difficulty] + 0.5 * (0.5 - persona.style.position.risk)
        case _:
            return 1 + 2 * _HARDNESS[persona.difficulty]
