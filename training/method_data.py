"""Labelled sentences of a sales method, as in `training/data.py`: `labelled/method-<part>.<language>.ndjson`.

`techniques`: the steps a seller's sentence takes, two at most; `attitude`: of a customer's sentence, or null.
`phase`: of the method, where it was said. `context`: what the other party said right before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import MOST_TECHNIQUES
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError
from coach_server.services.method.methodologies import Methodologies
from training.data import FOLDER, SPEAKERS, data_hash

METHOD = "hugo"
LANGUAGES = ("en", "nl", "he")


@dataclass(frozen=True, slots=True)
class MethodExample:
    id: str
    group: str
    text: str
    speaker: Speaker
    language: str
    phase: int
    techniques: tuple[str, ...]
    attitude: str | None
    context: str = ""

    @property
    def labels(self) -> frozenset[str]:
        return frozenset((*self.techniques, *([self.attitude] if self.attitude else [])))


def the_method() -> Methodology:
    """The one the sentences are labelled by."""
    return Methodologies.load().get(METHOD)


def read_method(part: str, folder: Path = FOLDER) -> list[MethodExample]:
    """All languages of `train` or `heldout`. Raises ConfigError naming file and line."""
    method = the_method()
    examples = []
    for file in sorted(folder.glob(f"method-{part}.*.ndjson")):
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            try:
                examples.append(_example(json.loads(line), method))
            except (KeyError, ValueError, TypeError) as fault:
                raise ConfigError(f"{file.name}, line {number}: {fault!r}") from fault
    return examples


def method_hash(folder: Path = FOLDER) -> str:
    """Names the exact sentences and labels the head was trained on."""
    return data_hash("method-train", folder)


def labels_of(method: Methodology) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The steps that are labelled, and the attitudes."""
    return tuple(step.id for step in method.steps), tuple(a.id for a in method.attitudes)


def _example(data: dict[str, object], method: Methodology) -> MethodExample:
    steps, attitudes = labels_of(method)
    techniques, attitude, context = data["techniques"], data.get("attitude"), data.get("context")
    if not isinstance(techniques, list) or not set(techniques) <= set(steps):
        raise ValueError(f"techniques: {techniques}")
    if len(techniques) > MOST_TECHNIQUES:
        raise ValueError(f"techniques: more than {MOST_TECHNIQUES}")
    if not (attitude is None or (isinstance(attitude, str) and attitude in attitudes)):
        raise ValueError(f"attitude: {attitude}")
    return MethodExample(
        str(data["id"]),
        str(data.get("group", data["id"])),
        str(data["text"]),
        SPEAKERS[str(data["speaker"])],
        str(data["language"]),
        int(str(data["phase"])),
        tuple(techniques),
        attitude,
        _text(context),
    )


def _text(context: object) -> str:
    """A text, or the last of several."""
    if isinstance(context, list):
        context = context[-1] if context else ""
    return context if isinstance(context, str) else ""


def of_language(examples: Sequence[MethodExample], language: str) -> list[int]:
    """The places of a language's examples."""
    return [i for i, example in enumerate(examples) if example.language == language]
