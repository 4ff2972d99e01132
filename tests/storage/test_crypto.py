"""Encryption at rest (trust.md G30): what is said is in no file and no dump, and opens in its row only."""

from __future__ import annotations

import asyncio
import sqlite3
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select, text, update

from coach_server import cli
from coach_server.cli.rotate import rotate
from coach_server.clock import SystemClock
from coach_server.errors import StorageFailed
from coach_server.storage import analyses, call_events, conversations, rotation, tips, transcripts
from coach_server.storage.crypto import (
    CONVERSATIONS,
    MARK,
    SEALED,
    TIPS,
    UTTERANCES,
    AesCipher,
    Cipher,
    NoCipher,
    Unreadable,
    make_cipher,
)
from coach_server.storage.database import Database
from coach_server.storage.tables import metadata
from coach_server.storage.tables import tips as tips_table
from coach_server.storage.tables import utterances as utterances_table
from tests.serving import test_settings
from tests.storage.samples import NOW, conversation, shown_tip, store, utterance

CANARY = "canary-8d21-said"
OLD, NEW = ("old", b"o" * 32), ("new", b"n" * 32)


@asynccontextmanager
async def opened(url: str, *keys: tuple[str, bytes]) -> AsyncIterator[Database]:
    database = Database(url, clock=SystemClock(), cipher=make_cipher(keys))
    await database.start()
    try:
        yield database
    finally:
        await database.close()


async def fill(database: Database, *ids: str, said: str = CANARY) -> None:
    """A conversation each with the words in every place that may hold them."""
    for id in ids or ("c1",):
        tip = shown_tip(f"tip of {id}")
        options = tuple(replace(option, script=said) for option in tip.tip.options)
        tip = replace(tip, tip=replace(tip.tip, heading=said, context=said, why=said, options=options))
        state = {"machine": {"facts": {"pain": said}}}
        new = conversations.insert(conversation(id, metadata={"customerName": said}, state=state))
        await store(database, new)
        await store(
            database,
            *(transcripts.insert(id, utterance(n, f"{said} {n}")) for n in range(1, 8)),
            call_events.insert(id, 1, "AI_TIP", {"heading": said, "options": [said]}, NOW),
            tips.insert(id, 1, tip, None),
        )
        async with database.transaction() as conn:
            await analyses.save(conn, id, {"summary": said, "facts": {"pain": said}}, 1, NOW)


async def everything(database: Database, id: str = "c1") -> list[Any]:
    async with database.read() as conn:
        call = await conversations.load(conn, id)
        assert call is not None
        (listed,) = await conversations.listing(conn, everyone=True, agent_id=None, limit=1)
        analysis = await analyses.load(conn, id)
        return [
            call.state,
            call.metadata,
            listed.metadata,
            [one.text for one in await transcripts.all(conn, id)],
            await call_events.since(conn, id, 0),
            await tips.of(conn, id),
            analysis and analysis.document,
        ]


async def dump(database: Database) -> str:
    """Every value of every table as the engine prints it, and the files of SQLite byte for byte."""
    parts: list[str] = []
    async with database.read() as conn:
        for table in metadata.sorted_tables:
            parts += [str(tuple(row)) for row in await conn.execute(text(f'SELECT * FROM "{table.name}"'))]
    if database.dialect == "sqlite":
        path = database.url.database or ""
        files = [Path(path), Path(f"{path}-wal")]
        parts += await asyncio.to_thread(
            lambda: [file.read_bytes().decode("latin-1") for file in files if file.exists()]
        )
    return "\n".join(parts)


async def test_nothing_that_was_said_is_in_the_database_or_its_files(database_url: str) -> None:
    async with opened(database_url, NEW) as database:
        await fill(database)
        assert CANARY not in await dump(database)
        assert CANARY in str(await everything(database))


async def test_without_a_key_the_canary_would_be_found(database_url: str) -> None:
    async with opened(database_url) as database:
        await fill(database)
        assert (await dump(database)).count(CANARY) > 10


