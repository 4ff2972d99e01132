"""A talk as the rules look at it: the uses that count, the phases it went through, who answered what.

A use in a phase where its technique is forbidden counts as missed; one in a phase where the technique does
not belong counts for nothing; an id outside the catalog is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from coach_server.domain.ledger import content_words
from coach_server.domain.method.methodology import Methodology, Phase, Technique, TipType
from coach_server.domain.method.turns import RANK, Quality, TechniqueUse, Turn
from coach_server.domain.metrics import split_sentences
from coach_server.domain.practice.scorecard import Evidence
from coach_server.domain.tip import Stage
from coach_server.domain.wording import clip, one_line

QUOTE_CHARS = 300
_ECHO_CHARS = 3
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


@dataclass(frozen=True, slots=True)
class TalkWords:
    """What is listened for in one language. `you`, `we`: how a seller names the customer and himself; `stop`:
    words too common to show that a customer's words were picked up; `pain`: how customers tell a problem.
    Without them, what rests on them is left unjudged."""

    you: frozenset[str] = frozenset()
    we: frozenset[str] = frozenset()
    stop: frozenset[str] = frozenset()
    pain: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """A use that counts, with the quality that counts."""

    turn: Turn
    technique: Technique
    said: TechniqueUse
    quality: Quality

    @property
    def works(self) -> bool:
        return self.quality is not Quality.GEMIST

    def of_family(self, technique_id: str) -> bool:
        """Whether it is that technique, or is beneath it."""
        mine = self.technique
        return technique_id in {mine.id, mine.parent, mine.counts_as, *mine.aliases}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a customer said and the seller's turns up to the customer's next ones; never without an answer."""

    customer: Turn
    answer: tuple[Turn, ...]


