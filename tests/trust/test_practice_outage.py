"""The database goes away in the middle of a practice session and comes back, on both engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.serving import Server, connected, serving
from tests.trust.calling import now, until
from tests.trust.outage import fragile
from tests.trust.talking import SELLER, SESSIONS, talking

pytestmark = pytest.mark.timeout(120)
REFUSED_WITHIN_S = 15.0


async def transcript(server: Server, id: str) -> list[dict[str, Any]]:
    status, document = await server.get("/api/users/ann/export")
    assert status == 200
    return next(one["transcript"] for one in document["sessions"] if one["sessionId"] == id)


async def test_an_outage_refuses_in_words_stores_no_half_and_is_over_when_the_database_is_back(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        fragile(database_url) as database,
        serving(tmp_path, DATABASE_URL=database.url) as server,
        talking(server) as talker,
        connected(server) as client,
    ):
        id = str((await talker.start("ann"))["sessionId"])
        await client.ask("session:join", {"sessionId": id})
        await talker.talk(id, *SELLER[:2])
        before = await transcript(server, id)
        await database.fail()
        begun = now()
        for status, answer in (
            await talker.say(id, "Do you hear me?", messageId="lost"),
            await talker.message(id, "And now?", messageId="asked"),
            (await talker.ask("POST", f"{SESSIONS}/start", {"userId": "ann"}))[:2],
            (await talker.ask("POST", f"{SESSIONS}/{id}/stop"))[:2],
        ):
            assert (status, answer["code"]) == (503, "STORAGE_FAILED"), answer
            assert "sqlite" not in str(answer).lower() and "asyncpg" not in str(answer).lower()
        assert now() - begun < 4 * REFUSED_WITHIN_S
        status, health = await server.get("/health", key=None)
        assert (status, health["status"]) == (200, "healthy")
        await database.heal()

        async def answers() -> bool:
            return (await talker.ask("GET", f"{SESSIONS}/{id}/status"))[0] == 200

        await until(answers, within_s=30)
        assert await transcript(server, id) == before
        status, told, _ = await talker.ask("GET", f"{SESSIONS}/{id}/status")
        assert (told["status"], told["transcriptLength"]) == ("recording", len(before))
        # What was refused can be sent again under the same id.
        assert (await talker.say(id, "Do you hear me?", messageId="lost"))[1]["created"] is True
        status, asked = await talker.message(id, "And now?", messageId="asked")
        assert status == 200 and asked["reply"]["text"]
        await talker.talk(id, *SELLER[2:])
        await talker.stop(id)
        assert (await talker.feedback(id))["overallScore"] is not None
        await client.wait_for("feedback:ready")
        turns = await transcript(server, id)
        assert [turn["sequenceNumber"] for turn in turns] == list(range(1, len(turns) + 1))


async def test_an_answer_that_could_not_be_kept_is_given_when_it_is_asked_again(
    tmp_path: Path, postgres_url: str
) -> None:
    """The seller's words are stored, the database goes, and the same message later brings its one answer."""
    async with (
        fragile(postgres_url) as database,
        serving(tmp_path, DATABASE_URL=database.url) as server,
        talking(server) as talker,
    ):
        id = str((await talker.start("ann"))["sessionId"])
        assert (await talker.say(id, "How do you plan?", messageId="m1"))[0] == 200
        await database.fail()
        assert (await talker.message(id, "How do you plan?", messageId="m1"))[0] == 503
        await database.heal()

        async def answered() -> bool:
            return (await talker.message(id, "How do you plan?", messageId="m1"))[0] == 200

        await until(answered, within_s=30)
        first = (await talker.message(id, "How do you plan?", messageId="m1"))[1]
        again = (await talker.message(id, "How do you plan?", messageId="m1"))[1]
        assert first == again
        turns = await transcript(server, id)
        assert [turn["message"] for turn in turns].count("How do you plan?") == 1
        assert [turn["speaker"] for turn in turns] == ["hugo", "user", "hugo"]
