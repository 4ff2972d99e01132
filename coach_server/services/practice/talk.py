"""What is said in a practice session: heard, judged by the method, answered by the simulated customer.

A turn is read (cues and embeddings) before its transaction, stored and applied in it, and told after it. With
a model, the seller's turn is judged once more in the background; that verdict takes its own transaction.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loguru import logger

from coach_server.clock import Clock
from coach_server.domain.customer.mind import Customer
from coach_server.domain.customer.persona import Scenario, Script
from coach_server.domain.method.judging import Reading
from coach_server.domain.method.judging import turn as turn_from
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import TechniqueUse, Turn, phase_said_in
from coach_server.domain.practice.roleplay import LOOK_BACK
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.errors import CoachError, Conflict, NotFound, RateLimited, StorageFailed, Unavailable
from coach_server.services.access import Principal
from coach_server.services.costs import CostGovernor, Meter
from coach_server.services.limits import TokenBucket
from coach_server.services.method.eyes import MethodEyes
from coach_server.services.practice.avatars import Avatars
from coach_server.services.practice.customer import CustomerVoice, Reply, ReplyChunk, ReplyRequest
from coach_server.services.practice.memory import (
    SPEAKERS,
    dump_reading,
    load_machine,
    load_reading,
    turns_of,
)
from coach_server.services.practice.messages import Teller, heard, reply_of
from coach_server.services.practice.sessions import Roleplays
from coach_server.services.practice.store import Open, RoleplayStore
from coach_server.services.practice.turn_judge import TurnJudge
from coach_server.storage import roleplays
from coach_server.storage.roleplays import Message, Session

EVENTS_A_MINUTE = 1000
REMEMBERED_SESSIONS = 1000
JUDGES_AT_ONCE = 8
REPLY = ":reply"
ABOUT_REPLY = "roleplay:reply"
CHUNK = "roleplay:reply_chunk"


@dataclass(frozen=True, slots=True)
class Said:
    """One message. `speaker` user or hugo. `said_at`: seconds since the epoch, None: now. `message_id`: the
    client's own; the same one is stored once."""

    speaker: str
    text: str
    said_at: float | None = None
    message_id: str | None = None
    duration_ms: int | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class _Heard:
    """What became of a message. `is_new`: it was not stored before."""

    session: Session
    message: Message
    before: Sequence[Turn]
    reading: Reading
    is_new: bool


