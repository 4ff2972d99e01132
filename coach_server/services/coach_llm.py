"""The coach by prompts and a language model.

    free mode       the model writes three scripts
    playbook mode   the model picks three of the lines it is shown; the words come from the playbook

What goes to the model is small on purpose: the last turns, trimmed, the known facts, the newest tips; in
playbook mode the candidate lines only. What comes back is untrusted: a tip that is malformed, too long,
marked up or in other letters, that gives the prompt away, repeats a recent tip or goes back behind the floor
is refused with a ProviderError, and the offline coach speaks.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import from_json

from coach_server.domain import stage as stages
from coach_server.domain.playbook import fill
from coach_server.domain.tip import (
    CONTEXT_CHARS,
    HEADING_CHARS,
    HEADING_WORDS,
    SCRIPT_CHARS,
    Label,
    Source,
    Stage,
    Tip,
    TipOption,
    TipRequest,
    Trigger,
)
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.domain.wording import (
    clip,
    clip_start,
    has_markup,
    one_line,
    same_words,
    share_of_script,
    whole_sentences,
)
from coach_server.errors import ProviderError
from coach_server.providers.llm import LLM, Completion, LLMCall
from coach_server.services.answers import WRONG_FORM, gives_away, json_object, llm_call
from coach_server.services.breaker import NotAsked, Unfit
from coach_server.services.coach import TipChunk, closing
from coach_server.services.costs import Meter, Spending
from coach_server.services.prompts import Language, Prompts, Rendered

TURNS = 8
# Choosing a line needs less of the call than writing one.
TURNS_TO_CHOOSE = 6
TURN_CHARS = 200
FACTS = 12
FACTS_CHARS = 400
AVOID_SHOWN = 6
AVOID_CHARS = 50
LINES_SHOWN = 6
LINE_CHARS = 100
WHY_CHARS = 160
# Three scripts, a heading and a context fit in; a longer answer is no tip and is not worth watching grow.
WATCHED_CHARS = 4000
NOTHING = "-"
_KEYS = ("minimal", "explanative", "contextual")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A playbook line, filled in and ready to be spoken."""

    id: str
    stage: Stage
    text: str


class LineSource(Protocol):
    """The playbook lines that fit a request, best first. Empty when its playbook is unknown."""

    def candidates(self, request: TipRequest) -> Sequence[tuple[str, Stage, str]]: ...


@dataclass(frozen=True, slots=True)
class _Task:
    """One request on its way to the model and back."""

    request: TipRequest
    prompt: Rendered
    language: Language
    lines: tuple[Candidate, ...] = ()


class LLMCoach:
    """A MeteredCoach. `models` maps a prompt's role to a model name, for requests without a meter."""

    def __init__(
        self,
        llm: LLM,
        prompts: Prompts,
        models: Mapping[str, str],
        lines: LineSource | None = None,
        deadline_s: float = 3.5,
    ) -> None:
        self._llm = llm
        self._prompts = prompts
        self._models = models
        self._lines = lines
        self._deadline_s = deadline_s

    async def tip(self, request: TipRequest, meter: Meter | None = None) -> Tip:
        """Raises ProviderError: NotAsked before, Unfit after an answer that does not suit this call."""
        task = self._task(request)
        completion = await self._llm.complete(self._call(task, meter))
        return self._read(task, completion, meter)

    async def stream(self, request: TipRequest, meter: Meter | None = None) -> AsyncIterator[TipChunk | Tip]:
        """As `tip`, with the scripts as they grow. Chunks are cleaned but not yet judged: only the Tip is."""
        task = self._task(request)
        growing = Growing()
        async with closing(self._llm.stream(self._call(task, meter))) as pieces:
            async for piece in pieces:
                if isinstance(piece, Completion):
                    yield self._read(task, piece, meter)
                elif not task.lines:
                    for chunk in growing.feed(piece):
                        yield chunk

    def _task(self, request: TipRequest) -> _Task:
        language = self._prompts.language(request.language)
        # A language without prompts of its own is still named, so that the tip comes in it.
        named = language.name if self._prompts.speaks(request.language) else clip(request.language, 20)
        shown: dict[str, str] = {
            "language": named,
            "stage": request.stage.value + (", after a clear no" if request.refused else ""),
            "facts": _facts(request),
            "call": _call_text(request, language, TURNS if request.playbook is None else TURNS_TO_CHOOSE),
        }
        if request.playbook is not None:
            lines = self._candidates(request)
            shown["lines"] = "\n".join(f"{c.id} | {clip(c.text, LINE_CHARS)}" for c in lines)
            return _Task(request, self._prompts.render("choose", request.language, **shown), language, lines)
        shown["avoid"] = " / ".join(clip(s, AVOID_CHARS) for s in request.avoid[-AVOID_SHOWN:]) or NOTHING
        if request.trigger is Trigger.ALTERNATIVE and request.alternative_to:
            name, shown["instead_of"] = "alternative", clip(request.alternative_to, TURN_CHARS)
        elif request.exchange is not None:
            name, shown["suggested"] = "next_tip", clip(request.exchange.suggested, TURN_CHARS)
        else:
            name = "tip"
        return _Task(request, self._prompts.render(name, request.language, **shown), language)

    def _candidates(self, request: TipRequest) -> tuple[Candidate, ...]:
        found = self._lines.candidates(request) if self._lines else ()
        seen = {same_words(script) for script in request.avoid}
        fresh = (
            Candidate(*line)
            for line in found
            if line[0] not in request.avoid_lines and same_words(line[2]) not in seen
        )
        allowed = [line for line in fresh if not _behind_floor(line.stage, request)][:LINES_SHOWN]
        if len(allowed) < len(Label):
            raise NotAsked("The playbook has too few lines left to choose from.", degraded=False)
        return tuple(allowed)

    def _call(self, task: _Task, meter: Meter | None) -> LLMCall:
        return llm_call(task.prompt, chosen_model(task.prompt, self._models, meter), self._deadline_s)

    def _read(self, task: _Task, completion: Completion, meter: Meter | None) -> Tip:
        if meter is not None:
            # An answer that is refused has been paid for as well.
            meter.add(completion.usage)
        answer = json_object(completion.text)
        return _chosen(answer, task) if task.lines else _written(answer, task)


