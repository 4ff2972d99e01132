"""OpenAI Realtime's messages, both ways, without the socket (developers.openai.com, "Realtime API", GA).

Out: `session.update` and items. In: `Reading.understand` turns a message into our events. Events of the older
generation of names (`response.audio.delta`, …) are understood as well; compatible servers still send them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from coach_server.clock import Clock
from coach_server.domain.simulation.ordering import Line, Ordering
from coach_server.domain.simulation.talk import Role
from coach_server.errors import ProviderError
from coach_server.providers.llm import Usage
from coach_server.providers.realtime import (
    RATE,
    Audio,
    AudioOut,
    EndRequested,
    Heard,
    Lost,
    RealtimeEvent,
    RealtimeSpec,
    Speaking,
    Transcribed,
    TurnDone,
    UserStarted,
    UserStopped,
    UserWords,
)

END_TOOL = "end_conversation"
MAX_TEXT = 8000
SHORT_CHARS = 8000
MAX_ITEMS = 400
_PCM = {"type": "audio/pcm", "rate": RATE}
_VAD: Mapping[str, Mapping[str, Any]] = {
    "server": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
    },
    "semantic": {"type": "semantic_vad", "eagerness": "auto"},
}
_AUDIO = ("response.output_audio.delta", "response.audio.delta")
_DRAFT = ("response.output_audio_transcript.delta", "response.audio_transcript.delta")
# The turn is ours: see providers/realtime, and domain/simulation/bargein for why.
_OURS = {"create_response": False, "interrupt_response": False}
_ROLES = {"user": Role.TRAINEE, "assistant": Role.AVATAR}

# Codes after which trying again is of no use; the others leave the line open.
HOPELESS = {
    "invalid_api_key": "The speech model refused the credentials.",
    "insufficient_quota": "The account at the speech model has no credit.",
    "model_not_found": "The speech model is not known there.",
    "beta_api_shape_disabled": "The speech model no longer speaks this protocol.",
}
EXPIRED = "session_expired"
BUSY = "conversation_already_has_active_response"
_CODE = re.compile(r"[a-z0-9_.]{1,60}\Z")


def dumps(message: Mapping[str, Any]) -> str:
    return orjson.dumps(message).decode()


def session_update(spec: RealtimeSpec, transcribe_model: str) -> str:
    session: dict[str, Any] = {
        "type": "realtime",
        "instructions": spec.instructions,
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": _PCM,
                # Without the language short answers are taken for another one.
                "transcription": {"model": transcribe_model, "language": spec.language.split("-")[0]},
                "turn_detection": {**_VAD[spec.vad], **_OURS},
            },
            "output": {"format": _PCM, "voice": spec.voice},
        },
    }
    if spec.reasons:
        session |= {"tools": [_end_tool(spec)], "tool_choice": "auto"}
    return dumps({"type": "session.update", "session": session})


def _end_tool(spec: RealtimeSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "name": END_TOOL,
        "description": spec.end_description,
        "parameters": {
            "type": "object",
            "properties": {"reason": {"type": "string", "enum": list(spec.reasons)}},
            "required": ["reason"],
            "additionalProperties": False,
        },
    }


def append(audio: Audio) -> str:
    # Written by hand: this is the hot path, and base64 needs no escaping.
    return f'{{"type":"input_audio_buffer.append","audio":"{audio.base64}"}}'


def item(role: str, text: str) -> str:
    """`role`: user, assistant or system."""
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text}]
    return dumps(
        {
            "type": "conversation.item.create",
            "item": {"type": "message", "role": role, "content": content},
        }
    )


def truncate(item_id: str, heard_ms: int) -> str:
    return dumps(
        {
            "type": "conversation.item.truncate",
            "item_id": item_id,
            "content_index": 0,
            "audio_end_ms": heard_ms,
        }
    )


ANSWER_ID = "answer"
RESPOND = f'{{"type":"response.create","event_id":"{ANSWER_ID}"}}'
CANCEL = '{"type":"response.cancel"}'


@dataclass(slots=True)
class Reading:
    """What one connection has told so far. Tables are bounded: an endless talk must not grow them.

    `responding`: an answer is being made. `user_speaking`: between the start of a turn and its commit.
    `refused`: the code of the last error that left the line open, for a log.
    """

    model: str
    transcribe_model: str
    reasons: tuple[str, ...] = ()
    ordering: Ordering = field(default_factory=Ordering)
    ready: bool = False
    responding: bool = False
    user_speaking: bool = False
    refused: str = ""
    made_bytes: dict[str, int] = field(default_factory=dict)
    _stopped_at: dict[str, int] = field(default_factory=dict)
    _drafts: dict[str, list[str]] = field(default_factory=dict)
    _calls: dict[str, str] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    def understand(self, message: Mapping[str, Any], clock: Clock) -> list[RealtimeEvent]:
        """Events of one message. Raises what reading an unexpected shape raises (handshake.UNREADABLE)."""
        kind = message.get("type")
        if kind in _AUDIO:  # the hot path: not even the clock is asked
            return self._audio(message)
        if kind in _DRAFT:
            return self._draft(message)
        return self._words_and_turns(message, clock.now())

    def overdue(self, now: float) -> list[RealtimeEvent]:
        """Words that waited too long for others."""
        return _heard(self.ordering.overdue(now))

    def rest(self, now: float) -> list[RealtimeEvent]:
        """What was understood and not told yet, when the line is gone."""
        events: list[RealtimeEvent] = []
        for item_id in list(self._drafts):
            events += self._finish_draft(item_id, now)
        return events + _heard(self.ordering.flush())

    def _words_and_turns(self, message: Mapping[str, Any], now: float) -> list[RealtimeEvent]:
        match message.get("type"):
            case "response.output_audio_transcript.done" | "response.audio_transcript.done":
                return self._said(message["item_id"], message["transcript"], now)
            case "response.output_text.done" | "response.text.done":
                return self._said(message["item_id"], message["text"], now)
            case "input_audio_buffer.speech_started":
                self.user_speaking = True
                return [UserStarted(message["item_id"], int(message.get("audio_start_ms", 0)))]
            case "input_audio_buffer.speech_stopped":
                _keep(self._stopped_at, message["item_id"], int(message.get("audio_end_ms", 0)))
                return []
            case "input_audio_buffer.committed":
                return self._committed(message, now)
            case _:
                return self._seldom(message, now)

    def _seldom(self, message: Mapping[str, Any], now: float) -> list[RealtimeEvent]:
        match message.get("type"):
            case "session.updated":
                self.ready = True
                return []
            case "conversation.item.input_audio_transcription.completed":
                return self._transcribed(message, now)
            case "conversation.item.input_audio_transcription.failed":
                return [UserWords(message["item_id"], ""), *self._leave(message["item_id"], now)]
            case "conversation.item.added" | "conversation.item.created":
                self._place(message["item"], message.get("previous_item_id"), now)
                return []
            case "conversation.item.deleted":
                return self._leave(message["item_id"], now)
            case "response.created":
                self.responding = True
                return []
            case "response.output_item.added":
                self._place(message["item"], None, now)
                return []
            case "response.output_item.done":
                return self._item_done(message["item"], now)
            case "response.function_call_arguments.done":
                name = message.get("name") or self._calls.get(message.get("item_id", ""), "")
                return self._called(name, message.get("call_id", ""), message.get("arguments", ""))
            case "response.done":
                return self._response_done(message["response"], now)
            case "error":
                return self._error(message["error"])
            case _:
                return []

    def _audio(self, message: Mapping[str, Any]) -> list[RealtimeEvent]:
        audio, item_id = _vendors(message["delta"]), message["item_id"]
        _keep(self.made_bytes, item_id, self.made_bytes.get(item_id, 0) + audio.size)
        return [AudioOut(audio, item_id)]

    def _draft(self, message: Mapping[str, Any]) -> list[RealtimeEvent]:
        item_id, delta = message["item_id"], str(message["delta"])
        draft = self._drafts.get(item_id)
        if draft is None:
            draft = []
            _keep(self._drafts, item_id, draft)
        if len(draft) < MAX_TEXT:
            draft.append(delta)
        return [Speaking(delta, item_id)]

    def _said(self, item_id: str, text: str, now: float) -> list[RealtimeEvent]:
        self._drafts.pop(item_id, None)
        if not (words := str(text).strip()):
            return self._leave(item_id, now)
        return _heard(self.ordering.put(item_id, Role.AVATAR, words[:MAX_TEXT], now))

    def _finish_draft(self, item_id: str, now: float) -> list[RealtimeEvent]:
        """An answer that was cut off: what it had of words counts."""
        draft = self._drafts.get(item_id)
        return self._said(item_id, "".join(draft), now) if draft else []

    def _committed(self, message: Mapping[str, Any], now: float) -> list[RealtimeEvent]:
        item_id = message["item_id"]
        self.user_speaking = False
        self.ordering.place(item_id, Role.TRAINEE, message.get("previous_item_id"), now)
        return [UserStopped(item_id, self._stopped_at.pop(item_id, 0))]

    def _transcribed(self, message: Mapping[str, Any], now: float) -> list[RealtimeEvent]:
        item_id, text = message["item_id"], str(message["transcript"]).strip()[:MAX_TEXT]
        events: list[RealtimeEvent] = [UserWords(item_id, text)]
        if text:
            events += _heard(self.ordering.put(item_id, Role.TRAINEE, text, now))
        else:
            events += self._leave(item_id, now)
        return events + _transcribed(self.transcribe_model, message.get("usage"))

    def _place(self, item: Mapping[str, Any], previous: str | None, now: float) -> None:
        """Only what will be spoken takes a place. What we typed ourselves has its words already, and a
        trainee's turn takes its place when it is committed."""
        if item.get("type") == "function_call":
            _keep(self._calls, item["id"], str(item.get("name", "")))
        elif item.get("type") == "message" and item.get("role") == "assistant":
            if item.get("status") != "completed" or item["id"] in self._drafts:
                self.ordering.place(item["id"], Role.AVATAR, previous, now)

    def _item_done(self, item: Mapping[str, Any], now: float) -> list[RealtimeEvent]:
        if item.get("type") == "function_call":
            return self._called(str(item.get("name", "")), item.get("call_id", ""), item.get("arguments", ""))
        return self._finish_draft(item["id"], now)

    def _called(self, name: str, call_id: str, arguments: str) -> list[RealtimeEvent]:
        if name != END_TOOL or not self.reasons or call_id in self._ended:
            return []
        if len(self._ended) < MAX_ITEMS:
            self._ended.add(call_id)
        return [EndRequested(_reason(arguments, self.reasons))]

    def _response_done(self, response: Mapping[str, Any], now: float) -> list[RealtimeEvent]:
        self.responding = False
        events: list[RealtimeEvent] = []
        for made in response.get("output") or ():
            events += self._item_done(made, now)
            if made.get("role") == "assistant":
                events += self._leave(made["id"], now)  # no words came, and none will
        failed = None
        if response.get("status") == "failed":
            failed = _failure((response.get("status_details") or {}).get("error") or {})
        usage = _usages(self.model, response.get("usage") or {})
        return [*events, TurnDone(str(response["id"]), usage, failed)]

    def _leave(self, item_id: str, now: float) -> list[RealtimeEvent]:
        return _heard(self.ordering.leave(item_id, now))

    def _error(self, error: Mapping[str, Any]) -> list[RealtimeEvent]:
        code = error_code(error)
        self.refused = code
        if code in HOPELESS:
            return [Lost(ProviderError(HOPELESS[code]), retryable=False)]
        if code == EXPIRED:
            return [Lost(ProviderError("The speech model ended the session.", retryable=True), True)]
        if error.get("event_id") == ANSWER_ID and code != BUSY:
            self.responding = False
            return [TurnDone("", (), _failure(error))]
        return []


