"""All live calls of this instance: start, find, take over, end, leave.

A call that is not in memory but named by a client is summoned: its owner starts at once, loads it while the
client's events wait in its inbox in their order, and refuses them if there is no such call.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loguru import logger

from coach_server.clock import Clock
from coach_server.domain.call import CallCoach, CallTiming
from coach_server.domain.events import Mode
from coach_server.domain.tip import Verbosity
from coach_server.errors import NotFound, RateLimited, StorageFailed, Unavailable
from coach_server.providers.bus import Bus
from coach_server.services import call_messages as messages
from coach_server.services.access import Principal
from coach_server.services.analysis import CallRecord
from coach_server.services.call_actions import (
    Action,
    Contender,
    Greet,
    Origin,
    Reply,
    digest,
    unknown,
)
from coach_server.services.call_outbox import Publisher
from coach_server.services.call_session import CallTools, Ears, LiveCall
from coach_server.services.call_store import LEASE_S, CallCard, CallStore, HeldElsewhere
from coach_server.services.coach import MeteredCoach
from coach_server.services.costs import CostGovernor
from coach_server.services.figures import Figures
from coach_server.services.live import Alarm, always
from coach_server.storage.conversations import NewConversation

STORE_WAIT_S = 0.6  # a start is acknowledged within a second, also while the database is away
RELEASE_WAIT_S = 3.0
FORGET_WAIT_S = 10.0
RENEW_EVERY_S = LEASE_S / 3
# API key's name, user, idempotency key.
StartKey = tuple[str, str | None, str]
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class StartCall:
    """What a client may choose at the start. None: the server's default. Times in seconds."""

    agent_id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode | None = None
    language: str | None = None
    playbook: str | None = None
    warmup_s: float | None = None
    interval_s: float | None = None
    store_transcript: bool = True
    consent: Mapping[str, Any] | None = None
    verbosity: Verbosity = Verbosity.NORMAL
    tip_streaming: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class CallDefaults:
    timing: CallTiming
    language: str
    consent_required: bool
    max_calls_per_key: int


