"""A practice session as it is kept between two events: machine, customer and turns as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from coach_server.domain.method.judging import Reading
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.roleplay import Roleplay
from coach_server.domain.transcript import Speaker
from coach_server.storage.roleplays import Message

_machine: TypeAdapter[Roleplay] = TypeAdapter(Roleplay)
_reading: TypeAdapter[Reading] = TypeAdapter(Reading)
SPEAKERS = {"user": Speaker.AGENT, "hugo": Speaker.CUSTOMER}
NAMES = {speaker: name for name, speaker in SPEAKERS.items()}


def dump_machine(machine: Roleplay) -> dict[str, Any]:
    state: dict[str, Any] = _machine.dump_python(machine, mode="json")
    return state


def load_machine(state: Mapping[str, Any]) -> Roleplay:
    return _machine.validate_python(state)


def dump_reading(reading: Reading, phase: int, *, keep_words: bool) -> dict[str, Any]:
    """What a turn's row says beside its words; without `keep_words` nothing that quotes them."""
    kept = reading if keep_words else wordless(reading)
    document: dict[str, Any] = _reading.dump_python(kept, mode="json")
    return {**document, "phase": phase}


def wordless(reading: Reading) -> Reading:
    """The reading without what was said."""
    uses = tuple(replace(use, quote="", rationale="") for use in reading.uses)
    return replace(reading, uses=uses, attitude_quote="")


def load_reading(document: Mapping[str, Any]) -> Reading:
    return _reading.validate_python({k: v for k, v in document.items() if k != "phase"})


def turn_of(message: Message) -> Turn:
    """A stored turn as the method sees it."""
    reading = load_reading(message.reading)
    return Turn(
        sequence=message.sequence_number,
        speaker=SPEAKERS[message.speaker],
        text=message.message,
        at=message.timestamp,
        phase=int(message.reading.get("phase", 1)),
        uses=reading.uses,
        attitude=reading.attitude,
        attitude_quote=reading.attitude_quote,
        themes=reading.themes,
        is_question=reading.is_question,
        is_yes=reading.is_yes,
    )


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    return [turn_of(message) for message in messages]
