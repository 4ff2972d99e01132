from __future__ import annotations

import asyncio
import sqlite3
import traceback
from collections.abc import AsyncIterator, Sequence

import pytest

from coach_server.clock import SystemClock
from coach_server.domain.transcript import Speaker
from coach_server.errors import StorageFailed
from coach_server.storage import call_events, conversations, tips, transcripts
from coach_server.storage.database import Database
from coach_server.storage.journal import Journal
from coach_server.storage.tables import utterances
from coach_server.storage.transcripts import since
from coach_server.storage.writers import Group, open_writer
from coach_server.testing import settle
from tests.storage.samples import NOW, conversation, running, shown_tip, start, utterance


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    await start(database, "c1", "c2")
    async with running(Journal(database)) as journal:
        yield journal


async def texts(database: Database, id: str = "c1") -> list[str]:
    async with database.read() as conn:
        return [u.text for u in await since(conn, id, 0)]


async def test_what_was_told_to_be_stored_is_there(database: Database, journal: Journal) -> None:
    await journal.put(transcripts.insert("c1", utterance(1, "Good morning.")))
    assert await texts(database) == ["Good morning."]
    assert journal.pending == 0


async def test_what_is_put_at_once_shares_a_commit(database: Database, journal: Journal) -> None:
    stored = [journal.put(transcripts.insert("c1", utterance(n))) for n in range(1, 101)]
    await asyncio.gather(*stored)
    assert len(await texts(database)) == 100
    assert journal.commits == 1


async def test_a_whole_call_may_be_put_in_one_commit(database: Database, journal: Journal) -> None:
    """Its rows point at each other: the conversation must go in first, the selection after its tip."""
    stored = [
        journal.put(
            tips.insert("c3", 1, shown_tip("r3"), None),
            transcripts.insert("c3", utterance(1)),
            conversations.insert(conversation("c3")),
        ),
        journal.put(tips.select("r3", 2, NOW + 12)),
        journal.put(tips.replace("c3", 4, shown_tip("r3", latency_ms=900), "model-x")),
        journal.put(call_events.insert("c3", 1, "AI_TIP", {"heading": "x"}, NOW)),
    ]
    await asyncio.gather(*stored)
    async with database.read() as conn:
        (tip,) = await tips.of(conn, "c3")
        assert (tip.selected_option, tip.selected_at, tip.latency_ms) == (2, NOW + 12, 900)
        assert await call_events.since(conn, "c3", 0) == [(1, "AI_TIP", {"heading": "x"})]


async def test_a_put_is_stored_whole_or_not_at_all(database: Database, journal: Journal) -> None:
    stored = journal.put(
        transcripts.insert("c1", utterance(1)), transcripts.insert("no such conversation", utterance(1))
    )
    with pytest.raises(StorageFailed):
        await stored
    assert await texts(database) == []


@pytest.mark.parametrize("bad", [0, 3, 9])
async def test_a_row_that_cannot_be_stored_fails_only_its_own_put(
    database: Database, journal: Journal, bad: int
) -> None:
    stored = [
        journal.put(transcripts.insert("gone" if n == bad else "c1", utterance(n + 1))) for n in range(10)
    ]
    outcomes = await asyncio.gather(*stored, return_exceptions=True)
    assert [n for n, outcome in enumerate(outcomes) if outcome is not None] == [bad]
    assert isinstance(outcomes[bad], StorageFailed)
    assert len(await texts(database)) == 9
    assert journal.pending == 0


async def test_a_value_that_cannot_be_written_down_fails_only_its_own_put(
    database: Database, journal: Journal
) -> None:
    broken = [
        journal.put(call_events.insert("c1", 1, "X", {"a": object()}, NOW)),
        journal.put(call_events.insert("c1", 2, "X", {"a": "\ud83d"}, NOW)),
        journal.put(transcripts.insert("c1", utterance(1, "half a \ud83d sign"))),
        journal.put(transcripts.insert("c1", utterance(2**70))),
    ]
    good = journal.put(transcripts.insert("c1", utterance(5, "fine")))
    outcomes = await asyncio.gather(*broken, return_exceptions=True)
    assert all(isinstance(outcome, StorageFailed) for outcome in outcomes)
    await good
    assert await texts(database) == ["fine"]


