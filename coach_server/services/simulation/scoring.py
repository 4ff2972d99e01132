"""The job after a simulation: score it by the rules, let a model judge, write what follows.

A second run finds the same: the score of a session is one row, its files are made anew, and what the model
said of the same talk before is taken from the database instead of asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loguru import logger

from coach_server.clock import Clock
from coach_server.domain.simulation.blending import SimJudgement
from coach_server.domain.simulation.remarks import score_simulation
from coach_server.domain.simulation.scorecard import SimScoreCard, TalkRecord
from coach_server.domain.simulation.talk import Outcome
from coach_server.errors import CoachError, NotFound
from coach_server.services.costs import CostGovernor
from coach_server.services.simulation.assess import SimulationAssessor
from coach_server.services.simulation.casting import Casting
from coach_server.services.simulation.datafiles import DataFiles, SessionRecord, load_record
from coach_server.services.simulation.live import Cast, LiveSimulation
from coach_server.services.simulation.score_document import simulation_score_document
from coach_server.services.simulation.sessions import order_score
from coach_server.storage import simulation_scores, simulations
from coach_server.storage.database import Database
from coach_server.storage.simulation_scores import Score
from coach_server.storage.simulations import Simulation

# A provisional score is looked at again so often, the first time after so long, then after twice as long.
MOST_AGAIN = 3
AGAIN_AFTER_S = 600.0

Announce = Callable[[str, Mapping[str, Any]], Awaitable[None]]


class KnownSimJudgements:
    """A SimJudgementCache out of the trainee's own scores. `key` is the one that was asked for last."""

    def __init__(self, database: Database, row: Simulation) -> None:
        self._database = database
        self._row = row
        self.key = ""

    async def get(self, key: str) -> SimJudgement | None:
        self.key = key
        async with self._database.read() as conn:
            kept = await simulation_scores.judgement_of(conn, self._row.principal, self._row.trainee_id, key)
        return None if kept is None else SimJudgement.from_dict(kept)

    async def put(self, key: str, judgement: SimJudgement) -> None:
        """It is kept with the score that it is a part of."""
        self.key = key


@dataclass(frozen=True, slots=True)
class _Scored:
    card: SimScoreCard
    judgement: SimJudgement | None
    document: dict[str, Any]
    content_hash: str
    provisional: bool


class SimulationScoring:
    """`announce` tells a session's client."""

    def __init__(
        self,
        *,
        database: Database,
        assessor: SimulationAssessor,
        governor: CostGovernor,
        files: DataFiles,
        casting: Casting,
        announce: Announce,
        clock: Clock,
    ) -> None:
        self._database = database
        self._assessor = assessor
        self._governor = governor
        self._files = files
        self._casting = casting
        self._announce = announce
        self._clock = clock

    async def run(self, payload: dict[str, Any]) -> None:
        """Job `score_simulation`: `{sessionId, again}`. Harmless when run again. Raises ProviderError and
        StorageFailed when the files could not be written; the score is kept and told before."""
        session_id = str(payload["sessionId"])
        try:
            record = await load_record(self._database, session_id)
        except NotFound:
            return
        if record.row.status != "ended":
            return
        cast = await self._casting.of(record.row)
        talk = talk_of(record, cast)
        scored = await self._score(record.row, talk, cast, keep_words=True)
        await self._keep(record.row, scored, int(payload.get("again", 0)))
        log = logger.bind(session=session_id, provisional=scored.provisional)
        log.info("Simulation scored", exchanges=talk.exchanges)
        await self._announce(session_id, scored.document)
        await self._files.write(session_id)

    async def given_up(self, payload: dict[str, Any]) -> None:
        """The job was tried too often. Where only the files failed, the score stays."""
        session_id = str(payload["sessionId"])
        async with self._database.transaction() as conn:
            if await simulation_scores.load(conn, session_id) is None:
                await simulations.change(conn, session_id, analysis_status="failed")

    async def of_unstored(self, live: LiveSimulation) -> None:
        """A session that keeps no words, scored by the rules from memory at its end."""
        machine = live.machine
        talk = TalkRecord(
            utterances=tuple(live.utterances),
            events=tuple(live.events),
            initial=machine.initial,
            attitudes=tuple(mood.value for mood in machine.moods),
            outcome=machine.outcome,
            exchanges=machine.exchanges,
        )
        try:
            scored = await self._score(live.row, talk, live.cast, keep_words=False)
            await self._keep(live.row, scored, MOST_AGAIN)
        except CoachError as error:
            logger.bind(session=live.id, code=error.code).error("A session without words was not scored")
            return
        live.scored(scored.document)

    async def _score(self, row: Simulation, talk: TalkRecord, cast: Cast, *, keep_words: bool) -> _Scored:
        persona, domain, language = cast.persona, cast.domain, row.language
        card = await asyncio.to_thread(score_simulation, talk, persona, domain, language)
        known = KnownSimJudgements(self._database, row)
        judgement = None
        if keep_words and not card.insufficient:
            meter = self._governor.meter()
            judgement = await self._assessor.assess(card, talk, persona, domain, language, meter, cache=known)
        wanted = self._assessor.configured and keep_words and not card.insufficient
        provisional = wanted and judgement is None
        document = await asyncio.to_thread(
            simulation_score_document,
            card,
            judgement,
            talk,
            persona,
            domain,
            language,
            provisional=provisional,
            keep_words=keep_words,
        )
        return _Scored(card, judgement, document, known.key or card.facts_hash, provisional)

    async def _keep(self, row: Simulation, scored: _Scored, again: int) -> None:
        now, document = self._clock.now(), scored.document
        kept = Score(
            session_id=row.id,
            overall_score=document["overall"],
            categories=document["categories"],
            document=document,
            content_hash=scored.content_hash,
            judgement=scored.judgement.to_dict() if scored.judgement is not None else None,
            provisional=scored.provisional,
            created_at=now,
        )
        async with self._database.transaction() as conn:
            if await simulations.load(conn, row.id, to_change=True) is None:
                return  # erased meanwhile
            await simulation_scores.keep(conn, kept)
            if scored.provisional and again < MOST_AGAIN:
                await order_score(conn, row.id, now, again=again + 1, after_s=AGAIN_AFTER_S * 2**again)


def talk_of(record: SessionRecord, cast: Cast) -> TalkRecord:
    """The stored session as scoring looks at it; the first mood is the one it began with."""
    moods = [mood.value for mood in record.moods]
    return TalkRecord(
        utterances=record.utterances,
        events=record.events,
        initial=moods[0] if moods else cast.persona.initial_attitude,
        attitudes=tuple(moods[1:]),
        outcome=Outcome(record.row.outcome) if record.row.outcome else None,
        exchanges=record.row.exchanges,
    )
