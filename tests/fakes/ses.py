"""A stand-in for Amazon SES API version 2: checks the signature and the shape of SendEmail."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from tests.fakes.sigv4 import Keys, signed_is_right
from tests.fakes.waiting import Watched

KEYS = Keys("AKIATESTSES", "ses/secret+key", "eu-central-1", "ses")


class FakeSes(Watched):
    """`refuse_with` is a status and an exception name. Accepted messages are kept in `messages`."""

    def __init__(self, keys: Keys = KEYS) -> None:
        super().__init__()
        self.keys = keys
        self.refuse_with: tuple[int, str] | None = None
        self.raw_answer: str | None = None
        self.hang = False
        self.messages: list[dict[str, Any]] = []
        self.url = ""

    async def __aenter__(self) -> FakeSes:
        app = web.Application()
        app.router.add_post("/v2/email/outbound-emails", self._send)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang = False
        self.changed()
        await self._runner.cleanup()

    async def _send(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.hang:
            await self.until(lambda: not self.hang, within_s=30)
        if not signed_is_right(self.keys, request.path, request.headers, body):
            return _refusal(403, "SignatureDoesNotMatchException")
        if self.refuse_with is not None:
            return _refusal(*self.refuse_with)
        message = await request.json()
        if message["Content"].keys() != {"Simple"} or not message["Destination"]["ToAddresses"]:
            return _refusal(400, "BadRequestException")
        self.messages.append(message)
        if self.raw_answer is not None:
            return web.Response(text=self.raw_answer)
        return web.json_response({"MessageId": f"ses-{len(self.messages)}"})


def _refusal(status: int, kind: str) -> web.Response:
    headers = {"x-amzn-ErrorType": f"{kind}:http://internal.amazon.com/coral/"}
    return web.json_response({"message": "vendor's own words"}, status=status, headers=headers)
