"""What a client of a simulation sends over its WebSocket, checked; and how it is refused (seed 001)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

from coach_server.domain.simulation.talk import CLIENT_EVENTS, EventType, SessionEvent
from coach_server.errors import CoachError, Invalid

MAX_TEXT = 2000
MAX_DATA_BYTES = 16_000
MAX_TIME_S = 24 * 3600.0
TYPES = "audio, event, text, end_session"
# What breaks encoders and databases further on (trust.md §3.9).
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u2028\u2029\ud800-\udfff]")


class Refused(Exception):
    """A message that changes nothing; `frame` tells the client."""

    def __init__(self, error: CoachError) -> None:
        super().__init__(error.code)
        self.frame = error_frame(error)


def error_frame(error: CoachError) -> dict[str, Any]:
    frame: dict[str, Any] = {"type": "error", "code": error.code, "message": error.message}
    if error.field:
        frame["field"] = error.field
    if error.retryable:
        frame["retryable"] = True
    return frame


def parse_client(message: Mapping[str, Any], time: float) -> SessionEvent | str | None:
    """An event, words that were typed, or None: the client wants the end. `time`: seconds since the session
    began, for an event that does not tell. Raises Refused."""
    try:
        match message.get("type"):
            case "event":
                return client_event(message.get("data"), time)
            case "text":
                return _text(message.get("text"))
            case "end_session":
                return None
            case _:
                raise Invalid(f"type must be one of {TYPES}.", field="type")
    except Invalid as error:
        raise Refused(error) from None


def client_event(data: object, time: float | None = None) -> SessionEvent:
    """`{type, data, time?}` of a client. Raises Invalid naming the field."""
    if not isinstance(data, Mapping):
        raise Invalid("data must be an object.", field="data")
    kinds = {kind.value: kind for kind in CLIENT_EVENTS}
    kind = kinds.get(str(data.get("type")))
    if kind is None:
        raise Invalid(f"data.type must be one of {', '.join(sorted(kinds))}.", field="data.type")
    inner = data.get("data", {})
    if not isinstance(inner, Mapping):
        raise Invalid("data.data must be an object.", field="data.data")
    if kind is EventType.DOB_CHECK and not isinstance(inner.get("correct"), bool):
        raise Invalid("data.data.correct must be true or false.", field="data.data.correct")
    return SessionEvent(_time(data.get("time"), time), kind, clean_json(_bounded(dict(inner))))


def _time(value: object, otherwise: float | None) -> float:
    if value is None:
        if otherwise is None:
            raise Invalid("time is required.", field="data.time")
        return otherwise
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(float(value)) or not 0 <= float(value) <= MAX_TIME_S:  # type: ignore[arg-type]
        raise Invalid("time must be seconds since the session began.", field="data.time")
    return round(float(value), 3)  # type: ignore[arg-type]


def _bounded(data: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(orjson.dumps(data))
    except (orjson.JSONEncodeError, RecursionError):
        raise Invalid("data.data must be JSON.", field="data.data") from None
    if size > MAX_DATA_BYTES:
        raise Invalid(f"data.data must not be larger than {MAX_DATA_BYTES} bytes.", field="data.data")
    return data


def _text(value: object) -> str:
    if not isinstance(value, str) or not (text := _CONTROL.sub("", value).strip()):
        raise Invalid("text must not be empty.", field="text")
    if len(text) > MAX_TEXT:
        raise Invalid(f"text must have at most {MAX_TEXT} characters.", field="text")
    return text


def clean_json(value: Any) -> Any:
    """The same without control characters, in names too."""
    match value:
        case str():
            return _CONTROL.sub("", value)
        case dict():
            return {_CONTROL.sub("", str(name)): clean_json(item) for name, item in value.items()}
        case list():
            return [clean_json(item) for item in value]
        case _:
            return value
