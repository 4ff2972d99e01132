"""The customer answers: whole, in pieces, by a model or without one; and a model looks at a turn again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coach_server.api.practice import out as practice_out
from tests.api.practising import SESSIONS, Desk, joined, listening
from tests.fakes.openai import FakeOpenAI, Seen, Step, answer, cut, hang, status
from tests.serving import KEY, Server, serving

WORDS = "Dat is een goede vraag, wij plannen alles nog met de hand op een groot bord."
JUDGED = (("1.1", "fijn dat u tijd maakt"), ("1.2", "op het einde beslissen we samen"))
OPENING = "Dag mevrouw Peeters, fijn dat u tijd maakt vandaag. Hoe was uw week?"


def valid(seen: Seen) -> Step | None:
    """A model that plays the customer well, finds nothing wrong with it, and judges a turn by its words."""
    if seen.schema_name is None:
        return answer(WORDS)
    if "label" in properties(seen):
        return answer({"label": "VALID", "repaired": ""})
    return answer({"techniques": [judged(*one) for one in JUDGED if one[1] in seen.user]})


def judged(technique: str, quote: str, quality: str = "goed") -> dict[str, Any]:
    """A technique as the model tells it; the server looks whether the turn has the quote."""
    return {
        "id": technique,
        "done": True,
        "quote": quote,
        "quality": quality,
        "rationale": "Dat was duidelijk.",
    }


def properties(seen: Seen) -> dict[str, Any]:
    form = seen.body.get("response_format") or {}
    found: dict[str, Any] = form.get("json_schema", {}).get("schema", {}).get("properties", {})
    return found


@asynccontextmanager
async def with_model(folder: Path, **values: object) -> AsyncIterator[tuple[Server, FakeOpenAI]]:
    async with FakeOpenAI() as fake:
        fake.on_request = valid
        given = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url, **values}
        async with serving(folder, **given) as server:
            yield server, fake


@asynccontextmanager
async def streamed(
    server: Server, session_id: str, text: str, **more: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"x-api-key": KEY, "Accept": "text/event-stream"}
    url = f"{server.url}{SESSIONS}/{session_id}/message"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json={"text": text, **more}, headers=headers) as response,
    ):
        yield response


async def piece(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next piece of the stream."""
    async with asyncio.timeout(10):
        line = (await response.content.readuntil(b"\n\n")).decode()
    assert line.startswith("data: ")
    found: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return found


