"""GET /api/conversations and what belongs to one."""

from __future__ import annotations

import re

from aiohttp import web

from coach_server.api.answers import json_response
from coach_server.api.http import Rest
from coach_server.errors import Invalid, NotFound
from coach_server.services.access import Principal
from coach_server.services.archive import Archive

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STATUSES = ("active", "ended", "abandoned")
MAX_PAGE = 200


class RestCalls:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def register(self, rest: Rest) -> None:
        rest.add("GET", "/api/conversations", self.listing)
        rest.add("GET", "/api/conversations/{id}", self.conversation)
        rest.add("GET", "/api/conversations/{id}/transcript", self.transcript)
        rest.add("GET", "/api/conversations/{id}/tips", self.tips)
        rest.add("GET", "/api/conversations/{id}/analysis", self.analysis)

    async def listing(self, request: web.Request, principal: Principal) -> web.Response:
        query = request.query
        status = query.get("status")
        if status is not None and status not in _STATUSES:
            raise Invalid("status must be active, ended or abandoned.", field="status")
        page = await self._archive.listing(
            principal,
            status=status,
            agent_id=query.get("agentId"),
            limit=_limit(query.get("limit")),
            cursor=query.get("cursor"),
        )
        return json_response(page)

    async def conversation(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._archive.conversation(principal, _id(request)))

    async def transcript(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._archive.transcript(principal, _id(request)))

    async def tips(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._archive.tips(principal, _id(request)))

    async def analysis(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._archive.analysis(principal, _id(request)))


def _id(request: web.Request) -> str:
    wanted = request.match_info["id"]
    if not _ID.fullmatch(wanted):
        raise NotFound("There is no such conversation.", field="conversationId")
    return wanted


def _limit(value: str | None) -> int:
    if value is None:
        return 50
    if not (value.isascii() and value.isdigit()) or not 1 <= int(value) <= MAX_PAGE:
        raise Invalid(f"limit must be a number from 1 to {MAX_PAGE}.", field="limit")
    return int(value)
