"""The call report: what is in it, what can never get into it, and who may get it."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from datetime import timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from pydantic import ValidationError

from coach_server.errors import ConfigError, Forbidden, ProviderError, RateLimited
from coach_server.providers.mail import MailMessage
from coach_server.services import report_page
from coach_server.services.report_input import ReportIn
from coach_server.services.reports import MAX_COUNTED, Reports
from coach_server.testing import ManualClock

START = 1_763_713_800_000  # 2025-11-21 08:30:00 UTC
SENDER = "Coach <coach@example.com>"

REPORT: dict[str, Any] = {
    "callMetadata": {
        "conversationId": "3f2a7c1e-0d7e-4c2b-9b1a-2f6f0f8a9c11",
        "agentEmail": "agent@example.com",
        "ccEmails": ["lead@example.org"],
        "startTime": START,
        "endTime": START + 750_000,
        "duration": 750_000,
        "customerPhone": "+31 20 123 4567",
        "customerName": "Zoë de Vries",
    },
    "transcripts": [
        {"timestamp": START + 1_000, "speaker": "agent", "text": "Goedemorgen!", "isFinal": True},
        {"timestamp": START + 2_000, "speaker": "caller", "text": "Goede", "isFinal": False},
        {
            "timestamp": START + 3_000,
            "speaker": "caller",
            "text": "Goedemorgen, wat kost het?",
            "confidence": 0.97,
            "isFinal": True,
        },
    ],
    "aiTips": [
        {
            "recommendationId": "r1",
            "heading": "Prijs",
            "stage": "OBJECTION_HANDLING",
            "context": "Klant vraagt naar de prijs",
            "options": [
                {"label": "Minimal", "script": "Dat hangt af van het aantal."},
                {"label": "Explanative", "script": "Zodra ik uw aantal weet, reken ik het uit."},
                {"label": "Contextual", "script": "U vraagt naar de prijs: voor hoeveel mensen?"},
            ],
            "selectedOption": 2,
            "timestamp": START + 4_000,
        },
        {"heading": "Stilte", "stage": "DISCOVERY", "context": "", "options": [], "timestamp": START},
    ],
    "intelligence": {
        "sentiment": {"label": "positive", "score": 0.75},
        "intents": [{"intent": "koopsignaal", "confidence": 0.8, "segment": "wat kost het?"}],
        "topics": [{"topic": "prijs", "confidence": 0.9}],
        "summary": "De klant wil weten wat het kost.",
    },
    "entities": {
        "businessNames": ["Bakkerij Zon"],
        "people": ["Zoë"],
        "locations": ["Utrecht"],
        "dates": ["dinsdag"],
        "contactInfo": {"emails": ["zoe@example.net"], "phoneNumbers": [], "urls": ["example.net"]},
    },
}


def report(change: Callable[[dict[str, Any]], object] = lambda _: None) -> ReportIn:
    body = copy.deepcopy(REPORT)
    change(body)
    return ReportIn.model_validate(body)


class Postbox:
    def __init__(self) -> None:
        self.messages: list[MailMessage] = []
        self.error: ProviderError | None = None

    async def send(self, message: MailMessage) -> str:
        if self.error is not None:
            raise self.error
        self.messages.append(message)
        return f"m-{len(self.messages)}"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def postbox() -> Postbox:
    return Postbox()


@pytest.fixture
def reports(postbox: Postbox, clock: ManualClock) -> Reports:
    return Reports(postbox, SENDER, clock)


# What is in it


async def test_a_report_goes_from_the_configured_sender_to_the_agent_and_the_copies(
    reports: Reports, postbox: Postbox
) -> None:
    assert await reports.send_report(report()) == "m-1"
    [message] = postbox.messages
    assert message.sender == SENDER
    assert message.to == ("agent@example.com",)
    assert message.cc == ("lead@example.org",)
    assert message.subject == "Call report - Zoë de Vries - 12 min 30 s"


@pytest.mark.parametrize("part", ["html", "text"])
def test_both_parts_tell_the_whole_call(part: str) -> None:
    content = getattr(report_page.render(report()), part)
    for piece in (
        "Zoë de Vries",
        "+31 20 123 4567",
        "2025-11-21 08:30 UTC",
        "12 min 30 s",
        "positive (0.75)",
        "koopsignaal (80%)",
        "wat kost het?",
        "prijs (90%)",
        "De klant wil weten wat het kost.",
        "Bakkerij Zon",
        "Utrecht",
        "dinsdag",
        "zoe@example.net",
        "example.net",
        "Chosen: Explanative",
        "Zodra ik uw aantal weet, reken ik het uit.",
        "No option chosen",
        "Goedemorgen!",
        "00:03",
        "Customer",
    ):
        assert piece in content
    assert "voor hoeveel mensen" not in content


def test_interim_segments_are_left_out() -> None:
    lines = report_page.render(report()).text.splitlines()
    assert [line for line in lines if line.startswith("[00:")] == [
        "[00:01] Agent: Goedemorgen!",
        "[00:03] Customer: Goedemorgen, wat kost het?",
    ]


def test_the_plain_text_reads_as_text() -> None:
    text = report_page.render(report()).text
    assert "<" not in text
    assert "&" not in text
    assert "\n\n\n" not in text


def test_the_smallest_report_is_a_page_too() -> None:
    page = report_page.render(
        ReportIn.model_validate({"callMetadata": {"conversationId": "c1", "agentEmail": "a@example.com"}})
    )
    assert page.subject == "Call report"
    assert "c1" in page.html
    assert "Transcript" not in page.html


@pytest.mark.parametrize(
    ("metadata", "ending"),
    [
        ({"duration": 59_400}, "59 s"),
        ({"duration": 3_600_000}, "1 h"),
        ({"duration": 3_725_000}, "1 h 2 min 5 s"),
        ({"duration": 0}, "0 s"),
        ({"duration": None}, "12 min 30 s"),
        ({"duration": None, "endTime": None}, "2025-11-21"),
        ({"duration": None, "endTime": START - 1}, "2025-11-21"),
    ],
)
def test_the_subject_ends_with_the_duration_or_else_the_date(metadata: dict[str, Any], ending: str) -> None:
    page = report_page.render(report(lambda body: body["callMetadata"].update(metadata)))
    assert page.subject == f"Call report - Zoë de Vries - {ending}"


def test_times_are_shown_in_the_configured_zone() -> None:
    amsterdam = timezone(timedelta(hours=1), "CET")
    assert "2025-11-21 09:30 CET" in report_page.render(report(), zone=amsterdam).html


@pytest.mark.parametrize(
    ("language", "title", "direction"),
    [
        ("nl", "Gespreksverslag", "ltr"),
        ("nl-BE", "Gespreksverslag", "ltr"),
        ("he", "סיכום שיחה", "rtl"),
        ("fr", "Call report", "ltr"),
        ("../../etc/passwd", "Call report", "ltr"),
    ],
)
def test_a_report_speaks_the_language_asked_for_or_english(language: str, title: str, direction: str) -> None:
    page = report_page.render(report(lambda body: body.update(language=language)))
    assert page.subject.startswith(title)
    assert f'dir="{direction}"' in page.html
    assert title in page.text


def test_every_language_has_every_word() -> None:
    files = sorted(Path(report_page.__file__).parent.glob("templates/report.*.toml"))
    words = [tomllib.loads(file.read_text("utf-8")) for file in files]
    assert len(words) == 3
    assert all(w.keys() == words[0].keys() for w in words)
    assert all(isinstance(word, str) and word for w in words for word in w.values())


@pytest.mark.parametrize("selected", [None, 3, 9])
def test_a_selection_counts_only_when_its_option_exists(selected: int | None) -> None:
    page = report_page.render(report(lambda body: body["aiTips"][1].update(selectedOption=selected)))
    assert "Tips taken: 1" in page.text


# What can never get into it


class Tags(HTMLParser):
    """Every tag with its attributes, in order: what a mail program would act upon."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, tuple(attrs)))


