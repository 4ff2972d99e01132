"""What the published extension does, done by the real npm client (live-coach.md §2-§6)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.extension import VERSIONS, extension
from tests.acceptance.outage import cable
from tests.serving import KEY, Server, serving

pytestmark = pytest.mark.node

PAIN = "We lose about two days a month on invoices, it is a real mess."
REQUIRED_IN_A_TIP = {
    "recommendationId",
    "conversationId",
    "stage",
    "heading",
    "context",
    "options",
    "timestamp",
}


async def ended(server: Server, call_id: str) -> dict[str, object]:
    """The conversation, once the server has stored its end."""
    async with asyncio.timeout(10):
        while True:
            status, kept = await server.get(f"/api/conversations/{call_id}")
            assert status == 200
            if kept["status"] != "active":
                return dict(kept)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_whole_call_of_the_extension(tmp_path: Path, version: str) -> None:
    quick = {"WARMUP_MS": 300, "TIP_INTERVAL_MS": 300}
    async with serving(tmp_path, **quick) as server, extension(server.url, KEY, version) as client:
        await client.wait_for("connect")
        call_id = await client.start()
        client.say(call_id, "agent", "Good morning, how do you do your invoices today?")
        client.say(call_id, "caller", PAIN)
        tip = (await client.wait_for("AI_TIP"))["payload"]
        assert tip.keys() >= REQUIRED_IN_A_TIP
        assert len(tip["options"]) == 3
        client.emit("OPTION_SELECTED", {"recommendationId": tip["recommendationId"], "selectedOption": 1})
        await client.wait_for("OPTION_SELECTED_ACK")
        client.emit("PING")
        await client.wait_for("PONG")
        client.say(call_id, "agent", "The last words before the end.")
        client.do("stop", conversationId=call_id)
        await client.wait_for("stopped")
        kept = await ended(server, call_id)
        assert kept["status"] == "ended"
        _, said = await server.get(f"/api/conversations/{call_id}/transcript")
        assert [segment["text"] for segment in said["segments"]][-1] == "The last words before the end."
        assert client.events("ERROR") == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "key", ["wrong", "", None, 7, {"a": 1}], ids=["wrong", "empty", "none", "number", "object"]
)
async def test_a_bad_key_is_refused_with_the_words_the_client_shows(
    tmp_path: Path, version: str, key: object
) -> None:
    async with serving(tmp_path) as server, extension(server.url, key, version) as client:
        refused = await client.wait_for("connect_error")
        assert refused["message"] == "Authentication failed"
        assert client.events("connect") == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_null_payloads_harm_nobody(tmp_path: Path, version: str) -> None:
    async with serving(tmp_path) as server, extension(server.url, KEY, version) as client:
        await client.wait_for("connect")
        call_id = await client.start()
        for name in (
            "TRANSCRIPT", "OPTION_SELECTED", "REQUEST_NEXT_TIP", "REQUEST_ALTERNATIVE_TIP",
            "END_CONVERSATION", "AUDIO_CHUNK", "START_TRANSCRIPTION", "END_TRANSCRIPTION",
            "START_CONVERSATION", "SET_MODE", "RESUME_CONVERSATION",
        ):  # fmt: skip
            client.emit(name, None)
            client.emit(name)
            client.emit(name, "text", 5, [], {})
            answer = await client.ask(name, None)
            assert answer["ok"] is False and answer["code"] and answer["message"], name
        assert (await client.ask("PING", None))["ok"]
        client.say(call_id, "agent", "still working")
        client.emit("REQUEST_NEXT_TIP", {"conversationId": call_id})
        await client.wait_for("AI_TIP")


async def test_after_an_outage_with_three_sockets_one_tip_reaches_one_socket(tmp_path: Path) -> None:
    quick = {"WARMUP_MS": 200, "TIP_INTERVAL_MS": 500}
    async with serving(tmp_path, **quick) as server, cable(server.port) as line:
        async with extension(f"http://127.0.0.1:{line.port}", KEY) as client:
            await client.wait_for("connect")
            call_id = await client.start()
            client.say(call_id, "caller", PAIN)
            await client.wait_for("AI_TIP")
            await line.cut()
            await client.wait_for("disconnect")
            await client.wait_for("connect_error", 2)
            await line.plug()
            await client.wait_for("connect", 3)
            tips = len(client.events("AI_TIP"))
            client.say(call_id, "caller", "That is far too expensive for us.")
            await client.wait_for("AI_TIP", tips + 1)
            client.emit("PING")
            await client.wait_for("PONG")
            ids = [event["payload"]["recommendationId"] for event in client.events("AI_TIP")]
            assert len(ids) == len(set(ids))
            assert client.events("ERROR") == []


async def test_a_half_open_connection_gives_way_to_the_new_socket(tmp_path: Path) -> None:
    quick = {"WARMUP_MS": 200, "TIP_INTERVAL_MS": 500}
    async with serving(tmp_path, **quick) as server, cable(server.port) as line:
        url = f"http://127.0.0.1:{line.port}"
        async with extension(url, KEY) as old:
            await old.wait_for("connect")
            call_id = await old.start()
            line.freeze()
            line.fresh()
            async with extension(url, KEY) as new:
                await new.wait_for("connect")
                new.say(call_id, "caller", PAIN)
                tip = await new.wait_for("AI_TIP")
                assert tip["payload"]["conversationId"] == call_id
                assert old.events("AI_TIP") == []


async def test_a_late_return_goes_on_with_the_old_id(tmp_path: Path) -> None:
    quick = {"WARMUP_MS": 200, "TIP_INTERVAL_MS": 300, "AWAY_GRACE_MS": 300}
    async with serving(tmp_path, **quick) as server:
        async with extension(server.url, KEY) as client:
            await client.wait_for("connect")
            call_id = await client.start()
            client.say(call_id, "caller", PAIN)
            await client.wait_for("AI_TIP")
        async with extension(server.url, KEY) as client:
            await client.wait_for("connect")
            client.say(call_id, "caller", "That is far too expensive for us.")
            tip = await client.wait_for("AI_TIP")
            assert tip["payload"]["conversationId"] == call_id
