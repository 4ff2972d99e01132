"""How long a tip takes, as the client feels it: from its request, or from the silence that causes it.

Offline: beside a PING of the same moment. With a model: only our own share, which is the total less the time
the fake model held the request; beside the vendor's SDK and a bare HTTP client that ask the same model.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import uvloop
from aiohttp import web

from bench._client import Client, Talk, close, connect, start_calls
from bench._results import Bar, save
from bench._server import Running, pin_load, serving
from tests.fakes.openai import FakeOpenAI, Seen, Step, answer

ROUNDS = 3
CALLS, TIPS = 8, 8
LIVE_CALLS, LIVE_PER_S = 50, 100
HELD_S = 0.1
ASKED, WARMING_UP = 40, 3
TIPS_OF_A_CALL = 18  # the server takes twenty at once
SILENCE_S = 0.1
WITHIN_S = 10.0
# Never the same words twice: a model's requests are told apart by them.
TALK = Talk()
Samples = dict[str, dict[str, list[float]]]


class Model(FakeOpenAI):
    """A model that holds every request for a while and writes down when it had it."""

    def __init__(self) -> None:
        super().__init__()
        # By the words of the request: when it came, when its first bytes left, when its last did.
        self.held: dict[str, tuple[float, float, float]] = {}
        self.always(answer(delay_s=HELD_S, every_s=0.002, piece=24))

    async def _perform(self, request: web.Request, seen: Seen, step: Step) -> web.StreamResponse:
        came = time.perf_counter()
        if not seen.streamed:
            step = answer(delay_s=step.delay_s)
        response = await super()._perform(request, seen, step)
        first, last = response.get("first", 0.0), response.get("last") or time.perf_counter()
        self.held[seen.user] = (came, first, last)
        return response

    async def _write(
        self, response: web.StreamResponse, whole: list[bytes], step: Step, streamed: bool
    ) -> None:
        response["first"] = time.perf_counter()
        for part in whole:
            response["last"] = time.perf_counter()
            await response.write(part)
            await asyncio.sleep(0 if part is whole[-1] else step.every_s)
        await response.write_eof()


class Caller:
    """One client with one call, and when each kind of event came last."""

    def __init__(self, client: Client, call_id: str) -> None:
        self.client, self.id = client, call_id
        self.said = 0
        self.mark = ""
        self._waiting: dict[str, asyncio.Future[tuple[float, dict[str, Any]]]] = {}
        client.on_event = self._hear

    def _hear(self, name: str, payload: dict[str, Any], at: float) -> None:
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            waiting.set_result((at, payload))

    def coming(self, name: str) -> asyncio.Future[tuple[float, dict[str, Any]]]:
        """The next event of that name. Ask before doing what causes it."""
        return self._waiting.setdefault(name, asyncio.get_running_loop().create_future())

    async def say(self, customer: bool) -> float:
        """Say a segment; when it was sent."""
        self.said += 1 + (self.said % 2 == customer)
        segment = TALK.segment(self.id, self.said)
        self.mark = str(segment["text"]).rpartition(" ")[2]
        sent = time.perf_counter()
        await self.client.ask("TRANSCRIPT", segment)
        return sent

    async def next_tip(self) -> tuple[float, float, dict[str, Any]]:
        """When it was asked for and when it came."""
        coming, sent = self.coming("AI_TIP"), time.perf_counter()
        self.client.emit("REQUEST_NEXT_TIP", {"conversationId": self.id})
        came, tip = await _soon(coming)
        return sent, came, tip

    async def ping(self) -> float:
        coming, sent = self.coming("PONG"), time.perf_counter()
        self.client.emit("PING", {})
        return (await _soon(coming))[0] - sent


async def _soon(coming: Awaitable[Any]) -> Any:
    async with asyncio.timeout(WITHIN_S):
        return await coming


def main() -> None:
    uvloop.run(measure())


async def measure() -> None:
    pin_load()
    samples: Samples = {}
    for _ in range(ROUNDS):
        await _offline(samples)
        async with Model() as model:
            await _model(samples, model)
    table = {name: _figures(found) for name, found in samples.items()}
    ours = table["model: our share"]["p99 ms"]
    bars = [
        Bar("offline tip p99", table["offline tip"]["p99 ms"], 50),
        Bar(f"offline tip p99 beside {LIVE_CALLS} live calls", table["offline tip, busy"]["p99 ms"], 50),
        Bar("the machine's own tip p99", table["machine's tip"]["p99 ms"], 50),
        Bar("our own share of a model tip p99", ours, 5),
        Bar("streaming: first tip p99", table["stream: first tip"]["p99 ms"], 50),
    ]
    notes = [
        f"Busy: {LIVE_CALLS} other calls with {LIVE_PER_S} segments/s together.",
        f"The fake model holds each request {HELD_S * 1000:g} ms; one is asked after the other.",
        f"Machine's tip: from the end of the customer's silence of {SILENCE_S * 1000:g} ms.",
        "stream: chunk is from the model's first bytes to the client's first TIP_CHUNK.",
    ]
    save("tips", "how long a tip takes", table, bars, rounds=ROUNDS, notes=notes)


def _figures(found: dict[str, list[float]]) -> dict[str, float]:
    times = found["times"]
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    shares = {"p50 ms": cuts[49], "p95 ms": cuts[94], "p99 ms": cuts[98], "max ms": max(times)}
    return {name: round(value * 1000, 2) for name, value in shares.items()} | {"samples": len(times)}


def _note(samples: Samples, name: str, seconds: float) -> None:
    samples.setdefault(name, {"times": []})["times"].append(seconds)


# --- offline


async def _offline(samples: Samples) -> None:
    async with serving(env={"SILENCE_MS": str(round(SILENCE_S * 1000))}) as running:
        async with _callers(running, CALLS) as callers:
            await _ask_in_turn(samples, callers, "")
        async with _callers(running, CALLS) as callers:
            await _captures(samples, callers)
        async with _callers(running, CALLS) as callers, _live_calls(running):
            await _ask_in_turn(samples, callers, ", busy")


@asynccontextmanager
async def _callers(running: Running, count: int, **choices: object) -> AsyncIterator[list[Caller]]:
    """Calls whose machine gives no tip unasked for."""
    clients = await connect(running.port, count)
    try:
        wish: dict[str, object] = {"mode": "event-driven", "warmupMs": 3_600_000, **choices}
        calls = await start_calls(clients, **wish)
        yield [Caller(client, call) for client, call in zip(clients, calls, strict=True)]
    finally:
        await close(clients)


async def _ask_in_turn(samples: Samples, callers: list[Caller], suffix: str) -> None:
    for _ in range(TIPS):
        for caller in callers:
            await caller.say(customer=False)
            await caller.say(customer=True)
            sent, came, _tip = await caller.next_tip()
            _note(samples, f"offline tip{suffix}", came - sent)
            _note(samples, f"PING{suffix}", await caller.ping())


async def _captures(samples: Samples, callers: list[Caller]) -> None:
    """Option selected, agent speaks, customer answers, silence: the machine gives the tip by itself."""

    async def one(caller: Caller) -> None:
        _, _, tip = await caller.next_tip()
        for _ in range(TIPS):
            chosen = {"recommendationId": tip["recommendationId"], "selectedOption": 1}
            await caller.client.ask("OPTION_SELECTED", chosen)
            await caller.say(customer=False)
            coming = caller.coming("AI_TIP")
            sent = await caller.say(customer=True)
            came, tip = await _soon(coming)
            _note(samples, "machine's tip", came - sent - SILENCE_S)

    for caller in callers:
        await one(caller)


@asynccontextmanager
async def _live_calls(running: Running) -> AsyncIterator[None]:
    clients = await connect(running.port, LIVE_CALLS)
    calls = await start_calls(clients)
    begun = time.perf_counter()

    async def speak() -> None:
        number = 0
        while True:
            client, call = clients[number % LIVE_CALLS], calls[number % LIVE_CALLS]
            client.emit("TRANSCRIPT", TALK.segment(call, number // LIVE_CALLS), lambda raw, at: None)
            number += 1
            await asyncio.sleep(max(0.0, begun + number / LIVE_PER_S - time.perf_counter()))

    speaking = asyncio.create_task(speak())
    try:
        yield
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        await close(clients)


# --- a model


async def _model(samples: Samples, model: Model) -> None:
    settings = {
        "OPENAI_API_KEY": "bench",
        "OPENAI_BASE_URL": model.base_url,
        "COST_CAP_USD_PER_CALL": "0",
        "COST_CAP_USD_PER_DAY": "0",
    }
    async with serving(env=settings) as running:
        for streams, ask in ((False, _model_tip), (True, _streamed_tip)):
            count = -(-(ASKED + WARMING_UP) // TIPS_OF_A_CALL)
            async with _callers(running, count, tipStreaming=streams) as callers:
                for number in range(ASKED + WARMING_UP):
                    counted = samples if number >= WARMING_UP else {}
                    await ask(counted, model, callers[number // TIPS_OF_A_CALL])
    body = next(dict(seen.body) for seen in model.requests if not seen.streamed)
    async with (
        aiohttp.ClientSession() as http,
        openai.AsyncOpenAI(api_key="bench", base_url=model.base_url) as sdk,
    ):

        async def by_http(asked: dict[str, Any]) -> None:
            async with http.post(f"{model.base_url}/chat/completions", json=asked) as got:
                json.loads(await got.read())

        async def by_sdk(asked: dict[str, Any]) -> None:
            await sdk.chat.completions.create(**asked)

        for name, ask_bare in (("model: bare HTTP", by_http), ("model: vendor's SDK", by_sdk)):
            for number in range(ASKED + WARMING_UP):
                words = f"{name} {len(model.held)}"
                user = {"role": "user", "content": words}
                sent = time.perf_counter()
                await ask_bare({**body, "messages": [*body["messages"][:1], user]})
                took = time.perf_counter() - sent
                came, _, left = model.held[words]
                if number >= WARMING_UP:
                    _note(samples, name, took - (left - came))


async def _model_tip(samples: Samples, model: Model, caller: Caller) -> None:
    before = set(model.held)
    await caller.say(customer=True)
    sent, came, tip = await caller.next_tip()
    _must_be_the_models(tip)
    held = await _of(model, before, caller)
    _note(samples, "model: our share", came - sent - (held[2] - held[0]))


def _must_be_the_models(tip: dict[str, Any]) -> None:
    if tip["source"] != "openai":
        raise RuntimeError(f"the model's tip was refused; degraded: {tip['degraded']}")


async def _streamed_tip(samples: Samples, model: Model, caller: Caller) -> None:
    before = set(model.held)
    await caller.say(customer=True)
    chunk, updated = caller.coming("TIP_CHUNK"), caller.coming("TIP_UPDATED")
    sent, came, _ = await caller.next_tip()
    _note(samples, "stream: first tip", came - sent)
    first, _ = await _soon(chunk)
    last, tip = await _soon(updated)
    _must_be_the_models(tip)
    held = await _of(model, before, caller)
    _note(samples, "stream: chunk", first - held[1])
    _note(samples, "stream: our share", last - sent - (held[2] - held[0]))


async def _of(model: Model, before: set[str], caller: Caller) -> tuple[float, float, float]:
    """The request of this caller: its newest words are in it, with a number of their own."""
    mark = f" {caller.mark}\n"
    async with asyncio.timeout(WITHIN_S):
        while True:
            for words in model.held.keys() - before:
                if mark in words:
                    return model.held[words]
            await asyncio.sleep(0.001)  # the model may still be on its way out


if __name__ == "__main__":
    main()
