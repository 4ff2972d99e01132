"""What belongs to practising beside its sessions: progress, drills, scenarios, methods, a user's choices."""

from __future__ import annotations

from aiohttp import web

from coach_server.api import wire
from coach_server.api.answers import json_body, json_response, user_of
from coach_server.api.http import Doc, Rest
from coach_server.api.practice import out as practice_out
from coach_server.api.practice import wire as practice_wire
from coach_server.api.practice.rest_roleplay import BEGINNERS
from coach_server.services.access import Principal, Role
from coach_server.services.method.methodologies import Methodologies
from coach_server.services.practice.avatars import Avatars
from coach_server.services.practice.desk import PracticeDesk
from coach_server.services.practice.progress import Practice

_BUILDERS = (Role.SERVICE, Role.ADMIN)


class RestPractice:
    def __init__(
        self,
        desk: PracticeDesk,
        practised: Practice,
        methods: Methodologies,
        avatars: Avatars,
        *,
        language: str,
    ) -> None:
        self._desk = desk
        self._practised = practised
        self._methods = methods
        self._avatars = avatars
        self._language = language

    def register(self, rest: Rest) -> None:
        out = practice_out
        techniques = Doc(
            "The techniques of a method.",
            out.TechniquesAnswer,
            query=practice_wire.OfMethod,
            refusals=(404,),
        )
        methods = Doc("The methods.", out.MethodologiesAnswer, query=practice_wire.InLanguage)
        scenarios = Doc("Whom to practise with.", out.ScenariosAnswer, query=practice_wire.InLanguage)
        keep = Doc(
            "Make or replace a scenario of your own.",
            out.ScenarioListed,
            body=practice_wire.ScenarioDocument,
            refusals=(503,),
        )
        drop = Doc("Delete a scenario of your own.", out.ScenarioDeleted, refusals=(503,))
        progress = Doc(
            "What a user has practised.",
            out.ProgressAnswer,
            query=practice_wire.OfMethod,
            refusals=(403,),
        )
        drills = Doc(
            "The lost moments of a user.",
            out.DrillsAnswer,
            query=practice_wire.DrillQuery,
            refusals=(403,),
        )
        drill = Doc("Play a lost moment again.", out.DrillStarted, refusals=(429, 503))
        chosen = Doc("What a user chose.", out.UserChoicesTold, refusals=(403,))
        choose = Doc(
            "Change what a user chose.",
            out.UserChoicesTold,
            body=practice_wire.UserChoices,
            refusals=(403, 503),
        )
        asked = Doc(
            "What the coach knows about a question.",
            out.KnowledgeAnswer,
            query=practice_wire.KnowledgeQuery,
        )
        avatar = Doc("What the avatar can do.", out.AvatarCapabilities)
        user = "/api/users/{userId}/settings"
        own = "/api/roleplay/scenarios/{id}"
        rest.add("GET", "/api/methodologies", self.methodologies, methods, roles=BEGINNERS)
        rest.add("GET", "/api/roleplay/techniques", self.techniques, techniques, roles=BEGINNERS)
        rest.add("GET", "/api/roleplay/scenarios", self.scenarios, scenarios, roles=BEGINNERS)
        rest.add("GET", "/api/roleplay/knowledge", self.knowledge, asked, roles=BEGINNERS)
        rest.add("PUT", own, self.keep_scenario, keep, roles=_BUILDERS)
        rest.add("DELETE", own, self.delete_scenario, drop, roles=_BUILDERS)
        rest.add("GET", "/api/roleplay/users/{userId}/progress", self.progress, progress, roles=BEGINNERS)
        rest.add("GET", "/api/drills", self.drills, drills, roles=BEGINNERS)
        rest.add("POST", "/api/drills/{id}/start", self.start_drill, drill, roles=BEGINNERS)
        rest.add("GET", user, self.choices, chosen)
        rest.add("PUT", user, self.choose, choose)
        rest.add("GET", "/api/avatar/capabilities", self.avatar, avatar, roles=BEGINNERS)

    async def methodologies(self, request: web.Request, principal: Principal) -> web.Response:
        query = wire.parse(practice_wire.InLanguage, dict(request.query))
        return json_response(self._desk.methodologies(query.language or self._language))

    async def techniques(self, request: web.Request, principal: Principal) -> web.Response:
        query = wire.parse(practice_wire.OfMethod, dict(request.query))
        return json_response(self._desk.techniques(query.methodology, query.language or self._language))

    async def scenarios(self, request: web.Request, principal: Principal) -> web.Response:
        query = wire.parse(practice_wire.InLanguage, dict(request.query))
        return json_response(await self._desk.scenarios(principal, query.language or self._language))

    async def knowledge(self, request: web.Request, principal: Principal) -> web.Response:
        query = wire.parse(practice_wire.KnowledgeQuery, dict(request.query))
        language = query.language or self._language
        return json_response(await self._desk.knowledge(query.text, language, query.limit))

    async def keep_scenario(self, request: web.Request, principal: Principal) -> web.Response:
        made = wire.parse(practice_wire.ScenarioDocument, await json_body(request))
        document = made.model_dump(exclude_none=True)
        return json_response(await self._desk.keep_scenario(principal, request.match_info["id"], document))

    async def delete_scenario(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._desk.delete_scenario(principal, request.match_info["id"]))

    async def progress(self, request: web.Request, principal: Principal) -> web.Response:
        query = wire.parse(practice_wire.OfMethod, dict(request.query))
        method = self._methods.get(query.methodology)
        language = query.language or self._language
        return json_response(await self._practised.document(principal, user_of(request), method, language))

    async def drills(self, request: web.Request, principal: Principal) -> web.Response:
        query = wire.parse(practice_wire.DrillQuery, dict(request.query))
        return json_response(await self._desk.drills(principal, query.userId, query.status))

    async def start_drill(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._desk.start_drill(principal, request.match_info["id"]))

    async def choices(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._practised.settings(principal, user_of(request)))

    async def choose(self, request: web.Request, principal: Principal) -> web.Response:
        wish = wire.parse(practice_wire.UserChoices, await json_body(request))
        answer = await self._practised.choose(
            principal,
            user_of(request),
            store_transcripts=wish.storeTranscripts,
            feedback_email=wish.feedbackEmail,
            consent=wish.consent.model_dump(exclude_none=True) if wish.consent else None,
        )
        return json_response(answer)

    async def avatar(self, request: web.Request, principal: Principal) -> web.Response:
        found = self._avatars.capabilities()
        return json_response(
            {
                "provider": found.provider,
                "modes": list(found.modes),
                "languages": list(found.languages),
                "configured": found.configured,
                "speaks": found.speaks.value,
                "deprecated": found.deprecated,
                "sandbox": found.sandbox,
            }
        )
