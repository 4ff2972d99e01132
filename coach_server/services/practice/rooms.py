"""Who listens to which practice session, on this instance; and telling them, on all instances.

A session's listeners are the sockets that joined it. Nothing of it is kept: a client that joins late reads
where the session is from the answer to its join.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from coach_server.providers.bus import Bus

TELL = "tell"


class BarePublisher(Protocol):
    async def send_bare(self, sid: str, name: str, payload: Mapping[str, Any]) -> None: ...


class Rooms:
    def __init__(self, publisher: BarePublisher, bus: Bus) -> None:
        self._publisher = publisher
        self._bus = bus
        self._listeners: dict[str, set[str]] = {}
        self._joined: dict[str, set[str]] = {}

    def join(self, sid: str, session_id: str) -> None:
        self._listeners.setdefault(session_id, set()).add(sid)
        self._joined.setdefault(sid, set()).add(session_id)

    def leave(self, sid: str) -> None:
        """The socket is gone."""
        for session_id in self._joined.pop(sid, ()):
            listeners = self._listeners.get(session_id, set())
            listeners.discard(sid)
            if not listeners:
                self._listeners.pop(session_id, None)

    def has_joined(self, sid: str, session_id: str) -> bool:
        return session_id in self._joined.get(sid, ())

    async def tell(self, session_id: str, name: str, payload: Mapping[str, Any]) -> None:
        """Every listener, here and on other instances, in the order of the calls."""
        await self._tell_here(session_id, name, payload)
        await self._bus.publish(
            None, {"type": TELL, "session": session_id, "name": name, "payload": dict(payload)}
        )

    async def tell_one(self, sid: str, name: str, payload: Mapping[str, Any]) -> None:
        await self._publisher.send_bare(sid, name, payload)

    async def hear(self, message: Mapping[str, Any]) -> None:
        """A message from another instance."""
        if message.get("type") == TELL:
            payload = dict(message.get("payload") or {})
            await self._tell_here(str(message.get("session")), str(message.get("name")), payload)

    async def _tell_here(self, session_id: str, name: str, payload: Mapping[str, Any]) -> None:
        for sid in sorted(self._listeners.get(session_id, ())):
            await self._publisher.send_bare(sid, name, payload)
