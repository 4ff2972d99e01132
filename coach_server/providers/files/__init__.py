"""Keeping small files under a key: a local folder or S3-compatible storage. Vendor files in this folder."""

from __future__ import annotations

import re
from typing import Protocol

from coach_server.errors import NotFound

MAX_FILE_BYTES = 32_000_000
MAX_PARTS = 4
# Ids as in trust.md G17; a part may have one ending.
_PART = re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9]{1,8})?")


class FileStore(Protocol):
    """A key is `sessions/BAT-001/session.json`: up to four parts. A file appears whole or not at all."""

    async def put(self, key: str, data: bytes) -> None:
        """Write or replace. Raises NotFound for a key that is none, StorageFailed, ProviderError."""
        ...

    async def get(self, key: str) -> bytes:
        """Raises NotFound, StorageFailed, ProviderError."""
        ...

    async def delete(self, key: str) -> None:
        """Also of what is not there. Raises as `put`."""
        ...


def parts_of(key: str) -> list[str]:
    """The parts of a key. Raises NotFound for anything that could lead elsewhere."""
    parts = key.split("/")
    if len(parts) > MAX_PARTS or not all(_PART.fullmatch(part) for part in parts):
        raise NotFound("There is no such file.")
    return parts
