"""The report card: in every language, whatever anybody said, in a bounded number of pages and time."""

from __future__ import annotations

import asyncio
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typst
from loguru import logger

from coach_server.domain.simulation.talk import Direction, EventType, Mood, Role, SessionEvent, Utterance
from coach_server.errors import CoachError
from coach_server.services.simulation import report
from coach_server.services.simulation.datafiles import SessionRecord
from coach_server.services.simulation.report import card_data, fit, render, report_card
from tests.services.simulated import catalog, row, session

KAREL = catalog().persona("fmc_smoker")
SCENARIO = catalog().scenario("fmc_resistant")
MOST_PAGES = 5
HOSTILE = {
    "typst code": '#panic("out") #read("/etc/passwd") #import "x.typ": * #sys.exit() $ x^2 $ *b* `r` <l> @l',
    "end of string": '"); #panic("out") //',
    "backslashes": "\\ \\# \\u{0} \\\\ //comment /* open",
    "long": "word " * 2_000,
    "long word": "x" * 10_000,
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈🤖 " * 40,
    "controls": "".join(map(chr, range(32))) + "\x7f\x85\u2028\u2029",
    "nulls": "a\x00b\x00c",
    "right to left": "\u202e\u2067abc\u2069 שלום \u202dabc \u200fx\u200e",
    "piled marks": "Z" + "\u0351\u036b\u0343" * 400,
    "half a pair": "a\ud83d b\udc00",
    "other scripts": "你好 العربية हिन्दी ไทย Ελληνικά Кирилл",
    "html": "<script>alert(1)</script>&amp;",
    "nothing": "",
    "blanks": " \t\n ",
}


def pages(pdf: bytes) -> int:
    streams = b"".join(_inflated(pdf))
    return max(len(re.findall(rb"/Type\s*/Page\b", pdf + streams)), 1)


def _inflated(pdf: bytes) -> list[bytes]:
    found = []
    for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            found.append(zlib.decompress(part))
        except zlib.error:
            continue
    return found


def hostile(text: str, language: str = "en") -> SessionRecord:
    """A session in which everything that anybody can choose is that text."""
    record = session(language)
    score: dict[str, Any] = dict(record.score or {})
    remark = {"type": "good", "id": "model", "text": text, "quote": text, "speaker": "TRAINEE", "time": 3.0}
    score |= {
        "summary": text,
        "remarks": [remark, {**remark, "type": "warning"}] * 6,
        "steps": [{"id": "x", "name": text, "state": "failed", "quote": text, "time": 3.0}] * 40,
    }
    return SessionRecord(
        row=row(language=language, trainee_id=text, persona_name=text, id=text),
        utterances=tuple(Utterance(n, Role.TRAINEE, text, 2.0 * n, 2.0 * n + 1) for n in range(200)),
        events=tuple(SessionEvent(float(n), EventType.VR_INTERACTION, {text: text}) for n in range(200)),
        moods=record.moods,
        score=score,
    )


@pytest.mark.parametrize("language", ["en", "cs", "he"])
async def test_a_card_is_made_in_the_sessions_language(language: str) -> None:
    pdf = await report_card(session(language), KAREL, SCENARIO)

    assert pdf.startswith(b"%PDF-") and pages(pdf) <= 2


async def test_a_dutch_card_is_made() -> None:
    record = session("en")
    pdf = await report_card(replace(record, row=row(language="nl")), KAREL, SCENARIO)

    assert pdf.startswith(b"%PDF-")


