"""The coach: who is asked for a tip. Implementations: `coach_llm` (prompts and a model), `coach_rules`
(offline, always there), and the fallback of both below."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from loguru import logger

from coach_server.domain.tip import Tip, TipRequest
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.services.breaker import Breaker, NotAsked
from coach_server.services.costs import Meter

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TipChunk:
    """A piece of a tip on its way: raw text of the option being written, which counts from 1."""

    delta: str
    option: int = 1


class Coach(Protocol):
    async def tip(self, request: TipRequest) -> Tip: ...

    def stream(self, request: TipRequest) -> AsyncIterator[TipChunk | Tip]:
        """Chunks while the tip is being written, the finished tip last."""
        ...


class MeteredCoach(Protocol):
    """A coach that costs money. Without a meter nothing is counted or capped."""

    async def tip(self, request: TipRequest, meter: Meter | None = None) -> Tip:
        """Raises ProviderError, also when the meter's cap is reached."""
        ...

    def stream(self, request: TipRequest, meter: Meter | None = None) -> AsyncIterator[TipChunk | Tip]:
        """Chunks while the tip is being written, the finished tip last."""
        ...


class FallbackCoach:
    """The model within the deadline, else the offline coach. Never fails for the model's sake.

    `degraded` on a tip means: a model is configured and should have spoken, but it failed, was late, or is
    not asked for now (open breaker, cost cap). Without a configured model nothing is degraded.
    """

    def __init__(
        self, primary: MeteredCoach | None, offline: Coach, breaker: Breaker, deadline_s: float
    ) -> None:
        self._primary = primary
        self._offline = offline
        self._breaker = breaker
        self._deadline_s = deadline_s

    async def tip(self, request: TipRequest, meter: Meter | None = None) -> Tip:
        if self._primary is None:
            return await self._offline.tip(request)
        try:
            with self._breaker.guard():
                async with asyncio.timeout(self._deadline_s):
                    return await self._primary.tip(request, meter)
        except Exception as error:
            degraded = _note(error, request)
        return replace(await self._offline.tip(request), degraded=degraded)

    async def stream(self, request: TipRequest, meter: Meter | None = None) -> AsyncIterator[TipChunk | Tip]:
        """The offline tip at once, then chunks of the model's tip and that tip: all for one place on the
        screen. When the model fails, the offline tip comes once more, marked degraded, so that half a chunk
        never stays as the last word."""
        offline = await self._offline.tip(request)
        if self._primary is None:
            yield offline
            return
        shown = False
        try:
            with self._breaker.guard():
                yield offline
                shown = True
                async with closing(self._primary.stream(request, meter)) as pieces:
                    async for piece in until(pieces, self._deadline_s):
                        yield piece
            return
        except Exception as error:
            degraded = _note(error, request)
        if degraded or not shown:
            yield replace(offline, degraded=degraded)


def _note(error: Exception, request: TipRequest) -> bool:
    """Log why the model did not speak (its words are never logged); whether that is a loss."""
    log = logger.bind(turn=request.turn, reason=str(error) if isinstance(error, ProviderError) else None)
    if isinstance(error, NotAsked):
        log.debug("The model was not asked for a tip")
        return error.degraded
    if isinstance(error, ProviderError | TimeoutError):
        log.bind(error=type(error).__name__).warning("The offline coach speaks for the model")
    else:
        log.opt(exception=error).error("The model coach broke; the offline coach speaks")
    return True


@asynccontextmanager
async def closing(pieces: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Closes an async generator when its reader leaves, so that a model does not go on writing for nobody."""
    try:
        yield pieces
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def until(pieces: AsyncIterator[T], seconds: float) -> AsyncIterator[T]:
    """What `pieces` yields in that time; ProviderTimeout after it. The time-out stands round each step: round
    a yield it would cancel the reader."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            async with asyncio.timeout_at(end):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ProviderTimeout("The model took too long.", retryable=True) from error
        yield piece
