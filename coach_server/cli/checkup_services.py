"""The checks of `coach doctor` that ask others: database, Redis, the model's server, the port, the clocks.

Each has a deadline and asks only what costs nothing. What a vendor or a driver says is not repeated, because
it may quote an address with a password in it.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from alembic.script import ScriptDirectory
from redis.asyncio import Redis
from redis.driver_info import DriverInfo
from redis.exceptions import RedisError
from sqlalchemy import URL, inspect, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.cli.checkup import Finding, fail, ok, port_is_free, warn
from coach_server.clock import Clock
from coach_server.errors import ConfigError, StorageFailed
from coach_server.providers.bus import redis_scheme
from coach_server.providers.llm.openai import OFFICIAL_URL
from coach_server.settings import Settings
from coach_server.storage.database import Database, normalise_url
from coach_server.storage.migrate import configuration

WITHIN_S = 6.0
SHUTDOWN_SOON_DAYS = 60
SKEW_S = 5.0
# Signed requests (AWS) and short tokens are refused beyond this.
SKEW_MOST_S = 120.0
BODY_BYTES = 4_000_000


@dataclass(slots=True)
class Clocks:
    """How far other clocks are ahead of ours, in seconds, by who said so."""

    ahead: dict[str, float] = field(default_factory=dict)


async def service_checks(settings: Settings, clock: Clock) -> list[Finding]:
    """All of them, one after the other: their findings stay in the report's order."""
    clocks = Clocks()
    found = [*await check_database(settings, clock, clocks), *await check_redis(settings)]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WITHIN_S)) as http:
        found += await check_model(settings, http, clock, clocks)
        found += await check_port(settings, http)
    return [*found, *check_clocks(clocks)]


# --- the database


@dataclass(frozen=True, slots=True)
class _Schema:
    """What is in a database. `version` None: no migration ran. `now`: its clock, None for a file."""

    server: str
    version: str | None
    may_create: bool = True
    now: float | None = None


async def check_database(settings: Settings, clock: Clock, clocks: Clocks) -> list[Finding]:
    address = await asyncio.to_thread(lambda: settings.resolved_database_url)  # looks at the folder's path
    try:
        url = make_url(normalise_url(address))
    except ConfigError as error:
        return [fail("database", error.message, "correct DATABASE_URL")]
    is_file = url.get_backend_name() == "sqlite"
    if is_file and not await asyncio.to_thread(Path(url.database or "").exists):
        return [ok("database", "SQLite; the file is made at the first start")]
    fix = "check host, port, user, password and the firewall in DATABASE_URL"
    if is_file:
        fix = "check that the file is a database and that this user may write it"
    try:
        async with asyncio.timeout(WITHIN_S):
            schema = await _schema(address, clock)
    except (StorageFailed, TimeoutError, OSError, ConfigError):
        return [fail("database", "does not answer", fix)]
    if schema.now is not None:
        clocks.ahead["the database"] = schema.now - clock.now()
    return [await asyncio.to_thread(_told_schema, schema), *_told_instances(settings, url)]


async def _schema(url: str, clock: Clock) -> _Schema:
    database = Database(url, clock=clock, pool_size=1)
    try:
        async with database.read() as connection:
            known = await connection.run_sync(lambda c: inspect(c).has_table("alembic_version"))
            version = await _first(connection, "SELECT version_num FROM alembic_version") if known else None
            if database.dialect == "sqlite":
                return _Schema(f"SQLite {await _first(connection, 'SELECT sqlite_version()')}", version)
            may_create = await _first(connection, "SELECT has_schema_privilege(current_schema(), 'CREATE')")
            return _Schema(
                server=f"PostgreSQL {await _first(connection, 'SHOW server_version')}",
                version=version,
                may_create=bool(may_create),
                now=float(await _first(connection, "SELECT extract(epoch FROM clock_timestamp())")),
            )
    finally:
        await database.close()


async def _first(connection: AsyncConnection, statement: str) -> Any:
    return (await connection.execute(text(statement))).scalar()


def _told_schema(schema: _Schema) -> Finding:
    scripts = ScriptDirectory.from_config(configuration())
    newest, known = scripts.get_current_head(), {script.revision for script in scripts.walk_revisions()}
    if schema.version is not None and schema.version not in known:
        fix = "start the newer version of the server, or use another database"
        return fail("database", f"{schema.server}: a newer server made it ({schema.version})", fix)
    if schema.version == newest:
        return ok("database", f"{schema.server}, schema {newest} (the newest)")
    if not schema.may_create:
        fix = "grant the role of DATABASE_URL CREATE on its schema"
        return fail("database", f"{schema.server}: this role may make no tables", fix)
    has = f"schema {schema.version}" if schema.version else "empty"
    return warn(
        "database", f"{schema.server}: {has}, newest is {newest}", "start the server: it migrates by itself"
    )


def _told_instances(settings: Settings, url: URL) -> list[Finding]:
    if url.get_backend_name() != "postgresql" or settings.redis_url.get_secret_value():
        return []
    fix = "set REDIS_URL before a second instance starts; a single one needs none"
    return [warn("redis", "PostgreSQL without REDIS_URL: several instances would not hear each other", fix)]


# --- Redis


async def check_redis(settings: Settings) -> list[Finding]:
    url = settings.redis_url.get_secret_value()
    if not url:
        return []
    try:
        # Otherwise it looks its own version up on disk, inside the event loop.
        driver = DriverInfo(lib_version="coach")
        redis: Redis = Redis.from_url(redis_scheme(url), socket_connect_timeout=3, driver_info=driver)
    except ValueError:
        return [fail("redis", "REDIS_URL is not an address", "write it as redis://host:6379/0")]
    try:
        async with asyncio.timeout(WITHIN_S):
            told = await redis.info("server")
    except (RedisError, OSError, TimeoutError):
        return [
            fail("redis", "does not answer", "check host, port, password and TLS (rediss://) in REDIS_URL")
        ]
    finally:
        await redis.aclose()
    if valkey := told.get("valkey_version"):
        return [ok("redis", f"Valkey {valkey} answers")]
    return [ok("redis", f"Redis {told.get('redis_version', '')} answers")]


