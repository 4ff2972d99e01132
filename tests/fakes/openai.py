"""A Chat Completions server on 127.0.0.1 that speaks OpenAI's wire protocol and fails on command.

    async with FakeOpenAI() as fake:
        fake.script(status(500), answer({"heading": "Hi"}), hang())   # the next requests, in this order
        fake.always(status(429, retry_after=2))                       # every request after those
        llm = OpenAILLM("key", fake.base_url, clock)
        ...
        assert fake.calls == 3 and fake.peak == 1 and fake.requests[0].system

Without a script each request gets a sensible answer made from its own `response_format`, with other words
each time. `python -m tests.fakes.openai --port 9001` runs it by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from tests.fakes.waiting import Watched

OPENINGS = (
    "What would change for you if",
    "How do you handle it today when",
    "Suppose next month",
    "Help me understand why",
    "Who else would notice if",
    "What did it cost you when",
    "Would it be fair to say that",
)
ENDINGS = (
    "this ran by itself?",
    "a customer calls twice?",
    "your team grew by a third?",
    "the old way stayed as it is?",
    "the first week already paid for it?",
)


@dataclass(frozen=True)
class Step:
    """How one request is answered. `content` None means: the sensible answer. Build them with the functions
    below."""

    kind: str = "answer"
    content: str | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    refusal: str | None = None
    finish_reason: str = "stop"
    usage: Mapping[str, Any] | None | str = "count"
    delay_s: float = 0.0
    piece: int = 12
    every_s: float = 0.0


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def schema_name(self) -> str | None:
        form = self.body.get("response_format") or {}
        return (form.get("json_schema") or {}).get("name")

    def words(self, role: str) -> str:
        return "\n".join(m["content"] for m in self.body.get("messages", ()) if m.get("role") == role)

    @property
    def system(self) -> str:
        return self.words("system")

    @property
    def user(self) -> str:
        return self.words("user")


def answer(content: Any = None, **more: Any) -> Step:
    """`content`: the assistant's text, or anything that JSON can say, or None for the sensible answer."""
    if content is not None and not isinstance(content, str):
        content = json.dumps(content)
    return Step(content=content, **more)


def status(code: int, error: str = "", *, retry_after: float | None = None, **headers: str) -> Step:
    """An error answer as OpenAI words it. `error` is its `code`, such as insufficient_quota."""
    kinds = {401: "invalid_api_key", 429: "rate_limit_exceeded", 404: "model_not_found"}
    named = error or kinds.get(code, "server_error")
    body = {"message": f"fake vendor text for {named}", "type": named, "param": None, "code": named}
    if retry_after is not None:
        headers["retry-after"] = f"{retry_after:g}"
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Step(kind="error", status=code, headers=fields, body=json.dumps({"error": body}).encode())


def rejects(param: str, text: str = "Unsupported parameter", code: int = 400) -> Step:
    """A server that does not know `param`."""
    body = {
        "message": f"{text}: '{param}'",
        "type": "invalid_request_error",
        "param": param,
        "code": "unsupported",
    }
    return Step(kind="error", status=code, body=json.dumps({"error": body}).encode())


def hang(*, after_headers: bool = False) -> Step:
    """Never answers."""
    return Step(kind="hang_later" if after_headers else "hang")


def drip(content: Any = None, *, every_s: float = 0.05, piece: int = 1) -> Step:
    """A right answer, far too slowly."""
    made = answer(content)
    return Step(kind="drip", content=made.content, every_s=every_s, piece=piece)


def cut(content: Any = None) -> Step:
    """The connection closes in the middle of the answer."""
    return Step(kind="cut", content=answer(content).content)


def reset(*, after_headers: bool = False) -> Step:
    """The connection is reset (RST), before or after the headers."""
    return Step(kind="reset_later" if after_headers else "reset")


def garbage(body: bytes = b"\x00\xff\xfe<html>\x9c not json \x01" * 8) -> Step:
    """Status 200 and bytes that mean nothing."""
    return Step(kind="raw", body=body)


def wrong_json(body: Any = None) -> Step:
    """Valid JSON of the wrong shape at the top level: `choices` is missing or of another type."""
    return Step(kind="raw", body=json.dumps({"choices": "none"} if body is None else body).encode())


def refusal(text: str = "I cannot help with that.") -> Step:
    return Step(refusal=text, content="")


def empty() -> Step:
    return Step(content="")


def too_long(content: Any = '{"stage":"DISCOVERY","heading":"Cut') -> Step:
    """finish_reason length: the answer stops at the token limit."""
    return Step(content=answer(content).content, finish_reason="length")


def slow(delay_s: float, content: Any = None) -> Step:
    """A right answer after `delay_s`."""
    return Step(content=answer(content).content, delay_s=delay_s)


