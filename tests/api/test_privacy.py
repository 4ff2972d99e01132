"""Encryption, retention, erasure and export of live calls, whole, through the real server on both engines."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from loguru import logger
from sqlalchemy import select, text, update

from coach_server.api import export_out, wire_out
from coach_server.clock import Clock
from coach_server.errors import StorageFailed
from coach_server.providers.mail.outbox import Outbox
from coach_server.services.retention import Retention
from coach_server.storage import conversations, transcripts
from coach_server.storage.database import Database
from coach_server.storage.tables import clockwork, erasures, metadata
from coach_server.storage.tables import conversations as conversations_table
from coach_server.testing import ManualClock
from tests.serving import KEY, OTHER_KEY, Client, Server, connected, serving
from tests.trust.calling import until

CANARY = "Zanzibar-4417"
DATA_KEY = base64.b64encode(b"k" * 32).decode()
WORDS = (
    ("agent", "How do you plan the rounds today?"),
    ("caller", f"We lose two days a month on invoices at {CANARY}, it is a real problem."),
    ("caller", f"And {CANARY} is far too expensive for us."),
    ("agent", f"Shall we look at {CANARY} on Tuesday at ten?"),
    ("caller", f"Yes, Tuesday at ten is fine for {CANARY}."),
)
DAY_S = 86_400


async def call(client: Client, *, ends: bool = True) -> str:
    """A call in which the canary is everywhere: metadata, words, tips, events, analysis."""
    started = await client.start(
        metadata={"customerName": CANARY, "company": CANARY}, consent={"given": True}
    )
    call_id = str(started["conversationId"])
    for speaker, words in WORDS:
        assert (await client.say(call_id, speaker, words))["ok"]
    shown = len(client.told("AI_TIP"))
    await client.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
    await client.wait_for("AI_TIP", shown + 1)
    if ends:
        analysed = len(client.told("ANALYSIS_READY"))
        await client.ask("END_CONVERSATION", {"conversationId": call_id})
        await client.wait_for("ANALYSIS_READY", analysed + 1)
    return call_id


async def report(server: Server, call_id: str) -> None:
    body = {
        "callMetadata": {
            "conversationId": call_id,
            "agentEmail": "agent@example.com",
            "startTime": 1_700_000_000_000,
            "endTime": 1_700_000_060_000,
        },
        "transcripts": [{"speaker": "agent", "text": f"Hello {CANARY}", "timestamp": 1_700_000_001_000}],
        "recommendations": [],
    }
    status, answer = await server.post("/api/generate-report", body)
    assert status == 200, answer


def letters(server: Server) -> list[Path]:
    return sorted((server.data_dir / "outbox").glob("*.eml"))


async def as_user(
    server: Server, method: str, path: str, user: str, role: str = "agent", **more: Any
) -> tuple[int, Any]:
    token = await server.token(user, role, **more)
    return await server.request(method, path, key=None, headers={"Authorization": f"Bearer {token}"})


async def stored(database: Database) -> str:
    """Every value of every table, and every byte of SQLite's files."""
    parts: list[str] = []
    async with database.read() as conn:
        for table in metadata.sorted_tables:
            parts += [str(tuple(row)) for row in await conn.execute(text(f'SELECT * FROM "{table.name}"'))]
    return "\n".join(parts) + await asyncio.to_thread(files, database)


def files(database: Database) -> str:
    if database.dialect != "sqlite":
        return ""
    path = database.url.database or ""
    kept = [Path(path), Path(f"{path}-wal"), Path(f"{path}-shm"), Path(f"{path}-journal")]
    return "".join(file.read_bytes().decode("latin-1") for file in kept if file.exists())


@asynccontextmanager
async def user_client(server: Server, user: str, key: str = KEY) -> AsyncIterator[Client]:
    async with connected(server, {"token": await server.token(user, key=key)}) as client:
        yield client


# --- encryption


@pytest.mark.timeout(120)
async def test_a_whole_call_under_encryption_is_nowhere_to_be_read_but_here(
    tmp_path: Path, database_url: str
) -> None:
    values = {"DATABASE_URL": database_url, "DATA_ENCRYPTION_KEY": f"k1:{DATA_KEY}"}
    async with serving(tmp_path, **values) as server, connected(server) as client:
        call_id = await call(client)
        one = f"/api/conversations/{call_id}"
        assert CANARY not in await stored(server.coaching.database)
        for path in (one, f"{one}/transcript", f"{one}/tips", f"{one}/analysis"):
            status, answer = await server.get(path)
            assert status == 200, answer
            if not path.endswith("tips"):
                assert CANARY in json.dumps(answer), path
        unfinished = await call(client, ends=False)
        resume_token = client.told("CONVERSATION_STARTED")[-1]["resumeToken"]
        told = len(client.told("AI_TIP"))
    async with serving(tmp_path, **values) as server, connected(server) as client:
        resume = {"conversationId": unfinished, "resumeToken": resume_token, "lastSeq": 1}
        answer = await client.ask("RESUME_CONVERSATION", resume)
        assert answer["ok"] and answer["recovered"] and answer["missed"] >= 1 and told
        assert (await client.say(unfinished, "agent", f"{CANARY} again"))["sequence"] == len(WORDS) + 1
        assert CANARY not in await stored(server.coaching.database)


