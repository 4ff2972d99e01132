"""What the rules hear in an utterance on the hot path: the detector and the facts, in one place."""

from __future__ import annotations

from collections.abc import Mapping

from coach_server.domain.detection import Detection
from coach_server.domain.facts import FactBook
from coach_server.domain.transcript import Utterance
from coach_server.services.analysis import Eyes


class CallEars:
    def __init__(self, eyes: Eyes, facts: FactBook) -> None:
        self._eyes = eyes
        self._facts = facts

    def detect(self, utterance: Utterance, language: str, before: tuple[str, ...]) -> Detection:
        return self._eyes.detect_rules(
            utterance.text, speaker=utterance.speaker, language=language, context=before
        )

    def facts(self, known: Mapping[str, str], utterance: Utterance, language: str) -> Mapping[str, str]:
        return self._facts.collect(known, utterance, language)
