"""Deepgram Aura over its REST interface `/v1/speak`, whose answer streams.

Protocol: developers.deepgram.com, "Single Text Request" and "Voices and Languages". The WebSocket is for text
that is still being made; an answer of the customer is whole.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping

import aiohttp
from yarl import URL

from coach_server.clock import Clock
from coach_server.errors import ProviderError
from coach_server.providers.tts import RATE, TtsLimits, base, is_mans, wanted
from coach_server.providers.tts.streamed import Speaking

BASE_URL = "https://api.deepgram.com"

# A woman's and a man's voice of each language; Czech and Hebrew have none.
VOICES: Mapping[str, tuple[str, str]] = {
    "de": ("aura-2-aurelia-de", "aura-2-julius-de"),
    "en": ("aura-2-thalia-en", "aura-2-orion-en"),
    "fr": ("aura-2-agathe-fr", "aura-2-hector-fr"),
    "nl": ("aura-2-beatrix-nl", "aura-2-sander-nl"),
}
_OWN = re.compile(r"aura[a-z0-9-]{0,60}-([a-z]{2})")


class DeepgramSpeak:
    """`voices` as `tts.wanted` reads them; with one of its own it speaks a language that `VOICES` lacks."""

    name = "deepgram"

    def __init__(
        self,
        api_key: str,
        http: aiohttp.ClientSession,
        clock: Clock,
        *,
        base_url: str = BASE_URL,
        voices: Mapping[str, str] | None = None,
        limits: TtsLimits | None = None,
    ) -> None:
        self._headers = {"Authorization": f"Token {api_key}"}
        self._base = base_url.rstrip("/")
        self._voices = dict(voices or {})
        self._speaking = Speaking(http, clock, limits or TtsLimits())

    def speaks(self, language: str) -> bool:
        return self._model("", language) is not None

    def speak(self, text: str, language: str, voice: str = "") -> AsyncGenerator[bytes, None]:
        """Raises ProviderError at once for a language it has no voice for."""
        if (model := self._model(voice, language)) is None:
            raise ProviderError("The voice service does not speak this language.")
        query = {"model": model, "encoding": "linear16", "container": "none", "sample_rate": str(RATE)}
        url = URL(f"{self._base}/v1/speak").with_query(query)
        return self._speaking.pcm(url, text, {"text": text}, self._headers)

    def _model(self, voice: str, language: str) -> str | None:
        """A voice is of one language here: one of another language is not taken."""
        code = base(language)
        for own in wanted(self._voices, voice, language):
            if (found := _OWN.fullmatch(own)) and found[1] == code:
                return own
        pair = VOICES.get(code)
        return pair[is_mans(voice)] if pair is not None else None
