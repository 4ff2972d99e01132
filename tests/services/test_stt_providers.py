"""Deepgram and Amazon Transcribe, real client code against stand-ins that speak their wire protocols."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from loguru import logger

from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.aws_credentials import AwsCredentials
from coach_server.providers.stt import SttEvent, SttKind, SttSpec, SttStream, eventstream
from coach_server.providers.stt.aws import AwsTranscribe
from coach_server.providers.stt.deepgram import Deepgram
from coach_server.testing import ManualClock
from tests.fakes import aws_transcribe, deepgram
from tests.fakes.aws_transcribe import FakeTranscribe, result
from tests.fakes.deepgram import FakeDeepgram

SECOND = bytes(32_000)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def dg(clock: ManualClock) -> AsyncIterator[FakeDeepgram]:
    async with FakeDeepgram(clock) as fake:
        yield fake


@pytest.fixture
async def aws(clock: ManualClock) -> AsyncIterator[FakeTranscribe]:
    async with FakeTranscribe(clock) as fake:
        yield fake


@pytest.fixture
def nova(dg: FakeDeepgram, http: aiohttp.ClientSession, clock: ManualClock) -> Deepgram:
    return Deepgram(deepgram.KEY, http, clock, base_url=dg.url)


@pytest.fixture
def transcribe(aws: FakeTranscribe, http: aiohttp.ClientSession, clock: ManualClock) -> AwsTranscribe:
    keys = AwsCredentials(aws.keys.access_key, aws.keys.secret_key)
    return AwsTranscribe(keys, aws.keys.region, http, clock, endpoint=aws.url)


async def take(stream: SttStream, count: int) -> list[SttEvent]:
    """The next `count` events, or fewer when the stream ends."""
    events: list[SttEvent] = []
    async with asyncio.timeout(5):
        async for event in stream:
            events.append(event)
            if len(events) == count:
                break
    return events


async def rest(stream: SttStream) -> list[SttEvent]:
    return await take(stream, 1_000)


def texts(events: list[SttEvent]) -> list[tuple[str, str]]:
    return [(event.kind.value, event.text) for event in events]


# Deepgram


async def test_deepgram_is_asked_for_what_the_spec_says(dg: FakeDeepgram, nova: Deepgram) -> None:
    spec = SttSpec(language="nl", sample_rate=24_000, keyterms=("Groei Plus", "Zuidas"))
    async with nova.open(spec):
        query = (await dg.connection()).query
    assert query["language"] == "nl"
    assert query["encoding"] == "linear16"
    assert query["sample_rate"] == "24000"
    assert query["model"] == "nova-3"
    assert query["interim_results"] == "true"
    assert query.getall("keyterm") == ["Groei Plus", "Zuidas"]


async def test_audio_reaches_deepgram_unchanged_and_an_empty_chunk_does_not(
    dg: FakeDeepgram, nova: Deepgram
) -> None:
    async with nova.open(SttSpec()) as stream:
        await stream.send(b"\x01\x02" * 800)
        await stream.send(b"")
        await stream.send(b"\x03\x04" * 800)
        connection = await dg.connection()
        await dg.until(lambda: len(connection.audio) == 3200)
    assert bytes(connection.audio) == b"\x01\x02" * 800 + b"\x03\x04" * 800


async def test_segments_split_over_several_finals_become_one_utterance(
    dg: FakeDeepgram, nova: Deepgram
) -> None:
    async with nova.open(SttSpec()) as stream:
        connection = await dg.connection()
        await connection.words("Goede", is_final=False, duration=0.5)
        await connection.words("Goedemorgen,", duration=1.0, confidence=1.0)
        await connection.words("met", is_final=False, start=1.0, duration=0.5)
        await connection.words("met Jan.", start=1.0, duration=1.0, confidence=0.5, speech_final=True)
        events = await take(stream, 4)
    assert texts(events) == [
        ("partial", "Goede"),
        ("partial", "Goedemorgen,"),
        ("partial", "Goedemorgen, met"),
        ("final", "Goedemorgen, met Jan."),
    ]
    assert (events[-1].start_ms, events[-1].end_ms) == (0, 2000)
    assert events[-1].confidence == pytest.approx(0.75)


async def test_utterance_end_closes_an_utterance_whose_speech_final_never_came(
    dg: FakeDeepgram, nova: Deepgram
) -> None:
    async with nova.open(SttSpec()) as stream:
        connection = await dg.connection()
        await connection.words("Ja hoor")
        await connection.send({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.0})
        events = await take(stream, 2)
    assert texts(events) == [("partial", "Ja hoor"), ("final", "Ja hoor")]


async def test_an_utterance_end_without_new_words_and_empty_finals_say_nothing(
    dg: FakeDeepgram, nova: Deepgram
) -> None:
    async with nova.open(SttSpec()) as stream:
        connection = await dg.connection()
        await connection.words("Dag", speech_final=True)
        await connection.send({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.0})
        await connection.words("", speech_final=True)
        await connection.words("", is_final=False)
        await connection.send({"type": "SpeechStarted", "channel": [0, 1], "timestamp": 2.0})
        await stream.finish()
        events = await rest(stream)
    assert texts(events) == [("final", "Dag")]


async def test_finish_brings_the_last_words_and_then_ends_without_a_fault(
    dg: FakeDeepgram, nova: Deepgram
) -> None:
    async with nova.open(SttSpec()) as stream:
        connection = await dg.connection()
        await connection.words("Tot", start=0.0)
        connection.pending.append("ziens.")
        await stream.finish()
        events = await rest(stream)
    assert events[-1].kind is SttKind.FINAL
    assert events[-1].text == "Tot ziens."
    assert connection.controls == ["CloseStream"]


async def test_finalize_brings_out_the_words_and_keeps_the_stream_open(
    dg: FakeDeepgram, nova: Deepgram
) -> None:
    async with nova.open(SttSpec()) as stream:
        connection = await dg.connection()
        connection.pending.append("een moment")
        await stream.finalize()
        first = await take(stream, 1)
        await connection.words("verder", start=1.0, speech_final=True)
        second = await take(stream, 1)
    assert texts(first + second) == [("final", "een moment"), ("final", "verder")]


async def test_channels_are_put_together_apart(dg: FakeDeepgram, nova: Deepgram) -> None:
    async with nova.open(SttSpec(channels=2)) as stream:
        connection = await dg.connection()
        await connection.words("Wat kost", channel=0)
        await connection.words("Goede vraag.", channel=1, speech_final=True)
        await connection.words("het?", channel=0, start=1.0, speech_final=True)
        events = await take(stream, 3)
    finals = [(event.channel, event.text) for event in events if event.kind is SttKind.FINAL]
    assert finals == [(1, "Goede vraag."), (0, "Wat kost het?")]
    assert connection.query["multichannel"] == "true"


async def test_the_speaker_of_a_segment_is_the_one_of_most_of_its_words(
    dg: FakeDeepgram, nova: Deepgram
) -> None:
    async with nova.open(SttSpec(diarize=True)) as stream:
        connection = await dg.connection()
        await connection.words("ja dat klopt", speakers=[0, 1, 1], speech_final=True)
        [event] = await take(stream, 1)
    assert event.speaker == "1"
    assert connection.query["diarize"] == "true"


async def test_keep_alive_holds_a_silent_stream_open(
    dg: FakeDeepgram, nova: Deepgram, clock: ManualClock
) -> None:
    async with nova.open(SttSpec()) as stream:
        connection = await dg.connection()
        for count in range(1, 8):
            await clock.advance(4.0)
            await dg.until(lambda count=count: connection.controls == ["KeepAlive"] * count)
        await connection.words("er nog", speech_final=True)
        assert texts(await take(stream, 1)) == [("final", "er nog")]


async def test_no_keep_alive_is_sent_while_audio_flows(
    dg: FakeDeepgram, nova: Deepgram, clock: ManualClock
) -> None:
    async with nova.open(SttSpec()) as stream:
        connection = await dg.connection()
        for _ in range(6):
            await clock.advance(2.0)
            await stream.send(bytes(640))
        await dg.until(lambda: len(connection.audio) == 6 * 640)
        assert connection.controls == []


async def test_a_missing_keep_alive_ends_in_a_retryable_fault(
    dg: FakeDeepgram, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    sleepy = Deepgram(deepgram.KEY, http, clock, base_url=dg.url, keep_alive_s=3600)
    async with sleepy.open(SttSpec()) as stream:
        await dg.connection()
        await clock.advance(10.0)
        [event] = await rest(stream)
    assert event.error is not None
    assert event.error.retryable


async def test_a_drop_in_mid_stream_gives_the_frozen_words_and_then_a_fault(
    dg: FakeDeepgram, nova: Deepgram
) -> None:
    async with nova.open(SttSpec()) as stream:
        connection = await dg.connection()
        await connection.words("Half gezegd")
        assert texts(await take(stream, 1)) == [("partial", "Half gezegd")]
        connection.drop()
        events = await rest(stream)
    assert texts(events) == [("final", "Half gezegd"), ("error", "")]
    assert events[-1].error is not None
    assert events[-1].error.retryable


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(400, False), (401, False), (402, False), (403, False), (429, True), (500, True), (503, True)],
)
async def test_a_refused_upgrade_says_whether_another_try_may_help(
    dg: FakeDeepgram, nova: Deepgram, status: int, retryable: bool
) -> None:
    dg.refuse_with = status
    with pytest.raises(ProviderError) as caught:
        async with nova.open(SttSpec()):
            raise AssertionError("it opened")
    assert caught.value.retryable is retryable
    assert "vendor's own words" not in caught.value.message


async def test_a_wrong_deepgram_key_is_refused(
    dg: FakeDeepgram, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    with pytest.raises(ProviderError, match="credentials"):
        async with Deepgram("wrong", http, clock, base_url=dg.url).open(SttSpec()):
            raise AssertionError("it opened")


async def test_too_many_requests_carry_the_time_to_wait(dg: FakeDeepgram, nova: Deepgram) -> None:
    dg.refuse_with, dg.refuse_headers = 429, {"Retry-After": "7"}
    with pytest.raises(ProviderError) as caught:
        async with nova.open(SttSpec()):
            raise AssertionError("it opened")
    assert caught.value.retry_after_s == 7.0


async def test_a_vendor_that_does_not_answer_is_left_after_the_time_out(
    dg: FakeDeepgram, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    dg.hang = True
    slow = Deepgram(deepgram.KEY, http, clock, base_url=dg.url, timeout_s=0.05)
    with pytest.raises(ProviderTimeout):
        async with slow.open(SttSpec()):
            raise AssertionError("it opened")
    dg.hang = False
    dg.changed()


async def test_an_address_nobody_listens_on_is_a_retryable_fault(
    http: aiohttp.ClientSession, clock: ManualClock, unused_tcp_port: int
) -> None:
    nowhere = Deepgram(deepgram.KEY, http, clock, base_url=f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(ProviderError) as caught:
        async with nowhere.open(SttSpec()):
            raise AssertionError("it opened")
    assert caught.value.retryable


@pytest.mark.parametrize(
    "garbage",
    [
        "not json",
        "[]",
        "null",
        '{"type":"Results"}',
        '{"type":"Results","channel_index":[0,1],"start":"x","duration":1,"channel":{"alternatives":[]}}',
        '{"type":"Results","channel_index":null,"start":0,"duration":1}',
        '{"type":"Error","description":"vendor\'s own words"}',
    ],
)
async def test_what_deepgram_should_not_send_ends_in_a_fault(
    dg: FakeDeepgram, nova: Deepgram, garbage: str
) -> None:
    async with nova.open(SttSpec()) as stream:
        await (await dg.connection()).send_raw(garbage)
        [event] = await rest(stream)
    assert event.kind is SttKind.ERROR
    assert event.error is not None
    assert "vendor's own words" not in event.error.message


async def test_a_temporary_token_is_granted_for_the_time_asked(dg: FakeDeepgram, nova: Deepgram) -> None:
    assert await nova.grant(60) == ("temporary.jwt.token", 60)
    assert dg.grants == [{"ttl_seconds": 60, "expires_in": 60}]


async def test_a_granted_token_never_reaches_the_log(nova: Deepgram) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level=0)
    try:
        await nova.grant(30)
    finally:
        logger.remove(sink)
    assert "temporary.jwt.token" not in "".join(lines)


@pytest.mark.parametrize(
    "answer", [{}, [], {"access_token": 5}, {"access_token": ""}, {"access_token": None}]
)
async def test_a_grant_without_a_token_is_a_fault(dg: FakeDeepgram, nova: Deepgram, answer: object) -> None:
    dg.grant_answer = answer
    with pytest.raises(ProviderError):
        await nova.grant()


async def test_an_endless_grant_answer_is_not_read_to_its_end(dg: FakeDeepgram, nova: Deepgram) -> None:
    dg.grant_answer = {"access_token": "x" * 200_000}
    with pytest.raises(ProviderError, match="too much"):
        await nova.grant()


@pytest.mark.parametrize("status", [400, 401, 402, 429])
async def test_a_refused_grant_is_a_provider_error(dg: FakeDeepgram, nova: Deepgram, status: int) -> None:
    dg.refuse_with = status
    with pytest.raises(ProviderError):
        await nova.grant()


# Amazon Transcribe


async def test_a_presigned_url_opens_a_transcribe_stream(
    aws: FakeTranscribe, transcribe: AwsTranscribe
) -> None:
    async with transcribe.open(SttSpec(language="nl", sample_rate=16_000)):
        query = (await aws.connection()).query
    assert query["language-code"] == "nl-NL"
    assert query["media-encoding"] == "pcm"
    assert query["sample-rate"] == "16000"
    assert query["partial-results-stability"] == "medium"


async def test_temporary_credentials_are_signed_with_their_token(
    aws: FakeTranscribe, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    keys = AwsCredentials(aws.keys.access_key, aws.keys.secret_key, "session/token+with=signs")
    async with AwsTranscribe(keys, aws.keys.region, http, clock, endpoint=aws.url).open(SttSpec()):
        query = (await aws.connection()).query
    assert query["X-Amz-Security-Token"] == "session/token+with=signs"


@pytest.mark.parametrize(
    ("secret", "region"),
    [("another secret", aws_transcribe.KEYS.region), (aws_transcribe.KEYS.secret_key, "us-east-1")],
    ids=["wrong secret", "wrong region"],
)
async def test_a_wrong_signature_is_refused(
    aws: FakeTranscribe, http: aiohttp.ClientSession, clock: ManualClock, secret: str, region: str
) -> None:
    other = AwsTranscribe(AwsCredentials(aws.keys.access_key, secret), region, http, clock, endpoint=aws.url)
    with pytest.raises(ProviderError, match="credentials") as caught:
        async with other.open(SttSpec()):
            raise AssertionError("it opened")
    assert not caught.value.retryable


async def test_transcribe_gets_small_intact_frames_and_an_empty_one_at_the_end(
    aws: FakeTranscribe, transcribe: AwsTranscribe
) -> None:
    pcm = bytes(range(256)) * 125
    async with transcribe.open(SttSpec()) as stream:
        connection = await aws.connection()
        await stream.send(pcm)
        await stream.finish()
        assert await rest(stream) == []
    assert connection.fault is None
    assert connection.audio == pcm
    assert connection.frames[-1] == b""
    assert max(map(len, connection.frames)) <= 6400


async def test_half_samples_wait_for_their_other_half(aws: FakeTranscribe, transcribe: AwsTranscribe) -> None:
    async with transcribe.open(SttSpec(channels=2)) as stream:
        connection = await aws.connection()
        await stream.send(b"\x01\x02\x03")
        await stream.send(b"\x04\x05\x06\x07\x08")
        await aws.until(lambda: len(connection.audio) == 8)
    assert connection.audio == bytes(range(1, 9))
    assert connection.fault is None


async def test_transcribe_results_become_partials_and_finals(
    aws: FakeTranscribe, transcribe: AwsTranscribe
) -> None:
    async with transcribe.open(SttSpec(diarize=True)) as stream:
        connection = await aws.connection()
        await connection.words(result("Hallo", partial=True, speaker="0"))
        await connection.words(result("Hallo daar.", start=0.1, end=1.2, confidence=0.8, speaker="1"))
        events = await take(stream, 2)
    assert texts(events) == [("partial", "Hallo"), ("final", "Hallo daar.")]
    assert events[0].confidence is None
    assert events[1].confidence == pytest.approx(0.8)
    assert (events[1].start_ms, events[1].end_ms, events[1].speaker) == (100, 1200, "1")


async def test_transcribe_tells_the_channels_apart(aws: FakeTranscribe, transcribe: AwsTranscribe) -> None:
    async with transcribe.open(SttSpec(channels=2)) as stream:
        connection = await aws.connection()
        await connection.words(result("agent", channel="ch_0"), result("klant", channel="ch_1"))
        events = await take(stream, 2)
    assert [event.channel for event in events] == [0, 1]
    assert connection.query["number-of-channels"] == "2"


async def test_words_that_come_after_the_end_of_the_audio_are_kept(
    aws: FakeTranscribe, transcribe: AwsTranscribe
) -> None:
    async with transcribe.open(SttSpec()) as stream:
        (await aws.connection()).pending.append(result("Tot ziens."))
        await stream.finish()
        assert texts(await rest(stream)) == [("final", "Tot ziens.")]


async def test_silence_keeps_a_transcribe_stream_open_and_does_not_shift_its_times(
    aws: FakeTranscribe, transcribe: AwsTranscribe, clock: ManualClock
) -> None:
    async with transcribe.open(SttSpec()) as stream:
        connection = await aws.connection()
        await stream.send(SECOND)
        await aws.until(lambda: len(connection.audio) == len(SECOND))
        for count in range(1, 6):
            await clock.advance(5.0)
            await aws.until(lambda count=count: len(connection.audio) == len(SECOND) + count * 3200)
        # The vendor counts five silences of 100 ms that the caller never sent.
        await connection.words(result("verder", start=1.6, end=2.5))
        [event] = await take(stream, 1)
    assert (event.start_ms, event.end_ms) == (1100, 2000)


async def test_a_transcribe_stream_without_audio_ends_in_a_fault(
    aws: FakeTranscribe, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    keys = AwsCredentials(aws.keys.access_key, aws.keys.secret_key)
    sleepy = AwsTranscribe(keys, aws.keys.region, http, clock, endpoint=aws.url, silence_after_s=3600)
    async with sleepy.open(SttSpec()) as stream:
        await aws.connection()
        await clock.advance(15.0)
        [event] = await rest(stream)
    assert event.kind is SttKind.ERROR


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        ("BadRequestException", False),
        ("LimitExceededException", True),
        ("InternalFailureException", True),
        ("ConflictException", True),
        ("ServiceUnavailableException", True),
        ("SomethingNewException", True),
    ],
)
async def test_a_transcribe_exception_says_whether_another_try_may_help(
    aws: FakeTranscribe, transcribe: AwsTranscribe, kind: str, retryable: bool
) -> None:
    async with transcribe.open(SttSpec()) as stream:
        await (await aws.connection()).exception(kind)
        [event] = await rest(stream)
    assert event.error is not None
    assert event.error.retryable is retryable
    assert "vendor's own words" not in event.error.message


async def test_a_transcribe_drop_is_a_retryable_fault(aws: FakeTranscribe, transcribe: AwsTranscribe) -> None:
    async with transcribe.open(SttSpec()) as stream:
        (await aws.connection()).drop()
        [event] = await rest(stream)
    assert event.error is not None
    assert event.error.retryable


@pytest.mark.parametrize("at", [3, 9, 20, -6, -1], ids=["length", "prelude", "header", "payload", "sum"])
async def test_one_flipped_bit_of_a_transcribe_frame_is_noticed(
    aws: FakeTranscribe, transcribe: AwsTranscribe, at: int
) -> None:
    headers = {":message-type": "event", ":event-type": "TranscriptEvent"}
    whole = bytearray(aws_transcribe.frame(headers, b'{"Transcript":{"Results":[]}}'))
    whole[at] ^= 1
    async with transcribe.open(SttSpec()) as stream:
        await (await aws.connection()).send_raw(bytes(whole))
        [event] = await rest(stream)
    assert event.kind is SttKind.ERROR


async def test_a_language_transcribe_does_not_know_is_a_fault_before_any_connection(
    aws: FakeTranscribe, transcribe: AwsTranscribe
) -> None:
    with pytest.raises(ProviderError, match="language"):
        async with transcribe.open(SttSpec(language="tlh")):
            raise AssertionError("it opened")
    assert aws.connections == []


async def test_missing_credentials_are_a_fault(
    http: aiohttp.ClientSession, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/credentials")
    nobody = AwsTranscribe(AwsCredentials(), "eu-west-1", http, clock, endpoint="http://127.0.0.1:1")
    with pytest.raises(ProviderError, match="credentials"):
        async with nobody.open(SttSpec()):
            raise AssertionError("it opened")


# Event-stream framing


def test_a_frame_survives_the_way_there_and_back() -> None:
    frame = eventstream.Frame({":event-type": "AudioEvent", ":message-type": "event"}, b"\x00\x01" * 50)
    assert eventstream.decode(eventstream.encode(frame)) == frame


@pytest.mark.parametrize("size", [0, 15, 16, 40])
def test_bytes_that_are_no_frame_are_refused(size: int) -> None:
    with pytest.raises(eventstream.FrameError):
        eventstream.decode(bytes(size))


def test_a_header_that_lies_about_its_length_is_refused_even_with_right_sums() -> None:
    block = b"\x05:abcd" + b"\x07" + b"\xff\xff" + b"x"
    start = (16 + len(block)).to_bytes(4, "big") + len(block).to_bytes(4, "big")
    start += zlib.crc32(start).to_bytes(4, "big")
    whole = start + block
    with pytest.raises(eventstream.FrameError):
        eventstream.decode(whole + zlib.crc32(whole).to_bytes(4, "big"))


def test_headers_of_other_types_are_read_past() -> None:
    block = b"\x01a\x04\x00\x00\x00\x05" + b"\x01b\x00" + b"\x01c\x07\x00\x02hi"
    start = (16 + len(block)).to_bytes(4, "big") + len(block).to_bytes(4, "big")
    start += zlib.crc32(start).to_bytes(4, "big")
    whole = start + block
    decoded = eventstream.decode(whole + zlib.crc32(whole).to_bytes(4, "big"))
    assert decoded.headers == {"c": "hi"}