async def pieces(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    async with asyncio.timeout(20):
        body = (await response.read()).decode()
    return [json.loads(part.removeprefix("data: ")) for part in body.split("\n\n") if part]


# --- without a model


async def test_without_a_model_the_customer_answers_at_once_and_is_not_degraded(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        told = await desk.message(session_id, OPENING, messageId="m1")
        assert told["messageId"] == "m1"
        reply = told["reply"]
        assert reply["text"] and (reply["source"], reply["degraded"]) == ("offline", False)
        assert reply["attitude"]["id"] in {f"H{number}" for number in range(1, 10)}
        assert (await desk.status(session_id))["transcriptLength"] == 3


async def test_without_a_model_a_stream_is_one_piece(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        session_id = (await Desk(server).start())["sessionId"]
        async with streamed(server, session_id, OPENING, messageId="m1") as response:
            assert response.status == 200 and response.content_type == "text/event-stream"
            told = await pieces(response)
        assert [one["type"] for one in told] == ["done"]
        practice_out.ReplyAnswer.model_validate({k: told[0][k] for k in ("messageId", "reply")})


async def test_what_is_refused_before_the_first_piece_is_an_ordinary_refusal(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        await desk.stop(session_id)
        async with streamed(server, session_id, OPENING) as response:
            assert response.status == 409 and response.content_type == "application/json"


async def test_the_same_message_brings_the_same_answer_by_every_way(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.start()
        session_id = started["sessionId"]
        first = await desk.message(session_id, OPENING, messageId="m1")
        length = (await desk.status(session_id))["transcriptLength"]
        assert await desk.message(session_id, OPENING, messageId="m1") == first
        async with streamed(server, session_id, OPENING, messageId="m1") as response:
            assert (await pieces(response))[-1]["reply"] == first["reply"]
        async with joined(server, started) as client:
            said = {"sessionId": session_id, "text": OPENING, "messageId": "m1"}
            assert (await client.ask("roleplay:message", said))["messageId"] == "m1"
            told = await client.wait_for("roleplay:reply")
            assert told["reply"] == first["reply"]
        assert (await desk.say(session_id, "user", OPENING, messageId="m1"))["created"] is False
        assert (await desk.status(session_id))["transcriptLength"] == length


async def test_two_messages_at_once_are_answered_one_after_the_other(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        await asyncio.gather(*(desk.message(session_id, OPENING, messageId=f"m{n}") for n in range(4)))
        assert (await desk.status(session_id))["transcriptLength"] == 9


async def test_the_same_message_twice_at_once_is_answered_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        told = await asyncio.gather(*(desk.message(session_id, OPENING, messageId="m1") for _ in range(4)))
        assert all(one == told[0] for one in told)
        assert (await desk.status(session_id))["transcriptLength"] == 3


# --- with a model


async def test_the_first_words_are_sent_before_the_model_has_finished(tmp_path: Path) -> None:
    """Streaming that was buffered felt like waiting (contract §10.2)."""
    async with with_model(tmp_path) as (server, fake):
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        slow = answer(WORDS, every_s=0.1, piece=8)
        fake.on_request = lambda seen: slow if seen.streamed else valid(seen)
        async with streamed(server, session_id, OPENING, messageId="m1") as response:
            first = await piece(response)
            assert first["type"] == "token" and WORDS.startswith(first["text"])
            assert fake.active >= 1, "the model is still speaking"
            rest = await pieces(response)
        tokens = [first, *(one for one in rest if one["type"] == "token")]
        assert len(tokens) > 3 and "".join(one["text"] for one in tokens) == WORDS
        done = rest[-1]
        assert done["type"] == "done" and done["messageId"] == "m1"
        assert done["reply"]["text"] == WORDS
        assert (done["reply"]["source"], done["reply"]["degraded"]) == ("openai", False)


FAULTS = {
    "cut in the middle": cut(WORDS),
    "an error": status(500),
    "another language": answer("Мы планируем всё вручную, это занимает много времени каждый день."),
    "its own prompt": answer("# Regels\n```system```"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_when_the_model_fails_the_customer_answers_all_the_same(tmp_path: Path, fault: str) -> None:
    async with with_model(tmp_path) as (server, fake):
        desk = Desk(server)
        started = await desk.start()
        fake.on_request = lambda seen: FAULTS[fault] if seen.streamed else valid(seen)
        async with joined(server, started) as client:
            async with streamed(server, started["sessionId"], OPENING, messageId="m1") as response:
                told = await pieces(response)
            reply = told[-1]["reply"]
            assert told[-1]["type"] == "done" and reply["text"]
            assert (reply["source"], reply["degraded"]) == ("offline", True)
            assert (await client.wait_for("roleplay:reply"))["reply"] == reply
        assert (await desk.message(started["sessionId"], OPENING, messageId="m1"))["reply"] == reply


async def test_a_socket_hears_the_pieces_in_order_and_then_the_whole(tmp_path: Path) -> None:
    async with with_model(tmp_path) as (server, _):
        started = await Desk(server).start()
        session_id = started["sessionId"]
        async with joined(server, started) as client, joined(server, started) as other:
            said = {"sessionId": session_id, "text": OPENING, "messageId": "m1"}
            assert (await client.ask("roleplay:message", said))["messageId"] == "m1"
            whole = await client.wait_for("roleplay:reply")
            assert (whole["sessionId"], whole["messageId"]) == (session_id, "m1")
            assert await other.wait_for("roleplay:reply") == whole
            for listener in (client, other):
                names = [name for name, _ in listener.events if name.startswith("roleplay:")]
                assert names[-1] == "roleplay:reply" and names.count("roleplay:reply") == 1
                chunks = listener.told("roleplay:reply_chunk")
                assert len(chunks) == len(names) - 1 > 1
                assert "".join(chunk["delta"] for chunk in chunks) == whole["reply"]["text"] == WORDS
                assert {chunk["messageId"] for chunk in chunks} == {"m1"}


async def test_whoever_asks_by_socket_is_answered_without_having_joined(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        started = await Desk(server).start()
        async with listening(server, {"joinToken": started["joinToken"]}) as client:
            answer_ = await client.ask(
                "roleplay:message", {"sessionId": started["sessionId"], "text": OPENING}
            )
            assert answer_["ok"] and answer_["messageId"]
            told = await client.wait_for("roleplay:reply")
            assert told["messageId"] == answer_["messageId"]


async def test_a_socket_that_leaves_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    async with with_model(tmp_path) as (server, fake):
        desk = Desk(server)
        started = await desk.start()
        session_id = started["sessionId"]
        slow = answer(WORDS, every_s=0.02, piece=8)
        fake.on_request = lambda seen: slow if seen.streamed else valid(seen)
        async with joined(server, started) as client:
            await client.ask(
                "roleplay:message", {"sessionId": session_id, "text": OPENING, "messageId": "m1"}
            )
            await client.wait_for("roleplay:reply_chunk")
        assert (await desk.message(session_id, OPENING, messageId="m1"))["reply"]["text"] == WORDS
        assert (await desk.status(session_id))["transcriptLength"] == 3


async def test_a_reader_that_leaves_a_stream_leaves_the_session_usable(tmp_path: Path) -> None:
    async with with_model(tmp_path) as (server, fake):
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        endless = answer(WORDS, every_s=0.05, piece=4)
        fake.on_request = lambda seen: endless if seen.streamed else valid(seen)
        async with streamed(server, session_id, OPENING, messageId="m1") as response:
            await piece(response)
            response.close()
        fake.on_request = valid
        async with asyncio.timeout(10):
            told = await desk.message(session_id, OPENING, messageId="m1")
        assert told["reply"]["text"] == WORDS
        assert (await desk.message(session_id, "En daarna?", messageId="m2"))["reply"]["text"]


async def test_a_message_sent_while_the_customer_still_speaks_is_answered_after_it(tmp_path: Path) -> None:
    async with with_model(tmp_path) as (server, fake):
        started = await Desk(server).start()
        session_id = started["sessionId"]
        slow = answer(WORDS, every_s=0.02, piece=8)
        fake.on_request = lambda seen: slow if seen.streamed else valid(seen)
        async with joined(server, started) as client:
            for number in (1, 2):
                said = {"sessionId": session_id, "text": OPENING, "messageId": f"m{number}"}
                await client.send("roleplay:message", said)
            await client.wait_for("roleplay:reply", 2)
            told = [(name, payload["messageId"]) for name, payload in client.events if "reply" in name]
            first = told.index(("roleplay:reply", "m1"))
            assert {message for _, message in told[: first + 1]} == {"m1"}
            assert {message for _, message in told[first + 1 :]} == {"m2"}
            assert client.told("ERROR") == []


async def test_a_model_that_never_answers_holds_nobody_up(tmp_path: Path) -> None:
    async with with_model(tmp_path) as (server, fake):
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        fake.on_request = lambda seen: hang() if seen.streamed else valid(seen)
        async with asyncio.timeout(10):
            told = await desk.message(session_id, OPENING)
        assert (told["reply"]["source"], told["reply"]["degraded"]) == ("offline", True)


async def test_the_models_second_look_at_a_turn_moves_steps_later(tmp_path: Path) -> None:
    said = "Ziezo, daar gaan we dan."
    async with with_model(tmp_path) as (server, fake):
        desk = Desk(server)
        started = await desk.start()

        def judges(seen: Seen) -> Step | None:
            if "techniques" not in properties(seen):
                return valid(seen)
            return answer({"techniques": [judged("1.1", said, "perfect")]})

        fake.on_request = judges
        async with joined(server, started) as client:
            stored = await desk.say(started["sessionId"], "user", said)
            assert stored["created"]
            told = await client.wait_for("step:updated")
            assert (told["previousStepId"], told["currentStepId"]) == ("1.1", "1.2")
        assert (await desk.status(started["sessionId"]))["currentStepId"] == "1.2"


async def test_what_the_model_costs_is_counted_for_the_session(tmp_path: Path) -> None:
    async with with_model(tmp_path) as (server, fake):
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        await desk.message(session_id, OPENING)
        session = await server.coaching.practising.store.load(session_id)
        assert fake.calls >= 2
        assert session.usage["input_tokens"] > 0, session.usage


async def test_what_was_said_is_not_in_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with with_model(tmp_path) as (server, fake):
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        fake.on_request = lambda seen: cut(WORDS) if seen.streamed else valid(seen)
        await desk.message(session_id, "Kwijtschelding van zanzibar.")
        await desk.stop(session_id)
        await desk.feedback(session_id)
    out, err = capfd.readouterr()
    assert "zanzibar" not in (out + err).lower() and "groot bord" not in out + err
