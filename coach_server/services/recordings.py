"""Calls that were written down: our demo TOML, JSON, NDJSON, or plain text, turned into turns to play.

Pure: text in, turns out. Every error names the file and the line or entry, never what was said there.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from coach_server.domain.transcript import Speaker
from coach_server.errors import Invalid

TEXT_CHARS = 8000
MAX_TURNS = 20_000
MAX_PAUSE_MS = 600_000

# A recording without times is played at a talking pace: words at 150 a minute and a breath between turns.
_MS_PER_WORD = 400
_BREATH_MS = 700

_SPEAKERS: Mapping[str, Speaker] = {
    **dict.fromkeys(
        ("agent", "seller", "sales", "salesperson", "rep", "advisor", "verkoper", "adviseur", "סוכן", "מוכר"),
        Speaker.AGENT,
    ),
    **dict.fromkeys(
        ("customer", "caller", "client", "buyer", "prospect", "lead", "klant", "beller", "לקוח"),
        Speaker.CUSTOMER,
    ),
}
_KNOWN = "agent, seller, rep, verkoper or customer, caller, client, prospect, klant"
_LISTS = ("turn", "turns", "segments", "utterances", "transcript", "transcripts")
_TIMES = ("timestamp", "said_at", "saidAt", "start", "time", "at")

_CLOCK = re.compile(r"\d{1,2}(?::\d{2}){1,2}(?:[.,]\d{1,3})?")
# "Agent: hello", "[00:12] Customer: hello", "00:01:02 - Caller: hello"
_LINE = re.compile(
    rf"^\s*(?:[\[(]?(?P<time>{_CLOCK.pattern})[\])]?\s*[-–]?\s*)?"
    r"(?P<who>[^\W\d_]{2,20})(?:\s*\d{1,2})?\s*[:：]\s*(?P<text>.*)$"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing somebody said. `pause_ms`: from the previous turn being heard until this one is, speaking
    time included; for the first turn, from the start of the call."""

    speaker: Speaker
    text: str
    pause_ms: int
    confidence: float | None = None


def parse_recording(name: str, text: str) -> list[Turn]:
    """The turns of a recording. `name` tells the format by its ending (`.toml`, `.json`, `.ndjson`/`.jsonl`)
    and is used in errors; any other ending is plain text, or JSON where the content starts like it.

    A JSON file is a list of turns or an object holding one (`turns`, `segments`, `transcripts`, …). A turn
    has `speaker`, `text`, and either `pause_ms`/`pauseMs` or a time (`timestamp` in ms or seconds since the
    epoch, seconds since the start, or ISO 8601). Turns with `isFinal: false` are skipped.
    Raises Invalid naming the place.
    """
    body = text.removeprefix("\ufeff")
    match _format_of(name, body):
        case "toml":
            turns = _from_entries(name, _toml_entries(name, body))
        case "json":
            turns = _from_entries(name, _json_entries(name, body))
        case "ndjson":
            turns = _from_entries(name, _ndjson_entries(name, body))
        case _:
            turns = _from_lines(name, body)
    if not turns:
        raise Invalid(f"{name}: there is no turn in it")
    return turns


def talking_ms(text: str) -> int:
    """How long it takes to say `text` at an ordinary pace, with the breath before it."""
    return _BREATH_MS + _MS_PER_WORD * len(text.split())


def _format_of(name: str, body: str) -> str:
    ending = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if ending in ("toml", "json"):
        return ending
    if ending in ("ndjson", "jsonl"):
        return "ndjson"
    if ending == "txt":
        return "text"
    start = body.lstrip()[:1]
    if start == "[":
        # "[00:12] Agent: …" also starts with a bracket
        return "text" if _LINE.match(body.lstrip().splitlines()[0]) else "json"
    if start == "{":
        first = body.lstrip().splitlines()[0].rstrip()
        return "ndjson" if first.endswith("}") and '"speaker"' in first else "json"
    return "text"


def _toml_entries(name: str, body: str) -> Iterator[tuple[str, object]]:
    try:
        document = tomllib.loads(body)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{name}: not valid TOML: {_place(str(error))}") from None
    return _list_in(name, document)


