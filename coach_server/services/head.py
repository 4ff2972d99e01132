"""The trained head: from a sentence's embedding and what the rules found to how likely each finding is.

Linear, one output per stage, objection and signal; trained by `training/train.py`, which uses `features` too,
so that training and use cannot drift apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coach_server.domain.cues import Finding
from coach_server.domain.detection import Objection, Signal
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError

FORMAT = 1
STAGES = tuple(str(s) for s in Stage)
OBJECTIONS = tuple(str(o) for o in Objection)
SIGNALS = tuple(str(s) for s in Signal)
LABELS = (*STAGES, *OBJECTIONS, *SIGNALS)
CUSTOMER_ONLY = frozenset(
    (*OBJECTIONS, *(str(s) for s in (Signal.BUYING, Signal.REFUSAL, Signal.POSTPONE, Signal.PAIN)))
)

# Centred embeddings have entries near 0.02; this brings them to the size of the other features, so that one
# penalty fits all. The rules' weight is what keeps the head from leaning on them alone.
_EMBEDDING_SCALE, _RULE_SCALE, _FORM_SCALE = 4.0, 0.8, 0.5

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """`weights`: (features, labels); `bias` and `thresholds`: (labels,); `mean`: (dimensions,), what is
    subtracted from an embedding. `data_hash` names the labelled sentences it was trained on."""

    mean: Vector
    weights: Vector
    bias: Vector
    thresholds: Mapping[str, float]
    data_hash: str

    @property
    def dimensions(self) -> int:
        return int(self.mean.shape[0])

    def probabilities(self, features: Vector) -> Vector:
        """(n, features) -> (n, labels) in the order of LABELS."""
        scores = features @ self.weights + self.bias
        return np.asarray(1.0 / (1.0 + np.exp(-scores)), dtype=np.float32)

    def save(self, path: Path) -> None:
        facts = {
            "format": FORMAT,
            "labels": LABELS,
            "thresholds": dict(self.thresholds),
            "data_hash": self.data_hash,
        }
        np.savez_compressed(
            path,
            mean=self.mean,
            weights=self.weights.astype(np.float16),
            bias=self.bias,
            facts=np.array(json.dumps(facts, sort_keys=True)),
        )

    @classmethod
    def load(cls, path: Path) -> Head:
        """Raises ConfigError when the file is not a head this version can use."""
        try:
            with np.load(path, allow_pickle=False) as data:
                facts = json.loads(str(data["facts"]))
                mean, weights, bias = data["mean"], data["weights"].astype(np.float32), data["bias"]
        except (OSError, ValueError, KeyError) as fault:
            raise ConfigError(f"{path.name}: not a trained head ({fault})") from fault
        if facts.get("format") != FORMAT or tuple(facts.get("labels", ())) != LABELS:
            raise ConfigError(f"{path.name}: made for other labels; run `python -m training.train`")
        if weights.shape != (feature_count(mean.shape[0]), len(LABELS)):
            raise ConfigError(f"{path.name}: made for other features; run `python -m training.train`")
        return cls(mean, weights, bias, facts["thresholds"], facts["data_hash"])


def feature_count(dimensions: int) -> int:
    return 2 * dimensions + len(LABELS) + 3


def features(
    embeddings: Vector, mean: Vector, findings: Sequence[Sequence[Finding]], speakers: Sequence[Speaker]
) -> Vector:
    """(n, dimensions) embeddings into (n, feature_count): the embedding, once for either speaker and once for
    this one alone (the same words mean another thing in another mouth), the rules' findings, and the form."""
    n, dimensions = embeddings.shape
    result = np.zeros((n, feature_count(dimensions)), dtype=np.float32)
    centred = (embeddings - mean) * _EMBEDDING_SCALE
    signs = np.array([1.0 if s is Speaker.CUSTOMER else -1.0 for s in speakers], dtype=np.float32)
    result[:, :dimensions] = centred
    result[:, dimensions : 2 * dimensions] = centred * signs[:, None]
    rules = result[:, 2 * dimensions :]
    place = {label: i for i, label in enumerate(LABELS)}
    for row, found in zip(rules, findings, strict=True):
        for finding in found:
            if finding.name in place:
                row[place[finding.name]] = finding.strength * _RULE_SCALE
        row[len(LABELS)] = _FORM_SCALE if any(f.name in OBJECTIONS for f in found) else 0.0
        row[len(LABELS) + 1] = 0.0 if found else _FORM_SCALE
    rules[:, len(LABELS) + 2] = signs * _FORM_SCALE
    return result
