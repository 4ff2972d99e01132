"""What practising leaves in the database, on both engines: one feedback a session, drills by number, one row
of progress; keys rotated and schemas migrated with rows in them."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from blockbuster import BlockBuster
from sqlalchemy import Connection, inspect, select, text, update

from coach_server.cli.rotate import rotate
from coach_server.services.practice.feedback import without_words
from coach_server.storage import conversations, practice, practice_privacy, roleplays, rotation
from coach_server.storage.crypto import SEALED, Unreadable
from coach_server.storage.database import Database
from coach_server.storage.migrate import configuration
from coach_server.storage.practice import (
    CallFeedback,
    Drill,
    Feedback,
    ProgressRow,
    StoredScenario,
    User,
)
from coach_server.storage.tables import drills as drill_rows
from coach_server.storage.tables import metadata, user_progress
from coach_server.storage.tables import roleplay_feedback as feedback_rows
from tests.serving import test_settings
from tests.storage.samples import NOW, conversation, store
from tests.storage.test_roleplays import (
    CANARY,
    KEY,
    append,
    begin,
    message,
    opened,
    session,
    step,
    stored,
)

OLD, NEW = ("old", b"o" * 32), ("new", b"n" * 32)


def feedback(of: str = "s1", **changes: Any) -> Feedback:
    values: dict[str, Any] = {
        "overall_score": 63,
        "sub_scores": {"luisteren": 35, "objections": None},
        "techniques_used": ["1.1"],
        "technique_scores": {"1.1": 40},
        "next_step_suggestion": "1.1",
        "delta": None,
        "document": {"highlights": [CANARY]},
        "method": "hugo@1",
        "content_hash": "same words",
        "judgement": {"remarks": [CANARY]},
        "provisional": False,
        "openai_model": "a-model",
        "openai_tokens_used": 1200,
        "analysis_duration_ms": 12,
        "created_at": NOW,
    }
    return Feedback(session_id=of, **(values | changes))


def drill(id: str = "d1", number: int = 1, of: str = "s1", **changes: Any) -> Drill:
    values: dict[str, Any] = {
        "principal": "extension",
        "user_id": "ann",
        "source_kind": "roleplay",
        "methodology": "hugo",
        "moment": "weakest",
        "technique_id": "1.1",
        "language": "nl",
        "document": {"customer_lines": [CANARY]},
        "created_at": NOW,
    }
    return Drill(id=id, number=number, source_id=of, **(values | changes))


def user(name: str = "ann", **changes: Any) -> User:
    values: dict[str, Any] = {"team_id": None, "created_at": NOW, "updated_at": NOW}
    return User("extension", name, **(values | changes))


async def over(database: Database, *ids: str, **changes: Any) -> None:
    for at, id in enumerate(ids):
        ended = {"status": "completed", "completed_at": NOW + at, "analysis_status": "pending"}
        await begin(database, session(id, **(ended | changes)))


async def keep(database: Database, *rows: Feedback) -> list[bool]:
    async with database.transaction() as conn:
        return [await practice.keep_feedback(conn, row) for row in rows]


# --- feedback


async def test_a_session_has_one_feedback_and_the_last_one_stands(database: Database) -> None:
    await over(database, "s1")
    assert await keep(database, feedback(provisional=True), feedback(overall_score=70)) == [True, False]
    async with database.read() as conn:
        assert await practice.feedback(conn, "s1") == feedback(overall_score=70)
        held = await roleplays.load(conn, "s1")
    assert held is not None and (held.analysis_status, held.overall_score) == ("done", 70)


async def test_racing_analyses_of_a_session_are_first_once(database: Database) -> None:
    await over(database, "s1")
    firsts = await asyncio.gather(*(keep(database, feedback(overall_score=60 + n)) for n in range(5)))
    assert sorted(firsts) == [[False]] * 4 + [[True]]


async def test_a_judgement_of_the_same_words_is_found_for_the_same_user_only(database: Database) -> None:
    await over(database, "s1")
    await over(database, "b1", user_id="bob")
    await keep(database, feedback(judgement={"of": "ann"}), feedback("b1", judgement=None))
    async with database.read() as conn:
        assert await practice.judgement_of(conn, "extension", "ann", "same words") == {"of": "ann"}
        assert await practice.judgement_of(conn, "extension", "bob", "same words") is None
        assert await practice.judgement_of(conn, "other", "ann", "same words") is None
        assert await practice.judgement_of(conn, "extension", "ann", "other words") is None


async def test_the_score_before_is_the_users_last_one_of_the_same_kind(database: Database) -> None:
    await over(database, "s1", "s2", "s3", "s4")
    await over(database, "d1", kind="drill")
    rows = (feedback("s1", overall_score=50), feedback("s2", overall_score=60))
    await keep(database, *rows, feedback("s3", overall_score=None), feedback("d1", overall_score=99))
    async with database.read() as conn:
        last = await roleplays.load(conn, "s4")
        first = await roleplays.load(conn, "s1")
        assert last is not None and first is not None
        before = await practice.previous_scores(conn, last)
        assert before is not None and before.session_id == "s2"
        assert await practice.previous_scores(conn, first) is None


async def test_a_call_has_one_score_card(database: Database) -> None:
    await store(database, conversations.insert(conversation("c1")))
    card = CallFeedback("c1", 40, {"luisteren": 40}, {"1.1": 30}, {"evidence": [CANARY]}, "hugo@1", NOW)
    async with database.transaction() as conn:
        assert await practice.keep_call_feedback(conn, card)
        assert not await practice.keep_call_feedback(conn, replace(card, overall_score=45))
        assert await practice.call_feedback_of(conn, "c1") == replace(card, overall_score=45)


# --- progress


async def test_everything_scored_of_a_user_is_gathered_oldest_first(database: Database) -> None:
    await over(database, "s1", "s2", duration_seconds=30)
    await over(database, "d1", kind="drill", completed_at=NOW + 5)
    await over(database, "b1", user_id="bob")
    await begin(database, session("running"))
    await keep(database, feedback("s1"), feedback("d1", overall_score=80))
    await store(database, conversations.insert(conversation("c1", user_id="ann", started_at=NOW + 9)))
    async with database.transaction() as conn:
        await roleplays.save_steps(
            conn,
            [
                step("1.2", of="s2", manual=True, status="completed"),
                step("1.1", of="s2", manual=True, status="current"),
            ],
        )
        card = CallFeedback("c1", 40, {}, {"1.1": 30}, {}, "hugo@1", NOW)
        await practice.keep_call_feedback(conn, card)
        await practice.keep_call_feedback(conn, replace(card, method="hugo@1"))
    async with database.read() as conn:
        found = await practice.practised(conn, "extension", "ann", "hugo")
        assert await practice.practised(conn, "extension", "ann", "b2b") == []
    assert [(one.session_id, one.kind, one.overall_score) for one in found] == [
        ("s1", "roleplay", 63),
        ("s2", "roleplay", None),
        ("d1", "drill", 80),
        ("c1", "call", 40),
    ]
    assert found[1].manual == ("1.2",) and found[0].duration_seconds == 30


async def test_a_user_has_one_row_of_progress_a_method(database: Database) -> None:
    row = ProgressRow(
        principal="extension",
        user_id="ann",
        methodology="hugo",
        current_phase_id=1,
        current_step_id="1.1",
        unlocked_phases=[1],
        unlocked_steps=["1.1"],
        total_sessions=1,
        average_score=50.5,
        best_score=60,
        total_duration_seconds=60,
        step_stats={"1.1": {"attempts": 1}},
        last_session_at=NOW,
        updated_at=NOW,
    )
    later = replace(row, current_phase_id=2, unlocked_phases=[1, 2], total_sessions=2, updated_at=NOW + 1)
    async with database.transaction() as conn:
        await practice.keep_progress(conn, row)
        await practice.keep_progress(conn, later)
        await practice.keep_progress(conn, replace(row, methodology="b2b"))
        rows = (await conn.execute(select(user_progress).order_by("methodology"))).all()
    assert [(one.methodology, one.total_sessions) for one in rows] == [("b2b", 1), ("hugo", 2)]
    assert rows[1].unlocked_phases == [1, 2]


# --- drills


async def test_the_drills_of_a_session_are_kept_once_by_their_number(database: Database) -> None:
    async with database.transaction() as conn:
        await practice.keep_drills(conn, [drill("d1", 1), drill("d2", 2)])
        await practice.keep_drills(conn, [drill("d3", 1), drill("d4", 2), drill("d5", 1, of="s2")])
        await practice.keep_drills(conn, [])
        assert [one.id for one in await practice.drills_from(conn, "roleplay", "s1")] == ["d1", "d2"]
        assert [one.id for one in await practice.drills_from(conn, "roleplay", "s2")] == ["d5"]
        assert await practice.drills_from(conn, "call", "s1") == []
        assert await practice.drill(conn, "d1") == drill("d1", 1)


async def test_a_drill_once_closed_stays_closed(database: Database) -> None:
    async with database.transaction() as conn:
        await practice.keep_drills(conn, [drill()])
        await practice.count_attempt(conn, "d1")
        await practice.judge_drill(conn, "d1", best_quality="bijna", closed_at=None)
        assert len(await practice.drills_of(conn, "extension", "ann", status="open", limit=5)) == 1
        await practice.judge_drill(conn, "d1", best_quality="perfect", closed_at=NOW + 1)
        await practice.judge_drill(conn, "d1", best_quality="gemist", closed_at=NOW + 2)
        closed = replace(drill(), status="closed", attempts=1, best_quality="perfect", closed_at=NOW + 1)
        assert await practice.drill(conn, "d1") == closed
        assert await practice.drills_of(conn, "extension", "ann", status="open", limit=5) == []
        assert await practice.drills_of(conn, "extension", "bob", status=None, limit=5) == []


# --- users and scenarios


async def test_a_user_is_kept_with_the_moment_of_the_first_time(database: Database) -> None:
    async with database.transaction() as conn:
        await practice.keep_user(conn, user())
        chosen = user(
            store_transcripts=False,
            feedback_email="ann@example.com",
            consent={"given": True},
            team_id="north",
            created_at=NOW + 5,
            updated_at=NOW + 5,
        )
        await practice.keep_user(conn, chosen)
        assert await practice.user(conn, "extension", "ann") == replace(chosen, created_at=NOW)
        assert await practice.user(conn, "other", "ann") is None


async def test_scenarios_belong_to_their_api_key(database: Database) -> None:
    mine = StoredScenario("own", "extension", "hugo", {"id": "own"}, NOW, NOW)
    async with database.transaction() as conn:
        await practice.keep_scenario(conn, mine)
        await practice.keep_scenario(conn, replace(mine, principal="other", document={"id": "theirs"}))
        changed = replace(mine, document={"id": "own", "persona": {}}, created_at=NOW + 9, updated_at=NOW + 9)
        await practice.keep_scenario(conn, changed)
        assert await practice.scenario(conn, "extension", "own") == replace(changed, created_at=NOW)
        assert [one.id for one in await practice.scenarios_of(conn, "extension", 5)] == ["own"]
        assert await practice.delete_scenario(conn, "extension", "own")
        assert not await practice.delete_scenario(conn, "extension", "own")
        assert await practice.scenario(conn, "other", "own") is not None


# --- sealed, rotated, migrated


async def fill(database: Database) -> None:
    """A row with the words in every column that may hold them."""
    await begin(
        database,
        session(
            state={"machine": CANARY},
            heygen_access_token=CANARY,
            status="completed",
            completed_at=NOW,
        ),
    )
    await append(database, message(1, CANARY), message(2, CANARY))
    await keep(database, feedback())
    await store(database, conversations.insert(conversation("c1")))
    async with database.transaction() as conn:
        await roleplays.save_steps(conn, [step(feedback=CANARY)])
        await practice.keep_drills(conn, [drill()])
        await practice.keep_user(conn, user(feedback_email=f"{CANARY}@example.com"))
        card = CallFeedback("c1", 40, {}, {}, {"evidence": [CANARY]}, "hugo@1", NOW)
        await practice.keep_call_feedback(conn, card)


async def everything(database: Database) -> list[Any]:
    async with database.read() as conn:
        return [
            await roleplays.load(conn, "s1"),
            await roleplays.all_messages(conn, "s1"),
            await roleplays.steps(conn, "s1"),
            await practice.feedback(conn, "s1"),
            await practice.call_feedback_of(conn, "c1"),
            await practice.drill(conn, "d1"),
            await practice.user(conn, "extension", "ann"),
        ]


async def test_feedback_drills_and_addresses_are_encrypted(database_url: str) -> None:
    async with opened(database_url, KEY) as database:
        await fill(database)
        assert CANARY not in await stored(database)
        assert str(await everything(database)).count(CANARY) >= 10


async def test_a_feedback_and_a_drill_of_another_row_are_refused(database_url: str) -> None:
    async with opened(database_url, KEY) as database:
        await over(database, "s1", "s2")
        await keep(database, feedback("s1"), feedback("s2"))
        async with database.transaction() as conn:
            await practice.keep_drills(conn, [drill("d1", 1), drill("d2", 2)])
            f, d = feedback_rows, drill_rows
            moved = select(f.c.document).where(f.c.session_id == "s2").scalar_subquery()
            await conn.execute(update(f).where(f.c.session_id == "s1").values(document=moved))
            moved = select(d.c.document).where(d.c.id == "d2").scalar_subquery()
            await conn.execute(update(d).where(d.c.id == "d1").values(document=moved))
        async with database.read() as conn:
            with pytest.raises(Unreadable, match="roleplay_feedback"):
                await practice.feedback(conn, "s1")
            with pytest.raises(Unreadable, match="drills"):
                await practice.drill(conn, "d1")
            assert await practice.feedback(conn, "s2") == feedback("s2")


@pytest.mark.parametrize("before", [(), (OLD,)], ids=["from plain text", "from an older key"])
async def test_rotation_brings_what_was_practised_to_the_first_key(
    database_url: str, tmp_path: Path, before: tuple[tuple[str, bytes], ...]
) -> None:
    async with opened(database_url, *before) as database:
        await fill(database)
        stored_before = await everything(database)
    keys = ",".join(f"{id}:{b64encode(key).decode()}" for id, key in (NEW, *before))
    settings = test_settings(tmp_path, DATABASE_URL=database_url, DATA_ENCRYPTION_KEY=keys)
    assert await rotate(settings, rows=1) == 0
    async with opened(database_url, NEW) as database:
        assert await everything(database) == stored_before
        lies = await stored(database)
        assert CANARY not in lies and "enc1.old." not in lies
        for table in rotation.TABLES:
            async with database.transaction() as conn:
                assert (await rotation.batch(conn, table, None, 100)).sealed == 0


def test_every_table_of_practice_that_holds_words_is_sealed_and_so_rotated() -> None:
    holders = {"users", "roleplay_sessions", "roleplay_step_progress", "roleplay_transcripts"}
    assert holders | {"roleplay_feedback", "call_feedback", "drills"} <= set(SEALED)


async def test_going_back_before_practice_and_forth_again_keeps_the_calls(
    empty_database_url: str, nobody_blocks_the_loop: BlockBuster
) -> None:
    for function in nobody_blocks_the_loop.functions.values():
        function.can_block_in("tests/storage/test_practice.py", {"_migrate"})
    async with opened(empty_database_url) as database:
        await fill(database)
        async with database.transaction() as conn:
            await conn.run_sync(_migrate, "0002")
            left = await conn.run_sync(lambda c: set(inspect(c).get_table_names()))
            assert "conversations" in left and "roleplay_sessions" not in left and "users" not in left
            assert (await conn.execute(text("SELECT count(*) FROM conversations"))).scalar_one() == 1
            await conn.run_sync(_migrate, "head")
        async with database.read() as conn:
            assert await conversations.load(conn, "c1") is not None
            assert set(metadata.tables) <= await conn.run_sync(lambda c: set(inspect(c).get_table_names()))
            assert await roleplays.load(conn, "s1") is None


def _migrate(connection: Connection, to: str) -> None:
    (command.upgrade if to == "head" else command.downgrade)(configuration(connection), to)


# --- what is deleted


async def test_words_deleted_by_age_leave_scores_and_no_second_analysis_changes_them(
    database: Database,
) -> None:
    await over(database, "s1")
    document = {
        "overallScore": 63,
        "highlights": [{"type": "good", "text": CANARY, "plain": "Well asked."}],
        "advice": CANARY,
        "advicePlain": "Go on.",
        "evidence": [{"criterion": "1.1", "quote": CANARY}],
        "missedMoments": [],
    }
    await keep(database, feedback(document=document))
    await append(database, message(1, CANARY))
    async with database.transaction() as conn:
        await practice.keep_drills(conn, [drill()])
        gone = await practice_privacy.delete_words(conn, ["s1"], without_words, NOW + 1)
    assert gone["roleplay_transcripts"] == gone["roleplay_feedback"] == gone["drills"] == 1
    assert CANARY not in await stored(database)
    assert await keep(database, feedback(overall_score=None, document={})) == [False]
    async with database.read() as conn:
        kept = await practice.feedback(conn, "s1")
        held = await roleplays.load(conn, "s1")
    assert kept is not None and (kept.overall_score, kept.judgement) == (63, None)
    assert kept.document["highlights"] == [{"type": "good", "text": "Well asked.", "plain": "Well asked."}]
    assert held is not None and (held.overall_score, held.analysis_status) == (63, "done")
