"""The server as a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.serving import KEY, Server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class ServerProcess:
    """`python -m coach_server` with this environment; `start` returns once it is ready."""

    data_dir: Path
    port: int = field(default_factory=free_port)
    environment: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    @property
    def server(self) -> Server:
        return Server(f"http://127.0.0.1:{self.port}", None, self.data_dir)  # type: ignore[arg-type]

    @property
    def log(self) -> Path:
        return self.data_dir / "server.log"

    async def start(self) -> Server:
        given = {
            "APP_ENV": "test",
            "PORT": str(self.port),
            "DATA_DIR": str(self.data_dir),
            "BACKEND_API_KEY": f"default:{KEY}",
            "OPENAI_API_KEY": "",
            "LOG_FORMAT": "json",
        }
        inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "coach_server",
                env={**inherited, **given, **self.environment},
                stdout=log,
                stderr=log,
            )
        await self._ready()
        return self.server

    async def _ready(self) -> None:
        assert self.process is not None
        async with asyncio.timeout(30), aiohttp.ClientSession() as http:
            while True:
                assert self.process.returncode is None, self.log.read_text()
                try:
                    async with http.get(f"{self.server.url}/ready") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM, and the exit code once it has gone."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@asynccontextmanager
async def server_process(data_dir: Path, **environment: str) -> AsyncIterator[ServerProcess]:
    made = ServerProcess(data_dir, environment=environment)
    try:
        yield made
    finally:
        if made.process is not None and made.process.returncode is None:
            await made.kill()
