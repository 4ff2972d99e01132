"""A piece of speech on its way: 16-bit little-endian mono PCM at 24 kHz, as bytes or as the wires' base64.

Both ends of a relay speak base64, and turning a frame into bytes and back costs more than all else that is
done with it (bench/README.md, `relay`). So a piece keeps the form it came in until the other is asked for.
"""

from __future__ import annotations

import base64

RATE = 24_000
BYTES_PER_MS = RATE * 2 // 1000
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class Audio:
    """`size`: bytes of PCM. Make it with `of` or `of_base64`."""

    __slots__ = ("_pcm", "_text", "size")

    def __init__(self, pcm: bytes | None, text: str | None, size: int) -> None:
        self._pcm = pcm
        self._text = text
        self.size = size

    @classmethod
    def of(cls, pcm: bytes) -> Audio:
        return cls(pcm, None, len(pcm))

    @classmethod
    def of_base64(cls, text: str) -> Audio:
        """Raises ValueError when this is not base64 of whole samples, TypeError when it is no text."""
        return cls(None, text, _pcm_size(text))

    @property
    def pcm(self) -> bytes:
        if self._pcm is None:
            self._pcm = base64.b64decode(self._text or "")
        return self._pcm

    @property
    def base64(self) -> str:
        if self._text is None:
            self._text = base64.b64encode(self._pcm or b"").decode()
        return self._text

    @property
    def ms(self) -> float:
        return self.size / BYTES_PER_MS


def _pcm_size(text: str) -> int:
    """Bytes behind a base64 text, found without decoding it: that would take four times as long."""
    if not isinstance(text, str):
        raise TypeError("no text")
    if len(text) % 4 or not text.isascii():
        raise ValueError("not base64")
    padding = 2 if text.endswith("==") else 1 if text.endswith("=") else 0
    if text.encode().translate(None, _ALPHABET) != b"=" * padding:
        raise ValueError("not base64")
    size = len(text) // 4 * 3 - padding
    if size % 2:
        raise ValueError("half a sample")
    return size
