"""What is counted and weighed in a talk: points of uses and answers, shares, themes, the commitment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Quality, Turn
from coach_server.domain.metrics import count_words
from coach_server.domain.practice.scorecard import HIGHEST
from coach_server.domain.practice.talk import Reply, Talk, Use, count_of, top
from coach_server.domain.tip import Stage

FULL = float(HIGHEST)
# Another technique than the one the attitude asks for, used well, is half an answer.
OTHER_ANSWER = 0.5
# Fewer words than these say nothing about perspective.
_PERSPECTIVE_WORDS = 4


def points(method: Methodology, quality: Quality) -> float:
    """What a use is worth, 0..100."""
    return max(0.0, min(FULL, 10 * method.scoring.use_points.get(quality, 0.0)))


def best_points(talk: Talk, uses: Iterable[Use], keys: Sequence[str] = ()) -> dict[str, float]:
    """The points of the best use by step; a detail that is a key technique stands for itself."""
    best: dict[str, float] = {}
    wanted = {found.id for key in keys if (found := talk.method.find(key))}
    for use in uses:
        technique = use.technique
        name = technique.id if technique.id in wanted else technique.step_id or technique.id
        best[name] = max(best.get(name, 0.0), use_points(talk, use))
    return best


def use_points(talk: Talk, use: Use) -> float:
    """0..100. A good use that is just what the customer's last attitude asks for is worth more: the bonus of
    the method (of 10) is its share of what is left to the top. A poor use earns none."""
    worth = points(talk.method, use.quality)
    if use.quality not in (Quality.PERFECT, Quality.GOED) or not _meets(talk, use):
        return worth
    return worth + (FULL - worth) * max(0.0, min(1.0, talk.method.scoring.bonus / 10))


def met_points(talk: Talk, reply: Reply) -> float:
    """How well an answer met the customer's attitude, 0..100: by its technique; by another, half."""
    attitude, phase = reply.customer.attitude, reply.customer.phase
    uses = [use for turn in reply.answer for use in talk.uses_of(turn)]
    meeting = [use for use in uses if talk.method.meets(use.technique.id, attitude, phase)]
    met, other = top(meeting), top(uses)
    return max(
        points(talk.method, met.quality) if met else 0.0,
        OTHER_ANSWER * points(talk.method, other.quality) if other else 0.0,
    )


def talk_share(talk: Talk, *, only_what_worked: bool = False) -> float | None:
    """The seller's share of all words, 0..1."""
    mine = [turn for turn in talk.sellers if not (only_what_worked and talk.is_missed(turn))]
    seller = sum(count_words(turn.text) for turn in mine)
    customer = sum(count_words(turn.text) for turn in talk.customers)
    return seller / (seller + customer) if seller + customer else None


def perspective_ratio(talk: Talk) -> float | None:
    """ "You" per "we" of the seller; None where the language has no words for it or too few were said."""
    you = sum(count_of(turn.text, talk.words.you) for turn in talk.sellers)
    we = sum(count_of(turn.text, talk.words.we) for turn in talk.sellers)
    return you / max(we, 1) if you + we >= _PERSPECTIVE_WORDS else None


def themes_asked(talk: Talk) -> tuple[set[str], int]:
    """The themes of the discovery that were asked about, and how many there are."""
    discovery = next((p for p in talk.scope if p.id == talk.phase_of(Stage.DISCOVERY)), None)
    known = {theme.id for theme in discovery.themes} if discovery else set()
    asked = {theme for turn in talk.sellers if not talk.is_missed(turn) for theme in turn.themes}
    by_use = {use.technique.theme for use in talk.uses if use.works and use.technique.theme}
    return (asked | by_use) & known, len(known)


def echoes(talk: Talk, reply: Reply) -> Turn | None:
    """The turn of the answer in which a word of the customer comes back."""
    heard = talk.content(reply.customer)
    mine = (turn for turn in reply.answer if not talk.is_missed(turn))
    return next((turn for turn in mine if talk.content(turn) & heard), None)


def committed(talk: Talk) -> Use | None:
    """The use that asked for the commitment in time, the best answered one."""
    before = talk.method.commitment_before
    late = next((i for i, t in enumerate(talk.turns) if before and t.phase >= before), len(talk.turns))
    early = set(map(id, talk.turns[:late]))
    asked = [
        use
        for use in talk.uses
        if use.works and id(use.turn) in early and any(use.of_family(c) for c in talk.method.commitment)
    ]
    return max(asked, key=lambda use: talk.said_yes(use.turn), default=None)


def crosses_into(talk: Talk, phase_id: int | None) -> int | None:
    """Where the talk comes from a lower phase of the flow into this one or beyond: the index of that turn."""
    if phase_id is None:
        return None
    flow = {phase.id for phase in talk.method.flow}
    for index, turn in enumerate(talk.turns):
        if turn.phase in flow and turn.phase >= phase_id:
            return index if any(t.phase in flow for t in talk.turns[:index]) else None
    return None


def _meets(talk: Talk, use: Use) -> bool:
    customer = talk.heard_before(use.turn)
    return customer is not None and talk.method.meets(use.technique.id, customer.attitude, use.turn.phase)
