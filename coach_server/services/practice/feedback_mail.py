"""A feedback document as an e-mail: HTML with everything escaped, the same as plain text, a one-line subject.

Nothing of the talk is in it but the quotes that stand in the document. Blocking (templates and words are
files): make the message in a thread, send it from a job.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from coach_server.domain.language import base
from coach_server.domain.method.methodology import Methodology, say, sort_key
from coach_server.domain.practice.scorecard import Kind
from coach_server.domain.wording import one_line
from coach_server.providers.mail import MailMessage

MAIL_FEEDBACK = "mail_feedback"
"""The kind of the job that sends it."""
LANGUAGES = ("en", "nl", "he")
FALLBACK_LANGUAGE = "en"
MOST_MISSED = 3

_FOLDER = Path(__file__).parent.parent / "templates"

Words = Mapping[str, Any]
Document = Mapping[str, Any]
Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Moment:
    name: str
    why: str
    customer: str
    better: str


@dataclass(frozen=True, slots=True)
class _Page:
    """What the templates show; an empty part is left out. `delta`: with its sign, empty without one."""

    overall: int | None
    delta: str
    provisional: bool
    frame: Sequence[Row]
    criteria: Sequence[Row]
    highlights: Sequence[tuple[str, Sequence[str]]]
    advice: str
    next: str
    missed: Sequence[_Moment]
    techniques: Sequence[Row]


def feedback_message(
    document: Document,
    method: Methodology,
    *,
    sender: str,
    to: str,
    language: str = FALLBACK_LANGUAGE,
    zone: tzinfo = UTC,
) -> MailMessage:
    """`document`: as `services/practice/feedback.py` makes it, of a roleplay or a call. `language`: the
    reader's; one without words of ours is answered in English. Moments are shown in `zone`.
    Raises Invalid for a sender or recipient that is no address."""
    code = base(language) if base(language) in LANGUAGES else FALLBACK_LANGUAGE
    words = _words_of(code)
    page = _page(document, method, words, code, zone)
    title = words["title_call" if "conversationId" in document else "title_roleplay"]
    subject = title if page.overall is None else f"{title}: {page.overall}/100"
    values = {"words": words, "title": title, "subject": subject, "page": page}
    pages = _templates()
    html, text = (pages.get_template(name).render(values) for name in ("feedback.html", "feedback.txt"))
    about = document.get("conversationId") or document.get("sessionId")
    return MailMessage(sender, (to,), subject, text, html, conversation_id=about)


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )


@cache
def _words_of(language: str) -> Words:
    return tomllib.loads((_FOLDER / f"feedback.{language}.toml").read_text("utf-8"))


def _page(document: Document, method: Methodology, words: Words, language: str, zone: tzinfo) -> _Page:
    suggested = document["nextStepSuggestion"]
    return _Page(
        overall=document["overallScore"],
        delta=f"{document['delta']:+d}" if document["delta"] is not None else "",
        provisional=document["provisional"],
        frame=_frame(document, words, zone),
        criteria=_criteria(document, words),
        highlights=_highlights(document, words),
        advice=one_line(document["advice"]),
        next=_name(suggested, method, language) if suggested else "",
        missed=[_moment(missed) for missed in document["missedMoments"][:MOST_MISSED]],
        techniques=[
            (_name(technique, method, language), f"{score}/100")
            for technique, score in sorted(document["techniqueScores"].items(), key=lambda s: sort_key(s[0]))
        ],
    )


def _frame(document: Document, words: Words, zone: tzinfo) -> list[Row]:
    rows = [(words["duration"], document["sessionDuration"])]
    if document["completedAt"]:
        at = datetime.fromisoformat(document["completedAt"]).astimezone(zone)
        rows.append((words["completed"], f"{at:%Y-%m-%d %H:%M %Z}"))
    return rows


def _criteria(document: Document, words: Words) -> list[Row]:
    """A criterion that the talk gave no occasion for says so instead of showing a number."""
    if document["overallScore"] is None:
        return []
    absent = document["notApplicable"]
    return [
        (words["sub_scores"][name], words["not_applicable"] if name in absent else f"{score}/100")
        for name, score in document["subScores"].items()
    ]


def _highlights(document: Document, words: Words) -> list[tuple[str, list[str]]]:
    by_kind = [
        (words[kind.value], [one_line(h["text"]) for h in document["highlights"] if h["type"] == kind.value])
        for kind in Kind
    ]
    return [(heading, texts) for heading, texts in by_kind if texts]


def _moment(missed: Mapping[str, Any]) -> _Moment:
    customer = missed["customer"]
    quote = one_line(customer["quote"]) if customer and customer["quote"] else ""
    return _Moment(one_line(missed["name"]), one_line(missed["why"]), quote, one_line(missed["better"]))


def _name(technique_id: str, method: Methodology, language: str) -> str:
    technique = method.find(technique_id)
    return f"{technique_id} {say(technique.name, language)}" if technique else technique_id
