"""A session's report card as a PDF. What anybody said goes to the typesetter as data and never as source,
cleaned and bounded first, so that no text can break the card or make it long.

`templates/report_card.typ` says how it looks. The fonts that come with the typesetter have Latin, Czech and
Hebrew letters; the machine's own are asked for the rest.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

import typst
from loguru import logger

from coach_server.domain.method.methodology import say
from coach_server.domain.simulation.attitude import HIGHEST, clamp
from coach_server.domain.simulation.persona import SimPersona, SimScenario
from coach_server.domain.simulation.scorecard import Category
from coach_server.domain.simulation.talk import EventType, Role, SessionEvent, Utterance
from coach_server.domain.wording import clip, one_line
from coach_server.errors import CoachError
from coach_server.services.simulation.datafiles import SessionRecord
from coach_server.services.simulation.report_words import (
    MARKED_EVENTS,
    NO_OUTCOME,
    ReportWords,
    report_words,
)

NAME_CHARS = 60
TEXT_CHARS = 420
QUOTE_CHARS = 110
SAID_CHARS = 260
MOST_REMARKS = 6
MOST_STEPS = 14
MOST_SAID = 24
OPENING, CLOSING = 4, 6
MOST_POINTS = 200
MOST_EVENTS = 8
RIGHT_TO_LEFT = ("he", "ar")
_TEMPLATE = Path(__file__).parent.parent / "templates" / "report_card.typ"
# A word without an end would run out of the page: it may be broken here.
_LONG = re.compile(r"[^\s\u200b]{24}(?=\S)")
_ZERO_WIDTH_SPACE = "\u200b"
# More marks on a letter than any language has would climb over the lines above.
_MARK = r"[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u1ab0-\u1aff\u20d0-\u20ff\ufe20-\ufe2f]"
_PILE = re.compile(f"({_MARK}{{4}}){_MARK}+")
_OUTCOME_TONES = {"converted": "good", "rejected": "middling", "walked_away": "bad", "compliance_fail": "bad"}

Told = dict[str, Any]


async def report_card(
    record: SessionRecord, persona: SimPersona, scenario: SimScenario, *, zone: tzinfo = UTC
) -> bytes:
    """The PDF, in the session's language. Typeset in a thread, which holds up nobody else: the typesetter
    works outside the interpreter's lock. Raises CoachError when it cannot be made."""
    return await asyncio.to_thread(_made, record, persona, scenario, zone)


def _made(record: SessionRecord, persona: SimPersona, scenario: SimScenario, zone: tzinfo) -> bytes:
    return render(card_data(record, persona, scenario, zone))


def render(card: Mapping[str, Any]) -> bytes:
    """Blocks. Raises CoachError."""
    data = json.dumps(card, ensure_ascii=False).encode("utf-8", "replace").decode()
    try:
        pdf = typst.compile(_source(), format="pdf", font_paths=_fonts(), sys_inputs={"data": data})
    except (typst.TypstError, RuntimeError) as error:
        # Its message may quote what was said.
        logger.bind(fault=type(error).__name__, characters=len(data)).error("A report card was not made")
        raise CoachError("The report card could not be made.") from None
    if not isinstance(pdf, bytes):
        raise CoachError("The report card could not be made.")
    return pdf


def card_data(record: SessionRecord, persona: SimPersona, scenario: SimScenario, zone: tzinfo = UTC) -> Told:
    """What the template is given: clean texts of bounded length, figures, and which colour they have."""
    row, language = record.row, record.row.language
    words = report_words(language)
    score: Mapping[str, Any] = record.score or {}
    overall = score.get("overall")
    outcome = row.outcome or NO_OUTCOME
    return {
        "language": words.language,
        "rtl": words.language in RIGHT_TO_LEFT,
        "label": dict(words.plain["label"]),
        "title": f"{words.plain['label']['title']} {fit(row.id, NAME_CHARS)}",
        "session": fit(row.id, NAME_CHARS),
        "persona": fit(persona.names.get(words.language, row.persona_name), NAME_CHARS),
        "head": _head(record, scenario, words, zone),
        "outcome": words.plain["outcome"].get(outcome, outcome),
        "outcome_tone": _OUTCOME_TONES.get(outcome, "neutral"),
        "score": overall,
        "score_tone": tone_of(overall),
        "summary": fit(str(score.get("summary") or ""), TEXT_CHARS),
        "provisional": bool(score.get("provisional")),
        "categories": _categories(score, words),
        "compliance": _compliance(score),
        "attitude": _attitude(record, persona, words),
        "highlights": _remarks(score, "good"),
        "improvements": _remarks(score, "warning"),
        "steps": _steps(score, words),
        "transcript": _transcript(record, score, words),
    }


def fit(text: str, limit: int) -> str:
    """On one line, at most `limit` characters, breakable, nothing that changes the direction or piles up."""
    clean = _PILE.sub(r"\1", clip(one_line(text), limit))
    return _LONG.sub(lambda found: found[0] + _ZERO_WIDTH_SPACE, clean)


def tone_of(score: int | None) -> str:
    if score is None:
        return "neutral"
    if score >= 70:
        return "good"
    return "middling" if score >= 45 else "bad"


@cache
def _source() -> bytes:
    return _TEMPLATE.read_bytes()


@cache
def _fonts() -> typst.Fonts:
    """Found once: looking through the machine's fonts takes longer than a card."""
    return typst.Fonts(include_system_fonts=True, include_embedded_fonts=True)


