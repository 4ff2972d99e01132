"""What a live call keeps, and how it is found again: the only bridge between calls and the tables.

Writes are handed to the journal without waiting. What could not be written is held and tried again as soon as
something else was written, so that an outage of the database silences nobody and loses nothing that can still
be kept.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from coach_server.clock import Clock
from coach_server.domain.events import EndStatus
from coach_server.domain.tip import ShownTip
from coach_server.domain.transcript import Utterance
from coach_server.errors import StorageFailed
from coach_server.storage import call_events, conversations, jobs, tips, transcripts
from coach_server.storage.conversations import NewConversation
from coach_server.storage.database import Database
from coach_server.storage.journal import Journal, Unstorable, Write

LEASE_S = 15.0
KEPT_IN_MEMORY = 200
REPLAY_LIMIT = 5000
ANALYSE = "analyse_call"
SCORE = "score_call"
HELD_WRITES = 5000

# Which write of which call: an utterance by its sequence, others by a number of their own.
Place = tuple[str, str, int]


class HeldElsewhere(Exception):
    """Another instance owns this call until its lease is over (seconds since the epoch)."""

    def __init__(self, owner: str, lease_until: float) -> None:
        super().__init__("held by another instance")
        self.owner = owner
        self.lease_until = lease_until


@dataclass(frozen=True, slots=True)
class CallCard:
    """What does not change during a call. `principal_key` names the API key it was started with."""

    id: str
    agent_id: str
    principal_key: str
    user_id: str | None
    team_id: str | None
    resume_digest: str
    stores_text: bool
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call as it is saved beside its utterances, events and tips."""

    id: str
    state: dict[str, Any]
    last_seq: int
    last_sequence: int
    seen_at: float
    usage: dict[str, Any]
    stores_text: bool


@dataclass(frozen=True, slots=True)
class RestoredCall:
    """`utterances`: the last ones, oldest first; those after `last_sequence_in_state` are not in `state`."""

    card: CallCard
    state: dict[str, Any]
    started_at: float
    last_sequence_in_state: int
    last_seq: int
    usage: dict[str, Any]
    ended: bool
    utterances: Sequence[Utterance]
    tips: Sequence[ShownTip]
    segments: dict[str, int] = field(default_factory=dict)


