"""The machine of a call as it is saved, and how it is put together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter

from coach_server.domain.call import CallCoach, CallState, CallTiming
from coach_server.domain.events import Heard
from coach_server.domain.transcript import Utterance
from coach_server.services.call_store import RestoredCall

_machine: TypeAdapter[CallCoach] = TypeAdapter(CallCoach)


def dump(machine: CallCoach) -> dict[str, Any]:
    """The machine without transcript and tips, which have tables of their own."""
    state: dict[str, Any] = _machine.dump_python(machine, mode="json", exclude={"transcript", "tips"})
    return state


def load(state: Mapping[str, Any] | None, started_at: float, timing: CallTiming) -> CallCoach:
    """As it was saved; a new one where nothing was, as for calls that keep no text."""
    if not state:
        return CallCoach.begin(started_at, timing)
    return _machine.validate_python({"started_at": started_at, **state})


def rebuild(
    restored: RestoredCall, timing: CallTiming, hear: Callable[[CallCoach, Utterance], Heard], now: float
) -> CallCoach:
    """The machine as it stood: the saved state, and the words that came after it heard once more."""
    machine = load(restored.state.get("machine"), restored.started_at, timing)
    machine.tips = list(restored.tips)
    for utterance in restored.utterances:
        if utterance.sequence <= restored.last_sequence_in_state:
            machine.transcript.append(utterance)
        elif not machine.ended:
            machine.receive(hear(machine, utterance), utterance.heard_at)
    if restored.ended:
        machine.state = CallState.ENDED
    machine.wake_up(now)
    return machine
