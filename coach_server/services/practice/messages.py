"""What clients are told of a practice session, as plain JSON: answers of REST (contract §2), events (§3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from coach_server.domain.customer.persona import Scenario
from coach_server.domain.method.methodology import Methodology, say
from coach_server.domain.method.progress import Progress, scenario_flow
from coach_server.domain.practice.drills import DrillSpec
from coach_server.domain.practice.roleplay import (
    Effect,
    Ended,
    Hinted,
    PhaseCompleted,
    Roleplay,
    StepMoved,
    StepStatus,
)
from coach_server.providers.avatar import Spoken
from coach_server.services.method.knowledge import Knowledge
from coach_server.services.practice.avatars import Opening
from coach_server.services.practice.memory import load_machine
from coach_server.services.practice.rooms import Rooms
from coach_server.storage.practice import Drill
from coach_server.storage.roleplays import Message, Session


class Teller:
    """Turns effects into the events of the contract and tells whoever listens to the session."""

    def __init__(self, rooms: Rooms, knowledge: Knowledge) -> None:
        self._rooms = rooms
        self._knowledge = knowledge

    async def tell(self, session_id: str, effects: Sequence[Effect], language: str) -> None:
        """`language`: of what there is to read beside a hint."""
        for effect in effects:
            told = event_of(session_id, effect)
            if told is not None and isinstance(effect, Hinted):
                found = self._knowledge.reading([effect.hint.step_id], language)
                told[1]["reading"] = found[0] if found else None
            if told is not None:
                await self._rooms.tell(session_id, *told)

    async def feedback_ready(self, session_id: str, overall: int | None) -> None:
        await self._rooms.tell(session_id, "feedback:ready", feedback_ready(session_id, overall))

    async def avatar(self, session_id: str, status: str) -> None:
        await self._rooms.tell(session_id, "avatar:status", {"sessionId": session_id, "status": status})

    async def event(self, session_id: str, name: str, payload: Mapping[str, Any]) -> None:
        await self._rooms.tell(session_id, name, payload)


def event_of(session_id: str, effect: Effect) -> tuple[str, dict[str, Any]] | None:
    """Name and payload; None for what has no event of its own (an end is told by what follows it)."""
    match effect:
        case StepMoved():
            return "step:updated", {
                "sessionId": session_id,
                "currentStepId": effect.current,
                "previousStepId": effect.previous,
                "status": effect.status.value,
            }
        case PhaseCompleted():
            return "phase:completed", {
                "sessionId": session_id,
                "phaseId": effect.phase_id,
                "nextPhaseId": effect.next_phase_id,
                "unlockedSteps": list(effect.unlocked),
            }
        case Hinted():
            hint = effect.hint
            return "hint:show", {"stepId": hint.step_id, "hintText": hint.text, "type": hint.kind}
        case Ended():
            return None


def feedback_ready(session_id: str, overall: int | None) -> dict[str, Any]:
    return {"sessionId": session_id, "overallScore": overall}


# --- answers of REST


def started(
    session: Session, scenario: Scenario, method: Methodology, opening: Opening | None
) -> dict[str, Any]:
    """The seed's keys first. `heygenSdpOffer` is null: no vendor offers SDP any more."""
    story = scenario.story(session.language)
    return {
        "sessionId": session.id,
        "heygenSessionId": session.heygen_session_id,
        "heygenSdpOffer": None,
        "currentPhaseId": session.current_phase_id,
        "currentStepId": session.current_step_id,
        "status": session.status,
        **avatar_of(session, opening),
        "userId": session.user_id,
        "kind": session.kind,
        "language": session.language,
        "storeTranscript": session.store_transcript,
        "methodology": {
            "id": method.id,
            "version": method.version,
            "name": say(method.name, session.language),
        },
        "scenario": {
            "id": scenario.id,
            "title": story.title,
            "who": story.who,
            "role": story.role,
            "company": story.company,
            "briefing": story.background,
        },
        "opening": session.state.get("opening"),
        "startedAt": iso(session.started_at),
    }


def avatar_of(session: Session, opening: Opening | None = None) -> dict[str, Any]:
    """How the browser reaches the avatar; tokens open this one room only. `heygenAccessToken` and
    `livekitToken` are the same token under the seed's name and today's."""
    kept = session.state.get("avatar") or {}
    status = opening.status.value if opening else kept.get("status", "off")
    ready = session.avatar_stopped_at is None and session.heygen_session_id is not None
    token = session.heygen_access_token if ready else None
    return {
        "provider": session.avatar_provider,
        "avatar": {"status": status, "expiresAt": iso(session.avatar_expires_at) if ready else None},
        "heygenAccessToken": token,
        "livekitUrl": kept.get("livekitUrl") if ready else None,
        "livekitToken": token,
    }