async def test_the_order_of_puts_is_kept(database: Database, journal: Journal) -> None:
    stored = [
        journal.put(
            conversations.save_state(
                "c1",
                {"n": n},
                state_sequence=0,
                last_seq=0,
                last_sequence=0,
                last_seen_at=NOW + n,
                usage={"tips": n},
            )
        )
        for n in range(50)
    ]
    await asyncio.gather(*stored)
    async with database.read() as conn:
        loaded = await conversations.load(conn, "c1")
    assert loaded is not None
    assert (loaded.state, loaded.usage, loaded.last_seen_at) == ({"n": 49}, {"tips": 49}, NOW + 49)


async def test_a_segment_sent_again_is_stored_once(database: Database, journal: Journal) -> None:
    same = utterance(1, "Only once.")
    for _ in range(3):
        await journal.put(transcripts.insert("c1", same))
    await asyncio.gather(*(journal.put(transcripts.insert("c1", same)) for _ in range(3)))
    await journal.put(transcripts.insert("c1", utterance(2, "Only once.", segment_id="s1")))
    assert await texts(database) == ["Only once."]


async def test_an_utterance_without_a_segment_may_be_written_twice(
    database: Database, journal: Journal
) -> None:
    """So it goes when the connection is lost after the commit: the journal cannot know, and writes again."""
    nameless = utterance(1, "Hello?", segment_id=None)
    await journal.put(transcripts.insert("c1", nameless))
    await journal.put(transcripts.insert("c1", nameless))
    async with database.read() as conn:
        assert await transcripts.all(conn, "c1") == [nameless]


async def test_two_owners_cannot_both_be_told_that_one_sequence_is_stored(
    database: Database, journal: Journal
) -> None:
    await journal.put(transcripts.insert("c1", utterance(1, "ours", segment_id="a")))
    for segment in ("b", None):
        with pytest.raises(StorageFailed):
            await journal.put(transcripts.insert("c1", utterance(1, "theirs", segment_id=segment)))
    assert await texts(database) == ["ours"]


async def test_a_waiter_that_is_cancelled_does_not_take_its_words_back(
    database: Database, journal: Journal
) -> None:
    async def wait() -> None:
        await journal.put(transcripts.insert("c1", utterance(1, "kept")))

    waiter = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiter.cancel()
    after = journal.put(transcripts.insert("c1", utterance(2, "too")))
    await after
    assert waiter.cancelled() or waiter.cancelling()
    assert await texts(database) == ["kept", "too"]


async def test_an_empty_put_waits_for_all_before_it(database: Database, journal: Journal) -> None:
    before = [journal.put(transcripts.insert("c1", utterance(n))) for n in range(1, 3001)]
    await journal.put()
    assert all(stored.done() for stored in before)


async def test_too_much_to_store_is_refused_at_once(database: Database) -> None:
    await start(database)
    journal = Journal(database, max_pending=3)
    stored = [journal.put(transcripts.insert("c1", utterance(n))) for n in range(1, 6)]
    assert [s.done() for s in stored] == [False, False, False, True, True]
    assert isinstance(stored[3].exception(), StorageFailed)
    await journal.drain()
    assert [u.done() and u.exception() is None for u in stored[:3]] == [True, True, True]
    await_again = journal.put(transcripts.insert("c1", utterance(9)))
    await journal.drain()
    await await_again
    assert len(await texts(database)) == 4


async def test_stopping_the_owner_writes_what_was_put(database: Database) -> None:
    await start(database)
    journal = Journal(database, window_s=60)
    owner = asyncio.create_task(journal.run())
    await journal.put(transcripts.insert("c1", utterance(1)))
    stored = journal.put(transcripts.insert("c1", utterance(2)))
    await settle()
    assert not stored.done()
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert stored.done() and stored.exception() is None
    assert len(await texts(database)) == 2


async def test_a_cancelled_drain_still_tells_who_waits(database: Database) -> None:
    await start(database)
    journal = Journal(database)
    for steps in range(12):
        stored = journal.put(transcripts.insert("c1", utterance(steps + 1)))
        draining = asyncio.create_task(journal.drain())
        for _ in range(steps):
            await asyncio.sleep(0)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        await journal.drain()
        await stored
    assert len(await texts(database)) == 12


