"""AWS event-stream framing: one message is a prelude, headers, a payload and two CRC-32 sums.

Docs: Amazon Transcribe developer guide, "Event stream encoding". Only string headers (type 7) are written;
every type is read past.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

_PRELUDE = struct.Struct(">III")  # total length, headers length, CRC of these two
_CRC = struct.Struct(">I")
_OVERHEAD = _PRELUDE.size + _CRC.size
_STRING = 7
_VARIABLE = {6, _STRING}
_FIXED_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class FrameError(ValueError):
    """The bytes are not one whole, intact message."""


@dataclass(frozen=True, slots=True)
class Frame:
    headers: Mapping[str, str]
    payload: bytes


def encode(frame: Frame) -> bytes:
    headers = b"".join(_header(name, value) for name, value in frame.headers.items())
    total = _OVERHEAD + len(headers) + len(frame.payload)
    lengths = struct.pack(">II", total, len(headers))
    body = lengths + _CRC.pack(zlib.crc32(lengths)) + headers + frame.payload
    return body + _CRC.pack(zlib.crc32(body))


def decode(data: bytes) -> Frame:
    """Raises FrameError for wrong lengths, wrong sums and headers that do not fit."""
    if len(data) < _OVERHEAD:
        raise FrameError("shorter than an empty message")
    total, headers_length, prelude_crc = _PRELUDE.unpack_from(data)
    if zlib.crc32(data[:8]) != prelude_crc:
        raise FrameError("wrong prelude checksum")
    if total != len(data) or headers_length > total - _OVERHEAD:
        raise FrameError("wrong length")
    if zlib.crc32(data[:-4]) != _CRC.unpack_from(data, total - 4)[0]:
        raise FrameError("wrong message checksum")
    split = _PRELUDE.size + headers_length
    return Frame(_headers(data[_PRELUDE.size : split]), data[split:-4])


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack(">B", len(key)) + key + struct.pack(">BH", _STRING, len(text)) + text


def _headers(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name, kind = data[at + 1 : name_end].decode(), data[name_end]
            at = name_end + 1
            if kind in _VARIABLE:
                size = int.from_bytes(data[at : at + 2], "big")
                at += 2
            else:
                size = _FIXED_SIZES[kind]
            if at + size > len(data):
                raise FrameError("a header runs past its end")
            if kind == _STRING:
                found[name] = data[at : at + size].decode()
            at += size
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise FrameError("unreadable headers") from error
    return found