def tags(html: str) -> list[tuple[str, tuple[tuple[str, str | None], ...]]]:
    parser = Tags()
    parser.feed(html)
    parser.close()
    return parser.seen


def strings_replaced(value: Any, text: str, key: str = "") -> Any:
    """The same report with `text` in the place of every string a client may choose freely."""
    match value:
        case dict():
            return {name: strings_replaced(item, text, name) for name, item in value.items()}
        case list():
            return [strings_replaced(item, text, key) for item in value]
        case str() if key not in ("agentEmail", "ccEmails"):
            return text
        case _:
            return value


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></tr></table><h1>Pay here</h1>",
    "\"><a href='javascript:alert(1)'>x</a>",
    "{{ 7 * 7 }}{% for x in y %}",
    "<!-- ",
    "]]><svg/onload=alert(1)>",
    "&lt;b&gt;",
    "' style='position:fixed",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_field_of_a_report_can_add_a_tag_or_an_attribute(hostile: str) -> None:
    harmless = report_page.render(ReportIn.model_validate(strings_replaced(REPORT, "x")))
    attacked = report_page.render(ReportIn.model_validate(strings_replaced(REPORT, hostile)))
    assert tags(attacked.html) == tags(harmless.html)
    assert "49" not in attacked.text.replace(hostile, "")


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=100).filter(lambda text: text.strip("\x00") != ""))
def test_whatever_is_said_the_page_keeps_its_shape_and_the_subject_its_line(text: str) -> None:
    marked = f"a{text}b"
    harmless = report_page.render(ReportIn.model_validate(strings_replaced(REPORT, "x")))
    page = report_page.render(ReportIn.model_validate(strings_replaced(REPORT, marked)))
    assert tags(page.html) == tags(harmless.html)
    MailMessage(SENDER, ("a@example.com",), page.subject, page.text, page.html)
    page.html.encode()
    page.text.encode()


