"""Which move the agent should make next. The customer's last words decide: a clear no, an objection, a
question, a buying signal, a pain; where these ask for nothing, what is still unknown or where it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from coach_server.domain.detection import Detection, Objection, Signal
from coach_server.domain.listening import is_bare
from coach_server.domain.phrases import Listening, Move, Phrases, normal
from coach_server.domain.stage import later, rank
from coach_server.domain.tip import Label, Stage, TipRequest, Trigger
from coach_server.domain.transcript import Speaker

ANSWERED_WORDS = 12
TELLING_WORDS = 3
LAST_TIPS = 2 * len(Label)
_BY_STAGE = {
    Stage.GREETING: "rapport",
    Stage.VALUE_PROP: "value",
    Stage.OBJECTION_HANDLING: "doubt",
    Stage.NEXT_STEPS: "next_steps",
    Stage.CLOSING: "closing",
    Stage.CONVERSION: "conversion",
}
_GAPS = ("supplier", "pain", "team_size", "timeline", "decision_maker")
_WORTH_KNOWING = frozenset({*_GAPS, "budget", "current_price"})
MOVES = frozenset(
    {
        *_BY_STAGE.values(),
        *(f"gap_{fact}" for fact in (*_GAPS, "impact", "budget")),
        *(f"objection_{objection}" for objection in Objection),
        *(
            "agreed",
            "goodbye",
            "opening",
            "gatekeeper",
            "pain",
            "question",
            "check",
            "postpone",
            "buying",
            "refusal",
            "no_reaction",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the eyes saw. `focus`: the customer's last turn; `detection`: of that turn. `earlier`: what the
    customer said before it that had some substance. `since`: what the agent said after it. `raised`: the last
    objection in sight, answered or not. `quiet`: the agent waits for an answer that does not come."""

    focus: str = ""
    detection: Detection = field(default_factory=Detection)
    earlier: str = ""
    since: str = ""
    raised: Objection | None = None
    quiet: bool = False


def choose(request: TipRequest, reading: Reading, phrases: Phrases) -> str:
    """The name of the next move."""
    signals = reading.detection.signals
    if request.refused or Signal.REFUSAL in signals:
        return "refusal"
    if request.trigger is Trigger.ALTERNATIVE:
        return _alternative(request, reading, phrases)
    if after_conversion(request):
        return _answer(reading) or "conversion"
    if not request.utterances and request.exchange is None:
        return "opening" if request.stage is Stage.GREETING else _by_stage(request, reading, phrases)
    if reading.quiet:
        return "no_reaction"
    if request.stage is Stage.GREETING and contains(reading.focus, phrases.listening.gatekeeper):
        return "gatekeeper"
    return _reaction(request, reading, phrases) or _onward(request, reading, phrases)


def after_conversion(request: TipRequest) -> bool:
    return Stage.CONVERSION in (request.stage, request.floor)


def _answer(reading: Reading) -> str | None:
    """What must be answered whatever the stage: an objection, then a question."""
    seen = reading.detection
    if seen.objections:
        return f"objection_{seen.objections[0]}"
    return "question" if _asks(reading) and Signal.BUYING not in seen.signals else None


def _asks(reading: Reading) -> bool:
    return bool({Signal.QUESTION_OPEN, Signal.QUESTION_CLOSED} & set(reading.detection.signals))


def _reaction(request: TipRequest, reading: Reading, phrases: Phrases) -> str | None:
    signals, answered = reading.detection.signals, len(reading.since.split()) >= ANSWERED_WORDS
    if reading.detection.objections:
        return "check" if answered else _answer(reading)
    if Signal.POSTPONE in signals or _wants_it_sent(reading, phrases):
        return "postpone"
    asked = _answer(reading)
    if asked and not answered:
        return asked
    if Signal.BUYING in signals:
        return "closing" if request.stage is Stage.CLOSING and not _asks(reading) else "buying"
    if Signal.PAIN in signals:
        return "pain" if rank(request.stage) < rank(Stage.VALUE_PROP) else None
    return None


