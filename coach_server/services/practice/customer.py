"""The simulated customer's voice: a model by its prompt, else the dialogue engine; never without an answer.

What he means to say (the gist), what he shows and whether he agrees is decided by the engine in either case;
the model finds the words. Its answer is streamed as it comes and looked at twice: here, while it comes, and
by a second pass of the model when it is whole, which may repair it. Whatever fails, whenever, the engine's
own answer is the final one, so that half a sentence never stays as the last word.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from loguru import logger
from pydantic import BaseModel, ValidationError, field_validator

from coach_server.domain.customer import dialogue
from coach_server.domain.customer.dialogue import Answer, Moment
from coach_server.domain.customer.mind import Customer, Memory
from coach_server.domain.customer.persona import Scenario, Script
from coach_server.domain.customer.phrasebook import Phrasebook
from coach_server.domain.language import guess_language
from coach_server.domain.method.methodology import Attitude, say
from coach_server.domain.method.turns import TechniqueUse, Turn
from coach_server.domain.tip import Source
from coach_server.domain.wording import clip, clip_start, has_markup, one_line, same_words, share_of_script
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.llm import LLM, Completion
from coach_server.services.answers import (
    REPLY_LABELS,
    REPLY_VALID,
    WRONG_FORM,
    gives_away,
    json_object,
    llm_call,
)
from coach_server.services.breaker import Breaker, NotAsked, Unfit
from coach_server.services.coach import closing
from coach_server.services.coach_llm import chosen_model
from coach_server.services.costs import Meter
from coach_server.services.method.knowledge import Knowledge
from coach_server.services.practice.customer_words import CustomerWords
from coach_server.services.prompts import Language, Prompts, Rendered

REPLY_CHARS = 600
TURNS = 4
TURN_CHARS = 300
FACTS_CHARS = 1500
KNOWN_CHARS = 500
FIRST_S = 3.5
TOTAL_S = 8.0
LETTERS_SHARE = 0.8
# Fewer words than this say little about their language.
TELLING_WORDS = 8
_DIRECTION = re.compile(r"\*[^*]*\*|\[[^\]]*\]|\([^)]*\)")
_UNFINISHED = re.compile(r"[*\[(].*$")
_NAMED = re.compile(r"^[\w' .-]{1,40}:\s")
_QUOTES = ' "“”„«»'
_MARKDOWN = re.compile(r"```|(^|\s)#|__|\*|https?://")


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """`customer`: after he heard the seller's turn; it is read, never changed. `attitude`: drawn for this
    answer. `words`, `uses`: the seller's turn; `turns`: the talk before it, oldest first. `script`: a drill.
    `rng` None: the customer's own for this turn."""

    scenario: Scenario
    customer: Customer
    language: str
    attitude: str
    words: str
    uses: Sequence[TechniqueUse] = ()
    turns: Sequence[Turn] = ()
    script: Script | None = None
    rng: random.Random | None = None


