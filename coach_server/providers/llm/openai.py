"""OpenAI's Chat Completions, and every server that speaks them (vLLM, Ollama, llama.cpp, LM Studio).

Asked by aiohttp and not by the vendor's SDK, which neither bounds nor validates an answer and makes each tip
more than a millisecond later (bench/README.md). Nothing that the vendor says leaves this file: errors carry
our own sentences, the vendor's stand only in `__cause__`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Annotated, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from coach_server import __version__
from coach_server.clock import Clock
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.llm import Completion, LLMCall, Message, Usage

OFFICIAL_URL = "https://api.openai.com/v1"
ANSWER_BYTES = 20_000
# JSON may need six bytes for one; the rest is the envelope.
BODY_BYTES = 8 * ANSWER_BYTES
ERROR_BYTES = 20_000
CONNECTIONS = 1000
# Longer than the usual time between two tips, so that a quiet server does not shake hands for each.
KEEP_ALIVE_S = 45.0
STREAM_BYTES = 2_000_000
RETRY_WAIT_S = 0.25
RETRY_NEEDS_S = 0.3
LIST_MODELS_S = 5.0
# A wrong key and an empty account stay so until somebody acts: this spares them the next calls.
HOPELESS_REST_S = 30.0
# Parameters that a server may not know. What it refuses is left out from then on.
OPTIONAL = (
    "reasoning_effort",
    "temperature",
    "prompt_cache_key",
    "max_completion_tokens",
    "stream_options",
    "response_format",
)
# What comes up while the server is asked, while its answer is read, and while we understand it.
FAILURES = (aiohttp.ClientError, OSError, ValueError, RecursionError)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")


class OpenAILLM:
    """An LLM. `base_url` None is OpenAI itself; parameters that only OpenAI knows are sent only there.

    One retry of our own inside the call's deadline: connection faults, 408, 409, 429, 5xx, unless the server
    says `x-should-retry: false`, the account is empty, or its `retry-after` does not fit.
    """

    def __init__(
        self, api_key: str, base_url: str | None, clock: Clock, *, retry_wait_s: float = RETRY_WAIT_S
    ) -> None:
        self._clock = clock
        self._retry_wait_s = retry_wait_s
        self._url = (base_url or OFFICIAL_URL).rstrip("/")
        self._official = urlsplit(self._url).hostname == urlsplit(OFFICIAL_URL).hostname
        self._headers = {"Authorization": f"Bearer {api_key}", "User-Agent": f"coach-server/{__version__}"}
        self._proxy = _proxy_for(self._url)
        self._http: aiohttp.ClientSession | None = None
        self._dialects: dict[str, _Dialect] = {}
        self._retries = _RetryBudget()

    async def complete(self, call: LLMCall) -> Completion:
        attempt = self._attempt(call)
        try:
            async with asyncio.timeout(call.deadline_s):
                while True:
                    try:
                        return attempt.accept(await self._complete_once(call, attempt.dialect))
                    except _Fault as fault:
                        await attempt.recover(fault)
        except TimeoutError as error:
            raise ProviderTimeout("The model took too long.", retryable=True) from error

    async def stream(self, call: LLMCall) -> AsyncIterator[str | Completion]:
        attempt = self._attempt(call)
        end = asyncio.get_running_loop().time() + call.deadline_s
        started = False
        while True:
            pieces = self._stream_once(call, attempt.dialect)
            try:
                async with aclosing(pieces):
                    # The time-out stands around each step and never around a yield: there it would cancel
                    # the reader of this stream.
                    while (piece := await _next(pieces, end)) is not None:
                        started = True
                        yield attempt.accept(piece) if isinstance(piece, Completion) else piece
                return
            except _Fault as fault:
                if started:
                    attempt.learn(fault)
                    raise fault.error from fault.__cause__
                try:
                    async with asyncio.timeout_at(end):
                        await attempt.recover(fault)
                except TimeoutError as error:
                    raise ProviderTimeout("The model took too long.", retryable=True) from error

    async def model_shutdowns(self) -> dict[str, str]:
        try:
            async with asyncio.timeout(LIST_MODELS_S), self._ask("GET", "/models") as response:
                listed = json.loads(await _read(response.content.iter_any(), STREAM_BYTES))
        except TimeoutError as error:
            raise ProviderTimeout("The list of models took too long.", retryable=True) from error
        except FAILURES as error:
            raise _translated(error).error from error
        items = listed.get("data") if isinstance(listed, dict) else None
        return {
            str(item["id"]): item["shutdown_date"]
            for item in (items if isinstance(items, list) else [])
            if isinstance(item, dict) and "id" in item and _is_date(item.get("shutdown_date"))
        }

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    def _attempt(self, call: LLMCall) -> _Attempt:
        dialect = self._dialects.setdefault(call.model, _Dialect())
        return _Attempt(self._official, dialect, self._retries, self._clock, call, self._retry_wait_s)

    @asynccontextmanager
    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with status 2xx. Raises _Refusal with what another one says."""
        if self._http is None:  # made inside the loop that uses it
            self._http = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None),  # the deadline stands round every call
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S),
            )
        async with self._http.request(
            method,
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
            proxy=self._proxy,
        ) as response:
            if not 200 <= response.status < 300:
                raise await _refusal(response)
            yield response

    async def _complete_once(self, call: LLMCall, dialect: _Dialect) -> Completion:
        body = _body(call, dialect, official=self._official)
        try:
            async with self._ask("POST", "/chat/completions", body) as response:
                raw = await _read(response.content.iter_any(), BODY_BYTES)
            reply = _Reply.model_validate(json.loads(raw))
        except FAILURES as error:
            raise _translated(error, body) from error
        choice = reply.choices[0]
        text = _finished(choice.message.content, choice.message.refusal, choice.finish_reason)
        return Completion(text, _usage(call, text, reply.usage))

    async def _stream_once(self, call: LLMCall, dialect: _Dialect) -> AsyncGenerator[str | Completion, None]:
        body = _body(call, dialect, official=self._official, stream=True)
        answer = _Streamed()
        try:
            async with self._ask("POST", "/chat/completions", body) as response:
                async for data in _events(response.content.iter_any()):
                    if piece := answer.take(json.loads(data)):
                        yield piece
        except FAILURES as error:
            raise _translated(error, body) from error
        text = _finished(
            "".join(answer.pieces), answer.refusal, answer.finish_reason, cut=not answer.finished
        )
        yield Completion(text, _usage(call, text, answer.usage))