def chosen_model(prompt: Rendered, models: Mapping[str, str], meter: Meter | None) -> str:
    """The model for a prompt; the prompt's own one unless money is short. Raises NotAsked at the cap."""
    settings = prompt.settings
    if meter is None:
        return settings.model or models[settings.role]
    model = meter.model_for(settings.role)
    if model is None:
        raise NotAsked("The cost cap is reached.")
    return settings.model if settings.model and meter.spending is Spending.FULL else model


# What the model is told


def _facts(request: TipRequest) -> str:
    known = {
        key.strip("[] "): value for key, value in (*request.placeholders.items(), *request.facts.items())
    }
    told = [f"{key.replace('_', ' ')}: {one_line(value)}" for key, value in known.items() if value]
    return clip("; ".join(told[-FACTS:]), FACTS_CHARS) or NOTHING


def _call_text(request: TipRequest, language: Language, count: int) -> str:
    """The last turns, one a line: `Agent: words`. Segments of one speaker in a row are one turn."""
    names = {Speaker.AGENT: language.agent, Speaker.CUSTOMER: language.customer}
    turns = [
        (speaker, one_line(" ".join(u.text for u in group)))
        for speaker, group in groupby(request.utterances, key=_speaker)
    ]
    turns += _missing_turns(request, turns)
    lines = [f"{names[speaker]}: {clip_start(words, TURN_CHARS)}" for speaker, words in turns[-count:]]
    return "\n".join(lines) or NOTHING


def _missing_turns(request: TipRequest, turns: Sequence[tuple[Speaker, str]]) -> list[tuple[Speaker, str]]:
    """What a client captured itself and the transcript does not have: the exchange is told once only."""
    if request.exchange is None:
        return []
    heard = same_words(" ".join(words for _, words in turns))
    captured = (
        (Speaker.AGENT, one_line(request.exchange.agent_words)),
        (Speaker.CUSTOMER, one_line(request.exchange.customer_words)),
    )
    return [(speaker, words) for speaker, words in captured if words and same_words(words) not in heard]


def _speaker(utterance: Utterance) -> Speaker:
    return utterance.speaker


# What the model answers


class _Answer(BaseModel):
    """Cleaned before it is checked: pydantic refuses lone surrogates instead of leaving them out."""

    heading: str
    context: str = ""

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, data: Any) -> Any:
        return _cleaned(data)


class _Written(_Answer):
    stage: str | None = None
    minimal: str
    explanative: str
    contextual: str

    @model_validator(mode="before")
    @classmethod
    def _from_options(cls, data: Any) -> Any:
        """The form of the seed, `options: [{label, script}]` with three of them, from models that know no
        schema. Labels are ours, so their order decides."""
        options = data.get("options") if isinstance(data, dict) else None
        if not isinstance(options, list) or len(options) != len(_KEYS):
            return data
        scripts = [option.get("script") if isinstance(option, dict) else None for option in options]
        return {**data, **dict(zip(_KEYS, scripts, strict=True))}


class _Choice(_Answer):
    lines: list[str]


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, list):
        return [one_line(item) if isinstance(item, str) else item for item in value[:50]]
    if isinstance(value, dict):
        return {key: _cleaned(item) if not isinstance(item, dict) else item for key, item in value.items()}
    return value


def _written(data: dict[str, Any], task: _Task) -> Tip:
    try:
        answer = _Written.model_validate(data)
    except ValidationError:
        # Not chained: pydantic's message quotes the answer.
        raise ProviderError(WRONG_FORM) from None
    request = task.request
    stage = _stage(answer.stage, request)
    scripts = [_script(text, task) for text in (answer.minimal, answer.explanative, answer.contextual)]
    _check_language(" ".join(scripts), task)
    _check_new(scripts, request)
    options = [TipOption(label, script) for label, script in zip(Label, scripts, strict=True)]
    return _tip(stage, answer, options, request)


