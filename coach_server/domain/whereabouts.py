"""Where a talk is by the method: in which phase, and whether the customer said yes to a summary.

    the seller uses a technique of a later phase      the talk goes there, right or too early
    the customer says yes to a commitment             the talk goes to the phase that waits for it
    one phase on, the seller explores or probes again the talk goes back to that phase

Other techniques of earlier phases (listening, asking back) are used everywhere and move nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from coach_server.domain.methodology import Methodology
from coach_server.domain.turns import Quality, TechniqueUse, Turn, best


def after_uses(method: Methodology, phase: int, uses: Sequence[TechniqueUse]) -> int:
    """The phase after a turn of the seller that began in `phase`."""
    used = [found for use in uses if (found := method.find(use.id)) is not None]
    further = [technique.phase for technique in used if technique.phase > phase]
    if further:
        return max(further)
    previous = [one.id for one in method.flow if one.id < phase]
    back = [one.phase for one in used if one.epic is not None and previous and one.phase == previous[-1]]
    return back[0] if len(back) == len(used) and back else phase


def after_yes(method: Methodology, phase: int) -> int:
    """The phase after the customer's yes to a commitment."""
    return max(phase, method.commitment_before or phase)


def is_commitment(method: Methodology, turn: Turn, before: Sequence[Turn]) -> bool:
    """Whether this turn of the customer is a yes to a summary: what opens the recommendation (contract
    §5)."""
    if turn.is_seller or not turn.is_yes or not before or not before[-1].is_seller:
        return False
    wanted = {technique.id for id in method.commitment if (technique := method.find(id)) is not None}
    used = best([use for use in before[-1].uses if use.id in wanted])
    return used is not None and used.quality is not Quality.GEMIST
