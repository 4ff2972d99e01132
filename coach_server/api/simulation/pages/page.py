"""GET /dashboard, /dashboard/{id} and /practice: the simulation's pages (seed 001 "Dashboard").

Shells only: what they show comes by REST with the reader's own credential, so that there is one place that
decides who sees what, and an address without one shows nothing.

A browser on this very machine, in development, is handed the token of the same trainee as the other practice
pages; on the dashboard another key or token can be given in its place.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from aiohttp import web

from coach_server import __version__
from coach_server.api.auth import is_at_this_machine
from coach_server.api.console.assets import Files, read_files
from coach_server.api.console.page import handed_out, load_templates, page_headers
from coach_server.api.console.strings import Strings, choose, load_strings
from coach_server.api.practice.pages.page import LOCAL_USER, TOKEN_TTL_S
from coach_server.services.access import Gate, Role

PREFIX = "/static/simulation"
_HERE = Path(__file__).resolve().parent
_NAMES = (
    "simulation.css",
    "capture.js",
    "dashboard.js",
    "download.js",
    "filters.js",
    "lines.js",
    "microphone.js",
    "mood.js",
    "outcome.js",
    "pcm.js",
    "practice_voice.js",
    "relay.js",
    "resampler.js",
    "score.js",
    "session.js",
    "speaker.js",
    "table.js",
    "timeline.js",
    "trail.js",
    "viewer.js",
    "wording.js",
)


class SimulationPages:
    """`hands_out_tokens`: whether a browser on this machine may come in without a key."""

    def __init__(self, *, gate: Gate, hands_out_tokens: bool) -> None:
        self._gate = gate
        self._hands_out_tokens = hands_out_tokens
        self._files = Files(read_files(PREFIX, _HERE / "static", _NAMES))
        self._strings = load_strings(_HERE / "strings")
        self._templates = load_templates(_HERE / "templates")

    def register(self, app: web.Application) -> None:
        app.router.add_get("/dashboard", self.dashboard)
        app.router.add_get("/dashboard/{id}", self.session)
        app.router.add_get("/practice", self.practice)
        app.router.add_get(f"{PREFIX}/{{name:.*}}", self._files.serve)

    async def dashboard(self, request: web.Request) -> web.Response:
        return self._page(request, "dashboard", {})

    async def session(self, request: web.Request) -> web.Response:
        """The module asks for the session, and says so when there is none (that the reader may see)."""
        return self._page(request, "session", {"sessionId": request.match_info["id"]})

    async def practice(self, request: web.Request) -> web.Response:
        return self._page(request, "practice_voice", {}, microphone=True)

    def _page(
        self, request: web.Request, name: str, more: dict[str, Any], *, microphone: bool = False
    ) -> web.Response:
        strings = choose(self._strings, request)
        nonce = secrets.token_urlsafe(16)
        body = self._templates.get_template(f"{name}.html").render(
            t=strings.table,
            page=name,
            language=strings.language,
            direction=strings.direction,
            languages=[
                {"code": code, "name": known.name, "href": str(request.rel_url.update_query(lang=code))}
                for code, known in self._strings.items()
            ],
            data=self._data(request, strings) | more,
            nonce=nonce,
            version=__version__,
        )
        headers = page_headers(nonce, request.host, microphone=microphone)
        return web.Response(text=body, content_type="text/html", headers=headers)

    def _data(self, request: web.Request, strings: Strings) -> dict[str, Any]:
        """What the modules need, as JSON in the page."""
        return {
            "language": strings.language,
            "strings": strings.table,
            "credential": self._credential(request),
        }

    def _credential(self, request: web.Request) -> dict[str, Any] | None:
        if not self._hands_out_tokens or not is_at_this_machine(request):
            return None
        return handed_out(self._gate, LOCAL_USER, Role.TRAINEE, TOKEN_TTL_S)
