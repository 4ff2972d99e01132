"""A model's judgement of a whole talk, in one strict answer; a long talk in parts, at the same time.

The model is told what the rules measured and what was said, and answers in the shape of the seed's analysis.
Its answer is untrusted: scores are clamped, ids are those of the method, a quote counts only where it was
really said, texts are bounded and cleaned. The same talk by the same version of a method, prompt and model is
asked about once: a judgement is kept under the hash of these, so that the same talk keeps its score.

What does not depend on the method (the cache, its key, the parts, how they are asked) also serves the scoring
of simulations (`simulation/assess.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from loguru import logger

from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.blending import ModelJudgement
from coach_server.domain.practice.scorecard import ScoreCard
from coach_server.errors import ProviderError
from coach_server.providers.llm import LLM
from coach_server.services.asking import Asking
from coach_server.services.breaker import Breaker, NotAsked
from coach_server.services.costs import CostGovernor, Meter
from coach_server.services.practice import assessment_page as page
from coach_server.services.practice.assessment_answer import Record, merge
from coach_server.services.prompts import Prompts, Rendered

PROMPT = "assess"
VERSION = 1
"""Raised when answers are read differently than before: what was kept then no longer fits."""
DEADLINE_S = 25.0
WHOLE_TURNS = 60
"""Longer talks are judged in parts."""
PART_TURNS = 25
MOST_PARTS = 12
AT_ONCE = 3
KEPT = 256
T = TypeVar("T")


class JudgementCache(Protocol[T]):
    """Judgements by content hash."""

    async def get(self, key: str) -> T | None: ...

    async def put(self, key: str, judgement: T) -> None: ...


class RecentJudgements(Generic[T]):
    """A JudgementCache of this process alone; the oldest go first."""

    def __init__(self, keep: int = KEPT) -> None:
        self._keep = keep
        self._kept: OrderedDict[str, T] = OrderedDict()

    async def get(self, key: str) -> T | None:
        return self._kept.get(key)

    async def put(self, key: str, judgement: T) -> None:
        self._kept[key] = judgement
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)


AssessmentCache = JudgementCache[ModelJudgement]
RecentAssessments = RecentJudgements[ModelJudgement]


class Judges:
    """Asks a model about a talk, in one question or in several at the same time. `llm` None: nothing is ever
    judged. `models` maps a role to a model."""

    def __init__(
        self, llm: LLM | None, breaker: Breaker, models: Mapping[str, str], deadline_s: float
    ) -> None:
        self._models = models
        self._asking = Asking(llm, breaker, models, deadline_s) if llm is not None else None

    @property
    def configured(self) -> bool:
        return self._asking is not None

    def model(self, prompt: Rendered) -> str:
        """The one that is configured (also when a cheaper one answers because money is short)."""
        return prompt.settings.model or self._models.get(prompt.settings.role, "")

    def key(self, facts_hash: str, version: int, prompt: Rendered) -> str:
        """What decides over a judgement: the talk with what it is judged by, the prompt in its language, and
        the model."""
        names = (facts_hash, str(version), prompt.system, self.model(prompt))
        return hashlib.sha256("\0".join(names).encode()).hexdigest()

    async def ask(
        self, prompts: Sequence[Rendered], read: Callable[[dict[str, Any]], T], meter: Meter
    ) -> list[T] | None:
        """What `read` makes of the answers, in the order of the questions. None when the model was not asked
        or one of the answers is no use: half a judgement would be another one the next time."""
        try:
            return await self._ask_all(prompts, read, meter)
        except NotAsked as error:
            logger.bind(reason=error.message).debug("The model was not asked to assess a talk")
        except ProviderError as error:
            logger.bind(code=error.code, parts=len(prompts)).warning("The model could not assess a talk")
        return None

    async def _ask_all(
        self, prompts: Sequence[Rendered], read: Callable[[dict[str, Any]], T], meter: Meter
    ) -> list[T]:
        """One that fails stops the others and raises its ProviderError."""
        at_once = asyncio.Semaphore(AT_ONCE)
        tasks: list[asyncio.Task[T]] = []
        fault: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for number, prompt in enumerate(prompts, 1):
                    asked = self._ask(prompt, read, meter, at_once)
                    tasks.append(group.create_task(asked, name=f"assessment, part {number}"))
        except* ProviderError as errors:
            fault = errors.exceptions[0]
        if fault is not None:
            raise fault
        return [task.result() for task in tasks]

    async def _ask(
        self,
        prompt: Rendered,
        read: Callable[[dict[str, Any]], T],
        meter: Meter,
        at_once: asyncio.Semaphore,
    ) -> T:
        if self._asking is None:
            raise NotAsked("There is no model.", degraded=False)
        async with at_once:
            return await self._asking.ask(prompt, meter, read)


@dataclass(frozen=True, slots=True)
class _Question:
    """About some turns of a talk."""

    prompt: Rendered
    turns: int


class Assessor:
    """`llm` None: no model is configured, and nothing is ever judged. `models` maps a role to a model."""

    def __init__(
        self,
        llm: LLM | None,
        prompts: Prompts,
        governor: CostGovernor,
        breaker: Breaker,
        models: Mapping[str, str],
        *,
        cache: AssessmentCache | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._prompts = prompts
        self._governor = governor
        self._cache: AssessmentCache = RecentAssessments() if cache is None else cache
        self._judges = Judges(llm, breaker, models, deadline_s)

    @property
    def configured(self) -> bool:
        """Whether there is a model: a talk it has not judged is provisional then."""
        return self._judges.configured

    async def assess(
        self,
        card: ScoreCard,
        turns: Sequence[Turn],
        method: Methodology,
        language: str,
        meter: Meter | None = None,
        *,
        started_at: float | None = None,
        cache: AssessmentCache | None = None,
    ) -> ModelJudgement | None:
        """None without a model, for a talk that is too short to judge, and when the model did not answer
        usefully: then the rules' card stands, and the document is provisional where `configured`.
        `started_at`: seconds since the epoch, from which quotes are timed; the first turn's without. `cache`
        instead of the assessor's own."""
        if not self.configured or card.insufficient or not turns:
            return None
        questions = self._questions(card, turns, method, language)
        key = self.key(card, questions[0].prompt)
        shelf = self._cache if cache is None else cache
        kept = await shelf.get(key)
        if kept is not None:
            return kept
        start = turns[0].at if started_at is None else started_at
        known = self._prompts.language(language)
        record = Record(turns, method, questions[0].prompt.system, known, start)
        judgement = await self._judge(questions, record, meter or self._governor.meter())
        if judgement is not None:
            await shelf.put(key, judgement)
        return judgement

    def key(self, card: ScoreCard, prompt: Rendered) -> str:
        """As `Judges.key`, for a card."""
        return self._judges.key(card.facts_hash, VERSION, prompt)

    def _questions(
        self, card: ScoreCard, turns: Sequence[Turn], method: Methodology, language: str
    ) -> list[_Question]:
        known = self._prompts.language(language)
        pieces = parts(turns)
        shared = {
            "language": known.name,
            "techniques": page.techniques(method, language),
            "facts": page.facts(card),
            "outline": page.outline(turns, known) if len(pieces) > 1 else page.NOTHING,
        }
        last = turns[-1].sequence
        return [
            _Question(
                self._prompts.render(
                    PROMPT,
                    language,
                    part=f"{piece[0].sequence}-{piece[-1].sequence} / {last}",
                    call=page.transcript(piece, known),
                    **shared,
                ),
                len(piece),
            )
            for piece in pieces
        ]

    async def _judge(
        self, questions: Sequence[_Question], record: Record, meter: Meter
    ) -> ModelJudgement | None:
        answers = await self._judges.ask([question.prompt for question in questions], record.read, meter)
        if answers is None:
            return None
        model = self._judges.model(questions[0].prompt)
        return merge(answers, [question.turns for question in questions], model)


def parts(turns: Sequence[T]) -> list[Sequence[T]]:
    """The turns of each question: all of them, or pieces of `PART_TURNS`. Of a very long talk the pieces are
    spread evenly, first and last among them."""
    if len(turns) <= WHOLE_TURNS:
        return [turns]
    pieces = [turns[at : at + PART_TURNS] for at in range(0, len(turns), PART_TURNS)]
    if len(pieces) <= MOST_PARTS:
        return pieces
    last = len(pieces) - 1
    return [pieces[round(n * last / (MOST_PARTS - 1))] for n in range(MOST_PARTS)]
