"""The routes and events of the server without a server: for documents, which read declarations only."""

from __future__ import annotations

from typing import Any

from coach_server.api import docs_page
from coach_server.api.audio_events import AudioEvents
from coach_server.api.call_events import CallEvents
from coach_server.api.http import Rest
from coach_server.api.practice.events import RoleplayEvents
from coach_server.api.practice.rest import RestPractice
from coach_server.api.practice.rest_roleplay import RestRoleplay
from coach_server.api.rest_calls import RestCalls
from coach_server.api.rest_ops import RestOps
from coach_server.api.rest_privacy import RestPrivacy
from coach_server.api.rest_tools import RestTools
from coach_server.api.simulation.rest import RestSimulations
from coach_server.api.sockets import Sockets


class _Nothing:
    """What handlers would work with, if they were called."""

    def __getattr__(self, name: str) -> _Nothing:
        return self

    def __call__(self, *args: object, **kwargs: object) -> _Nothing:
        return self


def declared() -> tuple[Rest, Sockets]:
    """As `app.build_app` registers them, with nothing behind them; a test compares the two."""
    nothing: Any = _Nothing()
    sockets = Sockets(nothing, nothing, nothing)
    CallEvents(sockets, nothing, nothing, nothing).register()
    AudioEvents(sockets, nothing, nothing).register()
    rest = Rest(nothing)
    RestOps(
        calls=nothing, gate=nothing, clock=nothing, healthy=nothing, draining=nothing, registry=nothing
    ).register(rest)
    RestCalls(nothing, nothing).register(rest)
    RoleplayEvents(sockets, nothing, nothing, nothing, nothing).register()
    RestRoleplay(nothing, nothing, nothing).register(rest)
    RestPractice(nothing, nothing, nothing, nothing, language="en").register(rest)
    RestSimulations(nothing, nothing, language="en", trusts_proxy=False).register(rest)
    RestPrivacy(nothing, nothing, nothing).register(rest)
    RestTools(
        generator=nothing,
        reports=nothing,
        transcriptions=nothing,
        speech_tokens=nothing,
        limits=nothing,
        clock=nothing,
        language="en",
    ).register(rest)
    docs_page.register(rest, sockets.events)
    return rest, sockets