@dataclass(frozen=True, slots=True)
class ReplyChunk:
    """A piece of the answer on its way."""

    delta: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The whole answer, which replaces the pieces. `attitude`: the id he showed; `agrees`: he said yes to a
    summary or a close; `ends`: he ends the talk. `memory` is what he remembers now: the owner keeps it
    (`customer.memory = reply.memory`). `degraded`: a model should have spoken and did not. `language`: that
    of the words, which is another than asked where a scenario is not told in it."""

    text: str
    source: Source
    degraded: bool
    attitude: str
    agrees: bool
    ends: bool
    memory: Memory
    language: str


@dataclass(frozen=True, slots=True)
class _Task:
    """One request on its way: the gist, the book of its language, and what the model is told."""

    request: ReplyRequest
    answer: Answer
    book: Phrasebook
    language: Language


class CustomerVoice:
    """`llm` None: no model is configured. `models` maps a prompt's role to a model, for requests without a
    meter."""

    def __init__(
        self,
        llm: LLM | None,
        prompts: Prompts,
        models: Mapping[str, str],
        words: CustomerWords,
        breaker: Breaker,
        knowledge: Knowledge,
        *,
        first_s: float = FIRST_S,
        total_s: float = TOTAL_S,
    ) -> None:
        self._llm = llm
        self._prompts = prompts
        self._models = models
        self._words = words
        self._breaker = breaker
        self._knowledge = knowledge
        self._first_s = first_s
        self._total_s = total_s

    def opening(self, request: ReplyRequest) -> Reply:
        """His first words, before the seller said anything; `request.words` is empty."""
        book = self._book(request)
        answer = dialogue.open_talk(book, _moment(request), _rng(request))
        return _offline(_Task(request, answer, book, self._prompts.language(book.language)))

    async def stream(
        self, request: ReplyRequest, meter: Meter | None = None
    ) -> AsyncIterator[ReplyChunk | Reply]:
        """Pieces while the model speaks, the whole answer last. Without a model only that."""
        task = self._task(request)
        if self._llm is None or request.customer.memory.over:
            yield _offline(task)
            return
        try:
            with self._breaker.guard():
                async with closing(self._speak(self._llm, task, meter)) as pieces:
                    async for piece in pieces:
                        yield piece
            return
        except Exception as error:
            degraded = _note(error)
        yield _offline(task, degraded=degraded)

    async def reply(self, request: ReplyRequest, meter: Meter | None = None) -> Reply:
        """The whole answer at once."""
        async with closing(self.stream(request, meter)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Reply):
                    return piece
        raise AssertionError("a stream ends with a reply")

    def _book(self, request: ReplyRequest) -> Phrasebook:
        return self._words.book(request.scenario.language(request.language))

    def _task(self, request: ReplyRequest) -> _Task:
        book = self._book(request)
        answer = dialogue.reply(book, _moment(request), _rng(request))
        return _Task(request, answer, book, self._prompts.language(book.language))

    async def _speak(self, llm: LLM, task: _Task, meter: Meter | None) -> AsyncIterator[ReplyChunk | Reply]:
        """Raises ProviderError: NotAsked before, Unfit after words that do not suit."""
        ends_at = asyncio.get_running_loop().time() + self._total_s
        known = self._knowledge.about_attitude(task.answer.attitude, task.book.language)
        wins = clip(one_line(known.answer), KNOWN_CHARS) if known is not None else "-"
        prompt = self._prompts.render("customer", task.book.language, wins=wins, **_told(task))
        # One model for both passes: a cap that is reached by the first must not cost its words.
        model = chosen_model(prompt, self._models, meter)
        spoken = _Spoken(task, prompt)
        async with closing(llm.stream(llm_call(prompt, model, self._total_s))) as pieces:
            async for piece in _in_time(pieces, self._first_s, ends_at):
                if isinstance(piece, Completion):
                    _count(piece, meter)
                elif delta := spoken.take(piece):
                    yield ReplyChunk(delta)
        text = spoken.whole()
        checked = await self._checked(llm, model, task, text, meter, ends_at)
        yield _made(task, checked, Source.OPENAI, False)

    async def _checked(
        self, llm: LLM, model: str, task: _Task, text: str, meter: Meter | None, ends_at: float
    ) -> str:
        """The text, or its repair where it does not keep the mode."""
        left = ends_at - asyncio.get_running_loop().time()
        prompt = self._prompts.render("check_reply", task.book.language, **_told(task), reply=text)
        try:
            async with asyncio.timeout_at(ends_at):
                completion = await llm.complete(llm_call(prompt, model, max(0.1, left)))
        except TimeoutError as error:
            raise ProviderTimeout("The model took too long.", retryable=True) from error
        _count(completion, meter)
        verdict = _verdict(completion.text)
        if verdict.label == REPLY_VALID:
            return text
        logger.bind(label=verdict.label).info("A reply of the simulated customer was repaired")
        repaired = _Spoken(task, prompt)
        repaired.take(verdict.repaired)
        return repaired.whole()


class _Verdict(BaseModel):
    label: str
    repaired: str = ""

    @field_validator("label")
    @classmethod
    def _known(cls, label: str) -> str:
        if label not in REPLY_LABELS:
            raise ValueError("unknown label")
        return label


def _verdict(text: str) -> _Verdict:
    try:
        return _Verdict.model_validate(json_object(text))
    except ValidationError:
        raise ProviderError(WRONG_FORM) from None


class _Spoken:
    """What the model said so far, without stage directions; refuses what a customer cannot have said."""

    def __init__(self, task: _Task, prompt: Rendered) -> None:
        self._task = task
        self._prompt = prompt
        self._raw = ""
        self._sent = ""

    def take(self, piece: str) -> str:
        """The next words to send on; empty while they cannot be judged. Raises Unfit."""
        self._raw += piece
        said = _clean(self._raw)
        if len(self._raw) > 2 * REPLY_CHARS or len(said) > REPLY_CHARS:
            raise Unfit("The reply is too long.")
        if has_markup(self._raw) or _MARKDOWN.search(said) or gives_away(said, self._prompt.system):
            raise Unfit("The reply is not something a customer says.")
        # The first word may turn out to be a speaker's name.
        if " " not in said or not said.startswith(self._sent):
            return ""
        delta, self._sent = said[len(self._sent) :], said
        return delta

    def whole(self) -> str:
        said = _clean(self._raw).rstrip(_QUOTES)
        if not same_words(said):
            raise Unfit("The reply is empty.")
        if share_of_script(said, self._task.language.letters) < LETTERS_SHARE or self._foreign(said):
            raise Unfit("The reply is in another language.")
        return said

    def _foreign(self, said: str) -> bool:
        own = self._task.book.language
        return len(said.split()) >= TELLING_WORDS and guess_language(said, own) != own


def _clean(raw: str) -> str:
    """Spoken words only: no stage directions, finished or not, no quotes round it, no speaker's name."""
    said = one_line(_UNFINISHED.sub("", _DIRECTION.sub(" ", one_line(raw)))).lstrip(_QUOTES)
    return _NAMED.sub("", said)


