"""A call report as a page: HTML with everything escaped, the same as plain text, and a one-line subject.

Blocking (templates and words are files): run it in a thread.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from coach_server.services.report_input import CallMetadata, Entities, Option, ReportIn, ShownTip

MAX_SUBJECT_CHARS = 150
FALLBACK_LANGUAGE = "en"

_FOLDER = Path(__file__).parent / "templates"
_SPEAKERS = {"agent": "agent", "caller": "customer", "customer": "customer"}

Words = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    subject: str
    html: str
    text: str


@dataclass(frozen=True, slots=True)
class _Line:
    at: str
    speaker: str
    text: str


@dataclass(frozen=True, slots=True)
class _Tip:
    heading: str
    stage: str
    context: str
    at: str
    selected: Option | None


def render(report: ReportIn, *, language: str = FALLBACK_LANGUAGE, zone: tzinfo = UTC) -> Page:
    """Clock times are shown in `zone`."""
    words = _words(report.language or language)
    call = report.call_metadata
    subject = _subject(call, words, zone)
    values = {
        "words": words,
        "subject": subject,
        "summary": _summary(report, words, zone),
        "intelligence": report.intelligence,
        "entities": _entities(report.entities, words) if report.entities else [],
        "tips": [_tip(tip, call, zone) for tip in report.ai_tips],
        "transcript": [
            _Line(_at(line.timestamp, call, zone), _speaker(line.speaker, words), line.text)
            for line in report.transcripts
            if line.is_final and line.text.strip()
        ],
    }
    pages = _templates()
    html, text = (pages.get_template(name).render(values) for name in ("report.html", "report.txt"))
    return Page(subject, html, text)


@cache
def _templates() -> Environment:
    pages = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    pages.filters["share"] = _share
    return pages


@cache
def _words_of(language: str) -> Words:
    return tomllib.loads((_FOLDER / f"report.{language}.toml").read_text("utf-8"))


def _words(tag: str) -> Words:
    """A language we have no words for is answered in English."""
    language = tag.partition("-")[0].lower()
    return _words_of(language if language in ("en", "nl", "he") else FALLBACK_LANGUAGE)


def _subject(call: CallMetadata, words: Words, zone: tzinfo) -> str:
    parts = [words["title"]]
    if call.customer_name:
        parts.append(call.customer_name)
    if call.duration_ms is not None:
        parts.append(_duration(call.duration_ms, words))
    elif call.start_time is not None:
        parts.append(f"{_moment(call.start_time, zone):%Y-%m-%d}")
    # A customer's name may be long; what the subject says about the call comes last and must stay.
    *first, last = parts
    head = " - ".join(first)[: MAX_SUBJECT_CHARS - len(last) - 3]
    return " ".join((f"{head} - {last}" if head else last).split())


def _summary(report: ReportIn, words: Words, zone: tzinfo) -> list[tuple[str, str]]:
    call = report.call_metadata
    taken = sum(tip.selected is not None for tip in report.ai_tips)
    rows = [
        (words["customer"], call.customer_name),
        (words["phone"], call.customer_phone),
        (words["agent"], call.agent_email),
        (words["started"], _full(call.start_time, zone)),
        (words["ended"], _full(call.end_time, zone)),
        (words["duration"], None if call.duration_ms is None else _duration(call.duration_ms, words)),
        (words["segments"], str(sum(line.is_final for line in report.transcripts))),
        (words["tips_shown"], str(len(report.ai_tips))),
        (words["tips_taken"], str(taken)),
        (words["conversation"], call.conversation_id),
    ]
    return [(name, value) for name, value in rows if value]


def _entities(entities: Entities, words: Words) -> list[tuple[str, list[str]]]:
    contact = entities.contact_info
    rows = [
        (words["business_names"], entities.business_names),
        (words["people"], entities.people),
        (words["locations"], entities.locations),
        (words["dates"], entities.dates),
        (words["emails"], contact.emails if contact else []),
        (words["phone_numbers"], contact.phone_numbers if contact else []),
        (words["urls"], contact.urls if contact else []),
    ]
    return [(name, values) for name, values in rows if values]


def _tip(tip: ShownTip, call: CallMetadata, zone: tzinfo) -> _Tip:
    at = "" if tip.timestamp is None else _at(tip.timestamp, call, zone)
    return _Tip(tip.heading, tip.stage, tip.context, at, tip.selected)


def _speaker(speaker: str, words: Words) -> str:
    known = _SPEAKERS.get(speaker.lower())
    return words[known] if known else speaker


def _at(ms: int, call: CallMetadata, zone: tzinfo) -> str:
    """Minutes and seconds into the call, or the time of day where its start is not known."""
    if call.start_time is None or ms < call.start_time:
        return f"{_moment(ms, zone):%H:%M:%S}"
    minutes, seconds = divmod((ms - call.start_time) // 1000, 60)
    return f"{minutes:02}:{seconds:02}"


def _full(ms: int | None, zone: tzinfo) -> str | None:
    return None if ms is None else f"{_moment(ms, zone):%Y-%m-%d %H:%M %Z}"


def _moment(ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(ms / 1000, zone)


def _duration(ms: float, words: Words) -> str:
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, words["hours"]), (minutes, words["minutes"]), (seconds, words["seconds"])]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or f"0 {words['seconds']}"


def _share(confidence: float | None) -> str:
    return "" if confidence is None else f" ({confidence:.0%})"
