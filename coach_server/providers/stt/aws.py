"""Amazon Transcribe streaming over a presigned WebSocket.

Protocol: Transcribe developer guide, "Setting up a streaming transcription" (WebSocket). Custom vocabularies
exist only as named resources of the account, so `keyterms` of a spec are left out here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from yarl import URL

from coach_server.clock import Clock
from coach_server.errors import ProviderError
from coach_server.providers.aws_credentials import AwsCredentials
from coach_server.providers.stt import SAMPLE_BYTES, SttEvent, SttKind, SttSpec, eventstream, fault, handshake

EXPIRES_S = 300
FRAME_MS = 100  # 50 to 200 ms is what the vendor asks for
SILENCE_AFTER_S = 5.0  # about 15 s without audio ends the stream
SILENCE_MS = 100

_AUDIO_HEADERS = {
    ":content-type": "application/octet-stream",
    ":event-type": "AudioEvent",
    ":message-type": "event",
}
_EXCEPTIONS = {
    "BadRequestException": ("The speech service did not accept this audio.", False),
    "LimitExceededException": ("The speech service has too many requests.", True),
    "ConflictException": ("The speech service already has this stream.", True),
    "InternalFailureException": ("The speech service reported a fault.", True),
    "ServiceUnavailableException": ("The speech service is not available.", True),
}
# The vendor wants a region with every language; a bare language gets its most usual one.
_REGIONS = {
    "de": "de-DE",
    "en": "en-US",
    "es": "es-ES",
    "fr": "fr-FR",
    "he": "he-IL",
    "it": "it-IT",
    "nl": "nl-NL",
    "pt": "pt-PT",
}


class AwsTranscribe:
    """`endpoint` (http or https) takes the place of the region's own address."""

    name = "aws"

    def __init__(
        self,
        credentials: AwsCredentials,
        region: str,
        http: aiohttp.ClientSession,
        clock: Clock,
        *,
        endpoint: str | None = None,
        silence_after_s: float = SILENCE_AFTER_S,
        timeout_s: float = 10.0,
    ) -> None:
        self._credentials = credentials
        self._region = region
        self._http = http
        self._clock = clock
        self._endpoint = (endpoint or f"https://transcribestreaming.{region}.amazonaws.com:8443").rstrip("/")
        self._silence_after_s = silence_after_s
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def open(self, spec: SttSpec) -> AsyncIterator[AwsStream]:
        url = self._presigned(spec, await self._credentials.frozen())
        socket = await handshake.connect(self._http, url, timeout_s=self._timeout_s)
        stream = AwsStream(socket, self._clock, spec)
        async with handshake.kept_alive(socket, stream.keep_alive(self._silence_after_s)):
            yield stream

    def _presigned(self, spec: SttSpec, credentials: ReadOnlyCredentials) -> URL:
        query = urlencode(_query(spec))
        request = AWSRequest("GET", f"{self._endpoint}/stream-transcription-websocket?{query}")
        SigV4QueryAuth(credentials, "transcribe", self._region, expires=EXPIRES_S).add_auth(request)
        return URL(request.url, encoded=True)  # re-quoting it would break the signature


def _query(spec: SttSpec) -> dict[str, str]:
    query = {
        "language-code": _language(spec.language),
        "media-encoding": "pcm",
        "sample-rate": str(spec.sample_rate),
        "enable-partial-results-stabilization": "true",
        "partial-results-stability": "medium",
    }
    if spec.channels > 1:
        query |= {"enable-channel-identification": "true", "number-of-channels": str(spec.channels)}
    elif spec.diarize:
        query["show-speaker-label"] = "true"
    return query


def _language(tag: str) -> str:
    if "-" in tag:
        return tag
    if tag not in _REGIONS:
        raise ProviderError("The speech service does not know this language.")
    return _REGIONS[tag]


