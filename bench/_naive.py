"""What one would write first: python-socketio on aiohttp as it comes, and for each event an insert and a
commit (aiosqlite, synchronous=FULL) before the ack. No coaching, no checks, no limits.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import aiosqlite
import socketio
import uvloop
from aiohttp import web

TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE utterances (conversation_id TEXT, segment_id TEXT, speaker TEXT, text TEXT, said_at REAL);
"""


def register(server: socketio.AsyncServer, database: aiosqlite.Connection) -> None:
    @server.on("START_CONVERSATION")
    async def start(sid: str, data: Any) -> dict[str, Any]:
        return {"ok": True, "conversationId": str(uuid.uuid4())}

    @server.on("TRANSCRIPT")
    async def transcript(sid: str, data: Any) -> dict[str, Any]:
        row = (data["conversationId"], data["segmentId"], data["speaker"], data["text"], data["timestamp"])
        await database.execute("INSERT INTO utterances VALUES (?, ?, ?, ?, ?)", row)
        await database.commit()
        return {"ok": True, "stored": True}


async def serve() -> None:
    database = await aiosqlite.connect(Path(os.environ["DATA_DIR"]) / "coach.sqlite3")
    await database.executescript(TABLES)
    server = socketio.AsyncServer(async_mode="aiohttp", cors_allowed_origins="*")
    register(server, database)
    await _listen(server)


async def _listen(server: socketio.AsyncServer) -> None:
    app = web.Application()
    server.attach(app)

    async def ready(_: web.Request) -> web.Response:
        return web.Response()

    app.router.add_get("/ready", ready)
    await web._run_app(
        app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None, access_log=None, backlog=4096
    )


if __name__ == "__main__":
    uvloop.run(serve())
