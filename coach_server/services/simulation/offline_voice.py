"""The built-in customer's words as audio, where a voice service is configured. It may fail or be late: then
he is read and not heard, and the talk goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from loguru import logger

from coach_server.errors import ProviderError
from coach_server.providers.realtime import BYTES_PER_MS, Audio
from coach_server.providers.tts import Tts

PIECE_BYTES = 100 * BYTES_PER_MS
FIRST_S = 3.0
STALL_S = 6.0
# A service that failed so often in a row is not waited for again in this talk.
MOST_FAILURES = 2


class OfflineVoice:
    """One talk's voice. `usable`: it is worth trying."""

    def __init__(
        self, tts: Tts, language: str, voice: str, *, session_id: str, first_s: float = FIRST_S
    ) -> None:
        self._tts = tts
        self._language = language
        self._voice = voice
        self._first_s = first_s
        self._log = logger.bind(session=session_id, tts=tts.name)
        self._failures = 0
        self.usable = tts.speaks(language)

    async def pieces(self, text: str) -> AsyncGenerator[Audio, None]:
        """Audio in pieces of 100 ms at most; fewer than the words, or none, when the service fails."""
        try:
            async with aclosing(self._tts.speak(text, self._language, self._voice)) as made:
                async with aclosing(_cut(made, self._first_s)) as pieces:
                    async for piece in pieces:
                        yield Audio.of(piece)
            self._failures = 0
        except TimeoutError:
            self._failed("PROVIDER_TIMEOUT", retryable=True)
        except ProviderError as error:
            self._failed(error.code, retryable=error.retryable)
        except Exception:
            self._log.exception("voice service broke")
            self.usable = False

    def _failed(self, code: str, *, retryable: bool) -> None:
        if not self._failures:
            self._log.warning("the built-in customer is not heard", code=code)
        self._failures += 1
        if not retryable or self._failures >= MOST_FAILURES:
            self.usable = False


async def _cut(made: AsyncGenerator[bytes, None], first_s: float) -> AsyncGenerator[bytes, None]:
    """Pieces of 100 ms, and what is left. Raises TimeoutError for a service that does not go on."""
    rest, within_s = b"", first_s
    while True:
        async with asyncio.timeout(within_s):
            pcm = await anext(made, b"")
        if not pcm:
            break
        within_s = STALL_S
        rest += pcm
        whole = len(rest) - len(rest) % PIECE_BYTES
        for at in range(0, whole, PIECE_BYTES):
            yield rest[at : at + PIECE_BYTES]
        rest = rest[whole:]
    if rest:
        yield rest
