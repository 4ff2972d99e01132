"""What the parts of the socket floor agree on: the options, the bounds, and what an event is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from coach_server.clock import Clock, SystemClock

# Told to every client, as upstream does. It bounds one polling POST; one packet is bounded by
# `max_message_bytes`. A client divides what it has kept by this figure, so a smaller body limit would
# cut off a polling client that comes back with a full buffer.
MAX_PAYLOAD_BYTES = 1_000_000
BODY_DEADLINE_S = 15.0
UPGRADE_DEADLINE_S = 10.0
CLOSE_WAIT_S = 1.0
# Handlers of one socket that may wait at the same time; further events wait unread in its connection.
MAX_IN_FLIGHT = 256
# Events of one socket between two turns of the other sockets.
BURST = 64


# One event of a client that is connected: namespace, sid, `[name, *arguments]`, ack id. A plain tuple, as
# one is made for every event.
Event = tuple[str, str, list[Any], int | None]
# What the short path returns for a packet that is not for it.
MISSED = object()


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How sockets are served. Seconds and bytes.

    `is_origin_allowed` gets the Origin header, or None where there is none, and decides for polling and for
    WebSocket. `trust_proxy` says how many proxies of our own append to X-Forwarded-For (True is one, nginx
    behind a load balancer is two); 0 takes the address of the connection.
    """

    is_origin_allowed: Callable[[str | None], bool]
    driver: Literal["lean", "stock"] = "lean"
    ping_interval_s: float = 25.0
    ping_timeout_s: float = 20.0
    max_message_bytes: int = 256_000
    max_sockets_per_ip: int = 200
    connect_deadline_s: float = 8.0
    outbox_packets: int = 1000
    outbox_bytes: int = 1_000_000
    trust_proxy: int = 0
    clock: Clock = field(default_factory=SystemClock)
