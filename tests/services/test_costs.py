from __future__ import annotations

import json
from pathlib import Path

import pytest

from coach_server.errors import ConfigError
from coach_server.providers.llm import Usage
from coach_server.services.costs import CostGovernor, Price, Prices, Spending, Spent
from coach_server.testing import ManualClock
from tests.services.coaching import PRICES

DAY_S = 86_400
DEAR = Price(input=1_000_000, cached=100_000, output=2_000_000)
TABLE = Prices({"dear": DEAR}, unknown=Price(input=9_000_000, cached=9_000_000, output=9_000_000))


def governor(
    *, call_usd: float = 0.0, day_usd: float = 0.0, clock: ManualClock | None = None
) -> CostGovernor:
    return CostGovernor(TABLE, {"tip": "dear"}, "cheap", call_usd, day_usd, clock or ManualClock())


def dollars(amount: float) -> Usage:
    """Usage of the model `dear` that costs so much: a million fresh tokens are a dollar."""
    return Usage("dear", input_tokens=round(amount * 1_000_000))


def test_a_tip_on_the_default_model_costs_what_the_price_page_says() -> None:
    # 500 fresh tokens at $0.10, 400 cached at $0.01, 150 written at $0.50 a million.
    cost = PRICES.cost(Usage("gpt-6-luna", input_tokens=900, cached_tokens=400, output_tokens=150))

    assert cost == 500 * 100_000 + 400 * 10_000 + 150 * 500_000
    spent = Spent(pico_usd=cost)
    assert spent.micro_usd == 129


def test_a_dated_model_name_has_the_price_of_its_family() -> None:
    assert PRICES.of("gpt-6-luna-2026-09-22") == PRICES.of("gpt-6-luna")
    assert PRICES.of("gpt-6-lunatic") == PRICES.of("never heard of")


def test_an_unknown_model_is_priced_on_the_safe_side() -> None:
    assert PRICES.of("llama4:70b").output >= PRICES.of("gpt-6-luna").output


def test_what_cost_anything_never_shows_as_free() -> None:
    assert Spent(pico_usd=1).micro_usd == 1


def test_the_meter_counts_the_conversation_and_the_server_counts_the_day_and_the_model() -> None:
    costs = governor()
    one, other = costs.meter(), costs.meter()

    one.add(Usage("dear", input_tokens=100, cached_tokens=40, output_tokens=10))
    other.add(Usage("dear", input_tokens=1))

    assert one.public() == {
        "modelCalls": 1,
        "inputTokens": 100,
        "cachedTokens": 40,
        "outputTokens": 10,
        "costMicroUsd": 84,
    }
    assert costs.today.input_tokens == 101
    assert costs.totals()["dear"].calls == 2


@pytest.mark.parametrize(
    ("spent", "spending", "model"),
    [
        (0.0, Spending.FULL, "dear"),
        (0.49, Spending.FULL, "dear"),
        (0.50, Spending.CHEAP, "cheap"),
        (0.99, Spending.CHEAP, "cheap"),
        (1.00, Spending.NONE, None),
        (5.00, Spending.NONE, None),
    ],
)
@pytest.mark.parametrize("cap", ["call", "day"])
def test_at_half_the_cap_the_cheaper_model_and_at_the_cap_none(
    cap: str, spent: float, spending: Spending, model: str | None
) -> None:
    costs = governor(call_usd=1.0) if cap == "call" else governor(day_usd=1.0)
    meter = costs.meter()

    meter.add(dollars(spent))

    assert meter.spending is spending
    assert meter.model_for("tip") == model


def test_a_cap_of_zero_is_no_cap() -> None:
    meter = governor().meter()

    meter.add(dollars(1_000_000))

    assert meter.model_for("tip") == "dear"


def test_a_calls_cap_does_not_stop_the_other_calls() -> None:
    costs = governor(call_usd=1.0)
    spent, fresh = costs.meter(), costs.meter()

    spent.add(dollars(2))

    assert spent.model_for("tip") is None
    assert fresh.model_for("tip") == "dear"


def test_the_days_cap_stops_every_call_until_midnight() -> None:
    clock = ManualClock(start=10 * DAY_S + 80_000)
    costs = governor(day_usd=1.0, clock=clock)
    costs.meter().add(dollars(2))
    assert costs.meter().model_for("tip") is None

    later = ManualClock(start=11 * DAY_S)
    costs.clock = later

    assert costs.meter().model_for("tip") == "dear"
    assert costs.totals()["dear"].calls == 1


def test_the_purse_of_a_call_survives_a_restart() -> None:
    meter = governor(call_usd=1.0).meter()
    meter.add(dollars(0.6))
    saved = json.loads(json.dumps(meter.to_dict()))

    resumed = governor(call_usd=1.0).meter()
    resumed.restore(saved)

    assert resumed.spent == meter.spent
    assert resumed.spending is Spending.CHEAP
    resumed.add(dollars(0.4))
    assert resumed.model_for("tip") is None


@pytest.mark.parametrize(
    "broken", [{}, {"pico_usd": "many"}, {"calls": -3}, {"calls": True}, {"x": 1}], ids=str
)
def test_a_broken_counter_does_not_keep_a_call_from_coming_back(broken: dict[str, object]) -> None:
    meter = governor().meter()

    meter.restore(broken)

    assert meter.spent == Spent()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[unknown]\ninput = 1\ncached = = 2", "prices.toml:3"),
        ("[unknown]\ninput = 1\ncached = 1", "unknown.output"),
        ("[unknown]\ninput = 1\ncached = 1\noutput = 1\n[models.x]\ninput = -1", "models.x.input"),
        ("[models.x]\ninput = 1\ncached = 1\noutput = 1", "unknown"),
    ],
)
def test_a_wrong_price_table_says_where(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)

    with pytest.raises(ConfigError, match="prices.toml") as wrong:
        Prices.load(path)

    assert place in wrong.value.message
