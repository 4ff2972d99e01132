"""The socket floor alone: events, round trips, CPU and memory, against python-socketio as it comes and Node.

Each server is a process of its own on one core; the load comes from another, where there are two. Servers
take turns in every round; what counts is the ratio within one, as absolute figures drift with the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import uvloop

from bench._wire import Connection, close, connect, frame

ROUNDS = 2
SECONDS = 1.0
IDLE = 600
ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench" / "results" / "sockets.json"
TRANSCRIPT = "42" + json.dumps(
    [
        "TRANSCRIPT",
        {
            "conversationId": "3f2a9a52-6f0e-4c55-9a52-0f6f3b7f2a10",
            "speaker": "caller",
            "text": "we looked at it last year, but the price was more than the budget we had left for it",
            "isFinal": True,
            "timestamp": 1766750000000,
        },
    ]
)
PING = frame('42["PING"]')
TALK = frame(TRANSCRIPT) * 8 + PING

PEERS = {
    "lean": [sys.executable, "-m", "bench._peer", "lean"],
    "stock": [sys.executable, "-m", "bench._peer", "stock"],
    "python-socketio": [sys.executable, "-m", "bench._peer", "plain"],
    "node socket.io": ["node", "bench/_peer.mjs"],
}


def main() -> None:
    uvloop.run(measure())


async def measure() -> None:
    _pin(os.getpid(), -1)
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in PEERS if _is_there(name)}
    for _ in range(ROUNDS):
        for name, found in figures.items():
            for loads in ((_idle,), (_idle_deflate,), (_saturated_talk, _saturated_pings, _open_load)):
                with peer(name) as (port, process):
                    for load in loads:
                        for what, value in (await load(port, process)).items():
                            found.setdefault(what, []).append(value)
    table = {
        name: {what: round(statistics.median(values), 1) for what, values in found.items()}
        for name, found in figures.items()
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"rounds": ROUNDS, "cores": os.cpu_count(), "median": table}, indent=1))
    _print(table, figures)


def _is_there(name: str) -> bool:
    if name != "node socket.io":
        return True
    there = shutil.which("node") is not None and (ROOT / "node_modules" / "socket.io").exists()
    if not there:
        print("node socket.io: not measured: no Node.js, or its packages are not installed")
    return there


@contextmanager
def peer(name: str) -> Iterator[tuple[int, psutil.Process]]:
    """A server process on the first core; its port once it listens."""
    child = subprocess.Popen(PEERS[name], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        _pin(child.pid, 0)
        yield int(child.stdout.readline()), psutil.Process(child.pid)
    finally:
        child.kill()
        child.wait()


def _pin(pid: int, core: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        cores = sorted(os.sched_getaffinity(0)) if core == 0 else sorted(os.sched_getaffinity(pid))
        os.sched_setaffinity(pid, {0 if core == 0 else cores[core]})


async def _idle(port: int, process: psutil.Process) -> dict[str, float]:
    return {"KB per idle connection": await _idle_memory(port, process, deflate=False)}


async def _idle_deflate(port: int, process: psutil.Process) -> dict[str, float]:
    return {"the same, client offers deflate": await _idle_memory(port, process, deflate=True)}


async def _saturated_talk(port: int, process: psutil.Process) -> dict[str, float]:
    rate, cpu = await _saturate(port, process, 100, TALK, 9)
    return {"events/s, 8 TRANSCRIPT per PING": rate, "CPU us/event of that": cpu}


async def _saturated_pings(port: int, process: psutil.Process) -> dict[str, float]:
    rate, cpu = await _saturate(port, process, 50, PING, 1)
    return {"PING round trips/s": rate, "CPU us/round trip": cpu}


async def _saturate(
    port: int, process: psutil.Process, count: int, message: bytes, events: int
) -> tuple[float, float]:
    """Every connection sends the next message when the last was answered: events/s and CPU us/event."""
    connections = await connect(port, count)
    answered = 0

    def again(connection: Connection, pongs: int) -> None:
        nonlocal answered
        answered += pongs
        connection.transport.write(message)

    for connection in connections:
        connection.on_pong = again
        connection.transport.write(message)
    await asyncio.sleep(SECONDS / 4)
    start, before, cpu = time.perf_counter(), answered, _cpu(process)
    await asyncio.sleep(SECONDS)
    done = (answered - before) * events
    result = done / (time.perf_counter() - start), (_cpu(process) - cpu) / done * 1e6
    await close(connections)
    return result


def _cpu(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


async def _open_load(port: int, process: psutil.Process) -> dict[str, float]:
    """200 calls at 15 events a second each, one in nine a PING whose answer is timed."""
    connections = await connect(port, 200)
    took: list[float] = []
    for connection in connections:
        connection.on_pong = lambda connection, count: took.append(time.perf_counter() - connection.sent_at)
    words = frame(TRANSCRIPT)
    cpu = _cpu(process)
    start = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - start) < SECONDS:
        due = int(now * 200 * 15)
        for number in range(sent, due):
            connection = connections[number % 200]
            connection.send(PING if (number // 200) % 9 == 8 else words)
        sent = due
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.2)
    cpu = _cpu(process) - cpu
    await close(connections)
    ranks = statistics.quantiles(took, n=100)
    return {
        "CPU us/event, 200 x 15/s": cpu / sent * 1e6,
        "PING p50 ms": ranks[49] * 1000,
        "PING p99 ms": ranks[98] * 1000,
    }


async def _idle_memory(port: int, process: psutil.Process, deflate: bool) -> float:
    warm = await connect(port, 100, deflate)  # what a server allocates once
    before = process.memory_info().rss
    connections = await connect(port, IDLE, deflate)
    grown = process.memory_info().rss - before
    await close(warm + connections)
    return grown / IDLE / 1024


def _print(table: dict[str, dict[str, float]], figures: dict[str, dict[str, list[float]]]) -> None:
    names = list(table)
    print(f"{'':34}" + "".join(f"{name:>18}" for name in names))
    for what in table["lean"]:
        print(f"{what:34}" + "".join(f"{table[name][what]:>18,.1f}" for name in names))
    for base in names[1:]:
        print(f"{f'lean / {base}':34}" + "".join(f"{value:>18}" for value in ("", "", "")))
        for what in table["lean"]:
            print(f"  {what:32}{statistics.median(_ratios(figures, base, what)):>18.2f}")


def _ratios(figures: dict[str, dict[str, list[float]]], base: str, what: str) -> list[float]:
    return [ours / theirs for ours, theirs in zip(figures["lean"][what], figures[base][what], strict=True)]
