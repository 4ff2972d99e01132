"""Audio as clients send it: checked, and no faster than somebody can speak."""

from __future__ import annotations

from dataclasses import dataclass

from coach_server.providers.realtime import Audio

MAX_BYTES = 64 * 1024
_MAX_CHARS = (MAX_BYTES + 2) // 3 * 4


_HEAD, _TAIL = '{"type":"audio","data":"', '"}'


def audio_frame(frame: str) -> Audio | None:
    """The audio of a frame that has the seed's two members and nothing else, without a blank; None when it
    has another form or is wrong: then it must be parsed."""
    if frame.startswith(_HEAD) and frame.endswith(_TAIL):
        return audio_of(frame[len(_HEAD) : -len(_TAIL)])
    return None


def audio_of(data: object) -> Audio | None:
    """16-bit mono PCM of a base64 text, 64 kB at most; None when it is none of that."""
    if not isinstance(data, str) or not 0 < len(data) <= _MAX_CHARS:
        return None
    try:
        audio = Audio.of_base64(data)
    except ValueError:
        return None
    return audio if 0 < audio.size <= MAX_BYTES else None


@dataclass(slots=True)
class Allowance:
    """Audio a client may send: real time, and `burst_ms` beyond it (a buffer sent at once after a gap). A
    faster one would run up the model's bill. `at`: when it began, in seconds."""

    burst_ms: float
    at: float
    used_ms: float = 0.0

    def take(self, ms: float, now: float) -> bool:
        self.used_ms = max(0.0, self.used_ms - (now - self.at) * 1000)
        self.at = now
        if self.used_ms + ms > self.burst_ms:
            return False
        self.used_ms += ms
        return True
