"""Live calls through the real server and a real Socket.IO client."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from coach_server.app import Replacements
from coach_server.testing import ManualClock
from tests.fakes.openai import FakeOpenAI
from tests.serving import OTHER_KEY, Client, connected, serving

SOON = {"warmupMs": 100, "intervalMs": 200}
PAIN = "We lose about two days a month on invoices, it is a real mess."
CONTRACT_STAGES = {
    "GREETING",
    "DISCOVERY",
    "VALUE_PROP",
    "OBJECTION_HANDLING",
    "NEXT_STEPS",
    "CLOSING",
    "CONVERSION",
}


def assert_is_a_tip(payload: dict[str, Any]) -> None:
    """What the published client needs, and what we promise beyond it."""
    assert payload["stage"] in CONTRACT_STAGES
    assert len(payload["heading"]) <= 20 and 1 <= len(payload["heading"].split()) <= 2
    assert [option["label"] for option in payload["options"]] == ["Minimal", "Explanative", "Contextual"]
    assert all(option["script"].strip() for option in payload["options"])
    assert payload["source"] in ("openai", "offline")
    assert isinstance(payload["degraded"], bool)
    assert isinstance(payload["timestamp"], int) and isinstance(payload["latencyMs"], int)
    assert payload["recommendationId"] and payload["trigger"]


async def test_a_call_in_auto_mode_from_start_to_analysis(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        started = await client.start(**SOON)
        call_id = started["conversationId"]
        assert re.fullmatch(r"[0-9a-f-]{36}", call_id)
        assert (started["mode"], started["warmupMs"], started["intervalMs"]) == ("auto", 100, 200)
        assert (await client.wait_for("CONVERSATION_STARTED"))["conversationId"] == call_id
        assert (await client.say(call_id, "agent", "How do you do invoices today?"))["sequence"] == 1
        assert (await client.say(call_id, "caller", PAIN))["sequence"] == 2
        tip = await client.wait_for("AI_TIP")
        assert_is_a_tip(tip)
        assert tip["trigger"] == "warmup"
        await client.say(call_id, "caller", "That is far too expensive for us.")
        second = await client.wait_for("AI_TIP", 2)
        assert_is_a_tip(second)
        assert second["stage"] == "OBJECTION_HANDLING"
        assert "expensive" in second["why"]
        await client.say(call_id, "agent", "Compared to what, if I may ask?")
        ended = await client.ask("END_CONVERSATION", {"conversationId": call_id})
        assert ended["ok"]
        assert (await client.wait_for("CONVERSATION_ENDED"))["usage"]["modelCalls"] == 0
        ready = await client.wait_for("ANALYSIS_READY")
        assert ready["conversationId"] == call_id
        status, document = await server.get(f"/api/conversations/{call_id}/analysis")
        assert status == 200 and document["objections"][0]["kind"] == "price"
        seqs = [payload["seq"] for _, payload in client.events if "seq" in payload]
        assert seqs == sorted(set(seqs)) and len(seqs) == len(client.events)


async def test_a_call_in_event_driven_mode_turns_on_what_was_really_said(tmp_path: Path) -> None:
    quick = {"SILENCE_MS": 100, "REACTION_TIMEOUT_MS": 300}
    async with serving(tmp_path, **quick) as server, connected(server) as client:
        started = await client.start(mode="event-driven", warmupMs=0)
        call_id = started["conversationId"]
        first = await client.wait_for("AI_TIP")
        picked = {"recommendationId": first["recommendationId"], "selectedOption": 2}
        assert (await client.ask("OPTION_SELECTED", picked))["ok"]
        assert await client.wait_for("OPTION_SELECTED_ACK")
        await client.say(call_id, "agent", "So how do you handle your invoices now?")
        await client.say(call_id, "caller", PAIN)
        second = await client.wait_for("AI_TIP", 2)
        assert_is_a_tip(second)
        assert second["trigger"] == "capture"
        status, kept = await server.get(f"/api/conversations/{call_id}/tips")
        assert status == 200
        assert [tip["selectedOption"] for tip in kept["tips"]] == [2, None]


async def test_every_tip_can_be_selected_also_one_that_was_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        call_id = (await client.start())["conversationId"]
        for name, more in (
            ("REQUEST_NEXT_TIP", {"selectedRecommendationId": "none", "selectedOption": 1}),
            ("REQUEST_ALTERNATIVE_TIP", {"currentStage": "CLOSING"}),
        ):
            assert (await client.ask(name, {"conversationId": call_id, **more}))["ok"]
        tips = [await client.wait_for("AI_TIP", number) for number in (1, 2)]
        assert tips[1]["stage"] == "CLOSING"
        for tip in tips:
            picked = {"recommendationId": tip["recommendationId"], "selectedOption": 3}
            assert (await client.ask("OPTION_SELECTED", picked))["ok"]


async def test_a_segment_sent_three_times_is_stored_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        call_id = (await client.start())["conversationId"]
        answers = [await client.say(call_id, "caller", "once", segmentId="s-1") for _ in range(3)]
        assert [answer["sequence"] for answer in answers] == [1, 1, 1]
        assert [answer.get("duplicate", False) for answer in answers] == [False, True, True]
        _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
        assert [segment["text"] for segment in kept["segments"]] == ["once"]


async def test_a_start_sent_three_times_is_one_conversation_also_after_a_restart(tmp_path: Path) -> None:
    ids = set()
    async with serving(tmp_path) as server, connected(server) as client:
        for _ in range(2):
            ids.add((await client.start(idempotencyKey="k-1"))["conversationId"])
    async with serving(tmp_path) as server, connected(server) as client:
        again = await client.start(idempotencyKey="k-1")
        ids.add(again["conversationId"])
        assert again["duplicate"] and again["resumeToken"]
        assert (await client.say(again["conversationId"], "agent", "still here"))["ok"]
    assert len(ids) == 1


async def test_concurrent_starts_with_one_key_are_one_conversation(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        answers = await asyncio.gather(*(client.start(idempotencyKey="k") for _ in range(5)))
        assert len({answer["conversationId"] for answer in answers}) == 1


async def test_a_flood_of_segments_keeps_its_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        call_id = (await client.start())["conversationId"]
        answers = await asyncio.gather(
            *(client.say(call_id, "agent", f"word {number}") for number in range(200))
        )
        assert [answer["sequence"] for answer in answers] == list(range(1, 201))
        _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
        assert [segment["text"] for segment in kept["segments"]] == [f"word {n}" for n in range(200)]


async def test_resuming_on_another_socket_replays_each_missed_event_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with connected(server) as first:
            started = await first.start()
            call_id = started["conversationId"]
            await first.say(call_id, "caller", PAIN)
            await first.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
            seen = (await first.wait_for("AI_TIP"))["seq"]
            await first.ask("REQUEST_ALTERNATIVE_TIP", {"conversationId": call_id})
            missed = await first.wait_for("AI_TIP", 2)
        async with connected(server) as second:
            resume = {
                "conversationId": call_id,
                "resumeToken": started["resumeToken"],
                "lastSeq": seen,
            }
            answer = await second.ask("RESUME_CONVERSATION", resume)
            assert answer["recovered"] and answer["missed"] == 1
            again = await second.wait_for("AI_TIP")
            assert again == missed
            assert [name for name, _ in second.events] == ["CONVERSATION_RESUMED", "AI_TIP"]
            await second.ask("RESUME_CONVERSATION", {**resume, "lastSeq": again["seq"]})
            assert len(second.told("AI_TIP")) == 1


async def test_a_call_goes_on_after_a_restart_with_its_timers_and_words(tmp_path: Path) -> None:
    choices = {"warmupMs": 1500, "intervalMs": 60_000}
    async with serving(tmp_path) as server, connected(server) as client:
        started = await client.start(**choices)
        call_id = started["conversationId"]
        await client.say(call_id, "caller", PAIN)
    async with serving(tmp_path) as server, connected(server) as client:
        resume = {"conversationId": call_id, "resumeToken": started["resumeToken"], "lastSeq": 1}
        answer = await client.ask("RESUME_CONVERSATION", resume)
        assert answer["ok"] and answer["recovered"]
        tip = await client.wait_for("AI_TIP")
        assert tip["seq"] == 2 and tip["why"]
        assert (await client.say(call_id, "agent", "next"))["sequence"] == 2


async def test_an_old_client_goes_on_with_the_old_id_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        call_id = (await client.start(**SOON))["conversationId"]
        await client.say(call_id, "caller", PAIN)
        await client.wait_for("AI_TIP")
    async with serving(tmp_path) as server, connected(server) as client:
        await client.send(
            "TRANSCRIPT",
            {"conversationId": call_id, "speaker": "caller", "text": "Too expensive!", "isFinal": True},
        )
        assert_is_a_tip(await client.wait_for("AI_TIP"))


@pytest.mark.parametrize("what", ["foreign", "unknown"])
async def test_foreign_and_unknown_conversations_are_refused_alike(tmp_path: Path, what: str) -> None:
    async with serving(tmp_path) as server, connected(server) as owner:
        call_id = (await owner.start())["conversationId"]
        tip_id = None
        await owner.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
        tip_id = (await owner.wait_for("AI_TIP"))["recommendationId"]
        if what == "unknown":
            call_id, tip_id = "5dd9cf0b-0000-4000-8000-000000000000", "nobody"
        async with connected(server, {"apiKey": OTHER_KEY}) as stranger:
            for name, more in (
                ("TRANSCRIPT", {"speaker": "agent", "text": "hello", "isFinal": True}),
                ("REQUEST_NEXT_TIP", {}),
                ("REQUEST_ALTERNATIVE_TIP", {}),
                ("SET_MODE", {"mode": "auto"}),
                ("END_CONVERSATION", {}),
                ("RESUME_CONVERSATION", {"resumeToken": "guess", "lastSeq": 0}),
            ):
                answer = await stranger.ask(name, {"conversationId": call_id, **more})
                assert (answer["ok"], answer["code"]) == (False, "NOT_FOUND"), name
            picked = {"recommendationId": tip_id, "selectedOption": 1}
            assert (await stranger.ask("OPTION_SELECTED", picked))["code"] == "NOT_FOUND"
            status, _ = await server.get(f"/api/conversations/{call_id}", key=OTHER_KEY)
            assert status == 404
        assert (await owner.ask("PING"))["ok"]


async def test_a_second_socket_of_the_same_key_is_refused_while_the_first_answers(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as first, connected(server) as second:
        started = await first.start()
        call_id = started["conversationId"]
        answer = await second.say(call_id, "agent", "mine now")
        assert answer["code"] == "NOT_FOUND"
        resume = {"conversationId": call_id, "resumeToken": started["resumeToken"], "lastSeq": 1}
        assert (await second.ask("RESUME_CONVERSATION", resume))["ok"]
        assert (await second.say(call_id, "agent", "mine now"))["ok"]
        assert (await first.say(call_id, "agent", "and mine"))["code"] == "NOT_FOUND"


async def test_a_user_token_takes_its_own_call_to_another_socket(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        token = await server.token("ann")
        other = await server.token("bob")
        async with (
            connected(server, {"token": token}) as first,
            connected(server, {"token": token}) as second,
        ):
            call_id = (await first.start())["conversationId"]
            assert (await second.say(call_id, "agent", "hello"))["ok"]
            async with connected(server, {"token": other}) as stranger:
                assert (await stranger.say(call_id, "agent", "hello"))["code"] == "NOT_FOUND"
            status, _ = await server.get(
                f"/api/conversations/{call_id}", key=None, Authorization=f"Bearer {token}"
            )
            assert status == 200
            status, _ = await server.get(
                f"/api/conversations/{call_id}", key=None, Authorization=f"Bearer {other}"
            )
            assert status == 404


async def test_refusals_without_an_ack_are_told_as_the_contract_wants(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        nobody = {"conversationId": "5dd9cf0b-0000-4000-8000-000000000000"}
        for name, data in (
            ("TRANSCRIPT", {**nobody, "speaker": "agent", "text": "x", "isFinal": True}),
            ("TRANSCRIPT", None),
            ("START_CONVERSATION", {}),
            ("REQUEST_NEXT_TIP", {}),
            ("REQUEST_ALTERNATIVE_TIP", nobody),
            ("END_CONVERSATION", nobody),
            ("START_TRANSCRIPTION", {"sessionId": "s"}),
            ("AUDIO_CHUNK", {"sessionId": "s", "chunk": "AAAA"}),
        ):
            await client.send(name, data)
        await client.wait_for("ERROR", 6)
        await client.ask("PING")
        assert len(client.told("ERROR")) == 6
        assert {error["code"] for error in client.told("ERROR")} == {
            "START_ERROR",
            "CONTEXTUAL_TIP_ERROR",
            "ALTERNATIVE_TIP_ERROR",
            "CONVERSATION_END_ERROR",
            "SERVICE_UNAVAILABLE",
        }


async def test_transcripts_after_the_end_are_refused_and_a_second_end_is_harmless(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        call_id = (await client.start())["conversationId"]
        assert (await client.ask("END_CONVERSATION", {"conversationId": call_id}))["ok"]
        assert (await client.ask("END_CONVERSATION", {"conversationId": call_id}))["alreadyEnded"]
        assert (await client.say(call_id, "agent", "late"))["ok"] is False
        assert len(client.told("CONVERSATION_ENDED")) == 1
        status, _ = await server.get(f"/api/conversations/{call_id}/transcript")
        assert status == 200


async def test_clicks_beyond_the_budget_are_refused_with_a_time_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        call_id = (await client.start())["conversationId"]
        refused = []
        for number in range(40):
            wish = {"conversationId": call_id, "selectedRecommendationId": str(number)}
            answer = await client.ask("REQUEST_NEXT_TIP", wish)
            if not answer["ok"]:
                refused.append(answer)
        assert 15 <= len(refused) <= 20
        assert refused[0]["code"] == "RATE_LIMITED" and refused[0]["retryAfterMs"] > 0


async def test_without_storage_nothing_that_was_said_reaches_the_disk(tmp_path: Path) -> None:
    canary = "zanzibar-canary"
    async with serving(tmp_path) as server, connected(server) as client:
        started = await client.start(storeTranscript=False, metadata={"note": canary}, **SOON)
        call_id = started["conversationId"]
        for text in (f"My name is {canary}", PAIN, f"{canary} is too expensive", "hm"):
            answer = await client.say(call_id, "caller", text)
            assert answer["ok"] and answer["stored"] is False
        await client.wait_for("AI_TIP")
        resume = {"conversationId": call_id, "resumeToken": started["resumeToken"], "lastSeq": 1}
        assert (await client.ask("RESUME_CONVERSATION", resume))["recovered"]
        await client.ask("END_CONVERSATION", {"conversationId": call_id})
        await client.wait_for("ANALYSIS_READY")
        status, document = await server.get(f"/api/conversations/{call_id}/analysis")
        assert status == 200 and document["conversationId"] == call_id
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert canary.encode() not in file.read_bytes(), file.name


async def test_the_model_writes_the_tip_and_its_tokens_are_counted(tmp_path: Path) -> None:
    async with FakeOpenAI() as fake:
        values = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url}
        async with serving(tmp_path, **values) as server, connected(server) as client:
            call_id = (await client.start())["conversationId"]
            await client.say(call_id, "caller", PAIN)
            await client.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
            tip = await client.wait_for("AI_TIP")
            assert_is_a_tip(tip)
            assert (tip["source"], tip["degraded"]) == ("openai", False)
            await client.ask("END_CONVERSATION", {"conversationId": call_id})
            usage = (await client.wait_for("CONVERSATION_ENDED"))["usage"]
            assert usage["modelCalls"] == 1 and usage["inputTokens"] > 0 and usage["costMicroUsd"] > 0
            _, figures = await server.get("/metrics")
            assert 'coach_tips_total{degraded="false",source="openai",trigger="next_tip"} 1.0' in figures


async def test_a_streaming_client_sees_the_offline_tip_grow_into_the_models(tmp_path: Path) -> None:
    async with FakeOpenAI() as fake:
        values = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url}
        async with serving(tmp_path, **values) as server, connected(server) as client:
            call_id = (await client.start(tipStreaming=True))["conversationId"]
            await client.say(call_id, "caller", PAIN)
            await client.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
            first = await client.wait_for("AI_TIP")
            better = await client.wait_for("TIP_UPDATED")
            assert first["source"] == "offline" and better["source"] == "openai"
            assert first["recommendationId"] == better["recommendationId"]
            chunks = client.told("TIP_CHUNK")
            assert chunks and {chunk["recommendationId"] for chunk in chunks} == {first["recommendationId"]}
            assert len(client.told("AI_TIP")) == 1


async def test_replacements_reach_the_root(tmp_path: Path) -> None:
    """A clock that is put in drives the server's own timestamps."""
    clock = ManualClock(1_800_000_000.0)
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        _, health = await server.get("/health", key=None)
        assert health == {"status": "healthy", "timestamp": 1_800_000_000_000, "activeConversations": 0}