async def test_a_row_that_cannot_be_read_is_told_with_ids_only_and_the_server_goes_on(
    tmp_path: Path, database_url: str
) -> None:
    values = {"DATABASE_URL": database_url}
    async with (
        serving(tmp_path, **values, DATA_ENCRYPTION_KEY=f"k1:{DATA_KEY}") as server,
        connected(server) as client,
    ):
        call_id = await call(client, ends=False)
    async with serving(tmp_path, **values) as server, connected(server) as client:
        one = f"/api/conversations/{call_id}"
        for path in (one, f"{one}/transcript", "/api/conversations"):
            status, answer = await server.get(path)
            assert (status, answer["code"]) == (503, "STORAGE_FAILED")
            assert call_id in answer["message"] and "enc1" not in json.dumps(answer)
        answer = await client.say(call_id, "agent", "hello")
        assert (answer["ok"], answer["code"]) == (False, "STORAGE_FAILED")
        assert (await client.ask("PING"))["ok"]
        status, receipt = await server.request("DELETE", one)
        assert status == 200 and receipt["counts"]["conversations"] == 1
        assert (await client.start())["ok"]


async def test_the_key_is_in_no_log_of_a_call(tmp_path: Path) -> None:
    heard = io.StringIO()
    sink = logger.add(heard, level="TRACE", format="{message} {extra} {exception}", diagnose=True)
    try:
        async with serving(tmp_path, DATA_ENCRYPTION_KEY=f"k1:{DATA_KEY}") as server:
            async with connected(server) as client:
                call_id = await call(client)
            async with server.coaching.database.transaction() as conn:
                await conn.execute(text("UPDATE utterances SET text = text || 'x'"))
            assert (await server.get(f"/api/conversations/{call_id}/transcript"))[0] == 503
    finally:
        logger.remove(sink)
    told = heard.getvalue()
    assert "Call ended" in told
    assert DATA_KEY not in told and "kkkkkkkk" not in told and CANARY not in told


# --- erasure


