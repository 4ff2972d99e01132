"""What the models cost, and who may still spend: prices, a meter for each conversation, caps.

Sums are whole pico-USD (tokens times micro-USD per million tokens), so nothing is lost in rounding. Below
half of a cap the usual model answers, above it the cheaper one, at the cap none: then the offline coach does.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coach_server.clock import Clock
from coach_server.errors import ConfigError
from coach_server.providers.llm import Usage

PICO_PER_MICRO = 1_000_000
PICO_PER_USD = 10**12
SOFT_SHARE = 0.5
_DAY_S = 86_400


class Price(BaseModel):
    """Micro-USD for a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: int = Field(ge=0)
    cached: int = Field(ge=0)
    output: int = Field(ge=0)


class _PriceFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    unknown: Price
    models: dict[str, Price] = {}


class Prices:
    """A price for every model name. Read it with `load`."""

    def __init__(self, models: Mapping[str, Price], unknown: Price) -> None:
        self._models = dict(sorted(models.items(), key=lambda item: -len(item[0])))
        self._unknown = unknown

    @classmethod
    def load(cls, path: Path) -> Prices:
        """Raises ConfigError naming the file and the field."""
        try:
            made = _PriceFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"line (\d+)", str(error))
            raise ConfigError(f"{path}:{found[1] if found else 1}: is not valid TOML") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        return cls(made.models, made.unknown)

    def of(self, model: str) -> Price:
        for name, price in self._models.items():
            if model == name or model.startswith(f"{name}-20"):
                return price
        return self._unknown

    def cost(self, usage: Usage) -> int:
        """Pico-USD."""
        price = self.of(usage.model)
        fresh = max(0, usage.input_tokens - usage.cached_tokens)
        return fresh * price.input + usage.cached_tokens * price.cached + usage.output_tokens * price.output


@dataclass(slots=True)
class Spent:
    """Tokens and money of a conversation, a day, or a model since the start."""

    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    pico_usd: int = 0

    @property
    def micro_usd(self) -> int:
        """Rounded up: a call that cost something never shows as free."""
        return -(-self.pico_usd // PICO_PER_MICRO)

    def add(self, usage: Usage, pico_usd: int) -> None:
        self.calls += 1
        self.input_tokens += usage.input_tokens
        self.cached_tokens += usage.cached_tokens
        self.output_tokens += usage.output_tokens
        self.pico_usd += pico_usd

    def public(self) -> dict[str, Any]:
        """As clients are told; money in micro-USD."""
        return {
            "modelCalls": self.calls,
            "inputTokens": self.input_tokens,
            "cachedTokens": self.cached_tokens,
            "outputTokens": self.output_tokens,
            "costMicroUsd": self.micro_usd,
        }

    def to_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in _SUMS}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Spent:
        """What is missing or no count is zero: a broken counter must not keep a call from coming back."""
        return cls(**{name: _count(state.get(name)) for name in _SUMS})


_SUMS = ("calls", "input_tokens", "cached_tokens", "output_tokens", "pico_usd")


class Spending(StrEnum):
    """What the caps still allow."""

    FULL = "full"
    CHEAP = "cheap"
    NONE = "none"


@dataclass(slots=True)
class CostGovernor:
    """The caps of the whole server. `models` maps a prompt's role to a model (an unlisted role gets the cheap
    one); a cap of 0 is no cap.

    Days are UTC. `today` is what this process spent; `elsewhere_pico_usd` what others did, or this one before
    its restart, as `services.day_costs` learns it from the database.
    """

    prices: Prices
    models: Mapping[str, str]
    cheap_model: str
    cap_call_usd: float
    cap_day_usd: float
    clock: Clock
    soft_share: float = SOFT_SHARE
    elsewhere_pico_usd: int = 0
    _day: int = 0
    _today: Spent = field(default_factory=Spent)
    _by_model: dict[str, Spent] = field(default_factory=dict)

    def meter(self, cap_usd: float | None = None) -> Meter:
        """The meter of a new conversation. `cap_usd`: its own cap in place of `cap_call_usd`."""
        return Meter(self, self.cap_call_usd if cap_usd is None else cap_usd)

    def add(self, usage: Usage) -> int:
        """Count it for the day and the model; its cost in pico-USD."""
        cost = self.prices.cost(usage)
        self.today.add(usage, cost)
        self._by_model.setdefault(usage.model, Spent()).add(usage, cost)
        return cost

    @property
    def today(self) -> Spent:
        day = int(self.clock.now() // _DAY_S)
        if day != self._day:
            self._day, self._today, self.elsewhere_pico_usd = day, Spent(), 0
        return self._today

    def spending(self, call: Spent, cap_usd: float | None = None) -> Spending:
        """What a conversation that has spent this much may still use; `cap_usd` as for `meter`."""
        cap_call = self.cap_call_usd if cap_usd is None else cap_usd
        day = self.today.pico_usd + self.elsewhere_pico_usd
        shares = [
            spent / (cap * PICO_PER_USD)
            for spent, cap in ((call.pico_usd, cap_call), (day, self.cap_day_usd))
            if cap > 0
        ]
        share = max(shares, default=0.0)
        if share >= 1:
            return Spending.NONE
        return Spending.CHEAP if share >= self.soft_share else Spending.FULL

    def model_for(self, role: str, call: Spent, cap_usd: float | None = None) -> str | None:
        match self.spending(call, cap_usd):
            case Spending.FULL:
                return self.models.get(role, self.cheap_model)
            case Spending.CHEAP:
                return self.cheap_model
            case Spending.NONE:
                return None

    def totals(self) -> dict[str, Spent]:
        """Sums since the start by model, for /metrics."""
        return dict(self._by_model)


class Meter:
    """What one conversation has spent, and which model it may use next."""

    def __init__(self, governor: CostGovernor, cap_usd: float) -> None:
        self._governor = governor
        self._cap_usd = cap_usd
        self.spent = Spent()

    def add(self, usage: Usage) -> None:
        self.spent.add(usage, self._governor.add(usage))

    def model_for(self, role: str) -> str | None:
        """The model for a prompt's role, None when a cap is reached."""
        return self._governor.model_for(role, self.spent, self._cap_usd)

    @property
    def spending(self) -> Spending:
        return self._governor.spending(self.spent, self._cap_usd)

    def public(self) -> dict[str, Any]:
        """What the client is told at the end of its call."""
        return self.spent.public()

    def to_dict(self) -> dict[str, int]:
        return self.spent.to_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.spent = Spent.from_dict(state)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