async def test_three_pollers_also_work(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        client = Client()
        await client.connect(server, transports=["polling"])
        call_id = (await client.start())["conversationId"]
        assert (await client.say(call_id, "agent", "by polling"))["ok"]
        await client.close()


async def test_in_playbook_mode_the_model_chooses_and_the_words_are_the_playbooks(tmp_path: Path) -> None:
    async with FakeOpenAI() as fake:
        values = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url}
        async with serving(tmp_path, **values) as server, connected(server) as client:
            started = await client.start(playbook="b2b", metadata={"agentName": "Mark", "company": "Acme"})
            call_id = started["conversationId"]
            await client.say(call_id, "caller", "That sounds too expensive for us.")
            await client.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
            tip = await client.wait_for("AI_TIP")
            assert_is_a_tip(tip)
            assert tip["source"] == "openai"
            assert all(option["id"] for option in tip["options"])
            assert not any("[" in option["script"] for option in tip["options"])
        async with serving(tmp_path) as server, connected(server) as client:
            call_id = (await client.start(playbook="b2b", language="nl"))["conversationId"]
            await client.say(call_id, "caller", "Dat vind ik echt te duur.")
            await client.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
            tip = await client.wait_for("AI_TIP")
            assert tip["source"] == "offline" and all(option["id"] for option in tip["options"])
            refused = await client.ask("START_CONVERSATION", {"agentId": "a", "playbook": "nobody's"})
            assert (refused["code"], refused["field"]) == ("INVALID", "playbook")


