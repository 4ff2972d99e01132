"""Rates (trust.md G20): a bucket for each connection and call, shared counts for REST and daily quotas."""

from __future__ import annotations

import hashlib
import math
from collections import deque

from limits import RateLimitItem, parse
from limits.aio.storage import MovingWindowSupport, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from loguru import logger

from coach_server.clock import Clock
from coach_server.errors import RateLimited

# Uses of one owner in a sliding window.
QUOTAS = {
    "generate": "30/minute",
    "report": "10/minute",
    "token": "60/minute",
    "analysis": "50/hour",
    "avatar": "100/day",
}
SWEEP_EVERY_S = 60.0


class TokenBucket:
    """Starts full; `take` costs one token. Times are seconds of the injected clock."""

    __slots__ = ("_at", "_capacity", "_refill_per_s", "_tokens")

    def __init__(self, capacity: float, refill_per_s: float) -> None:
        self._capacity = capacity
        self._refill_per_s = refill_per_s
        self._tokens = capacity
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether there was a token; a refused take costs nothing."""
        self._fill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def retry_after(self, now: float) -> float:
        """Seconds until the next `take` succeeds."""
        self._fill(now)
        missing = max(0.0, 1 - self._tokens)
        return missing / self._refill_per_s if self._refill_per_s else math.inf

    def _fill(self, now: float) -> None:
        if self._at is None:
            self._at = now
        elif now > self._at:
            self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._refill_per_s)
            self._at = now


class Limits:
    """Counts by name and owner; shared by all instances when there is a Redis, else of this process.

    In this process windows follow the injected clock. In Redis they follow the system's, which the `limits`
    package reads. A Redis that is away stops nobody: each instance then counts for itself.
    """

    def __init__(self, clock: Clock, redis_url: str | None = None, quotas: dict[str, str] = QUOTAS) -> None:
        self._clock = clock
        self._items = {name: parse(text) for name, text in quotas.items()}
        self._local = MovingWindowRateLimiter(ClockedStorage(clock))
        self._redis = _redis_storage(redis_url) if redis_url else None
        self._shared = MovingWindowRateLimiter(self._redis) if self._redis else None

    async def check(self, name: str, owner: str) -> None:
        """Count one use. Raises RateLimited, with the seconds to wait, when there were too many."""
        item = self._items[name]
        # An owner may be a mail address: it is not for Redis to keep.
        key = hashlib.blake2b(owner.encode("utf-8", "replace"), digest_size=16).hexdigest()
        if self._shared is not None:
            try:
                await _hit(self._shared, item, name, key, self._clock)
            except RateLimited:
                raise
            except Exception as error:
                logger.bind(quota=name, error=type(error).__name__).warning("Redis did not count a use")
            else:
                return
        await _hit(self._local, item, name, key, self._clock)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._redis is not None:
            await self._redis.bridge.get_connection().aclose()  # type: ignore[attr-defined]  # redispy has it


async def _hit(
    limiter: MovingWindowRateLimiter, item: RateLimitItem, name: str, key: str, clock: Clock
) -> None:
    if await limiter.hit(item, name, key):
        return
    window = await limiter.get_window_stats(item, name, key)
    unit = item.GRANULARITY.name
    raise RateLimited(
        f"No more than {item.amount} a {unit}.",
        retry_after_s=min(float(item.get_expiry()), max(1.0, window.reset_time - clock.now())),
    )


def _redis_storage(url: str) -> RedisStorage:
    # Valkey speaks the same protocol, and for its scheme the package would want another client.
    scheme, _, rest = url.partition("://")
    return RedisStorage(
        f"async+{scheme.replace('valkey', 'redis')}://{rest}",
        implementation="redispy",  # the client the server has anyway
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        driver_info=None,  # type: ignore[arg-type]  # else it reads its own package's files to name itself
    )


class ClockedStorage(Storage, MovingWindowSupport):
    """Uses in memory, by the injected clock, forgotten when they leave their window.

    The package's own memory storage starts a task and a thread for every use it counts.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._uses: dict[str, deque[float]] = {}
        self._windows: dict[str, int] = {}
        self._swept_at = clock.now()

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        self._sweep()
        uses = self._live(key, expiry)
        if len(uses) + amount > limit:
            return False
        uses.extend([self._clock.now()] * amount)
        self._uses[key] = uses
        self._windows[key] = expiry
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        uses = self._live(key, expiry)
        return (uses[0] if uses else self._clock.now(), len(uses))

    def _live(self, key: str, expiry: int) -> deque[float]:
        uses = self._uses.get(key) or deque()
        start = self._clock.now() - expiry
        while uses and uses[0] <= start:
            uses.popleft()
        return uses

    def _sweep(self) -> None:
        if self._clock.now() - self._swept_at < SWEEP_EVERY_S:
            return
        self._swept_at = self._clock.now()
        for key in [key for key, window in self._windows.items() if not self._live(key, window)]:
            del self._uses[key], self._windows[key]

    # What the moving window does not use, but the package's base class asks for.

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        raise NotImplementedError

    async def get(self, key: str) -> int:
        return len(self._uses.get(key, ()))

    async def get_expiry(self, key: str) -> float:
        uses = self._uses.get(key)
        return uses[0] + self._windows[key] if uses else self._clock.now()

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        count = len(self._uses)
        self._uses.clear()
        self._windows.clear()
        return count

    async def clear(self, key: str) -> None:
        self._uses.pop(key, None)
        self._windows.pop(key, None)
