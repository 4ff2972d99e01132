"""The customer's line for a talk: the realtime model where there is one and money for it, else the built-in
customer; with everything that was said before, so that a talk goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coach_server.domain.simulation.compliance import check_states
from coach_server.domain.simulation.ending import END_REASONS
from coach_server.domain.simulation.offline import Cast as OfflineCast
from coach_server.providers.realtime import Connection, RealtimeModel, RealtimeSpec
from coach_server.providers.tts import Tts
from coach_server.services.costs import Spending
from coach_server.services.simulation.live import Cast, LiveSimulation, scene_of
from coach_server.services.simulation.offline_model import OfflineModel, Standing

PRIOR_MESSAGES = 60


class Lines:
    """`models`: the realtime models of this server in order of preference; `chain` tries them one after
    another; `offline`: whether the built-in customer may stand in; `tts` gives him a voice."""

    def __init__(
        self,
        models: Sequence[RealtimeModel],
        chain: Callable[[Sequence[RealtimeModel]], RealtimeModel],
        instructions: Callable[[Cast, str], str],
        *,
        offline: bool,
        vad: str = "server",
        tts: Tts | None = None,
    ) -> None:
        self._models = tuple(models)
        self._chain = chain
        self._instructions = instructions
        self._offline = offline
        self._vad = vad
        self._tts = tts

    async def connect(self, live: LiveSimulation) -> Connection:
        """Raises ProviderError when nobody answers."""
        cast = live.cast
        may_pay = live.meter.spending is not Spending.NONE
        paid = self._models if may_pay else ()
        built_in = (_offline(live, self._tts if may_pay else None),) if self._offline or not paid else ()
        spec = RealtimeSpec(
            instructions=self._instructions(cast, live.language) if paid else "",
            voice=cast.persona.voice,
            language=live.language,
            session_id=live.id,
            reasons=END_REASONS,
            vad=self._vad,
            prior=tuple((one.role, one.text) for one in live.utterances[-PRIOR_MESSAGES:]),
        )
        return await self._chain((*paid, *built_in)).connect(spec)


def _offline(live: LiveSimulation, tts: Tts | None) -> OfflineModel:
    cast = OfflineCast(live.cast.persona, live.cast.scenario, live.cast.domain, live.language)
    return OfflineModel(cast, lambda: _standing(live), tts)


def _standing(live: LiveSimulation) -> Standing:
    machine = live.machine
    return Standing(
        attitude=machine.attitude,
        phase=machine.phase,
        checks={state.rule.id: state.made for state in check_states(scene_of(live))},
        ending=machine.outcome if machine.is_ending else None,
        said=tuple(live.utterances),
    )