def _json_entries(name: str, body: str) -> Iterator[tuple[str, object]]:
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise Invalid(f"{name} line {error.lineno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError):  # a number of thousands of digits; brackets thousands deep
        raise Invalid(f"{name}: the JSON holds a number too long or is nested too deep") from None
    return _list_in(name, document)


def _ndjson_entries(name: str, body: str) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(body.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{name} line {number}"
        try:
            yield place, json.loads(line)
        except json.JSONDecodeError as error:
            raise Invalid(f"{place}: not valid JSON ({error.msg})") from None
        except (ValueError, RecursionError):
            raise Invalid(f"{place}: the JSON holds a number too long or is nested too deep") from None


def _list_in(name: str, document: object) -> Iterator[tuple[str, object]]:
    key, found = "", document
    if isinstance(document, Mapping):
        key = next((k for k in _LISTS if isinstance(document.get(k), list)), "")
        found = document.get(key) if key else None
    if not isinstance(found, list):
        raise Invalid(f"{name}: expected a list of turns, or an object with one under {', '.join(_LISTS)}")
    for index, entry in enumerate(found, start=1):
        yield f"{name} {key or 'entry'}[{index}]", entry


def _from_entries(name: str, entries: Iterable[tuple[str, object]]) -> list[Turn]:
    turns: list[Turn] = []
    before: float | None = None
    for place, entry in entries:
        if not isinstance(entry, Mapping):
            raise Invalid(f"{place}: expected an object with speaker and text")
        if entry.get("isFinal") is False or entry.get("is_final") is False:
            continue
        speaker = _speaker(place, entry.get("speaker"))
        text = _text(place, entry.get("text"))
        at = _time(place, entry)
        pause = _pause(place, entry)
        if pause is None:
            pause = _since(before, at, text)
        before = at if at is not None else before
        turns.append(Turn(speaker, text, pause, _confidence(place, entry.get("confidence"))))
        _check_count(name, turns)
    return turns


def _speaker(place: str, value: object) -> Speaker:
    speaker = _SPEAKERS.get(value.strip().lower()) if isinstance(value, str) else None
    if speaker is None:
        raise Invalid(f"{place}: speaker must be one of {_KNOWN}", field="speaker")
    return speaker


def _text(place: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Invalid(f"{place}: text must be a sentence", field="text")
    if len(value) > TEXT_CHARS:
        raise Invalid(f"{place}: text is longer than {TEXT_CHARS} characters", field="text")
    return value.strip()


def _confidence(place: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Invalid(f"{place}: confidence must be a number from 0 to 1", field="confidence")
    return float(value)


def _pause(place: str, entry: Mapping[str, object]) -> int | None:
    for field in ("pause_ms", "pauseMs"):
        if (value := entry.get(field)) is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_PAUSE_MS:
            raise Invalid(f"{place}: {field} must be whole milliseconds, 0 to {MAX_PAUSE_MS}", field=field)
        return value
    return None


def _time(place: str, entry: Mapping[str, object]) -> float | None:
    """Seconds on whatever clock the recording uses; only differences matter."""
    for field in _TIMES:
        value = entry.get(field)
        if value is None:
            continue
        if isinstance(value, str):
            return _clock_time(value) if _CLOCK.fullmatch(value) else _iso(place, field, value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
            raise Invalid(f"{place}: {field} must be a time", field=field)
        # Milliseconds since the epoch are above 10^11, seconds since the epoch or the start far below.
        return value / 1000 if value > 1e11 else float(value)
    return None


def _iso(place: str, field: str, value: str) -> float:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise Invalid(f"{place}: {field} must be a time", field=field) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _since(before: float | None, at: float | None, text: str) -> int:
    """Milliseconds since the turn before by the recording's own times, at talking pace where it has none.
    Clocks that jump back count as no pause, and a long silence is cut to ten minutes."""
    if at is None or before is None:
        return talking_ms(text)
    return min(max(round((at - before) * 1000), 0), MAX_PAUSE_MS)


def _from_lines(name: str, body: str) -> list[Turn]:
    turns: list[Turn] = []
    before: float | None = None
    for number, line in enumerate(body.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{name} line {number}"
        match = _LINE.match(line)
        speaker = _SPEAKERS.get(match["who"].lower()) if match else None
        if match is None or speaker is None:
            raise Invalid(f'{place}: expected "Agent: …" or "Customer: …" (also Caller, Klant, Verkoper)')
        text = _text(place, match["text"])
        at = _clock_time(match["time"]) if match["time"] else None
        turns.append(Turn(speaker, text, _since(before, at, text)))
        before = at if at is not None else before
        _check_count(name, turns)
    return turns


def _clock_time(value: str) -> float:
    seconds = 0.0
    for part in value.replace(",", ".").split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _check_count(name: str, turns: Sequence[Turn]) -> None:
    if len(turns) > MAX_TURNS:
        raise Invalid(f"{name}: more than {MAX_TURNS} turns")


def _place(message: str) -> str:
    """The position out of tomllib's message; the rest of it may quote the file."""
    found = re.search(r"\(at .*\)$", message)
    return found[0] if found else "see its syntax"
