"""What is kept, and what is not (trust.md G29), on both engines."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from coach_server.storage.tables import metadata
from tests.serving import Client, Server, connected, serving
from tests.trust.calling import PAIN, next_tip

CANARY = "zanzibarcanary"
SOON = {"warmupMs": 0, "intervalMs": 200}


async def rows_holding(url: str, word: str) -> dict[str, int]:
    """Tables of the PostgreSQL database with the word in any row, in any column."""
    connection = await asyncpg.connect(url)
    try:
        found = {}
        for table in metadata.sorted_tables:
            counted = await connection.fetchval(
                f'SELECT count(*) FROM "{table.name}" AS t WHERE t::text ILIKE $1', f"%{word}%"
            )
            found[table.name] = int(counted)
        return {name: count for name, count in found.items() if count}
    finally:
        await connection.close()


def files_holding(folder: Path, word: str) -> list[str]:
    return [
        file.name
        for file in folder.rglob("*")
        if file.is_file() and word.encode() in file.read_bytes().lower()
    ]


async def where(word: str, database_url: str, folder: Path) -> object:
    """Every place on disk with this word."""
    if database_url.startswith("sqlite"):
        return await asyncio.to_thread(files_holding, folder, word)
    return await rows_holding(database_url, word) or await asyncio.to_thread(files_holding, folder, word)


async def a_whole_call(server: Server, client: Client, **choices: Any) -> str:
    """A call full of canaries, from the first word to the analysis."""
    started = await client.start(metadata={"agentName": CANARY, "note": [CANARY]}, **SOON, **choices)
    call_id = str(started["conversationId"])
    for text in (
        f"My name is {CANARY}",
        PAIN,
        f"{CANARY} is far too expensive",
        "Mail me@zanzibarcanary.test",
    ):
        assert (await client.say(call_id, "caller", text, segmentId=f"{CANARY}-{len(text)}"))["ok"]
        await client.say(call_id, "agent", f"Why {CANARY}?")
    tip = await client.wait_for("AI_TIP")
    chosen = {"recommendationId": tip["recommendationId"], "selectedOption": 1}
    assert (await client.ask("OPTION_SELECTED", chosen))["ok"]
    spoken = {"speaker": "caller", "text": CANARY}
    wish = next_tip(call_id, selectedScript=CANARY, customerReaction=spoken, transcriptHistory=[spoken])
    assert (await client.ask("REQUEST_NEXT_TIP", wish))["ok"]
    await client.wait_for("AI_TIP", 2)
    resume = {"conversationId": call_id, "resumeToken": started["resumeToken"], "lastSeq": 1}
    assert (await client.ask("RESUME_CONVERSATION", resume))["ok"]
    assert (await client.ask("END_CONVERSATION", {"conversationId": call_id}))["ok"]
    await client.wait_for("ANALYSIS_READY")
    return call_id


async def test_without_storage_no_word_reaches_a_table_a_file_or_the_log(
    tmp_path: Path, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, connected(server) as client:
        call_id = await a_whole_call(server, client, storeTranscript=False)
        _, detail = await server.get(f"/api/conversations/{call_id}")
        assert (detail["storeTranscript"], detail["metadata"]) == (False, {})
        _, document = await server.get(f"/api/conversations/{call_id}/analysis")
        assert document["utterances"] and CANARY not in str(document).lower()
        assert await where(CANARY, database_url, tmp_path) in ({}, [])
    assert await where(CANARY, database_url, tmp_path) in ({}, [])
    assert CANARY not in capfd.readouterr().err.lower()


async def test_a_call_that_is_stored_is_found_by_the_same_search(tmp_path: Path, database_url: str) -> None:
    """Else the search above would prove nothing."""
    async with serving(tmp_path, DATABASE_URL=database_url) as server, connected(server) as client:
        await a_whole_call(server, client)
        assert await where(CANARY, database_url, tmp_path)


async def test_where_consent_is_required_nothing_is_kept_without_it(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url, CONSENT_REQUIRED=True) as server:
        for choices in ({}, {"consent": False}, {"consent": {"given": False, "by": "Ann"}}):
            async with connected(server) as client:
                call_id = await a_whole_call(server, client, **choices)
            _, detail = await server.get(f"/api/conversations/{call_id}")
            assert detail["storeTranscript"] is False
            _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
            assert kept["segments"] == []
        assert await where(CANARY, database_url, tmp_path) in ({}, [])


async def test_consent_is_kept_with_who_gave_it_when_and_to_which_wording(
    tmp_path: Path, database_url: str
) -> None:
    consent = {"given": True, "by": "Ann Example", "at": 1_790_000_000_000, "version": "2026-01"}
    async with (
        serving(tmp_path, DATABASE_URL=database_url, CONSENT_REQUIRED=True) as server,
        connected(server) as client,
    ):
        call_id = await a_whole_call(server, client, consent=consent)
        _, detail = await server.get(f"/api/conversations/{call_id}")
        assert detail["consent"] == consent and detail["storeTranscript"] is True
        _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
        assert len(kept["segments"]) == 8


async def test_consent_does_not_override_the_wish_not_to_store(tmp_path: Path) -> None:
    async with serving(tmp_path, CONSENT_REQUIRED=True) as server, connected(server) as client:
        call_id = await a_whole_call(server, client, consent=True, storeTranscript=False)
        _, detail = await server.get(f"/api/conversations/{call_id}")
        assert detail["storeTranscript"] is False
        assert await asyncio.to_thread(files_holding, tmp_path, CANARY) == []
