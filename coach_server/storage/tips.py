"""The tips that were shown, what was chosen of them, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.domain.tip import Label, ShownTip, Source, Stage, Tip, TipOption, Trigger
from coach_server.storage.crypto import TIPS, cipher_of
from coach_server.storage.journal import Write
from coach_server.storage.tables import insert_into, tip_outcomes
from coach_server.storage.tables import tips as t


@dataclass(frozen=True, slots=True)
class TipOutcome:
    """What a tip led to. `similarity`: 0..1, of what was said with what was suggested."""

    recommendation_id: str
    conversation_id: str
    taken: bool
    line_id: str | None = None
    technique_id: str | None = None
    similarity: float | None = None
    reaction: str | None = None
    stage_before: str | None = None
    stage_after: str | None = None


def insert(conversation_id: str, seq: int, shown: ShownTip, model: str | None) -> Write:
    """`seq` is that of the event which showed it; `model` names the model that wrote it, if one did."""
    chosen = {"selected_option": shown.selected_option, "selected_at": shown.selected_at}
    return Write("tips", "insert", _values(conversation_id, seq, shown, model) | chosen)


def replace(conversation_id: str, seq: int, shown: ShownTip, model: str | None) -> Write:
    """The tip was written anew under its recommendation id; what the agent chose of it stays."""
    return Write("tips", "replace", _values(conversation_id, seq, shown, model))


def select(recommendation_id: str, option: int, at: float) -> Write:
    row = {"recommendation_id": recommendation_id, "selected_option": option, "selected_at": at}
    return Write("tips", "select", row)


async def of(conn: AsyncConnection, conversation_id: str) -> list[ShownTip]:
    """The tips of a conversation in the order they were shown."""
    found = await conn.execute(
        sa.select(t).where(t.c.conversation_id == conversation_id).order_by(t.c.seq, t.c.shown_at)
    )
    cipher = cipher_of(conn)
    return [_shown(TIPS.open(cipher, row._mapping)) for row in found]


async def conversation_of(conn: AsyncConnection, recommendation_id: str) -> str | None:
    """The conversation that a tip was shown in."""
    found = await conn.execute(
        sa.select(t.c.conversation_id).where(t.c.recommendation_id == recommendation_id)
    )
    return found.scalar_one_or_none()


async def outcomes_insert(conn: AsyncConnection, rows: Sequence[TipOutcome]) -> None:
    """Enter outcomes in the ledger; one that is there already stays as it is."""
    if rows:
        await conn.execute(
            insert_into(tip_outcomes, conn.dialect.name).on_conflict_do_nothing(
                index_elements=["recommendation_id"]
            ),
            [asdict(row) for row in rows],
        )


def _values(conversation_id: str, seq: int, shown: ShownTip, model: str | None) -> dict[str, Any]:
    tip = shown.tip
    return {
        "recommendation_id": shown.recommendation_id,
        "conversation_id": conversation_id,
        "seq": seq,
        "stage": tip.stage.value,
        "heading": tip.heading,
        "context": tip.context,
        "options": [
            {"label": option.label.value, "script": option.script, "line_id": option.line_id}
            for option in tip.options
        ],
        "source": tip.source.value,
        "degraded": tip.degraded,
        "trigger": shown.trigger.value,
        "technique_id": tip.technique_id,
        "why": tip.why,
        "latency_ms": shown.latency_ms,
        "heard_sequence": shown.heard_sequence,
        "shown_at": shown.shown_at,
        "model": model,
    }


def _shown(row: dict[str, Any]) -> ShownTip:
    first, second, third = (
        TipOption(Label(option["label"]), option["script"], option["line_id"]) for option in row["options"]
    )
    tip = Tip(
        stage=Stage(row["stage"]),
        heading=row["heading"],
        context=row["context"],
        options=(first, second, third),
        source=Source(row["source"]),
        degraded=row["degraded"],
        technique_id=row["technique_id"],
        why=row["why"],
    )
    return ShownTip(
        recommendation_id=row["recommendation_id"],
        tip=tip,
        trigger=Trigger(row["trigger"]),
        shown_at=row["shown_at"],
        heard_sequence=row["heard_sequence"],
        latency_ms=row["latency_ms"],
        selected_option=row["selected_option"],
        selected_at=row["selected_at"],
    )
