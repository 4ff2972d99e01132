"""One request whose answer is PCM that comes piece by piece: limits, refusals in our words, whole samples."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import aiohttp
import orjson
from yarl import URL

from coach_server.clock import Clock
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.stt.handshake import retry_after
from coach_server.providers.tts import MAX_CHARS, TtsLimits

SAMPLE_BYTES = 2
# A fault or a proxy's page under status 200. `text/event-stream` is not among them: ElevenLabs documents it
# as the type of its raw audio.
_NO_AUDIO = {"application/json", "text/html", "text/plain"}
# What a body begins with that is a file of sound and not its samples.
_FILES = (b"RIFF", b"ID3", b"OggS", b"fLaC")

_REFUSED = "The voice service refused the key, or has no credit for it."
_REFUSALS = {
    401: _REFUSED,
    402: _REFUSED,
    403: _REFUSED,
    429: "The voice service has too many requests.",
}


class Speaking:
    """What every vendor over HTTP needs. `clock` tells when the whole has taken too long."""

    def __init__(self, http: aiohttp.ClientSession, clock: Clock, limits: TtsLimits) -> None:
        self._http = http
        self._clock = clock
        self._limits = limits

    async def pcm(
        self, url: URL, text: str, body: Mapping[str, object], headers: Mapping[str, str]
    ) -> AsyncGenerator[bytes, None]:
        """Whole samples as they come. No time-out is held open while the caller has a piece."""
        if not text.strip() or len(text) > MAX_CHARS:
            raise ProviderError("The text is empty or too long to be spoken.")
        ends_at = self._clock.now() + self._limits.whole_s
        response, piece = await self._begin(url, body, headers)
        made, odd = 0, b""
        try:
            while piece:
                made += len(piece)
                if made > self._limits.most_bytes:
                    raise ProviderError("The voice service sent far too much.")
                piece = odd + piece
                even = len(piece) - len(piece) % SAMPLE_BYTES
                odd = piece[even:]
                if even:
                    yield piece[:even]
                piece = await self._next(response, ends_at)
        finally:
            response.close()

    async def _begin(
        self, url: URL, body: Mapping[str, object], headers: Mapping[str, str]
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """The answer and its first piece."""
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(self._limits.first_s):
                response = await self._http.post(
                    url,
                    data=orjson.dumps(body),
                    headers={"Content-Type": "application/json", **headers},
                    allow_redirects=False,  # the key is for this host only
                )
                _check(response)
                piece = await response.content.readany()
            _check_audio(piece)
        except BaseException as error:
            if response is not None:
                response.close()
            if (ours := _ours(error)) is None:
                raise
            raise ours from error
        return response, piece

    async def _next(self, response: aiohttp.ClientResponse, ends_at: float) -> bytes:
        try:
            within = min(self._limits.stall_s, ends_at - self._clock.now())
            async with asyncio.timeout(within):
                return await response.content.readany()
        except Exception as error:
            if (ours := _ours(error)) is None:
                raise
            raise ours from error


def _check(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise _refusal(response)
    if response.content_type in _NO_AUDIO:
        raise ProviderError("The voice service sent something else than audio.", retryable=True)


def _check_audio(piece: bytes) -> None:
    if not piece:
        raise ProviderError("The voice service sent no audio.", retryable=True)
    if piece.startswith(_FILES):
        raise ProviderError("The voice service sent something else than audio.")


def _refusal(response: aiohttp.ClientResponse) -> ProviderError:
    status = response.status
    if status in _REFUSALS:
        message = _REFUSALS[status]
    elif status < 500:
        message = "The voice service did not accept the voice, the text or the settings."
    else:
        message = "The voice service is not available."
    return ProviderError(
        message,
        retryable=status in (408, 425, 429) or status >= 500,
        retry_after_s=retry_after(response.headers),
    )


def _ours(error: BaseException) -> ProviderError | None:
    """A fault on the line in our words; None for anything else."""
    match error:
        case TimeoutError():
            return ProviderTimeout("The voice service did not answer in time.", retryable=True)
        case aiohttp.ClientPayloadError():
            return ProviderError("The voice service broke off.", retryable=True)
        case aiohttp.ClientError() | OSError():
            return ProviderError("The voice service could not be reached.", retryable=True)
        case _:
            return None
