"""A stand-in for S3, path style: checks the signature of every request and keeps objects in memory."""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Mapping

from aiohttp import web

from tests.fakes.sigv4 import Keys, _right_scope, _signature

KEYS = Keys("AKIATESTS3", "s3/secret+key", "eu-central-1", "s3")


class FakeS3:
    """`objects` by path. `answers`: statuses of the next requests."""

    def __init__(self, keys: Keys = KEYS) -> None:
        self.keys = keys
        self.objects: dict[str, bytes] = {}
        self.answers: deque[int] = deque()
        self.requests: list[str] = []
        self.url = ""

    async def __aenter__(self) -> FakeS3:
        app = web.Application(client_max_size=64_000_000)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append(f"{request.method} {request.path}")
        if self.answers:
            return _fault(self.answers.popleft(), "Scripted")
        if not _signed(self.keys, request.method, request.path, request.headers, body):
            return _fault(403, "SignatureDoesNotMatch")
        match request.method:
            case "PUT":
                self.objects[request.path] = body
                return web.Response()
            case "GET" if request.path in self.objects:
                return web.Response(body=self.objects[request.path])
            case "DELETE":
                self.objects.pop(request.path, None)
                return web.Response(status=204)
        return _fault(404, "NoSuchKey")


def _fault(status: int, code: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>the vendor's own words</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def _signed(keys: Keys, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bool:
    algorithm, _, rest = headers.get("Authorization", "").partition(" ")
    parts = dict(part.split("=", 1) for part in rest.split(", ")) if rest else {}
    if algorithm != "AWS4-HMAC-SHA256":
        return False
    names = parts["SignedHeaders"].split(";")
    digest = hashlib.sha256(body).hexdigest()
    if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names):
        return False
    if headers["x-amz-content-sha256"] != digest:
        return False
    lines = [f"{name}:{headers[name].strip()}" for name in names]
    canonical = "\n".join([method, path, "", *lines, "", parts["SignedHeaders"], digest])
    access_key, _, scope = parts["Credential"].partition("/")
    if access_key != keys.access_key or not _right_scope(keys, scope):
        return False
    expected = _signature(keys, canonical, headers["X-Amz-Date"], scope)
    return hmac.compare_digest(expected, parts["Signature"])
