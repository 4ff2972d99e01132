"""What the tests of the model's lane share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from coach_server.domain.tip import Label, Source, Stage, Tip, TipOption, TipRequest, Trigger
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.paths import bundled, catalog
from coach_server.services.answers import SCHEMAS
from coach_server.services.coach import TipChunk
from coach_server.services.costs import Prices
from coach_server.services.prompts import Prompts

PROMPTS = Prompts.load(bundled("prompts"), outputs=SCHEMAS.keys())
PRICES = Prices.load(catalog() / "prices.toml")
MODELS = {"tip": "gpt-6-luna", "analysis": "gpt-6-luna"}

TALK = (
    (Speaker.AGENT, "Good morning, this is Tom from Bakker Systems."),
    (Speaker.CUSTOMER, "Morning. What is this about?"),
    (Speaker.AGENT, "How do you plan your drivers today?"),
    (Speaker.CUSTOMER, "By hand, and half of the routes are late."),
)


def utterances(*said: tuple[Speaker, str]) -> tuple[Utterance, ...]:
    return tuple(Utterance(n, who, text, 0.0, 0.0) for n, (who, text) in enumerate(said, 1))


def wanted(**changes: Any) -> TipRequest:
    """A request in the middle of an ordinary English call."""
    request = TipRequest(3, Trigger.INTERVAL, "en", Stage.DISCOVERY, utterances(*TALK))
    return replace(request, **changes)


OFFLINE_TIP = Tip(
    stage=Stage.DISCOVERY,
    heading="Ask on",
    context="By the rules.",
    options=(
        TipOption(Label.MINIMAL, "What does a late route cost you?"),
        TipOption(Label.EXPLANATIVE, "I ask so that we talk about the right thing. What does it cost you?"),
        TipOption(Label.CONTEXTUAL, "You said half of them are late. Since when?"),
    ),
    source=Source.OFFLINE,
)


class OfflineStub:
    """A coach that always answers the same, and counts."""

    def __init__(self) -> None:
        self.asked: list[TipRequest] = []

    async def tip(self, request: TipRequest) -> Tip:
        self.asked.append(request)
        return OFFLINE_TIP

    async def stream(self, request: TipRequest) -> AsyncIterator[TipChunk | Tip]:
        yield await self.tip(request)
