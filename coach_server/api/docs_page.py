"""GET /docs: the contract as a page for people and as two documents for machines. Open to anyone, static."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson
from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from coach_server import __version__
from coach_server.api import contract, reference
from coach_server.api.http import Doc, Rest
from coach_server.api.sockets import Event

_HERE = Path(__file__).parent / "console"
_CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Pages:
    html: bytes
    css: bytes
    openapi: bytes
    asyncapi: bytes


class DocsPage:
    """Written at the first request, from what is registered by then, and kept."""

    def __init__(self, rest: Rest, events: Mapping[str, Event]) -> None:
        self._rest = rest
        self._events = events
        self._pages: Pages | None = None
        self._writing = asyncio.Lock()

    def register(self) -> None:
        rest = self._rest
        rest.open("/docs", self.page, Doc("This reference.", "text/html"))
        rest.open("/docs/docs.css", self.css, Doc("The style of the reference.", "text/css"))
        rest.open("/docs/openapi.json", self.openapi, Doc("The routes as OpenAPI 3.1.", "application/json"))
        rest.open(
            "/docs/asyncapi.json", self.asyncapi, Doc("The events as AsyncAPI 3.0.", "application/json")
        )

    async def page(self, request: web.Request) -> web.Response:
        pages = await self._written()
        return _answer(pages.html, "text/html", {"Content-Security-Policy": _CSP})

    async def css(self, request: web.Request) -> web.Response:
        return _answer((await self._written()).css, "text/css")

    async def openapi(self, request: web.Request) -> web.Response:
        return _answer((await self._written()).openapi, "application/json")

    async def asyncapi(self, request: web.Request) -> web.Response:
        return _answer((await self._written()).asyncapi, "application/json")

    async def _written(self) -> Pages:
        async with self._writing:
            if self._pages is None:
                self._pages = await asyncio.to_thread(write, self._rest, self._events)
            return self._pages


def register(rest: Rest, events: Mapping[str, Event]) -> None:
    """Serve the documents of `rest` and `events`; call it before the routes are mounted."""
    DocsPage(rest, events).register()


def write(rest: Rest, events: Mapping[str, Event]) -> Pages:
    openapi, asyncapi = contract.openapi(rest), contract.asyncapi(events)
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined
    )
    sections = [*reference.events(asyncapi), *reference.routes(openapi)]
    known = {(section.anchor, entry.name) for section in sections for entry in section.entries}

    def linked(text: str, home: str) -> Markup:
        """A type with links to the objects it names."""
        return Markup("").join(
            Markup('<a href="#{}-{}">{}</a>').format(home, word.lower(), word)
            if (home, word) in known
            else word
            for word in re.split(r"(\w+)", text)
        )

    environment.filters.update(marked=_marked, linked=linked)
    html = environment.get_template("docs.html").render(
        title=contract.TITLE, version=__version__, sections=sections
    )
    return Pages(
        html=html.encode(),
        css=(_HERE / "static" / "docs.css").read_bytes(),
        openapi=orjson.dumps(openapi, option=orjson.OPT_INDENT_2),
        asyncapi=orjson.dumps(asyncapi, option=orjson.OPT_INDENT_2),
    )


def _marked(text: str) -> Markup:
    """Text whose `code` is marked as such."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def _answer(body: bytes, media: str, headers: Mapping[str, str] | None = None) -> web.Response:
    charset = "utf-8" if media.startswith("text/") else None
    told = {"Cache-Control": "no-cache", **(headers or {})}
    return web.Response(body=body, content_type=media, charset=charset, headers=told)
