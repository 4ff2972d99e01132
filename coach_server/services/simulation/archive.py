"""Simulations to read: lists, one with everything in it, and figures of many. One place for each figure."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from typing import Any

from coach_server.domain.simulation.attitude import shown
from coach_server.services.access import Principal
from coach_server.services.practice.messages import iso
from coach_server.services.simulation.access import ID, may_see, unknown, visible
from coach_server.storage import simulation_scores, simulations
from coach_server.storage.database import Database
from coach_server.storage.simulations import Listed, Simulation, Stats, Wanted

CSV_ROWS = 10_000
# What a spreadsheet would take for a formula (trust.md G18).
_ACTIVE = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to. Times are seconds since the epoch."""

    trainee: str | None = None
    persona: str | None = None
    scenario: str | None = None
    outcome: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Counted from 1."""

    number: int = 1
    size: int = 50
    sort: str = "date"
    descending: bool = True


class SimulationArchive:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def listing(self, principal: Principal, filters: Filters, page: Page) -> dict[str, Any]:
        wanted = _narrowed(visible(principal), filters)
        async with self._database.read() as conn:
            rows, total = await simulations.listing(
                conn,
                wanted,
                limit=page.size,
                offset=(page.number - 1) * page.size,
                sort=page.sort,
                descending=page.descending,
            )
        return {
            "sessions": [listed(row) for row in rows],
            "total": total,
            "page": page.number,
            "pageSize": page.size,
            "pages": max(1, -(-total // page.size)),
        }

    async def stats(self, principal: Principal, filters: Filters) -> dict[str, Any]:
        async with self._database.read() as conn:
            return figures(await simulations.stats(conn, _narrowed(visible(principal), filters)))

    async def choices(self, principal: Principal) -> dict[str, Any]:
        """What a viewer can filter by."""
        async with self._database.read() as conn:
            trainees, personas = await simulations.choices(conn, visible(principal))
        return {"trainees": trainees, "personas": [{"id": id, "name": name} for id, name in personas]}

    async def own(self, principal: Principal, session_id: str) -> Simulation:
        """Raises NotFound."""
        if not ID.fullmatch(session_id):
            raise unknown()
        async with self._database.read() as conn:
            found = await simulations.load(conn, session_id)
        if found is None or not may_see(principal, found):
            raise unknown()
        return found

    async def session(self, principal: Principal, session_id: str) -> dict[str, Any]:
        """Everything of one session, in the shape of seed 001's collection `sessions`. Raises NotFound."""
        return await self._told(await self.own(principal, session_id))

    async def whole(self, session_id: str) -> dict[str, Any] | None:
        """The same for whoever may see everything; None when there is none. Raises Unreadable."""
        async with self._database.read() as conn:
            found = await simulations.load(conn, session_id)
        return None if found is None else await self._told(found)

    async def _told(self, found: Simulation) -> dict[str, Any]:
        session_id = found.id
        async with self._database.read() as conn:
            said = await simulations.utterances(conn, session_id)
            events = await simulations.events(conn, session_id)
            logs = await simulations.logs(conn, session_id)
            moods = await simulations.moods(conn, session_id)
            score = await simulation_scores.load(conn, session_id)
            exports = await simulation_scores.exports_of(conn, session_id)
        return {
            **detailed(found),
            "transcript": [
                {"startTime": one.start, "endTime": one.end, "speaker": one.role.value, "text": one.text}
                for one in said
            ],
            "events": [{"time": one.time, "type": one.type.value, "data": one.data} for one in events],
            "moodHistory": [shown(mood.value) for mood in moods],
            "attitude": [
                {"time": mood.time, "value": mood.value, "direction": mood.direction.value} for mood in moods
            ],
            "supervisorLogs": logs,
            "score": score.document if score is not None else None,
            "exports": [
                {
                    "exportId": one.id,
                    "status": one.status,
                    "attempts": one.attempts,
                    "createdAt": iso(one.created_at),
                    "sentAt": iso(one.sent_at),
                    "errorCode": one.error_code,
                }
                for one in exports
            ],
        }

    async def csv(self, principal: Principal, filters: Filters) -> str:
        """The list as a spreadsheet reads it; a cell that would be a formula is quoted."""
        wanted = _narrowed(visible(principal), filters)
        async with self._database.read() as conn:
            rows, _ = await simulations.listing(
                conn, wanted, limit=CSV_ROWS, offset=0, sort="date", descending=True
            )
        told = [listed(row) for row in rows]
        out = io.StringIO()
        names = list(_EMPTY) if not told else list(told[0])
        writer = csv.writer(out)
        writer.writerow(names)
        for row in told:
            writer.writerow([_cell(row[name]) for name in names])
        return out.getvalue()


def _narrowed(wanted: Wanted, filters: Filters) -> Wanted:
    return replace(
        wanted,
        trainee=filters.trainee,
        persona=filters.persona,
        scenario=filters.scenario,
        outcome=filters.outcome,
        status=filters.status,
        since=filters.since,
        until=filters.until,
    )


def listed(row: Listed | Simulation) -> dict[str, Any]:
    return {
        "sessionId": row.id,
        "traineeId": row.trainee_id,
        "teamId": row.team_id,
        "scenarioId": row.scenario_id,
        "personaId": row.persona_id,
        "personaName": row.persona_name,
        "language": row.language,
        "status": row.status,
        "outcome": row.outcome,
        "score": row.overall_score,
        "finalAttitude": row.final_attitude,
        "createdAt": iso(row.created_at),
        "sessionStartUtc": iso(row.started_at),
        "sessionEndUtc": iso(row.ended_at),
        "durationMs": row.duration_ms,
    }


def detailed(row: Simulation) -> dict[str, Any]:
    told = listed(row)
    told.pop("score")
    return {
        **told,
        "endTrigger": row.end_trigger,
        "exchanges": row.exchanges,
        "client": row.client,
        "metadata": row.metadata,
        "storeTranscript": row.store_transcript,
        "analysisStatus": row.analysis_status,
        "dataFilesWritten": row.data_files_written,
    }


def figures(found: Stats) -> dict[str, Any]:
    """`conversionRate`: of the sessions that ended, 0..1; null while none did."""
    return {
        "totalSessions": found.total,
        "endedSessions": found.ended,
        "scoredSessions": found.scored,
        "averageScore": None if found.average is None else round(found.average, 1),
        "conversions": found.conversions,
        "conversionRate": round(found.conversions / found.ended, 4) if found.ended else None,
        "totalDurationMs": found.duration_ms,
        "outcomes": found.outcomes,
    }


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_ACTIVE) else text


_EMPTY = (
    "sessionId",
    "traineeId",
    "teamId",
    "scenarioId",
    "personaId",
    "personaName",
    "language",
    "status",
    "outcome",
    "score",
    "finalAttitude",
    "createdAt",
    "sessionStartUtc",
    "sessionEndUtc",
    "durationMs",
)
