"""What the socket floor says in the log: one short line, never what a client sent, never a flood."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from loguru import logger

from coach_server.clock import Clock


class Throttle:
    """At most `lines` log lines in `period_s` seconds for each kind; the next one counts the rest."""

    def __init__(self, clock: Clock, lines: int = 5, period_s: float = 10.0) -> None:
        self._clock = clock
        self._lines = lines
        self._period_s = period_s
        self._since = clock.now()
        self._said: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def refused(self, reason: str, socket: str | None = None) -> None:
        """A client sent or did what is not accepted. `reason` is one of our own words."""
        if self._may_say(reason):
            logger.bind(reason=reason, socket=socket, left_out=self._left_out.pop(reason, 0)).warning(
                "Refused what a client sent"
            )

    def failed(self, what: str, socket: str | None = None) -> None:
        """Our own code raised (the exception being handled): the traceback is for the person who mends it."""
        if self._may_say(what):
            logger.bind(what=what, socket=socket, left_out=self._left_out.pop(what, 0)).opt(
                exception=True
            ).error("A part of the socket floor failed")

    def _may_say(self, kind: str) -> bool:
        self.counts[kind] += 1
        now = self._clock.now()
        if now - self._since >= self._period_s:
            self._since = now
            self._said.clear()
        if self._said[kind] < self._lines:
            self._said[kind] += 1
            return True
        self._left_out[kind] += 1
        return False


class LibraryLog:
    """The logger given to python-socketio and python-engineio.

    Their info and warning lines repeat what clients sent, once an event; their errors are worth a line.
    """

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle

    def debug(self, *_: Any, **__: Any) -> None: ...

    def info(self, *_: Any, **__: Any) -> None: ...

    def warning(self, *_: Any, **__: Any) -> None: ...

    def error(self, *_: Any, **__: Any) -> None:
        if sys.exc_info()[0] is not None:
            self._throttle.failed("socket library")

    exception = error
