"""/api/sessions, /api/scenarios, /api/personas, /api/dashboard (seed 001)."""

from __future__ import annotations

from aiohttp import web

from coach_server.api import wire as shared
from coach_server.api.answers import json_body, json_response
from coach_server.api.http import Doc, Rest
from coach_server.api.simulation import out, wire
from coach_server.services.access import Principal, Role
from coach_server.services.simulation.archive import Filters, Page, SimulationArchive
from coach_server.services.simulation.desk import SimulationDesk
from coach_server.services.simulation.sessions import CreateWish

MAX_BATCH_BYTES = 2_000_000
_BUILDERS = (Role.SERVICE, Role.ADMIN)


class RestSimulations:
    """`trusts_proxy`: whether a proxy says by which scheme clients come."""

    def __init__(
        self, desk: SimulationDesk, archive: SimulationArchive, *, language: str, trusts_proxy: bool
    ) -> None:
        self._desk = desk
        self._archive = archive
        self._language = language
        self._trusts_proxy = trusts_proxy

    def register(self, rest: Rest) -> None:
        one = "/api/sessions/{id}"
        create = Doc(
            "Make a session.",
            out.SessionCreated,
            body=wire.CreateSession,
            refusals=(403, 404, 503),
        )
        events = Doc(
            "Upload events out of a client's buffer.",
            out.EventsStored,
            body=wire.UploadEvents,
            refusals=(503,),
        )
        listed = Doc("The sessions you may see.", out.SessionsPage, query=wire.SessionQuery)
        report = Doc("The report card.", "application/pdf", refusals=(409,))
        data = Doc("The data files.", "application/zip", refusals=(409,))
        export = Doc("Send it to the outside API.", out.ExportOrdered, refusals=(409, 503))
        score = Doc("Score it again.", out.ScoreOrdered, refusals=(409, 503))
        stats = Doc("Figures of the sessions you may see.", out.StatsTold, query=wire.SessionQuery)
        board = Doc("A page of the dashboard.", out.DashboardAnswer, query=wire.SessionQuery)
        table = Doc("The sessions as a table.", "text/csv", query=wire.SessionQuery)
        scenarios = Doc("What can be played.", out.SimScenariosAnswer, query=wire.InLanguage)
        personas = Doc("Who can be met.", out.PersonasAnswer, query=wire.InLanguage)
        keep = Doc("Make or replace one of your own.", out.Saved, body=wire.Document, refusals=(503,))
        drop = Doc("Delete one of your own.", out.Deleted, refusals=(503,))
        rest.add("POST", "/api/sessions", self.create, create)
        rest.add("GET", "/api/sessions", self.listing, listed)
        rest.add("GET", one, self.session, Doc("One session with everything in it.", out.SessionDetail))
        rest.add("POST", f"{one}/events", self.upload, events)
        rest.add("GET", f"{one}/report", self.report, report)
        rest.add("GET", f"{one}/data", self.data, data)
        rest.add("POST", f"{one}/export", self.export, export)
        rest.add("POST", f"{one}/score", self.rescore, score)
        rest.add("GET", "/api/scenarios", self.scenarios, scenarios)
        rest.add("PUT", "/api/scenarios/{id}", self.keep_scenario, keep, roles=_BUILDERS)
        rest.add("DELETE", "/api/scenarios/{id}", self.delete_scenario, drop, roles=_BUILDERS)
        rest.add("GET", "/api/personas", self.personas, personas)
        rest.add("PUT", "/api/personas/{id}", self.keep_persona, keep, roles=_BUILDERS)
        rest.add("DELETE", "/api/personas/{id}", self.delete_persona, drop, roles=_BUILDERS)
        rest.add("GET", "/api/dashboard", self.dashboard, board)
        rest.add("GET", "/api/dashboard/stats", self.stats, stats)
        rest.add("GET", "/api/dashboard/csv", self.csv, table)

    async def create(self, request: web.Request, principal: Principal) -> web.Response:
        wish = shared.parse(wire.CreateSession, await json_body(request))
        answer = await self._desk.create(
            principal,
            CreateWish(
                scenario_id=wish.scenarioId,
                trainee_id=wish.traineeId,
                persona_id=wish.personaId,
                language=wish.language,
                client=wish.client,
                metadata=wish.metadata,
                store_transcript=wish.storeTranscript,
            ),
            self._socket_base(request),
        )
        return json_response(answer)

    def _socket_base(self, request: web.Request) -> str:
        forwarded = request.headers.get("X-Forwarded-Proto") if self._trusts_proxy else None
        scheme = "wss" if (forwarded or request.scheme) == "https" else "ws"
        return f"{scheme}://{request.host}"

    async def listing(self, request: web.Request, principal: Principal) -> web.Response:
        query = _query(request)
        return json_response(await self._archive.listing(principal, _filters(query), _page(query)))

    async def session(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._archive.session(principal, _id(request)))

    async def upload(self, request: web.Request, principal: Principal) -> web.Response:
        sent = await json_body(request, max_bytes=MAX_BATCH_BYTES)
        body = shared.parse(wire.UploadEvents, {"events": sent} if isinstance(sent, list) else sent)
        return json_response(await self._desk.upload(principal, _id(request), body.events))

    async def report(self, request: web.Request, principal: Principal) -> web.Response:
        body = await self._desk.report(principal, _id(request))
        return _file(body, "application/pdf", f"{_id(request)}.pdf")

    async def data(self, request: web.Request, principal: Principal) -> web.Response:
        body = await self._desk.data(principal, _id(request))
        return _file(body, "application/zip", f"{_id(request)}.zip")

    async def export(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._desk.export(principal, _id(request)))

    async def rescore(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._desk.rescore(principal, _id(request)))

    async def scenarios(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._desk.scenarios(principal, self._in(request)))

    async def personas(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._desk.personas(principal, self._in(request)))

    async def keep_scenario(self, request: web.Request, principal: Principal) -> web.Response:
        return await self._keep("scenario", request, principal)

    async def keep_persona(self, request: web.Request, principal: Principal) -> web.Response:
        return await self._keep("persona", request, principal)

    async def _keep(self, kind: str, request: web.Request, principal: Principal) -> web.Response:
        document = shared.parse(wire.Document, await json_body(request)).model_dump()
        return json_response(await self._desk.keep(kind, principal, _id(request), document))

    async def delete_scenario(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._desk.delete("scenario", principal, _id(request)))

    async def delete_persona(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._desk.delete("persona", principal, _id(request)))

    async def dashboard(self, request: web.Request, principal: Principal) -> web.Response:
        query = _query(request)
        filters = _filters(query)
        return json_response(
            {
                **await self._archive.listing(principal, filters, _page(query)),
                "stats": await self._archive.stats(principal, filters),
                "choices": await self._archive.choices(principal),
            }
        )

    async def stats(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._archive.stats(principal, _filters(_query(request))))

    async def csv(self, request: web.Request, principal: Principal) -> web.Response:
        text = await self._archive.csv(principal, _filters(_query(request)))
        return _file(text.encode(), "text/csv", "sessions.csv")

    def _in(self, request: web.Request) -> str:
        return shared.parse(wire.InLanguage, dict(request.query)).language or self._language


def _query(request: web.Request) -> wire.SessionQuery:
    return shared.parse(wire.SessionQuery, dict(request.query))


def _filters(query: wire.SessionQuery) -> Filters:
    return Filters(
        query.trainee,
        query.persona,
        query.scenario,
        query.outcome,
        query.status,
        query.since,
        query.until,
    )


def _page(query: wire.SessionQuery) -> Page:
    return Page(query.page, query.pageSize, query.sort, query.order == "desc")


def _file(body: bytes, kind: str, name: str) -> web.Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    charset = "utf-8" if kind == "text/csv" else None
    return web.Response(body=body, content_type=kind, charset=charset, headers=headers)


def _id(request: web.Request) -> str:
    return request.match_info["id"]
