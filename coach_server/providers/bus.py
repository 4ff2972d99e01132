"""Messages between instances. One instance needs none; several share Redis or Valkey.

Nothing is kept: a message for an instance that is not listening is lost, so whoever asks for an answer waits
with a time-out and has another way.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson
from loguru import logger
from redis.asyncio import Redis
from redis.driver_info import DriverInfo
from redis.exceptions import RedisError

from coach_server.clock import Clock

Handler = Callable[[Mapping[str, Any]], Awaitable[None]]
CHANNEL = "coach"
MAX_MESSAGE_BYTES = 1_000_000
_ALL = "all"
TOLD_EVERY_S = 60.0


class Bus(Protocol):
    """`node` names an instance; None means all of them."""

    async def publish(self, node: str | None, message: Mapping[str, Any]) -> None: ...

    async def run(self, node: str, handler: Handler) -> None:
        """Hand over what comes for `node` (and for all) until cancelled."""
        ...

    async def close(self) -> None: ...


class LocalBus:
    """For a single instance: there is nobody else to talk to."""

    async def publish(self, node: str | None, message: Mapping[str, Any]) -> None:
        return None

    async def run(self, node: str, handler: Handler) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        return None


class RedisBus:
    def __init__(self, url: str, clock: Clock, *, retry_s: float = 1.0) -> None:
        self._redis: Redis = Redis.from_url(
            redis_scheme(url),
            socket_connect_timeout=3,
            health_check_interval=30,
            # Otherwise each connection looks the library's version up on disk, inside the event loop.
            driver_info=DriverInfo(lib_version="coach"),
        )
        self._clock = clock
        self._retry_s = retry_s
        self.listening = asyncio.Event()

    async def publish(self, node: str | None, message: Mapping[str, Any]) -> None:
        """Lost with a warning when Redis is away: callers have a time-out."""
        try:
            await self._redis.publish(f"{CHANNEL}:{node or _ALL}", orjson.dumps(message))
        except (RedisError, OSError):
            logger.warning("A message to other instances was lost")

    async def run(self, node: str, handler: Handler) -> None:
        told_at = -math.inf
        while True:
            try:
                await self._listen(node, handler)
            except (RedisError, OSError):
                if self.listening.is_set() or self._clock.now() - told_at >= TOLD_EVERY_S:
                    told_at = self._clock.now()
                    logger.warning("The connection to other instances is lost; trying again")
                self.listening.clear()
                await self._clock.sleep_until(self._clock.now() + self._retry_s)

    async def _listen(self, node: str, handler: Handler) -> None:
        async with self._redis.pubsub() as channel:
            await channel.subscribe(f"{CHANNEL}:{node}", f"{CHANNEL}:{_ALL}")
            self.listening.set()
            async for message in channel.listen():
                if message["type"] == "message" and len(message["data"]) <= MAX_MESSAGE_BYTES:
                    await self._deliver(message["data"], handler)

    async def _deliver(self, data: bytes, handler: Handler) -> None:
        try:
            await handler(orjson.loads(data))
        except Exception as error:
            logger.opt(exception=error).error("A message from another instance could not be handled")

    async def close(self) -> None:
        await self._redis.aclose()


def redis_scheme(url: str) -> str:
    """Valkey speaks Redis: `valkey://` and `valkeys://` are the same wire."""
    for ours, theirs in (("valkeys://", "rediss://"), ("valkey://", "redis://")):
        if url.startswith(ours):
            return theirs + url.removeprefix(ours)
    return url
