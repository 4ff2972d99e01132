"""Rows to store, made in one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from coach_server.clock import SystemClock
from coach_server.domain.tip import Label, ShownTip, Source, Stage, Tip, TipOption, Trigger
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.storage import conversations
from coach_server.storage.conversations import NewConversation
from coach_server.storage.database import Database
from coach_server.storage.journal import Journal

NOW = 1_700_000_000.0


def conversation(id: str = "c1", **changes: Any) -> NewConversation:
    values: dict[str, Any] = {
        "id": id,
        "principal": "extension",
        "mode": "auto",
        "language": "en",
        "started_at": NOW,
        "resume_digest": "digest",
    }
    return NewConversation(**(values | changes))


def utterance(sequence: int, text: str = "Hello.", **changes: Any) -> Utterance:
    values: dict[str, Any] = {
        "sequence": sequence,
        "speaker": Speaker.CUSTOMER,
        "text": text,
        "said_at": NOW + sequence,
        "heard_at": NOW + sequence + 0.25,
        "segment_id": f"s{sequence}",
    }
    return Utterance(**(values | changes))


def shown_tip(id: str = "r1", **changes: Any) -> ShownTip:
    tip = Tip(
        stage=Stage.DISCOVERY,
        heading="Dig deeper",
        context="The customer named a problem.",
        options=(
            TipOption(Label.MINIMAL, "What does that cost you?", "discovery-7"),
            TipOption(Label.EXPLANATIVE, "What does that cost you, as it decides the size?"),
            TipOption(Label.CONTEXTUAL, "You said the reports take a day: what does that cost you?"),
        ),
        source=Source.OFFLINE,
        degraded=True,
        technique_id="2.1.2",
        why="takes us a day",
    )
    values: dict[str, Any] = {
        "recommendation_id": id,
        "tip": tip,
        "trigger": Trigger.INTERVAL,
        "shown_at": NOW + 10,
        "heard_sequence": 3,
        "latency_ms": 12,
    }
    return ShownTip(**(values | changes))


@asynccontextmanager
async def running(journal: Journal) -> AsyncIterator[Journal]:
    owner = asyncio.create_task(journal.run())
    try:
        yield journal
    finally:
        owner.cancel()
        await asyncio.gather(owner, return_exceptions=True)


async def store(database: Database, *writes: Any) -> None:
    """Commit these writes, each a put of its own, through a journal of the moment."""
    journal = Journal(database)
    stored = [journal.put(write) for write in writes]
    await journal.drain()
    await asyncio.gather(*stored)


async def start(database: Database, *ids: str, **changes: Any) -> None:
    await store(database, *(conversations.insert(conversation(id, **changes)) for id in ids or ("c1",)))


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a state that only asking can show."""
    clock = SystemClock()
    async with asyncio.timeout(10):
        while not await reached():
            await clock.sleep_until(clock.now() + 0.005)
