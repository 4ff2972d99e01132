"""The job after a practice session: score it by the method, let a model judge, keep what follows.

Everything that follows from an analysis is written in one transaction, and a second run finds it done: one
feedback a session, drills by number, progress worked out anew. What the model said is kept beside the score,
so that the same talk by the same method, prompt and model keeps its score.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from loguru import logger
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.clock import Clock
from coach_server.domain.method.methodology import Methodology, SubScore
from coach_server.domain.method.turns import Quality, Turn, best, seller_turns
from coach_server.domain.practice.blending import ModelJudgement
from coach_server.domain.practice.drills import DrillSpec, drills_of, is_better
from coach_server.domain.practice.scorecard import ScoreCard
from coach_server.errors import RateLimited
from coach_server.services.costs import CostGovernor, Meter
from coach_server.services.limits import Limits
from coach_server.services.practice.assessment import Assessor
from coach_server.services.practice.feedback import PreviousScores, TalkFrame, feedback_document, score_talk
from coach_server.services.practice.feedback_mail import MAIL_FEEDBACK
from coach_server.services.practice.memory import turns_of
from coach_server.services.practice.messages import Teller, spec_of
from coach_server.services.practice.progress import Practice
from coach_server.services.practice.store import RoleplayStore, order_analysis
from coach_server.storage import jobs, practice, roleplays
from coach_server.storage.practice import Drill, Feedback
from coach_server.storage.roleplays import Session, StepRow

# A provisional score is looked at again so often, the first time after so long, then after twice as long.
MOST_AGAIN = 3
AGAIN_AFTER_S = 600.0
UNKEPT = "…"


@dataclass(frozen=True, slots=True)
class Scored:
    """A session and what was made of it. `judgement` None: rules alone."""

    session: Session
    method: Methodology
    turns: Sequence[Turn]
    card: ScoreCard
    judgement: ModelJudgement | None
    content_hash: str
    provisional: bool
    document: dict[str, Any]
    steps: Sequence[StepRow]


class KnownJudgements:
    """An AssessmentCache out of the user's own feedbacks. `key` is the one that was asked for last."""

    def __init__(self, store: RoleplayStore, session: Session) -> None:
        self._store = store
        self._session = session
        self.key = ""

    async def get(self, key: str) -> ModelJudgement | None:
        self.key = key
        async with self._store.database.read() as conn:
            kept = await practice.judgement_of(conn, self._session.principal, self._session.user_id, key)
        return None if kept is None else ModelJudgement.from_dict(kept)

    async def put(self, key: str, judgement: ModelJudgement) -> None:
        """It is kept with the feedback that it is a part of."""
        self.key = key


