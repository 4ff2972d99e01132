"""Drives the real npm client from a test."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coach_server.paths import bundled

SCRIPT = Path(__file__).with_name("extension.mjs")
VERSIONS = ("4.8.1", "newest")


HAS_NODE = shutil.which("node") is not None
HAS_PACKAGES = (bundled("node_modules") / "socket.io-client").exists()


def needs_node() -> None:
    if not HAS_NODE:
        pytest.skip("NOT TESTED: no Node.js on this machine")
    if not HAS_PACKAGES:
        pytest.skip("NOT TESTED: npm packages are not installed")


class Extension:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count()
        self.heard: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.heard.append(json.loads(line))
            self._changed.set()

    def do(self, verb: str, **values: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"verb": verb, **values}).encode() + b"\n")

    def emit(self, name: str, *args: Any) -> None:
        self.do("emit", name=name, args=list(args))

    async def ask(self, name: str, *args: Any) -> dict[str, Any]:
        number = next(self._ids)
        self.do("ask", name=name, args=list(args), id=number)
        found = await self._wait(lambda item: item.get("answer") == number, 1, 5)
        answer: dict[str, Any] = found["data"]
        return answer

    def events(self, name: str) -> list[dict[str, Any]]:
        return [item for item in self.heard if item.get("event") == name]

    async def wait_for(self, name: str, count: int = 1, within: float = 15.0) -> dict[str, Any]:
        return await self._wait(lambda item: item.get("event") == name, count, within)

    async def _wait(self, fits: Any, count: int, within: float) -> dict[str, Any]:
        async with asyncio.timeout(within):
            while len(found := [item for item in self.heard if fits(item)]) < count:
                self._changed.clear()
                await self._changed.wait()
        return found[count - 1]

    async def start(self, **choices: Any) -> str:
        before = len(self.events("CONVERSATION_STARTED"))
        metadata = {"source": "devassist-call-coach", "tabId": 7}
        self.emit("START_CONVERSATION", {"agentId": "agent-1732000000000", "metadata": metadata, **choices})
        started = await self.wait_for("CONVERSATION_STARTED", before + 1, within=5.0)
        return str(started["payload"]["conversationId"])

    def say(self, call_id: str, speaker: str, text: str) -> None:
        said = {"conversationId": call_id, "speaker": speaker, "text": text, "isFinal": True}
        self.emit("TRANSCRIPT", {**said, "timestamp": 1_732_000_000_000})


@asynccontextmanager
async def extension(url: str, key: object, version: str = "newest") -> AsyncIterator[Extension]:
    needs_node()
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPT),
        url,
        json.dumps(key),
        version,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=SCRIPT.parents[2],
    )
    client = Extension(process)
    reading = asyncio.create_task(client.read())
    try:
        await client.wait_for("ready")
        client.do("open")
        yield client
    finally:
        client.do("quit")
        await process.wait()
        await reading
