"""How a call was conducted, in figures: who talked, how long, how fast, and what the agent asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from coach_server.domain.cues import Cues, words_of
from coach_server.domain.detection import Signal
from coach_server.domain.questions import questions
from coach_server.domain.transcript import Speaker, Utterance

_SENTENCE = re.compile(r"[^.!?…\n]+[.!?…]*")
# A pace outside comes from odd time stamps, not from speech.
_PACE_WORDS = (40.0, 320.0)
_MIN_TIMED_WORDS = 20

QuestionClassifier = Callable[[str], Iterable[Signal]]


@dataclass(frozen=True, slots=True)
class Conduct:
    """`agent_share`: 0..1, the agent's part of all words, None before anyone spoke. `longest_monologue_words`
    and `_s`: the agent's longest stretch without a word of the customer. `pace_wpm`: the agent's words a
    minute, None where the times do not tell."""

    agent_share: float | None
    agent_words: int
    customer_words: int
    longest_monologue_words: int
    longest_monologue_s: float
    pace_wpm: float | None
    open_questions: int
    closed_questions: int

    @property
    def questions(self) -> int:
        return self.open_questions + self.closed_questions


def conduct(
    utterances: Sequence[Utterance], cues: Cues | None = None, *, classify: QuestionClassifier | None = None
) -> Conduct:
    """Figures over utterances in order. Questions are told by `classify` (one sentence to its signals) or by
    the `cues` of the call's language; with neither, by the question mark alone, as closed."""
    agent = sum(count_words(u.text) for u in utterances if u.speaker is Speaker.AGENT)
    customer = sum(count_words(u.text) for u in utterances if u.speaker is Speaker.CUSTOMER)
    stretches = list(_stretches(utterances))
    opened, closed = _asked(utterances, classify or _classifier(cues))
    return Conduct(
        agent_share=agent / (agent + customer) if agent + customer else None,
        agent_words=agent,
        customer_words=customer,
        longest_monologue_words=max((words for words, _ in stretches), default=0),
        longest_monologue_s=max((seconds for _, seconds in stretches), default=0.0),
        pace_wpm=_pace(utterances),
        open_questions=opened,
        closed_questions=closed,
    )


def count_words(text: str) -> int:
    """Spoken words: letters or digits in a row, in any script; punctuation does not count."""
    return len(words_of(text).forms)


def split_sentences(text: str) -> list[str]:
    """Sentences of a text, marks kept. A full stop inside a number (`2.500`, `9.30`) does not end one."""
    guarded = re.sub(r"(?<=\d)[.](?=\d)", "\u2024", text)
    return [part.replace("\u2024", ".").strip() for part in _SENTENCE.findall(guarded) if count_words(part)]


def _stretches(utterances: Sequence[Utterance]) -> Iterable[tuple[int, float]]:
    """Words and seconds of each stretch in which only the agent spoke."""
    words, began = 0, 0.0
    for utterance in utterances:
        spoken = count_words(utterance.text)
        if utterance.speaker is Speaker.CUSTOMER:
            if spoken:
                words = 0
            continue
        if not words:
            began = utterance.said_at
        words += spoken
        yield words, max(0.0, _end(utterance) - began)


def _end(utterance: Utterance) -> float:
    """A final segment reaches us when it is over, so the later time is the best guess of its end."""
    return max(utterance.said_at, utterance.heard_at)


def _pace(utterances: Sequence[Utterance]) -> float | None:
    """From segments that carry both their begin and their end; else from the gap to the segment before, which
    counts pauses too and is therefore only used where it gives a speed people can speak at."""
    words, seconds = 0, 0.0
    before: Utterance | None = None
    for utterance in utterances:
        if utterance.speaker is Speaker.AGENT:
            spoken = count_words(utterance.text)
            took = _end(utterance) - utterance.said_at
            if took <= 0.2 and before is not None:
                took = utterance.said_at - before.said_at
            if took > 0 and _PACE_WORDS[0] <= spoken / took * 60 <= _PACE_WORDS[1]:
                words, seconds = words + spoken, seconds + took
        before = utterance
    return words / seconds * 60 if words >= _MIN_TIMED_WORDS else None


def _asked(utterances: Sequence[Utterance], classify: QuestionClassifier) -> tuple[int, int]:
    opened = closed = 0
    for utterance in utterances:
        if utterance.speaker is not Speaker.AGENT:
            continue
        for sentence in split_sentences(utterance.text):
            kinds = set(classify(sentence))
            opened += Signal.QUESTION_OPEN in kinds
            closed += Signal.QUESTION_CLOSED in kinds
    return opened, closed


def _classifier(cues: Cues | None) -> QuestionClassifier:
    def by_mark(sentence: str) -> list[Signal]:
        return [Signal.QUESTION_CLOSED] if sentence.endswith("?") else []

    def by_rules(sentence: str) -> list[Signal]:
        assert cues is not None
        return [Signal(f.name) for f in questions(cues, words_of(sentence))]

    return by_mark if cues is None else by_rules
