"""What a durable acknowledgement costs: the journal's group commit against a commit for each row.

Both engines as they are in production (SQLite synchronous=FULL, PostgreSQL synchronous_commit=on), on this
machine's disk. `paced`: 100 segments a second, as 100 talking calls send them; `flood`: as fast as they come.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from coach_server.clock import SystemClock
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.storage import conversations, transcripts
from coach_server.storage.conversations import NewConversation
from coach_server.storage.database import Database
from coach_server.storage.journal import Journal
from coach_server.storage.tables import utterances
from tests.engines import servers

PACE_PER_S = 100
PACED_S = 10
FLOOD_ROWS = 20_000
ONE_BY_ONE_ROWS = 500
TEXT = (
    "We looked at it last year, but the price for the whole team was more than the budget we had left then."
)

Store = Callable[[Utterance], Awaitable[None]]


def main() -> None:
    for name, opened in (("SQLite", _sqlite), ("PostgreSQL", _postgres)):
        try:
            with opened() as url:
                asyncio.run(_measure(name, url))
        except servers.NotAvailable as error:
            print(f"{name}: not measured: {error}")


async def _measure(name: str, url: str) -> None:
    database = Database(url, clock=SystemClock())
    await database.start()
    journal = Journal(database)
    owner = asyncio.create_task(journal.run())
    await journal.put(conversations.insert(_conversation()))
    sequence = itertools.count(1)

    async def grouped(utterance: Utterance) -> None:
        await journal.put(transcripts.insert("bench", utterance))

    async def one_by_one(utterance: Utterance) -> None:
        row = transcripts.insert("bench", utterance).row
        async with database.transaction() as conn:
            await conn.execute(utterances.insert(), row)

    print(f"{name}")
    for label, store, rows in (
        ("commit per row", one_by_one, ONE_BY_ONE_ROWS),
        ("group commit", grouped, FLOOD_ROWS),
    ):
        print(f"  paced {PACE_PER_S}/s  {label:15} {_told(await _paced(store, sequence))}")
        print(f"  flood       {label:15} {await _flood(store, sequence, rows)}")
    owner.cancel()
    await asyncio.gather(owner, return_exceptions=True)
    await database.close()


async def _paced(store: Store, sequence: Iterator[int]) -> list[float]:
    """Milliseconds from hand-over to "on disk", at a steady pace that waits for nobody."""
    clock = SystemClock()
    took: list[float] = []

    async def one() -> None:
        begun = time.perf_counter()
        await store(_utterance(next(sequence)))
        took.append((time.perf_counter() - begun) * 1000)

    first = clock.now()
    async with asyncio.TaskGroup() as group:
        for n in range(PACE_PER_S * PACED_S):
            await clock.sleep_until(first + n / PACE_PER_S)
            group.create_task(one())
    return took


async def _flood(store: Store, sequence: Iterator[int], rows: int) -> str:
    """200 callers, each sending its next as soon as the last one is on disk."""
    left = iter(range(rows))
    took: list[float] = []

    async def caller() -> None:
        for _ in left:
            begun = time.perf_counter()
            await store(_utterance(next(sequence)))
            took.append((time.perf_counter() - begun) * 1000)

    begun, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(200)))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    return f"{_told(took)}  {rows / seconds:8.0f} rows/s  {cpu / rows * 1e6:6.1f} us CPU/row"


def _told(took: list[float]) -> str:
    cuts = statistics.quantiles(took, n=100)
    return f"ack p50 {cuts[49]:7.2f}  p95 {cuts[94]:7.2f}  p99 {cuts[98]:7.2f} ms"


def _utterance(sequence: int) -> Utterance:
    return Utterance(
        sequence, Speaker.CUSTOMER, TEXT, 1.7e9 + sequence, 1.7e9 + sequence, f"segment-{sequence}"
    )


def _conversation() -> NewConversation:
    return NewConversation(
        id="bench", principal="bench", mode="auto", language="en", started_at=1.7e9, resume_digest=""
    )


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="coach-bench-") as folder:
        yield f"sqlite:///{Path(folder) / 'bench.db'}"


@contextmanager
def _postgres() -> Iterator[str]:
    with servers.postgres_server() as server:
        yield servers.create_database(server, "coach_bench")
        servers.drop_database(server, "coach_bench")


if __name__ == "__main__":
    main()
