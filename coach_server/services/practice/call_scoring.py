"""A live call by the same method as practice: each turn read, the score card, lost moments, the skill.

It runs after the call's analysis. A call that keeps no text is scored from memory, and its card has figures
only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from loguru import logger

from coach_server.clock import Clock
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.blending import ModelJudgement
from coach_server.domain.practice.drills import drills_of
from coach_server.domain.practice.scorecard import ScoreCard
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Utterance
from coach_server.errors import Conflict, NotFound, RateLimited
from coach_server.services.access import Principal
from coach_server.services.analysis import CallRecord
from coach_server.services.archive import may_see
from coach_server.services.costs import CostGovernor
from coach_server.services.limits import Limits
from coach_server.services.method.eyes import MethodEyes
from coach_server.services.method.knowledge import Knowledge
from coach_server.services.practice.analysis import drill_rows
from coach_server.services.practice.assessment import Assessor, RecentAssessments
from coach_server.services.practice.feedback import TalkFrame, feedback_document, score_talk, to_read
from coach_server.services.practice.messages import drill_told
from coach_server.services.practice.progress import Practice
from coach_server.storage import conversations, practice, transcripts
from coach_server.storage.conversations import StoredConversation
from coach_server.storage.database import Database
from coach_server.storage.practice import CallFeedback

RETRY_S = 2.0


class CallScoring:
    """`default_scenario`: whom a drill from a call is played with, beside the caller's own words."""

    def __init__(
        self,
        *,
        database: Database,
        method: Methodology,
        eyes: MethodEyes,
        assessor: Assessor,
        practised: Practice,
        knowledge: Knowledge,
        limits: Limits,
        governor: CostGovernor,
        clock: Clock,
        default_scenario: str,
    ) -> None:
        self._database = database
        self._method = method
        self._eyes = eyes
        self._assessor = assessor
        self._practised = practised
        self._knowledge = knowledge
        self._limits = limits
        self._governor = governor
        self._clock = clock
        self._scenario = default_scenario

    async def run(self, payload: dict[str, Any]) -> None:
        """Job `score_call`: `{conversationId}`. Harmless when run again."""
        call_id = str(payload["conversationId"])
        async with self._database.read() as conn:
            call = await conversations.load(conn, call_id)
            said = await transcripts.all(conn, call_id) if call is not None else []
        if call is not None:
            await self.score(call, said)

    async def score(self, call: StoredConversation, said: Sequence[Utterance]) -> None:
        """Score a call that is over and keep what follows, once. `call.store_transcript` false: figures
        only."""
        begin = self._method.stages.get(Stage.GREETING, self._method.flow[0].id)
        turns = await asyncio.to_thread(self._eyes.read_talk, self._method, said, call.language, begin)
        card = await asyncio.to_thread(
            score_talk, turns, self._method, language=call.language, started_at=call.started_at
        )
        judgement = await self._judge(call, card, turns)
        wanted = self._assessor.configured and call.store_transcript and not card.insufficient
        document = await asyncio.to_thread(
            feedback_document,
            card,
            turns,
            self._method,
            language=call.language,
            session=TalkFrame(call.id, call.started_at, call.ended_at or call.last_seen_at, call.status),
            source="openai" if judgement is not None else "offline",
            provisional=wanted and judgement is None,
            model=judgement,
            keep_words=call.store_transcript,
            kind="call",
        )
        await self._keep(call, document, card, turns)

    async def of_unstored(self, record: CallRecord) -> None:
        """A call that keeps no text, scored from memory at its end."""
        async with self._database.read() as conn:
            call = await conversations.load(conn, record.conversation_id)
        if call is not None:
            await self.score(call, record.utterances)

    async def feedback(self, principal: Principal, call_id: str) -> dict[str, Any]:
        """`GET /api/conversations/{id}/feedback`. Raises Conflict while it is not ready, NotFound."""
        async with self._database.read() as conn:
            call = await conversations.load(conn, call_id)
            found = await practice.call_feedback_of(conn, call_id)
            drills = await practice.drills_from(conn, "call", call_id)
        if call is None or not may_see(principal, call):
            raise NotFound("There is no such conversation.", field="conversationId")
        if found is not None:
            told = [drill_told(drill, self._method, call.language) for drill in drills]
            reading = self._knowledge.reading(to_read(found.document), call.language)
            return {"conversationId": call_id, **found.document, "drills": told, "reading": reading}
        if call.status == "active":
            raise Conflict("This conversation has not ended yet.")
        if call.analysis_status in ("pending", "done"):
            raise Conflict("The feedback is not ready yet.", retry_after_s=RETRY_S)
        raise NotFound("There is no feedback on this conversation.")

    async def _judge(
        self, call: StoredConversation, card: ScoreCard, turns: Sequence[Turn]
    ) -> ModelJudgement | None:
        if not self._assessor.configured or not call.store_transcript or card.insufficient:
            return None
        try:
            await self._limits.check("analysis", f"{call.principal}/{_user_of(call)}")
        except RateLimited:
            return None
        meter = self._governor.meter()
        # Scored once, so nothing is looked up again; a shared cache would keep words of an erased call.
        nothing = RecentAssessments(1)
        return await self._assessor.assess(
            card,
            turns,
            self._method,
            call.language,
            meter,
            started_at=call.started_at,
            cache=nothing,
        )

    async def _keep(
        self, call: StoredConversation, document: dict[str, Any], card: ScoreCard, turns: Sequence[Turn]
    ) -> None:
        user_id, now = _user_of(call), self._clock.now()
        without = dict.fromkeys(document["notApplicable"])
        kept = {name: value for name, value in document.items() if name != "conversationId"}
        row = CallFeedback(
            conversation_id=call.id,
            overall_score=document["overallScore"],
            sub_scores={**document["subScores"], **without},
            technique_scores={**document["techniqueScores"], **document["details"]},
            document=kept,
            method=self._method.stamp,
            created_at=now,
        )
        async with self._database.transaction() as conn:
            if await conversations.whose(conn, call.id) is None:
                return  # erased meanwhile
            await practice.keep_call_feedback(conn, row)
            if user_id and call.store_transcript:
                specs = drills_of(card, turns, self._method, call.language)
                await practice.keep_drills(
                    conn,
                    drill_rows(
                        specs,
                        principal=call.principal,
                        user_id=user_id,
                        source=("call", call.id),
                        method=self._method,
                        language=call.language,
                        scenario_id=self._scenario,
                        now=now,
                    ),
                )
            if user_id:
                await self._practised.keep(conn, call.principal, user_id, self._method)
        if user_id:
            await self._practised.forget(call.principal, user_id)
        logger.bind(conversation=call.id).info("Call scored", turns=len(turns))


def _user_of(call: StoredConversation) -> str:
    """Whose skill it is: the user's, or for an API key without users the agent's."""
    return call.user_id or call.agent_id or ""