def _head(record: SessionRecord, scenario: SimScenario, words: ReportWords, zone: tzinfo) -> list[list[Any]]:
    """Rows of a label, a text, and whether the text is a figure that is read from the left."""
    row, label = record.row, words.plain["label"]
    began = row.started_at if row.started_at is not None else row.created_at
    minutes, seconds = divmod((row.duration_ms or 0) // 1000, 60)
    title = say(scenario.title, row.language)
    return [
        [label["trainee"], fit(row.trainee_id, NAME_CHARS), False],
        [label["scenario"], fit(title, TEXT_CHARS // 3), False],
        [label["date"], f"{datetime.fromtimestamp(began, zone):%Y-%m-%d %H:%M %Z}", True],
        [label["duration"], f"{minutes}:{seconds:02}", True],
    ]


def _categories(score: Mapping[str, Any], words: ReportWords) -> list[Told]:
    given = score.get("categories") or {}
    return [
        {
            "name": words.plain["category"][category.value],
            "score": given.get(category.value),
            "tone": tone_of(given.get(category.value)),
        }
        for category in Category
    ]


def _compliance(score: Mapping[str, Any]) -> Told | None:
    found = (score.get("complianceDetails") or {}).get("score")
    return None if found is None or score.get("insufficient") else {"score": found, "tone": tone_of(found)}


def _attitude(record: SessionRecord, persona: SimPersona, words: ReportWords) -> Told:
    ends = [mood.time for mood in record.moods] + [said.end for said in record.utterances]
    seconds = max([1.0, (record.row.duration_ms or 0) / 1000, *ends])
    points = [(max(0.0, mood.time), clamp(mood.value, HIGHEST / 2)) for mood in record.moods]
    if not points or points[0][0] > 0:
        points.insert(0, (0.0, clamp(persona.initial_attitude, HIGHEST / 2)))
    every = -(-len(points) // MOST_POINTS)
    return {
        "seconds": seconds,
        "end": _clock(seconds),
        "points": points[::every],
        "events": _events(record.events, seconds, words),
    }


def _events(events: Sequence[SessionEvent], seconds: float, words: ReportWords) -> list[Told]:
    """Those that say most, when there are too many: violations and checks before things that were picked
    up. In the order of time."""
    marked = [event for event in events if event.type in MARKED_EVENTS and 0 <= event.time <= seconds]
    weighty = sorted(marked, key=lambda event: _EVENT_ORDER.index(event.type))[:MOST_EVENTS]
    ordered = sorted(weighty, key=lambda event: event.time)
    return [
        {
            "number": number,
            "time": event.time,
            "at": _clock(event.time),
            "tone": _event_tone(event),
            "name": words.plain["event"][event.type.value],
        }
        for number, event in enumerate(ordered, 1)
    ]


_EVENT_ORDER = (EventType.ERROR, EventType.DOB_CHECK, EventType.TABLET_CHOICE, EventType.VR_INTERACTION)


def _event_tone(event: SessionEvent) -> str:
    failed = isinstance(event.data, Mapping) and event.data.get("correct") is False
    if event.type is EventType.ERROR or failed:
        return "bad"
    return "good" if event.type is EventType.DOB_CHECK else "neutral"


def _remarks(score: Mapping[str, Any], kind: str) -> list[Told]:
    found = [remark for remark in score.get("remarks") or () if remark.get("type") == kind]
    return [
        {
            "text": fit(str(remark.get("text") or ""), TEXT_CHARS),
            "at": "" if remark.get("time") is None else _clock(remark["time"]),
        }
        for remark in found[:MOST_REMARKS]
    ]


def _steps(score: Mapping[str, Any], words: ReportWords) -> list[Told]:
    return [
        {
            "name": fit(str(step.get("name") or ""), NAME_CHARS),
            "state": step.get("state"),
            "word": words.plain["state"].get(str(step.get("state")), ""),
            "quote": fit(str(step.get("quote") or ""), QUOTE_CHARS),
        }
        for step in (score.get("steps") or ())[:MOST_STEPS]
    ]


def _transcript(record: SessionRecord, score: Mapping[str, Any], words: ReportWords) -> list[Told]:
    """`gap`: how many were left out before it."""
    label, last = words.plain["label"], -1
    told: list[Told] = []
    for place in _chosen(record.utterances, score):
        said = record.utterances[place]
        mine = said.role is Role.TRAINEE
        told.append(
            {
                "who": label["speaker"] if mine else label["avatar"],
                "mine": mine,
                "at": _clock(said.start),
                "text": fit(said.text, SAID_CHARS),
                "gap": place - last - 1,
            }
        )
        last = place
    return told


def _chosen(said: Sequence[Utterance], score: Mapping[str, Any]) -> list[int]:
    """The whole of a short talk; of a long one its beginning, its end, and what the remarks rest on with what
    came just before."""
    if len(said) <= MOST_SAID:
        return list(range(len(said)))
    times = {remark.get("time") for remark in score.get("remarks") or ()}
    telling = [place for place, one in enumerate(said) if one.start in times]
    wanted = [*range(OPENING), *range(len(said) - CLOSING, len(said))]
    wanted += [near for place in telling for near in (place, place - 1) if near >= 0]
    wanted += range(OPENING, len(said))
    return sorted(list(dict.fromkeys(wanted))[:MOST_SAID])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    return f"{minutes}:{rest:02}"
