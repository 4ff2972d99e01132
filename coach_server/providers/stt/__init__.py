"""Speech to text as a stream: audio in, words out. Vendor files in this folder; their JSON dies in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from coach_server.errors import ProviderError

SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class SttSpec:
    """What is about to be sent. `language` is a BCP 47 tag (`nl`, `en-GB`). `encoding` is `pcm`: signed
    16-bit little-endian samples, the channels interleaved. `keyterms` are names the vendor should know; a
    vendor that cannot take them per stream leaves them out. `diarize` asks for a speaker label where there is
    one channel."""

    language: str = "en"
    sample_rate: int = 16_000
    encoding: str = "pcm"
    channels: int = 1
    keyterms: tuple[str, ...] = ()
    diarize: bool = False

    @property
    def bytes_per_second(self) -> int:
        return self.sample_rate * self.channels * SAMPLE_BYTES


class SttKind(StrEnum):
    """A partial replaces the partial before it on the same channel; a final closes it for good."""

    PARTIAL = "partial"
    FINAL = "final"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SttEvent:
    """Words, or the fault that ended the stream (`error`, always the last event).

    Times count from the first sample sent on this stream. `speaker` is the vendor's label for a voice (only
    with `diarize`), `channel` counts from 0. `confidence` is 0..1, or None where the vendor tells none.
    """

    kind: SttKind
    text: str = ""
    start_ms: int = 0
    end_ms: int = 0
    confidence: float | None = None
    speaker: str | None = None
    channel: int = 0
    error: ProviderError | None = None


class SttStream(Protocol):
    async def send(self, pcm: bytes) -> None:
        """Pass audio on. Raises ProviderError when the vendor no longer takes it."""
        ...

    async def finish(self) -> None:
        """No more audio comes. What is still being worked out follows by iteration, which then ends."""
        ...

    def __aiter__(self) -> AsyncIterator[SttEvent]:
        """Events in order, one reader at a time. Ends after `finish`, or after an `error` event."""
        ...


class Stt(Protocol):
    @property
    def name(self) -> str: ...

    def open(self, spec: SttSpec) -> AbstractAsyncContextManager[SttStream]:
        """A connection for one stream of audio. Entering it raises ProviderError when the vendor refuses."""
        ...


def fault(message: str, *, retryable: bool) -> SttEvent:
    return SttEvent(SttKind.ERROR, error=ProviderError(message, retryable=retryable))
