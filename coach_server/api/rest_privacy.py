"""What people may ask of their data: erase it, hand it out; and the evidence of what was deleted."""

from __future__ import annotations

import re

from aiohttp import web

from coach_server.api import export_out, wire_out
from coach_server.api.answers import json_response, user_of
from coach_server.api.http import Doc, Rest
from coach_server.errors import NotFound
from coach_server.services.access import Principal, Role
from coach_server.services.export import Export
from coach_server.services.privacy import Erasure
from coach_server.services.retention import Retention

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class RestPrivacy:
    def __init__(self, erasure: Erasure, export: Export, retention: Retention) -> None:
        self._erasure = erasure
        self._export = export
        self._retention = retention

    def register(self, rest: Rest) -> None:
        erase_user = Doc("Erase all that is stored of a user.", wire_out.ErasureReceipt, refusals=(403, 503))
        erase_call = Doc("Erase a call.", wire_out.ErasureReceipt, refusals=(403, 503))
        export = Doc("All that is stored of a user, as a file.", export_out.UserExport, refusals=(403, 503))
        sweeps = Doc("When old words were deleted, and how many.", wire_out.SweepsAnswer)
        rest.add("DELETE", "/api/users/{userId}", self.erase_user, erase_user)
        rest.add("GET", "/api/users/{userId}/export", self.export, export)
        rest.add("DELETE", "/api/conversations/{id}", self.erase_conversation, erase_call)
        rest.add("GET", "/api/privacy/sweeps", self.sweeps, sweeps, roles=(Role.ADMIN,))

    async def erase_user(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._erasure.user(principal, user_of(request)))

    async def erase_conversation(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._erasure.conversation(principal, _id(request)))

    async def export(self, request: web.Request, principal: Principal) -> web.Response:
        pieces = await self._export.user(principal, user_of(request))
        headers = {"Content-Disposition": 'attachment; filename="coach-export.json"'}
        return web.Response(body=pieces, content_type="application/json", headers=headers)

    async def sweeps(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._retention.sweeps())


def _id(request: web.Request) -> str:
    wanted = request.match_info["id"]
    if not _ID.fullmatch(wanted):
        raise NotFound("There is nothing with this id that you may see.", field="conversationId")
    return wanted
