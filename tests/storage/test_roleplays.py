"""Practice sessions in the database, on both engines: turns keep their order and their row, steps are
replaced, and what was sealed opens nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, text, update

from coach_server.clock import SystemClock
from coach_server.errors import StorageFailed
from coach_server.storage import roleplays
from coach_server.storage.crypto import Unreadable, make_cipher
from coach_server.storage.database import Database
from coach_server.storage.roleplays import Message, Session, StepRow
from coach_server.storage.tables import metadata
from coach_server.storage.tables import roleplay_sessions as session_rows
from coach_server.storage.tables import roleplay_transcripts as message_rows
from tests.storage.samples import NOW

CANARY = "canary-77c1-practised"
KEY = ("k1", b"k" * 32)


def session(id: str = "s1", **changes: Any) -> Session:
    values: dict[str, Any] = {
        "id": id,
        "principal": "extension",
        "user_id": "ann",
        "team_id": None,
        "kind": "practice",
        "scenario_id": "default-sales-scenario",
        "drill_id": None,
        "methodology": "hugo",
        "methodology_version": 1,
        "language": "nl",
        "status": "recording",
        "current_phase_id": 1,
        "current_step_id": "1.1",
        "started_at": NOW,
        "last_seen_at": NOW,
        "store_transcript": True,
        "state": {"machine": {"step": "1.1"}},
    }
    return Session(**(values | changes))


def message(number: int, words: str = "Hello.", of: str = "s1", **changes: Any) -> Message:
    values: dict[str, Any] = {
        "session_id": of,
        "sequence_number": number,
        "id": f"row {of} {number}",
        "message_id": f"m{number}",
        "speaker": "user" if number % 2 else "hugo",
        "message": words,
        "timestamp": NOW + number,
        "reading": {"uses": [], "phase": 1, "attitude_quote": words},
        "created_at": NOW + number + 0.25,
    }
    return Message(**(values | changes))


def step(id: str = "1.1", of: str = "s1", **changes: Any) -> StepRow:
    values: dict[str, Any] = {"status": "current", "manual": False, "created_at": NOW, "phase_id": 1}
    return StepRow(session_id=of, step_id=id, **(values | changes))


async def begin(database: Database, *sessions: Session) -> None:
    async with database.transaction() as conn:
        for one in sessions or (session(),):
            assert await roleplays.insert(conn, one, NOW)


async def append(database: Database, *messages: Message) -> None:
    async with database.transaction() as conn:
        for one in messages:
            await roleplays.append(conn, one)


@asynccontextmanager
async def opened(url: str, *keys: tuple[str, bytes]) -> AsyncIterator[Database]:
    database = Database(url, clock=SystemClock(), cipher=make_cipher(keys))
    await database.start()
    try:
        yield database
    finally:
        await database.close()


async def stored(database: Database) -> str:
    """Every value of every table as it lies there."""
    parts: list[str] = []
    async with database.read() as conn:
        for table in metadata.sorted_tables:
            parts += [str(tuple(row)) for row in await conn.execute(text(f'SELECT * FROM "{table.name}"'))]
    return "\n".join(parts)


# --- sessions


async def test_a_session_is_read_as_it_was_written(database: Database) -> None:
    whole = session(
        team_id="north",
        heygen_session_id="vendor-1",
        heygen_access_token="room token",
        avatar_provider="liveavatar",
        avatar_expires_at=NOW + 3600.5,
        consent={"given": True},
        usage={"inputTokens": 3},
        idempotency_key="once",
    )
    await begin(database, whole)
    async with database.read() as conn:
        assert await roleplays.load(conn, "s1") == whole
        assert await roleplays.load(conn, "another") is None
    changed = replace(whole, status="completed", completed_at=NOW + 60, duration_seconds=60, state={"a": [1]})
    async with database.transaction() as conn:
        await roleplays.save(conn, changed, NOW + 60)
    async with database.read() as conn:
        assert await roleplays.load(conn, "s1") == changed


async def test_the_same_idempotency_key_of_a_user_begins_one_session(database: Database) -> None:
    first = session("s1", idempotency_key="once")
    await begin(database, first)
    async with database.transaction() as conn:
        assert not await roleplays.insert(conn, session("s2", idempotency_key="once"), NOW)
        assert await roleplays.insert(conn, session("s3", idempotency_key="once", user_id="bob"), NOW)
        assert await roleplays.insert(conn, session("s4", idempotency_key="once", principal="other"), NOW)
        assert await roleplays.insert(conn, session("s5"), NOW) and await roleplays.insert(
            conn, session("s6"), NOW
        )
        assert await roleplays.find_by_idempotency(conn, "extension", "ann", "once") == first
        assert await roleplays.find_by_idempotency(conn, "extension", "ann", "never") is None


async def test_racing_starts_with_one_key_leave_one_session(database: Database) -> None:
    async def start(id: str) -> bool:
        async with database.transaction() as conn:
            return await roleplays.insert(conn, session(id, idempotency_key="once"), NOW)

    assert sorted(await asyncio.gather(*(start(f"s{n}") for n in range(5)))) == [False] * 4 + [True]


async def test_a_late_sign_of_life_does_not_turn_time_back(database: Database) -> None:
    await begin(database)
    async with database.transaction() as conn:
        await roleplays.touch(conn, "s1", NOW + 30)
        await roleplays.touch(conn, "s1", NOW + 10)
    async with database.read() as conn:
        found = await roleplays.load(conn, "s1")
    assert found is not None and found.last_seen_at == NOW + 30


async def test_sessions_that_time_may_move_are_found_and_those_that_are_over_are_not(
    database: Database,
) -> None:
    await begin(
        database,
        session("quiet", last_seen_at=NOW - 121),
        session("talking"),
        session("left", last_seen_at=NOW - 130, status="abandoned"),
        session("too long", started_at=NOW - 7201),
        session("drill", kind="drill"),
        session("over", last_seen_at=NOW - 500, status="completed", completed_at=NOW - 400),
    )
    async with database.read() as conn:
        due = await roleplays.stale(conn, seen_before=NOW - 120, began_before=NOW - 7200, limit=10)
        assert sorted(due) == ["drill", "left", "quiet", "too long"]
        assert await roleplays.stale(conn, seen_before=NOW - 120, began_before=NOW - 7200, limit=1) == [
            "left"
        ]
        assert await roleplays.active(conn) == 4


async def test_avatars_that_run_and_grow_old_are_found(database: Database) -> None:
    avatar = {"heygen_session_id": "v", "avatar_provider": "liveavatar", "avatar_expires_at": NOW + 100}
    await begin(
        database,
        session("open", **avatar),
        session("stopped", **{**avatar, "avatar_stopped_at": NOW}),
        session("over", **{**avatar, "status": "completed", "completed_at": NOW}),
        session("text"),
    )
    async with database.read() as conn:
        assert await roleplays.with_old_tokens(conn, NOW + 101, 10) == ["open"]
        assert await roleplays.with_old_tokens(conn, NOW + 99, 10) == []
        assert [one.id for one in await roleplays.with_open_avatars(conn, NOW, 10)] == ["open"]


async def test_a_users_sessions_come_newest_first_and_are_only_the_users(database: Database) -> None:
    for at, one in enumerate(
        (session("s1"), session("s2"), session("d1", kind="drill"), session("b1", user_id="bob"))
    ):
        async with database.transaction() as conn:
            await roleplays.insert(conn, one, NOW + at)
    async with database.read() as conn:
        found = await roleplays.of_user(conn, "extension", "ann", limit=10)
        assert [one.id for one in found] == ["s2", "s1"]
        drills = await roleplays.of_user(conn, "extension", "ann", limit=10, kind="drill")
        assert [one.id for one in drills] == ["d1"]
        assert await roleplays.of_user(conn, "other", "ann", limit=10) == []


# --- turns


async def test_turns_come_back_in_their_order_whole_and_the_last_ones(database: Database) -> None:
    await begin(database, session(), session("s2"))
    said = [message(number, f"words {number}") for number in range(1, 15)]
    await append(database, *reversed(said), message(1, "of another", of="s2"))
    async with database.read() as conn:
        assert await roleplays.all_messages(conn, "s1") == said
        assert await roleplays.last_messages(conn, "s1", 3) == said[-3:]
        assert await roleplays.find_message(conn, "s1", "m4") == said[3]
        assert await roleplays.find_message(conn, "s2", "m4") is None


@pytest.mark.parametrize(
    "doubled",
    [{"sequence_number": 1, "message_id": "new"}, {"message_id": "m1"}, {"id": "row s1 1"}],
    ids=["sequence number", "message id", "id"],
)
async def test_a_number_and_an_id_are_given_once(database: Database, doubled: dict[str, Any]) -> None:
    await begin(database)
    await append(database, message(1))
    with pytest.raises(StorageFailed):
        await append(database, message(2, **doubled))
    async with database.read() as conn:
        assert len(await roleplays.all_messages(conn, "s1")) == 1


async def test_a_turn_of_no_session_is_refused(database: Database) -> None:
    with pytest.raises(StorageFailed):
        await append(database, message(1, of="nobody"))


async def test_a_second_reading_replaces_the_first_and_no_word(database: Database) -> None:
    await begin(database)
    await append(database, message(1, "one"), message(2, "two"))
    async with database.transaction() as conn:
        await roleplays.reread(conn, "s1", 1, {"uses": ["better"], "phase": 2})
    async with database.read() as conn:
        first, second = await roleplays.all_messages(conn, "s1")
    assert (first.message, first.reading) == ("one", {"uses": ["better"], "phase": 2})
    assert second == message(2, "two")


async def test_racing_turns_of_a_session_get_a_number_each(database: Database) -> None:
    await begin(database)

    async def say(name: str) -> None:
        async with database.transaction() as conn:
            held = await roleplays.load(conn, "s1", to_change=True)
            assert held is not None
            number = held.last_sequence + 1
            await roleplays.append(conn, message(number, message_id=name, id=name))
            await roleplays.save(conn, replace(held, last_sequence=number), NOW)

    await asyncio.gather(*(say(f"by {number}") for number in range(12)))
    async with database.read() as conn:
        found = await roleplays.all_messages(conn, "s1")
    assert [one.sequence_number for one in found] == list(range(1, 13))


# --- steps


async def test_a_step_is_replaced_and_its_score_stays(database: Database) -> None:
    await begin(database)
    scored = step(technique_score=70, feedback="well asked", technique_used=True, started_at=NOW)
    async with database.transaction() as conn:
        await roleplays.save_steps(conn, [scored, step("1.2", status="upcoming")])
        await roleplays.save_steps(conn, [])
    done = step(status="completed", completed_at=NOW + 9, duration_seconds=9, manual=True, started_at=NOW)
    async with database.transaction() as conn:
        await roleplays.save_steps(conn, [done])
    async with database.read() as conn:
        found = {one.step_id: one for one in await roleplays.steps(conn, "s1")}
    assert found["1.1"] == replace(done, technique_score=70, feedback="well asked")
    assert found["1.2"] == step("1.2", status="upcoming")


# --- sealed


async def fill(database: Database) -> None:
    await begin(
        database,
        session(state={"customer": CANARY}, heygen_access_token=CANARY, heygen_session_id="v"),
        session("s2", state={"customer": CANARY}),
    )
    await append(database, message(1, CANARY), message(2, CANARY), message(1, CANARY, of="s2"))
    async with database.transaction() as conn:
        await roleplays.save_steps(conn, [step(feedback=CANARY)])
        await roleplays.reread(conn, "s1", 2, {"quote": CANARY})


async def test_nothing_that_was_said_lies_there_in_plain_text(database_url: str) -> None:
    async with opened(database_url, KEY) as database:
        await fill(database)
        assert CANARY not in await stored(database)
        async with database.read() as conn:
            found = await roleplays.load(conn, "s1")
            said = await roleplays.all_messages(conn, "s1")
            (kept,) = await roleplays.steps(conn, "s1")
    assert found is not None and found.state == {"customer": CANARY} and found.heygen_access_token == CANARY
    assert [one.message for one in said] == [CANARY] * 2 and said[1].reading == {"quote": CANARY}
    assert kept.feedback == CANARY


async def test_without_a_key_the_canary_would_be_found(database_url: str) -> None:
    async with opened(database_url) as database:
        await fill(database)
        assert (await stored(database)).count(CANARY) > 6


@pytest.mark.parametrize("column", ["message", "reading"])
@pytest.mark.parametrize(("of", "number"), [("s1", 2), ("s2", 1)], ids=["own session", "other session"])
async def test_a_turn_with_the_value_of_another_row_is_refused(
    database_url: str, column: str, of: str, number: int
) -> None:
    m = message_rows
    async with opened(database_url, KEY) as database:
        await fill(database)
        async with database.transaction() as conn:
            moved = (
                select(m.c[column])
                .where(m.c.session_id == of, m.c.sequence_number == number)
                .scalar_subquery()
            )
            await conn.execute(
                update(m).where(m.c.session_id == "s1", m.c.sequence_number == 1).values({m.c[column]: moved})
            )
        async with database.read() as conn:
            with pytest.raises(Unreadable, match="roleplay_transcripts"):
                await roleplays.all_messages(conn, "s1")
            assert [one.sequence_number for one in await roleplays.last_messages(conn, "s1", 1)] == [2]


async def test_a_session_with_the_state_of_another_is_refused_by_name(database_url: str) -> None:
    s = session_rows
    async with opened(database_url, KEY) as database:
        await fill(database)
        async with database.transaction() as conn:
            other = select(s.c.state).where(s.c.id == "s2").scalar_subquery()
            await conn.execute(update(s).where(s.c.id == "s1").values(state=other))
        async with database.read() as conn:
            with pytest.raises(Unreadable) as refused:
                await roleplays.load(conn, "s1")
            assert await roleplays.load(conn, "s2") is not None
    assert "s1" in refused.value.message and "enc1" not in refused.value.message
