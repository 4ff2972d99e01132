"""GET /api/conversations and what belongs to one."""

from __future__ import annotations

import re
from typing import Literal

from aiohttp import web
from pydantic import Field

from coach_server.api import wire, wire_out
from coach_server.api.answers import json_response
from coach_server.api.http import Doc, Rest
from coach_server.api.practice import out as practice_out
from coach_server.errors import NotFound
from coach_server.services.access import Principal
from coach_server.services.archive import Archive
from coach_server.services.practice.call_scoring import CallScoring

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_PAGE = 200


class ListingQuery(wire.Inbound):
    """Query of GET /api/conversations."""

    status: Literal["active", "ended", "abandoned"] | None = None
    agentId: wire.Id | None = None
    limit: int = Field(50, ge=1, le=MAX_PAGE)
    cursor: str | None = Field(None, pattern=r"^[0-9]{1,15}\.[A-Za-z0-9_-]{1,64}$")
    """`nextCursor` of the page before."""


class RestCalls:
    def __init__(self, archive: Archive, scoring: CallScoring) -> None:
        self._archive = archive
        self._scoring = scoring

    def register(self, rest: Rest) -> None:
        one = "/api/conversations/{id}"
        listed = Doc("The calls you may see.", wire_out.ConversationPage, query=ListingQuery)
        analysed = Doc("What the call came to.", wire_out.AnalysisAnswer, refusals=(409,))
        rest.add("GET", "/api/conversations", self.listing, listed)
        rest.add("GET", one, self.conversation, Doc("One call.", wire_out.ConversationDetail))
        rest.add(
            "GET", f"{one}/transcript", self.transcript, Doc("What was said.", wire_out.TranscriptAnswer)
        )
        rest.add("GET", f"{one}/tips", self.tips, Doc("The tips, and which were taken.", wire_out.TipsAnswer))
        scored = Doc("The score card of the call.", practice_out.CallFeedbackAnswer, refusals=(409,))
        rest.add("GET", f"{one}/analysis", self.analysis, analysed)
        rest.add("GET", f"{one}/feedback", self.feedback, scored)

    async def listing(self, request: web.Request, principal: Principal) -> web.Response:
        query = wire.parse(ListingQuery, dict(request.query))
        page = await self._archive.listing(
            principal,
            status=query.status,
            agent_id=query.agentId,
            limit=query.limit,
            cursor=query.cursor,
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

    async def feedback(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._scoring.feedback(principal, _id(request)))


def _id(request: web.Request) -> str:
    wanted = request.match_info["id"]
    if not _ID.fullmatch(wanted):
        raise NotFound("There is no such conversation.", field="conversationId")
    return wanted
