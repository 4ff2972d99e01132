"""Names what a tip is by the sales method: the technique of its line, the phase, the customer's attitude.

The same method as in practice (`catalog/methodologies`), so that a tip during a call and the score after it
speak of the same things. By cue words alone: a tip never waits for it, and one that cannot be named goes
without a name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from loguru import logger

from coach_server.domain.method.methodology import Methodology, Technique
from coach_server.domain.tip import Tip, TipRequest
from coach_server.domain.transcript import Speaker
from coach_server.services.coach import MeteredCoach, TipChunk
from coach_server.services.costs import Meter
from coach_server.services.method.eyes import MethodEyes

HEARD_CHARS = 600


class MethodCoach:
    """A coach whose tips are named (services.coach.MeteredCoach)."""

    def __init__(self, coach: MeteredCoach, method: Methodology, eyes: MethodEyes) -> None:
        self._coach = coach
        self._method = method
        self._eyes = eyes

    async def tip(self, request: TipRequest, meter: Meter | None = None) -> Tip:
        return self.named(request, await self._coach.tip(request, meter))

    async def stream(self, request: TipRequest, meter: Meter | None = None) -> AsyncIterator[TipChunk | Tip]:
        async for piece in self._coach.stream(request, meter):
            yield self.named(request, piece) if isinstance(piece, Tip) else piece

    def named(self, request: TipRequest, tip: Tip) -> Tip:
        try:
            phase = self._method.stages[tip.stage]
            attitude = self._attitude(request, phase)
            technique = self._of_lines(request, tip, phase) or self._asked_for(attitude, phase)
        except Exception as error:
            logger.opt(exception=error).bind(turn=request.turn).error("A tip could not be named")
            return tip
        return replace(
            tip,
            technique_id=technique.id if technique else tip.technique_id,
            phase=phase,
            attitude=attitude,
        )

    def _attitude(self, request: TipRequest, phase: int) -> str | None:
        """Of the customer's last words."""
        heard = next((u for u in reversed(request.utterances) if u.speaker is Speaker.CUSTOMER), None)
        if heard is None:
            return None
        return self._eyes.read_rules(
            self._method,
            heard.text[-HEARD_CHARS:],
            speaker=Speaker.CUSTOMER,
            language=request.language,
            phase=phase,
        ).attitude

    def _of_lines(self, request: TipRequest, tip: Tip, phase: int) -> Technique | None:
        """The technique that the suggested lines use, the shortest line first."""
        for option in tip.options:
            reading = self._eyes.read_rules(
                self._method,
                option.script,
                speaker=Speaker.AGENT,
                language=request.language,
                phase=phase,
            )
            for use in reading.uses:
                if (step := self._method.step(use.id)) is not None:
                    return step
        return None

    def _asked_for(self, attitude: str | None, phase: int) -> Technique | None:
        """The one that meets the customer's attitude best."""
        answer = next(self._method.answers(attitude, phase), None)
        return self._method.step(answer.id) if answer else None
