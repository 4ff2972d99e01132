"""This server, looked at a thousand times a second: `python -m bench._sampled` writes DATA_DIR/samples.json.

A real-time timer interrupts the main thread; each sample weighs as much CPU time as that thread has used
since the last one, and belongs to the innermost of our modules (or of the libraries told apart here) on the
stack. SIGUSR1 begins anew, SIGUSR2 writes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from coach_server.__main__ import main

EVERY_S = 0.001
# The first that fits a frame's file, from the innermost frame outwards.
PARTS = (
    ("coach_server/services/detector", "detector rules"),
    ("coach_server/domain/cue", "detector rules"),
    ("coach_server/domain/reading", "detector rules"),
    ("coach_server/domain/listening", "detector rules"),
    ("coach_server/domain/questions", "detector rules"),
    ("coach_server/domain/moves", "detector rules"),
    ("coach_server/domain/language", "detector rules"),
    ("coach_server/domain/facts", "facts"),
    ("coach_server/domain/ledger", "facts"),
    ("coach_server/domain", "the call's machine"),
    ("coach_server/storage", "journal"),
    ("coach_server/services/call_store", "journal"),
    ("coach_server/api/wire", "pydantic"),
    ("pydantic", "pydantic"),
    ("coach_server/api", "sockets"),
    ("aiohttp", "sockets"),
    ("engineio", "sockets"),
    ("socketio", "sockets"),
    ("coach_server/services", "the call's owner"),
)


class Sampler:
    def __init__(self) -> None:
        self.parts: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        self._last = time.thread_time()

    def clear(self) -> None:
        self.parts.clear()
        self.lines.clear()
        self._last = time.thread_time()

    def take(self, _: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        weight, self._last = now - self._last, now
        part, where = _part(frame)
        self.parts[part] += weight  # type: ignore[assignment]  # seconds, not counts
        self.lines[where] += weight  # type: ignore[assignment]

    def write(self) -> None:
        document = {"parts": dict(self.parts.most_common()), "lines": dict(self.lines.most_common(40))}
        path = Path(os.environ["DATA_DIR"]) / "samples.json"
        path.with_suffix(".new").write_text(json.dumps(document))
        path.with_suffix(".new").rename(path)


def _part(frame: FrameType | None) -> tuple[str, str]:
    where = ""
    while frame is not None:
        file = frame.f_code.co_filename
        where = where or f"{file.rpartition('/')[2]} {frame.f_code.co_name}"
        for start, part in PARTS:
            if f"/{start}" in file:
                return part, where
        frame = frame.f_back
    return "event loop", where


if __name__ == "__main__":
    sampler = Sampler()
    signal.signal(signal.SIGALRM, sampler.take)
    signal.signal(signal.SIGUSR1, lambda *_: sampler.clear())
    signal.signal(signal.SIGUSR2, lambda *_: sampler.write())
    signal.setitimer(signal.ITIMER_REAL, EVERY_S, EVERY_S)
    sys.exit(main())
