"""Practice sessions from outside: start, stop, where it stands, signs of life, steps done by hand.

What is said in them goes through `roleplay_talk.py`; what they came to is `roleplay_analysis.py`.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loguru import logger

from coach_server.clock import Clock
from coach_server.domain.customer import mind as customers
from coach_server.domain.customer.persona import Scenario, Script
from coach_server.domain.method.judging import Reading
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.progress import Progress, what_is_missing
from coach_server.domain.practice.roleplay import Roleplay, Status
from coach_server.errors import Conflict, Invalid, NotFound
from coach_server.providers.avatar import StopReason
from coach_server.services.access import Gate, Principal
from coach_server.services.limits import Limits
from coach_server.services.method.methodologies import Methodologies
from coach_server.services.practice.access import ID, acting_user, may_act, may_see, unknown
from coach_server.services.practice.avatars import Avatars, AvatarStatus, Opening
from coach_server.services.practice.customer import CustomerVoice, ReplyRequest
from coach_server.services.practice.memory import dump_reading
from coach_server.services.practice.messages import Teller, flow_of, started, status_of, stopped
from coach_server.services.practice.progress import Practice
from coach_server.services.practice.scenarios import DEFAULT, Scenarios, from_dict
from coach_server.services.practice.store import RoleplayStore
from coach_server.storage import practice, roleplays
from coach_server.storage.roleplays import Message, Session


@dataclass(frozen=True, slots=True)
class StartWish:
    """What a client may choose at the start. None: the user's progress, or the server's default, decides."""

    user_id: str | None = None
    scenario_id: str | None = None
    phase_id: int | None = None
    step_id: str | None = None
    language: str | None = None
    methodology: str | None = None
    store_transcript: bool | None = None
    consent: Mapping[str, Any] | None = None
    idempotency_key: str | None = None
    avatar: bool = True


@dataclass(frozen=True, slots=True)
class Begin:
    """A session about to begin, drill or practice."""

    user_id: str
    scenario: Scenario
    method: Methodology
    language: str
    phase: int
    step: str
    open_phases: Sequence[int]
    store_transcript: bool
    consent: Mapping[str, Any] | None = None
    idempotency_key: str | None = None
    drill_id: str | None = None
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    language: str
    consent_required: bool


class Roleplays:
    def __init__(
        self,
        *,
        store: RoleplayStore,
        methods: Methodologies,
        scenarios: Scenarios,
        practised: Practice,
        avatars: Avatars,
        voice: CustomerVoice,
        limits: Limits,
        gate: Gate,
        teller: Teller,
        clock: Clock,
        defaults: Defaults,
    ) -> None:
        self._store = store
        self._methods = methods
        self._scenarios = scenarios
        self._practised = practised
        self._avatars = avatars
        self._voice = voice
        self._limits = limits
        self._gate = gate
        self._teller = teller
        self._clock = clock
        self._defaults = defaults

    # --- start

    async def start(self, principal: Principal, wish: StartWish) -> dict[str, Any]:
        """Seed 000's answer to a start. Raises Invalid, NotFound (scenario, methodology), Forbidden,
        Conflict (a phase or step that is still locked, naming what is missing), RateLimited."""
        user_id = acting_user(principal, wish.user_id)
        scenario = await self.scenario(principal, wish.scenario_id or DEFAULT)
        method = self._methods.get(wish.methodology or scenario.methodology)
        if wish.idempotency_key is not None:
            async with self._store.database.read() as conn:
                known = await roleplays.find_by_idempotency(
                    conn, principal.key, user_id, wish.idempotency_key
                )
            if known is not None:
                return await self._started(known, scenario, duplicate=True)
        user = await self._practised.user(principal, user_id)
        progress = await self._practised.progress(principal.key, user_id, method)
        phase, step = _where(method, progress, wish, wish.language or self._defaults.language)
        return await self.begin(
            principal,
            Begin(
                user_id=user_id,
                scenario=scenario,
                method=method,
                language=wish.language or self._defaults.language,
                phase=phase,
                step=step,
                open_phases=progress.unlocked_phases,
                store_transcript=self._may_store(user, wish),
                consent=wish.consent,
                idempotency_key=wish.idempotency_key,
            ),
            avatar=wish.avatar,
        )

    def _may_store(self, user: practice.User, wish: StartWish) -> bool:
        consent = wish.consent if wish.consent is not None else user.consent
        if self._defaults.consent_required and not (consent and consent.get("given")):
            return False
        return user.store_transcripts if wish.store_transcript is None else wish.store_transcript

    async def begin(self, principal: Principal, wish: Begin, *, avatar: bool) -> dict[str, Any]:
        """Begin a session that was found in order. Raises RateLimited (avatars of a day), StorageFailed."""
        uses_avatar = avatar and self._avatars.provider != "off"
        if uses_avatar:
            await self._limits.check("avatar", f"{principal.key}/{wish.user_id}")
        now = self._clock.now()
        machine = Roleplay.begin(
            wish.method,
            now,
            phase=wish.phase,
            step=wish.step,
            open_phases=wish.open_phases,
            is_drill=wish.drill_id is not None,
        )
        session = self._session(principal, wish, machine, now)
        first = opening = None
        if not uses_avatar:
            machine.record(now)
            session, first, opening = self._open_talk(session, wish, now)
        if not await self._store.begin(session, machine, first):
            known = await self._by_key(principal.key, wish)
            return await self._started(known, wish.scenario, duplicate=True)
        log = logger.bind(session=session.id, key=principal.key)
        log.info("Practice started", scenario=wish.scenario.id, kind=session.kind)
        if uses_avatar:
            return await self._with_avatar(session, wish)
        answer = await self._started(await self._store.load(session.id), wish.scenario)
        # Told also where no words are kept.
        return {**answer, "opening": opening}

    async def _by_key(self, key: str, wish: Begin) -> Session:
        async with self._store.database.read() as conn:
            known = await roleplays.find_by_idempotency(conn, key, wish.user_id, wish.idempotency_key or "")
        if known is None:
            raise Conflict("This session could not be started.")
        return known

    def _session(self, principal: Principal, wish: Begin, machine: Roleplay, now: float) -> Session:
        seed = random.SystemRandom().getrandbits(48)
        customer = customers.begin(wish.scenario, wish.method, seed)
        return Session(
            id=str(uuid.uuid4()),
            principal=principal.key,
            user_id=wish.user_id,
            team_id=principal.team_id,
            kind="drill" if wish.drill_id else "practice",
            scenario_id=wish.scenario.id,
            drill_id=wish.drill_id,
            methodology=wish.method.id,
            methodology_version=wish.method.version,
            language=wish.language,
            status=machine.status.value,
            current_phase_id=machine.phase,
            current_step_id=machine.step,
            started_at=now,
            last_seen_at=now,
            store_transcript=wish.store_transcript,
            state={"customer": customer.to_dict(), **(wish.extra or {})},
            consent=dict(wish.consent) if wish.consent is not None else None,
            idempotency_key=wish.idempotency_key,
        )

    def _open_talk(
        self, session: Session, wish: Begin, now: float
    ) -> tuple[Session, Message, dict[str, Any]]:
        """The customer's first words, before the seller says anything: in text, where no avatar speaks."""
        customer = customers.Customer.from_dict(session.state["customer"], wish.method)
        script = session.state.get("script")
        reply = self._voice.opening(
            ReplyRequest(
                scenario=wish.scenario,
                customer=customer,
                language=wish.language,
                attitude=wish.method.attitudes[0].id,
                words="",
                script=Script(tuple(script["lines"]), script["attitude"]) if script else None,
            )
        )
        customer.memory = reply.memory
        text = reply.text if session.store_transcript else ""
        reading = {**dump_reading(Reading(), wish.phase, keep_words=False), "reply": {"source": "offline"}}
        message_id = f"{session.id}:opening"
        opening = {"messageId": message_id, "text": reply.text, "speaker": "hugo"}
        state = {**session.state, "customer": customer.to_dict(), "opening": opening if text else None}
        first = Message(session.id, 1, str(uuid.uuid4()), message_id, "hugo", text, now, reading, now)
        return replace(session, state=state, last_sequence=1), first, opening

    async def _with_avatar(self, session: Session, wish: Begin) -> dict[str, Any]:
        """Open the avatar of a session that is stored, and store what was opened. An avatar that cannot be
        had leaves a session in text."""
        opening = await self._avatars.open(session.id, wish.language)
        try:
            async with self._store.changing(session.id) as opened:
                opened.machine.record(opened.now)
                opened.session = keep_avatar(opened.session, self._avatars.provider, opening)
                opened.state["avatar"] = avatar_state(opening)
                if opening.to_close is not None:
                    left = replace(opened.session, heygen_session_id=opening.to_close)
                    await self._store.order_avatar_stop(opened.conn, left, StopReason.FAILED, opened.now)
        except BaseException:
            # It is stored nowhere, and bills by the minute.
            if opening.session is not None:
                found = opening.session
                await self._avatars.close(found.provider, found.session_id, StopReason.FAILED)
            raise
        if opening.to_close is not None:
            self._store.on_end()
        return await self._started(await self._store.load(session.id), wish.scenario, opening)

    async def _started(
        self,
        session: Session,
        scenario: Scenario,
        opening: Opening | None = None,
        *,
        duplicate: bool = False,
    ) -> dict[str, Any]:
        method = self._store.method(session)
        progress = await self._practised.progress(session.principal, session.user_id, method)
        token = self._gate.issue_join(session.principal, user_id=session.user_id, session_id=session.id)
        answer = started(session, scenario, method, opening)
        answer["joinToken"] = token
        answer["scenarioFlow"] = flow_of(session, progress, method)
        return answer | ({"duplicate": True} if duplicate else {})

    async def scenario(self, principal: Principal, scenario_id: str) -> Scenario:
        """One of the API key's own, else of the catalog. Raises NotFound."""
        async with self._store.database.read() as conn:
            row = await practice.scenario(conn, principal.key, scenario_id)
        if row is not None:
            return from_dict(row.document)
        return self._scenarios.get(scenario_id)

    # --- what clients do with a running session

    async def own(self, principal: Principal, session_id: str, *, to_read: bool = False) -> Session:
        """The session, if the caller may act in it (or read it). Raises NotFound."""
        if not ID.fullmatch(session_id):
            raise unknown()
        session = await self._store.load(session_id)
        if not (may_see if to_read else may_act)(principal, session):
            raise unknown()
        return session

    async def stop(self, principal: Principal, session_id: str) -> dict[str, Any]:
        """Stop it; again is fine. The analysis is ordered with the end. Raises NotFound, StorageFailed."""
        await self.own(principal, session_id)
        async with self._store.changing(session_id) as opened:
            opened.effects += opened.machine.stop(opened.now)
        session = await self._store.load(session_id)
        logger.bind(session=session_id).info("Practice stopped", status=session.status)
        return stopped(session, opened.machine)

    async def status(self, principal: Principal, session_id: str) -> dict[str, Any]:
        session = await self.own(principal, session_id, to_read=True)
        if not session.is_over:
            if await self._store.pass_time(session_id):
                self._store.on_end()
            session = await self._store.load(session_id)
        return status_of(session, self._clock.now())

    async def join(self, principal: Principal, session_id: str, user_id: str | None) -> dict[str, Any]:
        """A client is there (again): where the session stands. Also when it is over. Raises NotFound."""
        session = await self.own(principal, session_id, to_read=True)
        if user_id is not None and user_id != session.user_id:
            raise unknown()
        if not session.is_over and may_act(principal, session):
            session = await self._seen(session)
        method = self._store.method(session)
        progress = await self._practised.progress(session.principal, session.user_id, method)
        return {
            **status_of(session, self._clock.now()),
            "scenarioFlow": flow_of(session, progress, method),
        }

    async def heartbeat(self, principal: Principal, session_id: str) -> dict[str, Any]:
        """A sign of life. Raises NotFound, Conflict when the session is over."""
        session = await self.own(principal, session_id)
        if session.is_over:
            raise Conflict("This session is over.")
        session = await self._seen(session)
        await self._keep_avatar_alive(session)
        return {"status": session.status}

    async def _seen(self, session: Session) -> Session:
        """Most signs of life change one column; one that brings a session back changes the session."""
        now = self._clock.now()
        if session.status == Status.RECORDING and now < session.last_seen_at + self._store.timing.abandon_s:
            async with self._store.database.transaction() as conn:
                await roleplays.touch(conn, session.id, now)
            return session
        async with self._store.changing(session.id) as opened:
            if not opened.machine.is_over:
                opened.machine.seen(opened.now)
        return await self._store.load(session.id)

    async def _keep_avatar_alive(self, session: Session) -> None:
        if session.heygen_session_id is None or session.avatar_stopped_at is not None:
            return
        now = self._clock.now()
        status = await self._avatars.keep_alive(
            session.avatar_provider, session.heygen_session_id, active_at=now
        )
        if status is AvatarStatus.UNAVAILABLE:
            async with self._store.database.transaction() as conn:
                await self._store.order_avatar_stop(conn, session, StopReason.EXPIRED, now)
                await roleplays.change(conn, session.id, avatar_stopped_at=now)
            await self._teller.avatar(session.id, "unavailable")

    async def complete_step(self, principal: Principal, session_id: str, step_id: str) -> dict[str, Any]:
        """`step:complete`. Raises NotFound, Invalid (locked, no step), Conflict."""
        session = await self.own(principal, session_id)
        async with self._store.changing(session_id) as opened:
            effects = opened.machine.complete_step(self._store.method(session), step_id, opened.now)
            opened.effects += effects
        await self._teller.tell(session_id, effects, session.language)
        return {"currentPhaseId": opened.machine.phase, "currentStepId": opened.machine.step}


