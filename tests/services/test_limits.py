"""Buckets and shared quotas."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis

from coach_server.clock import SystemClock
from coach_server.errors import RateLimited
from coach_server.services.limits import QUOTAS, ClockedStorage, Limits, TokenBucket
from coach_server.testing import ManualClock


def taken(bucket: TokenBucket, now: float, wishes: int) -> int:
    return sum(bucket.take(now) for _ in range(wishes))


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    tips = TokenBucket(20, 30 / 60)
    assert taken(tips, 100.0, 300) == 20
    assert taken(tips, 160.0, 300) == 20  # thirty came back, twenty fit
    assert taken(tips, 164.0, 300) == 2


def test_four_thousand_events_in_a_burst_are_a_thousand() -> None:
    assert taken(TokenBucket(1000, 1000 / 60), 0.0, 4000) == 1000


def test_retry_after_is_exactly_when_the_next_take_succeeds() -> None:
    bucket = TokenBucket(1, 0.5)
    assert bucket.retry_after(10.0) == 0.0
    assert bucket.take(10.0)
    assert bucket.retry_after(10.5) == pytest.approx(1.5)
    assert not bucket.take(11.9)
    assert bucket.take(12.0)


def test_a_refused_take_does_not_put_the_next_one_off() -> None:
    bucket = TokenBucket(1, 1)
    assert bucket.take(0.0)
    for moment in range(1, 10):
        assert not bucket.take(moment / 10)
    assert bucket.take(1.0)


def test_a_clock_that_stands_or_goes_back_gives_no_tokens() -> None:
    bucket = TokenBucket(2, 1)
    assert taken(bucket, 50.0, 5) == 2
    assert taken(bucket, 40.0, 5) == 0
    assert taken(bucket, 51.0, 5) == 1


def test_a_bucket_that_never_fills_says_so() -> None:
    bucket = TokenBucket(1, 0)
    assert bucket.take(0.0)
    assert bucket.retry_after(0.0) == float("inf")


@pytest.mark.parametrize(("name", "amount", "window_s"), [("report", 10, 60), ("analysis", 50, 3600)])
async def test_a_quota_is_used_up_and_comes_back_after_its_window(
    name: str, amount: int, window_s: int
) -> None:
    clock = ManualClock()
    limits = Limits(clock)
    for _ in range(amount):
        await limits.check(name, "ann")
    await clock.advance(window_s - 10)
    with pytest.raises(RateLimited) as refused:
        await limits.check(name, "ann")
    assert refused.value.retry_after_s == pytest.approx(10)
    await limits.check(name, "bob")
    await clock.advance(10)
    await limits.check(name, "ann")


async def test_the_names_of_the_quotas_are_separate() -> None:
    limits = Limits(ManualClock())
    for _ in range(10):
        await limits.check("report", "ann")
    await limits.check("token", "ann")


async def test_a_hundred_avatar_sessions_a_day_are_allowed_and_no_more() -> None:
    clock = ManualClock()
    limits = Limits(clock)
    for _ in range(100):
        await limits.check("avatar", "ann")
        await clock.advance(60)
    with pytest.raises(RateLimited, match="No more than 100 a day"):
        await limits.check("avatar", "ann")


async def test_owners_that_are_gone_are_forgotten() -> None:
    clock = ManualClock()
    storage = ClockedStorage(clock)
    for number in range(500):
        await storage.acquire_entry(f"owner {number}", 5, 30)
    await clock.advance(100)
    await storage.acquire_entry("late", 5, 30)
    assert await storage.reset() == 1


async def test_a_quota_is_shared_by_all_instances_of_one_redis(redis_url: str) -> None:
    one, two = Limits(SystemClock(), redis_url), Limits(SystemClock(), redis_url)
    for number in range(10):
        await (one, two)[number % 2].check("report", "ann@example.org")
    for limits in (one, two):
        with pytest.raises(RateLimited) as refused:
            await limits.check("report", "ann@example.org")
        assert refused.value.retry_after_s is not None and 1 <= refused.value.retry_after_s <= 60
    with Redis.from_url(redis_url) as client:
        keys = client.keys("*")
    assert keys and b"ann" not in b"".join(keys)
    await asyncio.gather(one.close(), two.close())


async def test_without_its_redis_an_instance_counts_for_itself(unused_tcp_port: int) -> None:
    limits = Limits(ManualClock(), f"redis://127.0.0.1:{unused_tcp_port}/0")
    for _ in range(10):
        await limits.check("report", "ann")
    with pytest.raises(RateLimited):
        await limits.check("report", "ann")
    await limits.close()


def test_the_quotas_are_those_that_were_promised() -> None:
    assert (
        QUOTAS["analysis"] == "50/hour" and QUOTAS["avatar"] == "100/day" and QUOTAS["report"] == "10/minute"
    )
