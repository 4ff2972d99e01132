"""`coach simulate`: plays a scripted or recorded call against a server, once or a thousand times.

Shows the tips of a single call as they come; tells at the end how fast acks and tips were, whether anything
that was acknowledged is not in the stored transcript, and what the calls cost. Exit code 1 when something
was lost or a call did not come through.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from coach_server.cli.player import Plan, Played, Player, Target, Watcher, nobody
from coach_server.clock import Clock, SystemClock
from coach_server.domain.transcript import Speaker
from coach_server.errors import CoachError, ConfigError, Invalid, Unavailable
from coach_server.services.demo import load_demo
from coach_server.services.recordings import Turn, parse_recording
from coach_server.settings import load_settings

MOST_CALLS = 1000
MOST_BYTES = 20_000_000
FETCH_S = 15.0
_WARMUP_MS, _INTERVAL_MS, _LEAST_INTERVAL_MS = 10_000, 30_000, 100


@dataclass(frozen=True, slots=True)
class Checked:
    """A played call beside what the server stored of it. `lost` are acknowledged and not stored."""

    played: Played
    lost: int
    stored: int | None
    problem: str | None = None

    @property
    def whole(self) -> bool:
        played = self.played
        return not (self.lost or played.unanswered or played.missing or played.failure or self.problem)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recording", nargs="?", help="TOML, JSON, NDJSON or 'Agent: …' text; left out: our demo call"
    )
    parser.add_argument("--url", default="http://localhost:8080", help="the server (default: %(default)s)")
    parser.add_argument("--key", help="API key (default: $COACH_API_KEY, else this machine's own settings)")
    parser.add_argument("--calls", type=_within(1, MOST_CALLS), default=1, metavar="N", help="how many calls")
    parser.add_argument(
        "--concurrency",
        type=_within(1, MOST_CALLS),
        default=100,
        metavar="N",
        help="at most this many at once",
    )
    parser.add_argument("--speed", type=_positive, default=1.0, metavar="X", help="times as fast as spoken")
    parser.add_argument("--mode", choices=("auto", "event-driven"), default="auto")
    parser.add_argument("--language", default="en", help="language of the call (default: %(default)s)")
    parser.add_argument(
        "--warmup-ms",
        type=_within(0, 3_600_000),
        metavar="MS",
        help="before the first tip (default: 10 s/speed)",
    )
    parser.add_argument(
        "--interval-ms",
        type=_within(_LEAST_INTERVAL_MS, 3_600_000),
        metavar="MS",
        help="between tips (default: 30 s/speed)",
    )
    parser.add_argument(
        "--drop",
        nargs="?",
        type=_chance,
        const=0.1,
        default=0.0,
        metavar="CHANCE",
        help="cut the network after a turn with this chance (0.1 when only --drop is given)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object at the end, nothing else")


def run(args: argparse.Namespace) -> int:
    plan = _plan(args)
    target = Target(args.url.rstrip("/"), args.key or _key())
    checked = asyncio.run(
        simulate(
            target,
            plan,
            SystemClock(),
            calls=args.calls,
            concurrency=args.concurrency,
            watch=_show if args.calls == 1 and not args.json else nobody,
        )
    )
    report = summary(checked)
    print(json.dumps(report, ensure_ascii=False) if args.json else "\n".join(_lines(report)))
    return 0 if all(call.whole for call in checked) else 1


async def simulate(
    target: Target,
    plan: Plan,
    clock: Clock,
    *,
    calls: int = 1,
    concurrency: int = 100,
    watch: Watcher = nobody,
) -> list[Checked]:
    """Play the plan `calls` times, at most `concurrency` at once, and check each against what was stored.
    Raises Unavailable when not one call could connect."""
    room = asyncio.Semaphore(concurrency)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FETCH_S)) as web:

        async def one(number: int) -> Checked:
            async with room:
                own = replace(plan, seed=number)
                try:
                    played = await Player(target, own, clock, watch).play()
                except Unavailable as error:
                    return Checked(Played(failure=error.message), lost=0, stored=None)
                return await _check(web, target, played)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number), name=f"call {number}") for number in range(calls)]
    checked = [task.result() for task in tasks]
    if all(call.played.failure and not call.played.sent for call in checked):
        raise Unavailable(str(checked[0].played.failure))
    return checked


async def _check(web: aiohttp.ClientSession, target: Target, played: Played) -> Checked:
    if not played.conversation_id:
        return Checked(played, lost=0, stored=None)
    try:
        stored = await _stored(web, target, played.conversation_id)
    except (CoachError, aiohttp.ClientError, TimeoutError) as error:
        reason = error.message if isinstance(error, CoachError) else "no answer"
        return Checked(
            played, lost=0, stored=None, problem=f"the stored transcript could not be read: {reason}"
        )
    problem = "a segment was stored twice" if len(set(stored)) < len(stored) else None
    return Checked(played, lost=len(played.acked.keys() - set(stored)), stored=len(stored), problem=problem)


async def _stored(web: aiohttp.ClientSession, target: Target, conversation_id: str) -> list[str]:
    url = f"{target.url}/api/conversations/{conversation_id}/transcript"
    async with web.get(url, headers={"x-api-key": target.key}) as answer:
        if answer.status != 200:
            raise Unavailable(f"HTTP {answer.status}")
        body = await answer.json()
    if not isinstance(body, Mapping) or not isinstance(body.get("segments"), list):
        raise Unavailable("an answer of another form")
    return [str(segment.get("segmentId")) for segment in body["segments"]]


def summary(checked: Sequence[Checked]) -> dict[str, Any]:
    """The figures of all calls together; times in milliseconds, money in US dollars."""
    plays = [call.played for call in checked]
    tips = [len(played.tips) for played in plays]
    return {
        "calls": len(checked),
        "completed": sum(bool(played.ended) for played in plays),
        "segments": {
            "sent": sum(played.sent for played in plays),
            "acked": sum(len(played.acked) for played in plays),
            "refused": sum(len(played.refused) for played in plays),
            "retried": sum(played.retried for played in plays),
            "unanswered": sum(played.unanswered for played in plays),
            "stored": sum(call.stored or 0 for call in checked),
            "lost": sum(call.lost for call in checked),
        },
        "events": {
            "missing": sum(played.missing for played in plays),
            "doubled": sum(played.doubled for played in plays),
        },
        "network": {
            "cuts": sum(played.cuts for played in plays),
            "resumed": sum(played.resumed for played in plays),
        },
        "ackMs": percentiles(time * 1000 for played in plays for time in played.acked.values()),
        "tipMs": percentiles(
            tip["latencyMs"]
            for played in plays
            for tip in played.tips
            if isinstance(tip.get("latencyMs"), int | float)
        ),
        "tips": {
            "total": sum(tips),
            "perCall": round(sum(tips) / len(tips), 2) if tips else 0,
            "sources": _counted(tip.get("source", "unknown") for played in plays for tip in played.tips),
        },
        "usage": _usage(plays),
        "problems": _counted(_problems(checked)),
    }


def percentiles(values: Iterable[float]) -> dict[str, float] | None:
    """p50, p95 and p99 by nearest rank, and the highest; None without values."""
    ordered = sorted(values)
    if not ordered:
        return None

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1)

    return {"p50": at(0.50), "p95": at(0.95), "p99": at(0.99), "max": round(ordered[-1], 1)}


def _usage(plays: Sequence[Played]) -> dict[str, Any]:
    told = [played.ended.get("usage") or {} for played in plays]
    sums = {
        key: sum(usage.get(key, 0) for usage in told)
        for key in ("modelCalls", "inputTokens", "cachedTokens", "outputTokens")
    }
    return {**sums, "costUsd": round(sum(usage.get("costMicroUsd", 0) for usage in told) / 1_000_000, 6)}


def _problems(checked: Sequence[Checked]) -> Iterable[str]:
    for call in checked:
        yield from call.played.errors
        yield from call.played.refused
        if call.played.failure:
            yield call.played.failure
        if call.problem:
            yield call.problem


def _counted(words: Iterable[object]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        counts[str(word)] = counts.get(str(word), 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _lines(report: Mapping[str, Any]) -> Iterable[str]:
    segments, events, usage = report["segments"], report["events"], report["usage"]
    yield ""
    yield f"calls      {report['completed']} of {report['calls']} came to their end"
    yield (
        f"segments   {segments['sent']} sent, {segments['acked']} acknowledged, {segments['stored']} stored, "
        f"{segments['lost']} lost, {segments['unanswered']} unanswered, {segments['refused']} refused, "
        f"{segments['retried']} retried"
    )
    if report["network"]["cuts"]:
        yield (
            f"network    {report['network']['cuts']} cuts, {report['network']['resumed']} resumed, "
            f"{events['missing']} events missing, {events['doubled']} doubled"
        )
    yield f"acks       {_spread(report['ackMs'])}"
    yield f"tips       {_spread(report['tipMs'])}"
    sources = ", ".join(f"{count} {name}" for name, count in report["tips"]["sources"].items())
    yield f"tips/call  {report['tips']['perCall']}" + (f" ({sources})" if sources else "")
    yield (
        f"model      {usage['modelCalls']} calls, {usage['inputTokens']} tokens in "
        f"({usage['cachedTokens']} cached), {usage['outputTokens']} out, ${usage['costUsd']:.4f}"
    )
    for problem, count in report["problems"].items():
        yield f"problem    {problem}" + (f" (x{count})" if count > 1 else "")


def _spread(figures: Mapping[str, float] | None) -> str:
    if figures is None:
        return "none"
    return " ".join(f"{name} {value:g} ms" for name, value in figures.items())


def _show(what: str, value: Any) -> None:
    """One call, as it goes."""
    match what:
        case "turn":
            print(
                f"  {'agent   ' if value.speaker is Speaker.AGENT else 'customer'}  {value.text}", flush=True
            )
        case "tip":
            print(f"> {value.get('heading', '')}  [{value.get('stage', '')}, {value.get('source', '?')}, "
                  f"{value.get('latencyMs', '?')} ms]")  # fmt: skip
            for number, option in enumerate(value.get("options") or (), start=1):
                print(f"    {number}. {option.get('label', '')}: {option.get('script', '')}")
        case "cut":
            print("! the network is cut")
        case "resumed":
            print(f"! resumed, {value.get('missed', 0)} events replayed")
        case "error":
            print(f"! {value.get('code', '')}: {value.get('message', '')}")


def _plan(args: argparse.Namespace) -> Plan:
    turns, metadata = _call(args.recording, args.language)
    return Plan(
        turns=turns,
        mode=args.mode,
        language=args.language,
        metadata=metadata,
        speed=args.speed,
        warmup_ms=round(_WARMUP_MS / args.speed) if args.warmup_ms is None else args.warmup_ms,
        interval_ms=args.interval_ms
        if args.interval_ms is not None
        else max(_LEAST_INTERVAL_MS, round(_INTERVAL_MS / args.speed)),
        drop=args.drop,
    )


def _call(recording: str | None, language: str) -> tuple[Sequence[Turn], Mapping[str, str]]:
    if recording is None:
        demo = load_demo(language)
        return demo.turns, demo.metadata
    path = Path(recording)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Invalid(f"{path.name}: larger than {MOST_BYTES // 1_000_000} MB")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"{recording}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid(f"{path.name}: not UTF-8 text") from None
    return parse_recording(path.name, text), {}


def _key() -> str:
    """From the environment, or the one that a server on this machine uses."""
    if key := os.environ.get("COACH_API_KEY"):
        return key
    settings = load_settings()
    if settings.api_keys:
        return settings.api_keys[0][1]
    generated = settings.data_dir / "api-key"
    if not generated.is_file():
        raise ConfigError("no API key: give --key, or set COACH_API_KEY")
    return generated.read_text(encoding="ascii").strip()


def _within(least: int, most: int) -> Any:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}")
        return int(text)

    return number


def _positive(text: str) -> float:
    value = _number(text)
    if not 0.1 <= value <= 10_000:
        raise argparse.ArgumentTypeError("must be from 0.1 to 10000")
    return value


def _chance(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a number") from None
