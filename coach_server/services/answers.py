"""The forms a model's answer may have, and the first look at it. What it says is judged by who asked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from coach_server.domain.method.methodology import SubScore
from coach_server.domain.method.turns import Quality
from coach_server.domain.simulation.ending import END_REASONS
from coach_server.domain.simulation.scorecard import Category
from coach_server.domain.simulation.talk import Direction, TalkPhase
from coach_server.domain.tip import Stage
from coach_server.domain.wording import same_words
from coach_server.errors import ProviderError
from coach_server.providers.llm import LLMCall, Message
from coach_server.services.prompts import Rendered

WRONG_FORM = "The model's answer has the wrong form."
LEAK_WORDS = 6


def _strict(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """A strict object: every property required, no others. Models write them in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_SCORE = {"type": "integer"}
_SCORE_OR_NONE = {"anyOf": [_SCORE, {"type": "null"}]}
_THREE = {"type": "array", "items": _TEXT, "minItems": 3, "maxItems": 3}


def _list_of(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": _strict(**properties)}


# What may be wrong with a reply of the simulated customer (roleplay-hugo.md §7).
REPLY_VALID = "VALID"
REPLY_LABELS = (
    REPLY_VALID,
    "WRONG_MODE",
    "TOO_DIRECTIVE",
    "MIXED_SIGNALS",
    "NOT_LISTENING",
    "IGNORES_HISTORY",
)

# By the name that stands as `output` in a prompt. Short on purpose: vendors count them as input, every time.
SCHEMAS: Mapping[str, Mapping[str, Any] | None] = {
    "text": None,
    "tip": _strict(
        stage={"type": "string", "enum": [stage.value for stage in Stage]},
        heading=_TEXT,
        minimal=_TEXT,
        explanative=_TEXT,
        contextual=_TEXT,
        context=_TEXT,
    ),
    "choice": _strict(heading=_TEXT, lines=_THREE, context=_TEXT),
    "replies": _strict(responses=_THREE, context=_TEXT),
    "reply_check": _strict(
        label={"type": "string", "enum": list(REPLY_LABELS)},
        repaired=_TEXT,
    ),
    "summary": _strict(summary=_TEXT, did_well=_TEXTS, do_better=_TEXTS, next_step=_TEXT),
    "evaluation": _strict(
        techniques=_list_of(
            id=_TEXT,
            quote=_TEXT,
            # Asked for, so that the model tells what was done from what was only announced.
            done={"type": "boolean"},
            quality={"type": "string", "enum": [quality.value for quality in Quality]},
            rationale=_TEXT,
        )
    ),
    # What the simulation's supervisor answers (contract simulation.md §5).
    "supervision": _strict(
        attitude={"type": "number"},
        attitudeDirection={"type": "string", "enum": [direction.value for direction in Direction]},
        phase={"type": "string", "enum": [phase.value for phase in TalkPhase]},
        guidance=_TEXT,
        topicsCovered=_TEXTS,
        isOnTrack={"type": "boolean"},
        steps=_list_of(id=_TEXT, done={"type": "boolean"}, quote=_TEXT),
        shouldEnd={"type": "boolean"},
        endReason={"anyOf": [{"type": "string", "enum": list(END_REASONS)}, {"type": "null"}]},
        instantEnd={"type": "boolean"},
    ),
    # The categories of a simulation's score (seed 001). The overall score follows from them.
    "simulation_score": _strict(
        categories=_strict(**{category.value: _SCORE_OR_NONE for category in Category}),
        highlights=_list_of(text=_TEXT, quote=_TEXT),
        improvements=_list_of(text=_TEXT, quote=_TEXT),
        summary=_TEXT,
    ),
    # The names of the seed's analysis; its map of technique scores is a list here, for a strict schema has no
    # free keys.
    "assessment": _strict(
        techniqueScores=_list_of(id=_TEXT, quote=_TEXT, score=_SCORE),
        subScores=_strict(**{sub_score.value: _SCORE_OR_NONE for sub_score in SubScore}),
        overallScore=_SCORE,
        highlights=_list_of(type={"type": "string", "enum": ["good", "warning"]}, text=_TEXT, quote=_TEXT),
        advice=_TEXT,
        nextStepSuggestion=_TEXT,
    ),
}


def llm_call(prompt: Rendered, model: str, deadline_s: float) -> LLMCall:
    """The system text first and alone in its role; everything that varies in the user's."""
    settings = prompt.settings
    schema = SCHEMAS[settings.output]
    return LLMCall(
        model=model,
        messages=(Message("system", prompt.system), Message("user", prompt.user)),
        schema_name=settings.output if schema else None,
        schema=schema,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        cache_key=settings.cache_key,
        deadline_s=deadline_s,
    )


def json_object(text: str) -> dict[str, Any]:
    """The object in `text`, also where a model put a fence or a sentence round it. ProviderError without."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ProviderError(WRONG_FORM)
    return found


def gives_away(text: str, system: str) -> bool:
    """Whether `text` says a sentence of the prompt (six words or more of it in a row)."""
    spoken = same_words(text)
    return any(sentence in spoken for sentence in _telling(system))


@lru_cache(maxsize=64)
def _telling(system: str) -> tuple[str, ...]:
    """The sentences of a prompt that are long enough to be recognised; there are few prompts."""
    sentences = (same_words(part) for part in re.split(r"[.:;\n]", system))
    return tuple(sentence for sentence in sentences if len(sentence.split()) >= LEAK_WORDS)
