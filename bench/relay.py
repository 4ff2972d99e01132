"""The voice relay: frames a second of one core, and what it adds to the way of a frame, beside a bare relay.

A client sends 40 ms of audio with the time in it; the model's stand-in sends the same audio back; so each
frame goes through both pumps, and its age at the end is the way there and back. `direct` is the same way
without a relay in between. Clients and model are in this process, the relay is alone on its core.
"""

from __future__ import annotations

import asyncio
import base64
import math
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import uvloop
from aiohttp import web

from bench._results import Bar, Medians, Repeated, medians, note, save, spread
from bench._server import Running, pin_load, serving

ROUNDS = 3
SESSIONS = (1, 50, 100)
FRAME_MS = 40
PACED_S = 1.5
SATURATED_S = 0.8
IN_FLIGHT = 4
PCM = bytes(FRAME_MS * 48 - 9)
RELAYS = ("ours", "bare", "pipe")
STAMP_CHARS = 12


def main() -> None:
    uvloop.run(measure())


async def measure() -> None:
    pin_load()
    figures: Repeated = {}
    async with upstream() as url:
        for _ in range(ROUNDS):
            for count in SESSIONS:
                note(figures, "direct", await _paced(url, count))
            for name in RELAYS:
                await _round(figures, name, url)
    table = _quietest(figures)
    usual = medians(figures)
    cost, way = "100: CPU us/frame", "100: way p99 ms"
    slower = table["ours"][cost] / table["bare"][cost]
    added = table["ours"][way] - table["direct"][way]
    save(
        "relay",
        "the voice relay, 40 ms frames there and back",
        table,
        [
            Bar("CPU per frame at 100 sessions, against the bare relay", slower, 1.3, "times"),
            Bar("added to the way there and back at 100 sessions, p99", added, 5.0),
        ],
        rounds=ROUNDS,
        notes=[
            "A frame is one piece of audio that went both ways: two messages read and two written.",
            f"Against a pipe that neither reads nor translates frames: "
            f"{table['ours'][cost] / table['pipe'][cost]:.2f} times the CPU.",
            "Every figure is that of its quietest round, as other work on the machine adds to a p99 what no "
            f"relay does. Medians of the {ROUNDS} rounds: {usual['ours'][cost] / usual['bare'][cost]:.2f} "
            f"times the bare relay's CPU; p99 at 100 sessions ours {usual['ours'][way]:.1f}, "
            f"bare {usual['bare'][way]:.1f}, pipe {usual['pipe'][way]:.1f} ms.",
            "Ways at 25 frames/s a session, as in a talk where both speak at once; frames/s saturated, "
            f"with {IN_FLIGHT} frames of each session under way.",
            "The pace is lifted: in a talk, audio that comes before its time is held on purpose.",
        ],
    )


def _quietest(figures: Repeated) -> Medians:
    """The best of every figure over the rounds: the highest rate, the least time."""
    return {
        name: {
            what: round(max(values) if "frames/s" in what else min(values), 3)
            for what, values in found.items()
        }
        for name, found in figures.items()
    }


async def _round(figures: Repeated, name: str, url: str) -> None:
    async with serving("bench._relay", env={"RELAY": name, "UPSTREAM": url}) as server:
        for count in SESSIONS:
            note(figures, name, await _paced(_ws(server), count))
            note(figures, name, await _saturated(server, count))


def _ws(server: Running) -> str:
    return f"ws://127.0.0.1:{server.port}/ws"


# The model.


@asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    """Sends back what it hears."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        try:
            await talk(socket)
        except ConnectionError:
            pass  # the client went while its audio was on its way back
        return socket

    async def talk(socket: web.WebSocketResponse) -> None:
        async for message in socket:
            text = message.data
            if (at := text.find('"audio":"')) >= 0 and "append" in text[:45]:
                await socket.send_str(_delta(text[at + 9 : text.index('"', at + 9)]))
            elif text.startswith('{"type":"audio"'):
                await socket.send_str(text)  # a client without a relay, or behind a pipe
            elif "session.update" in text[:40]:
                await socket.send_str('{"type":"session.updated","session":{}}')

    app = web.Application()
    app.router.add_get("/v1/realtime", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/v1/realtime"
    finally:
        await runner.cleanup()


def _delta(audio: str) -> str:
    return (
        '{"type":"response.output_audio.delta","event_id":"event_1","response_id":"resp_1",'
        f'"item_id":"item_1","output_index":0,"content_index":0,"delta":"{audio}"}}'
    )


# The clients.


def _frame() -> str:
    """40 ms of audio that begins with the time: eight bytes and one, so that base64 has it in twelve."""
    stamp = struct.pack("<dx", time.perf_counter())
    return f'{{"type":"audio","data":"{base64.b64encode(stamp + PCM).decode()}"}}'


def _sent_at(text: str) -> float:
    at = text.index('"data":"') + 8
    sent: float = struct.unpack("<dx", base64.b64decode(text[at : at + STAMP_CHARS]))[0]
    return sent


@asynccontextmanager
async def _clients(
    url: str, count: int, on_frame: Callable[[aiohttp.ClientWebSocketResponse, str], object]
) -> AsyncIterator[list[aiohttp.ClientWebSocketResponse]]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        sockets = [await http.ws_connect(url) for _ in range(count)]

        if url.endswith("/ws"):
            for socket in sockets:  # a relay says when its model is there
                await socket.receive_str()

        async def read(socket: aiohttp.ClientWebSocketResponse) -> None:
            async for message in socket:
                if (answer := on_frame(socket, message.data)) is not None:
                    await socket.send_str(str(answer))

        readers = [asyncio.create_task(read(socket)) for socket in sockets]
        try:
            yield sockets
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*(socket.close() for socket in sockets))


async def _paced(url: str, count: int) -> dict[str, float]:
    """25 frames a second of every session, spread over the 40 ms."""
    took: list[float] = []
    warm = math.inf

    def arrived(_: aiohttp.ClientWebSocketResponse, text: str) -> None:
        now = time.perf_counter()
        if (sent := _sent_at(text)) > warm:
            took.append(now - sent)

    async with _clients(url, count, arrived) as sockets:
        start = time.perf_counter()
        warm = start + 0.3
        sent = 0
        length = PACED_S if count > 1 else 2 * PACED_S
        while (now := time.perf_counter() - start) < length:
            due = int(now * count * 1000 / FRAME_MS)
            for number in range(sent, due):
                await sockets[number % count].send_str(_frame())
            sent = due
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
    ways = spread(took, f"{count}: way")
    return {what: ways[what] for what in (f"{count}: way p50 ms", f"{count}: way p99 ms")}


async def _saturated(server: Running, count: int) -> dict[str, float]:
    """Every session sends a frame for each that comes back."""
    came = 0

    def again(_: aiohttp.ClientWebSocketResponse, text: str) -> str:
        nonlocal came
        came += 1
        return _frame()

    async with _clients(_ws(server), count, again) as sockets:
        for socket in sockets:
            for _ in range(IN_FLIGHT):
                await socket.send_str(_frame())
        await asyncio.sleep(SATURATED_S / 3)
        start, before, cpu = time.perf_counter(), came, server.cpu_s()
        await asyncio.sleep(SATURATED_S)
        done = came - before
        rate = done / (time.perf_counter() - start)
        cost = (server.cpu_s() - cpu) / max(1, done) * 1e6
    return {
        f"{count}: frames/s": rate,
        f"{count}: CPU us/frame": cost,
        f"{count}: frames/s of a core": 1e6 / cost,
    }
