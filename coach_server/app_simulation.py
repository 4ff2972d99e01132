"""The simulation side of the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from coach_server.api.http import Rest
from coach_server.api.simulation.pages.page import SimulationPages
from coach_server.api.simulation.relay import Relay
from coach_server.api.simulation.rest import RestSimulations
from coach_server.app_parts import Parts
from coach_server.domain.simulation.machine import TalkTiming
from coach_server.errors import ConfigError
from coach_server.providers.aws_credentials import AwsCredentials
from coach_server.providers.export import Exporter
from coach_server.providers.export.batman import Batman
from coach_server.providers.files import FileStore
from coach_server.providers.files.local import LocalFiles
from coach_server.providers.files.s3 import S3Files
from coach_server.providers.realtime import RealtimeModel
from coach_server.providers.realtime.fallback import FallbackRealtime
from coach_server.providers.realtime.openai import OpenAIRealtime
from coach_server.providers.tts import Tts, voices_of
from coach_server.providers.tts.deepgram import DeepgramSpeak
from coach_server.providers.tts.elevenlabs import ElevenLabs
from coach_server.providers.tts.fallback import FallbackTts
from coach_server.services.access import Gate
from coach_server.services.jobs import Handler
from coach_server.services.simulation.archive import SimulationArchive
from coach_server.services.simulation.assess import SimulationAssessor
from coach_server.services.simulation.casting import Casting
from coach_server.services.simulation.datafiles import DataFiles, load_record
from coach_server.services.simulation.desk import EXPORT, SimulationDesk
from coach_server.services.simulation.exports import SimulationExports
from coach_server.services.simulation.line import Lines
from coach_server.services.simulation.privacy import SimulationPrivacy
from coach_server.services.simulation.prompting import Prompting
from coach_server.services.simulation.report import report_card
from coach_server.services.simulation.scoring import SimulationScoring
from coach_server.services.simulation.sessions import SCORE, SimulationDefaults, Simulations
from coach_server.services.simulation.supervisor import Supervisor
from coach_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Simulating:
    """The built simulation side."""

    sessions: Simulations
    desk: SimulationDesk
    archive: SimulationArchive
    scoring: SimulationScoring
    exports: SimulationExports
    files: DataFiles
    privacy: SimulationPrivacy
    relay: Relay
    language: str
    trusts_proxy: bool
    gate: Gate

    @property
    def jobs(self) -> dict[str, Handler]:
        return {SCORE: self.scoring.run, EXPORT: self.exports.run}

    @property
    def given_up(self) -> dict[str, Handler]:
        """By kind of job: what is done when it was tried too often."""
        return {SCORE: self.scoring.given_up, EXPORT: self.exports.given_up}

    async def hear(self, message: Mapping[str, Any]) -> None:
        """What another instance says."""
        await self.sessions.hear(message)
        await self.privacy.hear(message)

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
        tts=_tts(parts),
    )
    casting = Casting(parts.database, shared.personas)
    sessions = Simulations(
        database=parts.database,
        clock=clock,
        bus=parts.bus,
        casting=casting,
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
        score_unstored=lambda live: scoring.of_unstored(live),
    )
    files = DataFiles(parts.database, file_store(settings, parts.http))
    scoring = SimulationScoring(
        database=parts.database,
        assessor=SimulationAssessor(parts.llm, shared.prompts, parts.governor, parts.breaker, parts.models),
        governor=parts.governor,
        files=files,
        casting=casting,
        announce=sessions.announce,
        clock=clock,
    )
    exporter = _exporter(parts)

    async def report(session_id: str) -> bytes:
        record = await load_record(parts.database, session_id)
        cast = await casting.of(record.row)
        return await report_card(record, cast.persona, cast.scenario)

    archive = SimulationArchive(parts.database)
    return Simulating(
        sessions=sessions,
        desk=SimulationDesk(
            database=parts.database,
            sessions=sessions,
            archive=archive,
            personas=shared.personas,
            report=report,
            data_zip=files.zip,
            exports=exporter is not None,
            clock=clock,
            on_job=_nothing,
        ),
        archive=archive,
        scoring=scoring,
        exports=SimulationExports(parts.database, exporter, clock),
        files=files,
        privacy=SimulationPrivacy(parts.database, archive, parts.bus, sessions.forget, files.delete),
        relay=Relay(sessions, parts.gate, parts.origins, clock),
        language=settings.default_language,
        trusts_proxy=settings.trusts_proxy,
        gate=parts.gate,
    )


def _nothing() -> None:
    """Until the runner of jobs is there."""


def file_store(settings: Settings, http: aiohttp.ClientSession) -> FileStore:
    """Where the data files of simulations are kept."""
    if settings.files_provider == "local":
        return LocalFiles(settings.data_dir)
    return S3Files(
        AwsCredentials(),
        settings.aws_region,
        settings.s3_bucket,
        http,
        prefix=settings.s3_prefix,
        endpoint=settings.s3_endpoint_url or None,
    )


def _exporter(parts: Parts) -> Exporter | None:
    settings = parts.settings
    if not settings.batman_api_url:
        return None
    auth = settings.batman_api_auth.get_secret_value()
    return Batman(settings.batman_api_url, auth, parts.http, parts.clock)


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


def _tts(parts: Parts) -> Tts | None:
    """Raises ConfigError."""
    settings = parts.settings
    made: list[Tts] = []
    named = settings.tts_provider or (
        "elevenlabs" if settings.elevenlabs_api_key.get_secret_value() else "off"
    )
    for name in named.split(","):
        if name == "elevenlabs":
            made.append(
                ElevenLabs(
                    settings.elevenlabs_api_key.get_secret_value(),
                    parts.http,
                    parts.clock,
                    base_url=settings.elevenlabs_base_url,
                    model=settings.elevenlabs_model,
                    voices=_voices("ELEVENLABS_VOICES", settings.elevenlabs_voices),
                )
            )
        elif name == "deepgram":
            made.append(
                DeepgramSpeak(
                    settings.deepgram_api_key.get_secret_value(),
                    parts.http,
                    parts.clock,
                    base_url=settings.deepgram_base_url,
                    voices=_voices("DEEPGRAM_VOICES", settings.deepgram_voices),
                )
            )
    return FallbackTts(made) if made else None


def _voices(variable: str, text: str) -> dict[str, str]:
    try:
        return voices_of(text)
    except ValueError as error:
        raise ConfigError(f"{variable}: {error}") from None


def _realtime_url(settings: Settings) -> str:
    if settings.realtime_url:
        return settings.realtime_url
    base = settings.openai_base_url
    return f"{base.rstrip('/')}/realtime" if base else "wss://api.openai.com/v1/realtime"
