"""Text to speech: words in, audio out as it is made. Vendor files in this folder; their wire dies in them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

RATE = 24_000
BYTES_PER_S = RATE * 2
MAX_CHARS = 2000

# Men's among the voices that a persona may name (those of OpenAI's speech models).
_MENS = frozenset({"ash", "ballad", "cedar", "echo", "verse"})
_KEY = re.compile(r"[A-Za-z0-9_-]{1,40}(?:/[a-z]{2,3})?")
_VOICE = re.compile(r"[A-Za-z0-9_-]{1,80}")


class Tts(Protocol):
    @property
    def name(self) -> str: ...

    def speaks(self, language: str) -> bool:
        """Whether it has a voice for a BCP 47 tag (`nl`, `nl-BE`)."""
        ...

    def speak(self, text: str, language: str, voice: str = "") -> AsyncGenerator[bytes, None]:
        """The words as 16-bit little-endian mono PCM at 24 kHz: whole samples, as they come, never none.
        `voice`: a persona's, or one of the vendor's by its own name. Raises ProviderError, ProviderTimeout,
        also in the middle. Closing it hangs up on the vendor."""
        ...


@dataclass(frozen=True, slots=True)
class TtsLimits:
    """Seconds: until the first audio, between two pieces, for all of it; and how much audio at most."""

    first_s: float = 3.0
    stall_s: float = 5.0
    whole_s: float = 30.0
    audio_s: float = 180.0

    @property
    def most_bytes(self) -> int:
        return int(self.audio_s * BYTES_PER_S)


def base(language: str) -> str:
    """`nl` of `nl-BE`."""
    return re.split("[-_]", language.lower(), maxsplit=1)[0]


def is_mans(voice: str) -> bool:
    return voice in _MENS


def wanted(voices: Mapping[str, str], voice: str, language: str) -> list[str]:
    """Voices to be tried before a vendor's own choice: the one that was asked for, then what an installation
    set for it in this language, for it, and for the language."""
    code = base(language)
    return [voice, *(voices[key] for key in (f"{voice}/{code}", voice, code) if key in voices)]


def voices_of(text: str) -> dict[str, str]:
    """`nl=…, verse=…, verse/nl=…` as a mapping. Raises ValueError, which names the place of the mistake."""
    voices = {}
    for number, part in enumerate((part.strip() for part in text.split(",") if part.strip()), start=1):
        key, _, voice = (word.strip() for word in part.partition("="))
        if not _KEY.fullmatch(key) or not _VOICE.fullmatch(voice):
            raise ValueError(f"entry {number} must be language=voice, name=voice or name/language=voice")
        voices[key] = voice
    return voices
