"""Transcripts, events, tips, analyses, clockwork and costs: what goes in comes out."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from coach_server.domain.tip import Trigger
from coach_server.domain.transcript import Speaker
from coach_server.storage import analyses, call_events, clockwork, conversations, tips, transcripts
from coach_server.storage.clockwork import DailyCost
from coach_server.storage.database import Database
from coach_server.storage.tips import TipOutcome
from tests.storage.samples import NOW, conversation, shown_tip, start, store, utterance


async def test_utterances_come_back_as_they_were_said(database: Database) -> None:
    said = [
        utterance(1, "Goedemorgen, met wie spreek ik? 👋", speaker=Speaker.AGENT, confidence=0.875),
        utterance(2, "שלום", segment_id=None),
        utterance(3, "'; DROP TABLE utterances; --"),
    ]
    await start(database, "c1", "c2")
    await store(database, *(transcripts.insert("c1", u) for u in said))
    await store(database, transcripts.insert("c2", utterance(1)))
    async with database.read() as conn:
        assert await transcripts.all(conn, "c1") == said
        assert await transcripts.since(conn, "c1", 1) == said[1:]
        assert await transcripts.since(conn, "c1", 0, limit=2) == said[:2]
        assert await transcripts.segment_ids(conn, "c1") == {"s1": 1, "s3": 3}


async def test_events_come_back_after_the_last_one_seen(database: Database) -> None:
    await start(database)
    events = [(n, "AI_TIP", {"heading": f"tip {n}", "deep": {"a": [1, None]}}) for n in range(1, 6)]
    await store(database, *(call_events.insert("c1", *event, NOW) for event in reversed(events)))
    async with database.read() as conn:
        assert await call_events.since(conn, "c1", 0) == events
        assert await call_events.since(conn, "c1", 3) == events[3:]
        assert await call_events.since(conn, "c1", 0, limit=2) == events[:2]
        assert await call_events.since(conn, "c1", 5) == []


async def test_tips_come_back_in_the_order_they_were_shown(database: Database) -> None:
    await start(database)
    first, second = (
        shown_tip("r1"),
        shown_tip("r2", trigger=Trigger.CAPTURE, selected_option=1, selected_at=NOW),
    )
    await store(database, tips.insert("c1", 7, second, "model-x"), tips.insert("c1", 3, first, None))
    async with database.read() as conn:
        assert await tips.of(conn, "c1") == [first, second]


async def test_what_was_chosen_of_a_tip_stays_when_the_tip_is_written_anew(database: Database) -> None:
    await start(database)
    shown = shown_tip()
    better = replace(shown, tip=replace(shown.tip, heading="Ask more", degraded=False), latency_ms=1800)
    await store(
        database,
        tips.insert("c1", 1, shown, None),
        tips.select("r1", 3, NOW + 15),
        tips.replace("c1", 2, better, "model-x"),
    )
    async with database.read() as conn:
        assert await tips.of(conn, "c1") == [replace(better, selected_option=3, selected_at=NOW + 15)]


async def test_the_ledger_keeps_the_first_outcome_of_a_tip(database: Database) -> None:
    from sqlalchemy import select

    from coach_server.storage.tables import tip_outcomes as t

    await start(database)
    outcome = TipOutcome(
        "r1", "c1", taken=True, line_id="l", similarity=0.5, reaction="yes", stage_before="A", stage_after="B"
    )
    async with database.transaction() as conn:
        await tips.outcomes_insert(conn, [])
        await tips.outcomes_insert(conn, [outcome])
        await tips.outcomes_insert(conn, [replace(outcome, taken=False), TipOutcome("r2", "c1", taken=False)])
    async with database.read() as conn:
        rows = list(await conn.execute(select(t).order_by(t.c.recommendation_id)))
    assert [TipOutcome(**row._mapping) for row in rows] == [outcome, TipOutcome("r2", "c1", taken=False)]


async def test_an_analysis_is_stored_once_and_marks_its_conversation(database: Database) -> None:
    await start(database)

    async def save(document: dict[str, object], version: int) -> bool:
        async with database.transaction() as conn:
            return await analyses.save(conn, "c1", document, version, NOW + version)

    assert await save({"stage": "CLOSING"}, 1)
    assert not await save({"stage": "second run of the job"}, 1)
    async with database.read() as conn:
        kept = await analyses.load(conn, "c1")
        found = await conversations.load(conn, "c1")
        assert await analyses.load(conn, "c2") is None
    assert kept is not None and found is not None
    assert (kept.document, kept.version, kept.created_at) == ({"stage": "CLOSING"}, 1, NOW + 1)
    assert found.analysis_status == "done"
    assert await save({"stage": "a newer kind of analysis"}, 2)
    async with database.read() as conn:
        newer = await analyses.load(conn, "c1")
    assert newer is not None and newer.version == 2


async def test_of_many_instances_one_does_the_periodic_work(database: Database) -> None:
    async def claim(owner: str, now: float) -> bool:
        async with database.transaction() as conn:
            return await clockwork.claim_tick(conn, "retention", owner=owner, now=now, every_s=60)

    async def all_claim(now: float) -> int:
        return sum(await asyncio.gather(*(claim(f"node-{n}", now) for n in range(6))))

    assert await all_claim(NOW) == 1
    assert await all_claim(NOW + 30) == 0
    assert await all_claim(NOW + 59.9) == 1
    assert await all_claim(NOW + 61) == 0
    async with database.transaction() as conn:
        assert await clockwork.claim_tick(conn, "another", owner="node-1", now=NOW, every_s=60)


async def test_costs_of_a_day_add_up(database: Database) -> None:
    async def spend(micro_usd: int) -> None:
        async with database.transaction() as conn:
            await clockwork.add_daily_cost(
                conn,
                day="2026-11-21",
                scope="all",
                micro_usd=micro_usd,
                input_tokens=100,
                cached_tokens=60,
                output_tokens=10,
            )

    await asyncio.gather(*(spend(3_000_000_000) for _ in range(5)))
    async with database.read() as conn:
        spent = await clockwork.daily_cost(conn, day="2026-11-21", scope="all")
        assert spent == DailyCost(15_000_000_000, 500, 300, 50)
        assert await clockwork.daily_cost(conn, day="2026-11-22", scope="all") == DailyCost()


@pytest.mark.parametrize(
    ("now", "day"), [(0.0, "1970-01-01"), (1795219199.999, "2026-11-20"), (1795219200.0, "2026-11-21")]
)
def test_a_day_begins_at_midnight_utc(now: float, day: str) -> None:
    assert clockwork.day_of(now) == day


def test_a_stored_conversation_forgets_no_field_of_a_new_one() -> None:
    assert set(conversation().__dataclass_fields__) <= set(
        conversations.StoredConversation.__dataclass_fields__
    )
