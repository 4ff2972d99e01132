"""Where the conversation stands, moved along by what each utterance means.

    what was heard                                     from                      becomes
    customer objects                                   any but CONVERSION        OBJECTION_HANDLING
    customer says a clear no                           any but CONVERSION        CLOSING
    customer leans towards yes                         before NEXT_STEPS         NEXT_STEPS
    the same once more                                 NEXT_STEPS                CLOSING
    customer tells a pain                              GREETING                  DISCOVERY
    words of a later stage, sure enough                any                       that stage, see _forward
    words of DISCOVERY or VALUE_PROP, sure enough      VALUE_PROP, OBJECTION_…   that stage
    anything                                           CONVERSION                CONVERSION

One stray sentence never throws a call back to GREETING, nor out of NEXT_STEPS or CLOSING; only an objection
reopens those. CONVERSION has no way back, so it takes more than one word to get there.
"""

from __future__ import annotations

from coach_server.domain.detection import Detection, Signal
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Speaker

ORDER: tuple[Stage, ...] = tuple(Stage)
SURE = 0.5
_RANK = {stage: rank for rank, stage in enumerate(ORDER)}
_REOPENABLE = (Stage.VALUE_PROP, Stage.OBJECTION_HANDLING)


def rank(stage: Stage) -> int:
    """0 for GREETING … 6 for CONVERSION."""
    return _RANK[stage]


def later(one: Stage, other: Stage) -> Stage:
    return one if _RANK[one] >= _RANK[other] else other


def advance(current: Stage, detection: Detection, speaker: Speaker) -> Stage:
    """The stage after one more utterance."""
    if current is Stage.CONVERSION:
        return current
    if speaker is Speaker.CUSTOMER:
        moved = _customer(current, detection)
        if moved is not None:
            return moved
    return _suggested(current, detection, speaker)


def _customer(current: Stage, detection: Detection) -> Stage | None:
    signals = detection.signals
    if Signal.REFUSAL in signals:
        return Stage.CLOSING
    if detection.objections:
        return Stage.OBJECTION_HANDLING
    if Signal.BUYING in signals:
        if detection.stage is Stage.CONVERSION and detection.confidence >= SURE and _late(current):
            return Stage.CONVERSION
        return Stage.CLOSING if _late(current) else Stage.NEXT_STEPS
    if Signal.PAIN in signals and current is Stage.GREETING:
        return Stage.DISCOVERY
    return None


def _suggested(current: Stage, detection: Detection, speaker: Speaker) -> Stage:
    wanted = detection.stage
    if wanted is None or wanted is current:
        return current
    if wanted is Stage.OBJECTION_HANDLING and speaker is Speaker.CUSTOMER:
        # Doubt without a named objection: worth leaving the late stages for only when it is plain.
        return wanted if detection.confidence >= SURE or not _late(current) else current
    if detection.confidence < SURE:
        return current
    if _RANK[wanted] > _RANK[current]:
        return _forward(current, wanted)
    if current in _REOPENABLE and wanted is not Stage.GREETING:
        return wanted
    return current


def _forward(current: Stage, wanted: Stage) -> Stage:
    """A single sentence may skip stages, but not from the greeting to the end (`is this a good moment?`
    sounds like planning), and the two last stages are entered from the one before at best."""
    if current is Stage.GREETING and _RANK[wanted] >= _RANK[Stage.NEXT_STEPS]:
        return current
    if wanted is Stage.CONVERSION:
        return Stage.CONVERSION if _late(current) else Stage.NEXT_STEPS
    if wanted is Stage.CLOSING and current is Stage.DISCOVERY:
        return Stage.NEXT_STEPS
    return wanted


def _late(stage: Stage) -> bool:
    return stage in (Stage.NEXT_STEPS, Stage.CLOSING)
