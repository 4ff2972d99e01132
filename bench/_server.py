"""Servers to be measured: each a process of its own on the first core, gone when the block ends."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

ROOT = Path(__file__).parents[1]
KEY = "bench-key-0123456789abcdef0123456789abcdef"
READY_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens. `folder` is its DATA_DIR, with `server.log` in it."""

    port: int
    process: psutil.Process
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        return sum(self.process.cpu_times()[:2])

    def rss_kb(self) -> float:
        return self.process.memory_info().rss / 1024


def pin_load() -> None:
    """The load generator leaves the first core to the server, where there is another one."""
    _pin(0, slice(1, None))


def _pin(pid: int, which: slice) -> None:
    """Narrow a process to these of the cores that this machine lends us."""
    if hasattr(os, "sched_setaffinity") and len(_CORES) > 1:
        os.sched_setaffinity(pid, _CORES[which])


# Before anything was pinned.
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@asynccontextmanager
async def serving(
    module: str = "coach_server", *, env: dict[str, str] | None = None
) -> AsyncIterator[Running]:
    """`python -m module` with our settings and `env`; yields once it is ready."""
    with tempfile.TemporaryDirectory(prefix="coach-bench-") as name:
        folder, port = Path(name), _free_port()
        child = _spawn(module, folder, port, env or {})
        try:
            running = Running(port, psutil.Process(child.pid), folder)
            await _ready(running, child)
            yield running
        finally:
            child.kill()
            child.wait()


def _spawn(module: str, folder: Path, port: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    settings = {
        "APP_ENV": "test",
        "LOG_FORMAT": "json",
        "PORT": str(port),
        "DATA_DIR": str(folder),
        "BACKEND_API_KEY": f"bench:{KEY}",
        "OPENAI_API_KEY": "",
        "MAX_SOCKETS_PER_IP": "100000",
        "MAX_CALLS_PER_KEY": "100000",
    }
    inherited = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=inherited | settings | env,
            stdout=log,
            stderr=log,
        )


async def _ready(running: Running, child: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(READY_WITHIN_S), aiohttp.ClientSession() as http:
        while True:
            if child.poll() is not None:
                raise RuntimeError((running.folder / "server.log").read_text())
            try:
                async with http.get(f"{running.url}/ready") as answer:
                    if answer.status == 200:
                        break
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    _pin(child.pid, slice(0, 1))
    for thread in running.process.threads():
        _pin(thread.id, slice(0, 1))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
