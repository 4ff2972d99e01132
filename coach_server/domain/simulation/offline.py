"""The customer of a simulation when no model speaks for him: a persona's own lines, chosen by rules.

    the trainee ...                         the customer ...
    (the talk is being ended)               says the farewell of that outcome
    names a product, no fatal check made    is indignant and goes
    says goodbye                            says goodbye, by what was agreed
    asks for a check or a plain fact        tells it: briefly when cool, more when warm
    answers what he objected to             gives in a little, asks on when he is warm
    touches a weak point                    lets it be seen
    pushes                                  is annoyed, leaves when it does not stop and he is cold
    asks for the decision                   agrees when won over, else says what still holds him back
    asks anything else about him            tells what is nearest to it
    greets, chats                           greets, chats
    anything else                           tells of himself while nothing is offered; then the next
                                            objection, doubt, or interest, by his attitude

He says no line twice as long as there is another, two sentences at most, in one language, and never speaks of
attitude, score or the director.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from coach_server.domain.phrases import sentences
from coach_server.domain.simulation.hearing import Heard, hear, meets
from coach_server.domain.simulation.lines import COOL, MOST_SENTENCES, UsedLines, joined
from coach_server.domain.simulation.persona import Domain, Objection, SimPersona, SimScenario, pick
from coach_server.domain.simulation.talk import Outcome, Role, TalkPhase, Utterance
from coach_server.domain.wording import same_words

ANGRY, COLD, WARM, WON = 1.5, 3.0, 5.0, 6.0
PUSHES = 3
LAST_TURNS = 2
FIRST_OBJECTION = 2
ENOUGH_OBJECTIONS = 3
STEM = 7

Found: TypeAlias = "str | None"


@dataclass(frozen=True, slots=True)
class OfflineState:
    """What he remembers; serialisable. `said`: keys of the lines he used, oldest first; `told`: how many
    lines of each topic; `raised`: objections in order; `pending`: the one that waits for an answer;
    `insisted`: it was passed over once; `offered`: something is on the table; `seed`: varies his words from
    session to session."""

    seed: int = 0
    turns: int = 0
    said: tuple[str, ...] = ()
    told: Mapping[str, int] = field(default_factory=dict)
    raised: tuple[str, ...] = ()
    pending: str | None = None
    insisted: bool = False
    touched: tuple[str, ...] = ()
    offered: bool = False
    pushed: int = 0
    won: bool = False
    over: bool = False


@dataclass(frozen=True, slots=True)
class Cast:
    """Who talks, where, about what; the same for the whole session."""

    persona: SimPersona
    scenario: SimScenario
    domain: Domain
    language: str


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the talk stands. `text`: the trainee's words, empty: the customer begins. `checks`: by id whether
    it was made, these words included. `ending`: how the talk is being ended, by whom ever. `history`: what
    was said before, so that a talk that is taken over is not repeated."""

    text: str
    attitude: float
    phase: TalkPhase = TalkPhase.SCEPTICAL
    checks: Mapping[str, bool] = field(default_factory=dict)
    ending: Outcome | None = None
    history: Sequence[Utterance] = ()


@dataclass(frozen=True, slots=True)
class OfflineReply:
    """`ends`: he ends the talk by himself with these words, as a model would by its tool."""

    text: str
    state: OfflineState
    ends: Outcome | None = None


def reply(cast: Cast, state: OfflineState, moment: Moment) -> OfflineReply:
    """His next words. Empty only after his farewell."""
    return _Reply(cast, state, moment).made()


