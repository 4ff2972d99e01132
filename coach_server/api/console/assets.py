"""The files that pages for people are made of: fixed lists, read once, known to the browser by their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

_HERE = Path(__file__).resolve().parent
_JAVASCRIPT = "text/javascript"
_KINDS: Mapping[str, str] = {".css": "text/css", ".js": _JAVASCRIPT, ".svg": "image/svg+xml"}
_NAMES = (
    "console.css",
    "mark.svg",
    "analysis.js",
    "call.js",
    "demo.js",
    "dom.js",
    "main.js",
    "outbox.js",
    "tips.js",
    "transcript.js",
    "words.js",
)
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


class Files:
    """Files by the path they are served under. Only these exist."""

    def __init__(self, files: Mapping[str, Asset]) -> None:
        self._files = files

    async def serve(self, request: web.Request) -> web.Response:
        asset = self._files.get(request.path)
        if asset is None:
            return web.Response(status=404, text="There is no such file.")
        return asset.answer(request)


class Assets:
    """`/static/console/<name>`, `/static/vendor/<name>` and the favicon. Only names of the list exist."""

    def __init__(self, node_modules: Path) -> None:
        files = read_files("/static/console", _HERE / "static", _NAMES)
        files["/favicon.ico"] = files["/static/console/mark.svg"]
        self.has_socket_client = has_socket_client(node_modules)
        if self.has_socket_client:
            files[f"/static/vendor/{SOCKET_CLIENT}"] = Asset.read(_socket_client(node_modules), _JAVASCRIPT)
        self._files = Files(files)

    def register(self, app: web.Application) -> None:
        app.router.add_get("/favicon.ico", self._files.serve)
        app.router.add_get("/static/{name:.*}", self._files.serve)


def read_files(prefix: str, folder: Path, names: Iterable[str]) -> dict[str, Asset]:
    """The named files of a folder, each under `prefix/name`."""
    return {f"{prefix}/{name}": Asset.read(folder / name, _KINDS[Path(name).suffix]) for name in names}


def has_socket_client(node_modules: Path) -> bool:
    """Whether the npm packages are there, without which no page is live."""
    return _socket_client(node_modules).is_file()


def _socket_client(node_modules: Path) -> Path:
    return node_modules / "socket.io-client" / "dist" / SOCKET_CLIENT