async def _in_time(
    pieces: AsyncIterator[str | Completion], first_s: float, ends_at: float
) -> AsyncIterator[str | Completion]:
    """What `pieces` yields: the first within `first_s` seconds, all of it before `ends_at` (the loop's time).
    ProviderTimeout otherwise. The time-out stands round each step: round a yield it would cancel the reader.
    """
    due = min(asyncio.get_running_loop().time() + first_s, ends_at)
    while True:
        try:
            async with asyncio.timeout_at(due):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ProviderTimeout("The model took too long.", retryable=True) from error
        due = ends_at
        yield piece


def _moment(request: ReplyRequest) -> Moment:
    return Moment(
        request.scenario, request.customer, request.attitude, request.words, request.uses, request.script
    )


def _rng(request: ReplyRequest) -> random.Random:
    return request.rng or request.customer.random()


def _offline(task: _Task, *, degraded: bool = False) -> Reply:
    return _made(task, task.answer.text, Source.OFFLINE, degraded)


def _made(task: _Task, text: str, source: Source, degraded: bool) -> Reply:
    answer = task.answer
    return Reply(
        text,
        source,
        degraded,
        answer.attitude,
        answer.agrees,
        answer.ends,
        answer.memory,
        task.book.language,
    )


def _count(completion: Completion, meter: Meter | None) -> None:
    if meter is not None:
        meter.add(completion.usage)


def _note(error: Exception) -> bool:
    """Log why the model did not speak (its words are never logged); whether that is a loss."""
    log = logger.bind(reason=str(error) if isinstance(error, ProviderError) else None)
    if isinstance(error, NotAsked):
        log.debug("The model was not asked for the customer's words")
        return error.degraded
    if isinstance(error, ProviderError | TimeoutError):
        log.bind(error=type(error).__name__).warning("The dialogue engine speaks for the model")
    else:
        log.opt(exception=error).error("The customer's model broke; the dialogue engine speaks")
    return True


# What the model is told


def _told(task: _Task) -> dict[str, str]:
    """The variables that both prompts share."""
    request, story = task.request, task.request.scenario.story(task.book.language)
    method = request.customer.method
    attitude = method.attitude(task.answer.attitude)
    return {
        "language": task.language.name,
        "attitude": _named(attitude, task.book.language) if attitude else "-",
        "mood": _mood(request.customer, task.book),
        "who": one_line(f"{story.who}, {story.role}, {story.company}. {story.background}"),
        "facts": clip(one_line(" / ".join(lines[0] for lines in story.facts.values())), FACTS_CHARS),
        "gist": task.answer.text,
        "turns": _turns(request, task.language),
        "words": clip_start(one_line(request.words), REPLY_CHARS),
    }


def _named(attitude: Attitude, language: str) -> str:
    return f"{say(attitude.name, language)}: {say(attitude.meaning, language)}"


def _mood(customer: Customer, book: Phrasebook) -> str:
    """His dynamics in words (contract §7: below .35, .30, .40 low; above .65, .60, .70 high) and his mind."""
    now = customer.dynamics
    levels = (
        ("rapport", now.rapport, 0.35, 0.65),
        ("tension", now.tension, 0.30, 0.60),
        ("commit", now.commit, 0.40, 0.70),
    )
    names = [f"{n}_{'low' if v < low else 'high' if v > high else 'mid'}" for n, v, low, high in levels]
    return " ".join(book.moods[name] for name in (*names, f"epic_{customer.epic}"))


def _turns(request: ReplyRequest, language: Language) -> str:
    said = [
        f"{language.agent if turn.is_seller else language.customer}: {clip(one_line(turn.text), TURN_CHARS)}"
        for turn in request.turns[-TURNS:]
    ]
    return "\n".join(said) or "-"
