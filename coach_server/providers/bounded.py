"""Reading a vendor's HTTP answer without letting it grow beyond what we expect."""

from __future__ import annotations

import aiohttp

from coach_server.errors import ProviderError


async def body(response: aiohttp.ClientResponse, limit: int = 64 * 1024) -> bytes:
    """The whole body, at most `limit` bytes. Raises ProviderError beyond that."""
    read = bytearray()
    async for piece in response.content.iter_any():
        read += piece
        if len(read) > limit:
            raise ProviderError("The service behind this sent far too much.")
    return bytes(read)
