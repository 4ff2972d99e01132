"""Memory of an idle connection and of a live call of fifty segments, beside the library's own socket driver.

Resident memory of the whole server process. What it has once, before anybody comes, stands in its own row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import uvloop

from bench._client import Client, Talk, close, connect, start_calls
from bench._results import Bar, Medians, Repeated, medians, note, save
from bench._server import Running, pin_load, serving

ROUNDS = 2
WARM = 50
CONNECTIONS = 1000
CALLS, SEGMENTS = 200, 50
UNDER_WAY = 100
DRIVERS = ("lean", "stock")


def main() -> None:
    uvloop.run(measure())


async def measure() -> None:
    pin_load()
    figures: Repeated = {}
    for _ in range(ROUNDS):
        for driver in DRIVERS:
            async with serving(env={"SOCKET_DRIVER": driver}) as running:
                note(figures, f"{driver} driver", await _grown(running))
    table = medians(figures)
    _tell(table)


def _tell(table: Medians) -> None:
    lean, stock = table["lean driver"], table["stock driver"]
    limits = {"KB per idle connection": 0.75, "KB per connection with a call": 1.0}
    bars = [
        Bar(f"{row}, against the stock driver", lean[row] / stock[row], limit, "times")
        for row, limit in limits.items()
    ]
    notes = [f"{CONNECTIONS} idle connections; {CALLS} calls of {SEGMENTS} segments each, all of them live."]
    save("memory", "memory of connections and calls", table, bars, rounds=ROUNDS, notes=notes)


async def _grown(running: Running) -> dict[str, float]:
    """KB more for each, over a server that has already served some."""
    empty = running.rss_kb()
    warm = await connect(running.port, WARM)
    await _talk(warm, await start_calls(warm))
    before = running.rss_kb()
    idle = await connect(running.port, CONNECTIONS)
    connected = running.rss_kb()
    talking = idle[:CALLS]
    await _talk(talking, await start_calls(talking))
    called = running.rss_kb()
    await close(warm + idle)
    per_idle, per_call = (connected - before) / CONNECTIONS, (called - connected) / CALLS
    return {
        "MB of an empty server": empty / 1024,
        "KB per idle connection": per_idle,
        "KB per call of fifty segments": per_call,
        "KB per connection with a call": per_idle + per_call,
    }


async def _talk(clients: Sequence[Client], calls: Sequence[str]) -> None:
    """Every call says its segments; at most some are under way at once."""
    talk, room = Talk(), asyncio.Semaphore(UNDER_WAY)

    async def one(client: Client, call_id: str) -> None:
        for number in range(SEGMENTS):
            async with room:
                await client.ask("TRANSCRIPT", talk.segment(call_id, number))

    await asyncio.gather(*(one(client, call) for client, call in zip(clients, calls, strict=True)))


if __name__ == "__main__":
    main()
