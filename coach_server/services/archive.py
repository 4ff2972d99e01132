"""Reading finished and running calls: who may see which, and what they see (trust.md G12)."""

from __future__ import annotations

from typing import Any

from coach_server.clock import millis
from coach_server.domain.tip import ShownTip
from coach_server.domain.transcript import Utterance
from coach_server.errors import Conflict, NotFound
from coach_server.services.access import Principal, Role
from coach_server.services.costs import Spent
from coach_server.storage import analyses, conversations, tips, transcripts
from coach_server.storage.conversations import ListedConversation, StoredConversation, Whose
from coach_server.storage.database import Database

ANALYSIS_RETRY_S = 2.0


class Archive:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def listing(
        self,
        principal: Principal,
        *,
        status: str | None,
        agent_id: str | None,
        limit: int,
        cursor: str | None,
    ) -> dict[str, Any]:
        """Newest first, at most `limit`; `nextCursor` asks for the page after it."""
        async with self._database.read() as conn:
            rows = await conversations.listing(
                conn,
                **_viewer(principal),
                status=status,
                agent_id=agent_id,
                limit=limit + 1,
                cursor=cursor,
            )
        page = rows[:limit]
        return {
            "conversations": [_listed(row) for row in page],
            "nextCursor": page[-1].cursor if len(rows) > limit else None,
        }

    async def conversation(self, principal: Principal, call_id: str) -> dict[str, Any]:
        return detailed(await self._own(principal, call_id))

    async def transcript(self, principal: Principal, call_id: str) -> dict[str, Any]:
        """`{segments: [{sequence, segmentId, speaker, text, timestamp}]}`, in the order they were heard."""
        await self._own(principal, call_id)
        async with self._database.read() as conn:
            said = await transcripts.all(conn, call_id)
        return {"conversationId": call_id, "segments": [segment(one) for one in said]}

    async def tips(self, principal: Principal, call_id: str) -> dict[str, Any]:
        await self._own(principal, call_id)
        async with self._database.read() as conn:
            shown = await tips.of(conn, call_id)
        return {"conversationId": call_id, "tips": [tip(one) for one in shown]}

    async def analysis(self, principal: Principal, call_id: str) -> dict[str, Any]:
        """The document. Raises Conflict with a time to come back while it is not ready."""
        stored = await self._own(principal, call_id)
        async with self._database.read() as conn:
            analysis = await analyses.load(conn, call_id)
        if analysis is not None:
            return analysis.document
        if stored.status == "active":
            raise Conflict("This conversation has not ended yet.")
        if stored.analysis_status == "pending":
            raise Conflict("The analysis is not ready yet.", retry_after_s=ANALYSIS_RETRY_S)
        raise NotFound("There is no analysis of this conversation.")

    async def _own(self, principal: Principal, call_id: str) -> StoredConversation:
        async with self._database.read() as conn:
            stored = await conversations.load(conn, call_id)
        if stored is None or not may_see(principal, stored):
            raise NotFound("There is no such conversation.", field="conversationId")
        return stored


def may_see(principal: Principal, call: StoredConversation | Whose) -> bool:
    """An API key sees what it started without a user; a user the own calls, a manager the team's, an admin
    all of the key."""
    if call.principal != principal.key:
        return False
    match principal.role:
        case Role.SERVICE:
            return call.user_id is None
        case Role.ADMIN:
            return True
        case Role.MANAGER if principal.team_id is not None and call.team_id == principal.team_id:
            return True
        case _:
            return call.user_id == principal.user_id


def _viewer(principal: Principal) -> dict[str, Any]:
    match principal.role:
        case Role.SERVICE:
            return {"principal": principal.key, "user_id": ""}
        case Role.ADMIN:
            return {"principal": principal.key}
        case Role.MANAGER if principal.team_id is not None:
            return {"principal": principal.key, "team_id": principal.team_id}
        case _:
            return {"principal": principal.key, "user_id": principal.user_id}


def _listed(row: ListedConversation | StoredConversation) -> dict[str, Any]:
    return {
        "conversationId": row.id,
        "agentId": row.agent_id,
        "userId": row.user_id,
        "teamId": row.team_id,
        "mode": row.mode,
        "language": row.language,
        "playbook": row.playbook,
        "status": row.status,
        "startedAt": millis(row.started_at),
        "endedAt": None if row.ended_at is None else millis(row.ended_at),
        "metadata": row.metadata,
        "analysisStatus": row.analysis_status,
    }


def detailed(row: StoredConversation) -> dict[str, Any]:
    return {
        **_listed(row),
        "storeTranscript": row.store_transcript,
        "consent": row.consent,
        "segments": row.last_sequence,
        "lastSeq": row.last_seq,
        "usage": Spent.from_dict(row.usage).public(),
    }


def segment(utterance: Utterance) -> dict[str, Any]:
    return {
        "sequence": utterance.sequence,
        "segmentId": utterance.segment_id,
        "speaker": "agent" if utterance.speaker == "agent" else "caller",
        "text": utterance.text,
        "timestamp": millis(utterance.said_at),
        "confidence": utterance.confidence,
    }


def tip(shown: ShownTip) -> dict[str, Any]:
    content = shown.tip
    return {
        "recommendationId": shown.recommendation_id,
        "stage": content.stage.value,
        "heading": content.heading,
        "context": content.context,
        "options": [
            {"id": option.line_id, "label": option.label.value, "script": option.script}
            for option in content.options
        ],
        "source": content.source.value,
        "degraded": content.degraded,
        "trigger": shown.trigger.value,
        "techniqueId": content.technique_id,
        "why": content.why,
        "latencyMs": shown.latency_ms,
        "timestamp": millis(shown.shown_at),
        "selectedOption": shown.selected_option,
        "selectedAt": None if shown.selected_at is None else millis(shown.selected_at),
    }
