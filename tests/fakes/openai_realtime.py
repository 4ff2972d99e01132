"""A stand-in for OpenAI Realtime (GA), played by a test: `/v1/realtime` as its documents have it.

A test scripts it (`script`: what it hears after so much audio, and how it answers) or plays a connection by
hand (`speech`, `reply`, `transcribe`, `send`). What a client sends in a wrong shape is answered with `error`,
and everything it sends is kept.
"""

from __future__ import annotations

import array
import asyncio
import base64
import binascii
import itertools
import json
import math
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes.waiting import Watched

KEY = "rt-test-key"
RATE = 24_000
BYTES_PER_MS = 48
DELTA_MS = 100
BETA_FIELDS = {"modalities", "input_audio_format", "output_audio_format", "voice", "turn_detection"}
VOICES = {"alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"}


def tone(ms: int, hz: float = 220.0, volume: float = 0.3) -> bytes:
    """A sine as 16-bit PCM at 24 kHz."""
    top = 32_767 * volume
    wave = (round(top * math.sin(2 * math.pi * hz * at / RATE)) for at in range(ms * RATE // 1000))
    return array.array("h", wave).tobytes()


@dataclass
class Hears:
    """After `after_ms` more of audio somebody has said `words`. `late`: the words are told only by
    `Connection.tell_late`; `failed`: they could not be made out."""

    words: str
    after_ms: int = 500
    late: bool = False
    failed: bool = False


@dataclass
class Reply:
    """How the next `response.create` is answered. `pause_after`: deltas after which it waits for
    `Connection.go_on`. `error`: the response fails with this code. Cancelled, it ends without the events that
    finish its words."""

    text: str = ""
    pcm: bytes = b""
    end_reason: str | None = None
    pause_after: int | None = None
    error: str | None = None
    delta_ms: int = DELTA_MS
    arguments: str | None = None


@dataclass
class FakeRealtime(Watched):
    """`refuse_with`: the status of the next upgrades. `silent`: nothing is answered. `old_names`: events of
    the beta's generation."""

    model: str = "gpt-realtime-2.1-mini"
    refuse_with: int | None = None
    refuse_headers: dict[str, str] = field(default_factory=dict)
    refuse_session: str | None = None
    silent: bool = False
    hang: bool = False
    old_names: bool = False
    hears: list[Hears] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    async def __aenter__(self) -> FakeRealtime:
        app = web.Application()
        app.router.add_get("/v1/realtime", self._upgrade)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"ws://127.0.0.1:{self._runner.addresses[0][1]}/v1/realtime"
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self.connections:
            connection.drop()
        await self._runner.cleanup()

    async def connection(self, number: int = 0) -> Connection:
        """The connection with this number, once its session is set up."""
        await self.until(lambda: len(self.connections) > number and self.connections[number].updates)
        return self.connections[number]

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        if self.hang:
            await self.until(lambda: not self.hang, within_s=30)
        status = self.refuse_with
        if status is None and request.headers.get("Authorization") != f"Bearer {KEY}":
            status = 401
        if status is None and request.query.get("model") != self.model:
            status = 400
        if status is not None:
            body = {"error": {"message": "vendor's own words", "type": "x", "code": None, "param": None}}
            return web.json_response(body, status=status, headers=self.refuse_headers)
        socket = web.WebSocketResponse(timeout=0.2, max_msg_size=16 << 20)
        await socket.prepare(request)
        if "OpenAI-Beta" in request.headers:
            await socket.close(code=4000, message=b"beta_api_shape_disabled")
            return socket
        connection = Connection(self, socket, request)
        self.connections.append(connection)
        self.changed()
        await connection.serve()
        return socket


class Refused(Exception):
    def __init__(self, code: str, param: str = "") -> None:
        super().__init__(code)
        self.code, self.param = code, param


class Connection:
    """One session. `audio` is what was appended, `received` every message but those, `items` the conversation
    in order, `made_ms` the audio of each answer's item. `deaf`: it reads nothing any more."""

    def __init__(self, fake: FakeRealtime, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.fake = fake
        self.socket = socket
        self.session: dict[str, Any] = {}
        self.updates: list[dict[str, Any]] = []
        self.audio = bytearray()
        self.received: list[dict[str, Any]] = []
        self.items: list[dict[str, Any]] = []
        self.refusals: list[str] = []
        self.made_ms: dict[str, int] = {}
        self.truncated: dict[str, int] = {}
        self.responding = False
        self.responses = 0
        self.wanted = 0
        self.closed = False
        self.deaf = False
        self._request = request
        self._ids = itertools.count(1)
        self._cancel = asyncio.Event()
        self._go = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._late: list[tuple[str, Hears]] = []
        self._heard_bytes = 0

    # What a test may do.

    def types(self) -> list[str]:
        return [message["type"] for message in self.received]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.received if message["type"] == kind]

    def said(self) -> list[tuple[str, str]]:
        """Role and text of the items that a client created."""
        made = [message["item"] for message in self.of("conversation.item.create")]
        return [(item["role"], item["content"][0]["text"]) for item in made]

    async def speech_started(self, item_id: str | None = None) -> str:
        item_id = item_id or self._id("item")
        at = len(self.audio) // BYTES_PER_MS
        await self.send("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=at)
        if self._turns().get("interrupt_response", True) and self.responding:
            self._cancel.set()
        return item_id

    async def speech_stopped(self, item_id: str) -> None:
        at = len(self.audio) // BYTES_PER_MS
        await self.send("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=at)
        previous = self._last()
        await self.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        content = [{"type": "input_audio", "transcript": None}]
        await self._add({"id": item_id, "type": "message", "role": "user", "content": content})
        if self._turns().get("create_response", True):
            self._create_response()

    async def speech(self, words: str | None, item_id: str | None = None) -> str:
        """A whole turn; `words` None: their transcript is still to come."""
        item_id = await self.speech_started(item_id)
        await self.speech_stopped(item_id)
        if words is not None:
            await self.transcribe(item_id, words)
        return item_id

    async def transcribe(self, item_id: str, words: str, usage: dict[str, Any] | None = None) -> None:
        await self.send(
            "conversation.item.input_audio_transcription.completed",
            item_id=item_id,
            content_index=0,
            transcript=words,
            usage=usage or {"type": "tokens", "input_tokens": 12, "output_tokens": 4, "total_tokens": 16},
        )

    async def transcription_failed(self, item_id: str) -> None:
        await self.send(
            "conversation.item.input_audio_transcription.failed",
            item_id=item_id,
            content_index=0,
            error={"type": "x", "code": "audio_unintelligible", "message": "vendor's own words"},
        )

    async def tell_late(self) -> None:
        """The transcripts that were kept back."""
        while self._late:
            item_id, hears = self._late.pop(0)
            await self.transcribe(item_id, hears.words)

    def go_on(self) -> None:
        self._go.set()

    async def error(self, code: str, event_id: str | None = None, type_: str = "server_error") -> None:
        error = {"type": type_, "code": code, "message": "vendor's own words", "param": None}
        await self.send("error", error=error | {"event_id": event_id})

    async def expire(self) -> None:
        """The end of the sixtieth minute."""
        await self.error("session_expired", type_="invalid_request_error")
        await self.socket.close(code=1001)

    async def send(self, kind: str, **fields: Any) -> None:
        message = {"type": self._named(kind), "event_id": self._id("event"), **fields}
        await self.socket.send_str(json.dumps(message))

    async def send_raw(self, text: str) -> None:
        await self.socket.send_str(text)

    def drop(self) -> None:
        """Cut the TCP connection, as a network does: no close frame."""
        if self._request.transport is not None:
            self._request.transport.abort()

    # What it does by itself.

    async def serve(self) -> None:
        try:
            if not self.fake.silent:
                await self.send("session.created", session={"type": "realtime", "model": self.fake.model})
            async for message in self.socket:
                if message.type is WSMsgType.TEXT and not self.fake.silent:
                    await self._take(json.loads(message.data))
                if self.deaf:
                    await asyncio.Event().wait()
                self.fake.changed()
        except ConnectionError:
            pass
        finally:
            self.closed = True
            for task in self._tasks:
                task.cancel()
            self.fake.changed()

    async def _take(self, message: dict[str, Any]) -> None:
        try:
            if message.get("type") == "input_audio_buffer.append":
                await self._append(message)
            else:
                self.received.append(message)
                await self._obey(message)
        except Refused as refused:
            self.refusals.append(refused.code)
            await self.error(refused.code, message.get("event_id"), "invalid_request_error")
        except (KeyError, TypeError, AttributeError):
            self.refusals.append("missing_required_parameter")
            await self.error("missing_required_parameter", message.get("event_id"), "invalid_request_error")

    async def _obey(self, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "session.update":
                self._check_session(message["session"])
                self.updates.append(message["session"])
                self.session |= message["session"]
                await self.send("session.updated", session=self.session)
            case "conversation.item.create":
                await self._create_item(message["item"])
            case "conversation.item.truncate":
                await self._truncate(message)
            case "response.create":
                if self.responding:
                    raise Refused("conversation_already_has_active_response")
                self._create_response()
            case "response.cancel":
                if not self.responding:
                    raise Refused("response_cancel_not_active")
                self._cancel.set()
            case "input_audio_buffer.clear" | "input_audio_buffer.commit":
                pass
            case _:
                raise Refused("unknown_event")

    def _check_session(self, session: dict[str, Any]) -> None:
        if self.fake.refuse_session is not None:
            raise Refused(self.fake.refuse_session)
        if session["type"] != "realtime" or BETA_FIELDS & set(session):
            raise Refused("unknown_parameter")
        heard, spoken = session["audio"]["input"], session["audio"]["output"]
        for side in (heard, spoken):
            if side["format"] != {"type": "audio/pcm", "rate": RATE}:
                raise Refused("invalid_value", "format")
        if spoken["voice"] not in VOICES or session["output_modalities"] not in (["audio"], ["text"]):
            raise Refused("invalid_value", "voice")
        if heard["turn_detection"]["type"] not in ("server_vad", "semantic_vad"):
            raise Refused("invalid_value", "turn_detection")
        if heard["turn_detection"]["type"] == "semantic_vad" and "threshold" in heard["turn_detection"]:
            raise Refused("unknown_parameter", "threshold")
        for tool in session.get("tools", ()):
            if {"type", "name", "description", "parameters"} != set(tool):
                raise Refused("unknown_parameter", "tools")

    async def _append(self, message: dict[str, Any]) -> None:
        try:
            pcm = base64.b64decode(message["audio"], validate=True)
        except binascii.Error:
            raise Refused("invalid_value", "audio") from None
        if not pcm or len(pcm) % 2:
            raise Refused("invalid_value", "audio")
        self.audio += pcm
        hears = self.fake.hears
        while hears and len(self.audio) - self._heard_bytes >= hears[0].after_ms * BYTES_PER_MS:
            self._heard_bytes += hears[0].after_ms * BYTES_PER_MS
            await self._hear(hears.pop(0))

    async def _hear(self, hears: Hears) -> None:
        item_id = await self.speech(None)
        if hears.failed:
            await self.transcription_failed(item_id)
        elif hears.late:
            self._late.append((item_id, hears))
        else:
            await self.transcribe(item_id, hears.words)

    async def _create_item(self, item: dict[str, Any]) -> None:
        kinds = {"user": "input_text", "system": "input_text", "assistant": "output_text"}
        if item["type"] != "message" or any(part["type"] != kinds[item["role"]] for part in item["content"]):
            raise Refused("invalid_value", "item")
        await self._add({"id": self._id("item"), "status": "completed", **item})

    async def _truncate(self, message: dict[str, Any]) -> None:
        item_id, at = message["item_id"], message["audio_end_ms"]
        if item_id not in self.made_ms or message["content_index"] != 0:
            raise Refused("item_truncate_invalid_item_id")
        if not isinstance(at, int) or not 0 <= at <= self.made_ms[item_id]:
            raise Refused("invalid_value", "audio_end_ms")
        self.truncated[item_id] = at
        await self.send("conversation.item.truncated", item_id=item_id, content_index=0, audio_end_ms=at)

    async def _add(self, item: dict[str, Any]) -> None:
        previous = self._last()
        self.items.append(item)
        status = item.setdefault("status", "completed")
        await self.send("conversation.item.added", item=item, previous_item_id=previous)
        if status == "completed":
            await self.send("conversation.item.done", item=item, previous_item_id=previous)

    def _create_response(self) -> None:
        self.wanted += 1
        if self.fake.replies:
            self.reply(self.fake.replies.pop(0))

    def reply(self, reply: Reply) -> None:
        """Answer in a task; the connection's end stops it."""
        self.responding = True
        self._cancel.clear()
        self._go.clear()
        task = asyncio.create_task(self._reply(reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, reply: Reply) -> None:
        self.responses += 1
        response_id = self._id("resp")
        await self.send("response.created", response={"id": response_id, "status": "in_progress"})
        output: list[dict[str, Any]] = []
        if reply.error is None and (reply.text or reply.pcm):
            output.append(await self._speak(response_id, reply))
        if reply.end_reason is not None and not self._cancel.is_set():
            output.append(await self._call(response_id, reply))
        self.responding = False
        await self._done(response_id, reply, output)
        self.fake.changed()

    async def _speak(self, response_id: str, reply: Reply) -> dict[str, Any]:
        item = {"id": self._id("item"), "type": "message", "role": "assistant", "content": []}
        item["status"] = "in_progress"
        place = {"response_id": response_id, "item_id": item["id"], "output_index": 0, "content_index": 0}
        await self.send("response.output_item.added", response_id=response_id, output_index=0, item=item)
        await self._add(item)
        await self.send("response.content_part.added", **place, part={"type": "audio", "transcript": ""})
        size = reply.delta_ms * BYTES_PER_MS
        pieces = [reply.pcm[at : at + size] for at in range(0, len(reply.pcm), size)]
        words = reply.text.split(" ")
        for number in range(max(len(pieces), len(words))):
            if number == reply.pause_after:
                await self._pause()
            if self._cancel.is_set():
                break
            if number < len(words):
                delta = (" " if number else "") + words[number]
                await self.send("response.output_audio_transcript.delta", **place, delta=delta)
            if number < len(pieces):
                self.made_ms[item["id"]] = (
                    self.made_ms.get(item["id"], 0) + len(pieces[number]) // BYTES_PER_MS
                )
                audio = base64.b64encode(pieces[number]).decode()
                await self.send("response.output_audio.delta", **place, delta=audio)
        if self._cancel.is_set():
            item["status"] = "incomplete"
        else:
            item["status"] = "completed"
            await self.send("response.output_audio.done", **place)
            await self.send("response.output_audio_transcript.done", **place, transcript=reply.text)
        await self.send("conversation.item.done", item=item, previous_item_id=None)
        await self.send("response.output_item.done", response_id=response_id, output_index=0, item=item)
        return item

    async def _pause(self) -> None:
        self.fake.changed()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._go, self._cancel)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _call(self, response_id: str, reply: Reply) -> dict[str, Any]:
        arguments = (
            reply.arguments if reply.arguments is not None else json.dumps({"reason": reply.end_reason})
        )
        item = {
            "id": self._id("item"),
            "type": "function_call",
            "status": "completed",
            "name": "end_conversation",
            "call_id": self._id("call"),
            "arguments": arguments,
        }
        await self.send("response.output_item.added", response_id=response_id, output_index=1, item=item)
        named = {} if self.fake.old_names else {"name": "end_conversation"}
        await self.send(
            "response.function_call_arguments.done",
            response_id=response_id,
            item_id=item["id"],
            output_index=1,
            call_id=item["call_id"],
            arguments=arguments,
            **named,
        )
        await self.send("response.output_item.done", response_id=response_id, output_index=1, item=item)
        return item

    async def _done(self, response_id: str, reply: Reply, output: list[dict[str, Any]]) -> None:
        status, details = "completed", None
        if reply.error is not None:
            status = "failed"
            details = {"type": "failed", "error": {"type": "server_error", "code": reply.error}}
        elif self._cancel.is_set():
            status, details = "cancelled", {"type": "cancelled", "reason": "client_cancelled"}
        usage = {
            "total_tokens": 300,
            "input_tokens": 200,
            "output_tokens": 100,
            "input_token_details": {
                "text_tokens": 120,
                "audio_tokens": 80,
                "cached_tokens": 60,
                "cached_tokens_details": {"text_tokens": 50, "audio_tokens": 10},
            },
            "output_token_details": {"text_tokens": 20, "audio_tokens": 80},
        }
        response = {"id": response_id, "object": "realtime.response", "status": status}
        response |= {"status_details": details, "output": output, "usage": usage}
        await self.send("response.done", response=response)

    def _turns(self) -> dict[str, Any]:
        turns: dict[str, Any] = self.session.get("audio", {}).get("input", {}).get("turn_detection", {})
        return turns

    def _last(self) -> str | None:
        return self.items[-1]["id"] if self.items else None

    def _named(self, kind: str) -> str:
        if self.fake.old_names:
            kind = kind.replace("response.output_audio", "response.audio")
            kind = kind.replace("conversation.item.added", "conversation.item.created")
        return kind

    def _id(self, kind: str) -> str:
        return f"{kind}_{next(self._ids)}"
