"""What became of each tip: was it taken, what was said instead, how the customer reacted, did the call move.

Pure and deterministic: the same lines and tips give the same ledger.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from coach_server.domain import stage as stages
from coach_server.domain.detection import Detection, Signal
from coach_server.domain.language import base
from coach_server.domain.tip import ShownTip, Stage
from coach_server.domain.transcript import Speaker, Utterance

# At half a script's content words an agent is plainly following it; chance overlap of two sentences about
# the same product stays below a third (tests/domain/test_ledger.py has both sides).
TAKEN_FROM = 0.5
# A tip is judged by the agent's next two turns: the first may only finish the thought it interrupted.
_TURNS = 2
_RUN = 3


@dataclass(frozen=True, slots=True)
class Line:
    """An utterance, what the detector saw in it, and the stage the call stood in after it."""

    utterance: Utterance
    detection: Detection
    stage: Stage

    @property
    def by_agent(self) -> bool:
        return self.utterance.speaker is Speaker.AGENT

    @property
    def sequence(self) -> int:
        return self.utterance.sequence


class Fate(StrEnum):
    """`unanswered`: the agent said nothing before the next tip or the end, so there is nothing to judge."""

    TAKEN = "taken"
    IGNORED = "ignored"
    UNANSWERED = "unanswered"


class Reaction(StrEnum):
    """How the customer's next words landed, the strongest finding first."""

    REFUSED = "refused"
    OBJECTED = "objected"
    WARMED = "warmed"
    ASKED = "asked"
    NEUTRAL = "neutral"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class TipOutcome:
    """`option` counts from 1: the clicked one, else the one nearest to what was said (None if unanswered).
    `similarity` is 0..1 between that option's script and `said`. `moved` counts stages, negative for back."""

    shown: ShownTip
    fate: Fate
    clicked: bool
    option: int | None
    similarity: float
    said: tuple[Line, ...]
    reaction: Reaction
    reaction_lines: tuple[Line, ...]
    stage_before: Stage
    stage_after: Stage

    @property
    def moved(self) -> int:
        return stages.rank(self.stage_after) - stages.rank(self.stage_before)


def follow(utterances: Iterable[Utterance], detections: Iterable[Detection]) -> tuple[Line, ...]:
    """The call again, utterance by utterance, with the stage the live coach would have stood in."""
    lines: list[Line] = []
    stage = Stage.GREETING
    for utterance, detection in zip(utterances, detections, strict=True):
        stage = stages.advance(stage, detection, utterance.speaker)
        lines.append(Line(utterance, detection, stage))
    return tuple(lines)


def turns(lines: Iterable[Line]) -> list[tuple[Line, ...]]:
    """Consecutive lines of one speaker, taken together."""
    return [tuple(group) for _, group in groupby(lines, key=lambda line: line.utterance.speaker)]


def outcomes(tips: Sequence[ShownTip], lines: Sequence[Line], language: str) -> tuple[TipOutcome, ...]:
    """One outcome a tip, in the order they were shown."""
    ordered = sorted(tips, key=lambda tip: (tip.shown_at, tip.recommendation_id))
    last = lines[-1].sequence if lines else 0
    ends = [*(tip.heard_sequence for tip in ordered[1:]), last]
    return tuple(_outcome(tip, lines, end, language) for tip, end in zip(ordered, ends, strict=False))


def similarity(said: str, script: str, language: str) -> float:
    """How much of `script` is in `said`, 0..1, by their sets of content words (an F-score that weighs
    covering the script twice as high as saying nothing else, for agents wrap a line in their own words)."""
    spoken, wanted = content_words(said, language), content_words(script, language)
    common = len(spoken & wanted)
    if not common:
        return 0.0
    coverage, precision = common / len(wanted), common / len(spoken)
    return 5 * precision * coverage / (4 * precision + coverage)


def content_words(text: str, language: str) -> frozenset[str]:
    """Word stems of `text` without the language's small words; all of them when it has only small words.
    Unfilled placeholders such as `[Agent Name]` do not count."""
    language = base(language)
    plain = unicodedata.normalize("NFKD", _PLACEHOLDER.sub(" ", text).lower())
    plain = "".join(c for c in plain if not unicodedata.combining(c)).replace("’", "'")
    words = [word.strip("'") for word in _WORD.findall(plain)]
    small = _SMALL.get(language, frozenset())
    content = [word for word in words if word and word not in small] or [word for word in words if word]
    return frozenset(_stem(word, language) for word in content)


