"""Errors become replies here, and nowhere else: an ack, an ERROR event, an HTTP answer.

No stack, path or library name leaves the server: what is not a CoachError is logged and called internal.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from aiohttp import web
from loguru import logger

from coach_server.api.answers import json_response
from coach_server.clock import millis
from coach_server.errors import CoachError, Invalid, NotFound, StorageFailed, TooLarge, Unauthorized

_HTTP = {404: NotFound, 413: TooLarge, 401: Unauthorized}


def to_coach_error(error: BaseException) -> CoachError:
    """Every exception as one of ours; what was not expected is logged with its traceback."""
    if isinstance(error, CoachError):
        return error
    if isinstance(error, TimeoutError | asyncio.CancelledError):
        return StorageFailed("This took too long and may or may not be stored; send it again.")
    if isinstance(error, web.HTTPException):
        if (known := _HTTP.get(error.status)) is not None:
            return known()
        fault = Invalid("This request cannot be answered.")
        fault.status = error.status
        return fault
    logger.opt(exception=error).error("Unexpected error")
    return CoachError("Something went wrong on the server.")


def ack(error: CoachError) -> dict[str, Any]:
    """`{ok: false, code, message, field?, retryable?, retryAfterMs?}`."""
    answer: dict[str, Any] = {"ok": False, "code": error.code, "message": error.message}
    if error.field:
        answer["field"] = error.field
    if error.retryable:
        answer["retryable"] = True
    if error.retry_after_s is not None:
        answer["retryAfterMs"] = math.ceil(error.retry_after_s * 1000)
    return answer


def error_event(error: CoachError, code: str, now: float, **ids: str | None) -> dict[str, Any]:
    """Payload of an ERROR event: `code` is one the contract knows, `reason` says more to newer clients."""
    payload: dict[str, Any] = {
        "message": error.message,
        "code": code,
        "reason": error.code,
        "timestamp": millis(now),
    }
    if error.field:
        payload["field"] = error.field
    if error.retry_after_s is not None:
        payload["retryAfterMs"] = math.ceil(error.retry_after_s * 1000)
    payload.update({name: value for name, value in ids.items() if value is not None})
    return payload


def http_answer(error: CoachError) -> web.Response:
    """`{error, code, message, field?}` with the status of the error."""
    body: dict[str, Any] = {
        "success": False,
        "error": error.message,
        "code": error.code,
        "message": error.message,
    }
    if error.field:
        body["field"] = error.field
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
        body["retryAfter"] = max(1, math.ceil(error.retry_after_s))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json_response(body, status=error.status, headers=headers)