class AwsStream:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, clock: Clock, spec: SttSpec) -> None:
        self._socket = socket
        self._clock = clock
        self._spec = spec
        self._sent_at = clock.now()
        self._sent_ms = 0.0
        self._pauses: list[float] = []  # places (ms in the vendor's time) where silence of ours was put in
        self._half = b""
        self._finishing = False
        # Audio of the caller and silence of the keeper must not interleave within one `send`.
        self._turn = asyncio.Lock()

    async def send(self, pcm: bytes) -> None:
        async with self._turn:
            self._sent_at = self._clock.now()
            whole = self._half + pcm
            cut = len(whole) - len(whole) % (self._spec.channels * SAMPLE_BYTES)
            self._half = whole[cut:]
            step = _frame_bytes(self._spec, FRAME_MS)
            for at in range(0, cut, step):
                await self._audio(whole[at : min(at + step, cut)])

    async def finish(self) -> None:
        async with self._turn:
            self._finishing = True
            await self._audio(b"")

    async def keep_alive(self, after_s: float) -> None:
        while not self._finishing:
            due = self._sent_at + after_s
            await self._clock.sleep_until(due)
            if self._finishing or self._sent_at + after_s > due:
                continue
            try:
                await self._silence()
            except ProviderError:
                return  # the reader sees the same broken connection and reports it

    async def __aiter__(self) -> AsyncIterator[SttEvent]:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            try:
                events = self._understand(eventstream.decode(message.data))
            except handshake.UNREADABLE:
                yield fault("The speech service sent something unreadable.", retryable=True)
                return
            for event in events:
                yield event
                if event.kind is SttKind.ERROR:
                    return
        if not (self._finishing and handshake.closed_well(self._socket)):
            yield fault("The speech service closed the stream.", retryable=True)

    async def _audio(self, pcm: bytes) -> None:
        self._sent_ms += len(pcm) * 1000 / self._spec.bytes_per_second
        await handshake.send(self._socket, eventstream.encode(eventstream.Frame(_AUDIO_HEADERS, pcm)))

    async def _silence(self) -> None:
        async with self._turn:
            if self._finishing:
                return
            self._sent_at = self._clock.now()
            self._pauses.append(self._sent_ms)
            await self._audio(bytes(_frame_bytes(self._spec, SILENCE_MS)))

    def _understand(self, frame: eventstream.Frame) -> list[SttEvent]:
        match frame.headers.get(":message-type"), frame.headers.get(":event-type"):
            case "event", "TranscriptEvent":
                results = orjson.loads(frame.payload)["Transcript"]["Results"]
                return [event for result in results if (event := self._event(result)) is not None]
            case "event", _:
                return []
            case _:
                kind = frame.headers.get(":exception-type", "")
                sentence, retryable = _EXCEPTIONS.get(kind, ("The speech service reported a fault.", True))
                return [fault(sentence, retryable=retryable)]

    def _event(self, result: dict[str, Any]) -> SttEvent | None:
        best = result["Alternatives"][0]
        text = str(best["Transcript"]).strip()
        if not text:
            return None
        items = [item for item in best.get("Items") or [] if item.get("Type") == "pronunciation"]
        return SttEvent(
            SttKind.PARTIAL if result["IsPartial"] else SttKind.FINAL,
            text=text,
            start_ms=self._own_time(float(result["StartTime"]) * 1000),
            end_ms=self._own_time(float(result["EndTime"]) * 1000),
            confidence=_confidence(items),
            speaker=_speaker(items) if self._spec.diarize else None,
            channel=_channel(result.get("ChannelId")),
        )

    def _own_time(self, vendor_ms: float) -> int:
        """The vendor's time without the silence we put in to keep the stream open."""
        return round(
            vendor_ms - sum(min(SILENCE_MS, vendor_ms - at) for at in self._pauses if at < vendor_ms)
        )


def _frame_bytes(spec: SttSpec, ms: int) -> int:
    return spec.sample_rate * ms // 1000 * spec.channels * SAMPLE_BYTES


def _confidence(items: list[dict[str, Any]]) -> float | None:
    told = [float(item["Confidence"]) for item in items if item.get("Confidence") is not None]
    return sum(told) / len(told) if told else None


def _speaker(items: list[dict[str, Any]]) -> str | None:
    labels = [str(item["Speaker"]) for item in items if item.get("Speaker") is not None]
    return max(sorted(set(labels)), key=labels.count) if labels else None


def _channel(name: str | None) -> int:
    """`ch_1` is channel 1."""
    return int(name.removeprefix("ch_")) if name else 0
