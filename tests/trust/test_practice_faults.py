"""The model fails in every way while somebody practises: the customer answers all the same, the session is
scored all the same, and the score is looked at again when the model is back."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from coach_server.app import Replacements
from coach_server.services import breaker
from coach_server.storage import jobs, practice
from coach_server.testing import ManualClock
from tests.fakes.openai import FAULTS, HOSTILE, FakeOpenAI, Seen, Step
from tests.serving import KEY, Server, connected, serving
from tests.trust.calling import now, until
from tests.trust.talking import SELLER, SESSIONS, talking

ANSWERS_WITHIN_S = 10.0
NUMBER = re.compile(r"fault (\d+)\?")
UNSAFE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2028\u2029\ud800-\udfff<>]")


def model(fake: FakeOpenAI, **values: object) -> dict[str, Any]:
    return {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url, **values}


def by_number(steps: list[Step]) -> Any:
    """Whatever is asked in the session about fault n fails as n says."""

    def choose(seen: Seen) -> Step | None:
        found = NUMBER.findall(seen.user)
        return steps[int(found[-1])] if found else None

    return choose


@pytest.mark.timeout(120)
async def test_every_fault_of_the_vendor_leaves_the_customer_answering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session a fault on one server, whose breaker never opens, so that each fault is really met."""
    monkeypatch.setattr(breaker.Breaker, "allow", lambda _: True)
    async with FakeOpenAI() as fake, serving(tmp_path, **model(fake)) as server, talking(server) as talker:
        fake.on_request = by_number(list(FAULTS.values()))

        async def ask(number: int, name: str) -> None:
            id = str((await talker.start("ann"))["sessionId"])
            begun = now()
            status, answer = await talker.message(id, f"How do you handle fault {number}?")
            assert status == 200, (name, answer)
            assert now() - begun < ANSWERS_WITHIN_S, name
            reply = answer["reply"]
            assert reply["text"].strip() and not UNSAFE.search(reply["text"]), name
            assert (reply["source"], reply["degraded"]) == ("offline", True), name
            status, told, _ = await talker.ask("GET", f"{SESSIONS}/{id}/status")
            assert told["transcriptLength"] == 3, name

        await asyncio.gather(*(ask(number, name) for number, name in enumerate(FAULTS)))
        assert fake.calls >= len(FAULTS)


@pytest.mark.timeout(120)
async def test_a_streamed_answer_is_whole_whatever_the_vendor_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker.Breaker, "allow", lambda _: True)
    async with FakeOpenAI() as fake, serving(tmp_path, **model(fake)) as server, talking(server) as talker:
        fake.on_request = by_number(list(FAULTS.values()))

        async def ask(number: int, name: str) -> None:
            id = str((await talker.start("ann"))["sessionId"])
            said = {"text": f"How do you handle fault {number}?"}
            headers = {"x-api-key": KEY, "Accept": "text/event-stream"}
            url = f"{server.url}{SESSIONS}/{id}/message"
            async with talker.http.post(url, json=said, headers=headers) as answer:
                assert answer.status == 200, name
                text = await answer.text()
            assert '"type":"done"' in text and '"type":"error"' not in text, name
            assert '"degraded":true' in text, name

        await asyncio.gather(*(ask(number, name) for number, name in enumerate(FAULTS)))


@pytest.mark.timeout(120)
async def test_a_hostile_answer_of_the_model_is_not_shown_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker.Breaker, "allow", lambda _: True)
    async with FakeOpenAI() as fake, serving(tmp_path, **model(fake)) as server, talking(server) as talker:
        fake.on_request = by_number([Step(content=content) for content in HOSTILE.values()])

        async def ask(number: int, name: str) -> None:
            id = str((await talker.start("ann"))["sessionId"])
            status, answer = await talker.message(id, f"How do you handle fault {number}?")
            assert status == 200, (name, answer)
            text = answer["reply"]["text"]
            assert text.strip() and len(text) <= 2000 and not UNSAFE.search(text), (name, text[:200])

        await asyncio.gather(*(ask(number, name) for number, name in enumerate(HOSTILE)))


