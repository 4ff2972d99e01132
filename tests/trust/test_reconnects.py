"""A client that loses its connection again and again while people talk (trust.md G3, G5)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import socketio.exceptions

from tests.acceptance.outage import Cable, cable
from tests.fakes import openai as fakes
from tests.fakes.openai import FakeOpenAI
from tests.serving import Client, Server, serving
from tests.trust.calling import PRICE, next_tip, seqs

RECONNECTS = 30
ANSWER_LOST_S = 0.3


class Talker:
    """Talks on, whatever the connection does: each segment is sent until it is acknowledged."""

    def __init__(self, server: Server, line: Cable) -> None:
        self._url = Server(f"http://127.0.0.1:{line.port}", server.coaching, server.data_dir)
        self._connected = asyncio.Event()
        self.is_done = False
        self.client = Client()
        self.started: dict[str, Any] = {}
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.acknowledged: list[str] = []
        self.sent_again = 0

    @property
    def call_id(self) -> str:
        return str(self.started["conversationId"])

    @property
    def last_seq(self) -> int:
        return max([1, *(payload["seq"] for _, payload in self.heard if "seq" in payload)])

    async def begin(self, **choices: Any) -> None:
        await self.client.connect(self._url)
        self.started = await self.client.start(**choices)
        self._connected.set()

    async def reconnect(self) -> None:
        self._connected.clear()
        await self.client.close()
        self.heard += self.client.events
        self.client = await self._connect()
        resume = {
            "conversationId": self.call_id,
            "resumeToken": self.started["resumeToken"],
            "lastSeq": self.last_seq,
        }
        answer = await self.client.ask("RESUME_CONVERSATION", resume)
        assert answer["ok"] and answer["recovered"], answer
        self._connected.set()

    async def _connect(self) -> Client:
        """As real clients do: try again when a busy machine refuses the connection."""
        for _ in range(4):
            try:
                return await Client().connect(self._url)
            except socketio.exceptions.ConnectionError:
                continue
        return await Client().connect(self._url)

    async def talk(self) -> None:
        number = 0
        while not self.is_done:
            segment = f"s-{number}"
            while segment not in self.acknowledged:
                await self._connected.wait()
                said = {"conversationId": self.call_id, "speaker": "caller", "text": f"{PRICE} {number}"}
                try:
                    # A cut connection tells nobody that the answer is lost.
                    answer = await self.client.sio.call(
                        "TRANSCRIPT", {**said, "segmentId": segment}, timeout=ANSWER_LOST_S
                    )
                except socketio.exceptions.SocketIOError:
                    self.sent_again += 1
                    continue
                assert answer["ok"], answer
                self.acknowledged.append(segment)
            number += 1
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "streaming"])
async def test_thirty_reconnects_lose_no_word_and_repeat_no_tip(
    tmp_path: Path, database_url: str, streaming: bool
) -> None:
    async with FakeOpenAI() as fake:
        fake.always(fakes.slow(0.03))
        model = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url}
        async with (
            serving(tmp_path, DATABASE_URL=database_url, **model) as server,
            cable(server.port) as line,
        ):
            talker = Talker(server, line)
            await talker.begin(warmupMs=0, intervalMs=100, tipStreaming=streaming)
            talking = asyncio.create_task(talker.talk())
            for round_ in range(RECONNECTS):
                words = len(talker.acknowledged)
                async with asyncio.timeout(10):
                    while len(talker.acknowledged) < words + 3:  # noqa: ASYNC110
                        assert not talking.done(), await talking
                        await asyncio.sleep(0.005)
                if round_ % 2:
                    # Made while nobody listens; the next socket is told of it.
                    wish = next_tip(talker.call_id, selectedRecommendationId=str(round_))
                    assert (await talker.client.ask("REQUEST_NEXT_TIP", wish))["ok"]
                if round_ % 3:
                    await line.cut()
                    await line.plug()
                await talker.reconnect()
            talker.is_done = True
            await talking
            await talker.client.ask("PING")
            call_id = talker.call_id
            assert (await talker.client.ask("END_CONVERSATION", {"conversationId": call_id}))["ok"]
            await talker.client.wait_for("CONVERSATION_ENDED")
            talker.heard += talker.client.events
            _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
            _, shown = await server.get(f"/api/conversations/{call_id}/tips")
            await talker.client.close()
        stored = [segment["segmentId"] for segment in kept["segments"]]
        assert stored[: len(talker.acknowledged)] == talker.acknowledged
        assert len(stored) == len(set(stored)) <= len(talker.acknowledged) + 1
        assert [segment["sequence"] for segment in kept["segments"]] == list(range(1, len(stored) + 1))
        numbers = [payload["seq"] for _, payload in talker.heard if "seq" in payload]
        assert numbers == sorted(set(numbers)), "told twice or out of order"
        told = [payload["recommendationId"] for name, payload in talker.heard if name == "AI_TIP"]
        assert len(told) == len(set(told)) > 10
        assert told == [tip["recommendationId"] for tip in shown["tips"]], "every tip arrived, each once"


async def test_all_callers_of_a_server_may_come_back_at_once(tmp_path: Path) -> None:
    """Sixty callers, cut three times together."""
    async with serving(tmp_path) as server, cable(server.port) as line:
        talkers = [Talker(server, line) for _ in range(60)]
        await asyncio.gather(*(talker.begin() for talker in talkers))
        for round_ in range(3):
            for number, talker in enumerate(talkers):
                call_id = talker.call_id
                segment = f"{round_}-{number}"
                answer = await talker.client.say(call_id, "caller", segment, segmentId=segment)
                assert answer["ok"] and answer["sequence"] == round_ + 1
            await line.cut()
            await line.plug()
            await asyncio.gather(*(talker.reconnect() for talker in talkers))
        for talker in talkers:
            _, kept = await server.get(f"/api/conversations/{talker.call_id}/transcript")
            assert len(kept["segments"]) == 3
            assert seqs(talker.client) == sorted(set(seqs(talker.client)))
            await talker.client.close()
