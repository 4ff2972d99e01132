"""JSON answers and bodies of HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from coach_server.errors import Invalid, NotFound, TooLarge

MAX_BODY = 256_000
_USER = re.compile(r"[^\x00-\x1f\x7f/\\\ud800-\udfff]{1,128}")


def user_of(request: web.Request) -> str:
    """The user that the path names: any text of the client's; what cannot be one is nobody's."""
    wanted = request.match_info["userId"]
    if not _USER.fullmatch(wanted):
        raise NotFound("There is nothing with this id that you may see.", field="userId")
    return wanted


def json_response(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", headers=headers or {}
    )


async def json_body(request: web.Request, *, max_bytes: int = MAX_BODY) -> Any:
    """The parsed body; an empty one is `{}`. Raises Invalid (field `body`) or TooLarge."""
    try:
        raw = await request.content.read(max_bytes + 1)
        while not request.content.at_eof() and len(raw) <= max_bytes:
            raw += await request.content.read(max_bytes + 1 - len(raw))
    except (web.HTTPRequestEntityTooLarge, ValueError):
        raise TooLarge() from None
    if len(raw) > max_bytes:
        raise TooLarge(f"The body must not be larger than {max_bytes} bytes.", field="body")
    if not raw.strip():
        return {}
    try:
        return orjson.loads(raw)
    except (orjson.JSONDecodeError, RecursionError):
        raise Invalid("The body is not valid JSON.", field="body") from None
