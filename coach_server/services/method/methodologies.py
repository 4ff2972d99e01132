"""The methods of the catalog, read and checked once at the start.

What a file's shapes do not show is checked here: that every technique named exists, that weights add up, that
no phase waits for itself, that rules are ones the code knows. A mistake stops the start with a ConfigError
that names file, line and field.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from coach_server import paths
from coach_server.domain.method.methodology import Methodology, Phase, Technique
from coach_server.errors import ConfigError, NotFound
from coach_server.services.method.entry import Entry
from coach_server.services.method.file import MethodFile

DEFAULT_ID = "hugo"
MISSED_RULES = frozenset(
    {
        "te_vroeg_fase_3_4",
        "probe_gemist",
        "impact_gemist",
        "commit_gemist",
        "twijfel_niet_uitgepakt",
        "bezwaar_overgeslagen",
        "baat_niet_gemaakt",
    }
)
HINT_RULES = frozenset({"missed_required_step", "phase_too_early", "attitude_asks", "stay_on_step"})
HINT_KINDS = frozenset({"tip", "warning"})
HINT_SLOTS = frozenset({"technique", "step", "question"})
WEIGHT_TOLERANCE = 0.001

_SLOT = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Methodologies:
    """Every method by its id."""

    methods: Mapping[str, Methodology]

    @classmethod
    def load(cls, folder: Path | None = None) -> Methodologies:
        """Read the methods in `folder` (the catalog's by default). Raises ConfigError."""
        home = folder or paths.catalog() / "methodologies"
        methods = {method.id: method for method in map(read_methodology, sorted(home.glob("*.toml")))}
        if DEFAULT_ID not in methods:
            raise ConfigError(f"{home.name}/{DEFAULT_ID}.toml is missing.")
        return cls(methods)

    @property
    def default(self) -> Methodology:
        return self.methods[DEFAULT_ID]

    def get(self, method_id: str | None = None) -> Methodology:
        """The method with this id, the default one for None. Raises NotFound."""
        if method_id is None:
            return self.default
        if method_id not in self.methods:
            raise NotFound("There is no such methodology.", field="methodology")
        return self.methods[method_id]

    def all(self) -> list[Methodology]:
        """The default one first, the others by id."""
        return sorted(self.methods.values(), key=lambda method: (method.id != DEFAULT_ID, method.id))


def read_methodology(path: Path) -> Methodology:
    """One file, whole and checked. Raises ConfigError."""
    file = MethodFile(path)
    method = file.methodology()
    if method.id != path.stem:
        raise file.top.wrong("id", f"{method.id!r} must be the name of the file, {path.stem!r}.", method.id)
    _Checks(file, method).run()
    return method


class _Checks:
    """What holds between the entries of one file."""

    def __init__(self, file: MethodFile, method: Methodology) -> None:
        self._file = file
        self._method = method
        self._phases = {phase.id for phase in method.phases}
        self._steps = {step.id for step in method.steps}

    def run(self) -> None:
        self._ids()
        self._phase_list()
        for phase, entry in zip(self._method.phases, self._file.entries("phase"), strict=True):
            self._phase(phase, entry)
        for technique, entry in zip(self._method.techniques, self._file.entries("technique"), strict=True):
            self._technique(technique, entry)
        self._attitudes()
        self._missed()
        self._hints()
        self._top()

    # ids

    def _ids(self) -> None:
        for kind in ("phase", "technique", "attitude", "missed", "hint"):
            seen: set[str] = set()
            for entry in self._file.entries(kind):
                names = [str(entry.data["id"]), *entry.texts("aliases")]
                for name in names:
                    if name in seen:
                        raise entry.wrong("id", f"{name!r} is used twice.", name)
                    seen.add(name)

    def _known(self, entry: Entry, key: str, ids: Iterable[str]) -> None:
        for technique_id in ids:
            if self._method.find(technique_id) is None:
                raise entry.wrong(key, f"there is no technique {technique_id!r}.", technique_id)

    def _are_phases(self, entry: Entry, key: str, ids: Iterable[int]) -> None:
        for phase_id in ids:
            if phase_id not in self._phases:
                raise entry.wrong(key, f"there is no phase {phase_id}.")

    # phases

    def _phase_list(self) -> None:
        ids = [phase.id for phase in self._method.phases]
        if not self._method.flow or ids != sorted(ids):
            raise self._file.top.wrong("phase", "must be one or more, in the order of their ids.", "[phase]]")
        total = sum(phase.weight for phase in self._method.phases)
        if abs(total - 1) > WEIGHT_TOLERANCE:
            raise self._file.entry("phase", 1).wrong(
                "weight", f"the weights of all phases sum up to {total:g}, not to 1."
            )

    def _phase(self, phase: Phase, entry: Entry) -> None:
        self._are_phases(entry, "needs", phase.needs)
        if any(needed >= phase.id for needed in phase.needs):
            raise entry.wrong("needs", "a phase may only wait for earlier phases, or it never opens.")
        self._known(entry, "completes_with", phase.completes_with)
        self._known(entry, "key_techniques", phase.key_techniques)
        for technique_id in phase.completes_with:
            if technique_id not in self._steps:
                raise entry.wrong("completes_with", f"{technique_id!r} is not a step.", technique_id)
        if phase.in_flow and not self._method.steps_of(phase.id):
            raise entry.wrong("id", f"phase {phase.id} has no steps.")
        if phase.in_flow and not phase.completes_with:
            raise entry.wrong("completes_with", "is missing: nothing would complete this phase.")
        _distinct(entry, "themes", [theme.id for theme in phase.themes])

    # techniques

    def _technique(self, technique: Technique, entry: Entry) -> None:
        self._are_phases(entry, "phase", [technique.phase])
        self._are_phases(entry, "phases", technique.phases)
        self._are_phases(entry, "forbidden", technique.forbidden)
        if set(technique.phases) & set(technique.forbidden):
            raise entry.wrong("forbidden", "names a phase that 'phases' allows.")
        if not technique.phases:
            raise entry.wrong("phases", "is missing: where may it be used?")
        self._place(technique, entry)
        themes = {theme.id for theme in self._method.phase(technique.phase).themes}
        if technique.theme is not None and technique.theme not in themes:
            raise entry.wrong("theme", f"phase {technique.phase} has no theme {technique.theme!r}.")

    def _place(self, technique: Technique, entry: Entry) -> None:
        """A step stands in the flow; detail stands beneath a step, and nothing beneath itself."""
        if technique.is_step:
            if not self._method.phase(technique.phase).in_flow:
                raise entry.wrong("phase", "a step must be in a phase of the flow (in_flow = true).")
            if technique.counts_as is not None:
                raise entry.wrong("counts_as", "a step counts for itself.", technique.counts_as)
        elif technique.counts_as not in self._steps:
            raise entry.wrong(
                "counts_as",
                f"{technique.counts_as!r} is not a step; detail counts for one.",
                technique.counts_as,
            )
        self._known(entry, "parent", [technique.parent] if technique.parent else [])
        above, seen = technique.parent, {technique.id}
        while above is not None:
            if above in seen:
                raise entry.wrong("parent", "the techniques above it come back to itself.", technique.parent)
            seen.add(above)
            above = self._method.technique(above).parent

    # attitudes, moments, hints

    def _attitudes(self) -> None:
        entries = self._file.entries("attitude")
        _distinct(self._file.top, "attitude", [attitude.key for attitude in self._method.attitudes])
        for attitude, entry in zip(self._method.attitudes, entries, strict=True):
            self._are_phases(entry, "phases", [*attitude.phases])
            self._are_phases(entry, "answers_by_phase", attitude.answers_by_phase)
            self._known(entry, "needs", attitude.needs)
            self._known(entry, "answers", attitude.answers)
            for answers in attitude.answers_by_phase.values():
                self._known(entry, "answers_by_phase", answers)
            if not attitude.phases:
                raise entry.wrong("phases", "is missing: where may it show?")
        ids = {attitude.id for attitude in self._method.attitudes}
        top, priority = self._file.top, self._method.attitude_priority
        _distinct(top, "attitude_priority", priority)
        for attitude_id in sorted(ids.symmetric_difference(priority)):
            problem = "there is no such attitude" if attitude_id in priority else "is not ranked"
            raise top.wrong("attitude_priority", f"{attitude_id!r}: {problem}.")
        for attitude_id in self._method.attitude_fallback:
            if attitude_id not in ids:
                raise top.wrong("attitude_fallback", f"there is no attitude {attitude_id!r}.")

    def _missed(self) -> None:
        for moment, entry in zip(self._method.missed, self._file.entries("missed"), strict=True):
            _is_one_of(entry, "rule", moment.rule, MISSED_RULES)
            self._known(entry, "technique", [moment.technique])

    def _hints(self) -> None:
        for hint, entry in zip(self._method.hints, self._file.entries("hint"), strict=True):
            _is_one_of(entry, "rule", hint.rule, HINT_RULES)
            _is_one_of(entry, "kind", hint.kind, HINT_KINDS)
            for language, text in hint.text.items():
                for slot in _SLOT.findall(text):
                    if slot not in HINT_SLOTS:
                        raise entry.wrong(f"{language}.text", f"unknown placeholder {{{slot}}}.", text)

    # the rest

    def _top(self) -> None:
        top, method = self._file.top, self._method
        self._known(top, "commitment", method.commitment)
        if method.commitment_before is not None:
            self._are_phases(top, "commitment_before", [method.commitment_before])
        stages = top.inner("stages")
        for stage, phase_id in method.stages.items():
            self._are_phases(stages, stage, [phase_id])
        for metric, parts in method.scoring.weights.items():
            total = sum(parts.values())
            if abs(total - 1) > WEIGHT_TOLERANCE:
                raise top.wrong(f"scoring.weights.{metric}", f"sums up to {total:g}, not to 1.")


def _is_one_of(entry: Entry, key: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise entry.wrong(key, f"{value!r} is none of {', '.join(sorted(known))}.", value)


def _distinct(entry: Entry, key: str, values: Collection[str]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise entry.wrong(key, f"{value!r} is named twice.", value)
