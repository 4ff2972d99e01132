"""What a model sees in one turn of the seller: at most two techniques of the method, each with its words.

Its answer is untrusted. An id that the method does not have, words that the seller did not say, a technique
that has no place in this phase or is only announced: each is dropped, and what is left stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loguru import logger
from pydantic import BaseModel, ValidationError

from coach_server.domain.method.methodology import Methodology, Technique, say, sort_key
from coach_server.domain.method.turns import MOST_TECHNIQUES, Quality, TechniqueUse, Turn
from coach_server.domain.quoting import said_in
from coach_server.domain.wording import clip, clip_start, one_line
from coach_server.errors import ProviderError
from coach_server.providers.llm import LLM
from coach_server.services.answers import WRONG_FORM
from coach_server.services.asking import Asking, usable
from coach_server.services.breaker import Breaker, NotAsked
from coach_server.services.costs import Meter
from coach_server.services.prompts import Language, Prompts, Rendered

PROMPT = "evaluate"
DEADLINE_S = 6.0
TURNS_SHOWN = 6
TURN_CHARS = 240
SELLER_CHARS = 1200
WHAT_CHARS = 90
RATIONALE_CHARS = 200
MOST_READ = 10
# A model's eye is a good one, not a certain one.
CONFIDENCE = 0.9
NOTHING = "-"


class _Found(BaseModel):
    id: str
    quality: str
    quote: str = ""
    rationale: str = ""
    done: bool = True


class _Answer(BaseModel):
    techniques: list[_Found]


class TurnJudge:
    """`models`: as for LLMCoach."""

    def __init__(
        self,
        llm: LLM,
        prompts: Prompts,
        breaker: Breaker,
        models: Mapping[str, str],
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._prompts = prompts
        self._asking = Asking(llm, breaker, models, deadline_s)

    async def judge(
        self,
        method: Methodology,
        turns_before: Sequence[Turn],
        seller_text: str,
        phase: int,
        language: str,
        meter: Meter | None = None,
    ) -> tuple[TechniqueUse, ...] | None:
        """The techniques used in this turn, the surest first; empty when there are none. None when the model
        did not answer in time or usefully: then the rules' own reading stands."""
        known = self._prompts.language(language)
        allowed = _allowed(method, phase)
        prompt = self._prompts.render(
            PROMPT,
            language,
            language=known.name,
            phase=_phase_name(method, phase, language),
            techniques=_lines(allowed, language),
            call=_call_text(turns_before, known),
            turn=f"{known.agent}: {clip(one_line(seller_text), SELLER_CHARS)}",
        )
        try:
            answer = await self._asking.ask(prompt, meter, _read)
        except NotAsked as error:
            logger.bind(reason=error.message).debug("The model was not asked about a turn")
            return None
        except ProviderError as error:
            logger.bind(code=error.code).warning("The model could not judge a turn")
            return None
        return _uses(answer, method, seller_text, phase, prompt, known)


def _read(answer: dict[str, Any]) -> list[_Found]:
    try:
        return _Answer.model_validate(answer).techniques[:MOST_READ]
    except ValidationError:
        # Not chained: pydantic's message quotes the answer.
        raise ProviderError(WRONG_FORM) from None


def _uses(
    found: Sequence[_Found],
    method: Methodology,
    seller_text: str,
    phase: int,
    prompt: Rendered,
    language: Language,
) -> tuple[TechniqueUse, ...]:
    """One use for each step, the model's order kept."""
    uses: dict[str, TechniqueUse] = {}
    for one in found:
        technique = method.find(one.id.strip())
        quote = said_in(one.quote, one_line(seller_text))
        if technique is None or quote is None or not one.done or not _has_place(technique, phase):
            continue
        quality = _quality(one.quality, technique, phase)
        if quality is not None:
            why = usable(one.rationale, RATIONALE_CHARS, prompt.system, language)
            use = TechniqueUse(technique.id, quality, quote, why, CONFIDENCE)
            uses.setdefault(technique.step_id or technique.id, use)
    return tuple(uses.values())[:MOST_TECHNIQUES]


def _quality(said: str, technique: Technique, phase: int) -> Quality | None:
    """None for a quality of the model's own invention. A technique that is forbidden here is used wrongly,
    however well."""
    if said not in list(Quality):
        return None
    return Quality.GEMIST if phase in technique.forbidden else Quality(said)


def _has_place(technique: Technique, phase: int) -> bool:
    return not technique.phases or phase in technique.phases or phase in technique.forbidden


def _allowed(method: Methodology, phase: int) -> list[Technique]:
    there = [technique for technique in method.techniques if _has_place(technique, phase)]
    return sorted(there, key=lambda technique: sort_key(technique.id))


def _lines(techniques: Sequence[Technique], language: str) -> str:
    return "\n".join(technique_line(technique, language, WHAT_CHARS) for technique in techniques) or NOTHING


def technique_line(technique: Technique, language: str, what_chars: int) -> str:
    """`2.1.5 | Pingpong techniek: what it is`, as models are shown it."""
    what = clip(one_line(say(technique.what, language)), what_chars)
    return f"{technique.id} | {say(technique.name, language)}: {what}"


def _phase_name(method: Methodology, phase: int, language: str) -> str:
    return next((say(known.name, language) for known in method.phases if known.id == phase), str(phase))


def _call_text(turns: Sequence[Turn], language: Language) -> str:
    lines = [
        f"{language.agent if turn.is_seller else language.customer}: "
        f"{clip_start(one_line(turn.text), TURN_CHARS)}"
        for turn in turns[-TURNS_SHOWN:]
    ]
    return "\n".join(lines) or NOTHING
