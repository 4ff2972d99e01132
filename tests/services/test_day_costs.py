"""The purse of the day is one for all instances and survives a restart."""

from __future__ import annotations

from coach_server.paths import catalog
from coach_server.providers.llm import Usage
from coach_server.services.costs import CostGovernor, Prices, Spending, Spent
from coach_server.services.day_costs import DayCosts
from coach_server.storage.database import Database
from coach_server.testing import ManualClock

PRICES = Prices.load(catalog() / "prices.toml")


def governor(clock: ManualClock) -> CostGovernor:
    return CostGovernor(PRICES, {"tip": "gpt-6-luna"}, "gpt-6-luna", 0, 1.0, clock)


def spend(governor_: CostGovernor, usd: float) -> None:
    governor_.meter().add(Usage("gpt-6-luna", input_tokens=round(usd / 0.10 * 1_000_000)))


async def test_what_another_instance_spent_counts_against_the_cap(database: Database) -> None:
    clock = ManualClock()
    one, two = governor(clock), governor(clock)
    costs_one, costs_two = DayCosts(database, one, clock), DayCosts(database, two, clock)
    spend(one, 0.6)
    spend(two, 0.5)
    assert two.spending(Spent()) is Spending.CHEAP
    await costs_one.sync()
    await costs_two.sync()
    assert two.spending(Spent()) is Spending.NONE
    assert one.spending(Spent()) is Spending.CHEAP
    await costs_one.sync()
    assert one.spending(Spent()) is Spending.NONE


async def test_a_restart_opens_no_new_purse_and_a_new_day_does(database: Database) -> None:
    clock = ManualClock()
    before = governor(clock)
    costs = DayCosts(database, before, clock)
    spend(before, 1.1)
    await costs.sync()
    await costs.sync()
    after = governor(clock)
    await DayCosts(database, after, clock).sync()
    assert after.spending(Spent()) is Spending.NONE
    await clock.advance(86_400)
    assert after.spending(Spent()) is Spending.FULL
    await DayCosts(database, after, clock).sync()
    assert after.spending(Spent()) is Spending.FULL
