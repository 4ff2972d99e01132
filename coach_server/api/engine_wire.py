"""What may come over a socket: JSON, Socket.IO packets and polling payloads, each with its limits.

Nothing here waits or sends. Whatever is not acceptable raises `Refused`, whose text names the reason in the
server's own words, so that it can be logged without repeating what the client sent.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import orjson
from socketio import packet
from socketio.packet import ACK, BINARY_ACK, BINARY_EVENT, CONNECT_ERROR, EVENT

MAX_ATTACHMENTS = 4
MAX_ATTACHMENT_BYTES = 1_000_000
# Levels inside the array that every event is: a payload may be 32 deep.
MAX_DEPTH = 33
MAX_ACK_ID = 2**53
MAX_NAMESPACE = 128
# More than any burst a client keeps while it is away, less than what would occupy the loop for long.
MAX_POLLED_PACKETS = 5000
PACKET_SEPARATOR = "\x1e"

# `*` is the name under which a catch-all handler is registered: from a client it would reach that handler
# with its arguments shifted. The others are the library's own life-cycle events.
RESERVED_EVENTS = frozenset({"connect", "disconnect", "connect_error", "*"})


class Refused(ValueError):
    """A packet that is not acceptable. `ack` is the id the client waits on, where it could still be read."""

    def __init__(self, reason: str, ack: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.ack = ack


class WireJson:
    """orjson behind the two functions python-socketio asks of a JSON module."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        try:
            return orjson.dumps(value).decode()
        except TypeError:
            # Lone surrogates, integers over 64 bit, keys that are no strings: the standard library writes
            # them, as ASCII, so that what leaves is always valid UTF-8.
            return json.dumps(value, separators=(",", ":"), allow_nan=False)

    @staticmethod
    def loads(text: str, **_: Any) -> Any:
        """Integers over 64 bit become floats, as in a browser; lone surrogates, NaN, infinity are refused."""
        try:
            value = orjson.loads(text)
        except ValueError:
            raise Refused("invalid JSON") from None
        if may_be_deep(text) and _deeper_than(MAX_DEPTH, value):
            raise Refused("JSON too deep")
        return value


def may_be_deep(text: str) -> bool:
    """Whether there are brackets enough. Counting costs a tenth of a walk, and nearly no packet has them."""
    return text.count("[") + text.count("{") > MAX_DEPTH


def _deeper_than(limit: int, value: Any) -> bool:
    containers = [value] if isinstance(value, (list, dict)) else []
    for _ in range(limit):
        containers = [
            child
            for item in containers
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (list, dict))
        ]
    return bool(containers)


class CoachPacket(packet.Packet):  # type: ignore[misc]  # python-socketio has no types
    """A Socket.IO packet that knows its limits when it comes from a client."""

    json = WireJson
    packet_type: Any
    id: Any

    def decode(self, encoded_packet: Any) -> int:
        try:
            attachments: int = super().decode(encoded_packet)
        except Refused as refused:
            raise Refused(refused.reason, ack_id_of(encoded_packet)) from None
        except (ValueError, TypeError):
            raise Refused("unreadable packet", ack_id_of(encoded_packet)) from None
        self._check_attachments(attachments)
        self._check_content()
        return attachments

    def _check_attachments(self, announced: int) -> None:
        if self.packet_type in (BINARY_EVENT, BINARY_ACK):
            if announced > MAX_ATTACHMENTS:
                raise Refused("too many attachments", self._ack)
            if announced == 0:  # nothing to wait for, so it is an ordinary packet
                self.packet_type = EVENT if self.packet_type == BINARY_EVENT else ACK
        elif announced:
            raise Refused("attachments on a packet without any", self._ack)

    def _check_content(self) -> None:
        if not isinstance(self.packet_type, int) or self.packet_type > BINARY_ACK:
            raise Refused("unknown packet type")
        if self.packet_type == CONNECT_ERROR:
            raise Refused("a packet only servers send")
        if self.namespace and len(self.namespace) > MAX_NAMESPACE:
            raise Refused("namespace too long")
        if self.id is not None and self.id > MAX_ACK_ID:
            raise Refused("ack id too large")
        if self.packet_type in (EVENT, BINARY_EVENT):
            check_event(self.data, self._ack)
        elif self.packet_type in (ACK, BINARY_ACK):
            # Id 0 is the slot in which the library keeps its counter of ids.
            if not self.id or not isinstance(self.data, list):
                raise Refused("unreadable ack")

    @property
    def _ack(self) -> int | None:
        is_event = self.packet_type in (EVENT, BINARY_EVENT)
        return self.id if is_event and self.namespace in (None, "/") else None

    def add_attachment(self, attachment: Any) -> bool:
        held = sum(len(part) for part in self.attachments)
        if held + len(attachment) > MAX_ATTACHMENT_BYTES:
            raise Refused("attachments too large", self._ack)
        try:
            return bool(super().add_attachment(attachment))
        except (ValueError, KeyError, IndexError, TypeError):
            raise Refused("placeholders that fit no attachment", self._ack) from None

    @classmethod
    def _reconstruct_binary_internal(cls, data: Any, attachments: list[bytes]) -> Any:
        if isinstance(data, dict) and data.get("_placeholder") and "num" in data:
            number = data["num"]
            if type(number) is not int or number < 0:
                raise TypeError("a placeholder without a number")
        return super()._reconstruct_binary_internal(data, attachments)


def check_event(data: Any, ack: int | None = None) -> None:
    """Raise Refused unless `data` is `[name, *arguments]` with a name that clients may use."""
    if not isinstance(data, list) or not data or not isinstance(data[0], str):
        raise Refused("an event without a name", ack)
    if data[0] in RESERVED_EVENTS:
        raise Refused("a reserved event name", ack)


def ack_id_of(text: str) -> int | None:
    """The ack id of an event in the root namespace (`2<id>[`, `5<n>-<id>[`) whose rest could not be read."""
    head = text[1:40].partition("[")[0]
    if text[:1] == "5":
        head = head.partition("-")[2]
    elif text[:1] != "2":
        return None
    return int(head) if head.isascii() and head.isdigit() and len(head) <= 16 else None


def split_payload(body: bytes, max_packet: int) -> list[str | bytes | Refused]:
    """The Engine.IO packets of one polling POST in their order: text with its type digit, bytes for a binary
    message, Refused in the place of one over `max_packet` bytes or in bad base64.

    A body that is no payload at all raises Refused.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("a payload that is not UTF-8") from None
    if text.count(PACKET_SEPARATOR) >= MAX_POLLED_PACKETS:
        raise Refused("too many packets in one payload")
    return [_polled(part, max_packet) for part in text.split(PACKET_SEPARATOR)] if text else []


def _polled(part: str, max_packet: int) -> str | bytes | Refused:
    data: str | bytes = part
    if part[:1] == "b":
        try:
            data = base64.b64decode(part[1:], validate=True)
        except (binascii.Error, ValueError):
            return Refused("bad base64")
    return data if len(data) <= max_packet else Refused("packet too large")
