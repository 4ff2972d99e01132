"""The job after a call: read what was kept, analyse it, let the model reword it, keep the document once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from loguru import logger

from coach_server.clock import Clock
from coach_server.domain.tip import Stage
from coach_server.errors import ProviderError
from coach_server.providers.llm import LLM
from coach_server.services import analysis
from coach_server.services.analysis import CallRecord, Eyes
from coach_server.services.answers import llm_call
from coach_server.services.costs import CostGovernor
from coach_server.services.prompts import Prompts
from coach_server.storage import analyses, conversations, tips, transcripts
from coach_server.storage.conversations import StoredConversation
from coach_server.storage.database import Database
from coach_server.storage.tips import TipOutcome

ANALYSIS_DEADLINE_S = 20.0
ROLE = "analysis"

Announce = Callable[[str, str, dict[str, Any]], Awaitable[None]]


class CallAnalysis:
    """`llm` None: no model is configured, and the offline document is the final one."""

    def __init__(
        self,
        *,
        database: Database,
        eyes: Eyes,
        clock: Clock,
        prompts: Prompts,
        llm: LLM | None,
        governor: CostGovernor,
        announce: Announce,
    ) -> None:
        self._database = database
        self._eyes = eyes
        self._clock = clock
        self._prompts = prompts
        self._llm = llm
        self._governor = governor
        self._announce = announce

    async def run(self, payload: dict[str, Any]) -> None:
        """Job `analyse_call`: `{conversationId}`. Harmless when run again."""
        call_id = str(payload["conversationId"])
        record = await self._record(call_id)
        if record is None:
            return
        document = await asyncio.to_thread(analysis.analyse, record, self._eyes)
        if self._llm is not None:
            document = await analysis.polish(document, record, self._ask)
        async with self._database.transaction() as conn:
            first = await analyses.save(conn, call_id, document, analysis.VERSION, self._clock.now())
            await tips.outcomes_insert(conn, _ledger(call_id, document))
        if first:
            await self._announce(call_id, "ANALYSIS_READY", at_a_glance(document))

    async def of_unstored(self, record: CallRecord) -> None:
        """A call that keeps no text is analysed from memory at its end; the document has no quotes."""
        document = await asyncio.to_thread(analysis.analyse, replace(record, store_text=False), self._eyes)
        async with self._database.transaction() as conn:
            await analyses.save(conn, record.conversation_id, document, analysis.VERSION, self._clock.now())
        await self._announce(record.conversation_id, "ANALYSIS_READY", at_a_glance(document))

    async def given_up(self, payload: dict[str, Any]) -> None:
        """The job was tried too often."""
        async with self._database.transaction() as conn:
            await conversations.fail_analysis(conn, str(payload["conversationId"]))

    async def _record(self, call_id: str) -> CallRecord | None:
        async with self._database.read() as conn:
            stored = await conversations.load(conn, call_id)
            if stored is None:
                return None
            said = await transcripts.all(conn, call_id)
            shown = await tips.of(conn, call_id)
        machine = stored.state.get("machine") or {}
        return CallRecord(
            conversation_id=call_id,
            language=stored.language,
            started_at=stored.started_at,
            ended_at=stored.ended_at or stored.last_seen_at,
            status=stored.status,
            utterances=tuple(said),
            tips=tuple(shown),
            last_stage=_stage(stored, machine),
            facts={str(key): str(value) for key, value in (machine.get("facts") or {}).items()},
            store_text=stored.store_transcript,
        )

    async def _ask(self, name: str, language: str, **variables: str) -> str | None:
        meter = self._governor.meter()
        model = meter.model_for(ROLE)
        if self._llm is None or model is None:
            return None
        named = self._prompts.language(language).name
        rendered = self._prompts.render(name, language, language=named, **variables)
        call = llm_call(rendered, rendered.settings.model or model, ANALYSIS_DEADLINE_S)
        try:
            completion = await self._llm.complete(call)
        except ProviderError as error:
            logger.bind(code=error.code).warning("The model could not reword a call's summary")
            return None
        meter.add(completion.usage)
        return completion.text


def at_a_glance(document: dict[str, Any]) -> dict[str, Any]:
    """What ANALYSIS_READY carries; the whole document is fetched over REST."""
    keys = ("summary", "stage", "insufficient", "provisional", "source", "nextStep", "conduct")
    return {key: document[key] for key in keys if key in document}


def _stage(stored: StoredConversation, machine: dict[str, Any]) -> Stage:
    try:
        return Stage(machine.get("stage", Stage.GREETING.value))
    except ValueError:
        return Stage.GREETING


def _ledger(call_id: str, document: dict[str, Any]) -> list[TipOutcome]:
    """The tip outcome ledger (product.md #4) as rows."""
    return [
        TipOutcome(
            recommendation_id=entry["recommendationId"],
            conversation_id=call_id,
            taken=entry.get("fate") == "taken",
            line_id=entry.get("lineId"),
            technique_id=entry.get("techniqueId"),
            similarity=entry.get("similarity"),
            reaction=entry.get("reaction"),
            stage_before=entry.get("stageBefore"),
            stage_after=entry.get("stageAfter"),
        )
        for entry in document.get("tips", {}).get("ledger", ())
    ]
