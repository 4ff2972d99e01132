"""The job that hands a finished session to the outside API. Each export has its own row with its state.

It runs again until it is taken or refused for good: the export's id goes with it, so that a receiver that had
taken it already knows it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from loguru import logger

from coach_server.clock import Clock
from coach_server.errors import CoachError, NotFound, ProviderError
from coach_server.providers.export import Exporter, Parcel
from coach_server.services.simulation.datafiles import (
    SessionRecord,
    event_documents,
    json_bytes,
    load_record,
    session_document,
    transcript_documents,
)
from coach_server.storage import simulation_scores
from coach_server.storage.database import Database

PENDING, SENT, FAILED = "pending", "sent", "failed"
GIVEN_UP = "GIVEN_UP"


class SimulationExports:
    """`exporter` None: no outside API is set."""

    def __init__(self, database: Database, exporter: Exporter | None, clock: Clock) -> None:
        self._database = database
        self._exporter = exporter
        self._clock = clock

    async def run(self, payload: dict[str, Any]) -> None:
        """Job `export_simulation`: `{exportId, sessionId}`. Sent once, it is not sent again. Raises
        ProviderError; a retryable one leaves the export pending."""
        export_id, session_id = str(payload["exportId"]), str(payload["sessionId"])
        async with self._database.read() as conn:
            export = await simulation_scores.export(conn, export_id)
        if export is None or export.status == SENT:
            return
        try:
            await self._send(export_id, session_id)
        except CoachError as error:
            await self._note(export_id, PENDING if error.retryable else FAILED, error.code)
            raise
        await self._note(export_id, SENT, None)
        logger.bind(session=session_id, export=export_id).info("Session exported")

    async def given_up(self, payload: dict[str, Any]) -> None:
        """The job was tried too often."""
        async with self._database.read() as conn:
            export = await simulation_scores.export(conn, str(payload["exportId"]))
        if export is not None and export.status == PENDING:
            await self._note(export.id, FAILED, export.error_code or GIVEN_UP, tried=False)

    async def _send(self, export_id: str, session_id: str) -> None:
        if self._exporter is None:
            raise ProviderError("No export is configured.")
        try:
            record = await load_record(self._database, session_id)
        except NotFound:
            raise ProviderError("The session is gone.") from None
        body = await asyncio.to_thread(export_body, export_id, record)
        await self._exporter.send(Parcel(export_id, session_id, body))

    async def _note(self, export_id: str, status: str, error_code: str | None, *, tried: bool = True) -> None:
        sent_at = self._clock.now() if status == SENT else None
        async with self._database.transaction() as conn:
            await simulation_scores.set_export(
                conn, export_id, status=status, error_code=error_code, sent_at=sent_at, tried=tried
            )


def export_body(export_id: str, record: SessionRecord) -> bytes:
    """What the three data files hold, as one document."""
    document = {
        "exportId": export_id,
        "session": session_document(record),
        "events": event_documents(record),
        "transcript": transcript_documents(record),
    }
    return json_bytes(document)
