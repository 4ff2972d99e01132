"""Audio as clients send it: checked, decoded, and no faster than somebody can speak."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from coach_server.providers.realtime import BYTES_PER_MS

MAX_BYTES = 64 * 1024
_MAX_CHARS = (MAX_BYTES + 2) // 3 * 4


def pcm_of(data: object) -> bytes | None:
    """16-bit mono PCM of a base64 text, 64 kB at most; None when it is none of that."""
    if not isinstance(data, str) or not 0 < len(data) <= _MAX_CHARS:
        return None
    try:
        pcm = base64.b64decode(data, validate=True)
    except ValueError:
        return None
    return pcm if len(pcm) % 2 == 0 and len(pcm) <= MAX_BYTES else None


@dataclass(slots=True)
class Allowance:
    """Audio a client may send: real time, and `burst_ms` beyond it (a buffer sent at once after a gap). A
    faster one would run up the model's bill. `at`: when it began, in seconds."""

    burst_ms: float
    at: float
    used_ms: float = 0.0

    def take(self, pcm: bytes, now: float) -> bool:
        ms = len(pcm) / BYTES_PER_MS
        self.used_ms = max(0.0, self.used_ms - (now - self.at) * 1000)
        self.at = now
        if self.used_ms + ms > self.burst_ms:
            return False
        self.used_ms += ms
        return True
