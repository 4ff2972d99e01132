"""One tip at a time for a call: asks the coach, and puts what comes into the call's inbox."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from coach_server.domain.events import TipFailed, TipReady
from coach_server.domain.tip import Tip, TipRequest
from coach_server.services.coach import MeteredCoach, TipChunk
from coach_server.services.costs import Meter


@dataclass(frozen=True, slots=True)
class ChunkReady:
    """A piece of the tip of `turn` that is being written."""

    turn: int
    chunk: TipChunk


Result = TipReady | TipFailed | ChunkReady


class TipMaker:
    """`put` gets results in their order. `streams`: the client asked to watch the model's tip grow."""

    def __init__(self, coach: MeteredCoach, meter: Meter, put: Callable[[Result], None]) -> None:
        self._coach = coach
        self._meter = meter
        self._put = put
        self._task: asyncio.Task[None] | None = None
        self.streams = False

    def start(self, group: asyncio.TaskGroup, request: TipRequest, call_id: str) -> None:
        self.stop()
        self._task = group.create_task(self._make(request), name=f"tip {request.turn} of {call_id}")

    def stop(self) -> None:
        """Cancel what is being made: nobody wants it any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _make(self, request: TipRequest) -> None:
        try:
            if self.streams:
                await self._stream(request)
            else:
                tip = await self._coach.tip(request, self._meter)
                self._put(TipReady(request.turn, str(uuid.uuid4()), tip))
        except Exception as error:
            logger.opt(exception=error).bind(turn=request.turn).error("No coach could make a tip")
            self._put(TipFailed(request.turn))

    async def _stream(self, request: TipRequest) -> None:
        """Every tip but the last is a draft; which one was the last shows only at the end."""
        recommendation_id = str(uuid.uuid4())
        async for piece in self._coach.stream(request, self._meter):
            if isinstance(piece, Tip):
                self._put(TipReady(request.turn, recommendation_id, piece, draft=True))
            else:
                self._put(ChunkReady(request.turn, piece))
        self._put(TipFailed(request.turn))