def _wants_it_sent(reading: Reading, phrases: Phrases) -> bool:
    """`Can you send me something?` is not a question to answer but a way to put it off."""
    leaning = Signal.BUYING in reading.detection.signals
    return not leaning and contains(reading.focus, phrases.listening.send_me)


def _onward(request: TipRequest, reading: Reading, phrases: Phrases) -> str:
    """Nothing asks for an answer: go on from where the call stands."""
    stage = request.stage
    bare = is_bare(reading.focus, phrases.listening)
    if stage is not Stage.GREETING and contains(reading.focus, phrases.listening.farewell):
        return "goodbye"
    if stage is Stage.GREETING:
        return "rapport" if len(request.utterances) <= 3 else _gap(request, phrases)
    if stage is Stage.VALUE_PROP and bare and len(reading.since.split()) < ANSWERED_WORDS:
        return "next_steps"
    return _by_stage(request, reading, phrases)


def _by_stage(request: TipRequest, reading: Reading, phrases: Phrases) -> str:
    if request.stage is Stage.DISCOVERY:
        return _gap(request, phrases)
    if request.stage is Stage.OBJECTION_HANDLING and reading.raised is not None:
        return "check"
    if request.stage in (Stage.NEXT_STEPS, Stage.CLOSING) and request.facts.get("preferred_time"):
        return "agreed"
    return _BY_STAGE[request.stage]


def _alternative(request: TipRequest, reading: Reading, phrases: Phrases) -> str:
    """Another line of the same stage."""
    stage = later(request.stage, request.floor or request.stage)
    if stage is Stage.GREETING and not request.utterances:
        return "opening"
    if stage is Stage.OBJECTION_HANDLING and reading.raised is not None:
        return f"objection_{reading.raised}"
    if stage is Stage.NEXT_STEPS and Signal.POSTPONE in reading.detection.signals:
        return "postpone"
    if stage is Stage.DISCOVERY:
        gap = _gap(request, phrases)
        return gap if gap != "value" else "gap_impact"
    if stage is Stage.NEXT_STEPS and request.facts.get("preferred_time"):
        return "agreed"
    return _BY_STAGE[stage]


def told(request: TipRequest, listening: Listening) -> frozenset[str]:
    """The facts that need no question any more: known, or asked for by the agent and answered, in whatever
    words."""
    facts = {fact for fact, value in request.facts.items() if value}
    asked: set[str] = set()
    for utterance in request.utterances:
        if utterance.speaker is Speaker.AGENT:
            asked = {fact for fact, cues in listening.asked.items() if contains(utterance.text, cues)}
        elif len(utterance.text.split()) >= TELLING_WORDS and not utterance.text.rstrip().endswith("?"):
            facts |= asked
    return frozenset(facts)


def _gap(request: TipRequest, phrases: Phrases) -> str:
    """The most useful thing still unknown; when enough is known, on to what it is worth to them."""
    known = told(request, phrases.listening) & _WORTH_KNOWING
    if "pain" in known and len(known) >= 3:
        wanted: list[str] = ["value", "gap_impact", *(() if "budget" in known else ("gap_budget",))]
    else:
        wanted = [f"gap_{fact}" for fact in _GAPS if fact not in known]
        if "pain" in known:
            wanted.insert(0, "gap_impact")
    shown = {normal(script) for script in request.avoid[-LAST_TIPS:]}
    fresh = (name for name in wanted if not _was_shown(phrases.moves[name], shown))
    return next(fresh, wanted[0])


def _was_shown(move: Move, shown: set[str]) -> bool:
    return any(normal(text) in shown for phrase in move.minimal for text in (phrase.formal, phrase.informal))


def contains(text: str, cues: Iterable[str]) -> bool:
    lower = text.casefold().replace("’", "'")
    return any(cue in lower for cue in cues)