async def test_what_was_stored_is_read_alike_with_and_without_encryption(database_url: str) -> None:
    async with opened(database_url) as database:
        await fill(database)
        plain = await everything(database)
        async with database.transaction() as conn:
            await conn.execute(text("DELETE FROM conversations"))
    async with opened(database_url, NEW) as database:
        await fill(database)
        assert await everything(database) == plain


async def test_saved_and_final_states_are_encrypted_too(database_url: str) -> None:
    async with opened(database_url, NEW) as database:
        await store(database, conversations.insert(conversation("c1")))
        state = {"facts": CANARY}
        saved = conversations.save_state(
            "c1", state, state_sequence=1, last_seq=1, last_sequence=1, last_seen_at=NOW, usage={}
        )
        await store(database, saved)
        assert CANARY not in await dump(database)
        async with database.transaction() as conn:
            await conversations.end(
                conn, "c1", status="ended", now=NOW, state=state, usage={}, analysis=False
            )
        assert CANARY not in await dump(database)
        async with database.read() as conn:
            call = await conversations.load(conn, "c1")
        assert call is not None and call.state == state


async def test_a_replaced_tip_is_encrypted_too(database_url: str) -> None:
    async with opened(database_url, NEW) as database:
        await fill(database, said="first")
        better = shown_tip("tip of c1")
        better = replace(better, tip=replace(better.tip, heading=CANARY, why=None))
        await store(database, tips.replace("c1", 2, better, "model"))
        assert CANARY not in await dump(database)
        async with database.read() as conn:
            assert await tips.of(conn, "c1") == [better]


async def test_an_older_key_still_reads_and_the_first_one_writes(database_url: str) -> None:
    async with opened(database_url, OLD) as database:
        await fill(database)
        before = await everything(database)
    async with opened(database_url, NEW, OLD) as database:
        assert await everything(database) == before
        await store(database, transcripts.insert("c1", utterance(8, "later")))
        found = (await dump(database)).count("enc1.new.")
        assert found >= 1
    async with opened(database_url, NEW) as database, database.read() as conn:
        with pytest.raises(Unreadable):
            await transcripts.all(conn, "c1")
        assert [one.text for one in await transcripts.since(conn, "c1", 7)] == ["later"]


async def test_plain_rows_stay_readable_after_encryption_is_switched_on(database_url: str) -> None:
    async with opened(database_url) as database:
        await fill(database)
        before = await everything(database)
    async with opened(database_url, NEW) as database:
        assert await everything(database) == before


async def test_a_value_moved_to_another_row_is_refused(database_url: str) -> None:
    t = utterances_table
    async with opened(database_url, NEW) as database:
        await fill(database, "c1", "c2")
        async with database.transaction() as conn:
            of_other = (
                select(t.c.text).where(t.c.conversation_id == "c2", t.c.sequence == 1).scalar_subquery()
            )
            await conn.execute(
                update(t).where(t.c.conversation_id == "c1", t.c.sequence == 1).values(text=of_other)
            )
            within = select(t.c.text).where(t.c.conversation_id == "c2", t.c.sequence == 3).scalar_subquery()
            await conn.execute(
                update(t).where(t.c.conversation_id == "c2", t.c.sequence == 2).values(text=within)
            )
        async with database.read() as conn:
            for id in ("c1", "c2"):
                with pytest.raises(StorageFailed) as refused:
                    await transcripts.all(conn, id)
                assert id in refused.value.message and "enc1" not in refused.value.message
                assert not refused.value.retryable


async def test_a_value_moved_to_another_column_of_its_row_is_refused(database_url: str) -> None:
    async with opened(database_url, NEW) as database:
        await fill(database)
        async with database.transaction() as conn:
            await conn.execute(update(tips_table).values(context=tips_table.c.heading))
        async with database.read() as conn:
            with pytest.raises(Unreadable, match="tips"):
                await tips.of(conn, "c1")


