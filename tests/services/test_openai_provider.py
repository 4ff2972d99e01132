"""The real client code against a server that speaks the real protocol and fails on command."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from coach_server.clock import SystemClock
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.llm import Completion, LLMCall, Message
from coach_server.providers.llm import openai as vendor
from coach_server.providers.llm.openai import OpenAILLM, retry_after
from coach_server.services.answers import SCHEMAS
from tests.fakes import openai as fakes
from tests.fakes.openai import FAULTS, FakeOpenAI, Step

DEADLINE_S = 0.4
CALL = LLMCall(
    model="gpt-6-luna",
    messages=(Message("system", "You coach."), Message("user", "Agent: hello")),
    schema_name="tip",
    schema=SCHEMAS["tip"],
    cache_key="coach:en:tip",
    deadline_s=DEADLINE_S,
)
PATIENT = replace(CALL, deadline_s=10.0)

STREAM_ONLY = {
    "an error inside the stream": Step(
        kind="raw", body=b'data: {"error":{"message":"fake vendor text"}}\n\n'
    ),
    "a line without an end": fakes.garbage(b"data: " + b"x" * 400_000),
    "a stream of numbers": Step(kind="raw", body=b"data: 1\n\ndata: 2\n\n"),
}


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def llm(fake: FakeOpenAI) -> AsyncIterator[OpenAILLM]:
    model = OpenAILLM("sk-test", fake.base_url, SystemClock(), retry_wait_s=0.01)
    yield model
    await model.close()


async def streamed(llm: OpenAILLM, call: LLMCall) -> list[str | Completion]:
    return [piece async for piece in llm.stream(call)]


async def asked(llm: OpenAILLM, call: LLMCall, stream: bool) -> Completion:
    if not stream:
        return await llm.complete(call)
    last = (await streamed(llm, call))[-1]
    assert isinstance(last, Completion)
    return last


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_an_answer_comes_with_the_tokens_as_the_vendor_counted_them(
    fake: FakeOpenAI, llm: OpenAILLM, stream: bool
) -> None:
    told = {"prompt_tokens": 500, "completion_tokens": 70, "prompt_tokens_details": {"cached_tokens": 400}}
    fake.script(fakes.answer(fakes.tip(), usage=told))

    completion = await asked(llm, PATIENT, stream)

    assert json.loads(completion.text)["heading"] == "Ask more"
    usage = completion.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (500, 400, 70)
    assert usage.model == "gpt-6-luna"


@pytest.mark.parametrize(
    "told", [None, {"prompt_tokens": -5}, {"prompt_tokens": 10**15, "completion_tokens": 1}, [1]], ids=str
)
async def test_tokens_that_nobody_counted_are_guessed(fake: FakeOpenAI, llm: OpenAILLM, told: object) -> None:
    fake.script(Step(content="{}" * 200, usage=told))  # type: ignore[arg-type]  # wrong types on purpose

    with_guess = await llm.complete(replace(PATIENT, schema=None))

    assert 0 < with_guess.usage.input_tokens < 100
    assert with_guess.usage.output_tokens == 101


async def test_the_pieces_of_a_stream_make_its_completion(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    *pieces, last = await streamed(llm, PATIENT)

    assert isinstance(last, Completion)
    assert len(pieces) > 3
    assert "".join(str(p) for p in pieces) == last.text


async def test_the_request_is_what_the_vendor_documents(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    await llm.complete(PATIENT)
    await streamed(llm, PATIENT)

    plain, stream = fake.requests
    assert plain.headers["authorization"] == "Bearer sk-test"
    assert plain.body == {
        "model": "gpt-6-luna",
        "messages": [
            {"role": "system", "content": "You coach."},
            {"role": "user", "content": "Agent: hello"},
        ],
        "temperature": 0.3,
        "max_completion_tokens": 400,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "tip", "strict": True, "schema": SCHEMAS["tip"]},
        },
    }
    assert stream.body == plain.body | {"stream": True, "stream_options": {"include_usage": True}}


async def test_parameters_that_only_openai_knows_go_only_to_openai(
    fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The one way to be "api.openai.com" without leaving this machine.
    monkeypatch.setattr(vendor, "OFFICIAL_URL", fake.base_url)
    official = OpenAILLM("sk-test", None, SystemClock())

    await official.complete(PATIENT)
    await streamed(official, PATIENT)
    await official.close()

    plain, stream = (seen.body for seen in fake.requests)
    assert plain["reasoning_effort"] == "none"
    assert plain["prompt_cache_key"] == "coach:en:tip"
    assert stream["stream_options"] == {"include_usage": True, "include_obfuscation": False}


async def test_a_proxy_that_the_environment_names_is_used(
    fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", fake.base_url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "direct.example")
    behind = OpenAILLM("sk-test", "http://model.example/v1", SystemClock())
    direct = OpenAILLM("sk-test", "http://direct.example/v1", SystemClock())

    await behind.complete(CALL)
    await behind.close()

    assert fake.requests[0].headers["host"] == "model.example"
    assert direct._proxy is None


async def test_a_redirect_is_not_followed_so_that_the_key_goes_nowhere_else(
    fake: FakeOpenAI, llm: OpenAILLM
) -> None:
    async with FakeOpenAI() as other:
        fake.always(
            Step(kind="error", status=307, headers={"location": f"{other.base_url}/chat/completions"})
        )

        with pytest.raises(ProviderError):
            await llm.complete(CALL)

        assert (fake.calls, other.calls) == (1, 0)


async def test_half_a_character_in_what_was_said_is_sent_and_not_stumbled_over(
    fake: FakeOpenAI, llm: OpenAILLM
) -> None:
    await llm.complete(replace(CALL, messages=(Message("user", "half \ud83d of it"),)))
    assert fake.calls == 1


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_every_fault_is_a_provider_error_in_time_without_the_vendors_words(
    fake: FakeOpenAI, llm: OpenAILLM, fault: Step, stream: bool
) -> None:
    fake.always(fault)

    async with asyncio.timeout(DEADLINE_S + 1.0):
        with pytest.raises(ProviderError) as failed:
            await asked(llm, CALL, stream)

    assert "fake vendor text" not in failed.value.message
    assert "openai" not in failed.value.message.lower()
    assert fake.calls <= 2


@pytest.mark.parametrize("fault", STREAM_ONLY.values(), ids=STREAM_ONLY.keys())
async def test_a_broken_stream_is_a_provider_error(fake: FakeOpenAI, llm: OpenAILLM, fault: Step) -> None:
    fake.always(fault)

    with pytest.raises(ProviderError):
        await streamed(llm, CALL)


@pytest.mark.parametrize("fault", ["hang", "hang after the headers", "slow drip"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_silent_vendor_is_a_timeout_and_its_connection_is_given_up(
    fake: FakeOpenAI, llm: OpenAILLM, fault: str, stream: bool
) -> None:
    fake.always(FAULTS[fault])

    with pytest.raises(ProviderTimeout):
        await asked(llm, CALL, stream)

    await fake.until(lambda: fake.active == 0)
    assert fake.calls == 1


@pytest.mark.parametrize(
    ("first", "stream"),
    [
        ("429", False),
        ("429", True),
        ("500", False),
        ("500", True),
        # A stream that is cut has told its first words and cannot begin again.
        ("cut", False),
        ("reset", False),
        ("reset", True),
        ("reset after the headers", False),
        ("reset after the headers", True),
    ],
)
async def test_one_passing_fault_is_forgiven_by_one_retry(
    fake: FakeOpenAI, llm: OpenAILLM, first: str, stream: bool
) -> None:
    fake.script(FAULTS[first])

    assert (await asked(llm, PATIENT, stream)).text

    assert fake.calls == 2


@pytest.mark.parametrize("fault", ["401", "404", "429 insufficient_quota", "refusal", "empty content"])
async def test_a_fault_that_would_come_again_is_not_retried(
    fake: FakeOpenAI, llm: OpenAILLM, fault: str
) -> None:
    fake.always(FAULTS[fault])

    with pytest.raises(ProviderError) as failed:
        await llm.complete(PATIENT)

    assert fake.calls == 1
    assert not failed.value.retryable


async def test_retry_after_is_obeyed_when_it_fits_into_the_deadline(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    fake.script(fakes.status(429, retry_after=0.2))
    begun = asyncio.get_running_loop().time()

    await llm.complete(PATIENT)

    assert asyncio.get_running_loop().time() - begun >= 0.2
    assert fake.calls == 2


async def test_retry_after_that_does_not_fit_is_handed_on(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    fake.always(fakes.status(429, retry_after=30))

    with pytest.raises(ProviderError) as failed:
        await llm.complete(PATIENT)

    assert failed.value.retry_after_s == 30
    assert fake.calls == 1


async def test_the_server_may_forbid_a_retry(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    fake.always(fakes.status(500, x_should_retry="false"))

    with pytest.raises(ProviderError):
        await llm.complete(PATIENT)

    assert fake.calls == 1


async def test_an_outage_is_not_met_with_twice_the_calls(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    fake.always(fakes.status(500))

    results = await asyncio.gather(*(llm.complete(PATIENT) for _ in range(20)), return_exceptions=True)

    assert all(isinstance(result, ProviderError) for result in results)
    assert 20 < fake.calls <= 24


async def test_retries_come_back_when_the_vendor_is_well_again(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    fake.always(fakes.status(500))
    for _ in range(6):
        with pytest.raises(ProviderError):
            await llm.complete(PATIENT)
    fake.always(None)
    for _ in range(6):
        await llm.complete(PATIENT)
    before = fake.calls
    fake.script(fakes.status(500))

    await llm.complete(PATIENT)

    assert fake.calls == before + 2


async def test_a_server_without_json_schema_gets_it_in_words_from_then_on(
    fake: FakeOpenAI, llm: OpenAILLM
) -> None:
    fake.script(fakes.rejects("response_format"))

    first = await llm.complete(PATIENT)
    await llm.complete(PATIENT)

    refused, second, third = (seen.body for seen in fake.requests)
    assert refused["response_format"]["type"] == "json_schema"
    assert second["response_format"] == third["response_format"] == {"type": "json_object"}
    assert '"explanative"' in second["messages"][0]["content"]
    assert json.loads(first.text)["heading"]


async def test_a_server_that_names_nothing_gets_the_schema_in_words_as_well(
    fake: FakeOpenAI, llm: OpenAILLM
) -> None:
    fake.script(fakes.rejects("", "this backend cannot do that", 422))

    await llm.complete(PATIENT)

    assert fake.requests[1].body["response_format"] == {"type": "json_object"}


async def test_a_request_that_is_wrong_in_itself_does_not_cost_the_schema(
    fake: FakeOpenAI, llm: OpenAILLM
) -> None:
    too_much = fakes.status(400, "context_length_exceeded")
    fake.script(too_much, too_much)
    with pytest.raises(ProviderError):
        await llm.complete(PATIENT)

    await llm.complete(PATIENT)

    assert fake.requests[-1].body["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_server_that_ignores_the_schema_is_told_it_in_words(
    fake: FakeOpenAI, llm: OpenAILLM, stream: bool
) -> None:
    fake.script(fakes.answer("Sure, here is a tip!"))
    if stream:
        with pytest.raises(ProviderError):
            await streamed(llm, PATIENT)

    await asked(llm, PATIENT, stream)

    assert [seen.body["response_format"]["type"] for seen in fake.requests] == ["json_schema", "json_object"]


@pytest.mark.parametrize(
    ("refused", "then"),
    [
        ("temperature", None),
        ("stream_options", None),
        ("max_completion_tokens", "max_tokens"),
    ],
)
async def test_a_parameter_that_is_refused_is_left_out_from_then_on(
    fake: FakeOpenAI, llm: OpenAILLM, refused: str, then: str | None
) -> None:
    fake.script(fakes.rejects(refused))

    await streamed(llm, PATIENT)
    await streamed(llm, PATIENT)

    first, second, third = (seen.body for seen in fake.requests)
    assert refused in first
    assert refused not in second
    assert refused not in third
    assert then is None or second[then] == 400


async def test_an_answer_that_had_to_be_asked_for_twice_is_paid_for_twice(
    fake: FakeOpenAI, llm: OpenAILLM
) -> None:
    told = {"prompt_tokens": 100, "completion_tokens": 10}
    fake.script(fakes.answer("Sure!", usage=told), fakes.answer(fakes.tip(), usage=told))

    usage = (await llm.complete(PATIENT)).usage

    assert (usage.input_tokens, usage.output_tokens) == (200, 20)


async def test_a_fence_round_the_answer_is_no_reason_to_ask_again(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    fake.script(fakes.answer("```json\n" + json.dumps(fakes.tip()) + "\n```"))

    await llm.complete(PATIENT)

    assert fake.calls == 1


async def test_a_cancelled_call_lets_the_connection_go(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    fake.always(fakes.hang(after_headers=True))
    task = asyncio.ensure_future(llm.complete(PATIENT))
    await fake.until(lambda: fake.active == 1)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await fake.until(lambda: fake.active == 0)


async def test_a_stream_that_is_left_stops_the_vendor(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    fake.always(fakes.drip(every_s=0.01))
    stream = llm.stream(PATIENT)

    assert isinstance(await anext(stream), str)
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator behind the protocol

    await fake.until(lambda: fake.active == 0)


async def test_nothing_said_reaches_the_log_of_the_client_library(
    fake: FakeOpenAI, llm: OpenAILLM, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await llm.complete(replace(PATIENT, messages=(Message("user", "canary in the coal mine"),)))

    assert "canary" not in caplog.text
    assert "sk-test" not in caplog.text


async def test_announced_shutdowns_are_told_and_odd_entries_skipped(fake: FakeOpenAI, llm: OpenAILLM) -> None:
    fake.models += [
        {"id": "gpt-4o-mini", "shutdown_date": "2027-01-14"},
        {"id": "x", "shutdown_date": "soon"},
        {"shutdown_date": "2027-01-14"},
        7,  # type: ignore[list-item]  # wrong types on purpose
    ]

    assert await llm.model_shutdowns() == {"gpt-4o-mini": "2027-01-14"}


@pytest.mark.parametrize("fault", ["500", "401", "garbage", "wrong JSON: null", "cut", "a megabyte"])
async def test_a_list_of_models_that_fails_is_empty_or_a_provider_error(
    fake: FakeOpenAI, llm: OpenAILLM, fault: str
) -> None:
    fake.models_step = FAULTS[fault]

    try:
        assert await llm.model_shutdowns() == {}
    except ProviderError as error:
        assert "fake vendor text" not in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "soon", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "-4"}, None),
        ({"retry-after": "9" * 400}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
