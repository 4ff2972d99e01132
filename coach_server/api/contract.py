"""The contract as two documents, made from what is registered: OpenAPI 3.1 for HTTP, AsyncAPI 3.0 for events.

Their schemas come from the models that validate (`wire`, bodies of routes) and from `wire_out`, so a document
cannot promise what the code does not check.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from coach_server import __version__
from coach_server.api import wire_out
from coach_server.api.http import Doc, OpenRoute, Rest, Route
from coach_server.api.practice import out as practice_out
from coach_server.api.simulation import frames
from coach_server.api.sockets import Event

Document = dict[str, Any]

TITLE = "Coach Server"
PATH_ID = r"^[A-Za-z0-9_-]{1,64}$"
PATH_USER = r"^[^\x00-\x1f\x7f/\\]{1,128}$"
_SCHEMA = "#/components/schemas/"
_STATUSES = {
    200: "Done.",
    400: "Something is not valid; `field` names it.",
    401: "The credentials are missing or wrong.",
    403: "This role may not do that.",
    404: "There is nothing with this id that you may see.",
    408: "The session was closed because nothing came for a while.",
    409: "The thing is in a state that does not allow this.",
    413: "The request is too large.",
    429: "Too many requests.",
    502: "A service behind this did not answer usefully.",
    503: "Not available now.",
    504: "A service behind this took too long.",
}
_RETRY_AFTER = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}


class _Plain(GenerateJsonSchema):
    """Without what only pydantic needs: titles of fields, and empty defaults of what may be left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) in (None, ""):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


class _Schemas:
    """Schemas of models, shared by reference."""

    def __init__(self, models: Iterable[type[BaseModel]]) -> None:
        wanted = [(model, "validation") for model in dict.fromkeys(models)]
        self._refs, made = models_json_schema(
            wanted,  # type: ignore[arg-type]  # the mode is one of its literals
            ref_template=f"{_SCHEMA}{{model}}",
            schema_generator=_Plain,
        )
        self.all: Document = _tidy(made.get("$defs", {}))

    def ref(self, model: type[BaseModel]) -> Document:
        return dict(self._refs[model, "validation"])

    def properties(self, model: type[BaseModel]) -> tuple[Mapping[str, Any], list[str]]:
        """The properties of a model's schema, and which of them are needed."""
        schema = self.all[self.ref(model)["$ref"].removeprefix(_SCHEMA)]
        return schema.get("properties", {}), schema.get("required", [])


def _tidy(value: Any) -> Any:
    """Docstrings are wrapped for the eye; a description is one line."""
    if isinstance(value, dict):
        return {
            key: " ".join(item.split()) if key == "description" and isinstance(item, str) else _tidy(item)
            for key, item in value.items()
        }
    return [_tidy(item) for item in value] if isinstance(value, list) else value


# --- OpenAPI


def openapi(rest: Rest) -> Document:
    """Every route of `rest`, the open ones first."""
    docs = [*(route.doc for route in rest.open_routes), *(route.doc for route in rest.routes)]
    models = [part for doc in docs for part in (doc.answer, doc.body, doc.query) if isinstance(part, type)]
    schemas = _Schemas([*models, wire_out.ErrorAnswer, wire_out.PhrasedErrorAnswer])
    paths: Document = {}
    for public in rest.open_routes:
        paths.setdefault(public.path, {})["get"] = _open_operation(public, schemas)
    for route in rest.routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{TITLE}: HTTP",
            "version": __version__,
            "description": "The live coach itself speaks Socket.IO: see asyncapi.json.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.all,
            "headers": {
                "RetryAfter": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
            },
            "securitySchemes": {
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-api-key",
                    "description": "A key of BACKEND_API_KEY.",
                },
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A user token of POST /api/auth/token, or an API key.",
                },
            },
        },
    }


def _open_operation(route: OpenRoute, schemas: _Schemas) -> Document:
    return {
        "operationId": _operation_id("GET", route.path),
        "summary": route.doc.summary,
        "tags": [_tag(route.path)],
        "security": [],
        "responses": _answers(route.doc, schemas),
    }


