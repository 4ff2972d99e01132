"""One question to the model and its answer, for judgements that the server can do without.

The breaker, the caps and a deadline stand round it. What comes back is a JSON object that `read` makes
something of; a text in it is used only when `usable` says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from coach_server.domain.language import guess_language
from coach_server.domain.wording import clip, has_markup, one_line, share_of_script, whole_sentences
from coach_server.errors import ProviderTimeout
from coach_server.providers.llm import LLM
from coach_server.services.answers import gives_away, json_object, llm_call
from coach_server.services.breaker import Breaker
from coach_server.services.coach_llm import chosen_model
from coach_server.services.costs import Meter
from coach_server.services.prompts import Language, Rendered

T = TypeVar("T")

# A link in a text that is mailed and shown is a way out for whoever talked to the model.
_LINK = re.compile(r"://|www\.|@\w+\.\w", re.IGNORECASE)
# Words of both English and Dutch: in a short text they would outvote the others.
_SHARED = re.compile(r"\b(?:is|of|was|me|we|door|even)\b", re.IGNORECASE)


class Asking:
    """`models` maps a prompt's role to a model name, for questions without a meter."""

    def __init__(self, llm: LLM, breaker: Breaker, models: Mapping[str, str], deadline_s: float) -> None:
        self._llm = llm
        self._breaker = breaker
        self._models = models
        self._deadline_s = deadline_s

    async def ask(self, prompt: Rendered, meter: Meter | None, read: Callable[[dict[str, Any]], T]) -> T:
        """What `read` makes of the answer. Raises ProviderError, also the one that `read` raises; NotAsked
        when the breaker is open or a cap is reached."""
        with self._breaker.guard():
            call = llm_call(prompt, chosen_model(prompt, self._models, meter), self._deadline_s)
            try:
                async with asyncio.timeout(self._deadline_s):
                    completion = await self._llm.complete(call)
            except TimeoutError as error:
                raise ProviderTimeout() from error
            if meter is not None:
                # An answer that cannot be used has been paid for as well.
                meter.add(completion.usage)
            return read(json_object(completion.text))


def usable(text: str, limit: int, system: str, language: Language) -> str:
    """As much of `text` as fits, on one line, whole sentences where that is possible. Empty when it may not
    be shown: it is marked up, has a link, gives the prompt away or is in another language."""
    said = one_line(text)
    clean = whole_sentences(said, limit) or clip(said, limit)
    if not clean or has_markup(clean) or _LINK.search(clean) or gives_away(clean, system):
        return ""
    return clean if _in_language(clean, language) else ""


def _in_language(text: str, language: Language) -> bool:
    right_letters = share_of_script(text, language.letters) >= 0.5
    telling = _SHARED.sub(" ", text)
    return right_letters and guess_language(telling, default=language.code) == language.code