@pytest.mark.parametrize(
    "name",
    [
        "Jan\r\nBcc: victim@example.org",
        "Jan\nBcc: victim@example.org",
        "Jan\u2028Bcc: v",
        "Jan\x00",
        "\ud83d Jan",
    ],
)
async def test_a_name_cannot_break_out_of_the_subject(reports: Reports, postbox: Postbox, name: str) -> None:
    await reports.send_report(report(lambda body: body["callMetadata"].update(customerName=name)))
    [message] = postbox.messages
    assert message.subject.isprintable()
    assert message.cc == ("lead@example.org",)


def test_a_long_name_does_not_push_the_duration_out_of_the_subject() -> None:
    page = report_page.render(report(lambda body: body["callMetadata"].update(customerName="x" * 200)))
    assert len(page.subject) <= report_page.MAX_SUBJECT_CHARS
    assert page.subject.endswith(" - 12 min 30 s")


def test_characters_that_reorder_the_page_are_removed() -> None:
    page = report_page.render(report(lambda body: body["callMetadata"].update(customerName="a\u202ecod.exe")))
    assert "\u202e" not in page.html + page.subject


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("callMetadata.agentEmail", "a@example.com\r\nBcc: b@example.org"),
        ("callMetadata.agentEmail", "a@example.com,b@example.org"),
        ("callMetadata.agentEmail", "Jan <a@example.com>"),
        ("callMetadata.agentEmail", ""),
        ("callMetadata.agentEmail", None),
        ("callMetadata.agentEmail", ["a@example.com"]),
        ("callMetadata.ccEmails", ["a@example.com\nBcc: b@example.org"]),
        ("callMetadata.ccEmails", ["a@example.com"] * 6),
        ("callMetadata.ccEmails", "a@example.com"),
        ("callMetadata.conversationId", ""),
        ("callMetadata.conversationId", None),
        ("callMetadata.startTime", -1),
        ("callMetadata.startTime", 10**18),
        ("callMetadata.startTime", "today"),
        ("callMetadata.duration", float("nan")),
        ("callMetadata.duration", float("inf")),
        ("callMetadata.duration", -5),
        ("callMetadata.customerName", "x" * 201),
        ("transcripts", None),
        ("transcripts", [{"timestamp": 1, "speaker": "agent"}]),
        ("transcripts", [{"timestamp": 1, "speaker": "agent", "text": "x" * 8001}]),
        ("transcripts", [{"timestamp": 1, "speaker": "agent", "text": "x", "confidence": 2}]),
        ("transcripts", [{"timestamp": 1, "speaker": "agent", "text": "x"}] * 5001),
        ("aiTips", [{"heading": "x", "options": [{"label": "x", "script": "y"}] * 11}]),
        ("aiTips", [{"heading": "x", "selectedOption": 0}]),
        ("intelligence", {"topics": [{"topic": "x"}] * 101}),
        ("entities", {"people": ["x" * 201]}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_field_is_refused_by_its_name(path: str, wrong: object) -> None:
    body = copy.deepcopy(REPORT)
    *folders, name = path.split(".")
    place = body
    for folder in folders:
        place = place[folder]
    place[name] = wrong
    with pytest.raises(ValidationError) as caught:
        ReportIn.model_validate(body)
    where = caught.value.errors()[0]["loc"]
    assert where[: len(folders) + 1] == tuple(path.split("."))


def test_unknown_fields_of_a_newer_client_are_ignored() -> None:
    assert report(lambda body: body.update(future={"x": 1})).call_metadata.agent_email


# Who may get it, and how often


async def test_eleven_reports_in_a_minute_are_one_too_many_for_an_agent(
    reports: Reports, postbox: Postbox, clock: ManualClock
) -> None:
    for _ in range(10):
        await reports.send_report(report())
        await clock.advance(1)
    with pytest.raises(RateLimited) as caught:
        await reports.send_report(
            report(lambda body: body["callMetadata"].update(agentEmail="AGENT@example.com"))
        )
    assert caught.value.retry_after_s == pytest.approx(50)
    await reports.send_report(
        report(lambda body: body["callMetadata"].update(agentEmail="other@example.com"))
    )
    await clock.advance(50)
    await reports.send_report(report())
    assert len(postbox.messages) == 12


async def test_agents_counted_are_bounded(postbox: Postbox, clock: ManualClock) -> None:
    reports = Reports(postbox, SENDER, clock)
    rate = reports._rate
    for number in range(MAX_COUNTED + 100):
        rate.count(f"agent{number}@example.com")
    assert len(rate._sent) == MAX_COUNTED


async def test_a_failed_report_counts_too(reports: Reports, postbox: Postbox) -> None:
    postbox.error = ProviderError("no")
    for _ in range(10):
        with pytest.raises(ProviderError):
            await reports.send_report(report())
    with pytest.raises(RateLimited):
        await reports.send_report(report())


async def test_each_address_gets_one_copy(reports: Reports, postbox: Postbox) -> None:
    copies = ["Agent@example.com", "a@example.org", "A@example.org", "b@example.org"]
    await reports.send_report(report(lambda body: body["callMetadata"].update(ccEmails=copies)))
    assert postbox.messages[0].cc == ("a@example.org", "b@example.org")


@pytest.mark.parametrize(
    "change",
    [{"agentEmail": "a@evil.example"}, {"ccEmails": ["a@example.com.evil.example"]}],
    ids=["agent", "copy"],
)
async def test_with_allowed_domains_nobody_else_is_written_to(
    postbox: Postbox, clock: ManualClock, change: dict[str, Any]
) -> None:
    reports = Reports(postbox, SENDER, clock, allowed_domains=["Example.com", "example.org"])
    await reports.send_report(report())
    with pytest.raises(Forbidden):
        await reports.send_report(report(lambda body: body["callMetadata"].update(change)))
    assert len(postbox.messages) == 1


def test_a_sender_that_is_no_address_stops_the_start(postbox: Postbox, clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match="sender"):
        Reports(postbox, "Coach", clock)


async def test_no_word_name_or_address_of_a_report_reaches_the_log(reports: Reports) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, format="{message} {extra}")
    try:
        await reports.send_report(report())
    finally:
        logger.remove(sink)
    log = "".join(lines)
    assert "m-1" in log
    assert not any(word in log for word in ("example", "Zo", "Goedemorgen", "Prijs", "+31"))