@pytest.mark.parametrize(
    "tampered",
    [
        f"{MARK}new.",
        f"{MARK}new.AAAA",
        f"{MARK}new.no base64",
        f"{MARK}new.é",
        f"{MARK}unknown.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        MARK,
    ],
)
def test_a_broken_value_is_refused_as_unreadable(tampered: str) -> None:
    row = {"conversation_id": "c1", "sequence": 1, "text": tampered}
    for cipher in (AesCipher([NEW]), NoCipher()):
        with pytest.raises(Unreadable, match="utterances"):
            UTTERANCES.open(cipher, row)


def test_every_bit_of_a_sealed_value_matters() -> None:
    cipher = AesCipher([NEW])
    sealed = UTTERANCES.seal(cipher, {"conversation_id": "c1", "sequence": 1, "text": "yes!!"})
    assert sealed != UTTERANCES.seal(cipher, {"conversation_id": "c1", "sequence": 1, "text": "yes!!"})
    head = len(f"{MARK}new.")
    for place in range(head, len(sealed["text"])):
        letter = "A" if sealed["text"][place] != "A" else "B"
        changed = sealed["text"][:place] + letter + sealed["text"][place + 1 :]
        with pytest.raises(Unreadable):
            UTTERANCES.open(cipher, {**sealed, "text": changed})


def test_ids_that_run_into_each_other_name_different_rows() -> None:
    cipher = AesCipher([NEW])
    sealed = TIPS.seal(cipher, {"conversation_id": "a b", "recommendation_id": "c", "why": "x"})
    with pytest.raises(Unreadable):
        TIPS.open(cipher, {**sealed, "conversation_id": "a", "recommendation_id": "b c"})


@pytest.mark.parametrize("cipher", [NoCipher(), AesCipher([NEW])])
def test_a_plain_value_that_looks_encrypted_is_not_stored(cipher: Cipher) -> None:
    row = {"conversation_id": "c1", "sequence": 1, "text": f"{MARK}new.AAAA"}
    with pytest.raises(ValueError, match="begins like"):
        UTTERANCES.seal(cipher, row)
    looks = {"id": "c1", "state": {}, "metadata": {"enc": f"{MARK}new.AAAA"}}
    if isinstance(cipher, NoCipher):
        with pytest.raises(ValueError, match="begins like"):
            CONVERSATIONS.seal(cipher, looks)
    else:
        assert CONVERSATIONS.open(cipher, CONVERSATIONS.seal(cipher, looks)) == looks


def test_a_document_of_the_client_with_the_field_enc_is_just_a_document() -> None:
    row = {"id": "c1", "state": {}, "metadata": {"enc": "yes"}}
    for cipher in (NoCipher(), AesCipher([NEW])):
        assert CONVERSATIONS.open(cipher, CONVERSATIONS.seal(cipher, row)) == row


def test_a_cipher_shows_its_ids_and_never_a_key() -> None:
    shown = repr(AesCipher([("k1", b"secret-secret-secret-secret-1234")]))
    assert shown == "AesCipher(k1)"


def test_the_stored_digest_of_a_nameless_utterance_does_not_tell_its_words() -> None:
    """Few words are said so often that a digest of them would be as good as the words."""
    yes = transcripts.insert("c1", utterance(1, "yes", segment_id=None)).row
    no = transcripts.insert("c1", utterance(1, "no", segment_id=None)).row
    assert yes["segment_id"] == no["segment_id"]


# --- rotation


@pytest.mark.parametrize("before", [(), (OLD,)], ids=["from plain text", "from an older key"])
async def test_rotation_brings_every_row_to_the_first_key(
    database_url: str, tmp_path: Path, before: tuple[tuple[str, bytes], ...]
) -> None:
    async with opened(database_url, *before) as database:
        await fill(database, "c1", "c2", "c3")
        stored = await everything(database)
    assert await rotate(settings(tmp_path, database_url, NEW, *before), rows=2) == 0
    async with opened(database_url, NEW) as database:
        assert await everything(database) == stored
        told = await dump(database)
        assert CANARY not in told and "enc1.old." not in told
        for table in rotation.TABLES:
            async with database.transaction() as conn:
                assert (await rotation.batch(conn, table, None, 1000)).sealed == 0


