"""Relays to be measured, `RELAY` says which: between a client's WebSocket and a model's, in one process.

    ours       the server's own pumps: OpenAIRealtime and Voice (base64 checked, PCM, playback, bounded queue)
    bare       the least that speaks both protocols: parse, rename, write
    pipe       frames as they are, both ways: no protocol, no check

Only the socket in front of the client is not the server's own handler. The pace and the allowance are lifted,
so that the pumps can be saturated.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator

import aiohttp
import orjson
import uvloop
from aiohttp import WSMsgType, web

from coach_server.clock import SystemClock
from coach_server.providers.realtime import RealtimeSpec
from coach_server.providers.realtime.openai import OpenAIRealtime
from coach_server.services.live import Alarm
from coach_server.services.simulation.steering import Steering
from coach_server.services.simulation.voice import Voice, VoiceLimits

MODEL = "bench"
ENDLESS = 1e12
READY = '{"type":"ready"}'


class Wire:
    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def __aiter__(self) -> AsyncIterator[str]:
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                yield message.data

    async def send(self, frame: str) -> None:
        await self._socket.send_str(frame)


class Relay:
    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._url = os.environ["UPSTREAM"]
        self._clock = SystemClock()
        self.alarm = Alarm(self._clock)
        self._model = OpenAIRealtime(
            "key", http, self._clock, model=MODEL, transcribe_model=MODEL, url=self._url
        )
        self._limits = VoiceLimits(lead_ms=ENDLESS, burst_ms=ENDLESS)

    async def ours(self, client: web.WebSocketResponse) -> None:
        talk = await self._model.connect(RealtimeSpec("", "verse", "en", "bench"))
        voice = Voice(
            talk,
            self._clock,
            self.alarm,
            lambda event: None,
            started_at=self._clock.now(),
            steering=Steering("tag"),
            limits=self._limits,
        )
        try:
            await voice.respond()
            await client.send_str(READY)
            await voice.carry(Wire(client))
        finally:
            await talk.close()

    async def bare(self, client: web.WebSocketResponse) -> None:
        async def out() -> None:
            async for message in model:
                event = orjson.loads(message.data)
                if event["type"] == "response.output_audio.delta":
                    told = orjson.dumps({"type": "audio", "data": event["delta"]}).decode()
                    await client.send_str(told)

        async with self._http.ws_connect(self._url) as model:
            await client.send_str(READY)
            speaking = asyncio.create_task(out())
            async for message in client:
                frame = orjson.loads(message.data)
                if frame["type"] == "audio":
                    heard = {"type": "input_audio_buffer.append", "audio": frame["data"]}
                    await model.send_str(orjson.dumps(heard).decode())
            speaking.cancel()

    async def pipe(self, client: web.WebSocketResponse) -> None:
        async def out() -> None:
            async for message in model:
                await client.send_str(message.data)

        async with self._http.ws_connect(self._url) as model:
            await client.send_str(READY)
            speaking = asyncio.create_task(out())
            async for message in client:
                await model.send_str(message.data)
            speaking.cancel()


async def serve() -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        relay = Relay(http)
        ringing = asyncio.create_task(relay.alarm.run())
        carry = getattr(relay, os.environ["RELAY"])

        async def ready(_: web.Request) -> web.Response:
            return web.Response()

        async def client(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse(compress=False)
            await socket.prepare(request)
            await carry(socket)
            return socket

        app = web.Application()
        app.router.add_get("/ready", ready)
        app.router.add_get("/ws", client)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"]), backlog=4096).start()
        gc.collect()
        gc.freeze()  # as the server does when it has started
        await asyncio.Event().wait()
        ringing.cancel()


if __name__ == "__main__":
    uvloop.run(serve())
