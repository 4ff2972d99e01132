"""The live call's machine, row by row of its table and defect by defect of live-coach.md §12."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach_server.domain.call import CallCoach, CallState, CallTiming
from coach_server.domain.detection import Detection, Objection, Signal
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
    TellTipFailed,
    Tick,
    TipFailed,
    TipReady,
    UpgradeTip,
)
from coach_server.domain.tip import (
    Label,
    ShownTip,
    Source,
    Stage,
    Tip,
    TipOption,
    TipRequest,
    Trigger,
    Verbosity,
)
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.errors import CoachError, Conflict, Invalid, NotFound

START = 1_700_000_000.0
AGENT, CUSTOMER = Speaker.AGENT, Speaker.CUSTOMER


def a_tip(number: int = 1, stage: Stage = Stage.DISCOVERY) -> Tip:
    options = tuple(TipOption(label, f"{label.value} script {number}") for label in Label)
    return Tip(stage, "Ask why", "Because.", options, Source.OFFLINE)  # type: ignore[arg-type]


class Call:
    """A machine and the time it lives in. Tips come at once unless `slow`."""

    def __init__(self, *, slow: bool = False, **choices: object) -> None:
        self.now = START
        self.slow = slow
        self.machine = CallCoach.begin(START, CallTiming(), **choices)
        self.asked: list[tuple[float, TipRequest]] = []
        self.shown: list[tuple[float, ShownTip]] = []
        self.effects: list[CallEffect] = []
        self.stage_of_tips = Stage.DISCOVERY

    def do(self, event: CallEvent) -> list[CallEffect]:
        effects = self.machine.receive(event, self.now)
        self._note(effects)
        return effects

    def _note(self, effects: Iterable[CallEffect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            if isinstance(effect, AskTip):
                self.asked.append((self.now - START, effect.request))
                if not self.slow:
                    self.tip_comes(effect.request.turn)
            elif isinstance(effect, ShowTip):
                self.shown.append((self.now - START, effect.shown))

    def tip_comes(self, turn: int, *, draft: bool = False, tip: Tip | None = None) -> list[CallEffect]:
        return self.do(TipReady(turn, f"rec-{turn}", tip or a_tip(turn, self.stage_of_tips), draft))

    def say(self, speaker: Speaker, text: str = "words", detection: Detection | None = None) -> None:
        sequence = self.machine.transcript.last_sequence + 1
        utterance = Utterance(sequence, speaker, text, self.now, self.now)
        self.do(Heard(utterance, detection or Detection(), self.machine.facts))

    def wait(self, seconds: float) -> None:
        """Let time pass, waking the machine at each of its deadlines."""
        end = self.now + seconds
        woken = 0
        while (due := self.machine.deadline) is not None and due <= end:
            self.now = max(self.now, due)
            self.do(Tick())
            woken += 1
            assert woken < 10_000, "the machine wants to be woken for ever"
        self.now = end

    def select(self, option: int = 1) -> list[CallEffect]:
        return self.do(OptionSelected(self.shown[-1][1].recommendation_id, option))

    @property
    def tip_times(self) -> list[float]:
        return [round(at, 3) for at, _ in self.shown]


def in_capture() -> Call:
    """An event-driven call whose first tip was just selected."""
    call = Call(mode=Mode.EVENT_DRIVEN)
    call.wait(180)
    call.select(2)
    return call


# --- auto mode


def test_tips_come_at_180_210_240_and_270_seconds_of_a_lively_call() -> None:
    call = Call()
    for _ in range(27):
        call.wait(9)
        call.say(AGENT)
        call.wait(1)
    assert call.tip_times == [180, 210, 240, 270]
    assert [request.trigger for _, request in call.asked] == [
        Trigger.WARMUP,
        Trigger.INTERVAL,
        Trigger.INTERVAL,
        Trigger.INTERVAL,
    ]


def test_nothing_is_said_about_an_empty_call() -> None:
    call = Call()
    call.wait(3600)
    assert call.asked == []


def test_no_tip_comes_while_nothing_new_was_said() -> None:
    call = Call()
    call.say(CUSTOMER)
    call.wait(600)
    assert call.tip_times == [180]


def test_after_a_lull_the_tip_comes_at_the_first_pause_after_new_words() -> None:
    call = Call()
    call.say(CUSTOMER)
    call.wait(300)
    call.say(CUSTOMER)
    call.wait(5)
    assert call.tip_times == [180, 300.8]


def test_a_tip_waits_for_a_pause_but_not_for_long() -> None:
    call = Call()
    call.wait(179.5)
    call.say(AGENT)
    call.wait(0.7)
    assert call.tip_times == []
    call.wait(0.2)
    assert call.tip_times == [180.3]
    talkative = Call()
    talkative.wait(179)
    talkative.say(CUSTOMER)
    for _ in range(10):
        talkative.wait(0.5)
        talkative.do(SpeechNoticed())
    assert talkative.tip_times == [181.5]


def test_ending_in_the_warm_up_leaves_no_timer() -> None:
    call = Call()
    call.say(AGENT)
    call.wait(60)
    assert call.do(EndWanted()) == [Finish(EndStatus.ENDED)]
    assert call.machine.deadline is None
    call.wait(3600)
    assert call.asked == []


def test_ending_during_a_capture_leaves_no_timer_and_a_late_tip_is_dropped() -> None:
    call = in_capture()
    call.say(AGENT)
    call.slow = True
    call.wait(40)
    turn = call.machine.turn
    call.do(EndWanted())
    assert DropTip(turn) in call.effects
    assert call.tip_comes(turn) == []
    assert call.machine.deadline is None


def test_a_second_end_does_nothing() -> None:
    call = Call()
    call.do(EndWanted())
    assert call.do(EndWanted()) == []


@pytest.mark.parametrize(
    "event",
    [
        Heard(Utterance(9, AGENT, "late", 0, 0), Detection(), {}),
        OptionSelected("rec-1", 1),
        NextTipWanted(),
        AlternativeWanted(),
        ModeSet(Mode.AUTO),
    ],
    ids=lambda event: type(event).__name__,
)
def test_after_the_end_requests_are_refused(event: CallEvent) -> None:
    call = Call()
    call.do(EndWanted())
    with pytest.raises(Conflict):
        call.do(event)


# --- the event-driven cycle


def test_event_driven_greets_after_the_warm_up_and_then_waits_for_the_agent() -> None:
    call = Call(mode=Mode.EVENT_DRIVEN)
    call.wait(1000)
    assert call.tip_times == [180]
    assert call.asked[0][1].trigger is Trigger.WARMUP
    assert call.machine.state is CallState.DISPLAYING


def test_a_selection_starts_a_capture_with_its_script() -> None:
    call = Call(mode=Mode.EVENT_DRIVEN)
    call.wait(180)
    assert call.select(3) == [KeepSelection("rec-1", 3)]
    assert call.machine.state is CallState.CAPTURING_AGENT
    assert call.machine.capture is not None
    assert call.machine.capture.script == "Contextual script 1"


def test_three_seconds_of_silence_end_the_agents_turn_and_each_word_restarts_them() -> None:
    call = in_capture()
    call.say(AGENT, "one")
    call.wait(2.9)
    call.say(AGENT, "two")
    call.wait(2.9)
    assert call.machine.state is CallState.CAPTURING_AGENT
    call.wait(0.1)
    assert call.machine.state is CallState.CAPTURING_CUSTOMER


def test_the_captured_turn_goes_to_the_coach_as_it_was_suggested_said_and_answered() -> None:
    call = in_capture()
    call.say(AGENT, "I said it my way")
    call.wait(3)
    call.say(CUSTOMER, "hm")
    call.wait(1)
    call.say(CUSTOMER, "maybe")
    call.wait(3)
    _, request = call.asked[-1]
    assert request.trigger is Trigger.CAPTURE
    assert request.exchange is not None
    assert request.exchange.suggested == "Explanative script 1"
    assert request.exchange.agent_words == "I said it my way"
    assert request.exchange.customer_words == "hm maybe"
    assert call.machine.state is CallState.DISPLAYING
    assert call.machine.capture is None


def test_a_customer_who_answers_within_the_agents_silence_is_heard() -> None:
    call = in_capture()
    call.say(AGENT, "question")
    call.wait(1)
    call.say(CUSTOMER, "answer")
    assert call.machine.state is CallState.CAPTURING_CUSTOMER
    call.wait(3)
    exchange = call.asked[-1][1].exchange
    assert exchange is not None and exchange.customer_words == "answer"


def test_without_a_reaction_the_tip_comes_after_thirty_seconds_with_what_there_is() -> None:
    call = in_capture()
    call.say(AGENT)
    call.wait(3 + 29.9)
    assert len(call.asked) == 1
    call.wait(0.1)
    exchange = call.asked[-1][1].exchange
    assert exchange is not None and exchange.customer_words == ""


def test_a_late_word_of_the_customer_replaces_the_reaction_timer_by_silence() -> None:
    call = in_capture()
    call.say(AGENT)
    call.wait(3 + 29)
    call.say(CUSTOMER, "just in time")
    call.wait(2.9)
    assert len(call.asked) == 1
    call.wait(0.1)
    assert len(call.asked) == 2


def test_a_periodic_tip_never_interrupts_a_capture() -> None:
    call = Call()
    call.say(CUSTOMER)
    call.wait(180)
    call.select()
    call.wait(10)
    call.say(AGENT, "still talking")
    for _ in range(40):
        call.wait(2)
        call.say(AGENT, "and on")
    assert call.tip_times == [180]
    assert call.machine.state is CallState.CAPTURING_AGENT


def test_in_auto_mode_a_selection_that_is_never_spoken_lets_periodic_tips_go_on() -> None:
    call = Call()
    call.say(CUSTOMER)
    call.wait(180)
    call.select()
    call.wait(5)
    call.say(CUSTOMER, "something else")
    call.wait(60)
    assert call.machine.state is CallState.DISPLAYING
    assert len(call.shown) == 2


def test_a_tip_of_an_earlier_turn_can_still_be_selected() -> None:
    call = Call(mode=Mode.EVENT_DRIVEN)
    call.wait(180)
    call.do(AlternativeWanted())
    assert call.do(OptionSelected("rec-1", 1)) == [KeepSelection("rec-1", 1)]


def test_a_selection_of_an_unknown_tip_or_option_is_refused_and_changes_nothing() -> None:
    call = Call(mode=Mode.EVENT_DRIVEN)
    call.wait(180)
    with pytest.raises(NotFound):
        call.do(OptionSelected("nobody's", 1))
    for option in (0, 4, -1):
        with pytest.raises(Invalid):
            call.do(OptionSelected("rec-1", option))
    assert call.machine.state is CallState.DISPLAYING


def test_a_double_click_does_not_clear_what_was_captured() -> None:
    call = in_capture()
    call.say(AGENT, "already speaking")
    call.select(2)
    assert call.machine.capture is not None
    assert call.machine.capture.agent == ["already speaking"]


def test_selecting_another_option_starts_the_capture_anew() -> None:
    call = in_capture()
    call.say(AGENT, "old")
    call.select(1)
    assert call.machine.capture is not None
    assert (call.machine.capture.option, call.machine.capture.agent) == (1, [])


# --- asked for tips


def test_client_and_server_watching_one_capture_make_one_tip() -> None:
    call = in_capture()
    call.slow = True
    call.say(AGENT)
    call.wait(3)
    call.say(CUSTOMER, "reaction")
    call.wait(3)
    before = len(call.asked)
    assert call.do(NextTipWanted("rec-1", "script", "a", "b")) == []
    call.tip_comes(call.machine.turn)
    assert call.do(NextTipWanted("rec-1", "script", "a", "b")) == []
    assert len(call.asked) == before


def test_new_words_after_the_answer_make_the_same_selection_askable_again() -> None:
    call = in_capture()
    call.do(NextTipWanted("rec-1"))
    call.say(CUSTOMER, "and now?")
    call.do(NextTipWanted("rec-1"))
    assert [request.trigger for _, request in call.asked[1:]] == [Trigger.NEXT_TIP, Trigger.NEXT_TIP]


def test_a_request_supersedes_a_periodic_generation_and_its_late_result_is_dropped() -> None:
    call = Call(slow=True)
    call.say(CUSTOMER)
    call.wait(180)
    old = call.machine.turn
    effects = call.do(NextTipWanted(None, "", "my words", "their words"))
    assert effects[0] == DropTip(old)
    assert isinstance(effects[1], AskTip)
    assert call.tip_comes(old) == []
    assert call.tip_comes(call.machine.turn) != []


def test_many_clicks_ask_once() -> None:
    call = Call(slow=True)
    for _ in range(300):
        call.do(NextTipWanted("rec-x"))
        call.do(NextTipWanted("rec-x"))
    assert len(call.asked) == 1
    call.do(AlternativeWanted(Stage.VALUE_PROP, "line-1"))
    for _ in range(300):
        call.do(AlternativeWanted(Stage.VALUE_PROP, "line-1"))
    assert len(call.asked) == 2


def test_an_alternative_is_asked_for_the_stage_the_client_names() -> None:
    call = Call()
    call.do(AlternativeWanted(Stage.CLOSING, "close-2"))
    request = call.asked[-1][1]
    assert (request.trigger, request.stage, request.alternative_to) == (
        Trigger.ALTERNATIVE,
        Stage.CLOSING,
        "close-2",
    )


def test_an_asked_tip_is_given_time_to_be_read_before_the_next_periodic_one() -> None:
    call = Call()
    call.say(CUSTOMER)
    call.wait(180)
    call.wait(25)
    call.do(NextTipWanted())
    call.say(CUSTOMER, "more")
    call.wait(29)
    assert call.tip_times == [180, 205]
    call.wait(2)
    assert call.tip_times == [180, 205, 235]


def test_a_failed_request_is_told_and_a_failed_periodic_tip_is_not() -> None:
    call = Call(slow=True)
    call.say(CUSTOMER)
    call.wait(180)
    assert call.do(TipFailed(call.machine.turn)) == []
    assert call.machine.state is CallState.WAITING
    call.do(NextTipWanted())
    assert call.do(TipFailed(call.machine.turn)) == [TellTipFailed(alternative=False)]
    call.do(AlternativeWanted())
    assert call.do(TipFailed(call.machine.turn)) == [TellTipFailed(alternative=True)]


def test_after_a_failed_periodic_tip_the_next_one_comes_an_interval_later() -> None:
    call = Call(slow=True)
    call.say(CUSTOMER)
    call.wait(180)
    call.do(TipFailed(call.machine.turn))
    call.slow = False
    call.wait(29)
    assert call.tip_times == []
    call.wait(1)
    assert call.tip_times == [210]


def test_the_last_ten_tips_are_to_be_avoided() -> None:
    call = Call()
    for number in range(12):
        call.do(NextTipWanted(f"s{number}"))
    avoid = call.asked[-1][1].avoid
    assert len(avoid) == 30
    assert "Minimal script 1" not in avoid
    assert "Minimal script 11" in avoid


# --- drafts: two lanes, one tip


def test_the_models_tip_replaces_the_draft_under_the_same_id() -> None:
    call = Call(slow=True)
    call.do(NextTipWanted())
    turn = call.machine.turn
    call.tip_comes(turn, draft=True)
    better = a_tip(77)
    effects = call.tip_comes(turn, tip=better)
    assert isinstance(effects[0], UpgradeTip)
    assert effects[0].shown.recommendation_id == call.shown[0][1].recommendation_id
    assert effects[0].shown.tip == better
    assert call.tip_comes(turn, tip=a_tip(78)) == []


def test_a_draft_that_was_selected_is_not_changed_under_the_agents_finger() -> None:
    call = Call(slow=True)
    call.do(NextTipWanted())
    turn = call.machine.turn
    call.tip_comes(turn, draft=True)
    call.select()
    assert call.tip_comes(turn, tip=a_tip(77)) == []
    assert call.machine.capture is not None
    assert call.machine.capture.script == f"Minimal script {turn}"


# --- sense


def test_after_conversion_no_tip_goes_back() -> None:
    call = Call()
    call.stage_of_tips = Stage.CONVERSION
    call.do(NextTipWanted("a"))
    call.stage_of_tips = Stage.DISCOVERY
    call.do(NextTipWanted("b"))
    assert call.asked[-1][1].floor is Stage.CONVERSION
    assert call.shown[-1][1].tip.stage is Stage.CONVERSION


def test_a_clear_no_is_told_to_the_coach_until_the_customer_talks_on() -> None:
    call = Call()
    call.say(CUSTOMER, "no thanks", Detection(signals=(Signal.REFUSAL,)))
    call.do(NextTipWanted("a"))
    assert call.asked[-1][1].refused
    call.say(CUSTOMER, "we are fine, really")
    call.do(NextTipWanted("b"))
    assert call.asked[-1][1].refused
    call.say(CUSTOMER, "well, what would it cost?", Detection(signals=(Signal.QUESTION_OPEN,)))
    call.do(NextTipWanted("c"))
    assert not call.asked[-1][1].refused


def test_an_agent_who_says_no_is_no_refusal() -> None:
    call = Call()
    call.say(AGENT, "no", Detection(signals=(Signal.REFUSAL,)))
    assert not call.machine.refused


def test_muted_holds_unasked_tips_and_answers_asked_ones() -> None:
    call = Call()
    call.do(ModeSet(muted=True))
    call.say(CUSTOMER)
    call.wait(400)
    assert call.asked == []
    call.do(NextTipWanted())
    assert len(call.shown) == 1
    call.do(ModeSet(muted=False))
    call.say(CUSTOMER, "new")
    call.wait(60)
    assert len(call.shown) == 2


def test_low_verbosity_speaks_only_when_the_customer_gave_a_reason() -> None:
    call = Call(verbosity=Verbosity.LOW)
    call.say(CUSTOMER, "just chatting")
    call.wait(300)
    assert call.asked == []
    call.say(CUSTOMER, "too dear", Detection(objections=(Objection.PRICE,)))
    call.wait(2)
    assert len(call.shown) == 1


def test_high_verbosity_halves_the_interval() -> None:
    call = Call(verbosity=Verbosity.HIGH)
    for _ in range(21):
        call.wait(9)
        call.say(CUSTOMER)
        call.wait(1)
    assert call.tip_times == [180, 195, 210]


def test_switching_to_auto_starts_the_periodic_tips_and_back_stops_them() -> None:
    call = Call(mode=Mode.EVENT_DRIVEN)
    call.wait(180)
    call.do(ModeSet(Mode.AUTO))
    call.say(CUSTOMER)
    call.wait(30)
    assert call.tip_times == [180, 210]
    call.do(ModeSet(Mode.EVENT_DRIVEN))
    call.say(CUSTOMER)
    call.wait(300)
    assert call.tip_times == [180, 210]


# --- away


def test_within_the_grace_a_due_tip_is_still_made_and_after_it_none() -> None:
    call = Call()
    call.say(CUSTOMER)
    call.wait(175)
    call.do(ClientLeft())
    call.wait(20)
    assert call.tip_times == [180]
    call.say(CUSTOMER)
    call.wait(3000)
    assert call.tip_times == [180]


def test_a_client_that_comes_back_gets_the_due_tip_at_once() -> None:
    call = Call()
    call.say(CUSTOMER)
    call.wait(100)
    call.do(ClientLeft())
    call.wait(200)
    call.do(ClientCame())
    call.wait(0)
    assert call.tip_times == [300]


def test_an_hour_away_ends_the_call_as_abandoned() -> None:
    call = Call()
    call.say(CUSTOMER)
    call.do(ClientLeft())
    call.wait(3599)
    assert not call.machine.ended
    call.wait(1)
    assert call.effects[-1] == Finish(EndStatus.ABANDONED)
    assert call.asked == []


def test_coming_back_stops_the_hour() -> None:
    call = Call()
    call.do(ClientLeft())
    call.wait(3000)
    call.do(ClientCame())
    call.wait(3000)
    assert not call.machine.ended


# --- after a restart


def test_a_generation_cut_off_by_a_restart_is_asked_again_when_somebody_listens() -> None:
    call = in_capture()
    call.slow = True
    call.say(AGENT, "mine")
    call.wait(3)
    call.say(CUSTOMER, "theirs")
    call.wait(3)
    assert call.machine.state is CallState.GENERATING
    call.machine.wake_up(call.now)
    asked = len(call.asked)
    call.wait(30)
    call.do(ClientCame())
    call.wait(0)
    assert len(call.asked) == asked + 1
    exchange = call.asked[-1][1].exchange
    assert exchange is not None and exchange.agent_words == "mine"


# --- whatever happens


_texts = st.sampled_from(["words", "too expensive", ""])
_events = st.one_of(
    st.tuples(st.just("say"), st.sampled_from([AGENT, CUSTOMER])),
    st.tuples(st.just("wait"), st.floats(0, 200)),
    st.tuples(st.just("select"), st.integers(0, 4)),
    st.tuples(st.just("next"), st.sampled_from([None, "rec-1", "rec-2"])),
    st.tuples(st.just("alternative"), st.none()),
    st.tuples(st.just("mode"), st.sampled_from(list(Mode))),
    st.tuples(st.just("mute"), st.booleans()),
    st.tuples(st.just("left"), st.none()),
    st.tuples(st.just("came"), st.none()),
    st.tuples(st.just("tip"), st.integers(0, 8)),
    st.tuples(st.just("fail"), st.integers(0, 8)),
    st.tuples(st.just("end"), st.none()),
)


def _apply(call: Call, step: tuple[str, object]) -> None:
    kind, value = step
    match kind:
        case "say":
            call.say(value)  # type: ignore[arg-type]
        case "wait":
            call.wait(value)  # type: ignore[arg-type]
        case "select":
            call.do(OptionSelected(f"rec-{call.machine.turn}", value))  # type: ignore[arg-type]
        case "next":
            call.do(NextTipWanted(value))  # type: ignore[arg-type]
        case "alternative":
            call.do(AlternativeWanted())
        case "mode":
            call.do(ModeSet(value))  # type: ignore[arg-type]
        case "mute":
            call.do(ModeSet(muted=value))  # type: ignore[arg-type]
        case "left":
            call.do(ClientLeft())
        case "came":
            call.do(ClientCame())
        case "tip":
            call.tip_comes(value)  # type: ignore[arg-type]
        case "fail":
            call.do(TipFailed(value))  # type: ignore[arg-type]
        case "end":
            call.do(EndWanted())


@given(st.lists(_events, max_size=40), st.booleans())
def test_in_any_order_of_events_the_promises_hold(steps: list[tuple[str, object]], slow: bool) -> None:
    call = Call(slow=slow)
    in_flight: set[int] = set()
    seen = 0
    for step in steps:
        try:
            _apply(call, step)
        except CoachError:
            continue
        for effect in call.effects[seen:]:
            if isinstance(effect, AskTip):
                in_flight.add(effect.request.turn)
            elif isinstance(effect, DropTip):
                in_flight.discard(effect.turn)
            elif isinstance(effect, ShowTip):
                in_flight.clear()
        seen = len(call.effects)
        if step[0] == "fail":
            in_flight.discard(step[1])  # type: ignore[arg-type]
        assert len(in_flight) <= 1 or step[0] in ("tip", "fail", "wait")
        if call.machine.ended:
            assert call.machine.deadline is None
        if call.machine.deadline is not None:
            before = call.machine.deadline
            call.machine.receive(Tick(), before - 0.001)
            assert call.machine.deadline == before, "an early tick changes nothing"
    finishes = [effect for effect in call.effects if isinstance(effect, Finish)]
    assert len(finishes) <= 1


def test_a_pain_that_was_heard_is_known_and_a_told_one_is_kept() -> None:
    call = Call()
    seen = Detection(signals=(Signal.PAIN,), evidence={"pain": "goes wrong"}, confidence=0.9)
    call.say(CUSTOMER, "All in Excel. That goes wrong twice a week! So it is.", seen)
    assert call.machine.facts == {"pain": "That goes wrong twice a week"}
    call.machine.facts = {"pain": "we lose two days"}
    call.say(CUSTOMER, "It still goes wrong.", seen)
    assert call.machine.facts == {"pain": "we lose two days"}
    call.machine.facts = {}
    call.say(AGENT, "It goes wrong.", seen)
    assert call.machine.facts == {}
