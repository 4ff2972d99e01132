"""GET /roleplay and GET /progress: the pages of somebody who practises. Like the console they are clients as
any other: Socket.IO events and REST, nothing more.

A browser on this very machine, in development, is handed the token of one fixed trainee: the page keeps
nothing in the browser, and progress is there again after a reload. Everybody else brings a token or a key.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from aiohttp import web

from coach_server import __version__
from coach_server.api.auth import is_at_this_machine
from coach_server.api.console.assets import Files, has_socket_client, read_files
from coach_server.api.console.page import IMPORT_MAP, handed_out, load_templates, page_headers
from coach_server.api.console.strings import Strings, choose, load_strings
from coach_server.services.access import Gate, Role

LOCAL_USER = "practice-local"
# A talk may last two hours, and somebody reads the scenarios first.
TOKEN_TTL_S = 3 * 3600
PREFIX = "/static/practice"
_HERE = Path(__file__).resolve().parent
_NAMES = (
    "practice.css",
    "access.js",
    "celebrate.js",
    "curve.js",
    "drills.js",
    "figures.js",
    "flow.js",
    "hints.js",
    "progress.js",
    "results.js",
    "roleplay.js",
    "scenarios.js",
    "session.js",
    "speech.js",
    "steps.js",
)


class PracticePages:
    """`hands_out_tokens`: whether a browser on this machine may come in without a key."""

    def __init__(self, *, gate: Gate, hands_out_tokens: bool, node_modules: Path) -> None:
        self._gate = gate
        self._hands_out_tokens = hands_out_tokens
        self._live = has_socket_client(node_modules)
        self._files = Files(read_files(PREFIX, _HERE / "static", _NAMES))
        self._strings = load_strings(_HERE / "strings")
        self._templates = load_templates(_HERE / "templates")

    def register(self, app: web.Application) -> None:
        app.router.add_get("/roleplay", self.roleplay)
        app.router.add_get("/progress", self.progress)
        app.router.add_get(f"{PREFIX}/{{name:.*}}", self._files.serve)

    async def roleplay(self, request: web.Request) -> web.Response:
        return self._page(request, "roleplay", live=self._live, microphone=True)

    async def progress(self, request: web.Request) -> web.Response:
        return self._page(request, "progress", live=False, microphone=False)

    def _page(self, request: web.Request, name: str, *, live: bool, microphone: bool) -> web.Response:
        """`live`: whether the page opens a Socket.IO connection."""
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
            live=live,
            import_map=IMPORT_MAP,
            data=self._data(request, strings, live),
            nonce=nonce,
            version=__version__,
        )
        headers = page_headers(nonce, request.host, microphone=microphone)
        return web.Response(text=body, content_type="text/html", headers=headers)

    def _data(self, request: web.Request, strings: Strings, live: bool) -> dict[str, Any]:
        """What the modules need, as JSON in the page."""
        return {
            "language": strings.language,
            "strings": strings.table,
            "live": live,
            "credential": self._credential(request),
        }

    def _credential(self, request: web.Request) -> dict[str, Any] | None:
        if not self._hands_out_tokens or not is_at_this_machine(request):
            return None
        return handed_out(self._gate, LOCAL_USER, Role.TRAINEE, TOKEN_TTL_S)
