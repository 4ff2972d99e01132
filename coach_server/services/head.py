"""The trained head: from a sentence's embedding and what the rules found to how likely each finding is.

Kernel ridge regression over the labelled sentences: a new sentence is compared with each of them (cubic
cosine kernel; words of the same party count three times as much), and a logistic curve turns the score into a
probability. A finding of the rules then adds its weight to the odds. The regression never saw the rules: they
were written by those who wrote the sentences, fit these too well, and it would learn to do nothing without.

An objection needs three things: that the sentence objects at all, that it is this objection, and that it is
this one rather than another. Their geometric mean keeps neutral sentences quiet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coach_server.domain.cues import Finding
from coach_server.domain.detection import Objection, Signal
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError

FORMAT = 4
STAGES = tuple(str(s) for s in Stage)
OBJECTIONS = tuple(str(o) for o in Objection)
SIGNALS = tuple(str(s) for s in Signal)
LABELS = (*STAGES, *OBJECTIONS, *SIGNALS)
ANY_OBJECTION = "any_objection"
OUTPUTS = (*LABELS, ANY_OBJECTION)
CUSTOMER_ONLY = frozenset(
    (
        *OBJECTIONS,
        ANY_OBJECTION,
        *(str(s) for s in (Signal.BUYING, Signal.REFUSAL, Signal.POSTPONE, Signal.PAIN)),
    )
)
# What a rule of full strength adds to the log odds. A rule alone carries a finding unless the embedding is
# firmly against it; for the stage, where one must win, it only tips the balance.
RULE_WEIGHT, RULE_WEIGHT_STAGE = 3.0, 1.5
# Entries of centred unit vectors stay well below a half; one byte each is exact enough.
VECTOR_STEPS = 254.0
_PLACE = {label: i for i, label in enumerate(OUTPUTS)}
_ANY = _PLACE[ANY_OBJECTION]
_KINDS = [_PLACE[name] for name in OBJECTIONS]

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """`vectors`: (sentences, dimensions), centred by `mean` and of length one; `signs`: (sentences,), +1
    customer, -1 seller; `alpha`: (sentences, outputs); `bias`, `slope`, `offset`: (outputs,). `data_hash`
    names the labelled sentences it was trained on."""

    mean: Matrix
    vectors: Matrix
    signs: Matrix
    alpha: Matrix
    bias: Matrix
    slope: Matrix
    offset: Matrix
    thresholds: Mapping[str, float]
    data_hash: str

    @property
    def dimensions(self) -> int:
        return int(self.mean.shape[0])

    def sureness(self, embeddings: Matrix, findings: Sequence[Sequence[Finding]], signs: Matrix) -> Matrix:
        """(n, dimensions) embeddings -> (n, labels), how sure, in the order of LABELS."""
        likeness = kernel(centre(embeddings, self.mean), signs, self.vectors, self.signs)
        odds = (likeness @ self.alpha + self.bias) * self.slope + self.offset
        return sureness(odds + rule_odds(findings))

    def save(self, path: Path) -> None:
        facts = {
            "format": FORMAT,
            "outputs": OUTPUTS,
            "thresholds": dict(self.thresholds),
            "data_hash": self.data_hash,
        }
        np.savez_compressed(
            path,
            mean=self.mean,
            vectors=np.round(self.vectors * VECTOR_STEPS).astype(np.int8),
            signs=self.signs.astype(np.int8),
            alpha=self.alpha.astype(np.float16),
            bias=self.bias,
            slope=self.slope,
            offset=self.offset,
            facts=np.array(json.dumps(facts, sort_keys=True)),
        )

    @classmethod
    def load(cls, path: Path) -> Head:
        """Raises ConfigError when the file is not a head this version can use."""
        try:
            with np.load(path, allow_pickle=False) as data:
                facts = json.loads(str(data["facts"]))
                if facts.get("format") != FORMAT or tuple(facts.get("outputs", ())) != OUTPUTS:
                    raise ConfigError(f"{path.name}: of another version; run `python -m training.train`")
                names = ("mean", "vectors", "signs", "alpha", "bias", "slope", "offset")
                parts = [data[name].astype(np.float32) for name in names]
        except (OSError, ValueError, KeyError) as fault:
            raise ConfigError(f"{path.name}: not a trained head ({fault})") from fault
        mean, vectors, signs, alpha, bias, slope, offset = parts
        vectors /= VECTOR_STEPS
        return cls(mean, vectors, signs, alpha, bias, slope, offset, facts["thresholds"], facts["data_hash"])


def centre(embeddings: Matrix, mean: Matrix) -> Matrix:
    """What sets sentences apart: their common direction taken off, length one again."""
    moved = embeddings - mean
    return np.asarray(
        moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-6), dtype=np.float32
    )


def kernel(left: Matrix, left_signs: Matrix, right: Matrix, right_signs: Matrix) -> Matrix:
    same_speaker = 1.0 + 0.5 * np.outer(left_signs, right_signs)
    return np.asarray((1.0 + left @ right.T) ** 3 / 4.0 * same_speaker, dtype=np.float32)


def rule_odds(findings: Sequence[Sequence[Finding]]) -> Matrix:
    """(n, outputs): what the rules' findings add to the log odds."""
    rows = np.zeros((len(findings), len(OUTPUTS)), dtype=np.float32)
    for row, found in zip(rows, findings, strict=True):
        for finding in found:
            if finding.name in _PLACE:
                weight = RULE_WEIGHT_STAGE if finding.name in STAGES else RULE_WEIGHT
                row[_PLACE[finding.name]] = finding.strength * weight
            if finding.name in OBJECTIONS:
                row[_ANY] = finding.strength * RULE_WEIGHT
    return rows


def sureness(odds: NDArray[Any]) -> Matrix:
    """(n, outputs) log odds -> (n, labels) how sure, 0..1."""
    chances = logistic(odds)
    kinds = chances[:, _KINDS]
    share = kinds / np.maximum(kinds.sum(axis=1, keepdims=True), 1e-6)
    chances[:, _KINDS] = np.cbrt(chances[:, [_ANY]] * kinds * share)
    return np.asarray(chances[:, : len(LABELS)], dtype=np.float32)


def signs_of(speakers: Sequence[Speaker]) -> Matrix:
    return np.array([1.0 if s is Speaker.CUSTOMER else -1.0 for s in speakers], dtype=np.float32)


def logistic(odds: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -30.0, 30.0))))
