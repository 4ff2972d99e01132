"""The BatMan API (seed 001): one POST a session, signed so that the receiver can tell it is ours and whole.

    Authorization: Bearer <token>
    Idempotency-Key: <export id>
    X-Timestamp: <seconds since the epoch>
    X-Signature: sha256=<hex HMAC-SHA256, key: the token, over "<timestamp>.<body>">

A receiver refuses a timestamp that is minutes away: that ends replays. 2xx is taken; 408, 425, 429 and 5xx
may be tried again; any other answer is final.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math

import aiohttp
from loguru import logger
from yarl import URL

from coach_server.clock import Clock
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers import bounded
from coach_server.providers.export import Parcel

LATER = frozenset({408, 425, 429})
MOST_WAIT_S = 3600.0


class Batman:
    """`auth`: the token, with or without `Bearer` before it, as the seed writes it."""

    def __init__(
        self, url: str, auth: str, http: aiohttp.ClientSession, clock: Clock, *, timeout_s: float = 15.0
    ) -> None:
        self._url = URL(url)
        self._token = auth.strip().removeprefix("Bearer ").strip()
        self._http = http
        self._clock = clock
        self._timeout_s = timeout_s

    async def send(self, parcel: Parcel) -> None:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                # A redirect would carry the token to another host.
                self._http.post(
                    self._url, data=parcel.body, headers=self._headers(parcel), allow_redirects=False
                ) as response,
            ):
                await bounded.body(response)
        except TimeoutError as error:
            # Safe to try again: the export id tells the receiver that it is the same one.
            raise ProviderTimeout("The export API did not answer in time.", retryable=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError("The export API could not be reached.", retryable=True) from error
        if not 200 <= response.status < 300:
            raise _refusal(response.status, response.headers.get("Retry-After", ""))

    def _headers(self, parcel: Parcel) -> dict[str, str]:
        timestamp = str(int(self._clock.now()))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": parcel.export_id,
            "X-Timestamp": timestamp,
        }
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
            headers["X-Signature"] = f"sha256={signature(self._token, timestamp, parcel.body)}"
        return headers


def signature(token: str, timestamp: str, body: bytes) -> str:
    return hmac.new(token.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _refusal(status: int, retry_after: str) -> ProviderError:
    logger.bind(status=status).warning("the export API refused a session")
    if status in LATER or status >= 500:
        wait = _seconds(retry_after)
        return ProviderError("The export API is not available.", retryable=True, retry_after_s=wait)
    if status in (401, 403):
        return ProviderError("The export API refused the credentials.")
    return ProviderError("The export API did not accept the session.")


def _seconds(text: str) -> float | None:
    try:
        wait = float(text)
    except ValueError:
        return None
    return min(max(wait, 0.0), MOST_WAIT_S) if math.isfinite(wait) else None
