"""`POST /api/ai/generate`: three things to say next, or what a sceptical customer would answer.

With a model by its prompts, else by the offline coach and the language's own lines; never without an answer.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

from loguru import logger
from pydantic import BaseModel, ValidationError, model_validator

from coach_server.domain.language import guess_language
from coach_server.domain.tip import Stage, TipRequest, Trigger
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.domain.wording import clip_start, has_markup, one_line, same_words, whole_sentences
from coach_server.errors import Invalid, ProviderError
from coach_server.providers.llm import LLM
from coach_server.services.answers import WRONG_FORM, gives_away, json_object, llm_call
from coach_server.services.breaker import Breaker
from coach_server.services.coach import Coach
from coach_server.services.coach_llm import chosen_model
from coach_server.services.costs import CostGovernor, Meter
from coach_server.services.prompts import Prompts, Rendered

SALES_COACH = "sales-coach"
SKEPTICAL_CUSTOMER = "skeptical-customer"
PERSONAS = (SALES_COACH, SKEPTICAL_CUSTOMER)
CONTEXT_CHARS = 8000
# The end of a long context is what is going on now.
CONTEXT_SHOWN = 3000
WORDS = 20
REPLY_CHARS = 600


class Generator:
    """`llm` None: no model is configured. `models` as for LLMCoach. `governor` counts what no call's meter
    counts, so that the day's cap holds here too."""

    def __init__(
        self,
        llm: LLM | None,
        prompts: Prompts,
        models: Mapping[str, str],
        offline: Coach,
        breaker: Breaker,
        deadline_s: float = 8.0,
        governor: CostGovernor | None = None,
    ) -> None:
        self._llm = llm
        self._prompts = prompts
        self._models = models
        self._offline = offline
        self._breaker = breaker
        self._deadline_s = deadline_s
        self._governor = governor

    async def generate(
        self, persona: str, context: str, language: str | None = None, meter: Meter | None = None
    ) -> str:
        """For sales-coach a JSON string `{"responses": [3 texts of at most 20 words], "context": text}`, for
        skeptical-customer plain text. `language` None: that of the context.

        Raises Invalid for an empty or too long context and for another persona.
        """
        if not isinstance(context, str) or not context.strip():
            raise Invalid("Context is required", field="context")
        if len(context) > CONTEXT_CHARS:
            raise Invalid("Context is too long", field="context")
        if persona not in PERSONAS:
            raise Invalid("Invalid persona", field="persona")
        code = language or guess_language(context)
        if meter is None and self._governor is not None:
            meter = self._governor.meter()
        if self._llm is not None:
            try:
                with self._breaker.guard():
                    return await self._by_model(self._llm, persona, context, code, meter)
            except ProviderError as error:
                logger.bind(reason=str(error)).warning("The offline coach answers for the model")
            except Exception as error:
                logger.opt(exception=error).error("The model broke; the offline coach answers")
        if persona == SALES_COACH:
            return await self._coach_offline(context, code)
        return self._customer_offline(context, code)

    async def _by_model(
        self, llm: LLM, persona: str, context: str, language: str, meter: Meter | None
    ) -> str:
        name = "generate_coach" if persona == SALES_COACH else "generate_customer"
        shown = clip_start(one_line(context), CONTEXT_SHOWN)
        named = self._prompts.language(language).name if self._prompts.speaks(language) else language[:20]
        prompt = self._prompts.render(name, language, language=named, context=shown)
        model = chosen_model(prompt, self._models, meter)
        completion = await llm.complete(llm_call(prompt, model, self._deadline_s))
        if meter is not None:
            meter.add(completion.usage)
        return _replies(completion.text) if persona == SALES_COACH else _reply(completion.text, prompt)

    async def _coach_offline(self, context: str, language: str) -> str:
        """The offline coach's tip for a customer who said the context."""
        heard = Utterance(1, Speaker.CUSTOMER, clip_start(one_line(context), CONTEXT_SHOWN), 0.0, 0.0)
        request = TipRequest(1, Trigger.NEXT_TIP, language, Stage.DISCOVERY, (heard,))
        tip = await self._offline.tip(request)
        return _document([option.script for option in tip.options], tip.context)

    def _customer_offline(self, context: str, language: str) -> str:
        """One of the language's doubts; the same context gets the same one."""
        doubts = self._prompts.language(language).doubts
        return doubts[zlib.crc32(same_words(context).encode()) % len(doubts)]


class _Replies(BaseModel):
    responses: list[str]
    context: str = ""

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        responses = data.get("responses")
        if isinstance(responses, list):
            responses = [one_line(r) if isinstance(r, str) else r for r in responses[:50]]
        context = data.get("context")
        return {"responses": responses, "context": one_line(context) if isinstance(context, str) else ""}


def _replies(text: str) -> str:
    try:
        answer = _Replies.model_validate(json_object(text))
    except ValidationError:
        raise ProviderError(WRONG_FORM) from None
    said = [answer.context, *answer.responses]
    if len({same_words(r) for r in answer.responses} - {""}) != 3 or any(has_markup(s) for s in said):
        raise ProviderError(WRONG_FORM)
    return _document(answer.responses, answer.context)


def _reply(text: str, prompt: Rendered) -> str:
    reply = whole_sentences(one_line(text), REPLY_CHARS)
    if not same_words(reply) or has_markup(reply) or gives_away(reply, prompt.system):
        raise ProviderError(WRONG_FORM)
    return reply


def _document(responses: list[str], context: str) -> str:
    brief = [_brief(response) for response in responses[:3]]
    return json.dumps({"responses": brief, "context": context}, ensure_ascii=False)


def _brief(text: str) -> str:
    """At most twenty words: the first sentences that fit, else the first words."""
    words = text.split()
    if len(words) <= WORDS:
        return text
    start = " ".join(words[:WORDS])
    return whole_sentences(text, len(start)) or f"{start}…"
