"""A hundred practice sessions at once, each a user's: start, twenty turns with the customer's answer, stop,
and the feedback polled as the web client does.

`saturated`: each session says its next line as soon as the customer has answered, so a turn waits for
ninety-nine others. `paced`: each session speaks every ten seconds, as people do. Rows are counted in the
database afterwards: every turn that was answered must be there, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvloop
from sqlalchemy import text

from bench._results import Bar, Medians, Repeated, medians, note, save, spread
from bench._server import KEY, Running, pin_load, serving
from coach_server.clock import SystemClock
from coach_server.storage.database import Database
from tests.engines import servers

SESSIONS = 100
TURNS = 20
PACED_TURNS = 4
EVERY_S = 10.0
POLL_S = 0.5
WITHIN_S = 900.0
COUNT = "SELECT count(*), count(DISTINCT message_id) FROM roleplay_transcripts WHERE speaker = 'user'"
LINES = (
    "Good morning, how has your week been, busy with the trade fair?",
    "Shall we look at your planning first, and then see whether it makes sense to go on?",
    "How do you plan the rounds of your fitters today?",
    "What happens when somebody is ill in the morning?",
    "So if I understand you well you lose half a day a week, is that right?",
    "What does that cost you in a year?",
    "Suppose it ran by itself, what would you do with that time?",
    "Who else decides about this in your company?",
    "I suggest a pilot of two weeks with four fitters, from Monday. Does that suit you?",
    "What would you need to see to call it a success?",
)


@dataclass(slots=True)
class Load:
    """What was asked and answered. `took`: seconds by kind of call."""

    acknowledged: int = 0
    refused: int = 0
    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    module: str = "coach_server"
    env: dict[str, str] = field(default_factory=dict)
    count: Callable[[Running], tuple[int, int]] = field(default=lambda running: _rows_of_sqlite(running))


def main() -> None:
    with _postgres() as url:
        uvloop.run(measure(url))


async def measure(postgres: str | None) -> None:
    pin_load()
    figures: Repeated = {}
    lost = 0
    for variant in _variants(postgres):
        async with serving(variant.module, env=variant.env) as running:
            load = Load()
            note(figures, variant.name, await _saturated(running, load))
            note(figures, variant.name, await _paced(running, load))
            rows, different = await asyncio.to_thread(variant.count, running)
            counted = {"refused": load.refused, "answered": load.acknowledged, "stored": rows}
            note(figures, variant.name, counted)
            lost += rows != different or not load.acknowledged <= rows <= load.acknowledged + load.refused
    _tell(medians(figures), lost)


def _variants(postgres: str | None) -> list[Variant]:
    variants = [Variant("SQLite")]
    if postgres is not None:
        variants.append(Variant("PostgreSQL", env={"DATABASE_URL": postgres}, count=_counting(postgres)))
    return [*variants, Variant("one INSERT a turn", "bench._insert_only")]


def _tell(table: Medians, lost: int) -> None:
    bars = [Bar("runs in which turns stored differ from turns answered", lost, 0, "runs")]
    bare, ours = table["one INSERT a turn"], table["SQLite"]
    times = [ours[kind] / bare[kind] for kind in ("CPU ms/turn", "CPU ms/turn, paced")]
    notes = [
        f"{SESSIONS} sessions of {TURNS} turns, saturated; then {PACED_TURNS} turns of each, one in "
        f"{EVERY_S:g} s. Offline: no model is asked.",
        "A saturated turn waits for those of all other sessions: its latency is that queue, not the answer.",
        f"Against one INSERT a turn over the same HTTP: {times[0]:.0f} times the CPU saturated, "
        f"{times[1]:.0f} times paced. It buys the reading of both turns by the method, the customer, steps, "
        "hints and score.",
    ]
    save("practice", "a hundred practice sessions at once", table, bars, rounds=1, notes=notes)


# --- load


async def _saturated(running: Running, load: Load) -> dict[str, float]:
    begun, cpu = time.perf_counter(), running.cpu_s()
    async with _http() as http:
        talks = [Talk(running, http, load, f"user-{number}") for number in range(SESSIONS)]
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*(talk.whole() for talk in talks))
    seconds, used = time.perf_counter() - begun, running.cpu_s() - cpu
    figures = {
        "sessions/s": SESSIONS / seconds,
        "turns/s": SESSIONS * TURNS / seconds,
        "CPU ms/turn": used / (SESSIONS * TURNS) * 1000,
    }
    for kind in ("start", "message", "stop", "feedback"):
        figures |= spread(load.took[kind], kind)
    load.took.clear()
    return figures


async def _paced(running: Running, load: Load) -> dict[str, float]:
    async with _http() as http:
        talks = [Talk(running, http, load, f"calm-{number}") for number in range(SESSIONS)]
        for talk in talks:
            await talk.start()
        load.took.clear()
        cpu = running.cpu_s()
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*(_calm(talk, number) for number, talk in enumerate(talks)))
        used = running.cpu_s() - cpu
    turns = SESSIONS * PACED_TURNS
    return {**spread(load.took["message"], "paced message"), "CPU ms/turn, paced": used / turns * 1000}


async def _calm(talk: Talk, number: int) -> None:
    begun = time.perf_counter() + number * EVERY_S / SESSIONS
    for turn in range(PACED_TURNS):
        await asyncio.sleep(max(0.0, begun + turn * EVERY_S - time.perf_counter()))
        await talk.say(LINES[turn % len(LINES)])


def _http() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=SESSIONS),
        timeout=aiohttp.ClientTimeout(total=120),
        headers={"x-api-key": KEY},
    )


@dataclass(slots=True)
class Talk:
    running: Running
    http: aiohttp.ClientSession
    load: Load
    user: str
    path: str = ""

    async def whole(self) -> None:
        await self.start()
        for number in range(TURNS):
            await self.say(LINES[number % len(LINES)])
        await self._ask("stop", "POST", f"{self.path}/stop")
        await self._feedback()

    async def start(self) -> None:
        wish = {"userId": self.user, "language": "en"}
        answer = await self._ask("start", "POST", "/api/roleplay/sessions/start", wish)
        self.path = f"/api/roleplay/sessions/{answer['sessionId']}"

    async def say(self, words: str) -> None:
        said = {"text": words, "messageId": str(uuid.uuid4())}
        if await self._ask("message", "POST", f"{self.path}/message", said):
            self.load.acknowledged += 1
        else:
            self.load.refused += 1

    async def _feedback(self) -> None:
        """From the stop to the first answer with a score."""
        begun = time.perf_counter()
        while not await self._ask("poll", "GET", f"{self.path}/feedback"):  # noqa: ASYNC110 - as it is asked
            await asyncio.sleep(POLL_S)
        self.load.took["feedback"].append(time.perf_counter() - begun)

    async def _ask(self, kind: str, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Empty when it was refused."""
        begun = time.perf_counter()
        async with self.http.request(method, self.running.url + path, json=body) as answer:
            document = await answer.json()
        self.load.took[kind].append(time.perf_counter() - begun)
        return dict(document) if answer.status == 200 else {}


# --- rows


def _rows_of_sqlite(running: Running) -> tuple[int, int]:
    file = next(iter(sorted(running.folder.glob("*.sqlite3"))))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        rows, different = connection.execute(COUNT).fetchone()
        return int(rows), int(different)


def _counting(url: str) -> Callable[[Running], tuple[int, int]]:
    async def work() -> tuple[int, int]:
        database = Database(url, clock=SystemClock(), pool_size=1)
        try:
            async with database.read() as connection:
                rows, different = (await connection.execute(text(COUNT))).one()
            return int(rows), int(different)
        finally:
            await database.close()

    return lambda _: asyncio.run(work())


@contextmanager
def _postgres() -> Iterator[str | None]:
    try:
        with servers.postgres_server() as server:
            yield servers.create_database(server, "coach_bench_practice")
            servers.drop_database(server, "coach_bench_practice")
    except servers.NotAvailable:
        yield None


if __name__ == "__main__":
    main()
