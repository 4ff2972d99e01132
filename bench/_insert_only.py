"""The least a practice session could cost: the same HTTP library, and for each turn one INSERT and a commit
(aiosqlite, synchronous=FULL). No checks, no method, no customer, no score."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import aiosqlite
import uvloop
from aiohttp import web

TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE roleplay_transcripts (session_id TEXT, message_id TEXT, speaker TEXT, message TEXT);
"""
ONE = "/api/roleplay/sessions/{id}"


def routes(database: aiosqlite.Connection) -> list[web.RouteDef]:
    async def start(request: web.Request) -> web.Response:
        await request.json()
        return web.json_response({"sessionId": str(uuid.uuid4())})

    async def message(request: web.Request) -> web.Response:
        said = await request.json()
        row = (request.match_info["id"], said["messageId"], "user", said["text"])
        await database.execute("INSERT INTO roleplay_transcripts VALUES (?, ?, ?, ?)", row)
        await database.commit()
        return web.json_response({"messageId": said["messageId"], "reply": {"text": "Yes."}})

    async def nothing(request: web.Request) -> web.Response:
        return web.json_response({"feedbackQueued": True})

    async def ready(request: web.Request) -> web.Response:
        return web.Response()

    return [
        web.post("/api/roleplay/sessions/start", start),
        web.post(f"{ONE}/message", message),
        web.post(f"{ONE}/stop", nothing),
        web.get(f"{ONE}/feedback", nothing),
        web.get("/ready", ready),
    ]


async def serve() -> None:
    database = await aiosqlite.connect(Path(os.environ["DATA_DIR"]) / "coach.sqlite3")
    await database.executescript(TABLES)
    app = web.Application()
    app.add_routes(routes(database))
    await web._run_app(
        app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None, access_log=None, backlog=4096
    )


if __name__ == "__main__":
    uvloop.run(serve())
