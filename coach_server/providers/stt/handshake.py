"""A vendor's WebSocket: opened with time-out and size limit, refusals in our words, kept alive, closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from coach_server.errors import ProviderError, ProviderTimeout

MAX_MESSAGE_BYTES = 1 << 20
CLOSE_S = 2.0
SEND_S = 5.0

# What reading a message of an unexpected shape raises.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)

_REFUSALS = {
    400: "The speech service did not accept these settings.",
    401: "The speech service refused the credentials.",
    402: "The account at the speech service has no credit.",
    403: "The speech service refused the credentials.",
    429: "The speech service has too many requests.",
}


async def connect(
    http: aiohttp.ClientSession,
    url: URL,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
    heartbeat_s: float | None = None,
) -> aiohttp.ClientWebSocketResponse:
    try:
        async with asyncio.timeout(timeout_s):
            return await http.ws_connect(
                url,
                headers=dict(headers or {}),
                max_msg_size=MAX_MESSAGE_BYTES,
                heartbeat=heartbeat_s,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
            )
    except aiohttp.WSServerHandshakeError as error:
        raise refusal(error.status, error.headers) from error
    except TimeoutError as error:
        raise ProviderTimeout("The speech service did not answer in time.", retryable=True) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ProviderError("The speech service could not be reached.", retryable=True) from error


def refusal(status: int, headers: Mapping[str, str] | None = None) -> ProviderError:
    return ProviderError(
        _REFUSALS.get(status, "The speech service is not available."),
        retryable=status not in _REFUSALS or status == 429,
        retry_after_s=retry_after(headers or {}),
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After` header; its date form is rare at these vendors and left out."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


@asynccontextmanager
async def kept_alive(
    socket: aiohttp.ClientWebSocketResponse, keeper: Coroutine[None, None, None]
) -> AsyncIterator[None]:
    """Run `keeper` beside the body; end it and close the socket afterwards."""
    task = asyncio.create_task(keeper, name="speech keep-alive")
    try:
        yield
    finally:
        task.cancel()
        try:
            await asyncio.wait([task])
        finally:
            await socket.close()


def closed_well(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """Closed by the vendor with 1000, or with a close frame that says nothing."""
    return socket.close_code in (0, aiohttp.WSCloseCode.OK)


async def send(socket: aiohttp.ClientWebSocketResponse, data: bytes | str) -> None:
    """One frame, binary or text. A peer that stops reading is a fault too: without the time-out the sender
    would wait for ever."""
    try:
        async with asyncio.timeout(SEND_S):
            if isinstance(data, bytes):
                await socket.send_bytes(data)
            else:
                await socket.send_str(data)
    except TimeoutError as error:
        raise ProviderTimeout("The speech service stopped taking audio.", retryable=True) from error
    except (aiohttp.ClientError, ConnectionError, OSError) as error:
        raise ProviderError("The speech service closed the stream.", retryable=True) from error
