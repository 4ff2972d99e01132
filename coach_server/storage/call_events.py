"""The events that a conversation sent to its client, by their growing `seq`, for whoever resumes it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.crypto import CALL_EVENTS, cipher_of
from coach_server.storage.journal import Write
from coach_server.storage.tables import call_events as t


def insert(conversation_id: str, seq: int, name: str, payload: dict[str, Any], at: float) -> Write:
    return Write(
        "call_events",
        "insert",
        {"conversation_id": conversation_id, "seq": seq, "name": name, "payload": payload, "at": at},
    )


async def last_seq(conn: AsyncConnection, conversation_id: str) -> int:
    """The highest number that was given out and stored; 0 without any."""
    found = await conn.execute(select(func.max(t.c.seq)).where(t.c.conversation_id == conversation_id))
    return found.scalar_one() or 0


async def since(
    conn: AsyncConnection, conversation_id: str, seq: int, limit: int = 1000
) -> list[tuple[int, str, dict[str, Any]]]:
    """The first `limit` events after `seq`, in order, as (seq, name, payload)."""
    found = await conn.execute(
        select(t.c.conversation_id, t.c.seq, t.c.name, t.c.payload)
        .where(t.c.conversation_id == conversation_id, t.c.seq > seq)
        .order_by(t.c.seq)
        .limit(limit)
    )
    cipher = cipher_of(conn)
    rows = [CALL_EVENTS.open(cipher, row._mapping) for row in found]
    return [(row["seq"], row["name"], row["payload"]) for row in rows]
