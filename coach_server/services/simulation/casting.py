"""Who and what a session is with: personas and scenarios of the API key before those of the catalog.

Those of a key can be changed and deleted while sessions with them run or wait for their score. So a session
keeps a copy of what was the key's own when it was made, in the state of its row; without one (its words were
deleted by age) what stands there now is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coach_server.services.simulation.live import OWN, Cast
from coach_server.services.simulation.personas import Personas
from coach_server.storage import simulation_scores
from coach_server.storage.database import Database
from coach_server.storage.simulations import Simulation

Documents = Mapping[str, Any]


class Casting:
    def __init__(self, database: Database, personas: Personas) -> None:
        self._database = database
        self._personas = personas

    async def begin(self, key: str, scenario_id: str, persona_id: str | None) -> tuple[Cast, dict[str, Any]]:
        """The cast of a new session, and what of it is the key's own: `{scenario?, persona?}`, for the
        session to keep. Raises NotFound."""
        own = await self._own(key, scenario_id, persona_id)
        return self._cast(own, scenario_id, persona_id), own

    async def of(self, row: Simulation) -> Cast:
        """The cast of a session. Raises NotFound when it is nowhere any more."""
        own = row.state.get(OWN)
        if own is None:
            own = await self._own(row.principal, row.scenario_id, row.persona_id)
        return self._cast(own, row.scenario_id, row.persona_id)

    async def _own(self, key: str, scenario_id: str, persona_id: str | None) -> dict[str, Any]:
        async with self._database.read() as conn:
            scenario = await simulation_scores.own(conn, "scenario", key, scenario_id)
            wanted = persona_id
            if wanted is None and scenario is not None:
                wanted = _persona_of(scenario.document)
            elif wanted is None:
                wanted = self._personas.scenario(scenario_id).persona_id
            persona = await simulation_scores.own(conn, "persona", key, wanted)
        found = {"scenario": scenario, "persona": persona}
        return {kind: one.document for kind, one in found.items() if one is not None}

    def _cast(self, own: Documents, scenario_id: str, persona_id: str | None) -> Cast:
        if (document := own.get("scenario")) is not None:
            # Its persona may be another of the key's own, which need not be there any more.
            scenario = self._personas.scenario_from(document, [_persona_of(document)])
        else:
            scenario = self._personas.scenario(scenario_id)
        if (document := own.get("persona")) is not None:
            persona = self._personas.persona_from(document)
        else:
            persona = self._personas.persona(persona_id or scenario.persona_id)
        return Cast(persona, scenario, self._personas.domain(persona.domain))


def _persona_of(scenario: Documents) -> str:
    return str(scenario.get("personaId") or scenario["persona_id"])