def _chosen(data: dict[str, Any], task: _Task) -> Tip:
    try:
        answer = _Choice.model_validate(data)
    except ValidationError:
        raise ProviderError(WRONG_FORM) from None
    known = {line.id: line for line in task.lines}
    lines = [known[line_id] for line_id in dict.fromkeys(answer.lines) if line_id in known]
    if len(lines) != len(Label) or len(answer.lines) != len(Label):
        raise ProviderError("The model chose lines that were not offered.")
    options = [TipOption(label, line.text, line.id) for label, line in zip(Label, lines, strict=True)]
    return _tip(lines[0].stage, answer, options, task.request)


def _tip(stage: Stage, answer: _Answer, options: Sequence[TipOption], request: TipRequest) -> Tip:
    minimal, explanative, contextual = options
    context = "" if has_markup(answer.context) else clip(answer.context, CONTEXT_CHARS)
    return Tip(
        stage=stage,
        heading=_heading(answer.heading),
        context=context,
        options=(minimal, explanative, contextual),
        source=Source.OPENAI,
        why=_why(request),
    )


def _heading(text: str) -> str:
    words = text.split()[:HEADING_WORDS]
    if not words or has_markup(text):
        raise ProviderError(WRONG_FORM)
    both = " ".join(words)
    return both if len(both) <= HEADING_CHARS else clip(words[0], HEADING_CHARS)


def _stage(said: str | None, request: TipRequest) -> Stage:
    """The model's stage where it is one; its own invention is only a label, and ours stands instead."""
    stage = request.stage
    if said is not None and said in Stage.__members__ and request.trigger is not Trigger.ALTERNATIVE:
        stage = Stage(said)
    if _behind_floor(stage, request):
        raise Unfit("The model went back to an earlier stage.")
    return stage


def _behind_floor(stage: Stage, request: TipRequest) -> bool:
    return request.floor is not None and stages.rank(stage) < stages.rank(request.floor)


def _script(text: str, task: _Task) -> str:
    request = task.request
    script = whole_sentences(fill(text, {**request.facts, **request.placeholders}), SCRIPT_CHARS)
    if not same_words(script) or has_markup(script) or gives_away(script, task.prompt.system):
        raise ProviderError(WRONG_FORM)
    return script


def _check_language(text: str, task: _Task) -> None:
    """A language we know must come in its own letters."""
    own = task.language.code == re.split("[-_]", task.request.language.lower())[0]
    if own and share_of_script(text, task.language.letters) < 0.5:
        raise ProviderError("The model answered in another language.")


def _check_new(scripts: Sequence[str], request: TipRequest) -> None:
    said = [same_words(script) for script in scripts]
    if len(set(said)) < len(said):
        raise ProviderError("The model's options are the same.")
    if not set(said).isdisjoint(same_words(script) for script in request.avoid):
        raise Unfit("The model repeated a recent tip.")


def _why(request: TipRequest) -> str | None:
    """The customer's last words: the quote that the tip answers. Ours, so that no quote is ever invented."""
    for utterance in reversed(request.utterances):
        if utterance.speaker is Speaker.CUSTOMER and (words := one_line(utterance.text)):
            return clip(words, WHY_CHARS)
    return None


class Growing:
    """Finds the scripts in an answer that is still being written."""

    def __init__(self) -> None:
        self._text = ""
        self._told = [""] * len(_KEYS)

    def feed(self, piece: str) -> list[TipChunk]:
        """The new words of the scripts, cleaned. What breaks the JSON simply yields nothing more."""
        self._text += piece
        start = self._text.find("{")
        if start < 0 or len(self._text) > WATCHED_CHARS:
            return []
        try:
            so_far = from_json(self._text[start:].encode("utf-8", "ignore"), allow_partial="trailing-strings")
        except ValueError:
            return []
        chunks = (self._grown(number, text) for number, text in enumerate(_scripts(so_far)))
        return [chunk for chunk in chunks if chunk is not None]

    def _grown(self, number: int, text: object) -> TipChunk | None:
        if not isinstance(text, str) or "<" in text:
            return None
        script, told = one_line(text)[:SCRIPT_CHARS], self._told[number]
        if len(script) <= len(told) or not script.startswith(told):
            return None
        self._told[number] = script
        return TipChunk(script[len(told) :], number + 1)


def _scripts(answer: object) -> list[object]:
    """The three scripts as far as they are there, in either form of a tip."""
    if not isinstance(answer, dict):
        return []
    options = answer.get("options")
    if isinstance(options, list):
        return [o.get("script") if isinstance(o, dict) else None for o in options[: len(_KEYS)]]
    return [answer.get(key) for key in _KEYS]
