"""The customer when no speech model is there: rules and the persona's own lines (domain/simulation/
offline.py), behind the same seam as a vendor's model. He reads words and answers in words; he hears no audio."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from coach_server.domain.simulation.offline import Cast, Moment, OfflineState, reply
from coach_server.domain.simulation.talk import Outcome, Role, TalkPhase, Utterance
from coach_server.errors import ProviderError
from coach_server.providers.realtime import (
    Audio,
    Connection,
    EndRequested,
    Heard,
    RealtimeEvent,
    RealtimeSpec,
    TurnDone,
)

NAME = "offline"
DEAF = 'The built-in customer reads and does not hear: send words as {"type": "text", "text": …}.'


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the talk stands when he is to answer. `said`: everything, oldest first."""

    attitude: float
    phase: TalkPhase
    checks: Mapping[str, bool]
    ending: Outcome | None
    said: Sequence[Utterance]


class OfflineModel:
    """One session's built-in customer. `look` tells where the talk stands now."""

    name = NAME

    def __init__(self, cast: Cast, look: Callable[[], Standing]) -> None:
        self._cast = cast
        self._look = look

    async def connect(self, spec: RealtimeSpec) -> Connection:
        return OfflineConnection(self._cast, self._look, spec)


class OfflineConnection:
    def __init__(self, cast: Cast, look: Callable[[], Standing], spec: RealtimeSpec) -> None:
        self._cast = cast
        self._look = look
        # Typed and unanswered; a talk that is taken up may have left some.
        self._asked = [text for role, text in spec.prior[-1:] if role is Role.TRAINEE]
        said = sum(role is Role.AVATAR for role, _ in spec.prior)
        self._state = OfflineState(seed=zlib.crc32(spec.session_id.encode()), turns=said)
        self._events: asyncio.Queue[RealtimeEvent | None] = asyncio.Queue()
        self._said = said
        self._is_deaf_told = False

    @property
    def provider(self) -> str:
        return NAME

    async def send_audio(self, audio: Audio) -> None:
        if not self._is_deaf_told:
            self._is_deaf_told = True
            self._events.put_nowait(TurnDone("", failed=ProviderError(DEAF)))

    async def send_text(self, text: str) -> None:
        self._asked.append(text)

    async def steer(self, text: str) -> None:
        """He sees where the talk stands; the director's words are for models."""

    async def respond(self) -> None:
        standing = self._look()
        words, self._asked = " ".join(self._asked), []
        spoken = list(standing.said)
        while spoken and spoken[-1].role is Role.TRAINEE:
            spoken.pop()  # what he answers now is not what was said before
        moment = Moment(
            text=words,
            attitude=standing.attitude,
            phase=standing.phase,
            checks=standing.checks,
            ending=standing.ending,
            history=spoken,
        )
        answer = reply(self._cast, self._state, moment)
        self._state = answer.state
        self._said += 1
        item_id = f"offline_{self._said}"
        if answer.text:
            self._events.put_nowait(Heard(Role.AVATAR, answer.text, item_id))
        if answer.ends is not None or standing.ending is not None:
            self._events.put_nowait(EndRequested((answer.ends or standing.ending or Outcome.REJECTED).value))
        self._events.put_nowait(TurnDone(item_id))

    async def truncate(self, item_id: str, heard_ms: int) -> None:
        """Nothing of his is played."""

    async def cancel(self) -> None:
        """His answers are there at once: none is ever under way."""

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    async def close(self) -> None:
        self._events.put_nowait(None)
