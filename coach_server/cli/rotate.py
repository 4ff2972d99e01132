"""`coach rotate-keys`: encrypt everything that is stored with the first key of DATA_ENCRYPTION_KEY.

Also from plain text, and while servers run, as long as all of them already have this first key. When it was
cut off, run it again: what is done is passed over. Afterwards the old keys may leave the configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from coach_server.clock import SystemClock
from coach_server.errors import ConfigError
from coach_server.settings import Settings, load_settings
from coach_server.storage import rotation
from coach_server.storage.crypto import make_cipher
from coach_server.storage.database import Database

BATCH = 200


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, default=BATCH, metavar="ROWS", help="rows of one transaction")


def run(args: argparse.Namespace) -> int:
    """0 when everything is under the first key, 1 when rows could not be read (they are named)."""
    if args.batch < 1:
        raise ConfigError("--batch must be 1 or more.")
    return asyncio.run(rotate(load_settings(), args.batch))


async def rotate(settings: Settings, rows: int = BATCH) -> int:
    if not settings.data_keys:
        raise ConfigError("DATA_ENCRYPTION_KEY is not set: there is no key to encrypt with.")
    database = Database(
        settings.resolved_database_url, clock=SystemClock(), cipher=make_cipher(settings.data_keys)
    )
    try:
        await database.start()
        unreadable = [row for table in rotation.TABLES for row in await _table(database, table, rows)]
        if not await database.scrub():
            print("The write-ahead log is in use: restart the server to empty it of plain text.")
    finally:
        await database.close()
    for row in unreadable:
        print(row, file=sys.stderr)
    return 1 if unreadable else 0


async def _table(database: Database, table: str, rows: int) -> list[str]:
    seen, sealed = 0, 0
    unreadable: list[str] = []
    after: rotation.Place | None = None
    while True:
        async with database.transaction() as conn:
            done = await rotation.batch(conn, table, after, rows)
        seen, sealed, after = seen + done.seen, sealed + done.sealed, done.last
        unreadable += done.unreadable
        if after is None:
            print(f"{table}: {sealed} of {seen} rows encrypted now")
            return unreadable
