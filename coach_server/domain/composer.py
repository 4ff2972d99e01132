"""The offline coach's head: from what was heard to a tip. Pure and deterministic.

1. which move is next (the customer's last words decide: a no, an objection, a question, a buying signal, a
   pain, else what is still unknown),
2. which words for it (never a known fact, never one of the last tips, taking up what was just said),
3. or, with a playbook, which of its lines, word for word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from coach_server.domain import playbook as books
from coach_server.domain.detection import Detection, Signal
from coach_server.domain.facts import shorten
from coach_server.domain.listening import Noticed, is_bare, is_informal, notice
from coach_server.domain.moves import Reading, after_conversion, choose, told
from coach_server.domain.phrases import (
    JUST_SAID,
    TOLD,
    Listening,
    Move,
    Phrase,
    Phrases,
    normal,
    render,
    shuffled,
    slot_value,
)
from coach_server.domain.playbook import Playbook, PlaybookLine, Situation
from coach_server.domain.stage import later, rank
from coach_server.domain.tip import (
    CONTEXT_CHARS,
    SCRIPT_CHARS,
    Exchange,
    Label,
    Source,
    Stage,
    Tip,
    TipOption,
    TipRequest,
    Trigger,
)
from coach_server.domain.transcript import Speaker

FOLLOWED, CHANGED = 0.5, 0.2
NEAR_STAGES = 2
_NOTHING = Listening()


@dataclass(frozen=True, slots=True)
class _Choice:
    """A script on offer: `skeleton` is its fixed part, to notice repetition when only the slots differ."""

    text: str
    skeleton: str
    order: tuple[int, int]


def compose(request: TipRequest, reading: Reading, phrases: Phrases, playbook: Playbook | None = None) -> Tip:
    """The tip for this request."""
    work = _Work(request, reading, phrases)
    options = work.options()
    heading = work.pick_heading()
    if playbook is not None:
        options, heading = _from_playbook(work, playbook, options, heading)
    return Tip(
        stage=work.stage,
        heading=heading,
        context=work.context(),
        options=options,
        source=Source.OFFLINE,
        why=work.noticed.why,
    )


# --- which words


class _Work:
    """One tip in the making."""

    def __init__(self, request: TipRequest, reading: Reading, phrases: Phrases) -> None:
        self.request, self.reading, self.phrases = request, reading, phrases
        self.move = phrases.moves[choose(request, reading, phrases)]
        self.stage = _stage(self.move, request)
        said = [(u.speaker, u.text) for u in request.utterances]
        self.informal = is_informal(
            [text for who, text in said if who is Speaker.AGENT],
            [text for who, text in said if who is Speaker.CUSTOMER],
            phrases.listening,
        )
        self.told = told(request, phrases.listening)
        self.noticed = self._notice()
        self.values = self._values()
        self.recent = _recent(request)
        self.heard = [f" {text} " for text in (*self.recent, *self._agent_lately())]

    def options(self) -> tuple[TipOption, TipOption, TipOption]:
        taken = set(self.recent)
        made = []
        for label in Label:
            script = self._script(label, taken)
            taken.add(normal(script))
            made.append(TipOption(label, script))
        return (made[0], made[1], made[2])

    def pick_heading(self) -> str:
        return min(self.move.headings, key=lambda h: shuffled(h, f"{self.request.turn}"))

    def context(self) -> str:
        fitting = [p for p in self.move.contexts if self._fillable(p)]
        said = sorted(fitting, key=lambda p: (not p.slots, shuffled(p.formal, f"{self.request.turn}")))
        why_now = render(said[0].text(self.informal), self.values) if said else self.move.headings[0]
        exchange = self._exchange()
        return shorten(f"{exchange} {why_now}" if exchange else why_now, CONTEXT_CHARS)

    def _script(self, label: Label, taken: set[str]) -> str:
        for pool in self._pools(label):
            for choice in sorted(pool, key=lambda c: (self._stale(c), c.order)):
                if normal(choice.text) not in taken:
                    return choice.text
        # Every variant was used; the least recent of them all is better than silence.
        return next(c.text for pool in self._pools(label) for c in pool)

    def _pools(self, label: Label) -> Iterator[list[_Choice]]:
        """Where a script may come from, best first; each is tried only when the one before is used up."""
        yield list(self._written(self.move, label))
        yield list(self._combined(self.move, label))
        yield list(self._led(self.move, label))
        related = [
            m for m in self.phrases.moves.values() if m.stage is self.move.stage and m is not self.move
        ]
        for move in related if self.move.name != "refusal" else []:
            yield [*self._written(move, label), *self._combined(move, label)]

    def _written(self, move: Move, label: Label) -> Iterator[_Choice]:
        phrases = {
            Label.MINIMAL: move.minimal,
            Label.EXPLANATIVE: move.explanative,
            Label.CONTEXTUAL: move.contextual,
        }[label]
        for phrase in self._fitting(phrases):
            text = phrase.text(self.informal)
            depth = _depth(phrase) if label is Label.CONTEXTUAL else 0
            yield self._choice(text, depth - 2 * (phrase.when is not None))

    def _combined(self, move: Move, label: Label) -> Iterator[_Choice]:
        for phrase in self._fitting(move.minimal):
            ask = phrase.text(self.informal)
            if label is Label.MINIMAL:
                for lead in self.phrases.leads:
                    yield self._choice(f"{lead} {_mid_sentence(ask)}", 0)
            elif label is Label.EXPLANATIVE:
                for reason in self._fitting(move.reasons):
                    yield self._choice(f"{ask} {reason.text(self.informal)}", 0)
            else:
                for depth, reflection in self._reflections():
                    yield self._choice(f"{reflection.text(self.informal)} {ask}", depth)

    def _led(self, move: Move, label: Label) -> Iterator[_Choice]:
        """The same once more with a lead-in before it."""
        said = [*self._written(move, label), *self._combined(move, label)]
        for choice in said if label is not Label.MINIMAL else []:
            for lead in self.phrases.leads:
                text = shorten(f"{lead} {_mid_sentence(choice.text)}", SCRIPT_CHARS)
                yield replace(choice, text=text)

    def _reflections(self) -> Iterator[tuple[int, Phrase]]:
        for slot, reflections in self.phrases.reflections.items():
            for reflection in self._fitting(reflections):
                yield (9 if slot == "none" else _depth(reflection)), reflection

    def _fitting(self, phrases: Iterable[Phrase]) -> Iterator[Phrase]:
        for phrase in phrases:
            if (
                self._fillable(phrase)
                and not self.told & phrase.asks
                and (phrase.when is None or phrase.when.search(self.reading.focus))
                and (phrase.unless is None or not phrase.unless.search(self.reading.focus))
            ):
                yield phrase

    def _fillable(self, phrase: Phrase) -> bool:
        return all(slot in self.values for slot in phrase.slots)

    def _choice(self, template: str, depth: int) -> _Choice:
        text = shorten(render(template, self.values), SCRIPT_CHARS)
        fixed = max((s for s in template.replace("?", ".").split(".") if "{" not in s), key=len, default="")
        salt = f"{self.request.turn}|{self.request.trigger}"
        return _Choice(text, normal(fixed), (depth, shuffled(template, salt)))

    def _stale(self, choice: _Choice) -> bool:
        """Whether the agent saw or said nearly the same a moment ago."""
        return bool(choice.skeleton) and any(f" {choice.skeleton} " in text for text in self.heard)

    def _agent_lately(self) -> list[str]:
        said = [u.text for u in self.request.utterances if u.speaker is Speaker.AGENT]
        return [normal(text[-600:]) for text in said[-3:]]

    # --- what the words are about

    def _notice(self) -> Noticed:
        listening, seen = self.phrases.listening, self.reading.detection
        focus = self.reading.focus
        dull = None
        if self.move.name.startswith("objection_"):
            dull = self._objection_name(self.move.name.removeprefix("objection_"))
        if not focus or (is_bare(focus, listening) and self.reading.earlier):
            found = notice(self.reading.earlier, listening, informal=self.informal, dull=dull)
            why = notice(focus, listening).why if focus else found.why
            return replace(found, why=why or _last_words(self.request))
        anchors = _anchors(self.move, seen)
        found = notice(focus, listening, anchors=anchors, informal=self.informal, dull=dull)
        return found if found.why else replace(found, why=_last_words(self.request))

    def _values(self) -> dict[str, str]:
        told = {**self.request.facts, **{_slot(k): v for k, v in self.request.placeholders.items()}}
        values = {slot: slot_value(told[slot]) for slot in TOLD if told.get(slot)}
        if values.get("decision_maker") == "self":
            del values["decision_maker"]
        name = slot_value(told.get("customer_name", ""))
        found = {
            "quote": self.noticed.quote,
            "topic": self.noticed.topic,
            "number": self.noticed.number,
            "stake": self.noticed.stake,
            "name": books.first_name(name) if name else None,
        }
        if self.reading.raised is not None:
            found["objection"] = self._objection_name(self.reading.raised)
        values.update({slot: value for slot, value in found.items() if value})
        if "pain" in values and values.get("quote") and normal(values["pain"]) in normal(values["quote"]):
            del values["pain"]
        return {slot: value for slot, value in values.items() if value}

    def _objection_name(self, objection: str) -> str:
        return self.phrases.objection_names[objection].text(self.informal)

    def _exchange(self) -> str:
        exchange, wording = self.request.exchange, self.phrases.exchange
        if exchange is None or not exchange.suggested:
            return ""
        reaction = wording[_reaction_name(self.move, self.reading)].text(self.informal)
        how = wording[_used(exchange)].text(self.informal)
        return render(how, {"reaction": reaction})


def _stage(move: Move, request: TipRequest) -> Stage:
    floor = request.floor or Stage.GREETING
    if after_conversion(request):
        return Stage.CONVERSION
    if request.trigger is Trigger.ALTERNATIVE and move.name != "refusal":
        return later(request.stage, floor)
    if move.stage is Stage.OBJECTION_HANDLING or move.name == "refusal":
        return later(move.stage, floor)
    return later(later(request.stage, move.stage), floor)


def _anchors(move: Move, seen: Detection) -> list[str]:
    evidence = seen.evidence or {}
    names = {
        "refusal": (Signal.REFUSAL,),
        "postpone": (Signal.POSTPONE,),
        "question": (Signal.QUESTION_OPEN, Signal.QUESTION_CLOSED),
        "buying": (Signal.BUYING,),
        "closing": (Signal.BUYING,),
        "pain": (Signal.PAIN,),
    }.get(move.name, ())
    wanted = [str(name) for name in names] or [str(objection) for objection in seen.objections]
    return [evidence[name] for name in wanted if evidence.get(name)]


def _depth(phrase: Phrase) -> int:
    """How directly a phrase takes up what was said: a figure, their words, what was told earlier."""
    if phrase.slots & {"number", "stake"}:
        return 0
    if phrase.slots & set(JUST_SAID):
        return 1
    if phrase.slots & set(TOLD) or "objection" in phrase.slots:
        return 2
    return 4 if phrase.slots else 5


def _mid_sentence(ask: str) -> str:
    """`ask` as it goes on after a lead-in; `I` and names keep their capital."""
    first = ask.split(" ", 1)[0]
    keeps = first in ("I", "I'd", "I'll", "I'm", "I've") or "{" in first
    return ask if keeps else ask[:1].lower() + ask[1:]


def _recent(request: TipRequest) -> list[str]:
    shown = [*request.avoid]
    if request.alternative_to:
        shown.append(request.alternative_to)
    if request.exchange is not None and request.exchange.suggested:
        shown.append(request.exchange.suggested)
    return [normal(script) for script in shown]


def _last_words(request: TipRequest) -> str | None:
    for utterance in reversed(request.utterances):
        words = notice(utterance.text, _NOTHING).why
        if words:
            return words
    return None


def _used(exchange: Exchange) -> str:
    """How much of the suggestion is in what was really said."""
    suggested, said = set(normal(exchange.suggested).split()), set(normal(exchange.agent_words).split())
    share = len(suggested & said) / len(suggested) if suggested else 0.0
    return "followed" if share >= FOLLOWED else "changed" if share >= CHANGED else "unused"


def _reaction_name(move: Move, reading: Reading) -> str:
    if reading.quiet:
        return "quiet"
    if reading.detection.objections and move.name != "refusal":
        return "objection"
    named = {
        "refusal": "refusal",
        "question": "question",
        "buying": "buying",
        "closing": "buying",
        "pain": "pain",
    }
    return named.get(move.name, "other")


def _slot(name: str) -> str:
    return "_".join(name.strip("[] ").replace("-", " ").replace("_", " ").casefold().split())


# --- playbook lines


def _from_playbook(
    work: _Work, playbook: Playbook, free: tuple[TipOption, TipOption, TipOption], heading: str
) -> tuple[tuple[TipOption, TipOption, TipOption], str]:
    """The options with lines of the playbook, word for word. Where it has none that may be said now (after a
    clear no, after the yes, or a very short book) the free option stays."""
    values = {**work.request.facts, **work.request.placeholders}
    lines = _lines(work, playbook, values)
    options: list[TipOption] = []
    for option in free:
        line = next((x for x in lines if _labelled(x, option.label)), None)
        line = line or next((x for x in lines if not _labelled_otherwise(x)), None) or next(iter(lines), None)
        if line is None:
            options.append(option)
            continue
        lines.remove(line)
        script = books.spoken(line, values) or shorten(books.fill(line.text, values), SCRIPT_CHARS)
        options.append(TipOption(option.label, script, line.id))
    named = [playbook.line(o.line_id) for o in options if o.line_id]
    own = next((line.heading for line in named if line is not None and line.heading), None)
    return (options[0], options[1], options[2]), own or heading


def sayable(
    request: TipRequest, reading: Reading, phrases: Phrases, playbook: Playbook
) -> list[tuple[PlaybookLine, str]]:
    """The playbook's lines that may be said now and can be filled in, best first, each with its words."""
    values = {**request.facts, **request.placeholders}
    lines = _lines(_Work(request, reading, phrases), playbook, values)
    spoken = ((line, books.spoken(line, values)) for line in lines)
    return [(line, words) for line, words in spoken if words is not None]


