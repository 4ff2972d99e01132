"""What clients do with simulations beside talking: make them, upload events, get what they came to, send it
on; and the personas and scenarios there are."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from coach_server.clock import Clock
from coach_server.domain.method.methodology import say
from coach_server.domain.simulation.attitude import shown
from coach_server.domain.simulation.persona import SimPersona, SimScenario, pick
from coach_server.errors import Conflict, Invalid, NotFound, Unavailable
from coach_server.services.access import Principal
from coach_server.services.simulation.access import may_act, unknown
from coach_server.services.simulation.archive import SimulationArchive
from coach_server.services.simulation.personas import Personas
from coach_server.services.simulation.sessions import CreateWish, Simulations, order_score
from coach_server.storage import jobs, simulation_scores
from coach_server.storage.database import Database
from coach_server.storage.simulation_scores import Export, Own

EXPORT = "export_simulation"
RETRY_S = 2.0
MOST_OWN = 500
_SLUG = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class SimulationDesk:
    """`report`, `archive_file`: make a session's PDF and zip; `exports`: whether an outside API is set."""

    def __init__(
        self,
        *,
        database: Database,
        sessions: Simulations,
        archive: SimulationArchive,
        personas: Personas,
        report: Callable[[str], Awaitable[bytes]],
        data_zip: Callable[[str], Awaitable[bytes]],
        exports: bool,
        clock: Clock,
        on_job: Callable[[], None],
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._archive = archive
        self._personas = personas
        self._report = report
        self._data_zip = data_zip
        self._exports = exports
        self._clock = clock
        self.on_job = on_job

    async def create(self, principal: Principal, wish: CreateWish, socket_base: str) -> dict[str, Any]:
        """`socket_base`: `wss://host`. The ticket in `wsUrl` works once; `ready` brings the next one."""
        row, cast, ticket = await self._sessions.create(principal, wish)
        return {
            "sessionId": row.id,
            "wsUrl": f"{socket_base}/ws/sessions/{row.id}?ticket={ticket}",
            "status": row.status,
            "traineeId": row.trainee_id,
            "language": row.language,
            "persona": persona_told(cast.persona, row.language),
            "scenario": scenario_told(cast.scenario, cast.persona, row.language),
        }

    async def upload(
        self, principal: Principal, session_id: str, items: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        counted = await self._sessions.upload(principal, session_id, items)
        return {"sessionId": session_id, **counted}

    async def report(self, principal: Principal, session_id: str) -> bytes:
        """The PDF report card. Raises NotFound, Conflict while the session runs or is not scored yet."""
        row = await self._archive.own(principal, session_id)
        _require_ended(row.status, row.analysis_status)
        return await self._report(session_id)

    async def data(self, principal: Principal, session_id: str) -> bytes:
        """The zip of the data files. Raises NotFound, Conflict while the session runs."""
        row = await self._archive.own(principal, session_id)
        if row.status != "ended":
            raise Conflict("This session is not over yet.", retry_after_s=RETRY_S)
        return await self._data_zip(session_id)

    async def export(self, principal: Principal, session_id: str) -> dict[str, Any]:
        """Order the upload to the outside API; its state stands in the session's `exports`. Raises NotFound,
        Conflict, Unavailable where none is configured."""
        row = await self._archive.own(principal, session_id)
        if not may_act(principal, row):
            raise unknown()
        _require_ended(row.status, row.analysis_status)
        if not self._exports:
            raise Unavailable("No export is configured: BATMAN_API_URL is not set.")
        export_id, now = str(uuid.uuid4()), self._clock.now()
        async with self._database.transaction() as conn:
            await simulation_scores.add_export(conn, Export(export_id, session_id, now))
            payload = {"exportId": export_id, "sessionId": session_id}
            await jobs.enqueue(conn, EXPORT, f"{EXPORT}:{export_id}", payload, now)
        self.on_job()
        return {"exportId": export_id, "sessionId": session_id, "status": "pending"}

    async def rescore(self, principal: Principal, session_id: str) -> dict[str, Any]:
        row = await self._archive.own(principal, session_id)
        if row.status != "ended":
            raise Conflict("This session is not over yet.")
        now = self._clock.now()
        async with self._database.transaction() as conn:
            await order_score(conn, session_id, now, again=1000 + round(now * 1000))
        self.on_job()
        return {"sessionId": session_id, "scoreQueued": True}

    # --- personas and scenarios

    async def personas(self, principal: Principal, language: str) -> dict[str, Any]:
        own = [self._personas.persona_from(one.document) for one in await self._own("persona", principal)]
        taken = {persona.id for persona in own}
        every = [*(one for one in self._personas.personas() if one.id not in taken), *own]
        return {"personas": [persona_told(one, language) | {"own": one.id in taken} for one in every]}

    async def scenarios(self, principal: Principal, language: str) -> dict[str, Any]:
        own_personas = {
            one.id: self._personas.persona_from(one.document) for one in await self._own("persona", principal)
        }
        own = [
            self._personas.scenario_from(one.document, list(own_personas))
            for one in await self._own("scenario", principal)
        ]
        taken = {scenario.id for scenario in own}
        every = [*(one for one in self._personas.scenarios() if one.id not in taken), *own]
        told = []
        for one in every:
            persona = own_personas.get(one.persona_id) or self._personas.persona(one.persona_id)
            told.append(scenario_told(one, persona, language) | {"own": one.id in taken})
        return {"scenarios": told}

    async def keep(
        self, kind: str, principal: Principal, id: str, document: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Make or replace a persona or scenario of the API key's own. Raises Invalid naming the field."""
        if not _SLUG.fullmatch(id):
            raise Invalid("id must be 1 to 64 letters, digits, _, . or -.", field="id")
        named = {**document, "id": id}
        if kind == "persona":
            await asyncio.to_thread(self._personas.persona_from, named)
        else:
            others = [one.id for one in await self._own("persona", principal)]
            await asyncio.to_thread(self._personas.scenario_from, named, others)
        now = self._clock.now()
        async with self._database.transaction() as conn:
            await simulation_scores.keep_own(conn, kind, Own(id, principal.key, named, now, now))
        return {"id": id, "saved": True}

    async def delete(self, kind: str, principal: Principal, id: str) -> dict[str, Any]:
        """Raises NotFound; those of the catalog stay."""
        async with self._database.transaction() as conn:
            if not await simulation_scores.delete_own(conn, kind, principal.key, id):
                raise NotFound(f"There is no such {kind} of yours.", field="id")
        return {"id": id, "deleted": True}

    async def _own(self, kind: str, principal: Principal) -> list[Own]:
        async with self._database.read() as conn:
            return await simulation_scores.all_own(conn, kind, principal.key, MOST_OWN)


def _require_ended(status: str, analysis: str) -> None:
    if status != "ended":
        raise Conflict("This session is not over yet.", retry_after_s=RETRY_S)
    if analysis == "pending":
        raise Conflict("The score is not ready yet.", retry_after_s=RETRY_S)


def persona_told(persona: SimPersona, language: str) -> dict[str, Any]:
    """What a client may know of a persona: nothing of prompts, weak points or criteria."""
    return {
        "id": persona.id,
        "name": persona.name,
        "type": persona.type,
        "age": persona.age,
        "description": say(persona.description, language),
        "voice": persona.voice,
        "initialAttitude": shown(persona.initial_attitude),
        "traits": list(pick(persona.traits, language)),
        "languages": list(persona.languages),
        "domain": persona.domain,
    }


def scenario_told(scenario: SimScenario, persona: SimPersona, language: str) -> dict[str, Any]:
    return {
        "id": scenario.id,
        "personaId": persona.id,
        "title": say(scenario.title, language),
        "description": say(scenario.description, language),
        "setting": say(scenario.setting, language),
        "goal": say(scenario.goal, language),
        "success": list(pick(scenario.success, language)),
        "maxExchanges": scenario.max_exchanges,
        "languages": list(persona.languages),
        "persona": {"id": persona.id, "name": persona.name, "type": persona.type},
    }
