"""How a simulated talk ends: outcomes, triggers, and when the customer has had enough (contract §5).

    outcome          when
    compliance_fail  a breach of the rules; at once, whatever else is true
    converted        the trainee has asked for the decision: at 6 or more, above the start, not falling;
                     unasked: at 8 or more in two evaluations in a row, or at 10
    walked_away      attitude 1 or less and below the start; or more than two below the start in two
                     evaluations in a row; never at the first evaluation
    rejected         from exchange 6 on below 4 and falling; from exchange 8 on below 4 and not rising
    none yet         before the second exchange, unless there is a breach

The trigger says who ended it: `supervisor:<outcome>`, `end_conversation:<outcome>`, `client`, `disconnect`,
`limit`. A talk that the client stopped or whose line dropped has no outcome: the customer decided nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coach_server.domain.simulation.talk import Direction, Outcome

CLIENT = "client"
DISCONNECT = "disconnect"
LIMIT = "limit"

CONVERT_AT = 6.0
SURE_AT = 8.0
ALTOGETHER = 10.0
LEAVE_AT = 1.0
FALLEN_BY = 2.0
COLD_BELOW = 4.0
HEADS_FOR_END = 6
GIVES_UP = 8
GIVES_UP_EARLIEST = 4
SCORED_FROM = 2
_REASONS = {"gave_up": Outcome.REJECTED, **{outcome.value: outcome for outcome in Outcome}}
# As the supervisor's model may give them: it tells giving up from being turned down.
END_REASONS = ("converted", "walked_away", "gave_up", "compliance_fail")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a talk stands after an evaluation. `before`: the attitudes of the evaluations before, oldest
    first, without the initial one; `closed`: the trainee asked for the decision."""

    attitude: float
    direction: Direction
    initial: float
    before: Sequence[float]
    exchanges: int
    closed: bool = False
    is_breach: bool = False


def outcome_of(reason: str) -> Outcome | None:
    """The outcome of a reason as a model says it; `gave_up` is `rejected`. None for one that is unknown."""
    return _REASONS.get(reason.strip().lower())


def known_reason(reason: str) -> str:
    """The reason if it is one of ours; a model may say anything."""
    wanted = reason.strip().lower()
    return wanted if wanted in _REASONS else "unknown"


def by_supervisor(outcome: Outcome) -> str:
    return f"supervisor:{outcome.value}"


def by_tool(outcome: Outcome) -> str:
    return f"end_conversation:{outcome.value}"


def is_scored(exchanges: int) -> bool:
    """Too short a talk says nothing about anybody."""
    return exchanges >= SCORED_FROM


def decide(standing: Standing) -> Outcome | None:
    """How the talk ends now by the rules, or None: it goes on."""
    if standing.is_breach:
        return Outcome.COMPLIANCE_FAIL
    if standing.exchanges < SCORED_FROM:
        return None
    if may_convert(standing) and (standing.closed or _is_sure(standing)):
        return Outcome.CONVERTED
    if _walks_away(standing):
        return Outcome.WALKED_AWAY
    return Outcome.REJECTED if _gives_up(standing) else None


def agreed(wanted: Outcome, standing: Standing) -> Outcome | None:
    """The outcome that a model wants, if the standing bears it; else None. Breaches are the rules' to see."""
    if standing.is_breach:
        return Outcome.COMPLIANCE_FAIL
    match wanted:
        case Outcome.CONVERTED:
            bears = may_convert(standing)
        case Outcome.WALKED_AWAY:
            bears = bool(standing.before) and standing.attitude <= max(LEAVE_AT, standing.initial - FALLEN_BY)
            bears = bears and standing.attitude < standing.initial
        case Outcome.REJECTED:
            bears = standing.exchanges >= GIVES_UP_EARLIEST and standing.attitude < CONVERT_AT
        case Outcome.COMPLIANCE_FAIL:
            bears = False
    return wanted if bears else None


def may_convert(standing: Standing) -> bool:
    """The contract's "6 and rising", where rising means since the start: asking for the decision moves
    nothing by itself, and must not be what spoils it."""
    if standing.direction is Direction.FALLING:
        return False
    risen = standing.attitude > standing.initial or standing.direction is Direction.RISING
    return standing.attitude >= SURE_AT or (standing.attitude >= CONVERT_AT and risen)


def _is_sure(standing: Standing) -> bool:
    """The trainee has had a turn to ask for the decision, or need not."""
    held = bool(standing.before) and standing.before[-1] >= SURE_AT and standing.attitude >= SURE_AT
    return held or standing.attitude >= ALTOGETHER


def at_limit(attitude: float, direction: Direction) -> Outcome:
    """How a talk ends that has used up its exchanges."""
    convinced = attitude >= CONVERT_AT and direction is not Direction.FALLING
    return Outcome.CONVERTED if convinced else Outcome.REJECTED


def heads_for_end(exchanges: int, attitude: float) -> bool:
    """The customer grows short: it is late and nothing has been won."""
    return exchanges >= HEADS_FOR_END and attitude < COLD_BELOW


def _walks_away(standing: Standing) -> bool:
    if not standing.before:
        return False
    fell = standing.attitude < standing.initial
    floor = standing.initial - FALLEN_BY
    twice = standing.attitude < floor and standing.before[-1] < floor
    return fell and (standing.attitude <= LEAVE_AT or twice)


def _gives_up(standing: Standing) -> bool:
    if not heads_for_end(standing.exchanges, standing.attitude) or standing.direction is Direction.RISING:
        return False
    return standing.exchanges >= GIVES_UP or standing.direction is Direction.FALLING
