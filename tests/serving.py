"""A whole server for a test: the real composition root on 127.0.0.1, port 0, with an SQLite file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import socketio
from aiohttp import web, web_app

from coach_server.app import COACHING, Coaching, Replacements, build_app
from coach_server.paths import bundled
from coach_server.services.catalog import Catalog
from coach_server.settings import Settings

KEY = "test-key-0123456789abcdef0123456789abcdef"
OTHER_KEY = "other-key-0123456789abcdef0123456789abcd"


@dataclass(slots=True)
class Server:
    url: str
    coaching: Coaching
    data_dir: Path
    key: str = KEY

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def get(self, path: str, *, key: str | None = KEY, **headers: str) -> tuple[int, Any]:
        return await self.request("GET", path, key=key, headers=headers)

    async def post(
        self, path: str, body: object, *, key: str | None = KEY, **headers: str
    ) -> tuple[int, Any]:
        return await self.request("POST", path, key=key, headers=headers, body=body)

    async def request(
        self,
        method: str,
        path: str,
        *,
        key: str | None = KEY,
        headers: dict[str, str] | None = None,
        body: object = None,
    ) -> tuple[int, Any]:
        sent = dict(headers or {})
        if key is not None:
            sent["x-api-key"] = key
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self.url + path, headers=sent, json=body, allow_redirects=False) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.content_type else text

    async def token(self, user: str, role: str = "agent", team: str | None = None, key: str = KEY) -> str:
        body = {"userId": user, "role": role, "teamId": team}
        status, answer = await self.post("/api/auth/token", body, key=key)
        assert status == 200, answer
        return str(answer["token"])


def test_settings(data_dir: Path, **values: object) -> Settings:
    """Settings as a test wants them, by variable name; nothing is read from the environment's `.env`."""
    given: dict[str, Any] = {
        "APP_ENV": "test",
        "PORT": 0,
        "DATA_DIR": data_dir,
        "BACKEND_API_KEY": f"default:{KEY},other:{OTHER_KEY}",
        "OPENAI_API_KEY": "",
        **values,
    }
    return Settings(_env_file=None, **given)


test_settings.__test__ = False  # type: ignore[attr-defined]


@cache
def _catalog() -> Catalog:
    """Read once for all servers of a test run: it does not change."""
    return Catalog.load()


@asynccontextmanager
async def serving(
    data_dir: Path, replacements: Replacements | None = None, **values: object
) -> AsyncIterator[Server]:
    settings = test_settings(data_dir, **values)
    use = replacements or Replacements()
    if use.catalog is None:
        use = replace(use, catalog=await asyncio.to_thread(_catalog))
    app = build_app(settings, use)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        yield Server(f"http://127.0.0.1:{port}", app[COACHING], data_dir)
    finally:
        app[COACHING].draining = True  # tests do not wait for the notice that a drain gives to clients
        await app[COACHING].calls.drain()
        await app[COACHING].simulating.sessions.drain()
        await app[COACHING].jobs.drain(within_s=5.0)
        await runner.cleanup()
        # It remembers handlers, and with them the whole server, for as long as the process lives.
        web_app._cached_build_middleware.cache_clear()


class Client:
    """A Socket.IO client that keeps what it was told."""

    def __init__(self) -> None:
        self.sio = socketio.AsyncClient(reconnection=False)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._changed = asyncio.Event()
        self.sio.on("*", self._heard)

    async def _heard(self, name: str, *arguments: Any) -> None:
        data = arguments[0] if arguments else {}
        payload = data.get("payload", data) if isinstance(data, dict) else {"data": data}
        self.events.append((name, payload))
        self._changed.set()

    async def connect(self, server: Server, auth: dict[str, Any] | None = None, **options: Any) -> Client:
        await self.sio.connect(
            server.url,
            auth={"apiKey": server.key} if auth is None else auth,
            transports=options.pop("transports", ["websocket"]),
            **options,
        )
        return self

    async def ask(self, name: str, data: object = None) -> dict[str, Any]:
        """Send with an ack and return it; every event must be answered within a second."""
        answer = await self.sio.call(name, data, timeout=2)
        assert isinstance(answer, dict)
        return answer

    async def send(self, name: str, data: object = None) -> None:
        await self.sio.emit(name, data)

    def told(self, name: str) -> list[dict[str, Any]]:
        return [payload for known, payload in self.events if known == name]

    async def wait_for(self, name: str, count: int = 1, within: float = 10.0) -> dict[str, Any]:
        """The `count`th event of that name (counted from 1), once it has come."""
        async with asyncio.timeout(within):
            while len(self.told(name)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.told(name)[count - 1]

    async def start(self, **choices: Any) -> dict[str, Any]:
        payload = {"agentId": "agent-1", "metadata": {"source": "test"}, **choices}
        answer = await self.ask("START_CONVERSATION", payload)
        assert answer["ok"], answer
        return answer

    async def say(self, call_id: str, speaker: str, text: str, **more: Any) -> dict[str, Any]:
        said = {"conversationId": call_id, "speaker": speaker, "text": text, "isFinal": True, **more}
        return await self.ask("TRANSCRIPT", said)

    async def close(self) -> None:
        await self.sio.disconnect()


@asynccontextmanager
async def connected(
    server: Server, auth: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Client]:
    client = Client()
    await client.connect(server, auth, **options)
    try:
        yield client
    finally:
        await client.close()


def node_modules() -> Path:
    return bundled("node_modules")
