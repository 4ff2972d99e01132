"""What is heard in an utterance: at once by rules on the hot path, and by embeddings a moment later.

Where the rules find nothing in a customer's words, they are embedded in the background, one at a time, so
that the offline coach finds the vector ready when it makes its tip. Under load the oldest are skipped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from loguru import logger

from coach_server.domain.detection import Detection
from coach_server.domain.facts import FactBook
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.services.detector import Detector

AHEAD = 8


class CallEars:
    def __init__(self, detector: Detector, facts: FactBook) -> None:
        self._detector = detector
        self._facts = facts
        self._ahead: deque[tuple[str, str]] = deque(maxlen=AHEAD)
        self._some = asyncio.Event()

    def detect(self, utterance: Utterance, language: str, before: tuple[str, ...]) -> Detection:
        found = self._detector.detect_rules(
            utterance.text, speaker=utterance.speaker, language=language, context=before
        )
        if utterance.speaker is Speaker.CUSTOMER and not found.objections and not found.signals:
            self._ahead.append((utterance.text, language))
            self._some.set()
        return found

    def facts(self, known: Mapping[str, str], utterance: Utterance, language: str) -> Mapping[str, str]:
        return self._facts.collect(known, utterance, language)

    def forget(self) -> None:
        """Drop every text that is remembered, or waits to be embedded."""
        self._ahead.clear()
        self._detector.forget()

    async def run(self) -> None:
        """Embed what may be needed soon, for ever."""
        await self._detector.detect("hello", speaker=Speaker.CUSTOMER, language="en")  # loads the weights
        while True:
            await self._some.wait()
            self._some.clear()
            while self._ahead:
                text, language = self._ahead.popleft()
                try:
                    await self._detector.detect(text, speaker=Speaker.CUSTOMER, language=language)
                except Exception as error:
                    logger.opt(exception=error).warning("Words could not be embedded")
