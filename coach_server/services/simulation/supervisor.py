"""The supervisor of a simulated talk: a model's judgement held in bounds by the rules', or the rules' alone.

The model is shown the whole talk with the persona, the trade and the client's events, and answers in one
strict form. Its answer is untrusted, for the trainee's words are in what it read: the attitude stays within
two points of where the rules put it, checks and forbidden words are the rules' alone, a step counts as done
only where its quote was said, an end only where the talk bears it, and no talk is ended for compliance
without a breach that the rules see. Any failure leaves the rules' verdict (contract simulation.md §5, §7).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from loguru import logger

from coach_server.domain.quoting import said_in
from coach_server.domain.simulation import ending
from coach_server.domain.simulation.attitude import clamp, direction_of
from coach_server.domain.simulation.checklist import DONE, OPEN
from coach_server.domain.simulation.persona import Domain, SimPersona
from coach_server.domain.simulation.scene import Scene, TalkSoFar
from coach_server.domain.simulation.talk import Outcome, StepState, TalkPhase, Verdict
from coach_server.domain.simulation.verdict import Judged, judged_by_rules
from coach_server.domain.wording import clip, has_markup, one_line, whole_sentences
from coach_server.errors import ProviderError
from coach_server.providers.llm import LLM
from coach_server.services.answers import WRONG_FORM, gives_away
from coach_server.services.asking import Asking
from coach_server.services.breaker import Breaker, NotAsked
from coach_server.services.costs import Meter
from coach_server.services.prompts import Prompts, Rendered
from coach_server.services.simulation.guidance import GuidanceWords
from coach_server.services.simulation.supervision_page import variables

PROMPT = "supervise"
DEADLINE_S = 6.0
REACH = 2.0
"""How far the model may be from the rules."""
GUIDANCE_CHARS = 240
GUIDANCE_SENTENCES = 2
MOST_TOPICS = 12
TOPIC_CHARS = 40
MOST_STEPS = 20
MODEL = "openai"
# Steps that only the rules judge.
_RULES_ALONE = frozenset({"check", "no_forbidden_words"})
_SPOKEN_LINE = re.compile(r"[\"“”„«»][^\"“”„«»]{12,}[\"“”„«»]")
_MARKS = re.compile(r"://|www\.|\[\[|\]\]", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?…]*[.!?…]+(?=\s|$)")


class Cast(Protocol):
    """With whom the talk is, about what."""

    @property
    def persona(self) -> SimPersona: ...

    @property
    def domain(self) -> Domain: ...


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the model said, with what was missing or of the wrong kind left at its default."""

    attitude: float | None
    guidance: str
    phase: TalkPhase | None
    topics: tuple[str, ...]
    is_on_track: bool
    should_end: bool
    end_reason: Outcome | None
    instant_end: bool
    steps: tuple[tuple[str, bool, str], ...]


