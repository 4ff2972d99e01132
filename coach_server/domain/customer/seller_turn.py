"""What the seller's turn amounts to for the customer who hears it: by the techniques found in it, and by cues
where none was found. No technique is known by its number; the method says what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coach_server.domain.customer.phrasebook import Heard
from coach_server.domain.method.methodology import Epic, Methodology
from coach_server.domain.method.turns import Quality, TechniqueUse, best

GOOD = (Quality.PERFECT, Quality.GOED)


@dataclass(frozen=True, slots=True)
class SellerTurn:
    method: Methodology
    phase: int
    uses: Sequence[TechniqueUse]
    heard: Heard

    def does(self, move: str) -> bool:
        return move in self.heard.moves

    def uses_epic(self, epic: Epic) -> bool:
        return any(self.method.epic_of(use.id) is epic for use in self.uses)

    def sums_up(self) -> bool:
        return self.uses_epic(Epic.COMMIT) or self._uses(self.method.commitment) or self.does("summary")

    def offers(self) -> bool:
        found = (self.method.find(use.id) for use in self.uses)
        if any(t is not None and t.phase == self.method.commitment_before for t in found):
            return True
        return self.does("offer") and not self.does("agenda")

    def closes(self) -> bool:
        triggers = [name for attitude in self.method.attitudes for name in attitude.needs]
        return self._uses(triggers) or (self.does("close") and self.phase > self.first_phase)

    @property
    def quality(self) -> Quality | None:
        top = best(self.uses)
        return top.quality if top else None

    def against(self, attitude: str) -> Quality | None:
        """How well it meets an attitude: techniques made for it count fully, others as nearly at most."""
        made_for = [use for use in self.uses if self.method.meets(use.id, attitude, self.phase)]
        if (top := best(made_for)) is not None:
            return top.quality
        listens = self.quality is None and self.does("heard") and self.heard.asks
        return Quality.BIJNA if listens or self.quality in GOOD else self.quality

    @property
    def first_phase(self) -> int:
        return min(phase.id for phase in self.method.flow or self.method.phases)

    @property
    def recommends(self) -> bool:
        """It is said in a phase that asks for a commitment first."""
        return self.phase >= (self.method.commitment_before or self.first_phase)

    def _uses(self, ids: Sequence[str]) -> bool:
        wanted = {found.id for name in ids if (found := self.method.find(name)) is not None}
        return any((t := self.method.find(use.id)) is not None and t.id in wanted for use in self.uses)
