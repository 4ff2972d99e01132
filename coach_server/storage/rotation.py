"""Bring stored rows to the first key: from an older key, or from plain text.

A batch is one transaction that holds its rows; one that is cut off is done again by the next run, which
passes over what is current already.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.crypto import SEALED, Sealed, Unreadable, cipher_of
from coach_server.storage.tables import metadata

TABLES = tuple(SEALED)
Place = tuple[Any, ...]


@dataclass(slots=True)
class Batch:
    """`last` is where the next batch begins; None when there is none. `unreadable`: what each row says."""

    seen: int = 0
    sealed: int = 0
    last: Place | None = None
    unreadable: list[str] = field(default_factory=list)


async def batch(conn: AsyncConnection, table: str, after: Place | None, limit: int) -> Batch:
    """Encrypt the first `limit` rows after the place `after` of this table, where they need it."""
    one, t = SEALED[table], metadata.tables[table]
    key = [t.c[name] for name in one.row]
    wanted = select(*key, *(t.c[name] for name in one.columns)).order_by(*key).limit(limit)
    if after is not None:
        wanted = wanted.where(tuple_(*key) > after)
    rows = (await conn.execute(wanted.with_for_update())).mappings().all()
    done = Batch(seen=len(rows))
    changed = _resealed(conn, one, [dict(row) for row in rows], done)
    if changed:
        await conn.execute(
            update(t)
            .where(*(t.c[name] == bindparam(f"of_{name}") for name in one.row))
            .values({name: bindparam(f"to_{name}", type_=t.c[name].type) for name in one.columns}),
            changed,
        )
    if len(rows) == limit:
        done.last = tuple(rows[-1][name] for name in one.row)
    return done


def _resealed(
    conn: AsyncConnection, one: Sealed, rows: list[dict[str, Any]], done: Batch
) -> list[dict[str, Any]]:
    cipher = cipher_of(conn)
    changed = []
    for row in rows:
        if one.is_current(cipher, row):
            continue
        try:
            sealed = one.seal(cipher, one.open(cipher, row))
        except Unreadable as error:
            done.unreadable.append(error.message)
            continue
        done.sealed += 1
        changed.append(
            {f"of_{name}": row[name] for name in one.row}
            | {f"to_{name}": sealed[name] for name in one.columns}
        )
    return changed
