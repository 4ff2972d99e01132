"""The practice side of the composition root: builds what roleplay needs out of the parts `app.py` has."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from loguru import logger

from coach_server.api.http import Rest
from coach_server.api.practice.events import RoleplayEvents
from coach_server.api.practice.rest import RestPractice
from coach_server.api.practice.rest_roleplay import RestRoleplay
from coach_server.api.sockets import Sockets
from coach_server.app_parts import Parts
from coach_server.clock import Clock
from coach_server.domain.practice.roleplay import Timing
from coach_server.providers.avatar import Avatar
from coach_server.providers.avatar.heygen import HeyGen
from coach_server.providers.avatar.liveavatar import LiveAvatar
from coach_server.providers.avatar.off import Off
from coach_server.providers.bus import Bus
from coach_server.services.call_store import SCORE
from coach_server.services.jobs import Handler
from coach_server.services.method.eyes import MethodEyes
from coach_server.services.method.knowledge import Knowledge
from coach_server.services.method.methodologies import Methodologies
from coach_server.services.practice.analysis import RoleplayAnalysis
from coach_server.services.practice.assessment import Assessor
from coach_server.services.practice.avatars import Avatars
from coach_server.services.practice.call_scoring import CallScoring
from coach_server.services.practice.customer import CustomerVoice
from coach_server.services.practice.desk import PracticeDesk
from coach_server.services.practice.feedback_mail import MAIL_FEEDBACK
from coach_server.services.practice.messages import Teller
from coach_server.services.practice.privacy import (
    ERASE_AVATAR,
    FORGET,
    PracticeErasure,
    PracticeExport,
)
from coach_server.services.practice.progress import Practice
from coach_server.services.practice.rooms import Rooms
from coach_server.services.practice.scenarios import DEFAULT
from coach_server.services.practice.sessions import Defaults, Roleplays
from coach_server.services.practice.store import ANALYSE, STOP_AVATAR, RoleplayStore
from coach_server.services.practice.talk import RoleplayTalk
from coach_server.services.practice.turn_judge import TurnJudge
from coach_server.services.practice.upkeep import RoleplayUpkeep
from coach_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Practising:
    """The built practice side."""

    methods: Methodologies
    eyes: MethodEyes
    practised: Practice
    sessions: Roleplays
    talk: RoleplayTalk
    desk: PracticeDesk
    knowledge: Knowledge
    rooms: Rooms
    store: RoleplayStore
    analysis: RoleplayAnalysis
    upkeep: RoleplayUpkeep
    scoring: CallScoring
    avatars: Avatars

    @property
    def jobs(self) -> dict[str, Handler]:
        return {
            ANALYSE: self.analysis.run,
            SCORE: self.scoring.run,
            STOP_AVATAR: self.upkeep.stop_avatar,
            ERASE_AVATAR: self.upkeep.erase_avatar,
            MAIL_FEEDBACK: self.upkeep.mail_feedback,
        }

    async def hear(self, message: Mapping[str, Any]) -> None:
        """What another instance says."""
        await self.rooms.hear(message)
        await self.practised.hear(message)
        if message.get("type") == FORGET:
            self.talk.forget([str(id) for id in message.get("sessions") or ()])

    def export(self) -> PracticeExport:
        return PracticeExport(self.store.database, self.methods)

    def erasure(self, bus: Bus, clock: Clock) -> PracticeErasure:
        return PracticeErasure(self.store.database, self.practised, bus, clock, self.talk.forget)

    async def run(self, ready: asyncio.Event) -> None:
        await self.talk.run(ready)

    def register(self, rest: Rest, sockets: Sockets, language: str) -> None:
        RoleplayEvents(sockets, self.sessions, self.talk, self.desk, self.rooms).register()
        RestRoleplay(self.sessions, self.talk, self.desk).register(rest)
        RestPractice(self.desk, self.practised, self.methods, self.avatars, language=language).register(rest)


def build_practice(parts: Parts) -> Practising:
    """Raises ConfigError naming what is wrong in a data file or a setting."""
    settings, clock = parts.settings, parts.clock
    eyes, prompts = parts.eyes, parts.catalog.prompts
    methods, scenarios = parts.catalog.methods, parts.catalog.scenarios
    avatars = Avatars(parts.avatar or _avatar(settings, parts.http, clock), clock)
    if avatars.capabilities().deprecated:
        logger.warning("HeyGen's streaming avatar is superseded: LiveAvatar takes its place")
    timing = Timing(abandon_s=settings.roleplay_abandon_ms / 1000, grace_s=settings.roleplay_grace_ms / 1000)
    store = RoleplayStore(parts.database, methods, clock, timing)
    practised = Practice(parts.database, clock, parts.bus)
    store.on_over = practised.session_over
    rooms = Rooms(parts.sockets.publisher, parts.bus)
    knowledge = parts.catalog.knowledge.by_meaning(parts.embedder)
    teller = Teller(rooms, knowledge)
    voice = CustomerVoice(parts.llm, prompts, parts.models, parts.catalog.customers, parts.breaker, knowledge)
    assessor = Assessor(parts.llm, prompts, parts.governor, parts.breaker, parts.models)
    sessions = Roleplays(
        store=store,
        methods=methods,
        scenarios=scenarios,
        practised=practised,
        avatars=avatars,
        voice=voice,
        limits=parts.limits,
        gate=parts.gate,
        teller=teller,
        clock=clock,
        defaults=Defaults(settings.default_language, settings.consent_required),
    )
    judge = TurnJudge(parts.llm, prompts, parts.breaker, parts.models) if parts.llm else None
    return Practising(
        methods=methods,
        eyes=eyes,
        practised=practised,
        sessions=sessions,
        talk=RoleplayTalk(
            store=store,
            sessions=sessions,
            eyes=eyes,
            judge=judge,
            voice=voice,
            avatars=avatars,
            governor=parts.governor,
            teller=teller,
            clock=clock,
        ),
        desk=PracticeDesk(
            store=store,
            sessions=sessions,
            methods=methods,
            scenarios=scenarios,
            practised=practised,
            knowledge=knowledge,
            limits=parts.limits,
            clock=clock,
        ),
        knowledge=knowledge,
        rooms=rooms,
        store=store,
        analysis=RoleplayAnalysis(
            store=store,
            assessor=assessor,
            practised=practised,
            limits=parts.limits,
            governor=parts.governor,
            teller=teller,
            clock=clock,
        ),
        upkeep=RoleplayUpkeep(
            store=store,
            avatars=avatars,
            teller=teller,
            mail=parts.mail,
            sender=settings.email_from_address,
            clock=clock,
        ),
        scoring=CallScoring(
            database=parts.database,
            method=methods.default,
            eyes=eyes,
            assessor=assessor,
            practised=practised,
            limits=parts.limits,
            governor=parts.governor,
            clock=clock,
            knowledge=knowledge,
            default_scenario=DEFAULT,
        ),
        avatars=avatars,
    )


def _avatar(settings: Settings, http: aiohttp.ClientSession, clock: Clock) -> Avatar:
    new, old = settings.liveavatar_api_key.get_secret_value(), settings.heygen_api_key.get_secret_value()
    match settings.avatar_provider or ("liveavatar" if new else "heygen" if old else "off"):
        case "liveavatar":
            return LiveAvatar(
                new,
                http,
                clock,
                avatar_id=settings.liveavatar_avatar_id,
                voice_id=settings.liveavatar_voice_id,
                base_url=settings.liveavatar_base_url,
                sandbox=settings.liveavatar_sandbox,
            )
        case "heygen":
            return HeyGen(
                old,
                http,
                clock,
                avatar_id=settings.heygen_avatar_id,
                voice_id=settings.heygen_voice_id,
                knowledge_base_id=settings.heygen_kb_id,
                base_url=settings.heygen_base_url,
            )
        case _:
            return Off()
