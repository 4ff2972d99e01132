"""`coach files`: the data files of simulations written again from the database."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from coach_server.cli import files
from coach_server.clock import SystemClock
from coach_server.errors import ConfigError
from coach_server.storage.database import Database
from tests.serving import Server, serving, test_settings


def database_in(folder: Path) -> Database:
    return Database(f"sqlite:///{folder / 'coach.sqlite3'}", clock=SystemClock())


async def ended(server: Server) -> str:
    """A session that the client ended at once."""
    body = {"scenarioId": "fmc_resistant", "traineeId": "ann", "language": "en"}
    _, made = await server.post("/api/sessions", body)
    async with aiohttp.ClientSession() as http, http.ws_connect(made["wsUrl"]) as socket:
        await socket.send_json({"type": "end_session"})
        async for _ in socket:
            pass
    return str(made["sessionId"])


@pytest.mark.parametrize("named", [True, False])
async def test_deleted_files_come_back_from_the_database(tmp_path: Path, named: bool) -> None:
    async with serving(tmp_path) as server:
        session_id = await ended(server)
    folder = tmp_path / "sessions" / session_id
    for file in folder.glob("*") if folder.is_dir() else ():
        file.unlink()
    settings = test_settings(tmp_path)
    assert await files.write(settings, database_in(tmp_path), [session_id] if named else []) == 0
    assert {file.name for file in folder.iterdir()} == {"session.json", "events.json", "transcript.json"}


async def test_a_session_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await files.write(test_settings(tmp_path), database_in(tmp_path), ["BAT-404"]) == 1
    out = capsys.readouterr()
    assert "BAT-404" in out.err and "0 written, 1 failed" in out.out


def test_sessions_are_named_or_all_are_meant(capsys: pytest.CaptureFixture[str]) -> None:
    class Nothing:
        sessions: tuple[str, ...] = ()
        all = False

    with pytest.raises(ConfigError):
        files.run(Nothing())  # type: ignore[arg-type]
