"""Rates (trust.md G20): a bucket for each connection and call, and shared counts for REST and daily quotas."""

from __future__ import annotations

from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from loguru import logger

from coach_server.clock import Clock
from coach_server.errors import RateLimited

QUOTAS = {
    "generate": "30/minute",
    "report": "10/minute",
    "token": "60/minute",
    "analysis": "50/hour",
    "avatar": "100/day",
}


class TokenBucket:
    """Starts full; `take` costs one token. Times are seconds of the injected clock."""

    __slots__ = ("_at", "_capacity", "_refill_per_s", "_tokens")

    def __init__(self, capacity: float, refill_per_s: float) -> None:
        self._capacity = capacity
        self._refill_per_s = refill_per_s
        self._tokens = capacity
        self._at: float | None = None

    def take(self, now: float) -> bool:
        self._fill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def retry_after(self, now: float) -> float:
        """Seconds until the next `take` succeeds."""
        self._fill(now)
        return max(0.0, (1 - self._tokens) / self._refill_per_s)

    def _fill(self, now: float) -> None:
        if self._at is not None and now > self._at:
            self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._refill_per_s)
        self._at = now


@dataclass(frozen=True, slots=True)
class _Quota:
    item: RateLimitItem
    text: str


class Limits:
    """Counts by name and owner; shared by all instances when there is a Redis, else of this process.

    Windows are those of the `limits` package, which reads the system's clock.
    """

    def __init__(self, clock: Clock, redis_url: str | None) -> None:
        self._clock = clock
        storage = RedisStorage(f"async+{redis_url}") if redis_url else MemoryStorage()
        self._limiter = MovingWindowRateLimiter(storage)
        self._quotas = {name: _Quota(parse(text), text) for name, text in QUOTAS.items()}

    async def check(self, name: str, owner: str) -> None:
        """Count one use. Raises RateLimited with the seconds to wait. A Redis that is away stops nobody."""
        quota = self._quotas[name]
        try:
            if await self._limiter.hit(quota.item, name, owner):
                return
            window = await self._limiter.get_window_stats(quota.item, name, owner)
        except Exception as error:
            logger.opt(exception=error).warning("A rate could not be counted", quota=name)
            return
        raise RateLimited(
            f"No more than {quota.text.replace('/', ' a ')}.",
            retry_after_s=max(1.0, window.reset_time - self._clock.now()),
        )
