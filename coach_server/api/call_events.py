"""The events of the live coach (live-coach.md §4): parse, one call of a service, answer."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from coach_server.api import wire, wire_out
from coach_server.api.sockets import Answer, Client, Event, Sockets
from coach_server.clock import Clock, millis
from coach_server.domain.events import AlternativeWanted, ModeSet, NextTipWanted, OptionSelected
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.errors import Invalid
from coach_server.services.call_actions import Do, End, Resume, Say
from coach_server.services.calls import Calls, StartCall
from coach_server.services.content import Content

_SPEAKERS = {"caller": Speaker.CUSTOMER, "agent": Speaker.AGENT}


class CallEvents:
    def __init__(self, sockets: Sockets, calls: Calls, content: Content, clock: Clock) -> None:
        self._sockets = sockets
        self._calls = calls
        self._content = content
        self._clock = clock

    def register(self) -> None:
        for event in (
            Event(
                "START_CONVERSATION",
                wire.StartConversation,
                self.start,
                "START_ERROR",
                wire_out.StartAccepted,
                ("CONVERSATION_STARTED",),
            ),
            Event("TRANSCRIPT", wire.Transcript, self.transcript, None, wire_out.TranscriptAccepted),
            Event(
                "OPTION_SELECTED",
                wire.OptionSelected,
                self.option,
                "OPTION_SELECTION_ERROR",
                answers=("OPTION_SELECTED_ACK",),
            ),
            Event(
                "REQUEST_NEXT_TIP",
                wire.RequestNextTip,
                self.next_tip,
                "CONTEXTUAL_TIP_ERROR",
                wire_out.TipAccepted,
                ("AI_TIP",),
            ),
            Event(
                "REQUEST_ALTERNATIVE_TIP",
                wire.RequestAlternativeTip,
                self.alternative,
                "ALTERNATIVE_TIP_ERROR",
                wire_out.TipAccepted,
                ("AI_TIP",),
            ),
            Event(
                "END_CONVERSATION",
                wire.EndConversation,
                self.end,
                "CONVERSATION_END_ERROR",
                wire_out.EndAccepted,
                ("CONVERSATION_ENDED", "ANALYSIS_READY"),
            ),
            Event("SET_MODE", wire.SetMode, self.set_mode, "SET_MODE_ERROR", answers=("MODE_SET",)),
            Event(
                "RESUME_CONVERSATION",
                wire.ResumeConversation,
                self.resume,
                "RESUME_ERROR",
                wire_out.ResumeAccepted,
                ("CONVERSATION_RESUMED",),
            ),
            Event("PING", wire.Ping, self.ping, None, wire_out.PingAccepted, ("PONG",)),
        ):
            self._sockets.add(event)
        self._sockets.on_gone(self._calls.socket_gone)

    async def start(self, client: Client, wish: wire.StartConversation) -> Answer:
        if wish.playbook is not None and not self._content.has_playbook(wish.playbook):
            raise Invalid("There is no playbook with this id.", field="playbook")
        return await self._calls.start(
            client.origin,
            StartCall(
                agent_id=wish.agentId,
                metadata=wish.metadata or {},
                mode=wish.mode,
                language=wish.language,
                playbook=wish.playbook,
                warmup_s=_seconds(wish.warmupMs),
                interval_s=_seconds(wish.intervalMs),
                store_transcript=wish.storeTranscript,
                consent=wish.consent.model_dump(exclude_none=True) if wish.consent else None,
                verbosity=wish.verbosity,
                tip_streaming=wish.tipStreaming,
                idempotency_key=wish.idempotencyKey,
            ),
        )

    def transcript(self, client: Client, said: wire.Transcript) -> Awaitable[Answer]:
        now = self._clock.now()
        say = Say(
            speaker=_SPEAKERS[said.speaker],
            text=said.text,
            is_final=said.isFinal,
            said_at=now if said.timestamp is None else said.timestamp / 1000,
            segment_id=said.segmentId,
            confidence=said.confidence,
        )
        return self._calls.ask(client.origin, said.conversationId, say)

    def option(self, client: Client, chosen: wire.OptionSelected) -> Awaitable[Answer]:
        event = OptionSelected(chosen.recommendationId, chosen.selectedOption)
        known = chosen.conversationId or self._calls.known_tip(chosen.recommendationId)
        if known is not None:
            return self._calls.ask(client.origin, known, Do(event))
        return self._option_from_before(client, event)

    async def _option_from_before(self, client: Client, event: OptionSelected) -> Answer:
        """A tip that was shown before a restart: find its call first."""
        call_id = await self._calls.find_by_tip(event.recommendation_id)
        return await self._calls.ask(client.origin, call_id, Do(event))

    def next_tip(self, client: Client, wish: wire.RequestNextTip) -> Awaitable[Answer]:
        event = NextTipWanted(
            recommendation_id=wish.selectedRecommendationId,
            script=wish.selectedScript or "",
            agent_words=wish.agentResponse.text if wish.agentResponse else "",
            customer_words=wish.customerReaction.text if wish.customerReaction else "",
            history=self._history(wish.transcriptHistory or []),
        )
        return self._calls.ask(client.origin, wish.conversationId, Do(event))

    def _history(self, segments: list[wire.Segment]) -> tuple[Utterance, ...]:
        now = self._clock.now()
        said = [segment for segment in segments if segment.text.strip()][-20:]
        return tuple(
            Utterance(
                number,
                _SPEAKERS[segment.speaker],
                segment.text,
                now if segment.timestamp is None else segment.timestamp / 1000,
                now,
            )
            for number, segment in enumerate(said, start=1)
        )

    def alternative(self, client: Client, wish: wire.RequestAlternativeTip) -> Awaitable[Answer]:
        event = AlternativeWanted(wish.currentStage, wish.currentScriptId)
        return self._calls.ask(client.origin, wish.conversationId, Do(event))

    def end(self, client: Client, wish: wire.EndConversation) -> Awaitable[Answer]:
        return self._calls.ask(client.origin, wish.conversationId, End())

    def set_mode(self, client: Client, wish: wire.SetMode) -> Awaitable[Answer]:
        event = ModeSet(wish.mode, wish.verbosity, wish.muted)
        return self._calls.ask(client.origin, wish.conversationId, Do(event))

    def resume(self, client: Client, wish: wire.ResumeConversation) -> Awaitable[Answer]:
        return self._calls.ask(client.origin, wish.conversationId, Resume(wish.resumeToken, wish.lastSeq))

    async def ping(self, client: Client, _: wire.Ping) -> Answer:
        now: dict[str, Any] = {"timestamp": millis(self._clock.now())}
        await self._sockets.publisher.send(client.sid, "PONG", now)
        return now


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