# --- where a session begins


def _where(method: Methodology, progress: Progress, wish: StartWish, language: str) -> tuple[int, str]:
    """The phase and step to begin with: those wished for, if they are open to this user, else where the user
    is. Raises NotFound, Invalid (a step of another phase), Conflict (locked)."""
    if wish.step_id is not None:
        step = _named_step(method, wish.step_id)
        if wish.phase_id is not None and wish.phase_id != step.phase:
            raise Invalid("startStepId is not a step of startPhaseId.", field="startStepId")
        _require_open(method, progress, language, step_id=step.id)
        return step.phase, step.id
    if wish.phase_id is not None:
        if wish.phase_id not in {phase.id for phase in method.flow}:
            raise NotFound("There is no such phase.", field="startPhaseId")
        _require_open(method, progress, language, phase_id=wish.phase_id)
        steps = method.steps_of(wish.phase_id)
        inside = [s.id for s in steps if s.id == progress.current_step]
        return wish.phase_id, (inside or [steps[0].id])[0]
    return method.technique(progress.current_step).phase, progress.current_step


def _named_step(method: Methodology, step_id: str) -> Any:
    found = method.find(step_id)
    if found is None or not found.is_step:
        raise NotFound("There is no such step.", field="startStepId")
    return found


def _require_open(
    method: Methodology,
    progress: Progress,
    language: str,
    *,
    phase_id: int | None = None,
    step_id: str | None = None,
) -> None:
    missing = what_is_missing(progress, method, language, phase_id=phase_id, step_id=step_id)
    if missing:
        field = "startStepId" if step_id is not None else "startPhaseId"
        raise Conflict(f"This is still locked. To be completed first: {', '.join(missing)}.", field=field)


# --- avatars


def keep_avatar(session: Session, provider: str, opening: Opening) -> Session:
    """The session with what was opened for it."""
    found = opening.session
    if found is None:
        return replace(session, avatar_provider=provider)
    return replace(
        session,
        avatar_provider=found.provider,
        heygen_session_id=found.session_id,
        heygen_access_token=found.access_token,
        avatar_expires_at=found.expires_at,
        avatar_stopped_at=None,
    )


def avatar_state(opening: Opening) -> dict[str, Any]:
    """What is needed to tell a client of its avatar again, and to renew it."""
    found = opening.session
    if found is None:
        return {"status": opening.status.value}
    return {
        "status": opening.status.value,
        "livekitUrl": found.livekit_url,
        "clientToken": found.client_token,
        "realtimeEndpoint": found.realtime_endpoint,
        "issuedAt": found.issued_at,
        "maxDurationS": found.max_duration_s,
    }
