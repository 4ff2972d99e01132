"""The events of practising (contract §3): parse, one call of a service, answer. Payloads are bare."""

from __future__ import annotations

import uuid

from coach_server.api.practice import out as practice_out
from coach_server.api.practice import wire as practice_wire
from coach_server.api.sockets import Answer, Client, Event, Sockets
from coach_server.errors import CoachError
from coach_server.services.practice.desk import PracticeDesk
from coach_server.services.practice.messages import feedback_ready
from coach_server.services.practice.rooms import Rooms
from coach_server.services.practice.sessions import Roleplays
from coach_server.services.practice.talk import RoleplayTalk, Said


class RoleplayEvents:
    def __init__(
        self,
        sockets: Sockets,
        sessions: Roleplays,
        talk: RoleplayTalk,
        desk: PracticeDesk,
        rooms: Rooms,
    ) -> None:
        self._sockets = sockets
        self._sessions = sessions
        self._talk = talk
        self._desk = desk
        self._rooms = rooms

    def register(self) -> None:
        for event in (
            Event(
                "session:join",
                practice_wire.JoinSession,
                self.join,
                "SESSION_ERROR",
                practice_out.JoinAccepted,
                ("feedback:ready",),
                is_practice=True,
            ),
            Event(
                "session:heartbeat",
                practice_wire.SessionHeartbeat,
                self.heartbeat,
                None,
                practice_out.HeartbeatAccepted,
                is_practice=True,
            ),
            Event(
                "step:complete",
                practice_wire.CompleteStep,
                self.complete_step,
                "SESSION_ERROR",
                practice_out.StepAccepted,
                ("step:updated", "phase:completed"),
                is_practice=True,
            ),
            Event(
                "roleplay:message",
                practice_wire.RoleplayMessage,
                self.message,
                "SESSION_ERROR",
                practice_out.MessageAccepted,
                ("roleplay:reply_chunk", "roleplay:reply"),
                is_practice=True,
            ),
        ):
            self._sockets.add(event)
        self._sockets.on_gone(self._rooms.leave)

    async def join(self, client: Client, wish: practice_wire.JoinSession) -> Answer:
        self._talk.take(client.principal, wish.sessionId)
        answer = await self._sessions.join(client.principal, wish.sessionId, wish.userId)
        if not self._sockets.publisher.is_open(client.sid):
            return answer
        self._rooms.join(client.sid, wish.sessionId)
        await self._tell_feedback(client, wish.sessionId)
        return answer

    async def _tell_feedback(self, client: Client, session_id: str) -> None:
        """A client that joins late is told again (contract §3)."""
        try:
            found = await self._desk.feedback(client.principal, session_id)
        except CoachError:
            return
        told = feedback_ready(session_id, found["overallScore"])
        await self._rooms.tell_one(client.sid, "feedback:ready", told)

    async def heartbeat(self, client: Client, wish: practice_wire.SessionHeartbeat) -> Answer:
        self._talk.take(client.principal, wish.sessionId)
        return await self._sessions.heartbeat(client.principal, wish.sessionId)

    async def complete_step(self, client: Client, wish: practice_wire.CompleteStep) -> Answer:
        self._talk.take(client.principal, wish.sessionId)
        return await self._sessions.complete_step(client.principal, wish.sessionId, wish.stepId)

    async def message(self, client: Client, wish: practice_wire.RoleplayMessage) -> Answer:
        """Acknowledged when the seller's words are on disk; the answer follows as events, also for a client
        that has not joined: it asked."""
        self._talk.take(client.principal, wish.sessionId)
        said = Said("user", wish.text, message_id=wish.messageId or str(uuid.uuid4()))

        def joined() -> None:
            if self._sockets.publisher.is_open(client.sid):
                self._rooms.join(client.sid, wish.sessionId)

        await self._talk.answer_later(client.principal, wish.sessionId, said, joined)
        return {"messageId": said.message_id}
