"""What waits to be sent to one client: frames of ours, and the customer's voice at the pace it is played.

A model makes audio much faster than it is spoken. It is kept here and goes out with a short lead, so that it
can still be held or dropped when the trainee speaks: a client of the seed has no message for that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import orjson

from coach_server.providers.realtime import BYTES_PER_MS, Audio
from coach_server.services.simulation.playback import Playback

MOST_FRAMES = 500
SLICE_BYTES = 100 * BYTES_PER_MS


class Outbound:
    """`lead_ms`: how much a client may have before it is played; `queue_ms`: how much may wait, beyond which
    the oldest is dropped. `full`: frames were lost, the client does not read. Frames for nobody wait for the
    next client."""

    def __init__(self, playback: Playback, *, lead_ms: float, queue_ms: float) -> None:
        self.held = False
        self.full = False
        self.dropped_ms = 0
        self._playback = playback
        self._lead_ms = lead_ms
        self._most_bytes = int(queue_ms * BYTES_PER_MS)
        self._frames: deque[str] = deque()
        self._audio: deque[tuple[str, Audio]] = deque()
        self._bytes = 0

    @property
    def has_audio(self) -> bool:
        return bool(self._audio)

    @property
    def waiting_ms(self) -> float:
        return self._bytes / BYTES_PER_MS

    def put(self, message: Mapping[str, Any]) -> None:
        if len(self._frames) >= MOST_FRAMES:
            self.full = True
            self._frames.popleft()
        self._frames.append(orjson.dumps(message).decode())

    def put_audio(self, item_id: str, audio: Audio) -> None:
        if audio.size <= 2 * SLICE_BYTES:
            self._audio.append((item_id, audio))
        else:
            # Held audio must stop within a short while.
            self._audio += [(item_id, piece) for piece in _slices(audio.pcm)]
        self._bytes += audio.size
        self._playback.received(item_id, audio.ms)
        while self._bytes > self._most_bytes:
            self._drop_oldest()

    def inherit(self, other: Outbound) -> None:
        """Frames that another one did not get to send."""
        self._frames.extend(other._frames)
        other._frames.clear()

    def next(self, now: float) -> str | None:
        """The frame to be sent now, counted as sent; None while there is none or it has time."""
        if self._frames:
            return self._frames.popleft()
        if not self._audio or self.held or self._playback.ahead_ms(now) >= self._lead_ms:
            return None
        item_id, audio = self._audio.popleft()
        self._bytes -= audio.size
        self._playback.sent(item_id, audio.ms, now)
        # Not by hand: the letters are the vendor's.
        return orjson.dumps({"type": "audio", "data": audio.base64}).decode()

    def due(self) -> float | None:
        """When more audio may go, if some waits for its time. Half the lead, so that it goes in bundles."""
        if not self._audio or self.held:
            return None
        return self._playback.until - self._lead_ms / 2000

    def drop_audio(self) -> None:
        self._audio.clear()
        self._bytes = 0

    def _drop_oldest(self) -> None:
        item_id, audio = self._audio.popleft()
        self._bytes -= audio.size
        self.dropped_ms += round(audio.ms)
        self._playback.dropped(item_id, audio.ms)


def _slices(pcm: bytes) -> list[Audio]:
    return [Audio.of(pcm[at : at + SLICE_BYTES]) for at in range(0, len(pcm), SLICE_BYTES)]