def _lines(work: _Work, playbook: Playbook, values: Mapping[str, str]) -> list[PlaybookLine]:
    """What may be said, best first: lines that were not shown lately before those that were, near stages
    before far ones, and lines with a gap in them last of all."""
    request = work.request
    seen = work.reading.detection
    objections = set(seen.objections)
    if work.reading.raised is not None and work.move.stage is Stage.OBJECTION_HANDLING:
        objections.add(work.reading.raised)
    situation = Situation(
        stage=work.stage if work.move.name != "refusal" else Stage.CLOSING,
        objections=frozenset(objections),
        signals=frozenset(seen.signals),
        facts=frozenset(fact for fact, value in request.facts.items() if value),
        refused=work.move.name == "refusal",
    )
    shown = {line_id: age for age, line_id in enumerate(request.avoid_lines)}
    recent = set(work.recent)

    def order(line: PlaybookLine) -> tuple[bool, bool, bool, int]:
        said = books.spoken(line, values)
        used = (
            line.id in shown
            or line.id == request.alternative_to
            or (said is not None and normal(said) in recent)
        )
        far = abs(rank(line.stage) - rank(situation.stage)) > NEAR_STAGES
        return (said is None, far, used, shown.get(line.id, -1) if used else -1)

    return sorted(books.candidates(playbook, situation), key=order)


def _labelled(line: PlaybookLine, label: Label) -> bool:
    return line.label is not None and line.label.casefold() == label.casefold()


def _labelled_otherwise(line: PlaybookLine) -> bool:
    return any(_labelled(line, label) for label in Label)
