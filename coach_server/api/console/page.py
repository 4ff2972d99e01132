"""GET /: the page a newcomer opens. It is a client like any other: Socket.IO events and REST, nothing more.

What is special is only how it gets in: a browser on this very machine, in development, is handed a user token
for an hour; everybody else is asked for an API key or a token.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import DictLoader, Environment, StrictUndefined

from coach_server import __version__
from coach_server.api.auth import is_at_this_machine
from coach_server.api.console.assets import SOCKET_CLIENT, Assets
from coach_server.api.console.strings import DEFAULT, Strings, choose, load_strings
from coach_server.clock import millis
from coach_server.domain.tip import Stage
from coach_server.services.access import Gate, Role
from coach_server.services.content import Content
from coach_server.services.demo import DemoCall, demo_languages, load_demo

TOKEN_TTL_S = 3600
IMPORT_MAP = {"imports": {"socket.io-client": f"/static/vendor/{SOCKET_CLIENT}"}}
_TEMPLATES = Path(__file__).resolve().parent / "templates"
_HOST = re.compile(r"[A-Za-z0-9.\-\[\]:]{1,255}")


class Console:
    """`hands_out_tokens`: whether a browser on this machine may come in without a key."""

    def __init__(self, *, gate: Gate, content: Content, hands_out_tokens: bool, node_modules: Path) -> None:
        self._gate = gate
        self._content = content
        self._hands_out_tokens = hands_out_tokens
        self._assets = Assets(node_modules)
        self._strings = load_strings()
        self._demos = {language: load_demo(language) for language in demo_languages()}
        self._template = load_templates(_TEMPLATES).get_template("console.html")

    def register(self, app: web.Application) -> None:
        app.router.add_get("/", self.page)
        self._assets.register(app)

    async def page(self, request: web.Request) -> web.Response:
        strings = choose(self._strings, request)
        nonce = secrets.token_urlsafe(16)
        demo = self._demos.get(strings.language) or self._demos[DEFAULT]
        body = self._template.render(
            t=strings.table,
            language=strings.language,
            direction=strings.direction,
            languages=list(self._strings.values()),
            demo=demo,
            duration=_clock_text(demo.duration_ms),
            stages=[stage.value for stage in Stage],
            live=self._assets.has_socket_client,
            import_map=IMPORT_MAP,
            data=self._data(request, strings, demo),
            nonce=nonce,
            version=__version__,
        )
        return web.Response(text=body, content_type="text/html", headers=page_headers(nonce, request.host))

    def _data(self, request: web.Request, strings: Strings, demo: DemoCall) -> dict[str, Any]:
        """What the modules need, as JSON in the page."""
        books = [book for book in self._content.playbooks() if book.language == strings.language]
        return {
            "language": strings.language,
            "strings": strings.table,
            "live": self._assets.has_socket_client,
            "stages": [stage.value for stage in Stage],
            "credential": self._credential(request),
            "playbooks": [{"id": book.id, "title": book.title} for book in books],
            "demo": {
                "language": demo.language,
                "title": demo.title,
                "metadata": dict(demo.metadata),
                "turns": [
                    {
                        "speaker": "agent" if turn.speaker == "agent" else "caller",
                        "text": turn.text,
                        "pauseMs": turn.pause_ms,
                    }
                    for turn in demo.turns
                ],
            },
        }

    def _credential(self, request: web.Request) -> dict[str, Any] | None:
        if not self._hands_out_tokens or not is_at_this_machine(request):
            return None
        return handed_out(self._gate, f"console-{secrets.token_hex(6)}", Role.AGENT, TOKEN_TTL_S)


# What the other pages for people share with this one.


def load_templates(folder: Path) -> Environment:
    pages = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    return Environment(
        loader=DictLoader(pages),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def handed_out(gate: Gate, user_id: str, role: Role, ttl_s: int) -> dict[str, Any]:
    """A user token for the browser that opened the page: `{token, expiresAt}`."""
    token, expires_at = gate.issue(gate.first_key(), user_id=user_id, role=role, team_id=None, ttl_s=ttl_s)
    return {"token": token, "expiresAt": millis(expires_at)}


def page_headers(nonce: str, host: str, *, microphone: bool = False) -> dict[str, str]:
    """`microphone`: whether the page may ask for it."""
    return {
        "Content-Security-Policy": content_security_policy(nonce, host),
        # The page may hold a token.
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": f"camera=(), geolocation=(), microphone={'(self)' if microphone else '()'}",
        "Vary": "Accept-Language",
    }


def content_security_policy(nonce: str, host: str) -> str:
    """Only our own files run. Trusted types make the browser itself refuse to read a text as HTML, so that
    nothing said in a call can become markup. Older browsers do not count WebSockets to 'self': the page's own
    host is named for them."""
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' 'nonce-{nonce}'",
            "style-src 'self'",
            "img-src 'self'",
            f"connect-src 'self'{sockets}",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _clock_text(ms: int) -> str:
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes}:{seconds:02}"
