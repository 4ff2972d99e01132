"""What was said in each conversation. An utterance is stored once, however often its segment is sent."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.domain.transcript import Speaker, Utterance
from coach_server.storage.crypto import UTTERANCES, cipher_of
from coach_server.storage.journal import Write
from coach_server.storage.tables import utterances as t

# Marks a segment id that we made up; no client's id holds a control character.
_UNNAMED = "\x1f"


def insert(conversation_id: str, utterance: Utterance) -> Write:
    """Ignored when the segment is there already. Two different utterances with one sequence are an error:
    then two owners hold the conversation, and keeping only one silently would lose acknowledged words."""
    return Write(
        "utterances",
        "insert",
        {
            "conversation_id": conversation_id,
            "sequence": utterance.sequence,
            "segment_id": utterance.segment_id or _unnamed(utterance),
            "speaker": utterance.speaker.value,
            "text": utterance.text,
            "said_at": utterance.said_at,
            "heard_at": utterance.heard_at,
            "confidence": utterance.confidence,
        },
    )


async def since(
    conn: AsyncConnection, conversation_id: str, sequence: int, limit: int = 1000
) -> list[Utterance]:
    """The first `limit` utterances after `sequence`, in order."""
    found = await conn.execute(_of(conversation_id).where(t.c.sequence > sequence).limit(limit))
    cipher = cipher_of(conn)
    return [_utterance(UTTERANCES.open(cipher, row._mapping)) for row in found]


async def all(conn: AsyncConnection, conversation_id: str) -> list[Utterance]:
    cipher = cipher_of(conn)
    found = await conn.execute(_of(conversation_id))
    return [_utterance(UTTERANCES.open(cipher, row._mapping)) for row in found]


async def segment_ids(conn: AsyncConnection, conversation_id: str) -> dict[str, int]:
    """Segment id -> sequence, of those segments that the client named."""
    found = await conn.execute(
        select(t.c.segment_id, t.c.sequence)
        .where(t.c.conversation_id == conversation_id)
        .order_by(t.c.sequence)
    )
    return {row.segment_id: row.sequence for row in found if not row.segment_id.startswith(_UNNAMED)}


def _of(conversation_id: str) -> Select[Any]:
    return select(t).where(t.c.conversation_id == conversation_id).order_by(t.c.sequence)


def _unnamed(utterance: Utterance) -> str:
    """The same for the same utterance only, so that writing it again after a lost connection is harmless.

    The moments tell two utterances apart. The words are left out: few are said so often that a digest would
    give them away where they are encrypted."""
    told = f"{utterance.speaker.value} {utterance.said_at} {utterance.heard_at}"
    digest = blake2b(told.encode(), digest_size=12).hexdigest()
    return f"{_UNNAMED}{utterance.sequence}.{digest}"


def _utterance(row: dict[str, Any]) -> Utterance:
    return Utterance(
        sequence=row["sequence"],
        speaker=Speaker(row["speaker"]),
        text=row["text"],
        said_at=row["said_at"],
        heard_at=row["heard_at"],
        segment_id=None if row["segment_id"].startswith(_UNNAMED) else row["segment_id"],
        confidence=row["confidence"],
    )
