"""Deepgram Nova over its streaming WebSocket `/v1/listen`, and the grant of temporary tokens.

Protocol: developers.deepgram.com, "Live Audio" and "Token-Based Authentication".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import orjson
from yarl import URL

from coach_server.clock import Clock
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers import bounded
from coach_server.providers.stt import SttEvent, SttKind, SttSpec, fault, handshake

BASE_URL = "https://api.deepgram.com"
KEEP_ALIVE_S = 4.0  # Deepgram hangs up (NET-0001) after 10 s without audio or KeepAlive
ENDPOINTING_MS = 400
UTTERANCE_END_MS = 1000
HEARTBEAT_S = 20.0
MAX_UTTERANCE_CHARS = 4000

_KEEP_ALIVE = '{"type":"KeepAlive"}'
_FINALIZE = '{"type":"Finalize"}'
_CLOSE_STREAM = '{"type":"CloseStream"}'


class Deepgram:
    """`base_url` is http(s); a proxy or a stand-in may take its place."""

    name = "deepgram"

    def __init__(
        self,
        api_key: str,
        http: aiohttp.ClientSession,
        clock: Clock,
        *,
        base_url: str = BASE_URL,
        model: str = "nova-3",
        keep_alive_s: float = KEEP_ALIVE_S,
        timeout_s: float = 10.0,
    ) -> None:
        self._headers = {"Authorization": f"Token {api_key}"}
        self._http = http
        self._clock = clock
        self._base = base_url.rstrip("/")
        self._model = model
        self._keep_alive_s = keep_alive_s
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def open(self, spec: SttSpec) -> AsyncIterator[DeepgramStream]:
        socket = await handshake.connect(
            self._http,
            self._url(spec),
            headers=self._headers,
            timeout_s=self._timeout_s,
            heartbeat_s=HEARTBEAT_S,
        )
        stream = DeepgramStream(socket, self._clock, diarize=spec.diarize)
        async with handshake.kept_alive(socket, stream.keep_alive(self._keep_alive_s)):
            yield stream

    async def grant(self, ttl_s: int = 60) -> tuple[str, int]:
        """A temporary token for a client and its life in seconds. The answer is a secret: never log it."""
        # The vendor documents `ttl_seconds`; `expires_in` is the name the seed's server sent.
        body = orjson.dumps({"ttl_seconds": ttl_s, "expires_in": ttl_s})
        headers = {**self._headers, "Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.post(f"{self._base}/v1/auth/grant", data=body, headers=headers) as response,
            ):
                if response.status != 200:
                    raise handshake.refusal(response.status, response.headers)
                raw = await bounded.body(response)
        except TimeoutError as error:
            raise ProviderTimeout("The speech service did not answer in time.", retryable=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError("The speech service could not be reached.", retryable=True) from error
        return _token(raw, ttl_s)

    def _url(self, spec: SttSpec) -> URL:
        query = [
            ("model", self._model),
            ("language", spec.language),
            ("encoding", "linear16"),
            ("sample_rate", str(spec.sample_rate)),
            ("channels", str(spec.channels)),
            ("interim_results", "true"),
            ("endpointing", str(ENDPOINTING_MS)),
            ("utterance_end_ms", str(UTTERANCE_END_MS)),
            ("smart_format", "true"),
            ("punctuate", "true"),
        ]
        if spec.channels > 1:
            query.append(("multichannel", "true"))
        if spec.diarize and spec.channels == 1:
            query.append(("diarize", "true"))
        # Models before nova-3 refuse the whole request when they see `keyterm`.
        term = "keyterm" if self._model.startswith("nova-3") else "keywords"
        query += [(term, word) for word in spec.keyterms]
        return URL(f"{self._base}/v1/listen").with_query(query)


class DeepgramStream:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, clock: Clock, *, diarize: bool) -> None:
        self._socket = socket
        self._clock = clock
        self._diarize = diarize
        self._sent_at = clock.now()
        self._finishing = False
        self._utterances: dict[int, _Utterance] = {}

    async def send(self, pcm: bytes) -> None:
        self._sent_at = self._clock.now()
        if pcm:  # an empty binary frame would end the stream
            await handshake.send(self._socket, pcm)

    async def finalize(self) -> None:
        """Ask for the words so far without ending the stream."""
        await handshake.send(self._socket, _FINALIZE)

    async def finish(self) -> None:
        self._finishing = True
        await handshake.send(self._socket, _CLOSE_STREAM)

    async def keep_alive(self, every_s: float) -> None:
        while not self._finishing:
            due = self._sent_at + every_s
            await self._clock.sleep_until(due)
            if self._finishing or self._sent_at + every_s > due:
                continue
            self._sent_at = self._clock.now()
            try:
                await handshake.send(self._socket, _KEEP_ALIVE)
            except ProviderError:
                return  # the reader sees the same broken connection and reports it

    async def __aiter__(self) -> AsyncIterator[SttEvent]:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            try:
                events = self._understand(orjson.loads(message.data))
            except handshake.UNREADABLE:
                yield fault("The speech service sent something unreadable.", retryable=True)
                return
            for event in events:
                yield event
                if event.kind is SttKind.ERROR:
                    return
        for event in self._flush_all():
            yield event
        if not (self._finishing and handshake.closed_well(self._socket)):
            yield fault("The speech service closed the stream.", retryable=True)

    def _understand(self, message: dict[str, Any]) -> list[SttEvent]:
        match message.get("type"):
            case "Results":
                return self._results(message)
            case "UtteranceEnd":
                return self._flush(int(message.get("channel", [0])[0]))
            case "Error":
                return [fault("The speech service reported a fault.", retryable=True)]
            case _:
                return []

    def _results(self, message: dict[str, Any]) -> list[SttEvent]:
        channel = int(message.get("channel_index", [0])[0])
        utterance = self._utterances.setdefault(channel, _Utterance(channel))
        segment = self._segment(message, channel)
        if not message.get("is_final"):
            return [utterance.with_interim(segment)] if segment.text else []
        if segment.text:
            utterance.segments.append(segment)
        if message.get("speech_final") or message.get("from_finalize") or utterance.is_long():
            return self._flush(channel)
        return [utterance.partial()] if segment.text else []

    def _segment(self, message: dict[str, Any], channel: int) -> SttEvent:
        best = message["channel"]["alternatives"][0]
        start = float(message["start"])
        return SttEvent(
            SttKind.PARTIAL,
            text=str(best["transcript"]).strip(),
            start_ms=round(start * 1000),
            end_ms=round((start + float(message["duration"])) * 1000),
            confidence=min(max(float(best.get("confidence", 0.0)), 0.0), 1.0),
            speaker=_loudest_speaker(best.get("words", [])) if self._diarize else None,
            channel=channel,
        )

    def _flush(self, channel: int) -> list[SttEvent]:
        """The utterance as one final; nothing when no words came since the last one."""
        utterance = self._utterances.pop(channel, None)
        if utterance is None or not utterance.segments:
            return []
        return [replace(utterance.partial(), kind=SttKind.FINAL)]

    def _flush_all(self) -> list[SttEvent]:
        return [event for channel in sorted(self._utterances) for event in self._flush(channel)]


@dataclass(slots=True)
class _Utterance:
    """Segments frozen by `is_final` that wait for `speech_final` or `UtteranceEnd` to be one utterance."""

    channel: int
    segments: list[SttEvent] = field(default_factory=list)

    def partial(self) -> SttEvent:
        return _joined(self.segments)

    def with_interim(self, interim: SttEvent) -> SttEvent:
        return _joined([*self.segments, interim])

    def is_long(self) -> bool:
        return sum(len(segment.text) for segment in self.segments) > MAX_UTTERANCE_CHARS


def _joined(segments: list[SttEvent]) -> SttEvent:
    weights = [max(segment.end_ms - segment.start_ms, 1) for segment in segments]
    heard = sum((s.confidence or 0.0) * w for s, w in zip(segments, weights, strict=True))
    return replace(
        segments[-1],
        text=" ".join(segment.text for segment in segments),
        start_ms=segments[0].start_ms,
        confidence=heard / sum(weights),
    )


def _loudest_speaker(words: list[dict[str, Any]]) -> str | None:
    """The label most words carry: a segment may hold a word of the other voice."""
    labels = [str(word["speaker"]) for word in words if word.get("speaker") is not None]
    return max(sorted(set(labels)), key=labels.count) if labels else None


def _token(raw: bytes, asked_s: int) -> tuple[str, int]:
    try:
        answer = orjson.loads(raw)
        token = answer["access_token"]
        life = int(answer.get("expires_in", asked_s))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ProviderError("The speech service sent something unreadable.", retryable=True) from None
    if not isinstance(token, str) or not token:
        raise ProviderError("The speech service gave no token.", retryable=True)
    return token, life
