from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach_server.domain.detection import Detection, Objection, Signal
from coach_server.domain.stage import advance, later, rank
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Speaker

CUSTOMER, AGENT = Speaker.CUSTOMER, Speaker.AGENT

detections = st.builds(
    Detection,
    stage=st.none() | st.sampled_from(Stage),
    objections=st.lists(st.sampled_from(Objection), unique=True, max_size=2).map(tuple),
    signals=st.lists(st.sampled_from(Signal), unique=True, max_size=3).map(tuple),
    confidence=st.floats(0, 1),
)


def heard(stage: Stage | None = None, *, confidence: float = 0.8, **findings: object) -> Detection:
    return Detection(stage=stage, confidence=confidence, **findings)  # type: ignore[arg-type]


@given(detections, st.sampled_from(Speaker))
def test_nothing_leads_back_from_conversion(detection: Detection, speaker: Speaker) -> None:
    assert advance(Stage.CONVERSION, detection, speaker) is Stage.CONVERSION


@given(st.sampled_from(Stage), detections, st.sampled_from(Speaker))
def test_no_sentence_throws_a_call_back_to_greeting(
    current: Stage, detection: Detection, speaker: Speaker
) -> None:
    if current is not Stage.GREETING:
        assert advance(current, detection, speaker) is not Stage.GREETING


@given(detections, st.sampled_from(Speaker))
def test_only_an_objection_or_doubt_reopens_the_late_stages(detection: Detection, speaker: Speaker) -> None:
    after = advance(Stage.CLOSING, detection, speaker)
    assert rank(after) >= rank(Stage.CLOSING) or after is Stage.OBJECTION_HANDLING


@given(st.sampled_from(Stage), detections)
def test_the_agent_alone_never_opens_objection_handling_late(current: Stage, detection: Detection) -> None:
    if current in (Stage.NEXT_STEPS, Stage.CLOSING):
        assert rank(advance(current, detection, AGENT)) >= rank(current)


@pytest.mark.parametrize("current", [s for s in Stage if s is not Stage.CONVERSION])
def test_an_objection_moves_any_open_call_to_objection_handling(current: Stage) -> None:
    assert advance(current, heard(objections=(Objection.PRICE,)), CUSTOMER) is Stage.OBJECTION_HANDLING


def test_a_clear_no_moves_to_closing() -> None:
    detection = heard(objections=(Objection.NEED,), signals=(Signal.REFUSAL,))
    assert advance(Stage.DISCOVERY, detection, CUSTOMER) is Stage.CLOSING


def test_buying_signals_move_first_to_next_steps_then_to_closing() -> None:
    buying = heard(signals=(Signal.BUYING,))
    first = advance(Stage.VALUE_PROP, buying, CUSTOMER)
    assert first is Stage.NEXT_STEPS
    assert advance(first, buying, CUSTOMER) is Stage.CLOSING


def test_a_pain_opens_discovery() -> None:
    assert advance(Stage.GREETING, heard(signals=(Signal.PAIN,)), CUSTOMER) is Stage.DISCOVERY


def test_conversion_is_reached_from_the_late_stages_only() -> None:
    assert advance(Stage.DISCOVERY, heard(Stage.CONVERSION), AGENT) is Stage.NEXT_STEPS
    assert advance(Stage.CLOSING, heard(Stage.CONVERSION), AGENT) is Stage.CONVERSION
    assert (
        advance(Stage.NEXT_STEPS, heard(Stage.CONVERSION, signals=(Signal.BUYING,)), CUSTOMER)
        is Stage.CONVERSION
    )


def test_a_stray_word_of_planning_does_not_end_the_greeting() -> None:
    for wanted in (Stage.NEXT_STEPS, Stage.CLOSING, Stage.CONVERSION):
        assert advance(Stage.GREETING, heard(wanted), AGENT) is Stage.GREETING


def test_after_an_objection_a_discovery_question_reopens_discovery() -> None:
    assert advance(Stage.OBJECTION_HANDLING, heard(Stage.DISCOVERY), AGENT) is Stage.DISCOVERY


def test_an_unsure_finding_changes_nothing() -> None:
    assert advance(Stage.DISCOVERY, heard(Stage.CLOSING, confidence=0.2), AGENT) is Stage.DISCOVERY
    assert advance(Stage.CLOSING, Detection(), CUSTOMER) is Stage.CLOSING


def test_later_compares_by_the_order_of_the_contract() -> None:
    assert later(Stage.CLOSING, Stage.DISCOVERY) is Stage.CLOSING
    assert later(Stage.GREETING, Stage.CONVERSION) is Stage.CONVERSION