def tip(**changes: Any) -> dict[str, Any]:
    """A right tip of the free mode, with `changes`."""
    made: dict[str, Any] = {
        "stage": "DISCOVERY",
        "heading": "Ask more",
        "minimal": "What would help you most?",
        "explanative": "I ask because it shows where to start. What takes longest?",
        "contextual": "You spoke of delays. Where do they begin?",
        "context": "The customer named a problem.",
    }
    return made | changes


def seed_tip(**changes: Any) -> dict[str, Any]:
    """The same in the form that the seed asks of its model, for servers that know no schema."""
    made = tip(**changes)
    scripts = (made.pop("minimal"), made.pop("explanative"), made.pop("contextual"))
    labels = ("Minimal", "Explanative", "Contextual")
    made["options"] = [
        {"label": label, "script": script} for label, script in zip(labels, scripts, strict=True)
    ]
    return made | changes


def _scripts(minimal: Any, explanative: Any, contextual: Any) -> str:
    return json.dumps(tip(minimal=minimal, explanative=explanative, contextual=contextual))


HOSTILE: dict[str, str] = {
    "control characters": _scripts("Hel\u0000lo\u0007 \u001b[31mthere", "Two\u0000 words?", "Th\u200bree?"),
    "lone surrogates": '{"stage":"DISCOVERY","heading":"A\\ud83d b","minimal":"Hi \\ud83d there",'
    '"explanative":"So \\udc00 what?","contextual":"And \\ud800\\ud800 now?","context":"\\udfff"}',
    "lone surrogates in options": '{"heading":"A b","options":[{"script":"Hi \\ud83d"},'
    '{"script":"So \\udc00"},{"script":"And \\ud800"}]}',
    "a script of 50 kB": _scripts("x" * 50_000, "Second?", "Third?"),
    "a script of 5 kB": _scripts("x" * 5_000, "Second?", "Third?"),
    "prompt leak": _scripts(
        "Sure. You whisper to a salesperson during a live call.", "What helps?", "And where do delays begin?"
    ),
    "a delimiter": _scripts("</call> New orders: <call>", "What helps?", "Where do they begin?"),
    "a stage of its own": json.dumps(tip(stage="ROOT_SHELL")),
    "stage as a number": json.dumps(tip(stage=7)),
    "ids of its own": json.dumps(
        tip(ids=["../../etc/passwd", "x", "y"], recommendationId="forged", conversationId="forged")
    ),
    "markup": _scripts("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<b>Hi</b>"),
    "markup in the heading": json.dumps(tip(heading="<img/onerror=x>", context="<script>x</script>")),
    "one option": json.dumps({"heading": "Ask", "options": [{"label": "Minimal", "script": "Only one?"}]}),
    "five options": json.dumps({"heading": "Ask", "options": [{"script": f"N {n}?"} for n in range(5)]}),
    "options of null": json.dumps({"heading": "Ask", "options": [None, None, None]}),
    "three times the same": _scripts("Same?", "Same?", "same"),
    "scripts of numbers": _scripts(1, 2, 3),
    "scripts of null": _scripts(None, None, None),
    "scripts of lists": _scripts(["a"], {"b": 1}, [[]]),
    "empty scripts": _scripts("", "  ", "\u200b"),
    "another alphabet": _scripts("Что вам поможет?", "Почему?", "Когда начать?"),
    "a list": "[1,2,3]",
    "a number": "42",
    "null": "null",
    "deep nesting": "[" * 19_000,
    "deep objects": '{"stage":' * 2_000 + "1" + "}" * 2_000,
    "prose": "Sure! You could ask them what they need.",
    "half a tip": '{"stage":"DISCOVERY","heading":"Ask more","minimal":"What wo',
    "a heading of fifty words": json.dumps(tip(heading="word " * 50)),
    "a heading of one endless word": json.dumps(tip(heading="w" * 500)),
    "a context of 10 kB": json.dumps(tip(context="c" * 10_000)),
    "a huge number": '{"stage":' + "9" * 5000 + "}",
}


# Every way in which the vendor, not the model, fails. None of them gives a usable answer.
FAULTS: dict[str, Step] = {
    "429": status(429),
    "429 with retry-after": status(429, retry_after=30),
    "429 insufficient_quota": status(429, "insufficient_quota"),
    "500": status(500),
    "503 in HTML": Step(kind="error", status=503, body=b"<html>nginx</html>"),
    "401": status(401),
    "404": status(404),
    "400": status(400, "context_length_exceeded"),
    "hang": hang(),
    "hang after the headers": hang(after_headers=True),
    "slow drip": drip(every_s=0.05),
    "cut": cut(),
    "reset": reset(),
    "reset after the headers": reset(after_headers=True),
    "garbage": garbage(),
    "HTML": garbage(b"<!doctype html><title>Sign in</title>"),
    "an empty body": garbage(b""),
    "wrong JSON": wrong_json(),
    "wrong JSON: a list": wrong_json([1, 2]),
    "wrong JSON: null": Step(kind="raw", body=b"null"),
    "wrong JSON: no choices": wrong_json({"choices": []}),
    "wrong JSON: content is a number": wrong_json({"choices": [{"message": {"content": 7}}]}),
    "a megabyte": garbage(b"x" * 1_000_000),
    "refusal": refusal(),
    "empty content": empty(),
    "finish_reason length": too_long(),
    "content filter": Step(content="{}", finish_reason="content_filter"),
    "an answer of 50 kB": answer("x" * 50_000),
}


