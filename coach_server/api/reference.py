"""The two contract documents as a reference for people: sections, entries and tables of fields.

docs/events.md and the page at /docs are written from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

_BOUNDS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " items"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One field. `needed`: it is always there."""

    name: str
    type: str
    needed: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Entry:
    """An event, a route or an object. `label` is a route's method."""

    name: str
    summary: str
    label: str = ""
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return _slug(f"{self.label} {self.name}")


@dataclass(frozen=True, slots=True)
class Section:
    """`objects`: the anchor of the section that holds the objects named in this one."""

    title: str
    entries: list[Entry]
    objects: str

    @property
    def anchor(self) -> str:
        return _slug(self.title)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def events(asyncapi: Schema) -> list[Section]:
    """What clients send, what the server sends, and the objects in both."""
    schemas = asyncapi["components"]["schemas"]
    messages = asyncapi["components"]["messages"]
    received: list[Entry] = []
    sent: list[Entry] = []
    seen: list[str] = []
    frames: dict[str, list[Entry]] = {"receive": [], "send": []}
    for key, operation in asyncapi["operations"].items():
        name, payload = messages[key]["name"], messages[key]["payload"]
        if operation["channel"]["$ref"] == "#/channels/simulation":
            frames[operation["action"]].append(_frame(name, operation, payload, schemas))
            seen.append(_name(payload))
        elif operation["action"] == "receive":
            accepted = messages[f"{key}.ack"]["payload"]["oneOf"][0]
            tables = [Table("Payload", rows(payload, schemas)), Table("Ack", rows(accepted, schemas))]
            received.append(
                Entry(name, operation["summary"], notes=[operation["description"]], tables=tables)
            )
            seen += (_name(payload), _name(accepted))
        else:
            inner = payload["properties"]["payload"] if "properties" in payload else payload
            notes = [] if inner is not payload else ["Bare: the payload without an envelope."]
            told = Entry(
                name, operation["summary"], notes=notes, tables=[Table("Payload", rows(inner, schemas))]
            )
            sent.append(told)
            seen.append(_name(inner))
    return [
        Section("From the client", received, "objects"),
        Section("From the server", sent, "objects"),
        Section("Simulation: from the client", frames["receive"], "objects"),
        Section("Simulation: from the server", frames["send"], "objects"),
        Section("Objects", objects(schemas, leaving_out=seen), "objects"),
    ]


def _frame(name: str, operation: Schema, payload: Schema, schemas: Schema) -> Entry:
    """A message of a simulation's own WebSocket; both sides have one of the same name."""
    label = "client" if operation["action"] == "receive" else "server"
    return Entry(name, operation["summary"], label, tables=[Table("Frame", rows(payload, schemas))])


def routes(openapi: Schema) -> list[Section]:
    """The routes, and the objects in them."""
    schemas = openapi["components"]["schemas"]
    entries = [
        _route(method, path, operation, schemas)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    home = "objects-of-routes"
    return [
        Section("Routes", entries, home),
        Section("Objects of routes", objects(schemas, leaving_out=()), home),
    ]


def _route(method: str, path: str, operation: Schema, schemas: Schema) -> Entry:
    notes = [operation["description"]] if "description" in operation else []
    notes.append("Needs an API key or a user token." if operation["security"] else "Open to anyone.")
    tables = []
    if parameters := operation.get("parameters"):
        found = [
            Row(p["name"], type_of(p["schema"]), p["required"], p.get("description", "")) for p in parameters
        ]
        tables.append(Table("Path and query", found))
    if "requestBody" in operation:
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        tables.append(Table("Body", rows(body, schemas)))
    media, answer = next(iter(operation["responses"]["200"]["content"].items()))
    if media == "application/json":
        tables.append(Table("Answer", rows(answer["schema"], schemas)))
    else:
        notes.append(f"Answers with {media}.")
    told = [
        Row(status, _name(schema) or media, True, response["description"])
        for status, response in operation["responses"].items()
        for media, schema in ((m, c["schema"]) for m, c in response["content"].items())
    ]
    return Entry(path, operation["summary"], method.upper(), notes, [*tables, Table("Statuses", told)])


def objects(schemas: Schema, *, leaving_out: Iterable[str]) -> list[Entry]:
    left_out = set(leaving_out)
    return [_object(name, schemas) for name in sorted(schemas) if name not in left_out]


def _object(name: str, schemas: Schema) -> Entry:
    schema = schemas[name]
    summary = schema.get("description", "")
    if "enum" in schema:
        return Entry(name, summary, notes=["One of " + ", ".join(map(json.dumps, schema["enum"])) + "."])
    return Entry(name, summary, tables=[Table("Fields", rows({"$ref": name}, schemas))])


def rows(schema: Schema, schemas: Schema) -> list[Row]:
    """The fields of an object, needed ones first."""
    known = schemas.get(_name(schema), schema)
    needed = set(known.get("required", ()))
    found = [
        Row(name, type_of(value), name in needed, _meaning(value))
        for name, value in known.get("properties", {}).items()
    ]
    return sorted(found, key=lambda row: not row.needed)


def _meaning(schema: Schema) -> str:
    parts = [schema.get("description", "")]
    if "default" in schema:
        parts.append(f"Default: {json.dumps(schema['default'])}.")
    return " ".join(filter(None, parts))


def _name(schema: Schema) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def type_of(schema: Schema) -> str:
    """A schema in a few words: `string, 1 to 128 characters`, `TipOption[]`, `"a" | "b"`."""
    if "$ref" in schema:
        return _name(schema)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(map(json.dumps, schema["enum"]))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " | ".join(type_of(choice) for choice in schema[key])
    if schema.get("type") == "array":
        inner = type_of(schema.get("items", {}))
        return _bounded(f"({inner})[]" if " " in inner else f"{inner}[]", schema)
    kind = str(schema.get("type", "anything"))
    if "pattern" in schema and "maxLength" not in schema:
        return f"{kind} like {schema['pattern']}"
    return _bounded(kind, schema)


def _bounded(kind: str, schema: Schema) -> str:
    for low, high, unit in _BOUNDS:
        least, most = schema.get(low), schema.get(high)
        if least is not None and most is not None:
            span = f"{least}" if least == most else f"{least} to {most}"
            return f"{kind}, {span}{unit}"
        if most is not None:
            return f"{kind}, at most {most}{unit}"
        if least is not None and least != 0:
            return f"{kind}, at least {least}{unit}"
    return kind