async def test_rotation_goes_on_where_it_was_cut_off(database_url: str) -> None:
    async with opened(database_url) as database:
        await fill(database)
    async with opened(database_url, NEW) as database:
        async with database.transaction() as conn:
            first = await rotation.batch(conn, "utterances", None, 3)
        assert (first.seen, first.sealed, first.last) == (3, 3, ("c1", 3))
        async with database.transaction() as conn:
            again = await rotation.batch(conn, "utterances", None, 100)
        assert (again.seen, again.sealed, again.last) == (7, 4, None)


async def test_rotation_names_the_rows_it_cannot_read_and_does_the_others(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(database_url, OLD) as database:
        await store(database, conversations.insert(conversation("c1")))
        await store(database, transcripts.insert("c1", utterance(1, CANARY)))
    async with opened(database_url) as database:
        await store(database, transcripts.insert("c1", utterance(2, CANARY)))
    assert await rotate(settings(tmp_path, database_url, NEW), rows=10) == 1
    told = capsys.readouterr()
    assert "utterances: 1 of 2 rows encrypted now" in told.out
    assert 'utterances.text ["c1",1]' in told.err
    assert CANARY not in told.out + told.err


async def test_scrubbing_empties_the_write_ahead_log(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database:
        await fill(database)
        wal = Path(f"{make_url(sqlite_url).database}-wal")
        assert wal.stat().st_size > 0
        assert await database.scrub()
        assert wal.stat().st_size == 0


async def test_scrubbing_says_when_somebody_still_reads(sqlite_url: str) -> None:
    database = Database(sqlite_url, clock=SystemClock())
    await database.start()
    await fill(database)
    reader = sqlite3.connect(make_url(sqlite_url).database or "", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM utterances").fetchone()
    try:
        assert not await database.scrub()
    finally:
        reader.close()
        await database.close()


async def test_scrubbing_waits_for_a_reader_that_goes(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database:
        await fill(database)
        reader = sqlite3.connect(make_url(sqlite_url).database or "", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM utterances").fetchone()
        scrubbing = asyncio.create_task(database.scrub())
        # Somebody writes while the log cannot be emptied.
        await store(database, transcripts.insert("c1", utterance(9, "meanwhile")))
        reader.close()
        assert await scrubbing


def test_the_command_needs_a_key_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_ENCRYPTION_KEY", raising=False)
    assert cli.main(["rotate-keys"]) == cli.FAILED
    assert "DATA_ENCRYPTION_KEY is not set" in capsys.readouterr().err


def test_the_command_encrypts_what_the_settings_point_at(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def before() -> None:
        async with opened(sqlite_url) as database:
            await fill(database)

    asyncio.run(before())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("DATA_ENCRYPTION_KEY", b64encode(NEW[1]).decode())
    assert cli.main(["rotate-keys", "--batch", "3"]) == cli.OK
    assert "utterances: 7 of 7 rows encrypted now" in capsys.readouterr().out
    path = make_url(sqlite_url).database or ""
    assert not any(CANARY.encode() in file.read_bytes() for file in Path(path).parent.glob("coach.db*"))


def test_the_columns_that_are_encrypted_exist() -> None:
    for one in SEALED.values():
        assert {*one.row, *one.columns} <= set(metadata.tables[one.table].c.keys())


def settings(data_dir: Path, url: str, *keys: tuple[str, bytes]) -> Any:
    value = ",".join(f"{id}:{b64encode(key).decode()}" for id, key in keys)
    return test_settings(data_dir, DATABASE_URL=url, DATA_ENCRYPTION_KEY=value)