async def test_a_call_that_ended_can_still_be_resumed_with_what_was_told_after_its_end(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        async with connected(server) as client:
            started = await client.start()
            call_id = started["conversationId"]
            await client.say(call_id, "caller", PAIN)
            await client.ask("END_CONVERSATION", {"conversationId": call_id})
            ready = await client.wait_for("ANALYSIS_READY")
        async with connected(server) as client:
            resume = {"conversationId": call_id, "resumeToken": started["resumeToken"]}
            answer = await client.ask("RESUME_CONVERSATION", {**resume, "lastSeq": ready["seq"]})
            assert answer["recovered"] and answer["missed"] == 0
            await client.ask("RESUME_CONVERSATION", {**resume, "lastSeq": ready["seq"] - 1})
            assert (await client.wait_for("ANALYSIS_READY"))["seq"] == ready["seq"]


async def test_a_token_that_expired_under_an_open_socket_starts_nothing_new(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        token = await server.token("ann")
        async with connected(server, {"token": token}) as client:
            call_id = (await client.start())["conversationId"]
            await clock.advance(3601)
            assert (await client.ask("START_CONVERSATION", {"agentId": "a"}))["code"] == "UNAUTHORIZED"
            assert (await client.say(call_id, "agent", "the running call goes on"))["ok"]


async def test_a_null_is_a_field_that_was_left_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        started = await client.start(verbosity=None, storeTranscript=None, tipStreaming=None, mode=None)
        assert started["mode"] == "auto"
        answer = await client.ask("START_CONVERSATION", {"agentId": None})
        assert (answer["code"], answer["field"]) == ("INVALID", "agentId")


async def test_audio_without_a_speech_service_is_refused_as_unavailable(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        for name, data in (
            ("START_TRANSCRIPTION", {"sessionId": "s"}),
            ("AUDIO_CHUNK", {"sessionId": "s", "chunk": "AAAA"}),
            ("END_TRANSCRIPTION", {"sessionId": "s"}),
        ):
            assert (await client.ask(name, data))["code"] == "SERVICE_UNAVAILABLE", name
