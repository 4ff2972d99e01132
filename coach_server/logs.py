"""Logs: loguru, JSON lines in production, ids only.

What an exception says is not logged, because a driver or a validator may quote what people said: its type and
where it happened are enough to find it.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any

import orjson
from loguru import logger

from coach_server.errors import CoachError

if TYPE_CHECKING:
    from loguru import Message, Record

FRAMES = 6
_QUIET = (
    "aiohttp.access",
    "apscheduler",
    "openai",
    "httpx2",
    "httpcore2",
    "botocore",
    "engineio",
    "socketio",
)


def set_up(level: str, *, as_json: bool) -> None:
    """Send every log line of the process to standard output."""
    logger.remove()
    logger.add(
        _write_json if as_json else _write_text,
        level=level.upper(),
        backtrace=False,
        diagnose=False,
        catch=True,
    )
    logging.basicConfig(handlers=[_IntoLoguru()], level=logging.WARNING, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


class _IntoLoguru(logging.Handler):
    """Standard logging of libraries: the logger's name and its constant message, not the values in it."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in ("WARNING", "ERROR", "CRITICAL") else "DEBUG"
        message = record.msg if isinstance(record.msg, str) and record.args else record.name
        error = record.exc_info[1] if record.exc_info else None
        logger.opt(exception=error).bind(library=record.name).log(level, "{}", message[:120])


def _write_json(message: Message) -> None:
    sys.stdout.buffer.write(orjson.dumps(_fields(message.record), default=str) + b"\n")
    sys.stdout.buffer.flush()


def _write_text(message: Message) -> None:
    fields = _fields(message.record)
    head = f"{message.record['time']:HH:mm:ss.SSS} {fields.pop('level'):<7} {fields.pop('message')}"
    fields.pop("time")
    tail = " ".join(f"{name}={value}" for name, value in fields.items())
    sys.stdout.write(f"{head}  {tail}\n" if tail else f"{head}\n")
    sys.stdout.flush()


def _fields(record: Record) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name.lower(),
        "message": record["message"],
        **record["extra"],
    }
    caught = record["exception"]
    if caught is not None and caught.value is not None:
        fields["error"] = type(caught.value).__name__
        if isinstance(caught.value, CoachError):
            fields["code"] = caught.value.code
        fields["where"] = _where(caught.value)
    return fields


def _where(error: BaseException) -> list[str]:
    """The last frames as `file:line function`, innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
