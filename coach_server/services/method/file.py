"""One method file (`catalog/methodologies/<id>.toml`) read strictly into a `Methodology`.

Shapes only: which ids, rules and weights fit together is checked in `methodologies.py`. Every mistake names
the file, the line and the field.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coach_server.domain.method.methodology import (
    Attitude,
    Effect,
    Epic,
    HintRule,
    Methodology,
    MissedMoment,
    Phase,
    Scoring,
    SubScore,
    Technique,
    Theme,
    TipType,
    Unlock,
)
from coach_server.domain.method.turns import Quality
from coach_server.domain.tip import Stage
from coach_server.services.catalog_file import CatalogFile
from coach_server.services.method.entry import LANGUAGES, Entry, Section

KINDS = ("phase", "technique", "attitude", "missed", "hint")
MOST_MINUTES = 60
MOST_DAYS = 3650

_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
_HEADING = re.compile(rf"^[ \t]*\[\[({'|'.join(KINDS)})\]\]", re.MULTILINE)
_TOP = (
    "id",
    "version",
    *("attitude_priority", "attitude_fallback", "commitment", "commitment_before"),
    *("scoring", "unlock", "stages"),
    *KINDS,
    *LANGUAGES,
)


class MethodFile:
    """A method file and its parsed tables: makes the `Methodology`, and finds any entry again."""

    def __init__(self, path: Path) -> None:
        file = CatalogFile.read(path)
        self.top = Entry(Section(file.path, file.source, file.data, 0, len(file.source)), file.data)
        self._places = [(m.group(1), m.start()) for m in _HEADING.finditer(file.source)]

    def entry(self, kind: str, number: int) -> Entry:
        """The entry `[[kind]]` with this number, counted from one."""
        data = self.top.data[kind][number - 1]
        label = data.get("id", number)
        return Entry(self._section(kind, number), data, f"{kind}[{label}]")

    def entries(self, kind: str) -> list[Entry]:
        return [self.entry(kind, number) for number, _ in self.top.entries(kind)]

    def _section(self, kind: str, number: int) -> Section:
        whole = self.top.section
        at = [i for i, (name, _) in enumerate(self._places) if name == kind][number - 1 : number]
        if not at:
            return whole
        following = self._places[at[0] + 1 : at[0] + 2]
        ends = following[0][1] if following else whole.ends
        return Section(whole.path, whole.source, whole.data, self._places[at[0]][1], ends)

    def methodology(self) -> Methodology:
        """Raises ConfigError."""
        top = self.top
        top.only(*_TOP)
        top.languages("name", "description")
        return Methodology(
            id=top.id(),
            version=top.whole("version", 1, 1_000_000),
            name=top.spoken("name"),
            description=top.spoken("description"),
            phases=tuple(map(_phase, self.entries("phase"))),
            techniques=tuple(map(_technique, self.entries("technique"))),
            attitudes=tuple(map(_attitude, self.entries("attitude"))),
            attitude_priority=top.texts("attitude_priority"),
            attitude_fallback=top.texts("attitude_fallback"),
            commitment=top.texts("commitment"),
            commitment_before=top.whole("commitment_before", 0, 99) if top.texts("commitment") else None,
            missed=tuple(map(_missed, self.entries("missed"))),
            hints=tuple(map(_hint, self.entries("hint"))),
            scoring=_scoring(top.inner("scoring")),
            unlock=_unlock(top.inner("unlock")),
            stages=_stages(top.inner("stages")),
            source_hash=hashlib.sha256(top.section.source.encode()).hexdigest(),
        )


def _effect(entry: Entry) -> Effect:
    entry.only("rapport", "tension", "commit")
    return Effect(*(entry.number(name, -1, 1, 0) for name in ("rapport", "tension", "commit")))


def _phase(entry: Entry) -> Phase:
    entry.only(
        *("id", "color", "in_flow", "ordered", "weight", "needs", "completes_with", "key_techniques"),
        "themes",
        *LANGUAGES,
    )
    entry.languages("name", "goal", "explanation")
    color = entry.text("color")
    if not _COLOR.fullmatch(color):
        raise entry.wrong("color", f"{color!r} is not a colour such as #6B7A92.", color)
    return Phase(
        id=entry.whole("id", 0, 99),
        name=entry.spoken("name"),
        goal=entry.spoken("goal"),
        explanation=entry.spoken("explanation"),
        color=color,
        themes=tuple(_theme(entry, number, table) for number, table in entry.entries("themes")),
        needs=entry.numbers("needs"),
        completes_with=entry.texts("completes_with"),
        ordered=entry.flag("ordered", False),
        in_flow=entry.flag("in_flow", True),
        weight=entry.number("weight", 0, 1),
        key_techniques=entry.texts("key_techniques"),
    )


def _theme(phase: Entry, number: int, table: Mapping[str, Any]) -> Theme:
    entry = Entry(phase.section, table, phase.field(f"themes[{number}]"))
    entry.only("id", "weighs", *LANGUAGES)
    name = {language: entry.text(language) for language in LANGUAGES}
    return Theme(entry.id(), name, _effect(entry.inner("weighs")))


_TECHNIQUE = (
    *("id", "phase", "minutes", "required", "step", "counts_as", "parent", "theme", "epic", "aliases"),
    *("phases", "forbidden", "question", "effect", "sub_scores"),
)
_SAID = ("name", "goal", "what", "when", "how", "examples", "cues", "marks")


def _technique(entry: Entry) -> Technique:
    """A step must be complete in every language; detail beneath it needs its names only."""
    entry.only(*_TECHNIQUE, *LANGUAGES)
    entry.languages(*_SAID)
    is_step = entry.flag("step", False)
    needed = LANGUAGES if is_step else ()
    epic = entry.optional("epic")
    return Technique(
        id=entry.id(),
        phase=entry.whole("phase", 0, 99),
        name=entry.spoken("name"),
        goal=entry.spoken("goal", needed),
        what=entry.spoken("what", needed),
        when=entry.spoken("when", needed),
        how=entry.spoken_lists("how", needed),
        examples=entry.spoken_lists("examples", needed),
        minutes=entry.whole("minutes", 0, MOST_MINUTES),
        required=entry.flag("required", False),
        is_step=is_step,
        counts_as=entry.optional("counts_as"),
        parent=entry.optional("parent"),
        theme=entry.optional("theme"),
        epic=entry.section.one_of(epic, Epic, entry.field("epic")) if epic else None,
        aliases=entry.texts("aliases"),
        phases=entry.numbers("phases"),
        forbidden=entry.numbers("forbidden"),
        question=entry.flag("question", False),
        effect=_effect(entry.inner("effect")),
        sub_scores=tuple(
            entry.section.one_of(name, SubScore, entry.field("sub_scores"))
            for name in entry.texts("sub_scores")
        ),
        cues=entry.cues(needed),
        marks=entry.marks(),
    )


def _attitude(entry: Entry) -> Attitude:
    entry.only("id", "key", "phases", "needs", "answers", "answers_by_phase", "tip_type", *LANGUAGES)
    entry.languages("name", "meaning", "cues")
    by_phase = entry.inner("answers_by_phase")
    for phase in by_phase.data:
        if not phase.isdecimal():
            raise by_phase.wrong(phase, "is not the number of a phase.", "answers_by_phase")
    return Attitude(
        id=entry.id(),
        key=entry.id("key"),
        name=entry.spoken("name"),
        meaning=entry.spoken("meaning"),
        phases=entry.numbers("phases"),
        needs=entry.texts("needs"),
        answers=entry.texts("answers"),
        answers_by_phase={int(phase): by_phase.texts(phase) for phase in by_phase.data},
        tip_type=entry.section.one_of(entry.text("tip_type"), TipType, entry.field("tip_type")),
        cues=entry.cues(LANGUAGES),
    )


def _missed(entry: Entry) -> MissedMoment:
    entry.only("id", "rule", "technique", "weight", *LANGUAGES)
    entry.languages("name", "why", "better")
    return MissedMoment(
        id=entry.id(),
        rule=entry.text("rule"),
        technique=entry.text("technique"),
        name=entry.spoken("name"),
        why=entry.spoken("why"),
        better=entry.spoken_lists("better"),
        weight=entry.number("weight", 0, 1),
    )


def _hint(entry: Entry) -> HintRule:
    entry.only("id", "rule", "kind", *LANGUAGES)
    entry.languages("text")
    return HintRule(entry.id(), entry.text("rule"), entry.text("kind"), entry.spoken("text"))


def _scoring(entry: Entry) -> Scoring:
    entry.only(
        *("turn_points", "use_points", "bonus", "model_share", "min_turns", "min_customer_turns", "weights")
    )
    weights = entry.inner("weights")
    return Scoring(
        turn_points=_points(entry, "turn_points"),
        use_points=_points(entry, "use_points"),
        bonus=entry.number("bonus", 0, 100),
        model_share=entry.number("model_share", 0, 1),
        min_turns=entry.whole("min_turns", 1, 100),
        min_customer_turns=entry.whole("min_customer_turns", 0, 100),
        weights={metric: weights.table_of_numbers(metric, 0, 1) for metric in weights.data},
    )


def _points(entry: Entry, key: str) -> Mapping[str, float]:
    """Points for each quality; a better one never earns less."""
    entry.inner(key).only(*Quality)
    points = {str(quality): entry.inner(key).number(quality, 0, 10) for quality in Quality}
    falling = list(points.values())
    if falling != sorted(falling, reverse=True):
        raise entry.wrong(key, f"must fall from {Quality.PERFECT} to {Quality.GEMIST}.")
    return points


def _unlock(entry: Entry) -> Unlock:
    entry.only("step_score", "manual", "stale_days")
    return Unlock(
        step_score=entry.whole("step_score", 0, 100),
        manual=entry.flag("manual", True),
        stale_days=entry.whole("stale_days", 1, MOST_DAYS),
    )


def _stages(entry: Entry) -> Mapping[Stage, int]:
    entry.only(*Stage)
    return {stage: entry.whole(stage, 0, 99) for stage in Stage}
