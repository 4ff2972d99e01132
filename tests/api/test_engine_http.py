"""Origins, CORS, bad requests, half-open connections and the drain, alike on both drivers."""

from __future__ import annotations

import asyncio
import random

import aiohttp
import pytest

from coach_server.testing import ManualClock
from tests.api.attacks import random_request
from tests.api.engine_harness import ALLOWED, DRIVERS, Driver, serve, until


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    return request.param  # type: ignore[no-any-return]


BAD_ORIGINS = [
    "https://evil.example",
    "https://agent.example.evil.example",
    "http://agent.example",
    "https://agent.example:444",
    "null",
    "",
]


@pytest.mark.parametrize("origin", BAD_ORIGINS)
async def test_another_origin_is_refused_on_polling_and_websocket(driver: Driver, origin: str) -> None:
    async with serve(driver) as served:
        headers = {"Origin": origin}
        async with served.http.get(f"{served.endpoint}&transport=polling", headers=headers) as response:
            assert (response.status, await response.text()) == (403, "Origin not allowed")
            assert "Access-Control-Allow-Origin" not in response.headers
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with served.raw(headers=headers):
                pass
        assert refused.value.status == 403
        assert not served.server.eio.sockets


async def test_an_origin_check_that_raises_refuses(driver: Driver) -> None:
    def raises(origin: str | None) -> bool:
        raise ValueError(origin)

    async with serve(driver, is_origin_allowed=raises) as served:
        async with served.http.get(f"{served.endpoint}&transport=polling") as response:
            assert response.status == 403


async def test_the_allowed_origin_gets_its_headers_with_credentials(driver: Driver) -> None:
    async with serve(driver) as served:
        headers = {"Origin": ALLOWED, "Access-Control-Request-Headers": "x-api-key"}
        async with served.http.get(f"{served.endpoint}&transport=polling", headers=headers) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == ALLOWED
            assert response.headers["Access-Control-Allow-Credentials"] == "true"
            assert response.headers["Vary"] == "Origin"
        async with served.http.options(served.endpoint, headers=headers) as response:
            assert response.headers["Access-Control-Allow-Methods"] == "OPTIONS, GET, POST"
            assert response.headers["Access-Control-Allow-Headers"] == "x-api-key"
        async with served.raw(headers={"Origin": ALLOWED}) as raw:
            assert await raw.ask("NOTE") == [{"ok": True}]


