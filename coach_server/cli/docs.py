"""`coach docs`: write what is made from the code: the contract documents, docs/events.md and .env.example.

Nothing is started and no data folder is touched: routes, events and settings are read as they are declared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from coach_server import paths
from coach_server.api import contract, reference
from coach_server.api.declared import declared
from coach_server.api.reference import Entry, Section, Table
from coach_server.settings import Settings, variable_names

ROOT = Path(paths.__file__).resolve().parent.parent
WIDTH = 100

_EVENTS_HEAD = """\
# Events

Made by `make docs` from the models that validate; change those, not this file. The same for machines:
[asyncapi.json](asyncapi.json) (events) and [openapi.json](openapi.json) (HTTP). A running server shows both
at `/docs`.

## Connecting

Socket.IO 4 (Engine.IO 4) at `/socket.io`, namespace `/`, over WebSocket or polling. Credentials go into the
handshake: `auth: {apiKey}`, or `auth: {token}` with a user token of `POST /api/auth/token`; the headers
`x-api-key` and `Authorization: Bearer` work too. A refused handshake is a `connect_error` with the message
`Authentication failed`.

A client sends an event with one bare payload object. It may ask for an ack, which comes within a second:
`{ok: true, ...}` with the fields given below, or `{ok: false, code, message, ...}` ([Refused](#refused)).
Fields that are not known are ignored, so a newer client can talk to an older server. The server sends
`{type, payload}` under the event's name; the tables give the payload. Times are milliseconds since the epoch.
"""

_ENV_HEAD = """\
# Coach Server: every setting with its default. Made by `make docs` from coach_server/settings.py.
# Copy this file to .env and change what you need; an empty value is the same as none. Variables of the
# environment win over the file. Nothing is needed to try the server out.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of step")
    parser.add_argument("--folder", type=Path, default=ROOT, help="the checkout to write into")


def run(args: argparse.Namespace) -> int:
    """0 when all is in step, 1 when `--check` found a file that is not."""
    stale = [name for name, text in documents().items() if _read(args.folder / name) != text]
    if not args.check:
        for name, text in documents().items():
            _write(args.folder / name, text)
        return 0
    for name in stale:
        print(f"{name} is out of step with the code: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


def documents() -> dict[str, str]:
    """Every generated file by its path in the checkout."""
    rest, sockets = declared()
    asyncapi = contract.asyncapi(sockets.events)
    return {
        "docs/openapi.json": _json(contract.openapi(rest)),
        "docs/asyncapi.json": _json(asyncapi),
        "docs/events.md": events_page(reference.events(asyncapi)),
        ".env.example": env_example(),
    }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


# --- docs/events.md


def events_page(sections: list[Section]) -> str:
    parts = [_EVENTS_HEAD]
    for section in sections:
        parts.append(f"## {section.title}\n")
        parts += [_entry(entry) for entry in section.entries]
    return "\n".join(parts)


def _entry(entry: Entry) -> str:
    parts = [f"### {entry.name}\n"]
    parts += [f"{text}\n" for text in (entry.summary, *entry.notes) if text]
    parts += [_table(table) for table in entry.tables if table.rows]
    return "\n".join(parts)


def _table(table: Table) -> str:
    lines = [f"| {table.title} | Type | Meaning |", "| --- | --- | --- |"]
    for row in table.rows:
        name = f"`{row.name}`" if row.needed else f"`{row.name}` (optional)"
        lines.append(f"| {name} | {_cell(row.type)} | {_cell(row.meaning)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- .env.example


def env_example() -> str:
    """Each setting as `NAME=default` under its description; secrets are empty."""
    parts = [_ENV_HEAD]
    for field in Settings.model_fields.values():
        if group := _group(field):
            parts.append(f"\n# ---- {group} ----\n")
        parts.append("\n".join(_setting(field)) + "\n")
    return "\n".join(parts)


def _group(field: FieldInfo) -> str | None:
    extra = field.json_schema_extra
    return str(extra["group"]) if isinstance(extra, dict) and "group" in extra else None


def _setting(field: FieldInfo) -> Iterator[str]:
    yield from _comment(field.description or "")
    yield f"{variable_names(field.validation_alias)[0]}={_default(field.default)}"


def _comment(text: str) -> Iterator[str]:
    line = "#"
    for word in text.split():
        if len(line) + 1 + len(word) > WIDTH:
            yield line
            line = "#"
        line = f"{line} {word}"
    yield line


def _default(value: object) -> str:
    match value:
        case None | SecretStr() | ():
            return ""
        case bool():
            return str(value).lower()
        case _:
            return str(value)