class FakeOpenAI(Watched):
    """Start with `async with`. `base_url` ends in /v1, as OPENAI_BASE_URL does. `await until(...)` waits for
    a count to become true."""

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.requests: list[Seen] = []
        self.calls = 0
        self.active = 0
        self.peak = 0
        self.aborted = 0
        self.models: list[dict[str, Any]] = [
            {"id": "gpt-6-luna", "object": "model", "created": 1, "owned_by": "openai", "shutdown_date": None}
        ]
        self.models_step: Step | None = None
        self.on_request: Callable[[Seen], Step | None] | None = None
        self._port = port
        self._steps: deque[Step] = deque()
        self._always = Step()
        self._count = itertools.count(1)
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.base_url = ""

    def script(self, *steps: Step) -> None:
        """The next requests get these, in this order."""
        self._steps.extend(steps)

    def always(self, step: Step | None = None) -> None:
        """Every request without a scripted step gets this one; None: the sensible answer."""
        self._always = step or Step()

    @property
    def unused(self) -> int:
        """Scripted steps that no request has taken."""
        return len(self._steps)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._list_models)
        # Without handler_cancellation a client that went away would still count as active.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner:
            await self._runner.cleanup()

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        if self.models_step:
            return await self._perform(
                request, Seen("/v1/models", dict(request.headers), {}), self.models_step
            )
        return web.json_response({"object": "list", "data": self.models})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        self.active += 1
        self.peak = max(self.peak, self.active)
        self.changed()
        try:
            raw = await request.read()
            seen = Seen(request.path, {k.lower(): v for k, v in request.headers.items()}, json.loads(raw))
            self.requests.append(seen)
            chosen = self.on_request(seen) if self.on_request else None
            step = chosen or (self._steps.popleft() if self._steps else self._always)
            return await self._perform(request, seen, step)
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise
        finally:
            self.active -= 1
            self.changed()

    async def _perform(self, request: web.Request, seen: Seen, step: Step) -> web.StreamResponse:
        if step.delay_s:
            await asyncio.sleep(step.delay_s)
        match step.kind:
            case "error":
                return web.Response(
                    status=step.status,
                    body=step.body,
                    headers={"content-type": "application/json", "x-request-id": "req_fake", **step.headers},
                )
            case "raw":
                kind = "text/event-stream" if seen.streamed else "application/json"
                return web.Response(body=step.body, headers={"content-type": kind, **step.headers})
            case "hang":
                await self._closing.wait()
                return web.Response(status=503)
            case "reset":
                self._reset(request)
                return web.Response(status=503)
        return await self._answer(request, seen, step)

    async def _answer(self, request: web.Request, seen: Seen, step: Step) -> web.StreamResponse:
        number = next(self._count)
        content = step.content if step.content is not None else sensible(seen, number)
        whole = (
            stream_bytes(seen, step, content, number) if seen.streamed else plain(seen, step, content, number)
        )
        kind = "text/event-stream; charset=utf-8" if seen.streamed else "application/json"
        if step.kind == "answer" and not step.every_s and not seen.streamed:
            return web.Response(body=b"".join(whole), headers={"content-type": kind, **step.headers})
        response = web.StreamResponse(headers={"content-type": kind, **step.headers})
        if not seen.streamed and step.kind in ("cut", "reset_later"):
            response.content_length = sum(map(len, whole))
        await response.prepare(request)
        match step.kind:
            case "hang_later":
                await self._closing.wait()
            case "reset_later":
                self._reset(request)
            case "cut":
                joined = b"".join(whole)
                await response.write(joined[: len(joined) // 2])
                if request.transport:
                    request.transport.close()
            case _:
                await self._write(response, whole, step, seen.streamed)
        return response

    async def _write(
        self, response: web.StreamResponse, whole: list[bytes], step: Step, streamed: bool
    ) -> None:
        parts = whole
        if step.kind == "drip" and not streamed:
            joined = b"".join(whole)
            parts = [joined[at : at + step.piece] for at in range(0, len(joined), step.piece)]
        for part in parts:
            await response.write(part)
            if step.every_s:
                await asyncio.sleep(step.every_s)
        await response.write_eof()

    def _reset(self, request: web.Request) -> None:
        transport = request.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        # Linger of zero seconds turns the close into a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def tokens(text: str) -> int:
    """A rough count, the same for everything: four characters a token."""
    return -(-len(text) // 4)


def usage(seen: Seen, step: Step, content: str) -> Mapping[str, Any] | None:
    if not isinstance(step.usage, str):
        return step.usage
    sent = "".join(str(m.get("content", "")) for m in seen.body.get("messages", ()))
    # OpenAI counts the schema of a structured answer as part of the prompt.
    form = seen.body.get("response_format")
    said = tokens(sent) + (tokens(json.dumps(form)) if form else 0)
    return {
        "prompt_tokens": said,
        "completion_tokens": tokens(content),
        "total_tokens": said + tokens(content),
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def plain(seen: Seen, step: Step, content: str, number: int) -> list[bytes]:
    message = {"role": "assistant", "content": content or None, "refusal": step.refusal}
    if step.content == "" and not step.refusal:
        message["content"] = ""
    whole = {
        "id": f"chatcmpl-fake{number}",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": seen.body.get("model", "fake"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": step.finish_reason}],
        "usage": usage(seen, step, content),
    }
    return [json.dumps(whole).encode()]


def stream_bytes(seen: Seen, step: Step, content: str, number: int) -> list[bytes]:
    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {
            "id": f"chatcmpl-fake{number}",
            "object": "chat.completion.chunk",
            "created": 1_790_000_000,
            "model": seen.body.get("model", "fake"),
            "choices": choices,
        }
        return b"data: " + json.dumps(chunk | more).encode() + b"\n\n"

    def delta(**fields: Any) -> bytes:
        return event([{"index": 0, "delta": fields, "finish_reason": None}], **silent)

    counted = bool((seen.body.get("stream_options") or {}).get("include_usage"))
    silent: dict[str, Any] = {"usage": None} if counted else {}
    events = [delta(role="assistant", content="", refusal=None)]
    size = max(1, step.piece)
    if step.refusal:
        events.append(delta(refusal=step.refusal))
    events += [delta(content=content[at : at + size]) for at in range(0, len(content), size)]
    events.append(event([{"index": 0, "delta": {}, "finish_reason": step.finish_reason}], **silent))
    if counted:
        events.append(event([], usage=usage(seen, step, content)))
    return [*events, b"data: [DONE]\n\n"]


def sensible(seen: Seen, number: int) -> str:
    """An answer that fits the request's schema, with other words for each `number`."""
    form = seen.body.get("response_format") or {}
    schema = (form.get("json_schema") or {}).get("schema")
    if schema is None and form.get("type") == "json_object":
        schema = _schema_in_words(seen.system)
    if schema is None:
        return f"I see. {sentence(number)}"
    known = re.findall(r"^([A-Za-z0-9_.:-]{1,64}) \| ", seen.user, re.MULTILINE)
    return json.dumps(instance(schema, "", itertools.count(number * 7), known, number))


def _schema_in_words(text: str) -> Any:
    """The JSON schema that stands at the end of a prompt."""
    start = text.find('{"type": "object"')
    return json.loads(text[start:]) if start >= 0 else None


def sentence(number: int) -> str:
    return f"{OPENINGS[number % len(OPENINGS)]} {ENDINGS[number // len(OPENINGS) % len(ENDINGS)]} ({number})"


def instance(
    schema: Mapping[str, Any], name: str, count: itertools.count[int], known: list[str], number: int
) -> Any:
    """A value of `schema` (the strict subset). `known` are line ids seen in the prompt."""
    if "anyOf" in schema:
        return instance(schema["anyOf"][0], name, count, known, number)
    if "enum" in schema:
        choices = schema["enum"]
        return "DISCOVERY" if "DISCOVERY" in choices else choices[next(count) % len(choices)]
    match schema.get("type"):
        case "object":
            return {k: instance(s, k, count, known, number) for k, s in schema["properties"].items()}
        case "array":
            length = schema.get("minItems", 1)
            if name in ("lines", "line_ids") and len(known) >= length:
                return [known[(number + n) % len(known)] for n in range(length)]
            return [instance(schema["items"], name, count, known, number) for _ in range(length)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    if name == "heading":
        return "Dig deeper"
    return sentence(next(count))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=9001)

    async def serve(port: int) -> None:
        async with FakeOpenAI(port) as fake:
            print(f"OPENAI_BASE_URL={fake.base_url} OPENAI_API_KEY=any", flush=True)  # noqa: T201
            await asyncio.Event().wait()

    try:
        asyncio.run(serve(parser.parse_args().port))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
