"""Words and steps that several of these tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.serving import Client

PAIN = "We lose about two days a month on invoices, it is a real mess."
PRICE = "That is far too expensive for us."


def next_tip(call_id: str, **more: Any) -> dict[str, Any]:
    """REQUEST_NEXT_TIP as the event-driven client sends it."""
    return {
        "conversationId": call_id,
        "selectedRecommendationId": "none",
        "selectedOption": 1,
        "selectedScript": "What would help you most?",
        "transcriptHistory": [],
        **more,
    }


def wait_ms(begun: float) -> float:
    return (asyncio.get_running_loop().time() - begun) * 1000


def now() -> float:
    return asyncio.get_running_loop().time()


async def timed(asked: Awaitable[dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """The answer, and the seconds it took."""
    begun = now()
    return await asked, now() - begun


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = 15.0) -> None:
    """Ask again and again until it holds."""
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0.05)


def seqs(client: Client) -> list[int]:
    return [payload["seq"] for _, payload in client.events if "seq" in payload]
