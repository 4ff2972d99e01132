"""The body of `POST /api/generate-report` (live-coach.md §8), bounded in every direction.

Times are milliseconds since the epoch, `duration` is milliseconds. Text loses control characters and stray
surrogates on entry: no mail program, header or JSON encoder may stumble over them later.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator
from pydantic.alias_generators import to_camel

from coach_server.providers.mail import is_address

MAX_CC = 5
LAST_MS = 253_402_214_400_000  # 9999-12-31: what a calendar can show in every time zone
MAX_DURATION_MS = 7 * 24 * 3600 * 1000

# Control characters but line feed and tab; surrogates; characters that reorder the text around them.
_UNWANTED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]"
)


def _clean(value: Any) -> Any:
    return _UNWANTED.sub("", value) if isinstance(value, str) else value


def _one_line(value: Any) -> Any:
    return " ".join(_clean(value).split()) if isinstance(value, str) else value


def _address(value: str) -> str:
    if not is_address(value):
        raise ValueError("must be one plain e-mail address")
    return value


Line = Annotated[str, StringConstraints(max_length=200), BeforeValidator(_one_line)]
Text = Annotated[str, StringConstraints(max_length=8000), BeforeValidator(_clean)]
Address = Annotated[str, Field(json_schema_extra={"format": "email"})]
Millis = Annotated[int, Field(ge=0, le=LAST_MS)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class CallMetadata(_Wire):
    """`duration` missing is taken from start and end."""

    conversation_id: Annotated[
        str, StringConstraints(min_length=1, max_length=128), BeforeValidator(_one_line)
    ]
    agent_email: Address
    cc_emails: list[Address] | None = Field(default=None, max_length=MAX_CC)
    start_time: Millis | None = None
    end_time: Millis | None = None
    duration: Annotated[float, Field(ge=0, le=MAX_DURATION_MS, allow_inf_nan=False)] | None = None
    customer_phone: Line | None = None
    customer_name: Line | None = None

    @field_validator("agent_email")
    @classmethod
    def _agent_address(cls, value: str) -> str:
        return _address(value)

    @field_validator("cc_emails")
    @classmethod
    def _cc_addresses(cls, value: list[str] | None) -> list[str] | None:
        return [_address(address) for address in value] if value else None

    @property
    def duration_ms(self) -> float | None:
        if self.duration is not None:
            return self.duration
        if self.start_time is None or self.end_time is None or self.end_time < self.start_time:
            return None
        return self.end_time - self.start_time


class Segment(_Wire):
    timestamp: Millis
    speaker: Line
    text: Text
    confidence: Share | None = None
    is_final: bool = True


class Option(_Wire):
    label: Line
    script: Text


class ShownTip(_Wire):
    """`selected_option` counts from 1, as on the wire."""

    heading: Line
    stage: Line = ""
    context: Text = ""
    options: list[Option] = Field(default=[], max_length=10)
    selected_option: Annotated[int, Field(ge=1, le=10)] | None = None
    timestamp: Millis | None = None

    @property
    def selected(self) -> Option | None:
        if self.selected_option is None or self.selected_option > len(self.options):
            return None
        return self.options[self.selected_option - 1]


class Sentiment(_Wire):
    label: Line
    score: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] | None = None


class Intent(_Wire):
    intent: Line
    confidence: Share | None = None
    segment: Text = ""


class Topic(_Wire):
    topic: Line
    confidence: Share | None = None


class Intelligence(_Wire):
    sentiment: Sentiment | None = None
    intents: list[Intent] = Field(default=[], max_length=100)
    topics: list[Topic] = Field(default=[], max_length=100)
    summary: Text = ""


class ContactInfo(_Wire):
    emails: list[Line] = Field(default=[], max_length=100)
    phone_numbers: list[Line] = Field(default=[], max_length=100)
    urls: list[Line] = Field(default=[], max_length=100)


class Entities(_Wire):
    business_names: list[Line] = Field(default=[], max_length=100)
    people: list[Line] = Field(default=[], max_length=100)
    locations: list[Line] = Field(default=[], max_length=100)
    dates: list[Line] = Field(default=[], max_length=100)
    contact_info: ContactInfo | None = None


class ReportIn(_Wire):
    """`language` is ours: the language of the report's own words, where the server has them."""

    call_metadata: CallMetadata
    transcripts: list[Segment] = Field(default=[], max_length=5000)
    ai_tips: list[ShownTip] = Field(default=[], max_length=1000)
    intelligence: Intelligence | None = None
    entities: Entities | None = None
    language: Annotated[str, StringConstraints(max_length=35)] | None = None