async def test_no_origin_is_let_in_and_gets_no_cors_headers(driver: Driver) -> None:
    async with serve(driver) as served:
        async with served.http.get(f"{served.endpoint}&transport=polling") as response:
            assert response.status == 200
            assert not [name for name in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    ("query", "method"),
    [
        ("EIO=3&transport=polling", "GET"),
        ("EIO=4&transport=carrier-pigeon", "GET"),
        ("EIO=4&transport=websocket", "GET"),
        ("EIO=4&transport=polling&sid=none", "GET"),
        ("EIO=4&transport=polling&sid=none", "POST"),
        ("EIO=4&transport=polling&j=x", "GET"),
        ("", "POST"),
        ("", "GET"),
        ("%00=%ff&&&===", "GET"),
    ],
)
async def test_a_wrong_request_gets_a_short_400(driver: Driver, query: str, method: str) -> None:
    async with serve(driver) as served:
        url = f"{served.url}/socket.io/?{query}"
        async with served.http.request(method, url, data="42[" if method == "POST" else None) as response:
            text = await response.text()
            assert response.status == 400 and len(text) < 200 and "Traceback" not in text
        assert not served.server.eio.sockets


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "websocket"},
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "99"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
         "Sec-WebSocket-Key": "short"},
    ],
)  # fmt: skip
async def test_a_broken_websocket_handshake_gets_a_400_and_leaves_no_socket(
    driver: Driver, headers: dict[str, str]
) -> None:
    async with serve(driver) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        lines = ["GET /socket.io/?EIO=4&transport=websocket HTTP/1.1", "Host: x"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        writer.close()
        assert not served.server.eio.sockets


async def test_random_requests_never_meet_a_server_error_nor_a_parsers_words(driver: Driver) -> None:
    chance = random.Random(4)
    async with serve(driver, max_sockets_per_ip=20) as served:
        for _ in range(130):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(random_request(chance))
            status = await asyncio.wait_for(reader.readline(), 10)
            assert status[9:10] in (b"2", b"4"), status
            if status.startswith(b"HTTP/1.0 400"):
                assert (await reader.read()).endswith(b"\r\n\r\nBad request")
            writer.close()
        assert not [line for line in served.log if line.startswith("ERROR")]
        assert served.log and all(len(line) <= 400 for line in served.log)


async def test_a_request_head_that_never_ends_is_cut(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw() as raw:
        silent = await asyncio.open_connection("127.0.0.1", served.port)
        halting = await asyncio.open_connection("127.0.0.1", served.port)
        halting[1].write(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        await halting[1].drain()
        assert await raw.ask("NOTE") == [{"ok": True}]
        await clock.advance(10)
        assert not silent[0].at_eof() and not halting[0].at_eof()
        await clock.advance(10)
        assert await asyncio.wait_for(silent[0].read(), 5) == b""
        assert await asyncio.wait_for(halting[0].read(), 5) == b""
        assert await raw.ask("NOTE") == [{"ok": True}]
        for _, writer in (silent, halting):
            writer.close()


async def test_a_drain_tells_everybody_and_closes_everything(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as one, served.raw(connect=False) as stranger:
        polling = await served.polling()
        draining = asyncio.create_task(
            served.server.drain("SERVER_DRAINING", lambda sid: {"reconnectInMs": len(sid)}, 0.2)
        )
        for frame in (await one.read(), (await polling.poll())[0]):
            assert frame == '42["SERVER_DRAINING",{"reconnectInMs":20}]'
        async with served.http.get(f"{served.endpoint}&transport=polling") as response:
            assert response.status == 503
        assert await one.ask("NOTE") == [{"ok": True}]
        await one.closed()
        await stranger.closed()
        await asyncio.wait_for(draining, 10)
        assert not served.server.eio.sockets and not served.server.manager.rooms
        assert sorted(reason for _, reason in served.seen.partings) == ["server disconnect"] * 2


async def test_a_drain_ends_before_its_grace_when_everybody_has_gone(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        draining = asyncio.create_task(served.server.drain("SERVER_DRAINING", lambda sid: {}, 600))
        await raw.read()
        await raw.ws.close()
        await asyncio.wait_for(draining, 5)


async def test_a_drain_cuts_a_client_that_neither_reads_nor_leaves(driver: Driver) -> None:
    async with serve(driver, outbox_packets=10**6, outbox_bytes=10**9) as served:
        reader, writer = await deaf_client(served.port)
        await until(lambda: served.server.figures()["clients"] == 1)
        (sid,) = served.server._by_sid
        for _ in range(2000):
            await served.server.emit("TIP", "x" * 10_000, to=sid)
        async with asyncio.timeout(15):
            await served.server.drain("SERVER_DRAINING", lambda sid: {}, 0.1)
        assert not served.server.eio.sockets
        writer.transport.abort()


async def deaf_client(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket that has sent CONNECT and whose receiver then stops reading."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    payload = b'40{"apiKey":"right"}'
    writer.write(bytes([0x81, 0x80 | len(payload)]) + b"\x00" * 4 + payload)
    await writer.drain()
    return reader, writer


async def test_a_slow_reader_is_disconnected_and_memory_stays(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as witness:
        reader, writer = await deaf_client(served.port)
        await until(lambda: served.server.figures()["clients"] == 2)
        (sid,) = set(served.server._by_sid) - {witness.sid}
        sent = 0
        while not served.seen.partings and sent < 60_000:
            for _ in range(20):  # 2 MB at most per turn of the loop
                await served.server.emit("TIP", "x" * 10_000, to=sid)
                sent += 1
            await asyncio.sleep(0)
        assert served.seen.partings == [(sid, "transport error")]
        assert sent < 5_000  # kernel buffers and a megabyte of ours
        assert await witness.ask("NOTE") == [{"ok": True}]
        writer.transport.abort()


async def test_a_polling_client_that_never_polls_is_disconnected(driver: Driver) -> None:
    async with serve(driver) as served:
        raw = await served.polling()
        for number in range(1001):
            await served.server.emit("TIP", number, to=raw.sid)
        await until(lambda: served.seen.partings)
        assert served.seen.partings == [(raw.sid, "transport error")]


async def test_a_burst_of_a_thousand_answers_reaches_a_client_that_reads(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        for number in range(1000):
            await served.server.emit("TIP", number, to=raw.sid)
        for number in range(1000):
            assert await raw.read() == f'42["TIP",{number}]'
