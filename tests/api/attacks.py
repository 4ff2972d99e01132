"""Attacks on a server in a process of its own, with a witness who must not notice. For tests and bench."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.api.engine_harness import RawWebSocket

ROOT = Path(__file__).parents[2]
EVENTS = ["TRANSCRIPT", "PING", "ASK_MUCH", "connect", "disconnect", "*", "", "constructor", "x" * 300]


@dataclass
class Target:
    """A server process, and what it wrote to its standard error."""

    port: int
    process: psutil.Process
    errors: Path

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/socket.io/?EIO=4"

    def rss(self) -> int:
        return int(self.process.memory_info().rss)

    def log(self) -> str:
        return self.errors.read_text()


@contextlib.contextmanager
def target(driver: str, connect_deadline_s: float = 8.0) -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors"
        with errors.open("w") as sink:
            child = subprocess.Popen(
                [sys.executable, "-m", "bench._peer", driver, str(connect_deadline_s)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=sink,
            )
        assert child.stdout is not None
        try:
            yield Target(int(child.stdout.readline()), psutil.Process(child.pid), errors)
        finally:
            child.kill()
            child.wait()
            child.stdout.close()


@dataclass
class Witness:
    """An ordinary call that goes on during an attack."""

    took_s: list[float] = field(default_factory=list)
    grown: int = 0  # bytes of the server at their highest, above what it had before

    @property
    def p95_s(self) -> float:
        return sorted(self.took_s)[int(len(self.took_s) * 0.95)]


@contextlib.asynccontextmanager
async def witness(target: Target, http: aiohttp.ClientSession) -> AsyncIterator[Witness]:
    """Pings all the time; fails the block it surrounds when an answer stays away."""
    seen = Witness()
    before = target.rss()
    async with connected(target, http) as raw:
        watching = asyncio.create_task(_watch(raw, seen, target, before))
        try:
            yield seen
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
    assert seen.took_s


async def _watch(raw: RawWebSocket, seen: Witness, target: Target, before: int) -> None:
    while True:
        seen.grown = max(seen.grown, target.rss() - before)
        start = time.perf_counter()
        await raw.send('42["PING"]')
        while not str(await raw.read(5)).startswith('42["PONG"'):
            await raw.send("3")
        seen.took_s.append(time.perf_counter() - start)
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def connected(
    target: Target, http: aiohttp.ClientSession, connect: bool = True
) -> AsyncIterator[RawWebSocket]:
    async with http.ws_connect(f"{target.endpoint}&transport=websocket") as ws:
        raw = RawWebSocket(ws)
        await raw.read()
        if connect:
            await raw.connect()
        yield raw


async def send_malformed_payloads(target: Target, http: aiohttp.ClientSession, count: int) -> None:
    """Well-formed packets whose payloads are not: every one is followed by an event that must be heard."""
    chance = random.Random(1)
    async with connected(target, http) as raw:
        for sent in range(count):
            event = json.dumps([chance.choice(EVENTS[:2] + EVENTS[3:]), *junk(chance)])
            await raw.send(f"42{chance.choice(['', '7'])}{event}")
            if sent % 500 == 499:
                await must_answer(raw)


async def send_malformed_packets(target: Target, http: aiohttp.ClientSession, count: int) -> None:
    """Frames that are no packets at all; a server may close the connection, never more."""
    chance = random.Random(2)
    sent = 0
    while sent < count:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            async with connected(target, http) as raw:
                while sent < count:
                    sent += 1
                    await raw.send(bad_frame(chance))
                await must_answer(raw)


async def must_answer(raw: RawWebSocket) -> None:
    await raw.send('42["PING"]')
    while not str(await raw.read(10)).startswith('42["PONG"'):
        pass


def junk(chance: random.Random) -> list[Any]:
    leaf: list[Any] = [None, True, -1, 2**63, 1e300, "", "\x00", "שלום", "x" * 9000, [], {}, "__proto__"]
    value: Any = chance.choice(leaf)
    for _ in range(chance.choice([0, 1, 2, 40])):
        value = chance.choice([[value], {"text": value}, {"conversationId": value, "text": ["x"]}])
    return [value] * chance.randrange(4)


def bad_frame(chance: random.Random) -> str | bytes:
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(200))
    kinds = [
        "".join(chance.choices(string.printable, k=chance.randrange(1, 80))),
        f"4{chance.randrange(10)}{chance.choice(['', '-', '1-', '/', '/x,', '99999'])}"
        + "".join(chance.choices('[]{}",:0189nulltrue', k=chance.randrange(60))),
        "42" + "[" * chance.randrange(1, 5000),
        f'45{chance.randrange(1, 9)}-["TRANSCRIPT",{{"_placeholder":true,"num":{chance.randrange(-3, 9)}}}]',
        "4" + "[" * 100_000,
        '42["PING","\\ud83d"]',
        chance.choice("012356789"),
        "43" + str(chance.randrange(3)) + "[]",
    ]  # fmt: skip
    # A close frame of Engine.IO is a good-bye, not malformed.
    frame = chance.choice(kinds)
    return frame if frame[:1] != "1" and frame[:2] != "41" else "?" + frame


async def send_random_requests(target: Target, count: int) -> list[int]:
    """The statuses of that many senseless HTTP requests."""
    chance = random.Random(3)
    statuses = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write(random_request(chance))
        # Not to its end: a body that was announced and does not come is waited for.
        answer = await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        if found := re.match(rb"HTTP/1\.\d (\d+)", answer):
            statuses.append(int(found[1]))
    return statuses


def random_request(chance: random.Random) -> bytes:
    method = chance.choice(["GET", "POST", "OPTIONS", "PUT", "HEAD", "DELETE", "BREW"])
    query = "&".join(
        f"{chance.choice(['EIO', 'transport', 'sid', 'j', 't', 'd'])}="
        f"{chance.choice(['4', '3', 'polling', 'websocket', '%00', '%zz', 'x' * 300, ''])}"
        for _ in range(chance.randrange(6))
    )
    headers = [f"Host: {chance.choice(['x', '', 'a b'])}", "Connection: close"]
    if chance.random() < 0.4:
        headers.append(f"Origin: {chance.choice(['null', 'https://agent.example', 'x' * 2000])}")
    if chance.random() < 0.4:
        headers += ["Upgrade: websocket", f"Sec-WebSocket-Key: {chance.choice(['', 'x', 'A' * 24])}"]
    body = "".join(chance.choices(string.printable, k=chance.randrange(60))).encode()
    if chance.random() < 0.6:
        headers.append(f"Content-Length: {chance.choice([len(body), 0, 10**30, -1, 'x'])}")
    head = f"{method} /socket.io/?{query} HTTP/1.1\r\n" + "\r\n".join(headers) + "\r\n\r\n"
    return head.encode() + body


async def send_attachments(target: Target, http: aiohttp.ClientSession, clients: int, megabytes: int) -> None:
    """Binary events that announce more than they may carry, and never end."""

    async def one() -> None:
        async with connected(target, http) as raw:
            for _ in range(megabytes):
                await raw.send('454-["TRANSCRIPT",{"_placeholder":true,"num":3}]')
                for _ in range(4):
                    await raw.send(b"x" * 249_000)
                await raw.send('459999999-["TRANSCRIPT"]')
                await raw.send(b"x" * 249_000)
            await must_answer(raw)

    await asyncio.gather(*(one() for _ in range(clients)))


async def ask_and_never_read(target: Target, http: aiohttp.ClientSession, answers: int) -> None:
    """Ask for answers, a thousand at a time, and read none of them; until the server cuts the connection."""
    async with deaf(target) as writer:
        with contextlib.suppress(ConnectionError):
            for _ in range(answers // 1000):
                await write(writer, 0x81, b'42["ASK_MUCH",1000]')
                await asyncio.sleep(0.002)
            async with asyncio.timeout(20):
                while True:
                    await write(writer, 0x81, b"3")
                    await asyncio.sleep(0.01)


async def ping_and_never_read(target: Target, http: aiohttp.ClientSession, pings: int) -> None:
    """Send pings of the WebSocket protocol and read no pong."""
    async with deaf(target) as writer:
        with contextlib.suppress(ConnectionError):
            for _ in range(pings // 100):
                writer.write((bytes([0x89, 0x80 | 125]) + b"\0\0\0\0" + b"x" * 125) * 100)
                await writer.drain()


@contextlib.asynccontextmanager
async def deaf(target: Target) -> AsyncIterator[asyncio.StreamWriter]:
    """A connected client that reads nothing after the handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port, limit=1024)
    try:
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        await write(writer, 0x81, b'40{"apiKey":"right"}')
        yield writer
    finally:
        writer.transport.abort()


async def write(writer: asyncio.StreamWriter, first_byte: int, data: bytes) -> None:
    writer.write(bytes([first_byte, 0x80 | len(data)]) + b"\0\0\0\0" + data)
    await writer.drain()