async def test_whatever_the_driver_throws_the_journal_goes_on(database: Database) -> None:
    """Seen: asyncpg's InternalClientError, not of its own family, when the server hung up in mid-message."""
    await start(database)
    faults = iter([AttributeError("a"), RuntimeError("b"), OSError("c")])
    real = open_writer(database)

    class Faulty:
        async def write(self, groups: Sequence[Group]) -> None:
            for fault in faults:
                raise fault
            await real.write(groups)

        async def close(self) -> None:
            await real.close()

    async with running(Journal(database, writer=Faulty())) as journal:
        await journal.put(transcripts.insert("c1", utterance(1)))
    assert len(await texts(database)) == 1


async def test_a_failure_does_not_repeat_what_was_said(database: Database, journal: Journal) -> None:
    words = "canary of 4711 words"
    failing = [
        journal.put(transcripts.insert("gone", utterance(1, words))),
        journal.put(call_events.insert("gone", 1, "X", {"text": words}, NOW)),
        journal.put(transcripts.insert("c1", utterance(2, words, speaker=Speaker.AGENT, confidence=words))),
    ]
    failures = list(await asyncio.gather(*failing, return_exceptions=True))
    with pytest.raises(StorageFailed) as failure:
        async with database.transaction() as conn:
            await conn.execute(utterances.insert(), transcripts.insert("gone", utterance(1, words)).row)
    failures.append(failure.value)
    assert all(isinstance(failure, StorageFailed) for failure in failures)
    assert not any(words in line for f in failures if f for line in traceback.format_exception(f))


async def test_a_drain_beside_the_owner_loses_and_doubles_nothing(database: Database) -> None:
    await start(database)
    async with running(Journal(database)) as journal:
        stored = []
        for n in range(1, 301):
            stored.append(journal.put(transcripts.insert("c1", utterance(n))))
            if n % 50 == 0:
                await journal.drain()
        await journal.drain()
        assert all(s.done() for s in stored)
    assert len(await texts(database)) == 300


async def test_a_full_commit_does_not_wait_for_its_window(database: Database) -> None:
    await start(database)
    async with running(Journal(database, window_s=3600)) as journal:
        await journal.put(transcripts.insert("c1", utterance(0)))
        await asyncio.gather(*(journal.put(transcripts.insert("c1", utterance(n))) for n in range(1, 2001)))
        assert journal.commits == 2


async def test_within_the_window_after_a_commit_rows_come_together(database: Database) -> None:
    await start(database)
    async with running(Journal(database, window_s=3600)) as journal:
        await journal.put(transcripts.insert("c1", utterance(1)))
        waits = [journal.put(transcripts.insert("c1", utterance(2)))]
        await settle()
        waits.append(journal.put(transcripts.insert("c1", utterance(3))))
        await settle()
        assert not any(wait.done() for wait in waits)
        await journal.drain()
        assert all(wait.done() for wait in waits)
        assert journal.commits == 2


async def test_a_lock_held_by_another_process_is_waited_for(sqlite_url: str) -> None:
    database = Database(sqlite_url, clock=SystemClock())
    await database.start()
    await start(database)
    other = sqlite3.connect(database.url.database or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with running(Journal(database)) as journal:
        stored = journal.put(transcripts.insert("c1", utterance(1)))
        await asyncio.wait({stored}, timeout=0.2)
        assert not stored.done()
        other.execute("ROLLBACK")
        other.close()
        await stored
    await database.close()


async def test_a_lost_connection_is_made_again(postgres_url: str) -> None:
    database = Database(postgres_url, clock=SystemClock())
    await database.start()
    await start(database)
    async with running(Journal(database)) as journal:
        for n in range(1, 20):
            await journal.put(transcripts.insert("c1", utterance(2 * n)))
            await cut_others(database)
            await journal.put(transcripts.insert("c1", utterance(2 * n + 1)))
        assert len(await texts(database)) == 38
    await database.close()


async def test_without_a_database_puts_fail_and_a_drain_ends(postgres_url: str) -> None:
    database = Database(postgres_url, clock=SystemClock())
    await database.start()
    await start(database)
    gone = Database(postgres_url.replace("coach_test", "no_such"), clock=SystemClock())
    journal = Journal(gone, retry_s=0.2)
    stored = [journal.put(transcripts.insert("c1", utterance(n))) for n in range(1, 4)]
    await journal.drain()
    assert all(isinstance(s.exception(), StorageFailed) for s in stored)
    assert journal.pending == 0
    await gone.close()
    await database.close()


async def cut_others(database: Database) -> None:
    from sqlalchemy import text

    async with database.read() as conn:
        await conn.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