def _operation(route: Route, schemas: _Schemas) -> Document:
    doc = route.doc
    operation: Document = {
        "operationId": _operation_id(route.method, route.path),
        "summary": doc.summary,
        "tags": [_tag(route.path)],
        "security": [{"apiKey": []}, {"bearer": []}],
    }
    if not route.is_for_all:
        operation["description"] = "Roles: " + ", ".join(role.value for role in route.roles) + "."
    if parameters := [*_path_parameters(route.path), *_query_parameters(doc, schemas)]:
        operation["parameters"] = parameters
    if doc.body is not None:
        operation["requestBody"] = {
            # An empty body is `{}`.
            "required": bool(schemas.properties(doc.body)[1]),
            "content": {"application/json": {"schema": schemas.ref(doc.body)}},
        }
    operation["responses"] = _answers(doc, schemas) | _refusals(route, schemas)
    return operation


def _operation_id(method: str, path: str) -> str:
    words = re.findall(r"[A-Za-z0-9]+", path.removeprefix("/api"))
    return method.lower() + "".join(word[0].upper() + word[1:] for word in words)


def _tag(path: str) -> str:
    return path.split("/")[2] if path.startswith("/api/") else "operation"


def _path_parameters(path: str) -> list[Document]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": PATH_USER if name == "userId" else PATH_ID},
        }
        for name in re.findall(r"{(\w+)}", path)
    ]


def _query_parameters(doc: Doc, schemas: _Schemas) -> list[Document]:
    if doc.query is None:
        return []
    properties, needed = schemas.properties(doc.query)
    return [_query_parameter(name, schema, name in needed) for name, schema in properties.items()]


def _query_parameter(name: str, schema: Mapping[str, Any], needed: bool) -> Document:
    """What a query leaves out is null for the model; on the wire of HTTP there is no null."""
    told = {key: value for key, value in schema.items() if key not in ("anyOf", "description")}
    for choice in schema.get("anyOf", ()):
        if choice != {"type": "null"}:
            told |= choice
    parameter: Document = {"name": name, "in": "query", "required": needed, "schema": told}
    if text := schema.get("description"):
        parameter["description"] = text
    return parameter


def _answers(doc: Doc, schemas: _Schemas) -> Document:
    if isinstance(doc.answer, str):
        kind = "object" if doc.answer == "application/json" else "string"
        content: Document = {doc.answer: {"schema": {"type": kind}}}
    else:
        content = {"application/json": {"schema": schemas.ref(doc.answer)}}
    return {
        str(status): {"description": _STATUSES[status], "content": content} for status in (200, *doc.also)
    }


def _refusals(route: Route, schemas: _Schemas) -> Document:
    model = wire_out.PhrasedErrorAnswer if route.is_phrased else wire_out.ErrorAnswer
    content = {"application/json": {"schema": schemas.ref(model)}}
    told: Document = {}
    for status in sorted({401, *_implied(route), *route.doc.refusals}):
        told[str(status)] = {"description": _STATUSES[status], "content": content}
        if status in (429, 503):
            told[str(status)]["headers"] = _RETRY_AFTER
    return told


def _implied(route: Route) -> Iterable[int]:
    doc = route.doc
    if not route.is_for_all:
        yield 403
    if "{" in route.path:
        yield 404
    if doc.body is not None:
        yield from (400, 413)
    if doc.query is not None:
        yield 400


# --- AsyncAPI