class Supervisor:
    """`llm` None: no model is configured and the rules supervise alone. `models`: as for LLMCoach, with the
    role of the prompt (`supervisor`) or `analysis` in its place."""

    def __init__(
        self,
        llm: LLM | None,
        prompts: Prompts,
        breaker: Breaker,
        models: Mapping[str, str],
        words: GuidanceWords,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._prompts = prompts
        self._words = words
        known = {"supervisor": models["analysis"], **models} if "analysis" in models else dict(models)
        self._asking = Asking(llm, breaker, known, deadline_s) if llm is not None else None

    async def judge(self, talk: TalkSoFar, cast: Cast, language: str, meter: Meter | None = None) -> Verdict:
        """The verdict on what is new since `talk.since`. Never raises ProviderError."""
        judged = judged_by_rules(talk, cast.persona, cast.domain, language)
        spoken = replace(judged.verdict, guidance=self._words.say(judged.verdict.guidance, language))
        if self._asking is None or judged.is_breach:
            return spoken
        prompt = self._prompt(talk, cast, language, judged.verdict)
        try:
            answer = await self._asking.ask(prompt, meter, _read)
        except NotAsked as error:
            logger.bind(reason=error.message).debug("The model was not asked about a simulation")
            return spoken
        except ProviderError as error:
            logger.bind(code=error.code).warning("The model could not judge a simulation")
            return spoken
        if answer.instant_end:
            logger.warning("A model saw a breach in a simulation that the rules do not see")
        return _blend(answer, talk, judged, spoken, prompt)

    def _prompt(self, talk: TalkSoFar, cast: Cast, language: str, rules: Verdict) -> Rendered:
        named = self._prompts.language(language).name if self._prompts.speaks(language) else language[:20]
        filled = variables(talk, cast.persona, cast.domain, language, rules, named)
        return self._prompts.render(PROMPT, language, **filled)


# --- the answer as it comes


def _read(answer: dict[str, Any]) -> _Answer:
    """Raises ProviderError for an answer that says neither how the customer feels nor how to behave."""
    attitude, guidance = _number(answer.get("attitude")), answer.get("guidance")
    if attitude is None and not isinstance(guidance, str):
        raise ProviderError(WRONG_FORM)
    reason = answer.get("endReason")
    phase = answer.get("phase")
    return _Answer(
        attitude=attitude,
        guidance=guidance if isinstance(guidance, str) else "",
        phase=TalkPhase(phase) if isinstance(phase, str) and phase in list(TalkPhase) else None,
        topics=_topics(answer.get("topicsCovered")),
        is_on_track=answer.get("isOnTrack") is not False,
        should_end=answer.get("shouldEnd") is True,
        end_reason=ending.outcome_of(reason) if isinstance(reason, str) else None,
        instant_end=answer.get("instantEnd") is True,
        steps=_steps(answer.get("steps")),
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _topics(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    lines = [clip(one_line(topic), TOPIC_CHARS) for topic in value if isinstance(topic, str)]
    fit = [line for line in lines if line and not has_markup(line) and not _MARKS.search(line)]
    return tuple(dict.fromkeys(fit))[:MOST_TOPICS]


def _steps(value: object) -> tuple[tuple[str, bool, str], ...]:
    found = []
    for entry in value[:MOST_STEPS] if isinstance(value, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            quote = entry.get("quote")
            words = quote if isinstance(quote, str) else ""
            found.append((entry["id"].strip(), entry.get("done") is True, words))
    return tuple(found)


# --- what of it is believed


def _blend(answer: _Answer, talk: TalkSoFar, judged: Judged, spoken: Verdict, prompt: Rendered) -> Verdict:
    """The model's verdict in the bounds of the rules'. `spoken`: the rules' one with its words."""
    attitude = _attitude(answer, judged)
    outcome = _outcome(answer, talk, judged, attitude)
    guidance = _guidance(answer.guidance, prompt.system)
    return Verdict(
        attitude=attitude,
        direction=direction_of(attitude - judged.current),
        guidance=guidance or spoken.guidance,
        topics=answer.topics or spoken.topics,
        is_on_track=answer.is_on_track and spoken.is_on_track,
        should_end=outcome is not None,
        end_reason=outcome,
        steps=_blended_steps(answer, judged.scene, spoken.steps),
        phase=answer.phase or spoken.phase,
        source=MODEL,
    )


def _attitude(answer: _Answer, judged: Judged) -> float:
    """A model that says nothing of it leaves the attitude as it was, as far as the rules allow."""
    rules = judged.verdict.attitude
    said = clamp(judged.current if answer.attitude is None else answer.attitude, rules)
    return clamp(min(max(said, rules - REACH), rules + REACH), rules)


def _outcome(answer: _Answer, talk: TalkSoFar, judged: Judged, attitude: float) -> Outcome | None:
    """What the model wants, if the talk bears it; else what needs no judgement: a customer that leaves, and
    one that is won over altogether."""
    standing = judged.standing(talk, attitude)
    if answer.should_end and answer.end_reason is not None:
        wanted = ending.agreed(answer.end_reason, standing)
        if wanted is not None:
            return wanted
    by_rules = ending.decide(standing)
    certain = by_rules in (Outcome.COMPLIANCE_FAIL, Outcome.WALKED_AWAY) or attitude >= ending.ALTOGETHER
    return by_rules if certain else None


def _guidance(text: str, system: str) -> str:
    """At most two sentences, and only when they may be passed on: no lines to repeat, nothing of the prompt,
    no marks. Empty when not."""
    said = one_line(text)
    if _MARKS.search(said):
        return ""
    sentences = [found.group().strip() for found in _SENTENCE.finditer(said)]
    said = " ".join(sentences[:GUIDANCE_SENTENCES]) or said
    said = whole_sentences(said, GUIDANCE_CHARS) or clip(said, GUIDANCE_CHARS)
    unfit = has_markup(said) or _SPOKEN_LINE.search(said)
    return "" if unfit or gives_away(said, system) else said


def _blended_steps(answer: _Answer, scene: Scene, steps: Sequence[StepState]) -> tuple[StepState, ...]:
    """A step that the rules left open is done where the model found the trainee's words for it."""
    rule_of = {step.id: step.rule for step in scene.domain.steps}
    found = {id: quote for id, done, quote in answer.steps if done}
    return tuple(
        _upgraded(step, found[step.id], scene)
        if step.state == OPEN and step.id in found and rule_of.get(step.id) not in _RULES_ALONE
        else step
        for step in steps
    )


def _upgraded(step: StepState, quote: str, scene: Scene) -> StepState:
    for said in scene.trainee:
        words = said_in(quote, one_line(said.utterance.text))
        if words is not None:
            return StepState(step.id, DONE, words, said.sequence)
    return step
