"""The real npm client, newest and the published extension's, against both drivers."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.api.engine_harness import DRIVERS, Driver, Served, serve, until

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "node_modules"
CLIENTS = ("socket.io-client", "socket.io-client-4.8.1")

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        shutil.which("node") is None or not all((MODULES / name).exists() for name in CLIENTS),
        reason="NOT TESTED: no Node.js, or its packages are not installed",
    ),
]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("transports", ["websocket", "polling", "polling+websocket", "websocket+polling"])
async def test_the_npm_client_is_served_as_by_its_own_server(
    driver: Driver, client: str, transports: str
) -> None:
    # A process that ends says no good-bye by polling: its sockets go by the deadline.
    async with serve(driver, connect_deadline_s=1) as served:
        register(served)
        seen = await run_node(client, served.url, transports)
        assert seen == {
            "transports": ["polling" if transports == "polling" else "websocket"],
            "pongs": [{"type": "PONG", "payload": None}] * 2,
            "acks": [
                {"text": "שלום 🙂"},
                {"ok": True},
                100,
                {"asked": {"heard": "bin"}},
                True,
            ],
            "refusals": ["Authentication failed"],
            "reasons": ["io server disconnect"],
        }
        assert [event for _, event in served.seen.events] == [b"pcm", *range(100)]
        await until(lambda: not served.server.eio.sockets)


def register(served: Served) -> None:
    server = served.server

    @server.on("ASK_ME")
    async def ask_me(sid: str) -> dict[str, object]:
        return {"asked": await server.call("ASK", b"bin", to=sid, timeout=5)}

    @server.on("DROP_ME")
    async def drop_me(sid: str) -> None:
        await server.disconnect(sid)


async def run_node(client: str, url: str, transports: str) -> dict[str, list[object]]:
    process = await asyncio.create_subprocess_exec(
        "node", str(HERE / "engine_client.mjs"), client, url, transports,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, errors = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return json.loads(out)  # type: ignore[no-any-return]