def status_of(session: Session, now: float) -> dict[str, Any]:
    """`duration` in seconds; `transcriptLength` counts messages."""
    duration = session.duration_seconds
    if duration is None:
        duration = max(0, round(now - session.started_at))
    return {
        "sessionId": session.id,
        "status": session.status,
        "currentPhaseId": session.current_phase_id,
        "currentStepId": session.current_step_id,
        "duration": duration,
        "transcriptLength": session.last_sequence,
        "analysisStatus": session.analysis_status,
    }


def stopped(session: Session, machine: Roleplay) -> dict[str, Any]:
    return {
        "sessionId": session.id,
        "status": session.status,
        "duration": session.duration_seconds or 0,
        "stepsCompleted": machine.completed_steps,
        "feedbackQueued": session.analysis_status in ("pending", "done"),
    }


def heard(message: Message, *, created: bool) -> dict[str, Any]:
    return {
        "transcriptId": message.id,
        "sessionId": message.session_id,
        "created": created,
        "sequenceNumber": message.sequence_number,
    }


def reply_of(
    message: Message,
    method: Methodology,
    language: str,
    *,
    source: str,
    degraded: bool,
    ends: bool,
    spoken: Spoken | None = None,
) -> dict[str, Any]:
    """The customer's answer. `avatarCommand`: what the browser sends to the avatar's room to have it said."""
    attitude = method.attitude(str(message.reading.get("attitude"))) if message.reading else None
    command = spoken.command if spoken else None
    return {
        "messageId": message.message_id,
        "text": message.message,
        "attitude": {"id": attitude.id, "name": say(attitude.name, language)} if attitude else None,
        "source": source,
        "degraded": degraded,
        "ended": ends,
        **({"avatarCommand": {"topic": command.topic, "data": dict(command.data)}} if command else {}),
        **({"avatarDelivery": spoken.delivery.value} if spoken else {}),
    }


def spec_of(drill: Drill) -> DrillSpec:
    """What a stored drill is made of."""
    kept = {name: value for name, value in drill.document.items() if name != "scenario"}
    return DrillSpec(**{**kept, "customer_lines": tuple(kept["customer_lines"])})


def drill_told(drill: Drill, method: Methodology, language: str) -> dict[str, Any]:
    spec = spec_of(drill)
    technique = method.find(drill.technique_id)
    moment = next((one for one in method.missed if one.id == drill.moment), None)
    return {
        "id": drill.id,
        "status": drill.status,
        "technique": drill.technique_id,
        "techniqueName": say(technique.name, language) if technique else drill.technique_id,
        "moment": drill.moment,
        "momentName": say(moment.name, language) if moment else None,
        "attitude": spec.attitude,
        "customerLines": list(spec.customer_lines),
        "sellerLine": spec.seller_line,
        "better": spec.better,
        "seconds": spec.seconds,
        "attempts": drill.attempts,
        "bestQuality": drill.best_quality,
        "createdAt": iso(drill.created_at),
        "closedAt": iso(drill.closed_at),
        "source": {"kind": drill.source_kind, "id": drill.source_id},
    }


def flow_of(session: Session, progress: Progress, method: Methodology) -> list[dict[str, Any]]:
    """The sales flow as this session sees it: the user's progress, and on top of it what was done here."""
    flow = scenario_flow(progress, method, session.language)
    if "machine" not in session.state:
        return flow
    machine = load_machine(session.state["machine"])
    for phase in flow:
        for step in phase["steps"]:
            step["status"] = _status_here(machine, step["id"], step["status"])
    return flow


def _status_here(machine: Roleplay, step_id: str, before: str) -> str:
    here = machine.steps.get(step_id)
    if here is None:
        return before
    if here.status is StepStatus.COMPLETED or before == StepStatus.COMPLETED:
        return StepStatus.COMPLETED.value
    if step_id == machine.step:
        return StepStatus.CURRENT.value
    return here.status.value if here.status is not StepStatus.CURRENT else StepStatus.UPCOMING.value


def iso(moment: float | None) -> str | None:
    """ISO 8601 in UTC, as the seed's times are."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
