"""A language model behind two verbs. Vendor files in this folder; their JSON shapes die inside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """`role` is "system" or "user". Words of a call go only into user messages."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class LLMCall:
    """One request. `schema` is a strict JSON schema (every property required, no additional ones) named
    `schema_name`, or None for plain text. `cache_key` names the stable prefix for the vendor's cache.
    `deadline_s` is the total time allowed, retry included."""

    model: str
    messages: tuple[Message, ...]
    schema_name: str | None = None
    schema: Mapping[str, Any] | None = None
    temperature: float = 0.3
    max_tokens: int = 400
    cache_key: str | None = None
    deadline_s: float = 3.5


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the vendor counted them. `cached_tokens` are part of `input_tokens`."""

    model: str
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    text: str
    usage: Usage


class LLM(Protocol):
    async def complete(self, call: LLMCall) -> Completion:
        """The whole answer. Raises ProviderError (also on refusal, empty or cut answers)."""
        ...

    def stream(self, call: LLMCall) -> AsyncIterator[str | Completion]:
        """Pieces of text as they come, then one Completion with the whole text and usage."""
        ...

    async def model_shutdowns(self) -> dict[str, str]:
        """Model id -> announced shutdown date (YYYY-MM-DD), for the models whose vendor tells one."""
        ...

    async def close(self) -> None: ...
