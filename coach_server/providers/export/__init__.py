"""Handing a finished session to an outside API. Vendor files in this folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Parcel:
    """`export_id` names this export: the same id is the same one, however often it is sent. `body`: JSON."""

    export_id: str
    session_id: str
    body: bytes = field(repr=False)


class Exporter(Protocol):
    async def send(self, parcel: Parcel) -> None:
        """Raises ProviderError; `retryable` says whether it may be taken later."""
        ...
