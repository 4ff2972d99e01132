"""A live call as a pure machine: event and time in, effects out, `deadline` says when to be woken.

Transitions (live-coach.md §7; what is not listed changes nothing):

    state               on                                   becomes             and
    WARMUP              tip due, auto, something new said    GENERATING          ask (warmup)
    WARMUP              tip due, event-driven                GENERATING          ask (warmup): how to open
    WAITING, DISPLAYING tip due, auto, something new said    GENERATING          ask (interval)
    any but ENDED       option selected                      CAPTURING_AGENT     keep it, clear captures, drop
                                                                             a generation in flight
    CAPTURING_AGENT     agent spoke                          same                append; silence timer
    CAPTURING_AGENT     customer spoke after the agent       CAPTURING_CUSTOMER  append; silence timer
    CAPTURING_AGENT     silence                              CAPTURING_CUSTOMER  reaction timer
    CAPTURING_AGENT     agent never spoke, auto, reaction    DISPLAYING          periodic tips go on
                        time is over
    CAPTURING_CUSTOMER  customer spoke                       same                append; silence timer
    CAPTURING_CUSTOMER  silence, or reaction time is over    GENERATING          ask (capture)
    any but ENDED       next tip or alternative wanted       GENERATING          ask; once for the same turn
    GENERATING          tip ready, of this turn              DISPLAYING          show; clear captures
    GENERATING          tip failed, of this turn             as before it        tell, when somebody asked
    any but ENDED       end wanted, or away for an hour      ENDED               finish; no timer is left

A periodic tip is due only outside GENERATING and the captures, so it can never wipe a capture. Results carry
their turn; one that was superseded is ignored. While nobody listens for longer than the grace nothing is
asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from coach_server.domain import stage as stages
from coach_server.domain.detection import Objection, Signal
from coach_server.domain.events import (
    AlternativeWanted,
    AskTip,
    CallEffect,
    CallEvent,
    ClientCame,
    ClientLeft,
    DropTip,
    EndStatus,
    EndWanted,
    Finish,
    Heard,
    KeepSelection,
    Mode,
    ModeSet,
    NextTipWanted,
    OptionSelected,
    ShowTip,
    SpeechNoticed,
    TellMode,
    TellTipFailed,
    Tick,
    TipFailed,
    TipReady,
    UpgradeTip,
)
from coach_server.domain.facts import sentence_with
from coach_server.domain.tip import (
    RECENT_TIPS,
    Exchange,
    ShownTip,
    Stage,
    Tip,
    TipRequest,
    Trigger,
    Verbosity,
)
from coach_server.domain.transcript import Speaker, Transcript, Utterance
from coach_server.errors import Conflict, Invalid, NotFound

TIPS_KEPT = 500
CAPTURED_WORDS = 20


class CallState(StrEnum):
    WARMUP = "WARMUP"
    WAITING = "WAITING"
    GENERATING = "GENERATING"
    DISPLAYING = "DISPLAYING"
    CAPTURING_AGENT = "CAPTURING_AGENT"
    CAPTURING_CUSTOMER = "CAPTURING_CUSTOMER"
    ENDED = "ENDED"


# After a clear no these show that the customer talks on: the coach may coach again.
_ENGAGED = frozenset({Signal.BUYING, Signal.PAIN, Signal.QUESTION_OPEN, Signal.QUESTION_CLOSED})
_RESTING = (CallState.WARMUP, CallState.WAITING, CallState.DISPLAYING)
_CAPTURING = (CallState.CAPTURING_AGENT, CallState.CAPTURING_CUSTOMER)


@dataclass(frozen=True, slots=True)
class CallTiming:
    """Seconds. `pause_s`: how long nobody must have spoken before an unasked tip; `pause_cap_s`: the longest
    it waits for that."""

    warmup_s: float = 180.0
    interval_s: float = 30.0
    silence_s: float = 3.0
    reaction_s: float = 30.0
    away_grace_s: float = 10.0
    abandon_s: float = 3600.0
    pause_s: float = 0.8
    pause_cap_s: float = 1.5
    context: int = 10
    event_context: int = 20


@dataclass(slots=True)
class Capture:
    """What was selected, and what was said since. Lists of final texts, oldest first."""

    recommendation_id: str
    option: int
    script: str
    selected_at: float
    agent: list[str] = field(default_factory=list)
    customer: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Asked:
    """The generation in flight: why, for which selection, and where to go back to if it fails."""

    trigger: Trigger
    at: float
    selection: str | None
    came_from: CallState
    considered: int


@dataclass(slots=True)
class CallCoach:
    """One live call. Everything but `transcript` is saved and restored; times are seconds since the epoch."""

    started_at: float
    timing: CallTiming = field(default_factory=CallTiming)
    mode: Mode = Mode.AUTO
    language: str = "en"
    playbook: str | None = None
    verbosity: Verbosity = Verbosity.NORMAL
    muted: bool = False
    placeholders: dict[str, str] = field(default_factory=dict)

    state: CallState = CallState.WARMUP
    stage: Stage = Stage.GREETING
    turn: int = 0
    tip_due: float = 0.0
    silence_due: float | None = None
    reaction_due: float | None = None
    away_since: float | None = None
    last_heard_at: float | None = None
    new_since: float | None = None
    considered: int = 0
    noteworthy: bool = False
    refused: bool = False
    converted: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    capture: Capture | None = None
    asked: Asked | None = None
    answered_selection: str | None = None
    draft_turn: int | None = None
    tips: list[ShownTip] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)

    @classmethod
    def begin(cls, now: float, timing: CallTiming, **choices: object) -> CallCoach:
        """A call that starts now. `choices`: mode, language, playbook, verbosity, placeholders."""
        return cls(started_at=now, timing=timing, tip_due=now + timing.warmup_s, **choices)  # type: ignore[arg-type]

    @property
    def ended(self) -> bool:
        return self.state is CallState.ENDED

    @property
    def deadline(self) -> float | None:
        """When the next Tick is wanted (seconds since the epoch), or None."""
        return min(self._timers(), default=None)

    def receive(self, event: CallEvent, now: float) -> list[CallEffect]:
        """Apply one event. A refused one raises (NotFound, Invalid, Conflict) and changes nothing."""
        if self.ended:
            return self._after_the_end(event)
        match event:
            case Heard():
                return self._heard(event, now)
            case SpeechNoticed():
                self.last_heard_at = now
                return []
            case OptionSelected():
                return self._select(event, now)
            case NextTipWanted():
                return self._next_tip(event, now)
            case AlternativeWanted():
                return self._alternative(event, now)
            case ModeSet():
                return self._set_mode(event, now)
            case ClientCame():
                self.away_since = None
                return []
            case ClientLeft():
                self.away_since = now
                return []
            case TipReady():
                return self._tip_ready(event, now)
            case TipFailed():
                return self._tip_failed(event, now)
            case EndWanted():
                return self._end(event.status)
            case Tick():
                return self._tick(now)

    # --- what people say and do

    def _heard(self, event: Heard, now: float) -> list[CallEffect]:
        utterance, detection = event.utterance, event.detection
        self.transcript.append(utterance)
        self.last_heard_at = now
        if self.new_since is None:
            self.new_since = now
        self.facts = dict(event.facts)
        self.stage = stages.advance(self.stage, detection, utterance.speaker)
        if utterance.speaker is Speaker.CUSTOMER:
            self._weigh(detection.objections, detection.signals)
            if hurts := (detection.evidence or {}).get(Signal.PAIN):
                self.facts.setdefault("pain", sentence_with(hurts, utterance.text))
        self._capture(utterance, now)
        return []

    def _weigh(self, objections: tuple[Objection, ...], signals: tuple[Signal, ...]) -> None:
        if Signal.REFUSAL in signals:
            self.refused = True
        elif _ENGAGED & set(signals):
            self.refused = False
        if objections or {Signal.BUYING, Signal.REFUSAL, Signal.POSTPONE, Signal.PAIN} & set(signals):
            self.noteworthy = True

    def _capture(self, utterance: Utterance, now: float) -> None:
        capture = self.capture
        if capture is None or self.state not in _CAPTURING:
            return
        agent_speaks = utterance.speaker is Speaker.AGENT
        if self.state is CallState.CAPTURING_AGENT:
            if agent_speaks:
                _keep(capture.agent, utterance.text)
                self.silence_due, self.reaction_due = now + self.timing.silence_s, None
            elif capture.agent:
                self._hear_customer(capture, utterance.text, now)
        elif not agent_speaks:
            self._hear_customer(capture, utterance.text, now)
        elif not capture.customer:
            _keep(capture.agent, utterance.text)

    def _hear_customer(self, capture: Capture, text: str, now: float) -> None:
        self.state = CallState.CAPTURING_CUSTOMER
        _keep(capture.customer, text)
        self.silence_due, self.reaction_due = now + self.timing.silence_s, None

    def _select(self, event: OptionSelected, now: float) -> list[CallEffect]:
        shown = self.find_tip(event.recommendation_id)
        if shown is None:
            raise NotFound("There is no such recommendation.", field="recommendationId")
        if not 1 <= event.option <= len(shown.tip.options):
            raise Invalid("selectedOption must be 1, 2 or 3.", field="selectedOption")
        kept = KeepSelection(event.recommendation_id, event.option)
        current = self.capture
        if (
            current
            and self.state in _CAPTURING
            and (current.recommendation_id, current.option) == (event.recommendation_id, event.option)
        ):
            return [kept]
        dropped = self._drop_generation()
        option = shown.tip.options[event.option - 1]
        self.capture = Capture(event.recommendation_id, event.option, option.script, now)
        self.state = CallState.CAPTURING_AGENT
        self.silence_due = None
        self.reaction_due = None
        self.draft_turn = None
        return [*dropped, kept]

    def _next_tip(self, event: NextTipWanted, now: float) -> list[CallEffect]:
        selection = event.recommendation_id
        if self._answers_already(selection):
            return []
        known = self.find_tip(selection) if selection else None
        capture = self.capture
        script = event.script or (capture.script if capture else "")
        if not script and known is not None:
            script = known.tip.options[0].script
        exchange = Exchange(
            suggested=script,
            agent_words=event.agent_words or _joined(capture.agent if capture else []),
            customer_words=event.customer_words or _joined(capture.customer if capture else []),
        )
        has_exchange = bool(exchange.agent_words or exchange.customer_words or exchange.suggested)
        return self._ask(
            Trigger.NEXT_TIP,
            now,
            selection=selection,
            exchange=exchange if has_exchange else None,
            history=event.history,
        )

    def _answers_already(self, selection: str | None) -> bool:
        """True when the tip for this turn is being made, or was shown and nothing was said since: the client
        and this machine both watch the capture, and must not produce two tips for one turn."""
        if self.state is CallState.GENERATING and self.asked is not None:
            explicit = self.asked.trigger in (Trigger.NEXT_TIP, Trigger.CAPTURE)
            return explicit and self.asked.selection == selection
        return (
            self.state is CallState.DISPLAYING
            and selection is not None
            and self.answered_selection == selection
            and not self._something_new()
        )

    def _alternative(self, event: AlternativeWanted, now: float) -> list[CallEffect]:
        in_flight = self.asked if self.state is CallState.GENERATING else None
        if in_flight is not None and in_flight.trigger is Trigger.ALTERNATIVE:
            return []
        return self._ask(
            Trigger.ALTERNATIVE, now, stage=event.stage or self.stage, alternative_to=event.instead_of
        )

    def _set_mode(self, event: ModeSet, now: float) -> list[CallEffect]:
        if event.mode is not None and event.mode is not self.mode:
            self.mode = event.mode
            if self.mode is Mode.AUTO and self.state is not CallState.WARMUP:
                shown_at = self.tips[-1].shown_at if self.tips else now
                self.tip_due = max(now, shown_at + self._interval_s)
        self.verbosity = event.verbosity or self.verbosity
        if event.muted is not None:
            self.muted = event.muted
        return [TellMode(self.mode, self.verbosity, self.muted)]

    def _end(self, status: EndStatus) -> list[CallEffect]:
        dropped = self._drop_generation()
        self.state = CallState.ENDED
        self.capture = None
        self.draft_turn = None
        return [*dropped, Finish(status)]

    def _after_the_end(self, event: CallEvent) -> list[CallEffect]:
        match event:
            case (
                Tick()
                | TipReady()
                | TipFailed()
                | ClientCame()
                | ClientLeft()
                | SpeechNoticed()
                | EndWanted()
            ):
                return []
            case _:
                raise Conflict("This conversation has ended.", field="conversationId")

    # --- generations

    def _ask(
        self,
        trigger: Trigger,
        now: float,
        *,
        selection: str | None = None,
        exchange: Exchange | None = None,
        stage: Stage | None = None,
        alternative_to: str | None = None,
        history: tuple[Utterance, ...] = (),
    ) -> list[CallEffect]:
        came_from = self.asked.came_from if self.asked else self.state
        dropped = self._drop_generation()
        self.turn += 1
        self.asked = Asked(trigger, now, selection, came_from, self.transcript.last_sequence)
        self.state = CallState.GENERATING
        self.silence_due = self.reaction_due = None
        self.draft_turn = None
        request = TipRequest(
            turn=self.turn,
            trigger=trigger,
            language=self.language,
            stage=stage or self.stage,
            utterances=self._context(exchange) or history,
            facts=dict(self.facts),
            placeholders=dict(self.placeholders),
            avoid=self._recent_scripts(),
            avoid_lines=self._recent_lines(),
            exchange=exchange,
            refused=self.refused,
            floor=Stage.CONVERSION if self.converted else None,
            playbook=self.playbook,
            alternative_to=alternative_to,
        )
        return [*dropped, AskTip(request)]

    def _context(self, exchange: Exchange | None) -> tuple[Utterance, ...]:
        return self.transcript.last(self.timing.event_context if exchange else self.timing.context)

    def _recent_scripts(self) -> tuple[str, ...]:
        return tuple(o.script for shown in self.tips[-RECENT_TIPS:] for o in shown.tip.options)

    def _recent_lines(self) -> tuple[str, ...]:
        recent = self.tips[-RECENT_TIPS:]
        return tuple(o.line_id for shown in recent for o in shown.tip.options if o.line_id)

    def _drop_generation(self) -> list[CallEffect]:
        if self.state is not CallState.GENERATING and self.draft_turn is None:
            return []
        turn = self.turn
        self.turn += 1
        self.asked = None
        self.draft_turn = None
        return [DropTip(turn)]

    def _tip_ready(self, event: TipReady, now: float) -> list[CallEffect]:
        if event.turn != self.turn:
            return []
        if self.draft_turn == event.turn:
            return self._upgrade(event)
        asked = self.asked
        if self.state is not CallState.GENERATING or asked is None:
            return []
        shown = ShownTip(
            recommendation_id=event.recommendation_id,
            tip=self._hold_stage(event.tip),
            trigger=asked.trigger,
            shown_at=now,
            heard_sequence=asked.considered,
            latency_ms=max(0, round((now - asked.at) * 1000)),
        )
        self._settle(asked, now)
        self.tips = [*self.tips, shown][-TIPS_KEPT:]
        self.draft_turn = event.turn if event.draft else None
        return [ShowTip(shown)]

    def _settle(self, asked: Asked, now: float) -> None:
        """The tip of `asked` is on screen: captures are cleared, the next periodic one is an interval off."""
        self.state = CallState.DISPLAYING
        self.asked = None
        self.capture = None
        self.answered_selection = asked.selection
        self.considered = asked.considered
        self.noteworthy = False
        newer = self.transcript.since(asked.considered)
        self.new_since = newer[0].heard_at if newer else None
        base = now if asked.trigger not in (Trigger.INTERVAL, Trigger.WARMUP) else asked.at
        self.tip_due = max(self.tip_due, base + self._interval_s)

    def _hold_stage(self, tip: Tip) -> Tip:
        """After CONVERSION there is no way back."""
        if self.converted and tip.stage is not Stage.CONVERSION:
            return replace(tip, stage=Stage.CONVERSION)
        self.converted = self.converted or tip.stage is Stage.CONVERSION
        return tip

    def _upgrade(self, event: TipReady) -> list[CallEffect]:
        shown = replace(self.tips[-1], tip=self._hold_stage(event.tip))
        if not event.draft:
            self.draft_turn = None
        self.tips[-1] = shown
        return [UpgradeTip(shown)]

    def _tip_failed(self, event: TipFailed, now: float) -> list[CallEffect]:
        if event.turn != self.turn:
            return []
        if self.draft_turn == event.turn:
            self.draft_turn = None
            return []
        asked = self.asked
        if asked is None:
            return []
        self.asked = None
        self.capture = None
        self.state = asked.came_from if asked.came_from in _RESTING else CallState.DISPLAYING
        if self.state is CallState.WARMUP and now >= self.tip_due:
            self.state = CallState.WAITING
        self.tip_due = max(self.tip_due, now + self._interval_s)
        if asked.trigger in (Trigger.INTERVAL, Trigger.WARMUP):
            return []
        return [TellTipFailed(alternative=asked.trigger is Trigger.ALTERNATIVE)]

    # --- time

    def _timers(self) -> Iterator[float]:
        if self.ended:
            return
        if self.away_since is not None:
            yield self.away_since + self.timing.abandon_s
        quiet_from = math.inf
        if self.away_since is not None:
            quiet_from = self.away_since + self.timing.away_grace_s
        for due in (self.silence_due, self.reaction_due, self._idle_capture_due(), self._tip_wake()):
            if due is not None and due < quiet_from:
                yield due

    def _tip_wake(self) -> float | None:
        """When the next unasked tip may come, or None while it may not."""
        if self.muted or self.state not in _RESTING:
            return None
        if self.mode is Mode.EVENT_DRIVEN:
            return self.tip_due if self.state is CallState.WARMUP else None
        if not self._something_new() or (self.verbosity is Verbosity.LOW and not self.noteworthy):
            return None
        eligible = max(self.tip_due, self.new_since or self.tip_due)
        pause_over = (self.last_heard_at or 0.0) + self.timing.pause_s
        return max(eligible, min(pause_over, eligible + self.timing.pause_cap_s))

    def _idle_capture_due(self) -> float | None:
        """In auto mode a selection that is never spoken must not hold the periodic tips for ever."""
        if self.state is not CallState.CAPTURING_AGENT or self.mode is not Mode.AUTO:
            return None
        if self.capture is None or self.capture.agent:
            return None
        return max(self.tip_due, self.capture.selected_at + self.timing.reaction_s)

    def _something_new(self) -> bool:
        return self.transcript.last_sequence > self.considered

    @property
    def _interval_s(self) -> float:
        return self.timing.interval_s * {"low": 2.0, "normal": 1.0, "high": 0.5}[self.verbosity.value]

    def _away(self, now: float) -> bool:
        return self.away_since is not None and now >= self.away_since + self.timing.away_grace_s

    def _tick(self, now: float) -> list[CallEffect]:
        if self.away_since is not None and now >= self.away_since + self.timing.abandon_s:
            return self._end(EndStatus.ABANDONED)
        if self._away(now):
            return []
        if _past(self.silence_due, now):
            self.silence_due = None
            return self._silence(now)
        if _past(self.reaction_due, now):
            self.reaction_due = None
            return self._captured(now)
        if _past(self._idle_capture_due(), now):
            self.state, self.capture = CallState.DISPLAYING, None
        if _past(self._tip_wake(), now):
            opening = self.state is CallState.WARMUP
            return self._ask(Trigger.WARMUP if opening else Trigger.INTERVAL, now)
        return []

    def _silence(self, now: float) -> list[CallEffect]:
        if self.state is CallState.CAPTURING_AGENT:
            self.state = CallState.CAPTURING_CUSTOMER
            self.reaction_due = now + self.timing.reaction_s
            return []
        return self._captured(now)

    def _captured(self, now: float) -> list[CallEffect]:
        capture = self.capture
        if capture is None:
            return []
        if self.muted:
            self.state, self.capture = CallState.DISPLAYING, None
            return []
        exchange = Exchange(capture.script, _joined(capture.agent), _joined(capture.customer))
        return self._ask(Trigger.CAPTURE, now, selection=capture.recommendation_id, exchange=exchange)

    def wake_up(self, now: float) -> None:
        """After a restore: nobody listens yet, and no generation survived; a captured turn is asked again as
        soon as somebody does."""
        self.away_since = self.away_since or now
        self.draft_turn = None
        if self.state is not CallState.GENERATING:
            return
        came_from = self.asked.came_from if self.asked else CallState.DISPLAYING
        self.asked = None
        if self.capture is not None and self.capture.agent:
            self.state, self.silence_due = CallState.CAPTURING_CUSTOMER, now
        else:
            self.state = came_from if came_from in _RESTING else CallState.DISPLAYING

    # --- reading

    def find_tip(self, recommendation_id: str) -> ShownTip | None:
        for shown in reversed(self.tips):
            if shown.recommendation_id == recommendation_id:
                return shown
        return None


def _keep(words: list[str], text: str) -> None:
    words.append(text)
    del words[:-CAPTURED_WORDS]


def _joined(words: list[str]) -> str:
    return " ".join(words)


def _past(due: float | None, now: float) -> bool:
    return due is not None and now >= due