# Dialects, faults and the one retry


@dataclass(slots=True)
class _Dialect:
    """What a model's server turned out not to know."""

    refused: set[str] = field(default_factory=set)


class _Fault(Exception):
    """A failed attempt: the error to raise if it stays, the refused parameter if that was the cause."""

    def __init__(self, error: ProviderError, *, refused: str | None = None, guessed: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.refused = refused
        self.guessed = guessed


class _RetryBudget:
    """Stops retries while most calls fail, so that an outage is not met with twice the calls."""

    def __init__(self, full: int = 6) -> None:
        self._full = full
        self._left = full

    def fault(self) -> bool:
        """Count a fault; whether a retry is still affordable."""
        self._left = max(0, self._left - 1)
        return self._left > self._full // 2

    def success(self) -> None:
        self._left = min(self._full, self._left + 1)


@dataclass(slots=True)
class _Attempt:
    """One call with what is left of its chances."""

    official: bool
    dialect: _Dialect
    budget: _RetryBudget
    clock: Clock
    call: LLMCall
    wait_s: float
    retried: bool = False
    guess: str | None = None
    paid: Usage | None = None
    ends_at: float = 0.0

    def __post_init__(self) -> None:
        self.ends_at = self.clock.now() + self.call.deadline_s

    def accept(self, completion: Completion) -> Completion:
        """The completion, unless a structured answer is no JSON: then the server does not enforce schemas."""
        paid = _sum(self.paid, completion.usage) if self.paid else completion.usage
        if self.call.schema is not None and not self.official and not _holds_json(completion.text):
            self.paid = paid
            error = ProviderError("The model's answer has the wrong form.", retryable=True)
            raise _Fault(error, refused="response_format")
        self.budget.success()
        return Completion(completion.text, paid)

    def learn(self, fault: _Fault) -> bool:
        """Leave out what was refused; whether that is news. A guess that did not help is taken back."""
        known = self.dialect.refused
        if fault.refused is None or fault.refused in known:
            known.discard(self.guess or "")
            return False
        self.guess = fault.refused if fault.guessed else None
        known.add(fault.refused)
        return True

    async def recover(self, fault: _Fault) -> None:
        """Return when another attempt makes sense, else raise the error."""
        if self.learn(fault):
            return
        affordable = self.budget.fault()
        wait = fault.error.retry_after_s or self.wait_s
        left = self.ends_at - self.clock.now()
        if self.retried or not fault.error.retryable or not affordable or wait + RETRY_NEEDS_S > left:
            raise fault.error from fault.__cause__
        self.retried = True
        await self.clock.sleep_until(self.clock.now() + wait)


def _proxy_for(url: str) -> str | None:
    """The proxy that HTTPS_PROXY and its like name for this address."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


class _Refusal(ValueError):
    """An answer with another status than 2xx, and what its body says in the vendor's form."""

    def __init__(self, status: int, headers: Mapping[str, str], error: Mapping[str, Any]) -> None:
        super().__init__(status)
        self.status, self.headers = status, headers
        self.code, self.kind, self.param = error.get("code"), error.get("type"), error.get("param")
        self.message = str(error.get("message", ""))


async def _refusal(response: aiohttp.ClientResponse) -> _Refusal:
    told: Any = None
    try:
        told = json.loads(await _read(response.content.iter_any(), ERROR_BYTES))
    except (aiohttp.ClientError, ValueError, RecursionError):
        pass  # the status says enough
    inner = told.get("error", told) if isinstance(told, dict) else None
    return _Refusal(response.status, response.headers, inner if isinstance(inner, dict) else {})


def _translated(error: Exception, body: Mapping[str, Any] | None = None) -> _Fault:
    """Any failure of an attempt as a fault with our own words."""
    match error:
        case _Refusal():
            return _refused_or_failed(error, body or {})
        case aiohttp.ClientPayloadError():
            return _Fault(ProviderError("The model's answer broke off.", retryable=True))
        case aiohttp.ClientError() | OSError():
            return _Fault(ProviderError("The model could not be reached.", retryable=True))
        case _TooMuch():
            return _Fault(ProviderError("The model's answer is too long."))
    return _Fault(ProviderError("The model's answer has the wrong form."))


def _refused_or_failed(error: _Refusal, body: Mapping[str, Any]) -> _Fault:
    status, headers = error.status, error.headers
    if status in (400, 422):
        return _refused(error, body)
    if status == 429 and "insufficient_quota" in (error.code, error.kind):
        return _Fault(ProviderError("The model's account is empty.", retry_after_s=HOPELESS_REST_S))
    if status in (401, 403):
        return _Fault(ProviderError("The model did not accept the key.", retry_after_s=HOPELESS_REST_S))
    retryable = status in (408, 409, 429) or status >= 500
    if headers.get("x-should-retry") in ("true", "false"):
        retryable = headers["x-should-retry"] == "true"
    said = "The model is busy." if status == 429 else "The model failed."
    return _Fault(ProviderError(said, retryable=retryable, retry_after_s=retry_after(headers)))


def _refused(error: _Refusal, body: Mapping[str, Any]) -> _Fault:
    """A 400 is about an optional parameter when the server names one. Servers that do not know JSON schemas
    name nothing as often as not, so where one was sent it is the first guess."""
    sent = [name for name in OPTIONAL if name in body]
    named = next((name for name in sent if str(error.param or "").split(".")[0] == name), None)
    named = named or next((name for name in sent if name in error.message), None)
    kind = (body.get("response_format") or {}).get("type")
    if named == "response_format" and kind == "json_object":
        named = "json_object"
    guessed = named is None and kind == "json_schema"
    refused = "response_format" if guessed else named
    return _Fault(ProviderError("The model refused the request."), refused=refused, guessed=guessed)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (seconds or a date), None without a valid one."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif said := headers.get("retry-after"):
            seconds = float(said) if said[:1].isdigit() else _until(said, headers.get("date"))
        else:
            return None
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _until(when: str, now: str | None) -> float:
    """Seconds between the answer's own date and `when`, so that our clock does not matter."""
    if now is None:
        raise ValueError("no date")
    return (parsedate_to_datetime(when) - parsedate_to_datetime(now)).total_seconds()


# The request


def _body(call: LLMCall, dialect: _Dialect, *, official: bool, stream: bool = False) -> dict[str, Any]:
    refused = dialect.refused
    messages = list(call.messages)
    body: dict[str, Any] = {"model": call.model, "temperature": call.temperature}
    body["max_completion_tokens"] = call.max_tokens
    if call.schema is not None and "response_format" not in refused:
        schema = {"name": call.schema_name or "answer", "strict": True, "schema": call.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif call.schema is not None:
        messages = _with_schema(messages, call.schema)
    if official:
        # Reasoning before a tip would cost more time than the tip may take; temperature needs it off, too.
        body["reasoning_effort"] = "none"
        if call.cache_key:
            body["prompt_cache_key"] = call.cache_key
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        if official:
            body["stream_options"]["include_obfuscation"] = False
    for name in refused & body.keys():
        del body[name]
    if "max_completion_tokens" in refused:
        body["max_tokens"] = call.max_tokens
    if call.schema is not None and "response_format" in refused and "json_object" not in refused:
        body["response_format"] = {"type": "json_object"}
    body["messages"] = [{"role": m.role, "content": m.text} for m in messages]
    return body


def _with_schema(messages: list[Message], schema: Mapping[str, Any]) -> list[Message]:
    """The schema as words at the end of the system message, for servers that do not take it otherwise."""
    words = "\n\nAnswer with one JSON object that follows this JSON schema:\n" + json.dumps(schema)
    return [Message(m.role, m.text + words) if m.role == "system" else m for m in messages]


# The answer


def _well_formed(text: object) -> object:
    return text.encode("utf-8", "ignore").decode() if isinstance(text, str) else text


Text = Annotated[str | None, BeforeValidator(_well_formed)]


class _Spoken(BaseModel):
    content: Text = None
    refusal: Text = None


class _Choice(BaseModel):
    message: _Spoken
    finish_reason: str | None = None


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None


class _Delta(BaseModel):
    delta: _Spoken = _Spoken()
    finish_reason: str | None = None


class _Chunk(BaseModel):
    choices: list[_Delta] = []
    usage: Any = None
    error: Any = None


class _Details(BaseModel):
    cached_tokens: int = Field(0, ge=0, le=10_000_000)


class _Tokens(BaseModel):
    prompt_tokens: int = Field(ge=0, le=10_000_000)
    completion_tokens: int = Field(ge=0, le=10_000_000)
    prompt_tokens_details: _Details | None = None


@dataclass(slots=True)
class _Streamed:
    """A streamed answer so far."""

    pieces: list[str] = field(default_factory=list)
    size: int = 0
    refusal: str = ""
    finish_reason: str | None = None
    finished: bool = False
    usage: Any = None

    def take(self, data: object) -> str:
        """Add one chunk; its piece of text."""
        chunk = _Chunk.model_validate(data)
        if chunk.error:
            raise ValueError("an error inside the stream")
        self.usage = chunk.usage or self.usage
        if not chunk.choices:
            return ""
        first = chunk.choices[0]
        self.refusal += first.delta.refusal or ""
        if first.finish_reason:
            self.finish_reason, self.finished = first.finish_reason, True
        piece = first.delta.content or ""
        self.size += len(piece.encode())
        if self.size > ANSWER_BYTES:
            raise _TooMuch
        if piece:
            self.pieces.append(piece)
        return piece


class _TooMuch(ValueError):
    """More bytes than an answer may have."""


def _finished(text: str | None, refusal: str | None, reason: str | None, *, cut: bool = False) -> str:
    """The text of a complete answer, else a fault that says what is wrong with it."""
    if refusal or reason == "content_filter":
        raise _Fault(ProviderError("The model refused to answer."))
    if reason == "length":
        raise _Fault(ProviderError("The model's answer was cut short."))
    if cut:
        raise _Fault(ProviderError("The model's answer broke off.", retryable=True))
    if not text or not text.strip():
        raise _Fault(ProviderError("The model's answer is empty."))
    if len(text.encode()) > ANSWER_BYTES:
        raise _Fault(ProviderError("The model's answer is too long."))
    return text


def _usage(call: LLMCall, text: str, told: object) -> Usage:
    """Tokens as told, else a guess of four characters a token: some servers tell none, and free is wrong."""
    try:
        counted = _Tokens.model_validate(told)
    except ValidationError:
        said = sum(len(m.text) for m in call.messages)
        return Usage(call.model, input_tokens=said // 4 + 1, output_tokens=len(text) // 4 + 1)
    details = counted.prompt_tokens_details
    cached = min(details.cached_tokens if details else 0, counted.prompt_tokens)
    return Usage(call.model, counted.prompt_tokens, cached, counted.completion_tokens)


async def _read(pieces: AsyncIterator[bytes], limit: int) -> bytes:
    whole = bytearray()
    async for piece in pieces:
        whole += piece
        if len(whole) > limit:
            raise _TooMuch
    return bytes(whole)


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The `data:` fields of server-sent events, without the final [DONE]."""
    rest = bytearray()
    total = 0
    async for piece in pieces:
        total += len(piece)
        rest += piece
        if total > STREAM_BYTES:
            raise _TooMuch
        *lines, tail = rest.split(b"\n")
        rest = bytearray(tail)
        if len(rest) > BODY_BYTES:
            raise _TooMuch
        for line in lines:
            data = line[5:].strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            if data:
                yield bytes(data)


async def _next(pieces: AsyncIterator[str | Completion], end: float) -> str | Completion | None:
    try:
        async with asyncio.timeout_at(end):
            return await anext(pieces, None)
    except TimeoutError as error:
        raise ProviderTimeout("The model took too long.", retryable=True) from error


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        other.model,
        one.input_tokens + other.input_tokens,
        one.cached_tokens + other.cached_tokens,
        one.output_tokens + other.output_tokens,
    )


def _holds_json(text: str) -> bool:
    """Whether there is an object in it; a fence or a sentence round it is forgiven."""
    try:
        json.loads(text[text.find("{") : text.rfind("}") + 1])
    except (ValueError, RecursionError):
        return False
    return True


def _is_date(value: object) -> bool:
    return isinstance(value, str) and _DATE.match(value) is not None
