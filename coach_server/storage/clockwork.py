"""Periodic work that only one of the instances does, and what the models cost per day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.tables import clockwork as t
from coach_server.storage.tables import daily_costs as costs
from coach_server.storage.tables import insert_into

# Every instance's clock strikes a little differently; a tick this much early (of its period) is due.
_EARLY = 0.1


@dataclass(frozen=True, slots=True)
class DailyCost:
    micro_usd: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


def day_of(now: float) -> str:
    """The day of a moment, in UTC, as `2026-11-21`."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


async def claim_tick(conn: AsyncConnection, name: str, *, owner: str, now: float, every_s: float) -> bool:
    """Whether this instance is to do the work `name` now: true for one of them, once in `every_s` seconds."""
    await conn.execute(
        insert_into(t, conn.dialect.name).values(name=name).on_conflict_do_nothing(index_elements=["name"])
    )
    due = or_(t.c.last_run_at.is_(None), t.c.last_run_at <= now - every_s * (1 - _EARLY))
    claimed = await conn.execute(
        update(t).where(t.c.name == name, due).values(owner=owner, last_run_at=now, lease_until=now + every_s)
    )
    return claimed.rowcount == 1


async def give_back_tick(conn: AsyncConnection, name: str, *, owner: str) -> None:
    """The work that this instance claimed was not done: it is due again at once."""
    await conn.execute(update(t).where(t.c.name == name, t.c.owner == owner).values(last_run_at=None))


async def add_daily_cost(
    conn: AsyncConnection,
    *,
    day: str,
    scope: str,
    micro_usd: int = 0,
    input_tokens: int = 0,
    cached_tokens: int = 0,
    output_tokens: int = 0,
) -> None:
    """`day` as `day_of` gives it; `scope` is what is counted together (`all`, a principal)."""
    amounts = {
        "micro_usd": micro_usd,
        "input_tokens": input_tokens,
        "cached_tokens": cached_tokens,
        "output_tokens": output_tokens,
    }
    new = insert_into(costs, conn.dialect.name).values(day=day, scope=scope, **amounts)
    await conn.execute(
        new.on_conflict_do_update(
            index_elements=["day", "scope"],
            set_={name: costs.c[name] + new.excluded[name] for name in amounts},
        )
    )


async def daily_cost(conn: AsyncConnection, *, day: str, scope: str) -> DailyCost:
    amounts = select(costs.c.micro_usd, costs.c.input_tokens, costs.c.cached_tokens, costs.c.output_tokens)
    row = (await conn.execute(amounts.where(costs.c.day == day, costs.c.scope == scope))).one_or_none()
    return DailyCost() if row is None else DailyCost(**row._mapping)
