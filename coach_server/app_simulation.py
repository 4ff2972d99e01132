"""The simulation side of the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from coach_server.api.http import Rest
from coach_server.api.simulation.pages.page import SimulationPages
from coach_server.api.simulation.relay import Relay
from coach_server.api.simulation.rest import RestSimulations
from coach_server.app_parts import Parts
from coach_server.domain.simulation.machine import TalkTiming
from coach_server.providers.realtime import RealtimeModel
from coach_server.providers.realtime.fallback import FallbackRealtime
from coach_server.providers.realtime.openai import OpenAIRealtime
from coach_server.services.access import Gate
from coach_server.services.jobs import Handler
from coach_server.services.simulation.archive import SimulationArchive
from coach_server.services.simulation.desk import SimulationDesk
from coach_server.services.simulation.line import Lines
from coach_server.services.simulation.privacy import SimulationPrivacy
from coach_server.services.simulation.prompting import Prompting
from coach_server.services.simulation.sessions import SimulationDefaults, Simulations
from coach_server.services.simulation.supervisor import Supervisor
from coach_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Simulating:
    """The built simulation side."""

    sessions: Simulations
    desk: SimulationDesk
    archive: SimulationArchive
    privacy: SimulationPrivacy
    relay: Relay
    language: str
    trusts_proxy: bool
    gate: Gate

    @property
    def jobs(self) -> dict[str, Handler]:
        return {}

    @property
    def given_up(self) -> dict[str, Handler]:
        """By kind of job: what is done when it was tried too often."""
        return {}

    def register(self, rest: Rest, app: web.Application, *, hands_out_tokens: bool) -> None:
        RestSimulations(
            self.desk, self.archive, language=self.language, trusts_proxy=self.trusts_proxy
        ).register(rest)
        self.relay.register(app)
        SimulationPages(gate=self.gate, hands_out_tokens=hands_out_tokens).register(app)

    def on_job(self, wake: Callable[[], None]) -> None:
        """`wake` is called when there is a job to do."""
        self.sessions.on_job = self.desk.on_job = wake


def build_simulation(parts: Parts) -> Simulating:
    """Raises ConfigError naming what is wrong in a setting."""
    settings, clock, shared = parts.settings, parts.clock, parts.catalog
    prompting = Prompting(shared.prompts)
    lines = Lines(
        _models(parts),
        FallbackRealtime,
        lambda cast, language: prompting.realtime(cast.persona, cast.scenario, cast.domain, language),
        offline=settings.realtime_provider != "openai",
        vad=settings.realtime_vad,
    )
    sessions = Simulations(
        database=parts.database,
        clock=clock,
        bus=parts.bus,
        personas=shared.personas,
        director=shared.director,
        judge=Supervisor(parts.llm, shared.prompts, parts.breaker, parts.models, shared.guidance),
        connect=lines.connect,
        governor=parts.governor,
        node=parts.node,
        defaults=SimulationDefaults(
            prefix=settings.simulation_prefix,
            language=settings.default_language,
            timing=TalkTiming(
                grace_s=settings.simulation_grace_ms / 1000, session_s=settings.simulation_max_ms / 1000
            ),
            cap_usd=settings.cost_cap_usd_per_simulation,
        ),
        nods=shared.nods.of,
        on_job=_nothing,
        score_unstored=_TODO,
    )
    archive = SimulationArchive(parts.database)
    return Simulating(
        sessions=sessions,
        desk=SimulationDesk(
            database=parts.database,
            sessions=sessions,
            archive=archive,
            personas=shared.personas,
            report=_TODO,
            data_zip=_TODO,
            exports=bool(settings.batman_api_url),
            clock=clock,
            on_job=_nothing,
        ),
        archive=archive,
        privacy=SimulationPrivacy(parts.database, archive, parts.bus, sessions.forget, _TODO),
        relay=Relay(sessions, parts.gate, parts.origins, clock),
        language=settings.default_language,
        trusts_proxy=settings.trusts_proxy,
        gate=parts.gate,
    )


def _nothing() -> None:
    """Until the runner of jobs is there."""


async def _TODO(x):
    raise NotImplementedError


def _models(parts: Parts) -> list[RealtimeModel]:
    if parts.realtime is not None:
        return [parts.realtime]
    settings = parts.settings
    key = settings.openai_api_key.get_secret_value()
    if settings.realtime_provider == "offline" or not key:
        return []
    return [
        OpenAIRealtime(
            key,
            parts.http,
            parts.clock,
            model=settings.realtime_model,
            transcribe_model=settings.realtime_transcribe_model,
            url=_realtime_url(settings),
        )
    ]


def _realtime_url(settings: Settings) -> str:
    if settings.realtime_url:
        return settings.realtime_url
    base = settings.openai_base_url
    return f"{base.rstrip('/')}/realtime" if base else "wss://api.openai.com/v1/realtime"
