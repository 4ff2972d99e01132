"""A playbook: the lines a sales team wants said word for word, with when each of them fits.

Placeholders are written `[Agent Name]`. The rule for one that nobody knows:
    1. a line whose placeholders are all known is filled in;
    2. otherwise its `neutral` variant is used, when that one can be filled;
    3. otherwise the line gives way to another line of the playbook;
    4. only when no line is left, the gap is shown as a cue in words, `(agent name)`, never as a bracket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from coach_server.domain.detection import Objection, Signal
from coach_server.domain.facts import VALUE_CHARS, plain, shorten
from coach_server.domain.stage import rank
from coach_server.domain.tip import SCRIPT_CHARS, Stage

_PLACEHOLDER = re.compile(r"\[([^\[\]]{1,40})\]")
_GREETING_NAMES = frozenset({"customer name", "agent name"})


@dataclass(frozen=True, slots=True)
class Conditions:
    """When a line fits. Empty means no condition. `objections`, `signals`: one of them was heard.
    `known`, `unknown`: facts that must, or must not, be told already. `not_before`: the earliest stage of the
    call. `after_refusal`: the line is for after a clear no, and such lines are for nothing else."""

    objections: frozenset[Objection] = frozenset()
    signals: frozenset[Signal] = frozenset()
    known: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    not_before: Stage | None = None
    after_refusal: bool = False


@dataclass(frozen=True, slots=True)
class PlaybookLine:
    """`label`: `Minimal`, `Explanative` or `Contextual` puts the line in that option; any other label is only
    a name. `neutral`: the same line without the placeholders. `heading`: at most two words."""

    id: str
    stage: Stage
    text: str
    label: str | None = None
    neutral: str | None = None
    heading: str | None = None
    conditions: Conditions = field(default_factory=Conditions)


@dataclass(frozen=True, slots=True)
class Playbook:
    id: str
    title: str
    language: str
    lines: tuple[PlaybookLine, ...]

    def line(self, line_id: str) -> PlaybookLine | None:
        return next((line for line in self.lines if line.id == line_id), None)


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides which line fits: the stage the tip is for, and what is known and was heard."""

    stage: Stage
    objections: frozenset[Objection] = frozenset()
    signals: frozenset[Signal] = frozenset()
    facts: frozenset[str] = frozenset()
    refused: bool = False


def placeholders_of(text: str) -> tuple[str, ...]:
    """The names between brackets, in order."""
    return tuple(_PLACEHOLDER.findall(text))


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with its placeholders filled in. `values` may name them any way: `Agent Name`, `agent_name`,
    `agentName`. An unknown one becomes a cue in words: `(agent name)`."""
    known = _normalised(values)
    filled = _PLACEHOLDER.sub(lambda m: known.get(_key(m[1]), f"({_key(m[1])})"), text)
    return filled.replace("[", "").replace("]", "")


def missing(text: str, values: Mapping[str, str]) -> tuple[str, ...]:
    """The placeholders of `text` that `values` cannot fill."""
    known = _normalised(values)
    return tuple(name for name in placeholders_of(text) if _key(name) not in known)


def spoken(line: PlaybookLine, values: Mapping[str, str]) -> str | None:
    """The line as the agent should say it, its neutral variant where a placeholder is unknown, or None."""
    for text in (line.text, line.neutral):
        if text is not None and not missing(text, values):
            return shorten(fill(text, values), SCRIPT_CHARS)
    return None


def candidates(playbook: Playbook, situation: Situation) -> list[PlaybookLine]:
    """The lines whose conditions hold, best first: those of the wanted stage, the most specific ones first,
    then the nearest stages; in the playbook's own order where nothing else decides. Lines of a stage that the
    call has left behind come last; after CONVERSION they do not come at all, nor after a clear no."""
    fitting = [line for line in playbook.lines if _fits(line, situation)]
    return sorted(fitting, key=lambda line: _distance(line, situation))


def _fits(line: PlaybookLine, situation: Situation) -> bool:
    asked = line.conditions
    if situation.refused != asked.after_refusal:
        return False
    if situation.stage is Stage.CONVERSION and line.stage is not Stage.CONVERSION and not situation.refused:
        return False
    if asked.not_before is not None and rank(situation.stage) < rank(asked.not_before):
        return False
    if asked.objections and not asked.objections & situation.objections:
        return False
    if asked.signals and not asked.signals & situation.signals:
        return False
    return asked.known <= situation.facts and not asked.unknown & situation.facts


def _distance(line: PlaybookLine, situation: Situation) -> tuple[int, int, int]:
    steps = rank(line.stage) - rank(situation.stage)
    matched = 2 * len(line.conditions.objections & situation.objections)
    matched += 2 * len(line.conditions.signals & situation.signals)
    matched += len(line.conditions.known) + len(line.conditions.unknown)
    return (abs(steps), int(steps < 0), -matched)


def _key(name: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.strip("[] ")).replace("_", " ").replace("-", " ")
    return " ".join(words.casefold().split())


def _normalised(values: Mapping[str, str]) -> dict[str, str]:
    known = {}
    for name, value in values.items():
        said = shorten(plain(value), VALUE_CHARS)
        if said:
            key = _key(name)
            known[key] = first_name(said) if key in _GREETING_NAMES else said
    return known


def first_name(name: str) -> str:
    """How somebody is spoken to: `Anna` for `Anna de Vries`, and `mevrouw Van Dam` as it is."""
    first = name.split(" ", 1)[0]
    return first if first[:1].isupper() and not first.endswith(".") and len(first) > 2 else name