@pytest.mark.timeout(120)
async def test_erasing_a_user_leaves_no_byte_of_what_was_said(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server:
        async with user_client(server, "ann") as client:
            ids = [await call(client), await call(client)]
            live = await call(client, ends=False)
            for call_id in ids:
                await report(server, call_id)
            assert CANARY in await stored(server.coaching.database)
            assert len(letters(server)) == 2
            status, receipt = await as_user(server, "DELETE", "/api/users/ann", "ann")
            assert status == 200, receipt
            wire_out.ErasureReceipt.model_validate(receipt)
            assert receipt["counts"]["conversations"] == 3
            assert receipt["counts"]["utterances"] == 3 * len(WORDS)
            assert receipt["counts"]["letters"] == 2
            ended = await client.wait_for("CONVERSATION_ENDED", 3)
            assert ended["conversationId"] == live
            assert (await client.say(live, "agent", f"{CANARY} once more"))["code"] == "NOT_FOUND"
        told = await stored(server.coaching.database)
        assert CANARY not in told and "ann" not in told
        assert not any(call_id in told for call_id in (*ids, live))
        assert letters(server) == []
        assert server.coaching.calls.active == 0


async def test_a_receipt_is_kept_and_holds_nothing_of_the_user(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server:
        async with user_client(server, "ann-of-sales") as client:
            await call(client)
        status, first = await server.request("DELETE", "/api/users/ann-of-sales")
        assert status == 200 and first["counts"]["conversations"] == 1
        status, again = await server.request("DELETE", "/api/users/ann-of-sales")
        assert (status, again["counts"]) == (200, {})
        async with server.coaching.database.read() as conn:
            rows = (await conn.execute(select(erasures))).mappings().all()
        assert {row["id"] for row in rows} == {first["receiptId"], again["receiptId"]}
        assert len({row["digest"] for row in rows}) == 1
        assert "ann-of-sales" not in str(rows) + json.dumps(first)


async def test_other_users_and_other_keys_keep_theirs(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server:
        async with (
            user_client(server, "ann") as ann,
            user_client(server, "bob") as bob,
            user_client(server, "ann", OTHER_KEY) as namesake,
            connected(server) as nobody,
        ):
            gone = await call(ann)
            kept = [(await call(bob), bob), (await call(namesake), namesake), (await call(nobody), nobody)]
            live = await call(bob, ends=False)
            assert (await server.request("DELETE", "/api/users/ann"))[0] == 200
            async with server.coaching.database.read() as conn:
                assert await conversations.load(conn, gone) is None
                for call_id, _ in kept:
                    assert len(await transcripts.all(conn, call_id)) == len(WORDS)
            assert (await bob.say(live, "agent", "still here"))["ok"]


@pytest.mark.parametrize(
    ("user", "role", "more", "status"),
    [
        ("ann", "agent", {}, 200),
        ("bob", "agent", {}, 403),
        ("boss", "manager", {"team": "t"}, 403),
        ("root", "admin", {}, 200),
    ],
)
async def test_a_user_is_erased_and_exported_by_the_user_an_admin_or_the_key(
    tmp_path: Path, user: str, role: str, more: dict[str, Any], status: int
) -> None:
    async with serving(tmp_path) as server:
        async with user_client(server, "ann") as client:
            await call(client)
        found, _ = await as_user(server, "GET", "/api/users/ann/export", user, role, **more)
        assert found == status
        found, answer = await as_user(server, "DELETE", "/api/users/ann", user, role, **more)
        assert found == status
        if status == 200:
            assert answer["counts"]["conversations"] == 1


async def test_an_admin_of_another_key_erases_nothing_here(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with user_client(server, "ann") as client:
            call_id = await call(client)
        status, receipt = await as_user(server, "DELETE", "/api/users/ann", "root", "admin", key=OTHER_KEY)
        assert (status, receipt["counts"]) == (200, {})
        status, document = await as_user(
            server, "GET", "/api/users/ann/export", "root", "admin", key=OTHER_KEY
        )
        assert (status, document["conversations"]) == (200, [])
        assert (await as_user(server, "GET", f"/api/conversations/{call_id}", "ann"))[0] == 200


async def test_the_owner_of_a_call_without_a_user_erases_that_call(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, connected(server) as client:
        call_id, other = await call(client), await call(client)
        one = f"/api/conversations/{call_id}"
        assert (await server.request("DELETE", one, key=OTHER_KEY))[0] == 404
        assert (await as_user(server, "DELETE", one, "ann"))[0] == 404
        status, receipt = await server.request("DELETE", one)
        assert status == 200 and receipt["counts"]["conversations"] == 1
        assert (await server.request("DELETE", one))[0] == 404
        assert (await server.get(f"/api/conversations/{other}"))[0] == 200
        assert call_id not in await stored(server.coaching.database)


async def test_a_manager_sees_a_call_of_the_team_and_may_not_erase_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        token = await server.token("ann", team="t")
        async with connected(server, {"token": token}) as client:
            one = f"/api/conversations/{await call(client)}"
        assert (await as_user(server, "GET", one, "boss", "manager", team="t"))[0] == 200
        assert (await as_user(server, "DELETE", one, "boss", "manager", team="t"))[0] == 403
        assert (await as_user(server, "DELETE", one, "ann"))[0] == 200


async def test_a_live_call_that_is_erased_keeps_nothing_of_what_comes_after(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, connected(server) as client:
        call_id = await call(client, ends=False)

        async def talk() -> None:
            for number in range(50):
                await client.say(call_id, "caller", f"{CANARY} {number}")

        talking = asyncio.create_task(talk())
        status, _ = await server.request("DELETE", f"/api/conversations/{call_id}")
        assert status == 200
        await talking
        await asyncio.wait({asyncio.ensure_future(client.wait_for("CONVERSATION_ENDED"))})
        assert await server.coaching.database.scrub()
        assert CANARY not in await stored(server.coaching.database)


# --- export


@pytest.mark.parametrize("keys", ["", f"k1:{DATA_KEY}"], ids=["plain", "encrypted"])
async def test_an_export_has_all_that_is_stored_of_the_user(
    tmp_path: Path, database_url: str, keys: str
) -> None:
    values = {"DATABASE_URL": database_url, "DATA_ENCRYPTION_KEY": keys}
    async with serving(tmp_path, **values) as server:
        async with user_client(server, "ann") as ann, user_client(server, "bob") as bob:
            ids = [await call(ann), await call(ann), await call(ann, ends=False)]
            await call(bob)
        status, document = await as_user(server, "GET", "/api/users/ann/export", "ann")
        assert status == 200
        export_out.UserExport.model_validate(document)
        exported = document["conversations"]
        assert [one["conversationId"] for one in exported] == ids[::-1]
        for one in exported:
            assert [segment["text"] for segment in one["transcript"]] == [words for _, words in WORDS]
            assert one["metadata"]["company"] == CANARY and one["consent"]["given"] is True
            assert one["tips"]
        assert exported[0]["analysis"] is None
        assert CANARY in json.dumps(exported[1]["analysis"])


async def test_an_export_is_a_file_with_the_headers_of_every_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, aiohttp.ClientSession() as http:
        async with http.get(f"{server.url}/api/users/nobody/export", headers={"x-api-key": KEY}) as answer:
            assert (await answer.json())["conversations"] == []
            assert answer.headers["Content-Disposition"] == 'attachment; filename="coach-export.json"'
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"


async def test_what_cannot_be_read_is_named_and_does_not_stop_an_export(tmp_path: Path) -> None:
    async with serving(tmp_path, DATA_ENCRYPTION_KEY=f"k1:{DATA_KEY}") as server:
        async with user_client(server, "ann") as client:
            first, second = await call(client), await call(client)
        async with server.coaching.database.transaction() as conn:
            t = conversations_table
            await conn.execute(update(t).where(t.c.id == second).values(state={"enc": "\x1fenc1.k1.AAAA"}))
        status, document = await as_user(server, "GET", "/api/users/ann/export", "ann")
        assert status == 200
        export_out.UserExport.model_validate(document)
        broken, whole = document["conversations"]
        assert broken == {"conversationId": second, "unreadable": True}
        assert whole["conversationId"] == first


# --- retention


async def swept(server: Server) -> list[dict[str, Any]]:
    status, answer = await as_user(server, "GET", "/api/privacy/sweeps", "root", "admin")
    assert status == 200, answer
    wire_out.SweepsAnswer.model_validate(answer)
    found: list[dict[str, Any]] = answer["sweeps"]
    return found


async def age(database: Database, call_id: str, days: float) -> None:
    """As if this conversation had been `days` earlier."""
    t = conversations_table
    async with database.transaction() as conn:
        row = await conversations.load(conn, call_id)
        assert row is not None
        await conn.execute(
            update(t)
            .where(t.c.id == call_id)
            .values(
                ended_at=None if row.ended_at is None else row.ended_at - days * DAY_S,
                last_seen_at=row.last_seen_at - days * DAY_S,
            )
        )


async def due_again(database: Database) -> None:
    async with database.transaction() as conn:
        await conn.execute(update(clockwork).values(last_run_at=None))


@pytest.mark.parametrize("keys", ["", f"k1:{DATA_KEY}"], ids=["plain", "encrypted"])
@pytest.mark.timeout(120)
async def test_words_older_than_the_limit_are_deleted_and_figures_stay(
    tmp_path: Path, database_url: str, keys: str
) -> None:
    values = {"DATABASE_URL": database_url, "DATA_ENCRYPTION_KEY": keys}
    async with serving(tmp_path, **values) as server, connected(server) as client:
        old, young = await call(client), await call(client)
        await report(server, old)
        database = server.coaching.database
        (letter,) = letters(server)
        letter.rename(letter.with_name("20200101T000000Z-outbox-old.eml"))
        await report(server, young)
        figures = (await server.get(f"/api/conversations/{old}/analysis"))[1]
        await age(database, old, 90.1)
        await age(database, young, 89.9)
        before = await swept(server)
        await due_again(database)
    async with serving(tmp_path, **values) as server:
        database = server.coaching.database

        async def done() -> bool:
            return len(await swept(server)) > len(before)

        await until(done)
        counts = (await swept(server))[0]["counts"]
        assert counts["conversations"] == 1 and counts["utterances"] == len(WORDS)
        assert counts["analyses"] == 1 and counts["letters"] == 1
        assert len(letters(server)) == 1
        one = f"/api/conversations/{old}"
        status, detail = await server.get(one)
        assert status == 200 and detail["metadata"] == {} and detail["segments"] == len(WORDS)
        assert (await server.get(f"{one}/transcript"))[1]["segments"] == []
        assert (await server.get(f"{one}/tips"))[1]["tips"] == []
        status, analysis = await server.get(f"{one}/analysis")
        wire_out.AnalysisAnswer.model_validate(analysis)
        for kept in ("stage", "conduct", "questions", "durationMs", "utterances"):
            assert analysis[kept] == figures[kept]
        assert [one["kind"] for one in analysis["objections"]] == ["price"]
        assert analysis["tips"]["shown"] == 1 and analysis["facts"] == {}
        assert CANARY not in json.dumps([detail, analysis])
        kept = (await server.get(f"/api/conversations/{young}/transcript"))[1]["segments"]
        assert [segment["text"] for segment in kept] == [words for _, words in WORDS]
        assert (await server.request("DELETE", f"/api/conversations/{young}"))[0] == 200
        assert CANARY not in await stored(database)


async def test_a_second_sweep_finds_nothing_and_leaves_its_evidence_too(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server:
        await until(lambda: has(server, 1))
        async with connected(server) as client:
            old = await call(client)
        await age(server.coaching.database, old, 100)
        retention = retention_of(server)
        first, second = await retention.sweep(), await retention.sweep()
        assert first.counts["conversations"] == 1 and second.counts == {}
        assert [one["counts"] for one in (await swept(server))[:2]] == [{}, first.counts]


async def test_a_call_nobody_came_back_to_while_the_server_was_off_loses_its_words_at_once(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, connected(server) as client:
        left = await call(client, ends=False)
    async with serving(tmp_path, DATABASE_URL=database_url) as server:
        await age(server.coaching.database, left, 91)
        counts = (await retention_of(server).sweep()).counts
        assert counts["ended"] == 1 and counts["utterances"] == len(WORDS)
        status, detail = await server.get(f"/api/conversations/{left}")
        assert (status, detail["status"]) == (200, "abandoned")


async def test_nothing_is_deleted_by_age_when_the_limit_is_none(tmp_path: Path) -> None:
    async with serving(tmp_path, TRANSCRIPT_RETENTION_DAYS=0) as server, connected(server) as client:
        old = await call(client)
        await age(server.coaching.database, old, 10_000)
        await retention_of(server, days=0).tick()
        assert await swept(server) == []
        assert len((await server.get(f"/api/conversations/{old}/transcript"))[1]["segments"]) == len(WORDS)


async def test_only_an_admin_sees_the_sweeps(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await server.get("/api/privacy/sweeps"))[0] == 403
        assert (await as_user(server, "GET", "/api/privacy/sweeps", "ann"))[0] == 403


async def test_a_sweep_happens_once_a_day_whoever_asks(tmp_path: Path, database_url: str) -> None:
    clock = ManualClock()
    async with serving(tmp_path, DATABASE_URL=database_url) as server:
        await until(lambda: has(server, 1))
        await due_again(server.coaching.database)
        first = retention_of(server, clock=clock, owner="one")
        second = retention_of(server, clock=clock, owner="two")
        begun = len(await swept(server))
        for _ in range(3):
            await first.tick()
            await second.tick()
        assert len(await swept(server)) == begun + 1
        await clock.advance(DAY_S)
        await second.tick()
        await first.tick()
        assert len(await swept(server)) == begun + 2


def retention_of(
    server: Server, *, days: int = 90, clock: Clock | None = None, owner: str = "test"
) -> Retention:
    """A sweeper beside the server's own."""
    outbox = Outbox(server.data_dir / "outbox", server.coaching.clock)
    clock = clock or server.coaching.clock
    return Retention(
        server.coaching.database, server.coaching.simulating.privacy, outbox, clock, days=days, owner=owner
    )


async def test_a_sweep_that_breaks_off_is_due_again(tmp_path: Path) -> None:
    class Stuck(Outbox):
        async def delete_before(self, moment: float) -> int:
            raise StorageFailed

    async with serving(tmp_path) as server:
        await until(lambda: has(server, 1))
        await due_again(server.coaching.database)
        coaching = server.coaching
        outbox = Stuck(tmp_path / "outbox", coaching.clock)
        await Retention(
            coaching.database, coaching.simulating.privacy, outbox, coaching.clock, days=90, owner="one"
        ).tick()
        assert len(await swept(server)) == 1
        await retention_of(server, owner="two").tick()
        assert len(await swept(server)) == 2


async def test_every_instance_clears_its_own_outbox(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await until(lambda: has(server, 1))
        outbox = tmp_path / "outbox"
        outbox.mkdir(exist_ok=True)
        for name in ("20200101T000000Z-outbox-a.eml", ".20200101T000000Z-outbox-b.eml.part", "notes.txt"):
            (outbox / name).write_text("x")
        await retention_of(server, owner="another").tick()
        assert [file.name for file in outbox.iterdir()] == ["notes.txt"]
        assert len(await swept(server)) == 1


async def has(server: Server, count: int) -> bool:
    return len(await swept(server)) >= count
