"""Attacks on a server in a process of its own (trust.md G19, G21-G23), scaled to seconds.

The full figures are measured by `python -m bench hostile`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.api import attacks
from tests.api.engine_harness import DRIVERS

MB = 1_000_000


@pytest.fixture(params=DRIVERS, scope="module")
def target(request: pytest.FixtureRequest) -> Iterator[attacks.Target]:
    with attacks.target(request.param, connect_deadline_s=2) as target:
        yield target


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def test_malformed_payloads_packets_and_requests_crash_nothing_and_leak_nothing(
    target: attacks.Target, http: aiohttp.ClientSession
) -> None:
    logged = len(target.log())
    async with attacks.witness(target, http) as witness:
        await attacks.send_malformed_payloads(target, http, 3000)
        await attacks.send_malformed_packets(target, http, 460)
        statuses = await attacks.send_random_requests(target, 130)
    assert len(statuses) == 130 and max(statuses) < 500
    assert target.process.is_running() and witness.grown <= 150 * MB
    assert witness.p95_s <= 0.5
    log = target.log()[logged:]
    assert "Traceback" not in log and len(log) <= 400 * 100


async def test_endless_attachments_are_not_kept(target: attacks.Target, http: aiohttp.ClientSession) -> None:
    async with attacks.witness(target, http) as witness:
        await attacks.send_attachments(target, http, clients=4, megabytes=10)
    assert witness.grown <= 96 * MB
    assert witness.p95_s <= 0.5


async def test_answers_nobody_reads_are_not_kept(target: attacks.Target, http: aiohttp.ClientSession) -> None:
    async with attacks.witness(target, http) as witness:
        await attacks.ask_and_never_read(target, http, 60_000)
    assert witness.grown <= 64 * MB
    assert witness.p95_s <= 0.5
    assert "a reader too slow for what it asked" in target.log()


async def test_pongs_nobody_reads_are_not_kept(target: attacks.Target, http: aiohttp.ClientSession) -> None:
    async with attacks.witness(target, http) as witness:
        await attacks.ping_and_never_read(target, http, 200_000)
    assert witness.grown <= 8 * MB


async def test_strangers_in_number_are_served_patiently_and_then_shown_out(
    target: attacks.Target, http: aiohttp.ClientSession
) -> None:
    async with attacks.witness(target, http) as witness:
        strangers = [attacks.connected(target, http, connect=False) for _ in range(150)]
        sockets = await asyncio.gather(*(stranger.__aenter__() for stranger in strangers))
        await asyncio.gather(*(socket.closed(15) for socket in sockets))
        for stranger in strangers:
            await stranger.__aexit__(None, None, None)
    assert witness.p95_s <= 0.5
