"""What was made of a conversation after it ended: one document each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.crypto import ANALYSES, cipher_of
from coach_server.storage.tables import analyses as t
from coach_server.storage.tables import conversations, insert_into


@dataclass(frozen=True, slots=True)
class StoredAnalysis:
    """`version` is that of the document's shape."""

    conversation_id: str
    document: dict[str, Any]
    created_at: float
    version: int


async def save(
    conn: AsyncConnection, conversation_id: str, document: dict[str, Any], version: int, at: float
) -> bool:
    """Keep the analysis and mark the conversation as analysed. True only for the call that stored it: a job
    that runs twice finds the first one's document, unless it brings a newer version."""
    row = {"conversation_id": conversation_id, "document": document, "created_at": at, "version": version}
    new = insert_into(t, conn.dialect.name).values(ANALYSES.seal(cipher_of(conn), row))
    stored = await conn.execute(
        new.on_conflict_do_update(
            index_elements=["conversation_id"],
            set_={name: new.excluded[name] for name in ("document", "created_at", "version")},
            where=t.c.version < new.excluded.version,
        )
    )
    await conn.execute(
        update(conversations).where(conversations.c.id == conversation_id).values(analysis_status="done")
    )
    return stored.rowcount == 1


async def load(conn: AsyncConnection, conversation_id: str) -> StoredAnalysis | None:
    row = (await conn.execute(select(t).where(t.c.conversation_id == conversation_id))).one_or_none()
    return None if row is None else StoredAnalysis(**ANALYSES.open(cipher_of(conn), row._mapping))
