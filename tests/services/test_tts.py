"""Voices of Deepgram and ElevenLabs, real client code against stand-ins that speak their wire protocols."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from loguru import logger

from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.tts import MAX_CHARS, Tts, TtsLimits, voices_of
from coach_server.providers.tts.deepgram import DeepgramSpeak
from coach_server.providers.tts.elevenlabs import ElevenLabs
from coach_server.providers.tts.fallback import FallbackTts
from coach_server.testing import ManualClock
from tests.fakes import deepgram_speak, elevenlabs
from tests.fakes.deepgram_speak import FakeDeepgramSpeak
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.fakes.openai_realtime import tone
from tests.fakes.speaking import CHUNK, SpeakingVendor

TEXT = "Goedendag, ik heb tien minuten."
PCM = tone(1000)
QUICK = TtsLimits(first_s=0.5, stall_s=0.2)


@dataclass
class Pair:
    """A client and the stand-in it speaks to."""

    fake: SpeakingVendor
    tts: Tts


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def dg() -> AsyncIterator[FakeDeepgramSpeak]:
    async with FakeDeepgramSpeak(PCM) as fake:
        yield fake


@pytest.fixture
async def el() -> AsyncIterator[FakeElevenLabs]:
    async with FakeElevenLabs(PCM) as fake:
        yield fake


@pytest.fixture(params=["deepgram", "elevenlabs"])
def make(
    request: pytest.FixtureRequest, http: aiohttp.ClientSession, clock: ManualClock
) -> tuple[SpeakingVendor, Any]:
    """Each vendor in turn, made with what a test gives."""
    if request.param == "deepgram":
        fake: SpeakingVendor = request.getfixturevalue("dg")
        return fake, lambda key=deepgram_speak.KEY, **given: DeepgramSpeak(
            key, http, clock, base_url=fake.url, **given
        )
    fake = request.getfixturevalue("el")
    return fake, lambda key=elevenlabs.KEY, **given: ElevenLabs(key, http, clock, base_url=fake.url, **given)


@pytest.fixture
def pair(make: tuple[SpeakingVendor, Any]) -> Pair:
    return Pair(make[0], make[1]())


@pytest.fixture
def quick(make: tuple[SpeakingVendor, Any]) -> Pair:
    """The same with short limits."""
    return Pair(make[0], make[1](limits=QUICK))


async def said(pieces: AsyncGenerator[bytes, None]) -> list[bytes]:
    async with asyncio.timeout(5), aclosing(pieces):
        return [piece async for piece in pieces]


# What is asked for


async def test_deepgram_is_asked_for_raw_samples_in_a_voice_of_the_language(
    dg: FakeDeepgramSpeak, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    tts = DeepgramSpeak(deepgram_speak.KEY, http, clock, base_url=dg.url + "/")
    assert b"".join(await said(tts.speak(TEXT, "nl-BE", "verse"))) == PCM
    (asked,) = dg.asked
    assert asked.body == {"text": TEXT}
    assert asked.query == {
        "model": "aura-2-sander-nl",
        "encoding": "linear16",
        "container": "none",
        "sample_rate": "24000",
    }


async def test_elevenlabs_is_asked_for_pcm_with_the_language_enforced(
    el: FakeElevenLabs, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    tts = ElevenLabs(elevenlabs.KEY, http, clock, base_url=el.url)
    assert b"".join(await said(tts.speak(TEXT, "nl-BE", "coral"))) == PCM
    (asked,) = el.asked
    assert asked.path == "/v1/text-to-speech/EXAVITQu4vr4xnSDxMaL/stream"
    assert asked.query == {"output_format": "pcm_24000"}
    assert asked.body == {"text": TEXT, "model_id": "eleven_flash_v2_5", "language_code": "nl"}


async def test_elevenlabs_speaks_hebrew_with_the_wider_model_and_names_no_language_to_it(
    el: FakeElevenLabs, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    tts = ElevenLabs(elevenlabs.KEY, http, clock, base_url=el.url)
    assert b"".join(await said(tts.speak("שלום", "he"))) == PCM
    assert el.asked[0].body == {"text": "שלום", "model_id": "eleven_v3"}


@pytest.mark.parametrize(
    ("language", "by_deepgram", "by_elevenlabs"),
    [
        ("nl", True, True),
        ("en-GB", True, True),
        ("cs", False, True),
        ("he", False, True),
        ("xx", False, False),
    ],
)
async def test_each_says_which_languages_it_speaks(
    language: str, by_deepgram: bool, by_elevenlabs: bool, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    assert DeepgramSpeak("k", http, clock).speaks(language) is by_deepgram
    assert ElevenLabs("k", http, clock).speaks(language) is by_elevenlabs


async def test_a_language_that_is_not_spoken_is_refused_before_anybody_is_asked(pair: Pair) -> None:
    with pytest.raises(ProviderError):
        await said(pair.tts.speak("abc", "xx"))
    assert not pair.fake.asked


@pytest.mark.parametrize(
    ("voice", "language", "model"),
    [
        ("verse", "nl", "aura-2-lars-nl"),
        ("verse", "en", "aura-2-zeus-en"),
        ("coral", "nl", "aura-2-rhea-nl"),
        ("coral", "en", "aura-2-thalia-en"),
        ("aura-2-leda-nl", "nl", "aura-2-leda-nl"),
        ("aura-2-leda-nl", "en", "aura-2-thalia-en"),
        ("../../v1/projects", "nl", "aura-2-rhea-nl"),
    ],
)
async def test_an_installation_chooses_its_voices_by_persona_and_language(
    voice: str,
    language: str,
    model: str,
    dg: FakeDeepgramSpeak,
    http: aiohttp.ClientSession,
    clock: ManualClock,
) -> None:
    voices = voices_of("verse/nl=aura-2-lars-nl, verse=aura-2-zeus-en, nl=aura-2-rhea-nl")
    tts = DeepgramSpeak(deepgram_speak.KEY, http, clock, base_url=dg.url, voices=voices)
    await said(tts.speak("Ja.", language, voice))
    assert dg.asked[0].query["model"] == model


@pytest.mark.parametrize("voice", ["../../v1/user", "verse", "AAAA/AAAA", "a" * 21, ""])
async def test_what_is_no_id_of_elevenlabs_never_becomes_part_of_its_path(
    voice: str, el: FakeElevenLabs, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    tts = ElevenLabs(elevenlabs.KEY, http, clock, base_url=el.url, voices={"nl": voice or "a b"})
    await said(tts.speak("Ja.", "nl", voice))
    assert el.asked[0].path.split("/")[3] in ("EXAVITQu4vr4xnSDxMaL", "JBFqnCBsd6RMkjVDRZzb")


@pytest.mark.parametrize("text", ["nl", "nl=", "=x", "nl=a b", "Nl/X=a", "nl=../x"])
def test_voices_in_a_wrong_form_are_named_by_their_place(text: str) -> None:
    with pytest.raises(ValueError, match="entry 2"):
        voices_of(f"en=aura-2-thalia-en,{text}")


# What comes


async def test_audio_comes_as_it_is_made_and_always_in_whole_samples(pair: Pair) -> None:
    pair.fake.script.pause_after = CHUNK
    async with asyncio.timeout(5), aclosing(pair.tts.speak(TEXT, "nl")) as pieces:
        first = await anext(pieces)
        assert first == PCM[: CHUNK - 1]
        pair.fake.go_on.set()
        rest = [piece async for piece in pieces]
    assert all(len(piece) % 2 == 0 for piece in [first, *rest])
    assert first + b"".join(rest) == PCM


async def test_closing_it_hangs_up_on_the_vendor(pair: Pair) -> None:
    pair.fake.script.pause_after = CHUNK
    async with aclosing(pair.tts.speak(TEXT, "nl")) as pieces:
        await anext(pieces)
    await pair.fake.until(lambda: pair.fake.asked[0].gone)


async def test_cancelling_who_waits_hangs_up_on_the_vendor(pair: Pair) -> None:
    pair.fake.script.hang = True
    waiting = asyncio.create_task(said(pair.tts.speak(TEXT, "nl")))
    await pair.fake.until(lambda: pair.fake.asked)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    await pair.fake.until(lambda: pair.fake.asked[0].gone)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(400, False), (401, False), (402, False), (403, False), (404, False), (413, False), (422, False)]
    + [(302, False), (429, True), (500, True), (503, True)],
)
async def test_a_refusal_is_told_in_our_words(pair: Pair, status: int, retryable: bool) -> None:
    pair.fake.script.refuse_with = status
    pair.fake.script.refuse_headers = {"Retry-After": "7", "Location": "/elsewhere"}
    with pytest.raises(ProviderError) as refused:
        await said(pair.tts.speak(TEXT, "nl"))
    assert refused.value.retryable is retryable
    assert refused.value.retry_after_s == 7
    assert "vendor" not in refused.value.message and TEXT not in refused.value.message
    assert len(pair.fake.asked) == 1


async def test_a_wrong_key_is_refused_for_good(make: tuple[SpeakingVendor, Any]) -> None:
    _, tts = make
    with pytest.raises(ProviderError, match="key") as refused:
        await said(tts(key="wrong-secret").speak(TEXT, "nl"))
    assert not refused.value.retryable
    assert "wrong-secret" not in repr(refused.value)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"detail": "vendor"}', "application/json"),
        (b"<html>proxy</html>", "text/html; charset=utf-8"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", ""),
        (b"ID3\x04\x00", "audio/mpeg"),
        (b"", ""),
    ],
    ids=["json", "html", "wav", "mp3", "nothing"],
)
async def test_garbage_is_not_played(pair: Pair, body: bytes, content_type: str) -> None:
    pair.fake.script.body = body
    pair.fake.script.content_type = content_type
    with pytest.raises(ProviderError) as fault:
        await said(pair.tts.speak(TEXT, "nl"))
    assert "vendor" not in fault.value.message


@pytest.mark.parametrize("content_type", ["audio/pcm", "text/event-stream", "application/octet-stream"])
async def test_audio_is_taken_under_each_name_that_vendors_give_it(pair: Pair, content_type: str) -> None:
    pair.fake.script.content_type = content_type
    assert b"".join(await said(pair.tts.speak(TEXT, "nl"))) == PCM


async def test_a_line_that_breaks_in_the_middle_is_a_fault_after_what_came(pair: Pair) -> None:
    pair.fake.script.cut_after = 2 * CHUNK
    came = b""
    with pytest.raises(ProviderError) as fault:
        async with aclosing(pair.tts.speak(TEXT, "nl")) as pieces:
            async for piece in pieces:
                came += piece
    assert fault.value.retryable
    assert came and PCM.startswith(came)


@pytest.mark.parametrize("silence", ["no headers", "no audio", "stalled"])
async def test_silence_has_an_end(quick: Pair, silence: str) -> None:
    quick.fake.script.hang = silence == "no headers"
    quick.fake.script.pause_after = {"no headers": None, "no audio": 0, "stalled": CHUNK}[silence]
    with pytest.raises(ProviderTimeout) as fault:
        await said(quick.tts.speak(TEXT, "nl"))
    assert fault.value.retryable
    await quick.fake.until(lambda: quick.fake.asked[0].gone)


async def test_a_vendor_that_drips_is_cut_off_when_the_whole_takes_too_long(
    pair: Pair, clock: ManualClock
) -> None:
    pair.fake.script.pause_after = CHUNK
    with pytest.raises(ProviderTimeout):
        async with aclosing(pair.tts.speak(TEXT, "nl")) as pieces:
            await anext(pieces)
            await clock.advance(31)
            await anext(pieces)


async def test_far_too_much_audio_is_cut_off(make: tuple[SpeakingVendor, Any]) -> None:
    _, tts = make
    with pytest.raises(ProviderError, match="too much"):
        await said(tts(limits=TtsLimits(audio_s=0.5)).speak(TEXT, "nl"))


@pytest.mark.parametrize("text", ["", "  ", "a" * (MAX_CHARS + 1)])
async def test_nothing_and_far_too_much_text_is_not_sent(pair: Pair, text: str) -> None:
    with pytest.raises(ProviderError):
        await said(pair.tts.speak(text, "nl"))
    assert not pair.fake.asked


async def test_a_vendor_that_is_not_there_is_a_fault_that_may_pass(
    http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    tts = DeepgramSpeak("k", http, clock, base_url="http://127.0.0.1:9")
    with pytest.raises(ProviderError) as fault:
        await said(tts.speak(TEXT, "nl"))
    assert fault.value.retryable


# One after another


@pytest.fixture
async def chain(
    dg: FakeDeepgramSpeak, el: FakeElevenLabs, http: aiohttp.ClientSession, clock: ManualClock
) -> FallbackTts:
    return FallbackTts(
        [
            DeepgramSpeak(deepgram_speak.KEY, http, clock, base_url=dg.url),
            ElevenLabs(elevenlabs.KEY, http, clock, base_url=el.url),
        ],
        first_s=0.5,
    )


async def test_the_next_service_speaks_when_the_first_refuses_and_that_is_logged_once(
    chain: FallbackTts, dg: FakeDeepgramSpeak, el: FakeElevenLabs
) -> None:
    dg.script.refuse_with = 401
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message} {extra}")
    try:
        for _ in range(3):
            assert b"".join(await said(chain.speak(TEXT, "nl"))) == PCM
    finally:
        logger.remove(sink)
    assert (len(dg.asked), len(el.asked)) == (3, 3)
    assert len(lines) == 1
    assert TEXT not in lines[0]


async def test_the_next_service_speaks_when_the_first_is_silent(
    chain: FallbackTts, dg: FakeDeepgramSpeak
) -> None:
    dg.script.hang = True
    assert b"".join(await said(chain.speak(TEXT, "nl"))) == PCM
    await dg.until(lambda: dg.asked[0].gone)


async def test_only_services_that_speak_the_language_are_asked(
    chain: FallbackTts, dg: FakeDeepgramSpeak, el: FakeElevenLabs
) -> None:
    assert chain.speaks("he") and not chain.speaks("xx")
    await said(chain.speak("שלום", "he"))
    assert (len(dg.asked), len(el.asked)) == (0, 1)
    with pytest.raises(ProviderError):
        await said(chain.speak("abc", "xx"))


async def test_nobody_takes_over_in_the_middle_of_the_words(
    chain: FallbackTts, dg: FakeDeepgramSpeak, el: FakeElevenLabs
) -> None:
    dg.script.cut_after = 2 * CHUNK
    with pytest.raises(ProviderError):
        await said(chain.speak(TEXT, "nl"))
    assert not el.asked


async def test_the_last_services_fault_is_told_when_nobody_speaks(
    chain: FallbackTts, dg: FakeDeepgramSpeak, el: FakeElevenLabs
) -> None:
    dg.script.refuse_with, el.script.refuse_with = 401, 429
    with pytest.raises(ProviderError, match="too many requests"):
        await said(chain.speak(TEXT, "nl"))


async def test_many_speak_at_once_over_one_client(pair: Pair) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(aclosing(pair.tts.speak(TEXT, "nl"))) for _ in range(20)]
        assert all(b"".join(pieces) == PCM for pieces in await asyncio.gather(*map(said, streams)))
