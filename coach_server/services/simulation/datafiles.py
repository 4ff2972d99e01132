"""A session's data files, as seed 001 writes them: `session.json`, and `events.json` and `transcript.json`
with one object a line (NDJSON in spite of the name). They are made from the database and can be made again at
any time."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coach_server.domain.simulation.attitude import shown
from coach_server.domain.simulation.scorecard import Category
from coach_server.domain.simulation.talk import Mood, SessionEvent, Utterance
from coach_server.providers.files import FileStore
from coach_server.services.simulation.access import ID, unknown
from coach_server.storage import simulation_scores, simulations
from coach_server.storage.database import Database
from coach_server.storage.simulations import Simulation

SESSION, EVENTS, TRANSCRIPT = "session.json", "events.json", "transcript.json"
NAMES = (SESSION, EVENTS, TRANSCRIPT)
# Ends of lines for some readers, and legal inside JSON: each object must stay on its line.
_LINE_ENDS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\u0085": "\\u0085"})
# Databases keep the keys of an object in an order of their own; the files have the seed's.
_SCORE_KEYS = ("overall", "categories", "highlights", "improvements", "summary")
_CATEGORIES = tuple(category.value for category in Category)
_EVENT_KEYS = (
    *("interactedObject", "action", "question", "answer", "entered", "correct"),
    *("attitude", "direction", "guidance", "errorType", "word"),
)
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """Everything that is kept of a session. `score`: its document, None while it has none."""

    row: Simulation
    utterances: tuple[Utterance, ...]
    events: tuple[SessionEvent, ...]
    moods: tuple[Mood, ...]
    score: Mapping[str, Any] | None


async def load_record(database: Database, session_id: str) -> SessionRecord:
    """Raises NotFound, also for an id that is none; StorageFailed."""
    if not ID.fullmatch(session_id):
        raise unknown()
    async with database.read() as conn:
        row = await simulations.load(conn, session_id)
        if row is None:
            raise unknown()
        said = await simulations.utterances(conn, session_id)
        events = await simulations.events(conn, session_id)
        moods = await simulations.moods(conn, session_id)
        score = await simulation_scores.load(conn, session_id)
    return SessionRecord(
        row, tuple(said), tuple(events), tuple(moods), score.document if score is not None else None
    )


def session_document(record: SessionRecord) -> dict[str, Any]:
    """The seed's keys in the seed's order and no others. `score` carries our additions behind the seed's."""
    row = record.row
    return {
        "sessionId": row.id,
        "traineeId": row.trainee_id,
        "personaId": row.persona_id,
        "personaName": row.persona_name,
        "scenarioId": row.scenario_id,
        "sessionStartUtc": _utc(row.started_at),
        "sessionEndUtc": _utc(row.ended_at),
        "durationMs": row.duration_ms,
        "outcome": row.outcome,
        "finalAttitude": row.final_attitude,
        "moodHistory": [shown(mood.value) for mood in record.moods],
        "score": None if record.score is None else _score(record.score),
        "client": row.client,
        "metadata": dict(row.metadata),
    }


def event_documents(record: SessionRecord) -> list[dict[str, Any]]:
    """`time`: seconds with two decimals at most."""
    return [
        {"time": _seconds(event.time), "type": event.type.value, "data": _data(event.data)}
        for event in record.events
    ]


def transcript_documents(record: SessionRecord) -> list[dict[str, Any]]:
    return [
        {
            "startTime": _seconds(said.start),
            "endTime": _seconds(said.end),
            "speaker": said.role.value,
            "text": said.text,
        }
        for said in record.utterances
    ]


def session_json(record: SessionRecord) -> bytes:
    return json_bytes(session_document(record), indent=2) + b"\n"


def events_ndjson(record: SessionRecord) -> bytes:
    return _lines(event_documents(record))


def transcript_ndjson(record: SessionRecord) -> bytes:
    return _lines(transcript_documents(record))


def files_of(record: SessionRecord) -> dict[str, bytes]:
    """By name. Plain computing; a long session takes some milliseconds, so call it off the event loop."""
    return {
        SESSION: session_json(record),
        EVENTS: events_ndjson(record),
        TRANSCRIPT: transcript_ndjson(record),
    }


def zip_of(record: SessionRecord) -> bytes:
    """Fixed names, fixed dates: the same session gives the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files_of(record).items():
            entry = zipfile.ZipInfo(name, _ZIP_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return out.getvalue()


class DataFiles:
    def __init__(self, database: Database, store: FileStore) -> None:
        self._database = database
        self._store = store

    async def write(self, session_id: str) -> None:
        """Make the session's files from the database and write them, again where they are there. Raises
        NotFound, StorageFailed, ProviderError; then the files that were there are old or new, never half."""
        record = await load_record(self._database, session_id)
        made = await asyncio.to_thread(files_of, record)
        for name, data in made.items():
            await self._store.put(path_of(session_id, name), data)
        async with self._database.transaction() as conn:
            is_there = await simulations.change(conn, session_id, data_files_written=True)
        if not is_there:
            # Erased while they were written: nothing may be left of it.
            await self.delete(session_id)

    async def zip(self, session_id: str) -> bytes:
        """From the database, so it is right also when the files are not written yet. Raises NotFound,
        StorageFailed."""
        record = await load_record(self._database, session_id)
        return await asyncio.to_thread(zip_of, record)

    async def delete(self, session_id: str) -> None:
        """Raises NotFound for an id that is none, StorageFailed, ProviderError."""
        for name in NAMES:
            await self._store.delete(path_of(session_id, name))


def path_of(session_id: str, name: str) -> str:
    """The key in the file store. Raises NotFound for an id that is none."""
    if not ID.fullmatch(session_id):
        raise unknown()
    return f"sessions/{session_id}/{name}"


def _lines(documents: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json_bytes(one) + b"\n" for one in documents)


def json_bytes(document: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Written as the seed's examples are: a blank behind each colon and comma."""
    text = json.dumps(document, ensure_ascii=False, indent=indent).translate(_LINE_ENDS)
    # Half a surrogate pair, which JSON can carry and UTF-8 cannot, becomes a question mark.
    return text.encode("utf-8", "replace")


def _score(score: Mapping[str, Any]) -> dict[str, Any]:
    ordered = _ordered(score, _SCORE_KEYS)
    categories = ordered.get("categories")
    if isinstance(categories, Mapping):
        ordered["categories"] = _ordered(categories, _CATEGORIES)
    return ordered


def _data(data: Any) -> Any:
    return _ordered(data, _EVENT_KEYS) if isinstance(data, Mapping) else data


def _ordered(document: Mapping[str, Any], first: Iterable[str]) -> dict[str, Any]:
    known = {key: document[key] for key in first if key in document}
    return known | {key: value for key, value in document.items() if key not in known}


def _seconds(time: float) -> float:
    return round(float(time), 2)


def _utc(moment: float | None) -> str | None:
    """Whole seconds, as the seed writes them."""
    if moment is None:
        return None
    return datetime.fromtimestamp(int(moment), UTC).isoformat().replace("+00:00", "Z")
