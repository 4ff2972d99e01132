"""The coach: who is asked for a tip. Implementations: `coach_llm` (prompts and a model), `coach_rules`
(offline, always there), and the fallback of both below."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from coach_server.domain.tip import Tip, TipRequest


@dataclass(frozen=True, slots=True)
class TipChunk:
    """A piece of a tip on its way: raw text of the option being written."""

    delta: str


class Coach(Protocol):
    async def tip(self, request: TipRequest) -> Tip: ...

    def stream(self, request: TipRequest) -> AsyncIterator[TipChunk | Tip]:
        """Chunks while the tip is being written, the finished tip last."""
        ...