def asyncapi(events: Mapping[str, Event]) -> Document:
    """Every event a client may send (`events`), each with its ack, and every one the server may send."""
    acks = [event.ack for event in events.values()]
    inbound = [event.model for event in events.values()]
    bare = practice_out.BARE_EVENTS
    relayed = [*frames.FROM_CLIENT.values(), *frames.FROM_SERVER.values()]
    sent = [*wire_out.EVENTS.values(), *bare.values()]
    schemas = _Schemas([*inbound, *acks, wire_out.Refused, *sent, *relayed])
    messages: Document = {}
    operations: Document = {}
    for event in events.values():
        messages[_key(event.name)] = _sent_by_client(event, schemas)
        messages[_key(_ack(event.name))] = _ack_message(event, schemas)
        operations[_key(event.name)] = _receive(event)
    for name, model in (*wire_out.EVENTS.items(), *bare.items()):
        messages[_key(name)] = _sent_by_server(name, model, schemas, is_bare=name in bare)
        operations[_key(name)] = {
            "action": "send",
            "channel": {"$ref": "#/channels/live"},
            "summary": messages[_key(name)]["summary"],
            "messages": [{"$ref": f"#/channels/live/messages/{_key(name)}"}],
        }
    live_messages = [*messages]
    for direction, action, models in (
        ("client", "receive", frames.FROM_CLIENT),
        ("server", "send", frames.FROM_SERVER),
    ):
        for name, frame in models.items():
            key = f"simulation.{direction}.{name}"
            summary = _summary(frame)
            messages[key] = {"name": name, "summary": summary, "payload": schemas.ref(frame)}
            operations[key] = {
                "action": action,
                "channel": {"$ref": "#/channels/simulation"},
                "summary": summary,
                "messages": [{"$ref": f"#/channels/simulation/messages/{key}"}],
            }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"{TITLE}: live coach, practice and simulation",
            "version": __version__,
            "description": "Socket.IO 4 (Engine.IO 4) at /socket.io, namespace `/`. A client sends an event "
            "with one bare payload object; the server sends `{type, payload}`, and in the events of practice "
            "(their names have a colon) the payload alone. Acks are optional: a client that asks for one is "
            "answered within a second.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "here": {
                "host": "localhost:8080",
                "pathname": "/socket.io",
                "protocol": "ws",
                "security": [
                    {"$ref": "#/components/securitySchemes/handshake"},
                    {"$ref": "#/components/securitySchemes/header"},
                ],
            },
            "relay": {
                "host": "localhost:8080",
                "protocol": "ws",
                "security": [
                    {"$ref": "#/components/securitySchemes/ticket"},
                    {"$ref": "#/components/securitySchemes/header"},
                ],
            },
        },
        "channels": {
            "live": {
                "address": "/",
                "title": "The namespace `/`",
                "servers": [{"$ref": "#/servers/here"}],
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in live_messages},
            },
            "simulation": {
                "address": "/ws/sessions/{id}",
                "title": "A simulation's own WebSocket",
                "description": "Plain WebSocket, each message one JSON text. `wsUrl` of POST /api/sessions "
                "holds a ticket that opens it once; an API key or a user token of the trainee does too.",
                "parameters": {"id": {"description": "The session's id."}},
                "servers": [{"$ref": "#/servers/relay"}],
                "messages": {
                    name: {"$ref": f"#/components/messages/{name}"}
                    for name in messages
                    if name not in live_messages
                },
            },
        },
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas.all,
            "securitySchemes": {
                "handshake": {
                    "type": "apiKey",
                    "in": "password",
                    "description": "`auth: {apiKey}` or `auth: {token}` of the Socket.IO handshake.",
                },
                "ticket": {
                    "type": "httpApiKey",
                    "in": "query",
                    "name": "ticket",
                    "description": "The one-time ticket in `wsUrl`.",
                },
                "header": {
                    "type": "httpApiKey",
                    "in": "header",
                    "name": "x-api-key",
                    "description": "For clients that can set headers.",
                },
            },
        },
    }


def _ack(name: str) -> str:
    return f"{name}.ack"


def _key(name: str) -> str:
    """AsyncAPI's names of parts take no colon; the message itself says its name."""
    return name.replace(":", ".")


def _summary(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _sent_by_client(event: Event, schemas: _Schemas) -> Document:
    return {"name": event.name, "summary": _summary(event.model), "payload": schemas.ref(event.model)}


def _ack_message(event: Event, schemas: _Schemas) -> Document:
    return {
        "name": _ack(event.name),
        "summary": f"The ack of {event.name}, for a client that asked for one.",
        "payload": {"oneOf": [schemas.ref(event.ack), schemas.ref(wire_out.Refused)]},
    }


def _sent_by_server(name: str, model: type[BaseModel], schemas: _Schemas, *, is_bare: bool) -> Document:
    enveloped = {
        "type": "object",
        "required": ["type", "payload"],
        "additionalProperties": False,
        "properties": {"type": {"const": name}, "payload": schemas.ref(model)},
    }
    return {
        "name": name,
        "summary": _summary(model),
        "payload": schemas.ref(model) if is_bare else enveloped,
    }


def _receive(event: Event) -> Document:
    told = "Answered with " + " and ".join(event.answers) + ". " if event.answers else ""
    if event.refused_as is None:
        refused = "Without an ack a refusal is silent."
    else:
        refused = f"Without an ack a refusal is told as ERROR with code {event.refused_as}."
    return {
        "action": "receive",
        "channel": {"$ref": "#/channels/live"},
        "summary": _summary(event.model),
        "description": told + refused,
        "messages": [{"$ref": f"#/channels/live/messages/{_key(event.name)}"}],
        "reply": {
            "channel": {"$ref": "#/channels/live"},
            "messages": [{"$ref": f"#/channels/live/messages/{_key(_ack(event.name))}"}],
        },
    }
