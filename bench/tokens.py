"""Tokens of a ten-minute call, in both modes and styles, beside a design that sends everything each time.

The real machine, prompts and provider play our demo call, stretched to ten minutes, against a
fake model that counts four characters as a token (prompt, schema and answer). The baseline is asked whenever
our coach asks the model, and answers with the same tips; it sends its instructions, the whole playbook and
the last twenty segments every time, as one writes it first.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from bench._results import Bar, Medians, save
from coach_server.clock import SystemClock
from coach_server.domain.call import CallCoach, CallTiming
from coach_server.domain.events import (
    AskTip,
    CallEffect,
    CallEvent,
    Heard,
    Mode,
    OptionSelected,
    ShowTip,
    Tick,
    TipReady,
)
from coach_server.domain.tip import SCRIPT_CHARS, Stage, Tip, TipRequest
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.paths import bundled, catalog
from coach_server.providers.llm.openai import OpenAILLM
from coach_server.services.answers import SCHEMAS
from coach_server.services.breaker import Breaker
from coach_server.services.calls import placeholders
from coach_server.services.coach import FallbackCoach
from coach_server.services.coach_llm import LLMCoach
from coach_server.services.coach_rules import RulesCoach
from coach_server.services.content import Content
from coach_server.services.costs import CostGovernor, Meter, Prices
from coach_server.services.demo import load_demo
from coach_server.services.detector import Detector
from coach_server.services.ears import CallEars
from coach_server.services.prompts import Prompts
from tests.fakes.openai import FakeOpenAI, Seen, Step, answer, tokens

MINUTES = 10
SEGMENTS_RESENT = 20
CLOSE = 24  # the turn of the demo call from which on it is about the next step
MODELS = {"tip": "gpt-6-luna", "analysis": "gpt-6-luna"}
STYLES: dict[str, str | None] = {"free": None, "playbook b2b": "b2b"}

# What such prompts say, in about as many words.
INSTRUCTIONS = """You are an expert sales coach who listens to a live telephone call between an agent and a
customer and tells the agent what to say next. Read the conversation so far, find out in which stage the call
is, and recommend the script from the library below that fits best. Follow these rules. Use only scripts from
the library, word for word, and fill in the placeholders. Give exactly three options: Minimal is one sentence,
Explanative is two or three sentences with the reason, Contextual is two or three sentences that take up what
the customer said. The heading has at most two words and twenty characters. Never repeat a script that was
suggested before. Never ask for what the customer already told. Respect a clear no. Do not go back to an
earlier stage after the conversion. Do not invent facts. The stages are GREETING, DISCOVERY, VALUE_PROP,
OBJECTION_HANDLING, NEXT_STEPS, CLOSING and CONVERSION. Answer only with JSON of this form, without markdown:
{"heading": "...", "stage": "...", "context": "why this fits now", "options": [{"id": "...", "label":
"Minimal", "script": "..."}, {"id": "...", "label": "Explanative", "script": "..."}, {"id": "...", "label":
"Contextual", "script": "..."}]}"""


@dataclass(slots=True)
class Told:
    """Tokens sent and received by one design in one call."""

    requests: int = 0
    sent: int = 0
    received: int = 0

    @property
    def total(self) -> int:
        return self.sent + self.received


@dataclass(slots=True)
class Played:
    """One call: what ours used, what the baseline would have."""

    ours: Meter
    baseline: Told = field(default_factory=Told)
    tips: int = 0


def main() -> None:
    asyncio.run(measure())


async def measure() -> None:
    logger.disable("coach_server")
    parts = Parts()
    table: Medians = {}
    worst = 0.0
    async with FakeOpenAI() as fake:
        for mode, (style, playbook) in itertools.product(Mode, STYLES.items()):
            played = await parts.play(fake, mode, playbook)
            spent = played.ours.spent
            total = spent.input_tokens + spent.output_tokens
            share = total / played.baseline.total
            worst = max(worst, share)
            table[f"{mode.value}, {style}"] = {
                "tips": played.tips,
                "of the model": spent.calls,
                "tokens sent": spent.input_tokens,
                "tokens received": spent.output_tokens,
                "tokens": total,
                "baseline sent": played.baseline.sent,
                "baseline received": played.baseline.received,
                "baseline tokens": played.baseline.total,
                "share of the baseline": round(share, 3),
                "tokens sent per tip": round(spent.input_tokens / max(1, spent.calls)),
                "baseline sent per tip": round(played.baseline.sent / max(1, played.baseline.requests)),
                "cost, micro-USD": spent.micro_usd,
            }
    notes = [
        f"{len(parts.turns)} segments, {parts.words} words, {MINUTES} minutes.",
        "A token is four characters, on both sides.",
        "Vendors bill a long constant prefix at a lower price where they have it cached; "
        "tokens are counted here, not money.",
    ]
    bars = [Bar("largest share of the baseline's tokens", worst, 1 / 3, "")]
    save("tokens", "tokens of a ten-minute call", table, bars, rounds=1, notes=notes)


class Parts:
    """The parts of the server that decide what a call costs, wired as app.py does."""

    def __init__(self) -> None:
        self.prompts = Prompts.load(bundled("prompts"), outputs=SCHEMAS.keys())
        self.content = Content.load(None)
        self.detector = Detector.load(None)
        self.ears = CallEars(self.detector, self.content.facts)
        self.clock = SystemClock()
        self.turns = list(_ten_minutes())
        self.words = sum(len(text.split()) for _, _, text in self.turns)
        self.library = _library()

    async def play(self, fake: FakeOpenAI, mode: Mode, playbook: str | None) -> Played:
        llm = OpenAILLM("bench", fake.base_url, self.clock)
        governor = CostGovernor(
            Prices.load(catalog() / "prices.toml"), MODELS, MODELS["tip"], 0.0, 0.0, self.clock
        )
        offline = RulesCoach(self.content, self.detector)
        written = LLMCoach(llm, self.prompts, MODELS, offline)
        coach = FallbackCoach(written, offline, Breaker(self.clock), deadline_s=10.0)
        demo = load_demo("en")
        names = {"agentName": demo.metadata["agent_name"], "customerName": demo.metadata["customer_name"]}
        machine = CallCoach.begin(
            0.0, CallTiming(), mode=mode, playbook=playbook, placeholders=placeholders(names)
        )
        played = Played(governor.meter())
        fake.on_request = _of_usual_length
        try:
            await _Player(self, machine, coach, played).play()
        finally:
            await llm.close()
        return played

    def baseline_prompt(self, request: TipRequest, heard: list[Utterance]) -> str:
        call = "\n".join(f"[{u.said_at:.0f}] {u.speaker.value}: {u.text}" for u in heard[-SEGMENTS_RESENT:])
        parts = [INSTRUCTIONS, f"SCRIPT LIBRARY:\n{self.library}", f"CONVERSATION:\n{call}"]
        if request.exchange is not None:
            said = request.exchange
            parts.append(
                f"SUGGESTED: {said.suggested}\nAGENT REALLY SAID: {said.agent_words}\n"
                f"CUSTOMER REACTED: {said.customer_words}"
            )
        return "\n\n".join(parts)


class _Player:
    """Plays the call through its machine: time jumps from one event to the next."""

    def __init__(self, parts: Parts, machine: CallCoach, coach: FallbackCoach, played: Played) -> None:
        self._parts = parts
        self._machine = machine
        self._coach = coach
        self._played = played
        self._ids = itertools.count(1)

    async def play(self) -> None:
        for number, (at, speaker, text) in enumerate(self._parts.turns, start=1):
            await self._until(at)
            await self._receive(self._heard(Utterance(number, speaker, text, at, at)), at)
        await self._until(MINUTES * 60.0)

    async def _until(self, at: float) -> None:
        while (due := self._machine.deadline) is not None and due <= at:
            await self._receive(Tick(), due)

    def _heard(self, utterance: Utterance) -> Heard:
        before = tuple(u.text for u in self._machine.transcript.last(2))
        detection = self._parts.ears.detect(utterance, "en", before)
        return Heard(utterance, detection, self._parts.ears.facts(self._machine.facts, utterance, "en"))

    async def _receive(self, event: CallEvent, now: float) -> None:
        for effect in self._machine.receive(event, now):
            await self._perform(effect, now)

    async def _perform(self, effect: CallEffect, now: float) -> None:
        match effect:
            case AskTip():
                await self._ask(effect.request, now)
            case ShowTip():
                self._played.tips += 1
                if self._machine.mode is Mode.EVENT_DRIVEN:
                    await self._receive(OptionSelected(effect.shown.recommendation_id, 1), now)

    async def _ask(self, request: TipRequest, now: float) -> None:
        spent = self._played.ours.spent
        calls, received = spent.calls, spent.output_tokens
        tip = await self._coach.tip(request, self._played.ours)
        if spent.calls > calls:
            self._ask_the_baseline(request, tip, spent.output_tokens - received)
        await self._receive(TipReady(request.turn, f"tip-{next(self._ids)}", tip), now)

    def _ask_the_baseline(self, request: TipRequest, tip: Tip, received: int) -> None:
        """It writes all three scripts, also where ours only names their lines."""
        told = self._played.baseline
        told.requests += 1
        told.sent += tokens(self._parts.baseline_prompt(request, list(self._machine.transcript.utterances)))
        options = [{"id": o.line_id, "label": o.label.value, "script": o.script} for o in tip.options]
        whole = {"heading": tip.heading, "stage": tip.stage.value, "context": tip.context, "options": options}
        told.received += max(tokens(json.dumps(whole)), received)


def _of_usual_length(seen: Seen) -> Step | None:
    """Free tips as long as the prompt allows: the fake's own are too short to count fairly. Of a playbook's
    lines the first three, which are the best: others may leap to the end of the call."""
    if seen.schema_name == "choice":
        lines = re.findall(r"^([A-Za-z0-9_.:-]{1,64}) \| ", seen.user, re.MULTILINE)[:3]
        return answer({"heading": "Ask more", "lines": lines, "context": "The customer waits for a reason."})
    if seen.schema_name != "tip":
        return None
    number = next(_NUMBERS)
    scripts = [" ".join([f"{kind} {number}:", *_WORDS[:length]]) for kind, length in _LENGTHS.items()]
    tip = dict(zip(("minimal", "explanative", "contextual"), scripts, strict=True))
    assert all(len(script) <= SCRIPT_CHARS for script in scripts)
    words: dict[str, Any] = {"stage": Stage.DISCOVERY.value, "heading": "Ask more", **tip}
    return answer({**words, "context": "The customer named a cost and waits for a reason to go on."})


_NUMBERS = itertools.count(1)
_LENGTHS = {"Briefly": 14, "With a reason": 32, "In your words": 36}
_WORDS = (
    "you said that late rounds cost you about nine hundred a month and that one account went away; what "
    "would it change for you and the people in the yard if the plan were ready before the first van leaves"
).split()


def _ten_minutes() -> Iterator[tuple[float, Speaker, str]]:
    """When, who, what: the demo call, its middle told again until the close just fits in."""
    turns = load_demo("en").turns
    opening, middle, close = turns[:2], turns[2:CLOSE], turns[CLOSE:]
    last = MINUTES * 60 - sum(turn.pause_ms for turn in close) / 1000
    at = 0.0
    for turn in itertools.chain(opening, itertools.cycle(middle)):
        if at + turn.pause_ms / 1000 > last:
            break
        at += turn.pause_ms / 1000
        yield at, turn.speaker, turn.text
    for turn in close:
        at += turn.pause_ms / 1000
        yield at, turn.speaker, turn.text


def _library() -> str:
    """The playbook as a script library, a line each."""
    lines = tomllib.loads((catalog() / "playbooks" / "b2b.en.toml").read_text("utf-8"))["line"]
    return "\n".join(
        f"- {line['id']} [{line['stage']}, {line.get('label', 'any')}{_condition(line)}]: {line['text']}"
        for line in lines
    )


def _condition(line: dict[str, Any]) -> str:
    when = line.get("when", {})
    return f", when {json.dumps(when)}" if when else ""


if __name__ == "__main__":
    main()