@pytest.mark.parametrize(
    "fault",
    ["429", "500", "reset", "cut", "garbage", "refusal", "wrong JSON", "finish_reason length"],
)
@pytest.mark.timeout(60)
async def test_a_model_that_fails_while_scoring_leaves_a_provisional_score_by_rules(
    tmp_path: Path, fault: str
) -> None:
    async with FakeOpenAI() as fake, serving(tmp_path, **model(fake)) as server, talking(server) as talker:
        fake.on_request = lambda seen: FAULTS[fault] if is_assessment(seen) else None
        _, feedback = await talker.practise("ann", *SELLER)
        assert (feedback["source"], feedback["provisional"]) == ("offline", True)
        assert 0 <= feedback["overallScore"] <= 100 and feedback["drills"]


def is_assessment(seen: Seen) -> bool:
    return seen.schema_name is not None and "assess" in seen.schema_name


@pytest.mark.timeout(90)
async def test_over_fifty_analyses_an_hour_rules_judge_and_the_model_again_when_there_is_room(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    began = clock.now()
    async with (
        FakeOpenAI() as fake,
        serving(tmp_path, Replacements(clock=clock), **model(fake)) as server,
        talking(server) as talker,
    ):
        first, judged = await talker.practise("ann", *SELLER)
        assert (judged["source"], judged["provisional"]) == ("openai", False)
        answers = [await talker.ask("POST", f"{SESSIONS}/{first}/analyze") for _ in range(51)]
        assert [status for status, _, _ in answers].count(200) <= 49
        status, refused, headers = answers[-1]
        assert (status, refused["code"]) == (429, "RATE_LIMITED") and int(headers["Retry-After"]) > 0
        second, by_rules = await talker.practise("ann", *SELLER[1:], SELLER[0])
        assert (by_rules["source"], by_rules["provisional"]) == ("offline", True)
        _, other = await talker.practise("bob", *SELLER)
        assert (other["source"], other["provisional"]) == ("openai", False)

        while clock.now() < began + 2 * 3600 and await is_provisional(server, second):
            await until(lambda: is_idle(server))
            await clock.advance(await next_job_in(server))
        await until(lambda: is_idle(server))
        assert (await talker.feedback(second))["source"] == "openai"
        assert clock.now() - began >= 3600


async def is_provisional(server: Server, id: str) -> bool:
    async with server.coaching.database.read() as conn:
        found = await practice.feedback(conn, id)
    assert found is not None
    return found.provisional


async def next_job_in(server: Server) -> float:
    """Seconds until the next job that waits for its time."""
    async with server.coaching.database.read() as conn:
        due = await jobs.next_due(conn)
    return 60.0 if due is None else max(0.0, due - server.coaching.clock.now())


async def is_idle(server: Server) -> bool:
    """Nothing runs and nothing is due, so that time may pass."""
    running = (await server.coaching.jobs.counts())["running"]
    return not running and await next_job_in(server) > 0


async def test_the_thousandth_event_of_a_minute_is_the_last_one_and_the_refusal_says_how_long(
    tmp_path: Path,
) -> None:
    """Signs of life of two sockets and messages count together; another session is not touched."""
    clock = ManualClock()
    async with (
        serving(tmp_path, Replacements(clock=clock)) as server,
        talking(server) as talker,
        connected(server) as one,
        connected(server) as two,
    ):
        id, other = [str((await talker.start("ann"))["sessionId"]) for _ in range(2)]
        for client in (one, two):
            for _ in range(498):
                answer = await client.ask("session:heartbeat", {"sessionId": id})
                assert answer["ok"], answer
        assert [(await talker.say(id, f"word {number}"))[0] for number in range(4)] == [200] * 4
        said = {"speaker": "user", "message": "one more"}
        status, refused, headers = await talker.ask("POST", f"{SESSIONS}/{id}/transcript", said)
        assert (status, refused["code"]) == (429, "RATE_LIMITED") and int(headers["Retry-After"]) >= 1
        assert (await talker.message(id, "one more"))[0] == 429
        beat = await one.ask("session:heartbeat", {"sessionId": id})
        assert (beat["ok"], beat["code"]) == (False, "RATE_LIMITED")
        assert (await talker.say(other, "and here?"))[0] == 200
        status, told, _ = await talker.ask("GET", f"{SESSIONS}/{id}/status")
        assert told["transcriptLength"] == 5  # with the customer's opening
        await clock.advance(1.0)
        assert (await talker.say(id, "now again"))[0] == 200
