"""ElevenLabs over `/v1/text-to-speech/{voice}/stream`, whose answer streams.

Protocol: elevenlabs.io/docs, "Stream speech". The WebSocket is for text that is still being made, and the
models that speak Hebrew are not served there.
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

BASE_URL = "https://api.elevenlabs.io"
MODEL = "eleven_flash_v2_5"
# Slower, and for the languages that the models before it lack.
WIDE_MODEL = "eleven_v3"
# A woman's and a man's voice; each speaks every language.
VOICES = ("EXAVITQu4vr4xnSDxMaL", "JBFqnCBsd6RMkjVDRZzb")

_LANGUAGES = frozenset(
    "ar bg cs da de el en es fi fil fr hi hr hu id it ja ko ms nl no pl pt ro ru sk sv ta tr uk vi zh".split()
)
_WIDE = _LANGUAGES | frozenset(
    "af as az be bn bs ca ceb cy et fa ga gl gu ha he hy is jv ka kk kn ky lb ln lt lv mk ml mr ne ny pa ps "
    "sd sl so sr sw te th ur".split()
)
_OWN = re.compile(r"[A-Za-z0-9]{20}")


class ElevenLabs:
    """`voices` as `tts.wanted` reads them, of ElevenLabs' ids. A language that `model` lacks is spoken by
    `wide_model`."""

    name = "elevenlabs"

    def __init__(
        self,
        api_key: str,
        http: aiohttp.ClientSession,
        clock: Clock,
        *,
        base_url: str = BASE_URL,
        model: str = MODEL,
        wide_model: str = WIDE_MODEL,
        voices: Mapping[str, str] | None = None,
        limits: TtsLimits | None = None,
    ) -> None:
        self._headers = {"xi-api-key": api_key}
        self._base = base_url.rstrip("/")
        self._model = model
        self._wide_model = wide_model
        self._voices = dict(voices or {})
        self._speaking = Speaking(http, clock, limits or TtsLimits())

    def speaks(self, language: str) -> bool:
        return base(language) in _WIDE

    def speak(self, text: str, language: str, voice: str = "") -> AsyncGenerator[bytes, None]:
        """Raises ProviderError at once for a language it does not speak."""
        if not self.speaks(language):
            raise ProviderError("The voice service does not speak this language.")
        code = base(language)
        model = self._model if code in _LANGUAGES else self._wide_model
        body = {"text": text, "model_id": model}
        if model.endswith("_v2_5"):  # others refuse a request that names a language
            body["language_code"] = code
        path = f"/v1/text-to-speech/{self._voice(voice, language)}/stream"
        url = URL(f"{self._base}{path}").with_query(output_format=f"pcm_{RATE}")
        return self._speaking.pcm(url, text, body, self._headers)

    def _voice(self, voice: str, language: str) -> str:
        for own in wanted(self._voices, voice, language):
            if _OWN.fullmatch(own):  # it becomes a part of the path
                return own
        return VOICES[is_mans(voice)]
