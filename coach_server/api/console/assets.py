"""The files a page of the console is made of: a fixed list, read once, known to the browser by their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

_HERE = Path(__file__).resolve().parent
_JAVASCRIPT = "text/javascript"
_FILES: Mapping[str, str] = {
    "console.css": "text/css",
    "mark.svg": "image/svg+xml",
    "analysis.js": _JAVASCRIPT,
    "call.js": _JAVASCRIPT,
    "demo.js": _JAVASCRIPT,
    "dom.js": _JAVASCRIPT,
    "main.js": _JAVASCRIPT,
    "outbox.js": _JAVASCRIPT,
    "tips.js": _JAVASCRIPT,
    "transcript.js": _JAVASCRIPT,
    "words.js": _JAVASCRIPT,
}
SOCKET_CLIENT = "socket.io.esm.min.js"


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, path: Path, content_type: str) -> Asset:
        body = path.read_bytes()
        return cls(body, content_type, hashlib.sha256(body).hexdigest()[:20])

    def answer(self, request: web.Request) -> web.Response:
        """The file, or 304 for a browser that has it. `no-cache` means: ask each time, so that an upgraded
        server is never used with yesterday's modules."""
        known = {tag.value for tag in request.if_none_match or ()}
        headers = {
            "ETag": f'"{self.etag}"',
            "Cache-Control": "no-cache",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if self.etag in known or "*" in known:
            return web.Response(status=304, headers=headers)
        return web.Response(body=self.body, content_type=self.content_type, charset="utf-8", headers=headers)


class Assets:
    """`/static/console/<name>`, `/static/vendor/<name>` and the favicon. Only names of the list exist."""

    def __init__(self, node_modules: Path) -> None:
        self._files = {
            f"/static/console/{name}": Asset.read(_HERE / "static" / name, kind)
            for name, kind in _FILES.items()
        }
        self._files["/favicon.ico"] = self._files["/static/console/mark.svg"]
        client = node_modules / "socket.io-client" / "dist" / SOCKET_CLIENT
        self.has_socket_client = client.is_file()
        if self.has_socket_client:
            self._files[f"/static/vendor/{SOCKET_CLIENT}"] = Asset.read(client, _JAVASCRIPT)

    def register(self, app: web.Application) -> None:
        app.router.add_get("/favicon.ico", self._serve)
        app.router.add_get("/static/{name:.*}", self._serve)

    async def _serve(self, request: web.Request) -> web.Response:
        asset = self._files.get(request.path)
        if asset is None:
            return web.Response(status=404, text="There is no such file.")
        return asset.answer(request)
