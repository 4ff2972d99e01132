"""What a client may say about audio, checked field by field, and the error of each step of the contract
(live-coach.md §5: the code says which step failed)."""

from __future__ import annotations

import binascii
import re

from coach_server.errors import CoachError
from coach_server.providers.stt import SttSpec

MAX_CHUNK_BYTES = 64 * 1024
MAX_CHUNK_CHARS = 4 * ((MAX_CHUNK_BYTES + 2) // 3)
MAX_KEYTERMS = 100
MAX_KEYTERM_CHARS = 60
SAMPLE_RATES = range(8_000, 48_001)

_SESSION_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,2}")


class StepError(CoachError):
    """A step of the contract that failed; the code says which step, the status why."""

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        status: int | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, field=field, retry_after_s=retry_after_s)
        self.status = status or type(self).status
        self.retryable = retryable


class TranscriptionFailed(StepError):
    """Transcription stopped because no speech service works."""

    code = "TRANSCRIPTION_ERROR"
    status = 502


class StartFailed(StepError):
    """Transcription could not be started."""

    code = "START_TRANSCRIPTION_ERROR"
    status = 400


class InvalidAudioData(StepError):
    """The audio is not valid."""

    code = "INVALID_AUDIO_DATA"
    status = 400


class InvalidAudioType(StepError):
    """`chunk` must be a base64 string or binary data."""

    code = "INVALID_AUDIO_TYPE"
    status = 400


class ChunkFailed(StepError):
    """The audio could not be taken."""

    code = "AUDIO_CHUNK_ERROR"
    status = 400


class EndFailed(StepError):
    """Transcription could not be ended."""

    code = "END_TRANSCRIPTION_ERROR"
    status = 400


def spec(
    sample_rate: object, encoding: object, language: object, channels: object, keyterms: object
) -> SttSpec:
    """Raises StartFailed, naming the field."""
    return SttSpec(
        language=_language(language),
        sample_rate=_sample_rate(sample_rate),
        encoding=_encoding(encoding),
        channels=_channels(channels),
        keyterms=_keyterms(keyterms),
    )


def pcm(chunk: object) -> bytes:
    """The audio of a base64 string or of binary data. Raises InvalidAudioType, InvalidAudioData."""
    match chunk:
        case bytes():
            audio = chunk
        case bytearray() | memoryview():
            audio = bytes(chunk)
        case str():
            audio = _decoded(chunk)
        case _:
            raise InvalidAudioType(field="chunk")
    if not audio:
        raise InvalidAudioData("The chunk holds no audio.", field="chunk")
    if len(audio) > MAX_CHUNK_BYTES:
        raise InvalidAudioData("A chunk may hold 64 kB of audio at most.", field="chunk", status=413)
    return audio


def _decoded(chunk: str) -> bytes:
    if len(chunk) > MAX_CHUNK_CHARS:
        raise InvalidAudioData("A chunk may hold 64 kB of audio at most.", field="chunk", status=413)
    try:
        return binascii.a2b_base64(chunk, strict_mode=True)
    except ValueError:
        raise InvalidAudioData("`chunk` is not valid base64.", field="chunk") from None


def session_id(value: object, error: type[StepError]) -> str:
    """Raises `error`."""
    if not isinstance(value, str) or not _SESSION_ID.fullmatch(value):
        raise error(
            "`sessionId` must be a string of 1 to 128 letters, digits, dots, colons, dashes or underscores.",
            field="sessionId",
        )
    return value


def _sample_rate(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in SAMPLE_RATES:
        raise StartFailed("`sampleRate` must be a whole number from 8000 to 48000.", field="sampleRate")
    return value


def _encoding(value: object) -> str:
    if value != "pcm":
        raise StartFailed("`encoding` must be pcm.", field="encoding")
    return "pcm"


def _channels(value: object) -> int:
    if isinstance(value, bool) or value not in (1, 2):
        raise StartFailed("`channels` must be 1 or 2.", field="channels")
    return 2 if value == 2 else 1


def _language(value: object) -> str:
    if not isinstance(value, str) or not _LANGUAGE.fullmatch(value):
        raise StartFailed("`language` must be a language tag such as nl or en-GB.", field="language")
    return value


def _keyterms(value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, list | tuple)
        or len(value) > MAX_KEYTERMS
        or not all(isinstance(term, str) and 0 < len(term) <= MAX_KEYTERM_CHARS for term in value)
    ):
        raise StartFailed("`keyterms` must be at most 100 short strings.", field="keyterms")
    return tuple(value)
