"""The offline coach: rules and data, no model, no network. Always there, and never the one that waits.

It sees by the detector's rules alone. When these find nothing in the customer's last words and a budget for
it is given, the detector may look once more with embeddings; what is not there in time is done without.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from coach_server.domain.composer import compose, sayable
from coach_server.domain.detection import Detection, Objection
from coach_server.domain.listening import is_bare
from coach_server.domain.moves import Reading
from coach_server.domain.phrases import Listening
from coach_server.domain.playbook import Playbook
from coach_server.domain.tip import Stage, Tip, TipRequest, Trigger
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.errors import NotFound
from coach_server.services.coach import TipChunk
from coach_server.services.content import Content

MONOLOGUE_WORDS = 90
TURN_SEGMENTS = 3
LOOK_BACK = 4
CONTEXT = 2
HEARD_CHARS = 600


class Eyes(Protocol):
    """What the coach asks of a detector."""

    def detect_rules(
        self, text: str, *, speaker: Speaker, language: str, context: tuple[str, ...] = ()
    ) -> Detection:
        """By the rules alone; fast, no await."""
        ...

    async def detect(
        self, text: str, *, speaker: Speaker, language: str, context: tuple[str, ...] = ()
    ) -> Detection:
        """With everything there is, embeddings too."""
        ...


class RulesCoach:
    """`second_look_s`: how long embeddings may take where the rules found nothing; 0 does without them."""

    def __init__(self, content: Content, detector: Eyes, *, second_look_s: float = 0.0) -> None:
        self._content = content
        self._eyes = detector
        self._second_look_s = second_look_s

    async def tip(self, request: TipRequest) -> Tip:
        phrases = self._content.phrases(request.language)
        reading = self.read(request, phrases.listening)
        if (
            self._second_look_s > 0
            and _saw_nothing(reading)
            and not is_bare(reading.focus, phrases.listening)
        ):
            reading = await self._second_look(request, reading)
        return compose(request, reading, phrases, self._playbook(request))

    async def stream(self, request: TipRequest) -> AsyncIterator[TipChunk | Tip]:
        """Just the tip: it is there at once."""
        yield await self.tip(request)

    def candidates(self, request: TipRequest) -> list[tuple[str, Stage, str]]:
        """The lines a model may choose from, best first (services.coach_llm.LineSource)."""
        playbook = self._playbook(request)
        if playbook is None:
            return []
        phrases = self._content.phrases(request.language)
        reading = self.read(request, phrases.listening)
        return [(line.id, line.stage, words) for line, words in sayable(request, reading, phrases, playbook)]

    def read(self, request: TipRequest, listening: Listening) -> Reading:
        """What the rules see in the request's utterances."""
        said = request.utterances
        turn, since = _last_turn(said)
        before = [u.text[-HEARD_CHARS:] for u in said[: len(said) - len(turn) - len(since)]]
        texts = [u.text[-HEARD_CHARS:] for u in turn]
        if not texts and request.exchange is not None and request.exchange.customer_words:
            texts = [request.exchange.customer_words[-HEARD_CHARS:]]
        seen: list[Detection] = []
        for number, text in enumerate(texts):
            context = (*before, *texts[:number])[-CONTEXT:]
            seen.append(self._rules(text, request.language, context))
        detection = _together(seen)
        earlier = _earlier(said, turn, listening)
        return Reading(
            focus=" ".join(texts),
            detection=detection,
            earlier=" ".join(earlier[:1]),
            since=" ".join(u.text[-HEARD_CHARS:] for u in since),
            raised=self._raised(request, detection, earlier),
            quiet=_is_quiet(request, since),
        )

    def _rules(self, text: str, language: str, context: tuple[str, ...]) -> Detection:
        return self._eyes.detect_rules(text, speaker=Speaker.CUSTOMER, language=language, context=context)

    def _raised(self, request: TipRequest, detection: Detection, earlier: Sequence[str]) -> Objection | None:
        """The last objection in sight, if this is about objections at all."""
        if detection.objections:
            return detection.objections[0]
        if request.stage is not Stage.OBJECTION_HANDLING and request.trigger is not Trigger.ALTERNATIVE:
            return None
        for text in earlier:
            found = self._rules(text, request.language, ()).objections
            if found:
                return found[0]
        return None

    async def _second_look(self, request: TipRequest, reading: Reading) -> Reading:
        try:
            async with asyncio.timeout(self._second_look_s):
                seen = await self._eyes.detect(
                    reading.focus, speaker=Speaker.CUSTOMER, language=request.language
                )
        except TimeoutError:
            return reading
        return Reading(
            focus=reading.focus,
            detection=seen,
            earlier=reading.earlier,
            since=reading.since,
            raised=seen.objections[0] if seen.objections else reading.raised,
            quiet=reading.quiet,
        )

    def _playbook(self, request: TipRequest) -> Playbook | None:
        """The wanted playbook; one that was removed while the call ran is done without."""
        if request.playbook is None:
            return None
        try:
            return self._content.playbook(request.playbook, request.language)
        except NotFound:
            return None


def _last_turn(said: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """The customer's last turn (a few segments at most), and what the agent said since."""
    end = len(said)
    while end > 0 and said[end - 1].speaker is Speaker.AGENT:
        end -= 1
    start = end
    while start > 0 and said[start - 1].speaker is Speaker.CUSTOMER and end - start < TURN_SEGMENTS:
        start -= 1
    return list(said[start:end]), list(said[end:])


def _earlier(said: Sequence[Utterance], turn: Sequence[Utterance], listening: Listening) -> list[str]:
    """What the customer said before that turn, newest first, without bare answers."""
    texts = [u.text[-HEARD_CHARS:] for u in said if u.speaker is Speaker.CUSTOMER and u not in turn]
    return [text for text in reversed(texts) if not is_bare(text, listening)][:LOOK_BACK]


def _is_quiet(request: TipRequest, since: Sequence[Utterance]) -> bool:
    """No answer came: the client waited for one in vain, or the agent talks on and on."""
    exchange = request.exchange
    if exchange is not None and exchange.agent_words and not exchange.customer_words:
        return not request.utterances or bool(since)
    return sum(len(u.text.split()) for u in since) >= MONOLOGUE_WORDS


def _together(seen: Sequence[Detection]) -> Detection:
    """One detection of a turn's segments; what was said last comes first."""
    if len(seen) == 1:
        return seen[0]
    latest = list(reversed(seen))
    evidence: dict[str, str] = {}
    for detection in seen:
        evidence.update(detection.evidence or {})
    return Detection(
        stage=next((d.stage for d in latest if d.stage is not None), None),
        objections=tuple(dict.fromkeys(o for d in latest for o in d.objections)),
        signals=tuple(dict.fromkeys(s for d in latest for s in d.signals)),
        evidence=evidence,
        confidence=min((d.confidence for d in seen if d.confidence), default=0.0),
    )


def _saw_nothing(reading: Reading) -> bool:
    return bool(reading.focus) and not reading.detection.objections and not reading.detection.signals
