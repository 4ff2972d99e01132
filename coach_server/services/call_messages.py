"""What the server tells the client of a live call: payloads of live-coach.md §5 and their additions.

Plain dicts in the wire's spelling (camelCase, milliseconds); `api/wire.py` holds their models for the
documents, and a test holds one against the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coach_server.clock import millis
from coach_server.domain.call import CallCoach
from coach_server.domain.tip import ShownTip
from coach_server.services.coach import TipChunk

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Started:
    conversation_id: str
    agent_id: str
    resume_token: str


def conversation_started(started: Started, machine: CallCoach) -> Payload:
    begun = datetime.fromtimestamp(machine.started_at, UTC)
    return {
        "conversationId": started.conversation_id,
        "timestamp": millis(machine.started_at),
        "agentId": started.agent_id,
        "startTime": begun.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "resumeToken": started.resume_token,
        "mode": machine.mode.value,
        "language": machine.language,
        "warmupMs": round(machine.timing.warmup_s * 1000),
        "intervalMs": round(machine.timing.interval_s * 1000),
    }


def tip(conversation_id: str, shown: ShownTip, now: float) -> Payload:
    """AI_TIP and TIP_UPDATED."""
    options = []
    for option in shown.tip.options:
        item = {"label": option.label.value, "script": option.script}
        if option.line_id is not None:
            item["id"] = option.line_id
        options.append(item)
    payload: Payload = {
        "recommendationId": shown.recommendation_id,
        "conversationId": conversation_id,
        "stage": shown.tip.stage.value,
        "heading": shown.tip.heading,
        "context": shown.tip.context,
        "options": options,
        "timestamp": millis(now),
        "source": shown.tip.source.value,
        "degraded": shown.tip.degraded,
        "trigger": shown.trigger.value,
        "latencyMs": shown.latency_ms,
    }
    if shown.tip.technique_id is not None:
        payload["techniqueId"] = shown.tip.technique_id
    if shown.tip.phase is not None:
        payload["phase"] = shown.tip.phase
    if shown.tip.attitude is not None:
        payload["attitude"] = shown.tip.attitude
    if shown.tip.why is not None:
        payload["why"] = shown.tip.why
    return payload


def tip_chunk(conversation_id: str, recommendation_id: str, chunk: TipChunk, now: float) -> Payload:
    return {
        "conversationId": conversation_id,
        "recommendationId": recommendation_id,
        "option": chunk.option,
        "delta": chunk.delta,
        "timestamp": millis(now),
    }


def option_selected(conversation_id: str, recommendation_id: str, option: int, now: float) -> Payload:
    return {
        "conversationId": conversation_id,
        "recommendationId": recommendation_id,
        "selectedOption": option,
        "timestamp": millis(now),
    }


def mode_set(conversation_id: str, machine: CallCoach, now: float) -> Payload:
    return {
        "conversationId": conversation_id,
        "mode": machine.mode.value,
        "verbosity": machine.verbosity.value,
        "muted": machine.muted,
        "timestamp": millis(now),
    }


def tip_failed(conversation_id: str, *, alternative: bool, now: float) -> Payload:
    return {
        "conversationId": conversation_id,
        "code": "ALTERNATIVE_TIP_ERROR" if alternative else "CONTEXTUAL_TIP_ERROR",
        "message": "No tip could be made for this turn.",
        "timestamp": millis(now),
    }


def conversation_ended(
    conversation_id: str, machine: CallCoach, status: str, usage: Mapping[str, Any], now: float
) -> Payload:
    return {
        "conversationId": conversation_id,
        "timestamp": millis(now),
        "endTime": millis(now),
        "status": status,
        "durationMs": round((now - machine.started_at) * 1000),
        "tips": len(machine.tips),
        "usage": dict(usage),
    }


def conversation_resumed(
    conversation_id: str, machine: CallCoach, *, recovered: bool, last_seq: int, missed: int, now: float
) -> Payload:
    return {
        "conversationId": conversation_id,
        "recovered": recovered,
        "state": machine.state.value,
        "mode": machine.mode.value,
        "language": machine.language,
        "stage": machine.stage.value,
        "muted": machine.muted,
        "verbosity": machine.verbosity.value,
        "lastSeq": last_seq,
        "lastSequence": machine.transcript.last_sequence,
        "missed": missed,
        "timestamp": millis(now),
    }


def analysis_ready(conversation_id: str, document: Mapping[str, Any], now: float) -> Payload:
    """The summary at a glance; the whole document is at /api/conversations/{id}/analysis."""
    return {
        "conversationId": conversation_id,
        "timestamp": millis(now),
        "analysis": dict(document),
    }