# --- the model


async def check_model(
    settings: Settings, http: aiohttp.ClientSession, clock: Clock, clocks: Clocks
) -> list[Finding]:
    """Asks for the list of models, which costs nothing."""
    key, base = settings.openai_api_key.get_secret_value(), settings.openai_base_url or OFFICIAL_URL
    if not key and not settings.openai_base_url:
        return [ok("model", "OPENAI_API_KEY is not set: the built-in coach answers")]
    headers = {"Authorization": f"Bearer {key or 'none'}"}
    try:
        async with _answer(http, f"{base.rstrip('/')}/models", headers) as answer:
            _note_date(clocks, "the model's server", answer.headers, clock)
            if answer.status != 200:
                return [_refused(answer.status)]
            listed = _listed(await _body(answer))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        fix = "check OPENAI_BASE_URL, the network and the proxy; the built-in coach answers meanwhile"
        return [fail("model", "its server cannot be reached", fix)]
    return [_told_model(name, listed, clock) for name in sorted(_used_models(settings))]


def _used_models(settings: Settings) -> set[str]:
    return {settings.openai_model, settings.openai_model_cheap, settings.openai_model_analysis}


def _refused(status: int) -> Finding:
    if status in (401, 403):
        return fail("model", "its server did not accept OPENAI_API_KEY", "set a key that is valid and active")
    if status == 404:
        fix = "check that OPENAI_BASE_URL ends as the server wants it, mostly in /v1"
        return warn("model", "its server lists no models (HTTP 404)", fix)
    if status == 429:
        return warn(
            "model", "its server is busy or the account is empty (HTTP 429)", "check the account's budget"
        )
    return warn(
        "model", f"its server answered HTTP {status}", "try again; the built-in coach answers meanwhile"
    )


def _listed(document: object) -> dict[str, str | None]:
    """Model names with their shutdown dates."""
    items = document.get("data") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise ValueError("no list of models")
    dates = {str(item.get("id")): item.get("shutdown_date") for item in items if isinstance(item, dict)}
    return {name: date if isinstance(date, str) else None for name, date in dates.items()}


def _told_model(name: str, listed: Mapping[str, str | None], clock: Clock) -> Finding:
    choose = "choose another one in OPENAI_MODEL, OPENAI_MODEL_CHEAP or OPENAI_MODEL_ANALYSIS"
    if name not in listed:
        return warn("model", f"{name} is not in its server's list", choose)
    date = listed[name]
    left = _days_left(date, clock) if date else None
    if left is None:
        return ok("model", f"{name} is there")
    if left < 0:
        return fail("model", f"{name} was shut down on {date}", choose)
    if left <= SHUTDOWN_SOON_DAYS:
        return warn("model", f"{name} will be shut down on {date}", choose)
    return ok("model", f"{name} is there, until {date}")


def _days_left(date: str, clock: Clock) -> int | None:
    try:
        last = datetime.date.fromisoformat(date)
    except ValueError:
        return None
    return (last - datetime.datetime.fromtimestamp(clock.now(), datetime.UTC).date()).days


# --- the port


async def check_port(settings: Settings, http: aiohttp.ClientSession) -> list[Finding]:
    if settings.port == 0:
        return [ok("port", "PORT=0: any free one")]
    if await asyncio.to_thread(port_is_free, settings):
        return [ok("port", f"{settings.port} is free")]
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"[{host}]" if ":" in host else host
    try:
        async with _answer(http, f"http://{host}:{settings.port}/health", {}) as answer:
            if answer.status == 200 and _is_ours(await _body(answer)):
                return [ok("port", f"{settings.port}: a Coach Server is running there")]
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        pass
    fix = "stop what listens there, or set PORT (and HOST) to another one"
    return [fail("port", f"{settings.host}:{settings.port} cannot be listened on", fix)]


def _is_ours(health: object) -> bool:
    return isinstance(health, dict) and {"status", "timestamp", "activeConversations"} <= health.keys()


# --- clocks and HTTP


def check_clocks(clocks: Clocks) -> list[Finding]:
    if not clocks.ahead:
        return []
    who, ahead = max(clocks.ahead.items(), key=lambda item: abs(item[1]))
    if abs(ahead) <= SKEW_S:
        return [ok("clock", f"agrees with {' and '.join(clocks.ahead)}")]
    made = fail if abs(ahead) > SKEW_MOST_S else warn
    said = f"{abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} {who}"
    return [made("clock", f"this machine's clock is {said}", "switch time synchronisation (NTP) on")]


def _note_date(clocks: Clocks, who: str, headers: Mapping[str, str], clock: Clock) -> None:
    """An HTTP date has whole seconds: the middle of one is the best guess."""
    try:
        told = parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return
    clocks.ahead[who] = told + 0.5 - clock.now()


@asynccontextmanager
async def _answer(
    http: aiohttp.ClientSession, url: str, headers: Mapping[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with http.get(url, headers=headers, allow_redirects=False) as answer:
        yield answer


async def _body(answer: aiohttp.ClientResponse) -> Any:
    """The JSON of an answer of decent size. Raises ValueError."""
    raw = await answer.content.read(BODY_BYTES + 1)
    while len(raw) <= BODY_BYTES and (more := await answer.content.read(BODY_BYTES)):
        raw += more
    if len(raw) > BODY_BYTES:
        raise ValueError("too much")
    return orjson.loads(raw)