@dataclass(frozen=True)
class Talk:
    """`turns`: those in which something was said, in their order. `started_at`: seconds since the epoch."""

    method: Methodology
    turns: tuple[Turn, ...]
    uses: tuple[Use, ...]
    language: str
    started_at: float
    words: TalkWords = field(default_factory=TalkWords)

    @cached_property
    def sellers(self) -> tuple[Turn, ...]:
        return tuple(turn for turn in self.turns if turn.is_seller)

    @cached_property
    def customers(self) -> tuple[Turn, ...]:
        return tuple(turn for turn in self.turns if not turn.is_seller)

    @property
    def too_short(self) -> bool:
        """Too few turns to judge, or none in a phase of the flow."""
        least = self.method.scoring
        few = len(self.sellers) < least.min_turns or len(self.customers) < least.min_customer_turns
        return few or not self.scope

    @cached_property
    def scope(self) -> tuple[Phase, ...]:
        """The phases of the flow it is judged on, the lowest it was in to the highest. A practice that
        begins in a later phase is not blamed for the earlier ones, a talk that leaves one out is; but for
        handling objections, where a method has a phase for that, somebody must have held back."""
        flow = {phase.id for phase in self.method.flow}
        entered = [turn.phase for turn in self.turns if turn.phase in flow]
        if not entered:
            return ()
        needless = set() if self._held_back else {self.phase_of(Stage.OBJECTION_HANDLING)} - set(entered)
        between = (phase for phase in self.method.flow if min(entered) <= phase.id <= max(entered))
        return tuple(phase for phase in between if phase.id not in needless)

    @property
    def _held_back(self) -> bool:
        return any(self._asks_for(turn, TipType.LOCK) for turn in self.customers)

    def in_scope(self, phase_id: int | None) -> bool:
        return any(phase.id == phase_id for phase in self.scope)

    def asked_of(self, phase_id: int | None, listed: int) -> int:
        """How many of the things listed for a phase could be expected: all of them once the seller went on
        from it; in the last one, where the talk may have been stopped, no more than he had turns for."""
        return listed if self.left_behind(phase_id) else min(listed, len(self.seller_turns_in(phase_id)))

    def left_behind(self, phase_id: int | None) -> bool:
        return self.in_scope(phase_id) and phase_id != self.scope[-1].id

    def phase_of(self, stage: Stage) -> int | None:
        """The phase of the method that a stage of a live call is in."""
        return self.method.stages.get(stage)

    def seller_turns_in(self, phase_id: int | None) -> tuple[Turn, ...]:
        return tuple(turn for turn in self.sellers if turn.phase == phase_id)

    def uses_of(self, turn: Turn) -> tuple[Use, ...]:
        return self._uses_by_turn.get(id(turn), ())

    def is_missed(self, turn: Turn) -> bool:
        """A seller's turn of which nothing came off, though something was tried."""
        uses = self.uses_of(turn)
        return bool(uses) and not any(use.works for use in uses)

    @cached_property
    def replies(self) -> tuple[Reply, ...]:
        """Each customer's turn that the seller answered; of several in a row each with the same answer."""
        answered = (
            (turn, self._answer(index)) for index, turn in enumerate(self.turns) if not turn.is_seller
        )
        return tuple(Reply(turn, answer) for turn, answer in answered if answer)

    @cached_property
    def resistance(self) -> tuple[Reply, ...]:
        """The answered turns in which the customer held back: doubt, objection, postponement, fear."""
        return tuple(reply for reply in self.replies if self._asks_for(reply.customer, TipType.LOCK))

    def position(self, turn: Turn) -> int:
        return self._positions[id(turn)]

    def said_yes(self, turn: Turn) -> bool:
        """Whether the customer's next turn agrees."""
        later = self.turns[self.position(turn) + 1 :]
        return next((other.is_yes for other in later if not other.is_seller), False)

    def heard_before(self, turn: Turn) -> Turn | None:
        """The customer's last turn before this one."""
        before = reversed(self.turns[: self.position(turn)])
        return next((other for other in before if not other.is_seller), None)

    def content(self, turn: Turn) -> frozenset[str]:
        """Stems of the words that carry the meaning."""
        stems = content_words(turn.text, self.language)
        return frozenset(stem for stem in stems if len(stem) >= _ECHO_CHARS and stem not in self.words.stop)

    def has_pain(self, turn: Turn) -> bool:
        pain = self.words.pain
        return pain is not None and not turn.is_seller and pain.search(_plain(turn.text)) is not None

    def evidence(self, criterion: str, turn: Turn, quote: str = "") -> Evidence:
        """The words of a turn; where only a part of them counts, the sentence around that `quote`."""
        said = _sentence_around(quote, turn.text) if quote and quote in turn.text else turn.text
        at_ms = max(0, round((turn.at - self.started_at) * 1000))
        return Evidence(criterion, clip(one_line(said), QUOTE_CHARS), turn.speaker, turn.sequence, at_ms)

    # By identity: two turns may say the same.
    @cached_property
    def _positions(self) -> dict[int, int]:
        return {id(turn): index for index, turn in enumerate(self.turns)}

    @cached_property
    def _uses_by_turn(self) -> dict[int, tuple[Use, ...]]:
        by_turn: dict[int, tuple[Use, ...]] = {}
        for use in self.uses:
            by_turn[id(use.turn)] = (*by_turn.get(id(use.turn), ()), use)
        return by_turn

    def _answer(self, index: int) -> tuple[Turn, ...]:
        """The seller's turns after turn `index`, up to the customer's next ones."""
        answer: list[Turn] = []
        for turn in self.turns[index + 1 :]:
            if turn.is_seller:
                answer.append(turn)
            elif answer:
                break
        return tuple(answer)

    def _asks_for(self, turn: Turn, kind: TipType) -> bool:
        attitude = self.method.attitude(turn.attitude) if turn.attitude else None
        return attitude is not None and attitude.tip_type is kind


def review(
    turns: Sequence[Turn],
    method: Methodology,
    *,
    language: str,
    started_at: float,
    words: TalkWords | None = None,
) -> Talk:
    """The talk of these turns, in their order."""
    spoken = tuple(turn for turn in turns if turn.text.strip())
    uses = tuple(use for turn in spoken if turn.is_seller for use in counted(turn, method))
    return Talk(method, spoken, uses, language, started_at, words or TalkWords())


def counted(turn: Turn, method: Methodology) -> Iterator[Use]:
    """The uses of a turn that count."""
    for said in turn.uses:
        technique = method.find(said.id)
        if technique is None:
            continue
        if turn.phase in technique.forbidden:
            yield Use(turn, technique, said, Quality.GEMIST)
        elif not technique.phases or turn.phase in technique.phases:
            yield Use(turn, technique, said, said.quality)


def words_said(text: str) -> list[str]:
    """Words in lower case, numbers left out."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def count_of(text: str, words: Collection[str]) -> int:
    return sum(word in words for word in words_said(text))


def top(uses: Sequence[Use]) -> Use | None:
    """The use of the highest quality; of equals the first."""
    return max(uses, key=lambda use: RANK[use.quality], default=None)


def _sentence_around(quote: str, text: str) -> str:
    """A few words torn out of a sentence tell nobody what was said."""
    return next((sentence for sentence in split_sentences(text) if quote in sentence), quote)


def _plain(text: str) -> str:
    return text.lower().replace("’", "'")
