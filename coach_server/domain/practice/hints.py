"""When a hint helps during a practice talk, and which (issue 3: a missed required step, a phase skipped too
early, an attitude that asks for another technique).

The rules stand here by name; the method file says which of them it uses, with what words. At most one hint at
a time, never two within two of the seller's turns, and none more than twice for the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from coach_server.domain.method.methodology import HintRule, Methodology, Technique, say, say_all
from coach_server.domain.method.turns import RANK, Quality, Turn, best, seller_turns

QUIET_TURNS = 2
MOST_OF_A_KIND = 2
LOST_TURNS = 5
HEEDED = (Quality.PERFECT, Quality.GOED)


@dataclass(frozen=True, slots=True)
class Hint:
    """What to show: for which step, in whose words, `kind` tip or warning. `id` names the rule and
    subject."""

    id: str
    step_id: str
    text: str
    kind: str


@dataclass(slots=True)
class HintMemory:
    """What was hinted in this session. `seller_turn`: how many turns the seller had at the last hint."""

    given: dict[str, int] = field(default_factory=dict)
    seller_turn: int = -QUIET_TURNS - 1


@dataclass(frozen=True, slots=True)
class Scene:
    """What a rule looks at. `turns`: the last ones, oldest first, the newest being judged. `done`: completed
    steps. `seller_count`: turns the seller had in the whole session."""

    method: Methodology
    language: str
    turns: Sequence[Turn]
    phase: int
    step_id: str
    done: frozenset[str]
    committed: bool
    seller_count: int


@dataclass(frozen=True, slots=True)
class _Found:
    technique: Technique
    step_id: str


def find_hint(scene: Scene, memory: HintMemory) -> Hint | None:
    """The first hint in the order of the method file that helps now; remembers that it was given."""
    if not scene.turns or scene.seller_count - memory.seller_turn <= QUIET_TURNS:
        return None
    for rule in scene.method.hints:
        found = RULES[rule.rule](scene)
        if found is None:
            continue
        id = f"{rule.id}:{found.technique.id}"
        if memory.given.get(id, 0) >= MOST_OF_A_KIND:
            continue
        memory.given[id] = memory.given.get(id, 0) + 1
        memory.seller_turn = scene.seller_count
        return Hint(id, found.step_id, _words(rule, found, scene, memory.given[id]), rule.kind)
    return None


def _words(rule: HintRule, found: _Found, scene: Scene, time: int) -> str:
    step = scene.method.step(found.technique.id) or found.technique
    examples = say_all(found.technique.examples, scene.language) or say_all(step.examples, scene.language)
    question = examples[(time - 1) % len(examples)] if examples else ""
    return say(rule.text, scene.language).format(
        technique=say(found.technique.name, scene.language),
        step=say(step.name, scene.language),
        question=question,
    )


# --- the rules


def phase_too_early(scene: Scene) -> _Found | None:
    """The seller recommends or closes before the customer said yes to a summary."""
    method, turn = scene.method, scene.turns[-1]
    early = method.commitment_before
    if early is None or scene.committed or not turn.is_seller:
        return None
    used = [method.find(use.id) for use in turn.uses if use.quality is not Quality.GEMIST or use.quote]
    if not any(technique and technique.phase >= early for technique in used):
        return None
    return _about(scene, method.commitment[0]) if method.commitment else None


def attitude_asks(scene: Scene) -> _Found | None:
    """The customer's attitude asked for a technique and the seller's answer was another, or the customer
    shows the same resistance a second time."""
    method, turn = scene.method, scene.turns[-1]
    if turn.is_seller:
        attitude = _asking(scene, scene.turns[:-1])
        used = best(turn.uses)
        if attitude is None or (used and method.meets(used.id, attitude, scene.phase) and _heeded(turn)):
            return None
    else:
        attitude = turn.attitude if _is_resistance(scene, turn.attitude) else None
        before = [t.attitude for t in scene.turns[:-1] if not t.is_seller]
        if attitude is None or not before or before[-1] != attitude:
            return None
    answer = next(method.answers(attitude, scene.phase), None)
    return _about(scene, answer.id) if answer else None


def missed_required_step(scene: Scene) -> _Found | None:
    """The seller went past a required step of this phase."""
    turn = scene.turns[-1]
    if not turn.is_seller or not _heeded(turn):
        return None
    used = best(turn.uses)
    step = scene.method.step(used.id) if used else None
    if step is None:
        return None
    for earlier in scene.method.steps:
        if earlier.id == step.id:
            return None
        if earlier.required and earlier.phase <= step.phase and earlier.id not in scene.done:
            return _about(scene, earlier.id)
    return None


def stay_on_step(scene: Scene) -> _Found | None:
    """For some turns nothing of the method was heard: the seller may be lost."""
    sellers = seller_turns(scene.turns)
    if not scene.turns[-1].is_seller or len(sellers) < LOST_TURNS:
        return None
    if any(_heeded(turn) for turn in sellers[-LOST_TURNS:]):
        return None
    return _about(scene, scene.step_id)


RULES: Mapping[str, Callable[[Scene], _Found | None]] = {
    "phase_too_early": phase_too_early,
    "attitude_asks": attitude_asks,
    "missed_required_step": missed_required_step,
    "stay_on_step": stay_on_step,
}


def _heeded(turn: Turn) -> bool:
    used = best(turn.uses)
    return used is not None and RANK[used.quality] >= RANK[Quality.GOED]


def _asking(scene: Scene, before: Sequence[Turn]) -> str | None:
    """The attitude of the customer's turn just before, when it asks for something."""
    if not before or before[-1].is_seller:
        return None
    attitude = before[-1].attitude
    return attitude if attitude and attitude != scene.method.attitudes[0].id else None


def _is_resistance(scene: Scene, attitude_id: str | None) -> bool:
    attitude = scene.method.attitude(attitude_id) if attitude_id else None
    return attitude is not None and bool(attitude.needs)


def _about(scene: Scene, technique_id: str) -> _Found | None:
    technique = scene.method.find(technique_id)
    if technique is None:
        return None
    step = scene.method.step(technique_id)
    return _Found(technique, step.id if step else scene.step_id)
