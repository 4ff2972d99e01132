"""The statements the journal may run, compiled once, in the order in which one commit runs them.

Each is harmless when run again: after a lost connection nobody knows whether the commit got through.
They go past SQLAlchemy's execution, which costs more than the writing, but come from its compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import BindParameter, Dialect, Table, bindparam, literal_column, update
from sqlalchemy.sql.dml import Insert, Update

from coach_server.storage.tables import call_events, conversations, insert_into, tips, utterances

Statement = Insert | Update
Kind = tuple[str, str]

# A bound name that equals a column's name is reserved by SQLAlchemy for the SET clause.
_MARK = "p_"


class Prepared:
    """One statement for one engine. `bind` turns a row into its driver's values, in the statement's order."""

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._values = [
            (name.removeprefix(_MARK), _processor(compiled.binds[name], dialect))
            for name in _order(compiled, dialect)
        ]

    def bind(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] if process is None else process(row[name]) for name, process in self._values)


def prepare(dialect: Dialect) -> dict[Kind, Prepared]:
    return {kind: Prepared(build(dialect.name), dialect) for kind, build in STATEMENTS.items()}


def _order(compiled: Any, dialect: Dialect) -> list[str]:
    if not compiled.positional or compiled.positiontup is None:
        raise TypeError(f"{dialect.name}: the journal needs a driver with positional parameters")
    return list(compiled.positiontup)


def _processor(bind: BindParameter[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    return bind.type.dialect_impl(dialect).bind_processor(dialect)


def _bind(table: Table, name: str) -> BindParameter[Any]:
    return bindparam(_MARK + name, type_=table.c[name].type)


def _insert_once(table: Table, *arbiter: str) -> Callable[[str], Statement]:
    def build(dialect: str) -> Statement:
        values = {name: _bind(table, name) for name in table.c.keys()}
        return insert_into(table, dialect).values(values).on_conflict_do_nothing(index_elements=arbiter)

    return build


def _save_state(dialect: str) -> Statement:
    t = conversations
    counters = ("state_sequence", "last_seq", "last_sequence")
    return (
        update(t)
        .where(t.c.id == _bind(t, "id"), t.c.status == literal_column("'active'"))
        .where(*(t.c[name] <= _bind(t, name) for name in counters))
        .values({name: _bind(t, name) for name in (*counters, "state", "last_seen_at", "usage")})
    )


def _replace_tip(dialect: str) -> Statement:
    kept = {"recommendation_id", "conversation_id", "selected_option", "selected_at"}
    values = {name: _bind(tips, name) for name in tips.c.keys() if name not in kept}
    return update(tips).where(tips.c.recommendation_id == _bind(tips, "recommendation_id")).values(values)


def _select_tip(dialect: str) -> Statement:
    chosen = {name: _bind(tips, name) for name in ("selected_option", "selected_at")}
    return update(tips).where(tips.c.recommendation_id == _bind(tips, "recommendation_id")).values(chosen)


# Rows go in before the rows that point at them, and before what changes them.
STATEMENTS: dict[Kind, Callable[[str], Statement]] = {
    ("conversations", "insert"): _insert_once(conversations, "id"),
    ("utterances", "insert"): _insert_once(utterances, "conversation_id", "segment_id"),
    ("call_events", "insert"): _insert_once(call_events, "conversation_id", "seq"),
    ("tips", "insert"): _insert_once(tips, "recommendation_id"),
    ("tips", "replace"): _replace_tip,
    ("tips", "select"): _select_tip,
    ("conversations", "save_state"): _save_state,
}
