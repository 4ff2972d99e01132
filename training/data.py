"""Labelled sentences: one JSON object a line, `labelled/<part>.<language>.ndjson`.

`group` binds paraphrases of one idea, across languages too, so that none of them helps to judge another.
`stage` null: the sentence belongs nowhere; no `stage` at all: it is not scored.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError
from coach_server.services.detector import Sentence
from coach_server.services.head import OBJECTIONS, SIGNALS, STAGES

FOLDER = Path(__file__).parent / "labelled"
SPEAKERS = {"seller": Speaker.AGENT, "customer": Speaker.CUSTOMER}


@dataclass(frozen=True, slots=True)
class Example:
    id: str
    group: str
    sentence: Sentence
    stage: str | None
    stage_counts: bool
    findings: frozenset[str]

    @property
    def labels(self) -> frozenset[str]:
        return self.findings | {self.stage} if self.stage else self.findings


def read(part: str, folder: Path = FOLDER) -> list[Example]:
    """All languages of `train` or `heldout`. Raises ConfigError naming file and line."""
    examples = []
    for file in sorted(folder.glob(f"{part}.*.ndjson")):
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            try:
                examples.append(_example(json.loads(line)))
            except (KeyError, ValueError, TypeError) as fault:
                raise ConfigError(f"{file.name}, line {number}: {fault!r}") from fault
    return examples


def data_hash(part: str = "train", folder: Path = FOLDER) -> str:
    """Names the exact sentences and labels a head was trained on."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob(f"{part}.*.ndjson")):
        digest.update(file.name.encode() + b"\n" + file.read_bytes())
    return digest.hexdigest()


def _example(data: dict[str, object]) -> Example:
    stage = data.get("stage")
    if not (stage is None or (isinstance(stage, str) and stage in STAGES)):
        raise ValueError(f"stage: {stage}")
    findings = _names(data["objections"], OBJECTIONS) | _names(data["signals"], SIGNALS)
    context = data.get("context")
    sentence = Sentence(
        str(data["text"]),
        SPEAKERS[str(data["speaker"])],
        str(data["language"]),
        (context,) if isinstance(context, str) else (),
    )
    return Example(
        str(data["id"]),
        str(data["group"]),
        sentence,
        stage,
        "stage" in data,
        findings,
    )


def _names(value: object, known: tuple[str, ...]) -> frozenset[str]:
    if not isinstance(value, list) or not set(value) <= set(known):
        raise ValueError(f"labels: {value}")
    return frozenset(value)
