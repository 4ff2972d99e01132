"""What clients read and begin around practice: feedback, analysis on request, drills, scenarios, methods."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from coach_server.clock import Clock
from coach_server.domain.customer.persona import Scenario
from coach_server.domain.method.methodology import Methodology, Technique, say, say_all
from coach_server.errors import Conflict, Invalid, NotFound
from coach_server.services.access import Principal
from coach_server.services.limits import Limits
from coach_server.services.method.knowledge import Knowledge, told_entry
from coach_server.services.method.methodologies import Methodologies
from coach_server.services.practice.access import ID, acts_for, require_reader
from coach_server.services.practice.feedback import to_read
from coach_server.services.practice.messages import drill_told, spec_of
from coach_server.services.practice.progress import Practice
from coach_server.services.practice.scenarios import Scenarios, from_dict
from coach_server.services.practice.sessions import Begin, Roleplays
from coach_server.services.practice.store import RoleplayStore, order_analysis
from coach_server.storage import practice
from coach_server.storage.practice import Drill, StoredScenario
from coach_server.storage.roleplays import Session

FEEDBACK_RETRY_S = 2.0
MOST_DRILLS = 100
MOST_SCENARIOS = 200
_AGAIN = 1000  # numbers orders by hand, apart from those the server gives itself


class PracticeDesk:
    def __init__(
        self,
        *,
        store: RoleplayStore,
        sessions: Roleplays,
        methods: Methodologies,
        scenarios: Scenarios,
        practised: Practice,
        knowledge: Knowledge,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._methods = methods
        self._scenarios = scenarios
        self._practised = practised
        self._knowledge = knowledge
        self._limits = limits
        self._clock = clock

    # --- feedback

    async def feedback(self, principal: Principal, session_id: str) -> dict[str, Any]:
        """The seed's feedback with our additions. Raises Conflict while it is not ready (the client polls,
        and takes any 2xx for the result), NotFound where there will be none."""
        session = await self._sessions.own(principal, session_id, to_read=True)
        async with self._store.database.read() as conn:
            found = await practice.feedback(conn, session_id)
            drills = await practice.drills_from(conn, "roleplay", session_id)
        if found is not None:
            method = self._store.method(session)
            told = [drill_told(drill, method, session.language) for drill in drills]
            reading = self._knowledge.reading(to_read(found.document), session.language)
            return {"sessionId": session_id, **found.document, "drills": told, "reading": reading}
        raise _not_ready(session)

    async def analyse(self, principal: Principal, session_id: str) -> dict[str, Any]:
        """Order the analysis (again). Raises Conflict while the session runs, RateLimited (50 an hour)."""
        session = await self._sessions.own(principal, session_id)
        if not session.is_over:
            raise Conflict("This session is not over yet.")
        if session.analysis_status == "pending":
            return {"sessionId": session_id, "feedbackQueued": True}
        await self._limits.check("analysis", f"{session.principal}/{session.user_id}")
        now = self._clock.now()
        async with self._store.database.transaction() as conn:
            await order_analysis(conn, session_id, now, again=_AGAIN + round(now * 1000))
        self._store.on_end()
        return {"sessionId": session_id, "feedbackQueued": True}

    async def knowledge(self, text: str, language: str, limit: int) -> dict[str, Any]:
        """What the coach knows about a question, the best first."""
        book = self._knowledge.book(language)
        hits = await self._knowledge.find(text, language, limit=limit)
        return {"language": book.language, "entries": [told_entry(hit.entry, book) for hit in hits]}

    # --- drills

    async def drills(self, principal: Principal, user_id: str | None, status: str | None) -> dict[str, Any]:
        """The lost moments of a user, newest first. Raises Forbidden, Invalid."""
        wanted = user_id or principal.user_id
        if wanted is None:
            raise Invalid("userId is required.", field="userId")
        async with self._store.database.read() as conn:
            user = await practice.user(conn, principal.key, wanted)
            require_reader(principal, wanted, user.team_id if user else None)
            found = await practice.drills_of(conn, principal.key, wanted, status=status, limit=MOST_DRILLS)
        return {"drills": [drill_told(one, self._method(one), one.language) for one in found]}

    async def start_drill(self, principal: Principal, drill_id: str) -> dict[str, Any]:
        """A session of 60 to 90 seconds against the customer's own words. Raises NotFound."""
        async with self._store.database.read() as conn:
            drill = await practice.drill(conn, drill_id) if ID.fullmatch(drill_id) else None
        if drill is None or not _may_play(principal, drill):
            raise NotFound("There is no such drill.", field="drillId")
        method, spec = self._method(drill), spec_of(drill)
        step = method.step(spec.technique)
        user = await self._practised.user(principal, drill.user_id)
        begin = Begin(
            user_id=drill.user_id,
            scenario=await self._scenario_of(principal, drill, method),
            method=method,
            language=drill.language,
            phase=spec.phase,
            step=step.id if step else method.steps_of(spec.phase)[0].id,
            open_phases=[phase.id for phase in method.flow],
            store_transcript=user.store_transcripts,
            drill_id=drill.id,
            extra={"script": {"lines": list(spec.customer_lines), "attitude": spec.attitude or ""}},
        )
        answer = await self._sessions.begin(principal, begin, avatar=False)
        async with self._store.database.transaction() as conn:
            await practice.count_attempt(conn, drill.id)
        return {**answer, "drill": {**drill_told(drill, method, drill.language), "seconds": spec.seconds}}

    async def _scenario_of(self, principal: Principal, drill: Drill, method: Methodology) -> Scenario:
        """The scenario the moment comes from; where it is gone, the first of the method."""
        try:
            return await self._sessions.scenario(principal, str(drill.document.get("scenario")))
        except NotFound:
            return next(s for s in self._scenarios.all() if s.methodology == method.id)

    def _method(self, drill: Drill) -> Methodology:
        return self._methods.get(drill.methodology)

    # --- scenarios

    async def scenarios(self, principal: Principal, language: str) -> dict[str, Any]:
        """Those of the catalog and the API key's own."""
        async with self._store.database.read() as conn:
            own = await practice.scenarios_of(conn, principal.key, MOST_SCENARIOS)
        made = [from_dict(row.document) for row in own]
        taken = {scenario.id for scenario in made}
        every = [*(s for s in self._scenarios.all() if s.id not in taken), *made]
        return {"scenarios": [_listed(one, language, own=one.id in taken) for one in every]}

    async def keep_scenario(
        self, principal: Principal, scenario_id: str, document: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Make or replace one of the API key's own. Raises Invalid naming the field, NotFound (method)."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", scenario_id):
            raise Invalid("id must be small letters, digits, - and _.", field="id")
        scenario = from_dict({**document, "id": scenario_id})
        self._methods.get(scenario.methodology)
        now = self._clock.now()
        row = StoredScenario(
            scenario_id, principal.key, scenario.methodology, {**document, "id": scenario_id}, now, now
        )
        async with self._store.database.transaction() as conn:
            await practice.keep_scenario(conn, row)
        return _listed(scenario, next(iter(scenario.languages)), own=True)

    async def delete_scenario(self, principal: Principal, scenario_id: str) -> dict[str, Any]:
        """Raises NotFound; those of the catalog stay."""
        async with self._store.database.transaction() as conn:
            if not await practice.delete_scenario(conn, principal.key, scenario_id):
                raise NotFound("There is no such scenario of yours.", field="scenarioId")
        return {"id": scenario_id, "deleted": True}

    # --- methods

    def methodologies(self, language: str) -> dict[str, Any]:
        return {
            "methodologies": [
                {
                    "id": method.id,
                    "version": method.version,
                    "name": say(method.name, language),
                    "description": say(method.description, language),
                    "steps": len(method.steps),
                    "phases": [{"id": p.id, "name": say(p.name, language)} for p in method.flow],
                }
                for method in self._methods.all()
            ]
        }

    def techniques(self, method_id: str | None, language: str) -> dict[str, Any]:
        """The method as clients show it; the same until the server is restarted. Raises NotFound."""
        method = self._methods.get(method_id)
        return {
            "methodology": method.id,
            "version": method.version,
            "name": say(method.name, language),
            "phases": [
                {
                    "id": phase.id,
                    "name": say(phase.name, language),
                    "color": phase.color,
                    "themas": [say(theme.name, language) for theme in phase.themes],
                    "doel": say(phase.goal, language),
                    "uitleg": say(phase.explanation, language),
                    "steps": [_step(step, method, language) for step in method.steps_of(phase.id)],
                }
                for phase in method.flow
            ],
            "attitudes": [
                {
                    "id": attitude.id,
                    "key": attitude.key,
                    "name": say(attitude.name, language),
                    "meaning": say(attitude.meaning, language),
                    "phases": list(attitude.phases),
                    "answers": list(attitude.answers),
                    "tipType": attitude.tip_type.value,
                }
                for attitude in method.attitudes
            ],
        }


def _not_ready(session: Session) -> Exception:
    if not session.is_over:
        return Conflict("This session is not over yet.", retry_after_s=FEEDBACK_RETRY_S)
    if session.analysis_status == "pending":
        return Conflict("The feedback is not ready yet.", retry_after_s=FEEDBACK_RETRY_S)
    return NotFound("There is no feedback on this session.")


def _may_play(principal: Principal, drill: Drill) -> bool:
    return principal.key == drill.principal and acts_for(principal, drill.user_id)


def _listed(scenario: Scenario, language: str, *, own: bool) -> dict[str, Any]:
    story, persona = scenario.story(language), scenario.persona
    return {
        "id": scenario.id,
        "title": story.title,
        "who": story.who,
        "role": story.role,
        "company": story.company,
        "sector": story.sector,
        "product": story.product,
        "difficulty": persona.difficulty.value,
        "style": persona.style.value,
        "methodology": scenario.methodology,
        "languages": list(scenario.languages),
        "own": own,
    }


def _step(step: Technique, method: Methodology, language: str) -> dict[str, Any]:
    return {
        **_technique(step, language),
        "isVerplicht": step.required,
        "details": [
            _technique(one, language)
            for one in method.techniques
            if not one.is_step and one.counts_as == step.id
        ],
    }


def _technique(technique: Technique, language: str) -> dict[str, Any]:
    """With the keys the web client reads (contract §1)."""
    return {
        "id": technique.id,
        "nummer": technique.id,
        "name": say(technique.name, language),
        "doel": say(technique.goal, language),
        "wat": say(technique.what, language),
        "wanneer": say(technique.when, language),
        "hoe": list(say_all(technique.how, language)),
        "voorbeelden": list(say_all(technique.examples, language)),
        "duration": f"{technique.minutes} min",
    }
