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
        return cls(None, text, _checked_size(text))

    @classmethod
    def of_vendor(cls, text: str) -> Audio:
        """Base64 whose letters are not looked at: a vendor's, never a client's. Errors as `of_base64`; wrong
        letters come up in `pcm`, as ValueError."""
        return cls(None, text, _size(text))

    @property
    def pcm(self) -> bytes:
        if self._pcm is None:
            self._pcm = base64.b64decode(self._text or "", validate=True)
        return self._pcm

    @property
    def base64(self) -> str:
        if self._text is None:
            self._text = base64.b64encode(self._pcm or b"").decode()
        return self._text

    @property
    def ms(self) -> float:
        return self.size / BYTES_PER_MS


def _size(text: str) -> int:
    """Bytes of PCM behind a base64 text, by its length."""
    if not isinstance(text, str):
        raise TypeError("no text")
    padding = 2 if text.endswith("==") else 1 if text.endswith("=") else 0
    size = len(text) // 4 * 3 - padding
    if len(text) % 4 or size % 2:
        raise ValueError("no base64 of whole samples")
    return size


def _checked_size(text: str) -> int:
    """The same, and every letter looked at; decoding would take four times as long."""
    size = _size(text)
    # What is left without the alphabet must be the padding.
    left = text.encode(errors="replace").translate(None, _ALPHABET)
    if left and (left not in (b"=", b"==") or not text.endswith(left.decode())):
        raise ValueError("not base64")
    return size