def _outcome(tip: ShownTip, lines: Sequence[Line], end: int, language: str) -> TipOutcome:
    before = [line for line in lines if line.sequence <= tip.heard_sequence]
    after = [line for line in lines if line.sequence > tip.heard_sequence]
    stage_before = before[-1].stage if before else Stage.GREETING
    clicked = tip.selected_option is not None
    spoken = _agent_turns(line for line in after if line.sequence <= end)
    if not spoken and clicked:
        # The click is the choice; the words that belong to it come right after, whatever was shown meanwhile.
        spoken = _agent_turns(after)[:1]
    if not spoken:
        return TipOutcome(
            shown=tip,
            fate=Fate.TAKEN if clicked else Fate.UNANSWERED,
            clicked=clicked,
            option=tip.selected_option,
            similarity=0.0,
            said=(),
            reaction=Reaction.SILENT,
            reaction_lines=(),
            stage_before=stage_before,
            stage_after=stage_before,
        )
    said, option, score = _nearest(tip, spoken[:_TURNS], language)
    answer = _answer(line for line in after if line.sequence > said[-1].sequence)
    return TipOutcome(
        shown=tip,
        fate=Fate.TAKEN if clicked or score >= TAKEN_FROM else Fate.IGNORED,
        clicked=clicked,
        option=option,
        similarity=round(score, 2),
        said=said,
        reaction=_reaction(answer),
        reaction_lines=answer,
        stage_before=stage_before,
        stage_after=(answer or said)[-1].stage,
    )


def _agent_turns(lines: Iterable[Line]) -> list[tuple[Line, ...]]:
    return [turn for turn in turns(lines) if turn[0].by_agent]


def _nearest(
    tip: ShownTip, spoken: Sequence[tuple[Line, ...]], language: str
) -> tuple[tuple[Line, ...], int, float]:
    """The run of the agent's lines nearest to a script of the tip, that option, and how near it came.
    Of equals the earliest and shortest; nothing near at all gives the whole first turn."""
    numbers = (tip.selected_option,) if tip.selected_option else range(1, len(tip.tip.options) + 1)
    best: tuple[tuple[Line, ...], int, float] = (spoken[0], numbers[0], 0.0)
    for turn in spoken:
        for run in _runs(turn):
            said = " ".join(line.utterance.text for line in run)
            for number in numbers:
                score = similarity(said, tip.tip.options[number - 1].script, language)
                if score > best[2]:
                    best = (run, number, score)
    return best


def _runs(turn: tuple[Line, ...]) -> list[tuple[Line, ...]]:
    return [turn[i : i + n] for i in range(len(turn)) for n in range(1, _RUN + 1) if i + n <= len(turn)]


def _answer(lines: Iterable[Line]) -> tuple[Line, ...]:
    """The customer's next turn."""
    return next((turn for turn in turns(lines) if not turn[0].by_agent), ())


def _reaction(answer: Sequence[Line]) -> Reaction:
    if not answer:
        return Reaction.SILENT
    signals = {signal for line in answer for signal in line.detection.signals}
    if Signal.REFUSAL in signals:
        return Reaction.REFUSED
    if any(line.detection.objections for line in answer):
        return Reaction.OBJECTED
    if Signal.BUYING in signals:
        return Reaction.WARMED
    if signals & {Signal.QUESTION_OPEN, Signal.QUESTION_CLOSED}:
        return Reaction.ASKED
    return Reaction.NEUTRAL


_PLACEHOLDER = re.compile(r"\[[^\]\n]{1,40}\]")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

_SMALL: Mapping[str, frozenset[str]] = {
    "en": frozenset(
        "a an and any are as at be been but by can could did do does for from had has have he her him his i "
        "i'd i'll i'm i've if in is it it's its just me my of on or our she so some that that's the their "
        "them then there these they this those to too us was we we'd we'll we're we've were what when which "
        "who will with would you you'd you'll you're you've your".split()
    ),
    "nl": frozenset(
        "aan al als bij dan dat de deze die dit doe doen door dus een en er even had heb hebben heeft het "
        "hij hoe ik in is ja je jij jou jouw jullie kan kun kunnen maar me met mij mijn na naar niet nog nu "
        "of om onze ons ook op over te toch tot u uit uw van voor waar was wat we wel welke wie wij wil "
        "willen worden wordt zal ze zij zijn zo zou zouden".split()
    ),
    "he": frozenset(
        "אבל אז אחד אין איך אל אם אנחנו אני את אתה אתם גם הוא היא היה הם זה זאת זו יש כי כל כן לא לי לך לנו "
        "מה מי מאוד על עם עוד רק של שלי שלך שלנו תם".split()
    ),
}
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "en": ("ings", "ing", "ed", "es", "'s", "s", "e"),
    "nl": ("en", "es", "e", "t", "s"),
    "he": ("ים", "ות"),
}
_HEBREW_PREFIXES = "והבלמשכ"


def _stem(word: str, language: str) -> str:
    """Enough to let "vans" meet "van" and "kosten" meet "kost"; not a linguist."""
    if language == "he" and len(word) > 4 and word[0] in _HEBREW_PREFIXES:
        word = word[1:]
    while ending := next((e for e in _ENDINGS.get(language, ()) if _can_lose(word, e)), None):
        word = word[: -len(ending)]
    # "planning" meets "plan".
    return word[:-1] if language != "he" and len(word) > 3 and word[-1] == word[-2] else word


def _can_lose(word: str, ending: str) -> bool:
    return word.endswith(ending) and len(word) - len(ending) >= 3
