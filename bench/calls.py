"""Whole calls: TRANSCRIPT with an ack that comes when it is on disk, against three ways to do less or worse.

`saturated`: fifty calls, each with four events under way, the server on one core. `paced`: fifty calls that
talk twice a second. Rows are counted in the database afterwards: all that was acknowledged must be there,
once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import uvloop
from sqlalchemy import text

from bench._client import Client, Talk, close, connect, start_calls
from bench._results import Bar, Medians, Repeated, medians, note, save, spread
from bench._server import Running, pin_load, serving
from coach_server.clock import SystemClock
from coach_server.storage.database import Database
from tests.engines import servers

ROUNDS = 3
CALLS = 50
UNDER_WAY = 4
SATURATED_S = 1.5
PACE_PER_S = 100
PACED_S = 3.0
# A socket may send a thousand events at once, and then 1000 a minute (the server's own limit).
MOST_EVENTS = 900
COUNT = "SELECT count(*), count(DISTINCT segment_id) FROM utterances"


@dataclass(slots=True)
class Load:
    """What was sent and answered. `took`: seconds from sending to the ack."""

    sent: int = 0
    acked: int = 0
    refused: int = 0
    took: list[float] = field(default_factory=list)

    def differs(self, rows: int, different: int) -> bool:
        """Whether a row is missing or doubled. What was refused as too slow may be stored all the same."""
        return rows != different or not self.acked <= rows <= self.acked + self.refused


@dataclass(frozen=True, slots=True)
class Variant:
    """A server, and how to count its rows and different segments; None where nothing is stored."""

    name: str
    module: str = "coach_server"
    env: dict[str, str] = field(default_factory=dict)
    count: Callable[[Running], tuple[int, int]] | None = None


def main() -> None:
    with _postgres() as url:
        uvloop.run(measure(url))


async def measure(postgres: str | None) -> None:
    pin_load()
    figures: Repeated = {}
    differing = 0
    for _ in range(ROUNDS):
        for variant in _variants(postgres):
            async with serving(variant.module, env=variant.env) as running:
                found, load = await _both_loads(running)
                note(figures, variant.name, found)
                if variant.count is not None:
                    rows, different = await asyncio.to_thread(variant.count, running)
                    note(figures, variant.name, {"acknowledged": load.acked, "rows": rows})
                    differing += load.differs(rows, different) and variant.module == "coach_server"
    table = medians(figures)
    parts = await _where_the_time_goes(table["SQLite"]["CPU us/event"])
    _tell(table, differing, parts)


def _tell(table: Medians, differing: int, parts: dict[str, float]) -> None:
    bars = [
        Bar(f"ack p95 at {PACE_PER_S} segments/s, {name}", table[name]["ack p95 ms"], 50)
        for name in ("SQLite", "PostgreSQL")
        if name in table
    ]
    bars.append(Bar("runs in which rows stored differ from segments acknowledged", differing, 0, "runs"))
    notes = [
        f"{CALLS} calls, {UNDER_WAY} events of each under way; paced: {PACE_PER_S} segments/s.",
        f"Against a commit per write: {_ratio(table, 'commit per write'):.2f} times the events.",
        f"Against the socket floor alone: {_ratio(table, 'sockets alone'):.3f} times the events.",
        "CPU us of a TRANSCRIPT by part: " + ", ".join(f"{part} {us:g}" for part, us in parts.items()) + ".",
    ]
    if "PostgreSQL" not in table:
        notes.append("PostgreSQL was not measured: none could be started.")
    save("calls", "events with durable acks", table, bars, rounds=ROUNDS, notes=notes)


def _ratio(table: Medians, base: str) -> float:
    events = "events/s, saturated"
    return table["SQLite"][events] / table[base][events]


def _variants(postgres: str | None) -> list[Variant]:
    variants = [Variant("SQLite", count=_rows_of_sqlite)]
    if postgres is not None:
        variants.append(Variant("PostgreSQL", env={"DATABASE_URL": postgres}, count=_counting(postgres)))
    return [
        *variants,
        Variant("commit per write", "bench._one_by_one", count=_rows_of_sqlite),
        Variant("python-socketio, commit per event", "bench._naive", count=_rows_of_sqlite),
        Variant("sockets alone", "bench._floor"),
    ]


# --- load


async def _both_loads(running: Running) -> tuple[dict[str, float], Load]:
    talk, all_of_it = Talk(), Load()
    async with _calls(running) as (clients, calls):
        saturated = await _saturate(running, clients, calls, talk, all_of_it)
    async with _calls(running) as (clients, calls):
        paced = await _pace(running, clients, calls, talk, all_of_it)
    return {**saturated, **paced, "refused": all_of_it.refused}, all_of_it


@asynccontextmanager
async def _calls(running: Running) -> AsyncIterator[tuple[list[Client], list[str]]]:
    clients = await connect(running.port, CALLS)
    try:
        yield clients, await start_calls(clients)
    finally:
        await close(clients)


async def _saturate(
    running: Running, clients: list[Client], calls: list[str], talk: Talk, load: Load
) -> dict[str, float]:
    """Each ack is answered by the next event."""
    until = time.perf_counter() + SATURATED_S * 1.25
    left = dict.fromkeys(calls, MOST_EVENTS)

    def say(client: Client, call_id: str) -> None:
        if time.perf_counter() < until and left[call_id]:
            left[call_id] -= 1
            _say(client, call_id, MOST_EVENTS - left[call_id], talk, load, lambda: say(client, call_id))

    for client, call_id in zip(clients, calls, strict=True):
        for _ in range(UNDER_WAY):
            say(client, call_id)
    await asyncio.sleep(SATURATED_S / 4)
    begun, before, cpu = time.perf_counter(), load.acked, running.cpu_s()
    await asyncio.sleep(SATURATED_S)
    done, used = load.acked - before, running.cpu_s() - cpu
    rate = done / (time.perf_counter() - begun)
    await _settled(load)
    load.took.clear()
    return {"events/s, saturated": rate, "CPU us/event": used / done * 1e6}


async def _pace(
    running: Running, clients: list[Client], calls: list[str], talk: Talk, load: Load
) -> dict[str, float]:
    begun, cpu, count = time.perf_counter(), running.cpu_s(), int(PACE_PER_S * PACED_S)
    for number in range(count):
        await asyncio.sleep(max(0.0, begun + number / PACE_PER_S - time.perf_counter()))
        place = number % CALLS
        _say(clients[place], calls[place], number // CALLS, talk, load, lambda: None)
    await _settled(load)
    used = running.cpu_s() - cpu
    return {**spread(load.took, "ack"), "CPU us/event, paced": used / count * 1e6}


def _say(client: Client, call_id: str, number: int, talk: Talk, load: Load, then: Callable[[], None]) -> None:
    sent = time.perf_counter()
    load.sent += 1

    def acked(raw: bytes, at: float) -> None:
        load.took.append(at - sent)
        if b'"ok":true' in raw:
            load.acked += 1
        else:
            load.refused += 1
        then()

    client.emit("TRANSCRIPT", talk.segment(call_id, number), acked)


async def _settled(load: Load) -> None:
    async with asyncio.timeout(20):
        while load.acked + load.refused < load.sent:  # noqa: ASYNC110 - acks come by callback
            await asyncio.sleep(0.01)


# --- rows


def _rows_of_sqlite(running: Running) -> tuple[int, int]:
    file = next(iter(sorted(running.folder.glob("*.sqlite3"))))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        rows, different = connection.execute(COUNT).fetchone()
        return int(rows), int(different)


def _counting(url: str) -> Callable[[Running], tuple[int, int]]:
    """Counts and clears: the runs share one database."""

    async def work() -> tuple[int, int]:
        database = Database(url, clock=SystemClock(), pool_size=1)
        try:
            async with database.transaction() as connection:
                counted = await connection.execute(text(COUNT))
                await connection.execute(text("DELETE FROM utterances"))
            rows, different = counted.one()
            return int(rows), int(different)
        finally:
            await database.close()

    return lambda _: asyncio.run(work())


@contextmanager
def _postgres() -> Iterator[str | None]:
    try:
        with servers.postgres_server() as server:
            yield servers.create_database(server, "coach_bench_calls")
            servers.drop_database(server, "coach_bench_calls")
    except servers.NotAvailable:
        yield None


# --- where the time goes


async def _where_the_time_goes(us_per_event: float) -> dict[str, float]:
    """CPU microseconds of a TRANSCRIPT by part; what other threads use (the writer's) stands by itself."""
    async with serving("bench._sampled") as running, _calls(running) as (clients, calls):
        pid = running.process.pid
        load, samples = Load(), running.folder / "samples.json"
        loop_before, all_before = _thread_s(running), running.cpu_s()
        os.kill(pid, signal.SIGUSR1)
        await _saturate(running, clients, calls, Talk(), load)
        os.kill(pid, signal.SIGUSR2)
        while not samples.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
        in_loop, in_all = _thread_s(running) - loop_before, running.cpu_s() - all_before
        document = json.loads(samples.read_text())
    if os.environ.get("BENCH_LINES"):
        _print_lines(document["lines"])
    share = in_loop / in_all
    total = sum(document["parts"].values())
    parts = {part: round(us_per_event * share * s / total, 1) for part, s in document["parts"].items()}
    return {**parts, "other threads (SQLite, embeddings)": round(us_per_event * (1 - share), 1)}


def _thread_s(running: Running) -> float:
    """CPU seconds of the main thread, which runs the loop."""
    main = next(t for t in running.process.threads() if t.id == running.process.pid)
    return main.user_time + main.system_time


def _print_lines(lines: dict[str, float]) -> None:
    total = sum(lines.values())
    for where, seconds in lines.items():
        print(f"  {seconds / total:6.1%}  {where}")


if __name__ == "__main__":
    main()
