"""A simulated talk as a pure machine: event and time in, effects out, `deadline` says when to be woken.

Transitions (contract simulation.md §5, §8; what is not listed changes nothing):

    status     on                                      becomes    and
    TALKING    customer spoke, two messages or more    same       evaluation due: 2 s after the last one, 5 s
                                                                  after the evaluation before
    TALKING    evaluation due, none under way          same       ask for a verdict
    TALKING    verdict of this number                  same       keep it, tell the attitude, steer
    TALKING    verdict failed, or none came in time    same       attitude stays, stable; steer
    TALKING    verdict wants the end                   FAREWELL   steer, respond; `supervisor:<outcome>`
    TALKING    verdict or failure at the limit         FAREWELL   steer, respond; `limit`
    TALKING    a breach of the rules                   FAREWELL   steer, respond; compliance_fail
    TALKING    the model's end_conversation            CLOSING    `end_conversation:<outcome>`
    FAREWELL   the model's end_conversation            CLOSING    outcome and trigger stay
    FAREWELL   no call within 15 s                     ENDED      forced
    CLOSING    played to the end, or after ~5 s        ENDED
    TALKING    away for longer than the grace          ENDED      no outcome, `disconnect`
    FAREWELL, CLOSING   the line drops                 ENDED      as decided
    TALKING    the session's time is over              ENDED      no outcome, `limit`
    TALKING    the client wants the end                ENDED      no outcome, `client`
    FAREWELL, CLOSING   the client wants the end       ENDED      as decided
    FAREWELL, CLOSING   a breach comes to light        same       its outcome becomes compliance_fail
    any        a verdict of another number             same       dropped, logged while the talk is alive

An evaluation that is due too early, or while another is under way, or while nobody listens, is put off and
never dropped. All timers are fields: they are saved with the state, and an ended talk has none. What was said
is kept elsewhere; this counts it. Times are seconds of any clock that does not go back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coach_server.domain.simulation import ending
from coach_server.domain.simulation.attitude import clamp, direction_of, shown
from coach_server.domain.simulation.effects import (
    AskVerdict,
    CameBack,
    ClientEvent,
    End,
    EndAsked,
    Heard,
    Keep,
    Left,
    LogEntry,
    LogKind,
    PlaybackDone,
    Ready,
    Respond,
    Started,
    Steer,
    SteerKind,
    TalkEffect,
    TalkEvent,
    TellAttitude,
    Tick,
    ToolEnd,
    VerdictFailed,
    VerdictReady,
)
from coach_server.domain.simulation.persona import SimPersona, SimScenario
from coach_server.domain.simulation.scene import TalkSoFar
from coach_server.domain.simulation.talk import (
    Direction,
    EventType,
    Mood,
    Outcome,
    Role,
    SessionEvent,
    TalkPhase,
    Utterance,
    Verdict,
)

MOODS_KEPT = 200
MOST_PLAYING_S = 15.0


class TalkStatus(StrEnum):
    TALKING = "talking"
    FAREWELL = "farewell"
    CLOSING = "closing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class TalkTiming:
    """Seconds. `put_off_s`: the longest an evaluation waits for a customer who speaks on and on; `verdict_s`:
    when a verdict is given up; `farewell_s`: for the farewell to be heard when nobody reports its end;
    `force_s`: for the model to say it; `grace_s`: for a dropped line to come back; `session_s`: the longest
    talk."""

    debounce_s: float = 2.0
    interval_s: float = 5.0
    put_off_s: float = 6.0
    verdict_s: float = 8.0
    farewell_s: float = 5.0
    force_s: float = 15.0
    grace_s: float = 60.0
    session_s: float = 1800.0
    least_messages: int = 2


@dataclass(slots=True)
class SimulationTalk:
    """One talk; everything in it is saved and restored. `attitude`: a fraction 0..10. `evaluated`: the last
    sequence of the last evaluation that was asked for; `asked`: the number of the one under way."""

    started_at: float
    initial: float
    timing: TalkTiming = field(default_factory=TalkTiming)
    max_exchanges: int = 10

    status: TalkStatus = TalkStatus.TALKING
    attitude: float = 5.0
    direction: Direction = Direction.STABLE
    phase: TalkPhase = TalkPhase.SCEPTICAL
    moods: list[Mood] = field(default_factory=list)
    messages: int = 0
    exchanges: int = 0
    last_role: Role | None = None
    last_sequence: int = 0
    evaluated: int = 0
    evaluations: int = 0
    number: int = 0
    asked: int | None = None
    asked_at: float | None = None
    evaluate_due: float | None = None
    waiting_since: float | None = None
    force_due: float | None = None
    close_due: float | None = None
    away_since: float | None = None
    outcome: Outcome | None = None
    trigger: str | None = None
    ended_at: float | None = None

    @classmethod
    def begin(
        cls, persona: SimPersona, scenario: SimScenario, now: float, timing: TalkTiming | None = None
    ) -> SimulationTalk:
        """A talk with that persona that starts now."""
        initial = clamp(persona.initial_attitude, 0.0)
        return cls(now, initial, timing or TalkTiming(), max(1, scenario.max_exchanges), attitude=initial)

    @property
    def ended(self) -> bool:
        return self.status is TalkStatus.ENDED

    @property
    def is_ending(self) -> bool:
        """The end is decided: nothing is injected or evaluated any more."""
        return self.status is not TalkStatus.TALKING

    @property
    def is_scored(self) -> bool:
        return ending.is_scored(self.exchanges)

    @property
    def standing(self) -> Steer:
        """How the customer feels now, for a model that takes over."""
        return Steer(
            SteerKind.FAREWELL if self.status is TalkStatus.FAREWELL else SteerKind.STATE,
            shown(self.attitude),
            self.direction,
            phase=self.phase,
            outcome=self.outcome if self.status is TalkStatus.FAREWELL else None,
        )

    @property
    def mood_history(self) -> list[int]:
        """The attitude at the start and after each evaluation, rounded (seed: `moodHistory`)."""
        return [shown(self.initial), *(shown(mood.value) for mood in self.moods)]

    @property
    def deadline(self) -> float | None:
        """When the next Tick is wanted, or None: never."""
        return min(self._timers(), default=None)

    def receive(self, event: TalkEvent, now: float) -> list[TalkEffect]:
        """Apply one event. After the end nothing happens any more."""
        if self.ended:
            return []
        match event:
            case Started():
                self.started_at = now
                return [self._system(now, "Session_Start")]
            case Ready():
                return [self._system(now, "Persona_Loaded")]
            case Heard():
                return self._heard(event, now)
            case ClientEvent():
                return [Keep(event.event)]
            case VerdictReady():
                return self._verdict(event.number, event.verdict, now)
            case VerdictFailed():
                return self._failed(event.number, now)
            case EndAsked():
                return self._end(now, self.trigger or ending.CLIENT)
            case ToolEnd():
                return self._tool(event, now)
            case PlaybackDone():
                return self._finish(now) if self.status is TalkStatus.CLOSING else []
            case Left():
                return self._left(now)
            case CameBack():
                self.away_since = None
                return []
            case Tick():
                return self._tick(now)

    # --- what is said

    def _heard(self, event: Heard, now: float) -> list[TalkEffect]:
        utterance = event.utterance
        self._count(utterance)
        kept: list[TalkEffect] = [self._forbidden(now, use.word) for use in event.sight.forbidden]
        if event.sight.breach is not None:
            return [*kept, *self._breach(event.sight.breach.value, now)]
        if utterance.role is Role.AVATAR and not self.is_ending:
            self._put_evaluation(now)
        return kept

    def _count(self, utterance: Utterance) -> None:
        """An exchange is an answer of the customer to the trainee; its opening words are none."""
        self.messages += 1
        self.last_sequence = max(self.last_sequence, utterance.sequence)
        if utterance.role is Role.AVATAR and self.last_role is Role.TRAINEE:
            self.exchanges += 1
        self.last_role = utterance.role

    def _put_evaluation(self, now: float) -> None:
        if self.messages < self.timing.least_messages:
            return
        if self.waiting_since is None:
            self.waiting_since = now
        due = min(now + self.timing.debounce_s, self.waiting_since + self.timing.put_off_s)
        if self.asked_at is not None:
            due = max(due, self.asked_at + self.timing.interval_s)
        self.evaluate_due = due

    def _breach(self, name: str, now: float) -> list[TalkEffect]:
        kept = self._event(now, EventType.ERROR, {"errorType": "compliance", "breach": name})
        if self.outcome is Outcome.COMPLIANCE_FAIL:
            return [kept]
        if not self.is_ending:
            trigger = ending.by_supervisor(Outcome.COMPLIANCE_FAIL)
            return [kept, *self._farewell(Outcome.COMPLIANCE_FAIL, trigger, "", now)]
        # Words of the trainee may come after the answer to them.
        self.outcome = Outcome.COMPLIANCE_FAIL
        self.trigger = ending.by_supervisor(Outcome.COMPLIANCE_FAIL)
        return [kept]

    # --- evaluations

    def _ask(self, now: float) -> list[TalkEffect]:
        self.number += 1
        self.asked, self.asked_at = self.number, now
        since, self.evaluated = self.evaluated, self.last_sequence
        self.evaluate_due = self.waiting_since = None
        ask = AskVerdict(self.number, since, self.evaluated)
        return [self._log(now, LogKind.ASKED, number=self.number, since=since, upto=self.evaluated), ask]

    def _verdict(self, number: int, verdict: Verdict, now: float) -> list[TalkEffect]:
        if number != self.asked or self.is_ending:
            return [self._log(now, LogKind.STALE, number=number)]
        self.asked = None
        value = clamp(verdict.attitude, self.attitude)
        before, self.direction = self.attitude, direction_of(value - self.attitude)
        self.attitude, self.phase = value, verdict.phase
        log = self._log(
            now,
            LogKind.VERDICT,
            number=number,
            attitude=round(value, 2),
            before=round(before, 2),
            direction=self.direction.value,
            guidance=verdict.guidance,
            topics=list(verdict.topics),
            phase=verdict.phase.value,
            isOnTrack=verdict.is_on_track,
            shouldEnd=verdict.should_end,
            endReason=verdict.end_reason.value if verdict.end_reason else None,
            source=verdict.source,
        )
        return [log, *self._evaluated(verdict, now)]

    def _failed(self, number: int, now: float) -> list[TalkEffect]:
        if number != self.asked or self.is_ending:
            return [self._log(now, LogKind.STALE, number=number)]
        self.asked = None
        self.direction = Direction.STABLE
        same = Verdict(self.attitude, Direction.STABLE, "", phase=self.phase, source="none")
        return [self._log(now, LogKind.FAILED, number=number), *self._evaluated(same, now)]

    def _evaluated(self, verdict: Verdict, now: float) -> list[TalkEffect]:
        self.evaluations += 1
        mood = Mood(self._time(now), self.attitude, self.direction)
        self.moods = [*self.moods, mood][-MOODS_KEPT:]
        told: dict[str, Any] = {
            "attitude": shown(self.attitude),
            "direction": self.direction.value,
            "guidance": verdict.guidance,
        }
        effects: list[TalkEffect] = [
            Keep(mood),
            self._event(now, EventType.SUPERVISOR, told),
            TellAttitude(shown(self.attitude), self.direction),
        ]
        return [*effects, *self._follow(verdict, now)]

    def _follow(self, verdict: Verdict, now: float) -> list[TalkEffect]:
        """End the talk, or go on with the customer in its new mood."""
        wanted = self._wanted_end(verdict)
        if wanted is not None and self.away_since is None:
            outcome, trigger = wanted
            return self._farewell(outcome, trigger, verdict.guidance, now)
        if wanted is not None:
            # Nobody is there to be told goodbye: look again when somebody is.
            self.evaluate_due = max(now, (self.asked_at or now) + self.timing.interval_s)
        return self._steer(SteerKind.STATE, verdict, None, now)

    def _wanted_end(self, verdict: Verdict) -> tuple[Outcome, str] | None:
        outcome = verdict.end_reason if verdict.should_end else None
        too_early = outcome is Outcome.WALKED_AWAY and self.evaluations < 2
        if outcome is not None and not too_early:
            return outcome, ending.by_supervisor(outcome)
        if self.exchanges >= self.max_exchanges:
            return ending.at_limit(self.attitude, self.direction), ending.LIMIT
        return None

    def _steer(
        self, kind: SteerKind, verdict: Verdict, outcome: Outcome | None, now: float
    ) -> list[TalkEffect]:
        steer = Steer(
            kind,
            shown(self.attitude),
            self.direction,
            verdict.guidance,
            verdict.topics,
            verdict.is_on_track,
            verdict.phase,
            outcome,
        )
        log = self._log(now, LogKind.STEER, steer=kind.value, outcome=outcome.value if outcome else None)
        return [log, steer]

    # --- the end

    def _farewell(self, outcome: Outcome, trigger: str, guidance: str, now: float) -> list[TalkEffect]:
        self._stop_evaluating()
        self.status = TalkStatus.FAREWELL
        self.outcome, self.trigger = outcome, trigger
        self.force_due = now + self.timing.force_s
        words = Verdict(self.attitude, self.direction, guidance, phase=self.phase)
        return [*self._steer(SteerKind.FAREWELL, words, outcome, now), Respond()]

    def _tool(self, event: ToolEnd, now: float) -> list[TalkEffect]:
        if self.status is TalkStatus.CLOSING:
            return []
        log = self._log(now, LogKind.TOOL, reason=ending.known_reason(event.reason))
        if self.status is TalkStatus.TALKING:
            said = ending.outcome_of(event.reason)
            self.outcome = said or ending.at_limit(self.attitude, self.direction)
            self.trigger = ending.by_tool(self.outcome)
        self._stop_evaluating()
        self.status = TalkStatus.CLOSING
        self.force_due = None
        self.close_due = now + self._farewell_s(event.playing_s)
        return [log]

    def _farewell_s(self, playing_s: float | None) -> float:
        if playing_s is None or not math.isfinite(playing_s):
            return self.timing.farewell_s
        return max(self.timing.farewell_s, min(playing_s, MOST_PLAYING_S))

    def _left(self, now: float) -> list[TalkEffect]:
        if self.is_ending:
            return self._finish(now)
        self.away_since = now if self.away_since is None else self.away_since
        return []

    def _finish(self, now: float) -> list[TalkEffect]:
        return self._end(now, self.trigger or ending.LIMIT)

    def _end(self, now: float, trigger: str) -> list[TalkEffect]:
        self._stop_evaluating()
        self.status, self.trigger, self.ended_at = TalkStatus.ENDED, trigger, now
        self.force_due = self.close_due = self.away_since = None
        outcome = self.outcome.value if self.outcome else None
        return [
            self._log(now, LogKind.END, outcome=outcome, trigger=trigger),
            self._system(now, "Session_End"),
            End(self.outcome, trigger, self.is_scored),
        ]

    def _stop_evaluating(self) -> None:
        self.asked = self.evaluate_due = self.waiting_since = None

    # --- time

    def _timers(self) -> Iterator[float]:
        """The times at which something is to happen, by themselves."""
        if self.ended:
            return
        for due in (self.force_due, self.close_due):
            if due is not None:
                yield due
        if self.is_ending:
            return
        yield self.started_at + self.timing.session_s
        if self.away_since is not None:
            yield self.away_since + self.timing.grace_s
        if self.asked is not None and self.asked_at is not None:
            yield self.asked_at + self.timing.verdict_s
        elif self.evaluate_due is not None and self.away_since is None:
            yield self.evaluate_due

    def _tick(self, now: float) -> list[TalkEffect]:
        deadline = self.deadline
        if deadline is None or now < deadline:
            return []
        if self.is_ending:
            forced = self.status is TalkStatus.FAREWELL
            log = [self._log(now, LogKind.FORCED, after_s=self.timing.force_s)] if forced else []
            return [*log, *self._finish(now)]
        # What comes first counts, however late anybody looks.
        over_at = self.started_at + self.timing.session_s
        gone_at = math.inf if self.away_since is None else self.away_since + self.timing.grace_s
        if min(over_at, gone_at) <= now:
            return self._end(now, ending.LIMIT if over_at < gone_at else ending.DISCONNECT)
        if self.asked is not None:
            return self._failed(self.asked, now)
        return self._ask(now)

    # --- records

    def _time(self, now: float) -> float:
        return max(0.0, round(now - self.started_at, 3))

    def _log(self, now: float, kind: LogKind, **data: Any) -> Keep:
        return Keep(LogEntry(self._time(now), kind, data))

    def _event(self, now: float, type: EventType, data: Any) -> Keep:
        return Keep(SessionEvent(self._time(now), type, data))

    def _system(self, now: float, what: str) -> Keep:
        return self._event(now, EventType.SYSTEM, what)

    def _forbidden(self, now: float, word: str) -> Keep:
        return self._event(now, EventType.ERROR, {"errorType": "forbidden_word", "word": word})


def talk_so_far(
    talk: SimulationTalk, asked: AskVerdict, utterances: Sequence[Utterance], events: Sequence[SessionEvent]
) -> TalkSoFar:
    """What the supervisor is shown for this question: what was said up to it, and nothing that came after,
    which is for the next one to weigh."""
    return TalkSoFar(
        utterances=tuple(one for one in utterances if one.sequence <= asked.upto),
        events=tuple(events),
        attitude=talk.attitude,
        initial=talk.initial,
        attitudes=tuple(mood.value for mood in talk.moods),
        exchanges=talk.exchanges,
        since=asked.since,
    )