@pytest.mark.parametrize("language", ["en", "he"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_no_text_breaks_the_card_or_makes_it_long(text: str, language: str) -> None:
    pdf = await report_card(hostile(text, language), KAREL, SCENARIO)

    assert pdf.startswith(b"%PDF-")
    assert pages(pdf) <= MOST_PAGES


def test_what_was_said_is_never_source() -> None:
    assert b"$" not in report._source().replace(b"$ ", b"")
    data = card_data(hostile(HOSTILE["typst code"]), KAREL, SCENARIO)
    query = b"#let data = json(bytes(sys.inputs.data))\n#metadata(data.summary) <said>"
    import json

    found = typst.query(query, "<said>", field="value", one=True, sys_inputs={"data": json.dumps(data)})
    assert json.loads(found).startswith('#panic("out")')


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_text_is_made_fit_to_set(text: str) -> None:
    made = fit(text, 100)

    assert len(made.replace("\u200b", "")) <= 100
    assert not re.search("[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", made)
    assert all(len(word) <= 25 for word in re.split("[\\s\u200b]", made))


async def test_a_session_without_score_and_moods_has_a_card() -> None:
    empty = SessionRecord(
        row(started_at=None, ended_at=None, outcome=None, duration_ms=None), (), (), (), None
    )
    pdf = await report_card(empty, KAREL, SCENARIO)

    assert pages(pdf) == 1


async def test_a_talk_too_short_to_score_has_a_card() -> None:
    record = session("en")
    score = dict(record.score or {}) | {
        "overall": None,
        "categories": dict.fromkeys((record.score or {})["categories"]),
        "insufficient": True,
        "remarks": [],
    }
    pdf = await report_card(replace(record, score=score), KAREL, SCENARIO)

    assert pages(pdf) <= 2


def test_odd_figures_stay_on_the_chart() -> None:
    record = session("en")
    odd = (Mood(-5.0, float("nan"), Direction.STABLE), Mood(9e9, 99.0, Direction.RISING))
    data = card_data(replace(record, moods=odd), KAREL, SCENARIO)

    chart = data["attitude"]
    assert all(0 <= time <= chart["seconds"] and 0 <= value <= 10 for time, value in chart["points"])
    assert render(data).startswith(b"%PDF-")


def test_of_a_long_talk_the_beginning_the_end_and_what_remarks_rest_on_are_shown() -> None:
    record = session("en")
    lines = tuple(Utterance(n, Role.TRAINEE, f"line {n}", 2.0 * n, 2.0 * n + 1) for n in range(300))
    score = dict(record.score or {}) | {"remarks": [{"type": "good", "text": "x", "time": 300.0}]}
    data = card_data(replace(record, utterances=lines, score=score), KAREL, SCENARIO)

    shown = [said["text"] for said in data["transcript"]]
    assert len(shown) == report.MOST_SAID
    assert {"line 0", "line 149", "line 150", "line 299"} <= set(shown)
    assert sum(said["gap"] for said in data["transcript"]) == 300 - report.MOST_SAID


def test_violations_and_checks_are_marked_before_things_that_were_picked_up() -> None:
    picked = tuple(SessionEvent(float(n), EventType.VR_INTERACTION, {}) for n in range(50))
    error = SessionEvent(60.0, EventType.ERROR, {"errorType": "forbidden_word", "word": "free"})
    data = card_data(replace(session("en"), events=(*picked, error)), KAREL, SCENARIO)

    marks = data["attitude"]["events"]
    assert len(marks) == report.MOST_EVENTS
    assert marks[-1]["name"] == "Violation" and [mark["number"] for mark in marks] == list(range(1, 9))


async def test_twenty_cards_at_once_are_made() -> None:
    record = session("he")
    made = await asyncio.gather(*(report_card(record, KAREL, SCENARIO) for _ in range(20)))

    assert all(pdf.startswith(b"%PDF-") for pdf in made)


def test_a_fault_of_the_typesetter_says_nothing_of_what_was_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "_source", lambda: b"#panic(sys.inputs.data)")
    lines: list[str] = []
    sink = logger.add(lines.append, level="TRACE", format="{message} {extra} {exception}")
    try:
        with pytest.raises(CoachError) as caught:
            render(card_data(session("en"), KAREL, SCENARIO))
    finally:
        logger.remove(sink)
    assert "Marlboro" not in caught.value.message
    assert lines and not any("Marlboro" in line for line in lines)


def test_hebrew_letters_are_set_without_any_font_of_the_machine() -> None:
    """The typesetter's own fonts have them, so a machine without fonts shows Hebrew as well."""
    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=True)
    source = '#set text(font: "Libertinus Serif", fallback: false)\nשלום, příliš žluťoučký kůň'.encode()
    _, warnings = typst.compile_with_warnings(source, format="pdf", font_paths=fonts)

    assert "Libertinus Serif" in fonts.families() and warnings == []
