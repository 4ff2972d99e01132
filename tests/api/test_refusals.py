"""How a wrong payload is refused: the field, and what it must be, in words that name no library or class."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from coach_server.api import wire
from coach_server.api.rest_calls import ListingQuery
from coach_server.errors import Invalid

START = {"agentId": "a"}
WRONG: list[tuple[type[BaseModel], dict[str, object], str]] = [
    (wire.StartConversation, {}, "agentId is required."),
    (wire.StartConversation, {"agentId": 5}, "agentId is not valid: must be a text."),
    (wire.StartConversation, {"agentId": ""}, "agentId is not valid: must have at least 1 character."),
    (
        wire.StartConversation,
        {"agentId": "x" * 129},
        "agentId is not valid: must have at most 128 characters.",
    ),
    (wire.StartConversation, {**START, "metadata": [1]}, "metadata is not valid: must be an object."),
    (wire.StartConversation, {**START, "consent": "yes"}, "consent is not valid: must be an object."),
    (
        wire.StartConversation,
        {**START, "mode": "AUTO"},
        "mode is not valid: must be 'auto' or 'event-driven'.",
    ),
    (wire.StartConversation, {**START, "warmupMs": "x"}, "warmupMs is not valid: must be a whole number."),
    (
        wire.StartConversation,
        {**START, "warmupMs": -1},
        "warmupMs is not valid: must be greater than or equal to 0.",
    ),
    (
        wire.StartConversation,
        {**START, "storeTranscript": "perhaps"},
        "storeTranscript is not valid: must be true or false.",
    ),
    (
        wire.RequestNextTip,
        {"conversationId": "c", "transcriptHistory": [{}] * 101},
        "transcriptHistory is not valid: must have at most 100 items.",
    ),
    (
        wire.StartTranscription,
        {"sessionId": "a b"},
        "sessionId is not valid: must have the form that the reference describes.",
    ),
    (ListingQuery, {"cursor": "?"}, "cursor is not valid: must have the form that the reference describes."),
]


@pytest.mark.parametrize(("model", "payload", "sentence"), WRONG, ids=[row[2] for row in WRONG])
def test_a_refusal_names_the_field_and_what_it_must_be(
    model: type[BaseModel], payload: dict[str, object], sentence: str
) -> None:
    with pytest.raises(Invalid) as refused:
        wire.parse(model, payload)
    assert refused.value.message == sentence
    assert refused.value.field == sentence.split(" ", 1)[0]
    assert not re.search(r"validation|instance|dictionary|should|pattern|\^", sentence)