class CallStore:
    def __init__(self, database: Database, journal: Journal, clock: Clock, node: str) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._node = node
        self._pending: dict[Place, asyncio.Future[None]] = {}
        self._held: dict[Place, Write] = {}
        self._lost: set[Place] = set()
        self._unwritten: dict[str, Write] = {}
        self._count = itertools.count()

    # --- while a call runs

    def keep_start(self, row: NewConversation) -> asyncio.Future[None]:
        self._unwritten[row.id] = conversations.insert(row)
        return self._put(row.id)

    def keep_utterance(self, call_id: str, utterance: Utterance) -> None:
        self._keep((call_id, "utterance", utterance.sequence), transcripts.insert(call_id, utterance))

    def utterance_stored(self, call_id: str, sequence: int) -> asyncio.Future[None]:
        """Resolves when this utterance is on disk; one that failed before is written again now."""
        place = (call_id, "utterance", sequence)
        if (pending := self._pending.get(place)) is not None:
            return pending
        if (held := self._held.pop(place, None)) is not None:
            return self._keep(place, held)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if place in self._lost:
            done.set_exception(StorageFailed())
            done.exception()
        else:
            done.set_result(None)
        return done

    def keep_event(
        self, call: StoredCall, seq: int, name: str, payload: Mapping[str, Any], at: float
    ) -> asyncio.Future[None]:
        """One event and the state after it, in one write."""
        kept = {key: value for key, value in payload.items() if key != "resumeToken"}
        event = call_events.insert(call.id, seq, name, kept, at)
        return self._keep(self._place(call.id), event, _state_of(call))

    def keep_state(self, call: StoredCall) -> None:
        _forget(self._put(call.id, _state_of(call)))

    def keep_tip(self, call_id: str, seq: int, shown: ShownTip) -> None:
        self._keep(self._place(call_id), tips.insert(call_id, seq, shown, None))

    def replace_tip(self, call_id: str, seq: int, shown: ShownTip) -> None:
        self._keep(self._place(call_id), tips.replace(call_id, seq, shown, None))

    def keep_selection(self, call_id: str, recommendation_id: str, option: int, at: float) -> None:
        self._keep(self._place(call_id), tips.select(recommendation_id, option, at))

    def _place(self, call_id: str) -> Place:
        return (call_id, "other", next(self._count))

    def _keep(self, place: Place, write: Write, *also: Write) -> asyncio.Future[None]:
        """`write` is held if it cannot be written now; `also` is not, because it grows old."""
        stored = self._put(place[0], write, *also)
        self._pending[place] = stored
        stored.add_done_callback(lambda done: self._settled(place, write, done))
        return stored

    def _settled(self, place: Place, write: Write, done: asyncio.Future[None]) -> None:
        if self._pending.get(place) is done:
            del self._pending[place]
        if not _failed(done):
            self._retry_held()
        elif len(self._held) < HELD_WRITES and not isinstance(_error(done), Unstorable):
            self._held[place] = write
        else:
            self._lost.add(place)

    def _put(self, call_id: str, *writes: Write) -> asyncio.Future[None]:
        """One atomic write, with the call's own row before it until that is known to be stored."""
        first = self._unwritten.get(call_id)
        if first is None:
            return self._journal.put(*writes)
        stored = self._journal.put(first, *writes)

        def note(done: asyncio.Future[None]) -> None:
            if not _failed(done):
                self._unwritten.pop(call_id, None)

        stored.add_done_callback(note)
        return stored

    def _retry_held(self) -> None:
        if not self._held:
            return
        held, self._held = self._held, {}
        for place, write in held.items():
            self._keep(place, write)

    async def _all_written(self, call_id: str) -> None:
        """Raises StorageFailed while something of this call may still be written and is not."""
        pending = [future for place, future in self._pending.items() if place[0] == call_id]
        if pending:
            await asyncio.wait(pending)
        if any(place[0] == call_id for place in self._held):
            raise StorageFailed()

    async def forget(self, call_id: str) -> None:
        """Wait until nothing of this call is on its way to the database, and keep nothing for later."""
        self._drop(call_id)
        try:
            await self._journal.put()
        except StorageFailed:
            logger.bind(conversation=call_id).warning("What was on its way could not be stored")
        # What failed meanwhile is held again by now.
        self._drop(call_id)

    def _drop(self, call_id: str) -> None:
        self._unwritten.pop(call_id, None)
        self._held = {place: write for place, write in self._held.items() if place[0] != call_id}
        self._lost = {place for place in self._lost if place[0] != call_id}

    async def events_since(self, call_id: str, seq: int) -> list[tuple[int, str, dict[str, Any]]]:
        async with self._database.read() as conn:
            return await call_events.since(conn, call_id, seq, REPLAY_LIMIT)

    # --- ending and finding again

    async def end(self, call: StoredCall, status: EndStatus, now: float) -> None:
        """End the call and order its analysis, in one transaction; tried until the database takes it."""
        log = logger.bind(conversation=call.id)
        while True:
            try:
                await self._end_once(call, status, now)
                break
            except Unstorable:
                log.error("The end of a call cannot be stored")
                break
            except StorageFailed:
                log.warning("The end of a call could not be stored yet")
                await self._clock.sleep_until(self._clock.now() + 1.0)
        self._unwritten.pop(call.id, None)
        self._lost = {place for place in self._lost if place[0] != call.id}

    async def _end_once(self, call: StoredCall, status: EndStatus, now: float) -> None:
        self._retry_held()
        await self._put(call.id, _state_of(call))
        await self._all_written(call.id)
        async with self._database.transaction() as conn:
            ended = await conversations.end(
                conn,
                call.id,
                status=status.value,
                now=now,
                state=call.state,
                usage=call.usage,
                analysis=call.stores_text,
            )
            if ended and call.stores_text:
                for kind in (ANALYSE, SCORE):
                    await jobs.enqueue(conn, kind, f"{kind}:{call.id}", {"conversationId": call.id}, now)

    async def restore(self, call_id: str) -> RestoredCall | None:
        """Claim and load a call; None when there is none. Raises HeldElsewhere, StorageFailed."""
        now = self._clock.now()
        async with self._database.transaction() as conn:
            stored = await conversations.load(conn, call_id)
            if stored is None:
                return None
            if stored.status == "active" and not await conversations.claim(
                conn, call_id, owner=self._node, now=now, lease_s=LEASE_S
            ):
                raise HeldElsewhere(stored.owner or "", stored.lease_until or now)
            first = max(0, stored.state_sequence - KEPT_IN_MEMORY)
            return RestoredCall(
                card=CallCard(
                    id=stored.id,
                    agent_id=stored.agent_id or "",
                    principal_key=stored.principal,
                    user_id=stored.user_id,
                    team_id=stored.team_id,
                    resume_digest=stored.resume_digest,
                    stores_text=stored.store_transcript,
                    metadata=stored.metadata,
                ),
                state=stored.state,
                started_at=stored.started_at,
                last_sequence_in_state=stored.state_sequence,
                # What was told after the end (the analysis) is numbered beyond the state that was saved then.
                last_seq=max(stored.last_seq, await call_events.last_seq(conn, call_id)),
                usage=stored.usage,
                ended=stored.status != "active",
                utterances=await transcripts.since(conn, call_id, first, limit=100_000),
                tips=await tips.of(conn, call_id),
                segments=await transcripts.segment_ids(conn, call_id),
            )

    async def release(self, call: StoredCall) -> None:
        """Save the call and let go of it, so that another instance may claim it at once."""
        self._retry_held()
        await self._put(call.id, _state_of(call))
        await self._all_written(call.id)
        async with self._database.transaction() as conn:
            await conversations.release(conn, call.id, owner=self._node)

    async def renew(self, call_ids: Sequence[str]) -> set[str]:
        """Prolong the leases of these calls; answers which are still ours."""
        async with self._database.transaction() as conn:
            return await conversations.renew(
                conn, call_ids, owner=self._node, now=self._clock.now(), lease_s=LEASE_S
            )

    async def stale(self, before: float, limit: int = 100) -> list[str]:
        async with self._database.read() as conn:
            return await conversations.stale(conn, before=before, now=self._clock.now(), limit=limit)

    def is_unwritten(self, call_id: str) -> bool:
        """Whether the call's own row could not be stored yet."""
        return call_id in self._unwritten

    async def call_of_tip(self, recommendation_id: str) -> str | None:
        async with self._database.read() as conn:
            return await tips.conversation_of(conn, recommendation_id)

    async def find_by_idempotency(self, principal: str, user_id: str | None, key: str) -> str | None:
        async with self._database.read() as conn:
            found = await conversations.find_by_idempotency(conn, principal, user_id, key)
        return found.id if found else None


def _state_of(call: StoredCall) -> Write:
    return conversations.save_state(
        call.id,
        call.state,
        state_sequence=call.last_sequence,
        last_seq=call.last_seq,
        last_sequence=call.last_sequence,
        last_seen_at=call.seen_at,
        usage=call.usage,
    )


def _failed(done: asyncio.Future[None]) -> bool:
    return done.cancelled() or done.exception() is not None


def _error(done: asyncio.Future[None]) -> BaseException | None:
    return None if done.cancelled() else done.exception()


def _forget(future: asyncio.Future[None]) -> None:
    """Nobody waits for this write; its failure is logged by the journal."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