def error_code(error: Mapping[str, Any]) -> str:
    """The vendor's code when it looks like one (it goes into a log), else its type, else `unknown`."""
    for value in (error.get("code"), error.get("type")):
        if isinstance(value, str) and _CODE.match(value):
            return value
    return "unknown"


def _failure(error: Mapping[str, Any]) -> ProviderError:
    code = error_code(error)
    if code in HOPELESS:
        return ProviderError(HOPELESS[code])
    return ProviderError("The speech model could not answer.", retryable=True)


def _vendors(text: str) -> Audio:
    """A short piece goes to the client as it is; a long one will be cut, so its letters must be right."""
    return Audio.of_vendor(text) if len(text) <= SHORT_CHARS else Audio.of_base64(text)


def _reason(arguments: str, reasons: tuple[str, ...]) -> str:
    """What the model gave if it is one of ours, else nothing: the call itself still says that it ends."""
    try:
        given = orjson.loads(arguments).get("reason")
    except (ValueError, AttributeError):
        given = None
    return given if given in reasons else ""


def _heard(lines: list[Line]) -> list[RealtimeEvent]:
    return [Heard(line.role, line.text, line.item_id, line.previous_item_id) for line in lines]


def _usages(model: str, usage: Mapping[str, Any]) -> tuple[Usage, ...]:
    """Text and audio apart: a token of audio costs ten times one of text or more."""
    if not usage:
        return ()
    came, went = usage.get("input_token_details") or {}, usage.get("output_token_details") or {}
    cached = came.get("cached_tokens_details") or {}
    audio = Usage(
        f"{model}/audio",
        int(came.get("audio_tokens") or 0),
        int(cached.get("audio_tokens") or 0),
        int(went.get("audio_tokens") or 0),
    )
    text = Usage(
        model,
        max(0, int(usage.get("input_tokens") or 0) - audio.input_tokens),
        max(0, int(came.get("cached_tokens") or 0) - audio.cached_tokens),
        max(0, int(usage.get("output_tokens") or 0) - audio.output_tokens),
    )
    return tuple(used for used in (text, audio) if used.input_tokens or used.output_tokens)


def _transcribed(model: str, usage: object) -> list[RealtimeEvent]:
    """Some models count tokens, some seconds; these become milliseconds of `<model>/ms`, priced as such."""
    match usage:
        case {"type": "tokens", "input_tokens": int(given), "output_tokens": int(made)}:
            return [Transcribed(Usage(model, given, 0, made))]
        case {"type": "duration", "seconds": int(seconds) | float(seconds)}:
            return [Transcribed(Usage(f"{model}/ms", round(seconds * 1000)))]
        case _:
            return []


def _keep(table: dict[str, Any], key: str, value: Any) -> None:
    if key not in table and len(table) >= MAX_ITEMS:
        del table[next(iter(table))]
    table[key] = value