class _Reply:
    """One answer on its way; `_state` is replaced as it takes shape."""

    def __init__(self, cast: Cast, state: OfflineState, moment: Moment) -> None:
        self._cast, self._moment, self._state = cast, moment, state
        self._persona, self._phrases = cast.persona, cast.persona.phrases
        self._heard: Heard = hear(cast.persona, cast.domain, cast.language, moment.text)
        spoken = [utterance.text for utterance in moment.history if utterance.role is Role.AVATAR]
        self._lines = UsedLines(self._phrases, cast.language, state.seed, state.said, spoken)
        self._ends: Outcome | None = None
        if self._heard.offers:
            self._state = replace(self._state, offered=True)
        if spoken and not state.said:
            self._recall()

    def made(self) -> OfflineReply:
        if self._state.over:
            return OfflineReply("", self._state)
        text = next(text for way in self._ways() if (text := way()))
        self._state = replace(self._state, turns=self._state.turns + 1, said=self._lines.said)
        return OfflineReply(text, self._state, self._ends)

    def _ways(self) -> tuple[Callable[[], Found], ...]:
        return (
            self._ended,
            self._opening,
            self._unchecked,
            self._goodbye,
            self._check,
            self._pushed,
            self._softened,
            self._touched,
            self._close,
            self._fact,
            self._need,
            self._courtesy,
            self._by_attitude,
        )

    # Ways to answer: the first that has something to say wins

    def _ended(self) -> Found:
        return None if self._moment.ending is None else self._farewell(self._moment.ending)

    def _opening(self) -> Found:
        return None if self._moment.text.strip() else self._lines.line("greeting", self._phrases.greeting)

    def _unchecked(self) -> Found:
        fatal = [check for check in self._cast.domain.checks if check.fatal]
        made = any(self._moment.checks.get(check.id) or check.id in self._heard.topics for check in fatal)
        if not fatal or made or not self._heard.names_product or self._state.turns > self._first_turns():
            return None
        return self._leave(Outcome.COMPLIANCE_FAIL)

    def _first_turns(self) -> int:
        """Who let it pass for half a talk does not mind any more."""
        return self._cast.scenario.max_exchanges // 2

    def _goodbye(self) -> Found:
        if self._state.won and not self._heard.asks:
            return self._leave(Outcome.CONVERTED)
        if self._heard.leaves and not self._heard.asks and self._state.turns:
            return self._leave(Outcome.REJECTED)
        return None

    def _check(self) -> Found:
        checks = {check.id for check in self._cast.domain.checks}
        asked = [topic for topic in self._heard.topics if topic in checks]
        fresh = [topic for topic in asked if not self._state.told.get(topic)]
        return self._facts([*fresh, *(t for t in self._heard.topics if t not in checks)]) if fresh else None

    def _pushed(self) -> Found:
        if not self._heard.pushes:
            return None
        self._state = replace(self._state, pushed=self._state.pushed + 1)
        if self._state.pushed >= PUSHES and self._moment.attitude < COLD:
            return self._leave(Outcome.WALKED_AWAY)
        return self._lines.line("annoyed", self._phrases.annoyed)

    def _softened(self) -> Found:
        objection = self._objection(self._state.pending)
        if objection is None or not meets(objection, self._cast.language, self._heard.words):
            return None
        if self._heard.closes and self._moment.attitude >= WON:
            return None
        self._state = replace(self._state, pending=None, insisted=False, touched=self._all_touched())
        softens = self._lines.line(f"softens.{objection.id}", objection.softens)
        if self._moment.attitude >= WARM and not self._heard.closes:
            return joined(softens, self._lines.line("interested", self._phrases.interested))
        return softens or self._lines.line("interested", self._phrases.interested)

    def _touched(self) -> Found:
        fresh = [i for i in self._heard.touched if i not in self._state.touched]
        point = next((p for p in self._persona.weak_points if p.id in fresh), None)
        if point is None:
            return None
        self._state = replace(self._state, touched=self._all_touched())
        return self._lines.line(f"shows.{point.id}", point.shows)

    def _close(self) -> Found:
        if not self._heard.closes:
            return None
        if self._moment.attitude >= WON:
            self._state = replace(self._state, won=True, pending=None)
            return self._lines.line("convinced", self._phrases.convinced)
        if self._moment.attitude < ANGRY:
            return self._lines.line("annoyed", self._phrases.annoyed)
        return self._raised() or self._lines.line("sceptical", self._phrases.sceptical)

    def _fact(self) -> Found:
        return self._facts(self._heard.topics)

    def _need(self) -> Found:
        """A question about him that nobody foresaw: what shares words with it, else, as long as nothing is
        offered, something he has not told yet."""
        if not self._heard.asks:
            return None
        close, untold = self._closest(), self._untold()
        if close is not None:
            return self._facts([close])
        return self._facts(untold[:1]) if self._heard.needs and not self._state.offered else None

    def _untold(self) -> list[str]:
        told = self._state.told
        return [t for t in self._phrases.facts if t not in self._reserved() and not told.get(t)]

    def _closest(self) -> str | None:
        asked = _stems(self._moment.text)
        facts, language = self._phrases.facts, self._cast.language
        shared = {t: len(asked & _stems(pick(facts[t], language)[0])) for t in self._untold()}
        best = max(shared, key=lambda topic: shared[topic], default=None)
        return best if best is not None and shared[best] else None

    def _reserved(self) -> set[str]:
        """Answers that only fit their own question."""
        return {check.id for check in self._cast.domain.checks} | {"name"}

    def _courtesy(self) -> Found:
        if self._heard.offers or self._heard.needs:
            return None
        if self._heard.greets and not self._lines.has_begun("greeting"):
            return self._lines.line("greeting", self._phrases.greeting)
        if self._heard.chats or (self._heard.greets and not self._heard.asks):
            return self._lines.line("small_talk", self._phrases.small_talk)
        return None

    def _by_attitude(self) -> str:
        mood = self._moment.attitude
        if mood < ANGRY and self._state.turns > 1:
            return self._lines.of_mood("annoyed", "sceptical")
        if mood >= WON:
            return self._almost_won()
        if mood >= COLD and not self._on_the_table():
            return self._facts(self._untold()[:1]) or self._lines.of_mood("small_talk", "sceptical")
        return self._resistance() or self._lines.of_mood(
            *(("interested", "sceptical") if mood >= COLD else COOL)
        )

    def _on_the_table(self) -> bool:
        return self._state.offered or bool(self._state.raised)

    def _almost_won(self) -> str:
        """He still wants to know some things; what he agrees to he keeps for the moment he is asked."""
        last = self._state.turns >= self._cast.scenario.max_exchanges - LAST_TURNS
        if last and self._moment.phase is TalkPhase.DECIDING and not self._state.pending:
            return self._lines.of_mood("convinced", "interested")
        if not self._state.pending and len(self._state.raised) < ENOUGH_OBJECTIONS and self._heard.offers:
            return self._raised() or self._lines.of_mood("interested")
        return self._lines.of_mood("interested", "convinced")

    def _resistance(self) -> Found:
        """An objection when something is on the table; before that only doubt. One that was passed over is
        insisted on once."""
        if self._state.pending and not self._state.insisted:
            self._state = replace(self._state, insisted=True)
            return self._lines.line("sceptical", self._phrases.sceptical)
        late = self._state.turns >= self._cast.scenario.max_exchanges - LAST_TURNS
        if late and self._moment.attitude < COLD:
            return self._lines.line("annoyed", self._phrases.annoyed)
        if self._on_the_table() or self._state.turns >= FIRST_OBJECTION:
            return self._raised()
        return None

    # Steps

    def _raised(self) -> Found:
        """The next objection he has not brought up yet."""
        fresh = next((o for o in self._persona.objections if o.id not in self._state.raised), None)
        if fresh is None:
            return None
        raised = (*self._state.raised, fresh.id)
        self._state = replace(self._state, raised=raised, pending=fresh.id, insisted=False)
        return self._lines.line(f"says.{fresh.id}", fresh.says)

    def _objection(self, objection_id: str | None) -> Objection | None:
        return next((o for o in self._persona.objections if o.id == objection_id), None)

    def _all_touched(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._state.touched, *self._heard.touched)))

    def _facts(self, topics: Sequence[str]) -> Found:
        """Answers to what was asked; the new ones where there are any, as many as fit."""
        fresh = [topic for topic in topics if not self._state.told.get(topic)]
        wanted = (fresh or list(topics))[:MOST_SENTENCES]
        told = [line for topic in wanted if (line := self._told(topic))]
        if not told:
            return None
        more = None
        if len(wanted) == 1 and self._moment.attitude >= WARM and sentences(told[0]) == 1:
            more = self._told(wanted[0])
        return joined(*told, more)

    def _told(self, topic: str) -> Found:
        number = self._state.told.get(topic, 0)
        said = self._lines.at(f"facts.{topic}", pick(self._phrases.facts[topic], self._cast.language), number)
        if said is not None:
            self._state = replace(self._state, told={**self._state.told, topic: number + 1})
        return said

    def _leave(self, outcome: Outcome) -> Found:
        self._ends = outcome
        return self._farewell(outcome)

    def _farewell(self, outcome: Outcome) -> Found:
        self._state = replace(self._state, over=True)
        lines = self._phrases.farewells.get(outcome, {})
        return self._lines.line(f"farewell.{outcome}", lines) or self._lines.of_mood("annoyed", "sceptical")

    def _recall(self) -> None:
        """Takes up a talk that was broken off or that a model led: what was objected and told counts."""
        raised = tuple(o.id for o in self._persona.objections if self._lines.is_spoken(o.says))
        told = {topic: self._lines.count_spoken(lines) for topic, lines in self._phrases.facts.items()}
        self._state = replace(self._state, raised=raised, told={t: n for t, n in told.items() if n})


def _stems(text: str) -> set[str]:
    """The beginnings of its longer words: roughly what it is about, in any language here."""
    return {word[:STEM] for word in same_words(text).split() if len(word) >= STEM}
