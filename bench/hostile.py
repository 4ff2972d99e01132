"""The attacks of trust.md in full (G19, G21-G23): what the server grows by, and what a bystander notices."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import uvloop

from tests.api import attacks

RESULT = Path(__file__).parent / "results" / "hostile.json"
Attack = Callable[[attacks.Target, aiohttp.ClientSession], Awaitable[object]]


async def malformed(target: attacks.Target, http: aiohttp.ClientSession) -> None:
    await attacks.send_malformed_payloads(target, http, 3000)
    await attacks.send_malformed_packets(target, http, 460)
    statuses = await attacks.send_random_requests(target, 130)
    assert max(statuses) < 500


async def strangers(target: attacks.Target, http: aiohttp.ClientSession) -> None:
    waiting = [attacks.connected(target, http, connect=False) for _ in range(800)]
    sockets = [await stranger.__aenter__() for stranger in waiting]
    await asyncio.gather(*(socket.closed(15) for socket in sockets))
    for stranger in waiting:
        await stranger.__aexit__(None, None, None)


ATTACKS: dict[str, Attack] = {
    "3000 payloads, 460 packets, 130 requests": malformed,
    "216 MB of attachments from 4 clients": lambda target, http: attacks.send_attachments(
        target, http, 4, 44
    ),
    "300 000 answers nobody reads": lambda target, http: attacks.ask_and_never_read(target, http, 300_000),
    "800 sockets that never CONNECT, until closed": strangers,
}


def main() -> None:
    results = {driver: uvloop.run(measure(driver)) for driver in ("lean", "stock")}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=1))
    print(f"{'':46}{'driver':>8}{'seconds':>10}{'rss + MB':>10}{'witness p95 ms':>16}{'max ms':>10}")
    for driver, rows in results.items():
        for name, row in rows.items():
            print(f"{name:46}{driver:>8}" + "".join(f"{row[key]:>{width}}" for key, width in WIDTHS.items()))


WIDTHS = {"seconds": 10, "grown_mb": 10, "p95_ms": 16, "max_ms": 10}


async def measure(driver: str) -> dict[str, dict[str, float]]:
    rows = {}
    for name, attack in ATTACKS.items():
        with attacks.target(driver) as target:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
                start = time.perf_counter()
                async with attacks.witness(target, http) as witness:
                    await attack(target, http)
                rows[name] = {
                    "seconds": round(time.perf_counter() - start, 1),
                    "grown_mb": round(witness.grown / 1e6, 1),
                    "p95_ms": round(witness.p95_s * 1000, 1),
                    "max_ms": round(max(witness.took_s) * 1000, 1),
                }
    return rows