class Calls:
    def __init__(
        self,
        *,
        clock: Clock,
        store: CallStore,
        coach: MeteredCoach,
        ears: Ears,
        publisher: Publisher,
        governor: CostGovernor,
        bus: Bus,
        node: str,
        secret: bytes,
        defaults: CallDefaults,
        analyse_unstored: Callable[[CallRecord], Awaitable[None]],
        on_stored_end: Callable[[], None],
        figures: Figures,
        on_message: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None,
    ) -> None:
        """`on_message` hears what other instances say that is not about calls."""
        self._clock = clock
        self._store = store
        self._governor = governor
        self._bus = bus
        self._node = node
        self._defaults = defaults
        self._alarm = Alarm(clock)
        self._live: dict[str, LiveCall] = {}
        self._by_sid: dict[str, set[str]] = {}
        self._by_tip: dict[str, str] = {}
        self._tips_of: dict[str, list[str]] = {}
        self._asked: dict[str, asyncio.Future[bool]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._draining = False
        self._opening: Counter[str] = Counter()
        self._starting: dict[StartKey, asyncio.Lock] = {}
        self._by_start: dict[StartKey, str] = {}
        self._start_of: dict[str, StartKey] = {}
        self._secret = secret
        self._on_message = on_message
        self._tools = CallTools(
            clock=clock,
            store=store,
            coach=coach,
            ears=ears,
            publisher=publisher,
            alarm=self._alarm,
            timing=defaults.timing,
            on_finished=self._finished,
            on_tip=self._note_tip,
            contend=self._contend,
            analyse_unstored=analyse_unstored,
            on_stored_end=on_stored_end,
            figures=figures,
        )

    # --- life

    async def run(self, ready: asyncio.Event) -> None:
        """Own every call's task until cancelled. `ready` is set once calls may start."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(always(self._clock, self._alarm.run, "calls"), name="alarm of the calls")
            group.create_task(always(self._clock, self._keep_leases, "calls"), name="leases of the calls")
            group.create_task(
                always(self._clock, lambda: self._bus.run(self._node, self.hear), "calls"),
                name="messages of other instances",
            )
            ready.set()

    async def drain(self) -> None:
        """Save every call and let go of it; nothing starts any more."""
        self._draining = True
        leaving = [call.leave() for call in self._live.values()]
        if leaving:
            await asyncio.wait(leaving)

    @property
    def active(self) -> int:
        return sum(1 for call in self._live.values() if call.is_active)

    # --- what clients do

    async def start(self, origin: Origin, wish: StartCall) -> dict[str, Any]:
        """Start a call, or answer with the one that the same idempotency key started.

        Returns the payload of CONVERSATION_STARTED, which the call's client is also told as an event.
        """
        if self._draining:
            raise Unavailable("The server is restarting.", retry_after_s=5)
        principal = origin.principal
        self._check_room(principal)
        self._opening[principal.key] += 1
        try:
            if not wish.idempotency_key:
                return await self._begin(origin, wish)
            key = (principal.key, principal.user_id, wish.idempotency_key)
            async with self._starting.setdefault(key, asyncio.Lock()):
                try:
                    return await self._begin_once(origin, wish, key)
                finally:
                    self._starting.pop(key, None)
        finally:
            self._opening[principal.key] -= 1

    async def _begin_once(self, origin: Origin, wish: StartCall, key: StartKey) -> dict[str, Any]:
        """A start that was sent before is the same conversation, also after a restart (trust.md G3), and
        also while the database is away and does not know it yet."""
        known = self._by_start.get(key) or await self._store.find_by_idempotency(*key)
        if known is not None:
            return await self.ask(origin, known, Greet(resume_token(self._secret, known)))
        started = await self._begin(origin, wish)
        call_id = str(started["conversationId"])
        self._by_start[key], self._start_of[call_id] = call_id, key
        return started

    def _check_room(self, principal: Principal) -> None:
        """Starts that wait for the database count, or many at once would pass side by side."""
        held = sum(
            1 for call in self._live.values() if call.principal_key == principal.key and call.is_active
        )
        if held + self._opening[principal.key] >= self._defaults.max_calls_per_key:
            raise RateLimited("This API key has too many live conversations.", retry_after_s=30)

    async def _begin(self, origin: Origin, wish: StartCall) -> dict[str, Any]:
        call_id = str(uuid.uuid4())
        token = resume_token(self._secret, call_id)
        now = self._clock.now()
        machine = CallCoach.begin(
            now,
            self._timing(wish),
            mode=wish.mode or Mode.AUTO,
            language=wish.language or self._defaults.language,
            playbook=wish.playbook,
            verbosity=wish.verbosity,
            placeholders=placeholders(wish.metadata),
        )
        stores_text = wish.store_transcript and (not self._defaults.consent_required or _given(wish.consent))
        principal = origin.principal
        metadata = dict(wish.metadata) if stores_text else {}
        card = CallCard(
            id=call_id,
            agent_id=wish.agent_id,
            principal_key=principal.key,
            user_id=principal.user_id,
            team_id=principal.team_id,
            resume_digest=digest(token),
            stores_text=stores_text,
            metadata=metadata,
        )
        stored = self._store.keep_start(
            NewConversation(
                id=call_id,
                principal=principal.key,
                user_id=principal.user_id,
                team_id=principal.team_id,
                agent_id=wish.agent_id,
                mode=machine.mode.value,
                language=machine.language,
                playbook=wish.playbook,
                started_at=now,
                resume_digest=card.resume_digest,
                idempotency_key=wish.idempotency_key,
                metadata=metadata,
                consent=dict(wish.consent) if wish.consent is not None else None,
                store_transcript=stores_text,
                owner=self._node,
                lease_until=now + LEASE_S,
            )
        )
        await asyncio.wait({stored}, timeout=STORE_WAIT_S)
        call = LiveCall(
            call_id,
            self._tools,
            meter=self._governor.meter(),
            card=card,
            machine=machine,
            streams_tips=wish.tip_streaming,
        )
        self._tools.figures.started += 1
        self._own(call)
        self._attach(origin.sid, call_id)
        payload = messages.conversation_started(messages.Started(call_id, wish.agent_id, token), machine)
        call.greet(origin.sid, payload)
        logger.bind(conversation=call_id, key=principal.key).info("Call started", mode=machine.mode.value)
        return payload

    def _timing(self, wish: StartCall) -> CallTiming:
        timing = self._defaults.timing
        return replace(
            timing,
            warmup_s=timing.warmup_s if wish.warmup_s is None else wish.warmup_s,
            interval_s=timing.interval_s if wish.interval_s is None else wish.interval_s,
        )

    def ask(self, origin: Origin, call_id: str, action: Action) -> Reply:
        """Hand an action to a call, summoning it if need be. Awaits nothing, so that order is kept."""
        if self._draining:
            raise Unavailable("The server is restarting.", retry_after_s=5)
        if not _ID.fullmatch(call_id):
            raise unknown()
        call = self._live.get(call_id) or self._summon(call_id)
        self._attach(origin.sid, call_id)
        return call.ask(origin, action)

    async def find_by_tip(self, recommendation_id: str) -> str:
        """The id of the call that showed this tip. Raises NotFound."""
        call_id = self._by_tip.get(recommendation_id)
        if call_id is None:
            call_id = await self._store.call_of_tip(recommendation_id)
        if call_id is None:
            raise NotFound("There is no such recommendation.", field="recommendationId")
        return call_id

    def known_tip(self, recommendation_id: str) -> str | None:
        """As `find_by_tip`, among the calls in memory, without waiting."""
        return self._by_tip.get(recommendation_id)

    def socket_gone(self, sid: str) -> None:
        for call_id in self._by_sid.pop(sid, ()):
            if (call := self._live.get(call_id)) is not None:
                call.socket_gone(sid)

    async def forget(self, principal_key: str, user_id: str | None, call_ids: Collection[str]) -> int:
        """Drop the calls of this user (None: no user's) and these calls, here and on every other instance,
        keeping nothing more of them. Answers how many were live here; the others go within seconds, and what
        they write meanwhile is refused once their rows are gone."""
        await self._bus.publish(
            None,
            {"type": "forget", "principal": principal_key, "user": user_id, "calls": sorted(call_ids)},
        )
        return await self._forget_here(principal_key, user_id, call_ids)

    async def _forget_here(self, principal_key: str, user_id: str | None, call_ids: Collection[str]) -> int:
        self._tools.ears.forget()
        going = [
            call.forget()
            for call in self._live.values()
            if call.id in call_ids or (user_id is not None and call.is_of(principal_key, user_id))
        ]
        if going:
            await asyncio.wait(going, timeout=FORGET_WAIT_S)
        return len(going)

    # --- housekeeping

    async def sweep(self, abandoned_before: float) -> None:
        """End the calls nobody holds and nobody came back to."""
        for call_id in await self._store.stale(abandoned_before):
            if not self._draining and call_id not in self._live:
                self._summon(call_id).end_as_abandoned()

    async def announce(self, call_id: str, name: str, document: Mapping[str, Any]) -> None:
        """Tell the call's client, wherever it is connected."""
        if (call := self._live.get(call_id)) is not None:
            call.announce(name, document)
        else:
            await self._bus.publish(
                None, {"type": "announce", "call": call_id, "name": name, "document": dict(document)}
            )

    async def _keep_leases(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + RENEW_EVERY_S)
            held = [call.id for call in self._live.values() if call.is_active]
            if not held:
                continue
            try:
                still = await self._store.renew(held)
            except StorageFailed:
                logger.warning("Leases could not be renewed", calls=len(held))
                continue
            for call_id in set(held) - still:
                self._lost(call_id)

    def _lost(self, call_id: str) -> None:
        """The row is not ours any more. It may also not be stored yet, or just be ending: then it is left."""
        if self._store.is_unwritten(call_id):
            return
        call = self._live.get(call_id)
        if call is not None and call.is_active:
            logger.bind(conversation=call_id).warning("Another instance took this call")
            call.leave()

    # --- other instances

    async def hear(self, message: Mapping[str, Any]) -> None:
        """A message from another instance."""
        match message.get("type"):
            case "release":
                await self._asked_to_release(message)
            case "released":
                waiter = self._asked.get(str(message.get("request")))
                if waiter is not None and not waiter.done():
                    waiter.set_result(bool(message.get("given")))
            case "forget":
                user, calls = message.get("user"), message.get("calls") or ()
                await self._forget_here(str(message.get("principal")), user, set(map(str, calls)))
            case "announce":
                if (call := self._live.get(str(message.get("call")))) is not None:
                    call.announce(str(message.get("name")), dict(message.get("document") or {}))
            case _ if self._on_message is not None:
                await self._on_message(message)

    async def _asked_to_release(self, message: Mapping[str, Any]) -> None:
        contender = Contender(str(message["principal"]), message.get("user"), message.get("token"))
        call = self._live.get(str(message["call"]))
        given = True if call is None else await call.yield_to(contender)
        answer = {"type": "released", "request": message["request"], "given": given}
        await self._bus.publish(str(message["from"]), answer)

    async def _contend(self, call_id: str, held: HeldElsewhere, contender: Contender) -> bool:
        """Ask the owner for the call. True: try to claim it again. False: it stays where it is."""
        request = str(uuid.uuid4())
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked[request] = waiter
        try:
            await self._bus.publish(
                held.owner,
                {
                    "type": "release",
                    "call": call_id,
                    "from": self._node,
                    "request": request,
                    "principal": contender.principal_key,
                    "user": contender.user_id,
                    "token": contender.token,
                },
            )
            await asyncio.wait({waiter}, timeout=RELEASE_WAIT_S)
        finally:
            del self._asked[request]
        if waiter.done():
            return waiter.result()
        # No answer: the owner is gone or cut off, and its lease tells when the call is free.
        await self._clock.sleep_until(min(held.lease_until, self._clock.now() + LEASE_S) + 0.05)
        return True

    # --- the registry

    def _summon(self, call_id: str) -> LiveCall:
        call = LiveCall(call_id, self._tools, meter=self._governor.meter())
        self._own(call)
        return call

    def _own(self, call: LiveCall) -> None:
        if self._group is None:
            raise Unavailable("The server is starting.", retry_after_s=1)
        self._live[call.id] = call
        self._group.create_task(call.run(), name=f"call {call.id}")

    def _attach(self, sid: str, call_id: str) -> None:
        self._by_sid.setdefault(sid, set()).add(call_id)

    def _note_tip(self, recommendation_id: str, call_id: str) -> None:
        self._by_tip[recommendation_id] = call_id
        self._tips_of.setdefault(call_id, []).append(recommendation_id)

    def _finished(self, call: LiveCall) -> None:
        if self._live.get(call.id) is call:
            del self._live[call.id]
        if (key := self._start_of.pop(call.id, None)) is not None:
            self._by_start.pop(key, None)
        for recommendation_id in self._tips_of.pop(call.id, ()):
            self._by_tip.pop(recommendation_id, None)
        for attached in self._by_sid.values():
            attached.discard(call.id)


def resume_token(secret: bytes, call_id: str) -> str:
    """256 bits that only this server can make: the same on every instance, and stored nowhere."""
    mac = hmac.new(secret, f"resume {call_id}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


_PLACEHOLDERS = {
    "agentName": "Agent Name",
    "customerName": "Customer Name",
    "location": "Location",
    "company": "Company",
}


def placeholders(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What the start's metadata says about `[Agent Name]` and its like."""
    found = {}
    for key, placeholder in _PLACEHOLDERS.items():
        value = metadata.get(key)
        if isinstance(value, str) and value.strip():
            found[placeholder] = value.strip()[:80]
    return found


def _given(consent: Mapping[str, Any] | None) -> bool:
    return bool(consent and consent.get("given"))