class RoleplayAnalysis:
    def __init__(
        self,
        *,
        store: RoleplayStore,
        assessor: Assessor,
        practised: Practice,
        limits: Limits,
        governor: CostGovernor,
        teller: Teller,
        clock: Clock,
    ) -> None:
        self._store = store
        self._assessor = assessor
        self._practised = practised
        self._limits = limits
        self._governor = governor
        self._teller = teller
        self._clock = clock

    async def run(self, payload: dict[str, Any]) -> None:
        """Job `analyse_roleplay`: `{sessionId, again}`. Harmless when run again."""
        began = self._clock.now()
        meter = self._governor.meter()
        scored = await self._score(str(payload["sessionId"]), meter)
        if scored is None:
            return
        first = await self._keep(scored, meter, began, int(payload.get("again", 0)))
        await self._practised.forget(scored.session.principal, scored.session.user_id)
        session_id, overall = scored.session.id, scored.document["overallScore"]
        log = logger.bind(session=session_id, provisional=scored.provisional)
        log.info("Practice analysed", turns=len(scored.turns), first=first)
        await self._teller.feedback_ready(session_id, overall)

    async def given_up(self, payload: dict[str, Any]) -> None:
        """The job was tried too often."""
        async with self._store.database.transaction() as conn:
            await roleplays.change(conn, str(payload["sessionId"]), analysis_status="failed")

    async def _score(self, session_id: str, meter: Meter) -> Scored | None:
        async with self._store.database.read() as conn:
            session = await roleplays.load(conn, session_id)
            if session is None or not session.is_over:
                return None
            turns = _spoken(turns_of(await roleplays.all_messages(conn, session_id)))
            steps = await roleplays.steps(conn, session_id)
            previous = await practice.previous_scores(conn, session)
        method = self._store.method(session)
        card = await asyncio.to_thread(
            score_talk,
            turns,
            method,
            language=session.language,
            started_at=session.started_at,
            manual=[step.step_id for step in steps if step.manual],
        )
        known = KnownJudgements(self._store, session)
        judgement = await self._judge(session, card, turns, method, known, meter)
        wanted = self._assessor.configured and session.store_transcript and not card.insufficient
        provisional = wanted and judgement is None
        document = await asyncio.to_thread(
            feedback_document,
            card,
            turns,
            method,
            language=session.language,
            session=TalkFrame(session.id, session.started_at, session.completed_at, session.status),
            source="openai" if judgement is not None else "offline",
            provisional=provisional,
            model=judgement,
            keep_words=session.store_transcript,
            previous=_previous(previous),
        )
        return Scored(
            session,
            method,
            turns,
            card,
            judgement,
            known.key or card.facts_hash,
            provisional,
            document,
            steps,
        )

    async def _judge(
        self,
        session: Session,
        card: ScoreCard,
        turns: Sequence[Turn],
        method: Methodology,
        known: KnownJudgements,
        meter: Meter,
    ) -> ModelJudgement | None:
        """Over the hourly limit (seed 000: 50 an hour) the rules judge alone, and the model when there is
        room again. A session that keeps no words has none to judge."""
        if not self._assessor.configured or not session.store_transcript or card.insufficient:
            return None
        try:
            await self._limits.check("analysis", f"{session.principal}/{session.user_id}")
        except RateLimited:
            logger.bind(session=session.id).warning("The hour's analyses are used up: rules judge alone")
            return None
        return await self._assessor.assess(
            card,
            turns,
            method,
            session.language,
            meter,
            started_at=session.started_at,
            cache=known,
        )

    # --- keeping

    async def _keep(self, scored: Scored, meter: Meter, began: float, again: int) -> bool:
        session, now = scored.session, self._clock.now()
        async with self._store.database.transaction() as conn:
            if await roleplays.load(conn, session.id, to_change=True) is None:
                return False  # erased meanwhile
            first = await practice.keep_feedback(conn, self._row(scored, meter, began, now))
            await roleplays.save_steps(conn, _scored_steps(scored, now))
            await self._keep_drills(conn, scored, now)
            await self._practised.keep(conn, session.principal, session.user_id, scored.method)
            if scored.provisional and again < MOST_AGAIN:
                await order_analysis(conn, session.id, now, again=again + 1, after_s=AGAIN_AFTER_S * 2**again)
            if first and session.kind == "practice":
                key = f"{MAIL_FEEDBACK}:{session.id}"
                await jobs.enqueue(conn, MAIL_FEEDBACK, key, {"sessionId": session.id}, now)
        return first

    def _row(self, scored: Scored, meter: Meter, began: float, now: float) -> Feedback:
        document, judgement = scored.document, scored.judgement
        without = dict.fromkeys(document["notApplicable"])
        kept = {k: v for k, v in document.items() if k != "sessionId"}
        spent = meter.spent
        return Feedback(
            session_id=scored.session.id,
            overall_score=document["overallScore"],
            sub_scores={**document["subScores"], **without},
            techniques_used=document["techniquesUsed"],
            technique_scores={**document["techniqueScores"], **document["details"]},
            next_step_suggestion=document["nextStepSuggestion"],
            delta=document["delta"],
            document=kept,
            method=scored.method.stamp,
            content_hash=scored.content_hash,
            judgement=judgement.to_dict() if judgement else None,
            provisional=scored.provisional,
            openai_model=judgement.model if judgement else None,
            openai_tokens_used=spent.input_tokens + spent.output_tokens,
            analysis_duration_ms=max(0, round((now - began) * 1000)),
            created_at=now,
        )

    async def _keep_drills(self, conn: AsyncConnection, scored: Scored, now: float) -> None:
        session = scored.session
        if session.kind == "drill":
            await _judge_drill(conn, scored, now)
        elif session.store_transcript:
            specs = drills_of(scored.card, scored.turns, scored.method, session.language)
            await practice.keep_drills(
                conn,
                drill_rows(
                    specs,
                    principal=session.principal,
                    user_id=session.user_id,
                    source=("roleplay", session.id),
                    method=scored.method,
                    language=session.language,
                    scenario_id=session.scenario_id,
                    now=now,
                ),
            )


def drill_rows(
    specs: Sequence[DrillSpec],
    *,
    principal: str,
    user_id: str,
    source: tuple[str, str],
    method: Methodology,
    language: str,
    scenario_id: str,
    now: float,
) -> list[Drill]:
    return [
        Drill(
            id=str(uuid.uuid4()),
            principal=principal,
            user_id=user_id,
            source_kind=source[0],
            source_id=source[1],
            number=number,
            methodology=method.id,
            moment=spec.moment,
            technique_id=spec.technique,
            language=language,
            document={**asdict(spec), "scenario": scenario_id},
            created_at=now,
        )
        for number, spec in enumerate(specs, 1)
    ]


async def _judge_drill(conn: AsyncConnection, scored: Scored, now: float) -> None:
    """A better answer closes the drill."""
    drill = await practice.drill(conn, scored.session.drill_id or "")
    if drill is None:
        return
    uses = [use for turn in seller_turns(scored.turns) for use in turn.uses]
    before = Quality(drill.best_quality) if drill.best_quality else None
    found = best([use for use in uses if scored.method.find(use.id) is not None])
    closed = is_better(None, uses, spec_of(drill), scored.method)
    reached = max((q for q in (before, found.quality if found else None) if q), key=_rank, default=None)
    await practice.judge_drill(
        conn, drill.id, best_quality=reached.value if reached else None, closed_at=now if closed else None
    )


def _rank(quality: Quality) -> int:
    return -list(Quality).index(quality)


def _scored_steps(scored: Scored, now: float) -> list[StepRow]:
    """The steps of the session with their scores; also those only the analysis saw."""
    known = {step.step_id: step for step in scored.steps}
    scores: dict[str, int] = scored.document["techniqueScores"]
    rows = []
    for step_id, score in scores.items():
        technique = scored.method.find(step_id)
        if technique is None or not technique.is_step:
            continue
        row = known.get(step_id) or StepRow(
            scored.session.id, step_id, technique.phase, "upcoming", manual=False, created_at=now
        )
        rows.append(replace(row, technique_score=score, technique_used=True))
    return rows


def _spoken(turns: Sequence[Turn]) -> list[Turn]:
    """Turns whose words were not kept count as said: what was read in them is there."""
    return [turn if turn.text else replace(turn, text=UNKEPT) for turn in turns]


def _previous(found: practice.Feedback | None) -> PreviousScores | None:
    if found is None:
        return None
    subs = {SubScore(name): score for name, score in found.sub_scores.items()}
    return PreviousScores(found.overall_score, subs)
