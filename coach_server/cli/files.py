"""`coach files`: write the data files of simulations again, from the database.

coach files BAT-001 BAT-002     these sessions
coach files --all               every session that is over
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import aiohttp

from coach_server.app_simulation import file_store
from coach_server.clock import SystemClock
from coach_server.errors import CoachError, ConfigError
from coach_server.services.simulation.datafiles import DataFiles
from coach_server.settings import Settings, load_settings
from coach_server.storage import simulations
from coach_server.storage.crypto import make_cipher
from coach_server.storage.database import Database

PAGE = 200


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sessions", nargs="*", metavar="SESSION", help="id of a session: BAT-001")
    parser.add_argument("--all", action="store_true", help="every session that is over")


def run(args: argparse.Namespace) -> int:
    """0 when all were written, 1 when some were not (they are named)."""
    if bool(args.sessions) == args.all:
        raise ConfigError("Name the sessions, or say --all.")
    settings = load_settings()
    database = Database(
        settings.resolved_database_url, clock=SystemClock(), cipher=make_cipher(settings.data_keys)
    )
    return asyncio.run(write(settings, database, args.sessions))


async def write(settings: Settings, database: Database, named: list[str]) -> int:
    """`named` empty: all of them. `database` is started and closed here."""
    written = failed = 0
    try:
        await database.start()
        async with aiohttp.ClientSession() as http:
            files = DataFiles(database, file_store(settings, http))
            for session_id in named or await _over(database):
                try:
                    await files.write(session_id)
                    written += 1
                except CoachError as error:
                    failed += 1
                    print(f"{session_id}: {error.message}", file=sys.stderr)
    finally:
        await database.close()
    print(f"{written} written, {failed} failed")
    return 1 if failed else 0


async def _over(database: Database) -> list[str]:
    found: list[str] = []
    while True:
        async with database.read() as conn:
            page = await simulations.ended_after(conn, found[-1] if found else "", PAGE)
        found += page
        if len(page) < PAGE:
            return found
