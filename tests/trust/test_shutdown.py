"""Stopping waits for what the clockwork is doing, and for no longer than it must (trust.md G7)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coach_server import app
from coach_server.services.retention import Retention
from tests.serving import serving
from tests.trust.calling import now


async def test_a_sweep_that_runs_at_the_stop_ends_before_the_database_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick was left behind in the middle of a statement, and the process did not end."""
    began = asyncio.Event()
    ends: list[bool] = []

    async def tick(self: Retention) -> None:
        began.set()
        for _ in range(50):
            async with self._database.transaction():
                await asyncio.sleep(0.002)
        ends.append(True)

    monkeypatch.setattr(Retention, "tick", tick)
    async with serving(tmp_path):
        await began.wait()
    assert ends == [True]


async def test_a_sweep_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "TICK_WAIT_S", 0.2)
    began = asyncio.Event()
    ends: list[str] = []

    async def tick(self: Retention) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    monkeypatch.setattr(Retention, "tick", tick)
    async with serving(tmp_path):
        await began.wait()
        begun = now()
    assert ends == ["cancelled"]
    assert now() - begun < 5