class RoleplayTalk:
    """`judge` None: no model is configured. Run `run` for as long as sessions are taken."""

    def __init__(
        self,
        *,
        store: RoleplayStore,
        sessions: Roleplays,
        eyes: MethodEyes,
        judge: TurnJudge | None,
        voice: CustomerVoice,
        avatars: Avatars,
        governor: CostGovernor,
        teller: Teller,
        clock: Clock,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._eyes = eyes
        self._judge = judge
        self._voice = voice
        self._avatars = avatars
        self._governor = governor
        self._teller = teller
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], TokenBucket] = OrderedDict()
        self._unstored: OrderedDict[str, deque[Turn]] = OrderedDict()
        self._group: asyncio.TaskGroup | None = None
        self._judging = asyncio.Semaphore(JUDGES_AT_ONCE)

    async def run(self, ready: asyncio.Event) -> None:
        """Own the judgements in the background until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            ready.set()
            await asyncio.Event().wait()

    def take(self, caller: Principal, session_id: str) -> None:
        """Count an event of the session. Raises RateLimited: 1000 a minute (seed 000). Counted before anybody
        looks whose session it is, so for each API key apart."""
        key = (caller.key, session_id)
        bucket = self._buckets.setdefault(key, TokenBucket(EVENTS_A_MINUTE, EVENTS_A_MINUTE / 60))
        self._buckets.move_to_end(key)
        if len(self._buckets) > REMEMBERED_SESSIONS:
            self._buckets.popitem(last=False)
        now = self._clock.now()
        if not bucket.take(now):
            raise RateLimited(
                "No more than 1000 events a minute in one session.", retry_after_s=bucket.retry_after(now)
            )

    def forget(self, session_ids: Sequence[str]) -> None:
        """Drop what is remembered of these sessions."""
        for session_id in session_ids:
            self._unstored.pop(session_id, None)

    # --- hearing

    async def hear(self, principal: Principal, session_id: str, said: Said) -> dict[str, Any]:
        """Store one message and tell what it moved. Answers when it is on disk. Raises NotFound, Conflict
        (the session is over), RateLimited, StorageFailed."""
        async with self._store.lock(session_id):
            found = await self._hear(await self._sessions.own(principal, session_id), said)
        return heard(found.message, created=found.is_new)

    async def _hear(self, session: Session, said: Said) -> _Heard:
        before = await self._before(session)
        method = self._store.method(session)
        phase = load_machine(session.state["machine"]).talk_phase
        speaker = SPEAKERS[said.speaker]
        reading = await self._eyes.read(
            method, said.text, speaker=speaker, language=session.language, phase=phase, before=before
        )
        async with self._store.changing(session.id) as opened:
            known = await self._known(opened, said)
            if known is not None:
                return _Heard(opened.session, known, before, load_reading(known.reading), is_new=False)
            turn, message = self._apply(opened, method, said, reading, before)
            await opened.append(message)
        await self._teller.tell(session.id, opened.effects, session.language)
        self._remember(opened.session, turn)
        if turn.is_seller:
            self._judge_later(opened.session, method, turn, before)
        return _Heard(opened.session, message, before, reading, is_new=True)

    async def _known(self, opened: Open, said: Said) -> Message | None:
        if said.message_id is None:
            return None
        return await roleplays.find_message(opened.conn, opened.session.id, said.message_id)

    def _apply(
        self, opened: Open, method: Methodology, said: Said, reading: Reading, before: Sequence[Turn]
    ) -> tuple[Turn, Message]:
        session, now = opened.session, opened.now
        if opened.machine.is_over:
            raise Conflict("This session is over.")
        sequence = session.last_sequence + 1
        said_at = now if said.said_at is None else said.said_at
        utterance = Utterance(sequence, SPEAKERS[said.speaker], said.text, said_at, now)
        turn = turn_from(reading, utterance, opened.machine.talk_phase)
        opened.effects += opened.machine.hear(method, turn, before, session.language, now)
        turn = replace(turn, phase=phase_said_in(method, turn.phase, opened.machine.talk_phase, turn.uses))
        if turn.is_seller:
            customer = Customer.from_dict(opened.state["customer"], method)
            customer.hear(turn.uses, turn.phase, turn.themes)
            customer.next_attitude()
            opened.state["customer"] = customer.to_dict()
        return turn, Message(
            session_id=session.id,
            sequence_number=sequence,
            id=str(uuid.uuid4()),
            message_id=said.message_id or str(uuid.uuid4()),
            speaker=said.speaker,
            message=said.text if session.store_transcript else "",
            timestamp=said_at,
            reading=dump_reading(reading, turn.phase, keep_words=session.store_transcript),
            created_at=now,
            duration_ms=said.duration_ms,
            confidence=said.confidence,
        )

    async def _before(self, session: Session) -> list[Turn]:
        """The last turns, oldest first; of a session that keeps no words, with those this process heard."""
        async with self._store.database.read() as conn:
            messages = await roleplays.last_messages(conn, session.id, LOOK_BACK)
        turns = turns_of(messages)
        spoken = {turn.sequence: turn for turn in self._unstored.get(session.id, ())}
        return [spoken.get(turn.sequence, turn) for turn in turns]

    def _remember(self, session: Session, turn: Turn) -> None:
        if session.store_transcript:
            return
        kept = self._unstored.setdefault(session.id, deque(maxlen=LOOK_BACK))
        kept.append(turn)
        self._unstored.move_to_end(session.id)
        if len(self._unstored) > REMEMBERED_SESSIONS:
            self._unstored.popitem(last=False)

    # --- the model's second look

    def _judge_later(self, session: Session, method: Methodology, turn: Turn, before: Sequence[Turn]) -> None:
        if self._judge is None or self._group is None:
            return
        self._group.create_task(
            self._judge_turn(self._judge, session, method, turn, before), name=f"judge {session.id}"
        )

    async def _judge_turn(
        self, judge: TurnJudge, session: Session, method: Methodology, turn: Turn, before: Sequence[Turn]
    ) -> None:
        log = logger.bind(session=session.id, sequence=turn.sequence)
        try:
            async with self._judging:
                meter = self._governor.meter()
                uses = await judge.judge(
                    method, before, turn.text, turn.phase, language=session.language, meter=meter
                )
            if uses is not None:
                await self._judged(session, method, turn, uses, meter)
        except StorageFailed:
            log.warning("A model's judgement of a turn could not be stored")
        except NotFound:
            log.debug("The session of a judgement is gone")
        except Exception as error:
            log.opt(exception=error).error("A turn could not be judged")

    async def _judged(
        self,
        session: Session,
        method: Methodology,
        turn: Turn,
        uses: Sequence[TechniqueUse],
        meter: Meter,
    ) -> None:
        async with self._store.changing(session.id) as opened:
            reading = Reading(
                tuple(uses), None, "", turn.themes, is_question=turn.is_question, is_yes=turn.is_yes
            )
            opened.effects += opened.machine.judged(method, uses, opened.now)
            document = dump_reading(reading, turn.phase, keep_words=session.store_transcript)
            await roleplays.reread(opened.conn, session.id, turn.sequence, document)
            _spend(opened, meter)
        await self._teller.tell(session.id, opened.effects, session.language)

    # --- answering

    async def answer(
        self,
        principal: Principal,
        session_id: str,
        said: Said,
        on_heard: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """Hear the seller and let the customer answer: `{type: "token", text}` pieces, then `{type: "done",
        messageId, reply}`. The same message again brings the same answer. Raises as `hear`, before the first
        piece; `on_heard` is called when the words are on disk. Listeners of the session are told as well."""
        async with self._store.lock(session_id):
            session = await self._sessions.own(principal, session_id)
            scenario = await self._sessions.scenario(principal, session.scenario_id)
            found = await self._hear(session, replace(said, speaker="user"))
            on_heard()
            known = None if found.is_new else await self._known_reply(found)
            if known is not None:
                yield await self._tell_again(found, known)
                return
            async for piece in self._spoken(found, scenario, said.text):
                yield piece

    async def answer_later(
        self, principal: Principal, session_id: str, said: Said, on_heard: Callable[[], None]
    ) -> None:
        """As `answer`, for listeners only: returns when the words are on disk and the customer is about to
        answer. Raises as `hear`."""
        if self._group is None:
            raise Unavailable("The server is starting.", retry_after_s=1)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def heard_it() -> None:
            on_heard()
            if not stored.done():
                stored.set_result(None)

        self._group.create_task(
            self._answer_all(principal, session_id, said, heard_it, stored), name=f"answer {session_id}"
        )
        await stored

    async def _answer_all(
        self,
        principal: Principal,
        session_id: str,
        said: Said,
        heard_it: Callable[[], None],
        stored: asyncio.Future[None],
    ) -> None:
        try:
            async for _ in self.answer(principal, session_id, said, heard_it):
                pass
        except Exception as error:
            if not stored.done():
                stored.set_exception(error)
            elif not isinstance(error, CoachError):
                logger.opt(exception=error).bind(session=session_id).error("A customer's answer broke")
            else:
                logger.bind(session=session_id, code=error.code).warning("A customer's answer was not kept")
        finally:
            stored.cancel()

    async def _tell_again(self, found: _Heard, known: Message) -> dict[str, Any]:
        reply = self._told(found.session, known)
        await self._tell_reply(found, reply)
        return _done(found.message, reply)

    async def _tell_reply(self, found: _Heard, reply: Mapping[str, Any]) -> None:
        session_id = found.session.id
        told = {"sessionId": session_id, "messageId": found.message.message_id, "reply": dict(reply)}
        await self._teller.event(session_id, ABOUT_REPLY, told)

    async def _spoken(
        self, found: _Heard, scenario: Scenario, words: str
    ) -> AsyncIterator[Mapping[str, Any]]:
        session, message = found.session, found.message
        method = self._store.method(session)
        meter = self._governor.meter()
        request = _request(session, scenario, method, found, words)
        async for piece in self._voice.stream(request, meter):
            if isinstance(piece, ReplyChunk):
                chunk = {"sessionId": session.id, "messageId": message.message_id, "delta": piece.delta}
                await self._teller.event(session.id, CHUNK, chunk)
                yield {"type": "token", "text": piece.delta}
            else:
                reply = await self._keep_reply(found, method, piece, meter)
                await self._tell_reply(found, reply)
                yield _done(message, reply)

    async def _keep_reply(
        self, found: _Heard, method: Methodology, reply: Reply, meter: Meter
    ) -> dict[str, Any]:
        """Store the customer's turn and what he remembers; have the avatar say it, where there is one."""
        session, asked = found.session, found.message
        said = Said("hugo", reply.text, message_id=asked.message_id + REPLY)
        before = [*found.before, self._turn(found)][-LOOK_BACK:]
        reading = self._eyes.read_rules(
            method,
            reply.text,
            speaker=Speaker.CUSTOMER,
            language=reply.language,
            phase=before[-1].phase,
            before=before,
        )
        reading = replace(reading, attitude=reply.attitude, is_yes=reply.agrees)
        facts = {"source": reply.source.value, "degraded": reply.degraded, "ended": reply.ends}
        async with self._store.changing(session.id) as opened:
            turn, message = self._apply(opened, method, said, reading, before)
            message = replace(message, reading={**message.reading, "reply": facts})
            await opened.append(message)
            customer = Customer.from_dict(opened.state["customer"], method)
            customer.memory, customer.attitude = reply.memory, reply.attitude
            opened.state["customer"] = customer.to_dict()
            _spend(opened, meter)
        await self._teller.tell(session.id, opened.effects, session.language)
        self._remember(opened.session, turn)
        return await self._reply(opened.session, method, replace(message, message=reply.text), facts)

    async def _reply(
        self, session: Session, method: Methodology, message: Message, facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        spoken = None
        if session.heygen_session_id is not None and session.avatar_stopped_at is None:
            spoken = await self._avatars.speak(
                session.avatar_provider, session.heygen_session_id, message.message
            )
        return reply_of(
            message,
            method,
            session.language,
            source=str(facts["source"]),
            degraded=bool(facts["degraded"]),
            ends=bool(facts["ended"]),
            spoken=spoken,
        )

    def _turn(self, found: _Heard) -> Turn:
        """The seller's turn with its words, which its row may lack."""
        remembered = {t.sequence: t for t in self._unstored.get(found.session.id, ())}
        return remembered.get(found.message.sequence_number) or turns_of([found.message])[0]

    async def _known_reply(self, found: _Heard) -> Message | None:
        async with self._store.database.read() as conn:
            return await roleplays.find_message(conn, found.session.id, found.message.message_id + REPLY)

    def _told(self, session: Session, message: Message) -> dict[str, Any]:
        facts = message.reading.get("reply") or {}
        return reply_of(
            message,
            self._store.method(session),
            session.language,
            source=str(facts.get("source", "offline")),
            degraded=bool(facts.get("degraded")),
            ends=bool(facts.get("ended")),
        )


def _request(
    session: Session, scenario: Scenario, method: Methodology, found: _Heard, words: str
) -> ReplyRequest:
    customer = Customer.from_dict(session.state["customer"], method)
    script = session.state.get("script")
    return ReplyRequest(
        scenario=scenario,
        customer=customer,
        language=session.language,
        attitude=customer.attitude or method.attitudes[0].id,
        words=words,
        uses=found.reading.uses,
        turns=found.before,
        script=Script(tuple(script["lines"]), script["attitude"]) if script else None,
    )


def _done(asked: Message, reply: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "done", "messageId": asked.message_id, "reply": reply}


def _spend(opened: Open, meter: Meter) -> None:
    """Add what the model cost to the session's usage."""
    spent = meter.spent.to_dict()
    before = opened.session.usage
    opened.session = replace(
        opened.session, usage={name: int(before.get(name, 0)) + count for name, count in spent.items()}
    )
