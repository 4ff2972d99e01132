"""One voice service after another: the first that begins to speak says it all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from loguru import logger

from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.tts import Tts

FIRST_S = 1.5


class FallbackTts:
    """`services` in the order of preference. All but the last get `first_s` for their first audio, so that a
    silent one leaves time for the next. Nobody takes over from one that breaks off later: words would be
    heard twice."""

    name = "fallback"

    def __init__(self, services: Sequence[Tts], *, first_s: float = FIRST_S) -> None:
        self._services = tuple(services)
        self._first_s = first_s
        self._failing: set[str] = set()

    def speaks(self, language: str) -> bool:
        return any(service.speaks(language) for service in self._services)

    async def speak(self, text: str, language: str, voice: str = "") -> AsyncGenerator[bytes, None]:
        able = [service for service in self._services if service.speaks(language)]
        error = ProviderError("No voice service speaks this language.")
        for service in able:
            async with aclosing(service.speak(text, language, voice)) as pieces:
                try:
                    first = await self._first(pieces, None if service is able[-1] else self._first_s)
                except ProviderError as failed:
                    error = failed
                    self._passed_over(service.name, failed)
                    continue
                self._failing.discard(service.name)
                yield first
                async for piece in pieces:
                    yield piece
                return
        raise error

    async def _first(self, pieces: AsyncGenerator[bytes, None], within_s: float | None) -> bytes:
        try:
            async with asyncio.timeout(within_s):
                return await anext(pieces)
        except TimeoutError:
            raise ProviderTimeout("The voice service did not answer in time.", retryable=True) from None
        except StopAsyncIteration:
            raise ProviderError("The voice service sent no audio.", retryable=True) from None

    def _passed_over(self, name: str, error: ProviderError) -> None:
        """Told when it begins to fail, not for each answer."""
        if name not in self._failing:
            self._failing.add(name)
            logger.warning("voice service passed over", service=name, code=error.code)
