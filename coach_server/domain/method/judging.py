"""What a turn is worth by a sales method: from what was found in it to techniques with a quality, and the
customer's attitude. No search for words here, no embeddings: findings come in, judgements go out.

Quality (contract §8), worked out in this order:

    in a phase where the technique is forbidden             gemist
    a question technique that was not asked as a question   bijna
    all its marks, or most and it meets the attitude        perfect
    half its marks, or it meets the customer's attitude     goed
    one mark and surely found, or beyond doubt              goed
    else                                                    bijna

A technique that passes by a doubt, objection, postponement or fear loses one level: nobody listened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from coach_server.domain.cues import Finding, Words
from coach_server.domain.method.cues import MethodCues
from coach_server.domain.method.methodology import Attitude, Methodology, Technique, TipType, say
from coach_server.domain.method.methodology import Words as Wordings
from coach_server.domain.method.turns import MOST_TECHNIQUES, Quality, TechniqueUse, Turn, last_attitude
from coach_server.domain.transcript import Speaker, Utterance

# Below it a finding in a phase where the technique is forbidden is not held against the seller.
SURE_OF_MISTAKE = 0.6
# Marks are words; who says it in words of his own is known by how sure the finding is.
SURE, BEYOND_DOUBT = 0.6, 0.9
MOST, HALF = 0.66, 0.5
# Attitudes whose chances lie closer than this are settled by the method's priority.
CLOSE = 0.05
_LOWER = {Quality.PERFECT: Quality.GOED, Quality.GOED: Quality.BIJNA, Quality.BIJNA: Quality.BIJNA}


class Reason(StrEnum):
    """Why a use got its quality; names the sentence that says so."""

    FORBIDDEN = "forbidden"
    NOT_ASKED = "not_asked"
    COMPLETE = "complete"
    MEETS = "meets"
    PARTLY = "partly"
    THIN = "thin"
    PASSED_BY = "passed_by"


@dataclass(frozen=True, slots=True)
class JudgingWords:
    """`rationale`: the sentence of each Reason by language, with `{technique}`, `{phase}`, `{attitude}`."""

    rationale: Mapping[str, Wordings] = field(default_factory=dict)

    def why(self, reason: Reason, language: str, **values: str) -> str:
        return say(self.rationale.get(reason, {}), language).format(**values)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one utterance means by the method. `uses` of the seller, `attitude` (an id) of the customer;
    `themes`: ids of the subjects asked about; `is_yes`: the customer agrees to what was just asked."""

    uses: tuple[TechniqueUse, ...] = ()
    attitude: str | None = None
    attitude_quote: str = ""
    themes: tuple[str, ...] = ()
    is_question: bool = False
    is_yes: bool = False


@dataclass(frozen=True, slots=True)
class Spoken:
    """An utterance and where it was said."""

    words: Words
    speaker: Speaker
    language: str
    phase: int
    before: Sequence[Turn] = ()


def turn(reading: Reading, utterance: Utterance, phase: int) -> Turn:
    return Turn(
        sequence=utterance.sequence,
        speaker=utterance.speaker,
        text=utterance.text,
        at=utterance.said_at,
        phase=phase,
        uses=reading.uses,
        attitude=reading.attitude,
        attitude_quote=reading.attitude_quote,
        themes=reading.themes,
        is_question=reading.is_question,
        is_yes=reading.is_yes,
    )


def read(
    method: Methodology,
    cues: MethodCues,
    spoken: Spoken,
    findings: Sequence[Finding],
    sentences: JudgingWords,
) -> Reading:
    """`findings` are named by technique (seller) or attitude (customer); unknown names are ignored."""
    asked = cues.question(spoken.words)
    if spoken.speaker is Speaker.AGENT:
        known = [(t, f) for f in findings if (t := _named(method, f.name)) is not None]
        uses = _uses(method, cues, spoken, known, asked, sentences)
        themes = _themes(method, cues, spoken) if asked else ()
        return Reading(uses, themes=themes, is_question=bool(asked))
    attitude = settle(method, _bare_answer(method, cues, spoken) or findings, spoken.phase)
    agreed = _agrees(method, cues, spoken, attitude, asked)
    if attitude is None:
        return Reading(is_question=bool(asked), is_yes=agreed)
    return Reading((), attitude.name, attitude.quote, (), bool(asked), agreed)


# --- the seller's techniques


def _uses(
    method: Methodology,
    cues: MethodCues,
    spoken: Spoken,
    known: Sequence[tuple[Technique, Finding]],
    asked: str,
    sentences: JudgingWords,
) -> tuple[TechniqueUse, ...]:
    counted = [(t, f) for t, f in known if _counts(t, f, spoken.phase)]
    uses = []
    for technique, finding in _apart(counted):
        followed = cues.followed(technique.id, spoken.words)
        share = len(followed) / max(1, cues.mark_count(technique.id))
        quality, reason = _quality(method, technique, spoken, finding.strength, share, bool(asked))
        quote = _whole(spoken.words, finding.quote)
        quote = asked if technique.question and asked and asked in quote else quote
        why = _why(method, technique, spoken, reason, sentences)
        uses.append(TechniqueUse(technique.id, quality, quote, why, round(finding.strength, 3), followed))
    return tuple(uses)


def _named(method: Methodology, name: str) -> Technique | None:
    """The technique; of one that is a theme to ask about, its step, for the theme is told apart."""
    found = method.find(name)
    return method.step(name) if found is not None and found.theme else found


def _whole(words: Words, quote: str) -> str:
    """The sentence that the quoted words stand in."""
    sentences = (words.text[words.starts[i] : words.ends[end - 1]] for i, end in words.sentences())
    return next((sentence for sentence in sentences if quote in sentence), quote)


def _counts(technique: Technique, finding: Finding, phase: int) -> bool:
    if phase in technique.forbidden:
        return finding.strength >= SURE_OF_MISTAKE
    return not technique.phases or phase in technique.phases


def _apart(counted: Sequence[tuple[Technique, Finding]]) -> list[tuple[Technique, Finding]]:
    """The surest, one for each step, and a detail rather than the step it belongs to."""
    ranked = sorted(counted, key=lambda pair: -pair[1].strength)
    chosen: dict[str, tuple[Technique, Finding]] = {}
    for technique, finding in ranked:
        step = technique.step_id or technique.id
        held = chosen.get(step)
        if held is None:
            chosen[step] = (technique, finding)
        elif held[0].is_step and not technique.is_step:
            chosen[step] = (technique, Finding(finding.name, finding.quote, held[1].strength))
    return list(chosen.values())[:MOST_TECHNIQUES]


def _quality(
    method: Methodology, technique: Technique, spoken: Spoken, sure: float, share: float, asked: bool
) -> tuple[Quality, Reason]:
    if spoken.phase in technique.forbidden:
        return Quality.GEMIST, Reason.FORBIDDEN
    if technique.question and not asked:
        return Quality.BIJNA, Reason.NOT_ASKED
    attitude = last_attitude(spoken.before)
    meets = method.meets(technique.id, attitude, spoken.phase)
    quality, reason = _by_marks(share, sure, meets)
    if not meets and _presses(method.attitude(attitude) if attitude else None):
        return _LOWER[quality], Reason.PASSED_BY
    return quality, reason


def _by_marks(share: float, sure: float, meets: bool) -> tuple[Quality, Reason]:
    if share >= (MOST if meets else 1.0):
        return Quality.PERFECT, Reason.MEETS if meets else Reason.COMPLETE
    if meets:
        return Quality.GOED, Reason.MEETS
    clear = share >= HALF or (share > 0 and sure >= SURE) or sure >= BEYOND_DOUBT
    return (Quality.GOED, Reason.PARTLY) if clear else (Quality.BIJNA, Reason.THIN)


def _presses(attitude: Attitude | None) -> bool:
    """Whether it may not be passed by."""
    return attitude is not None and attitude.tip_type is TipType.LOCK


def _why(
    method: Methodology, technique: Technique, spoken: Spoken, reason: Reason, sentences: JudgingWords
) -> str:
    attitude = method.attitude(last_attitude(spoken.before) or "")
    phases = [phase for phase in method.phases if phase.id == spoken.phase]
    return sentences.why(
        reason,
        spoken.language,
        technique=say(technique.name, spoken.language),
        phase=say(phases[0].name, spoken.language) if phases else str(spoken.phase),
        attitude=say(attitude.name, spoken.language) if attitude else "",
    )


def _themes(method: Methodology, cues: MethodCues, spoken: Spoken) -> tuple[str, ...]:
    named = [method.find(found.name) for found in cues.find(spoken.words, spoken.speaker)]
    return tuple(dict.fromkeys(t.theme for t in named if t is not None and t.theme))


# --- the customer's attitude


def settle(method: Methodology, findings: Sequence[Finding], phase: int) -> Finding | None:
    """One attitude a turn: the surest, close ones by the method's priority; one that cannot be in this phase
    falls back as the method says."""
    known = [f for f in findings if method.attitude(f.name) is not None]
    if not known:
        return None
    surest = max(f.strength for f in known)
    ranked = [method.attitude(name) for name in method.attitude_priority]
    order = {attitude.id: rank for rank, attitude in enumerate(ranked) if attitude}
    close = [f for f in known if f.strength >= surest - CLOSE]
    found = min(close, key=lambda f: order.get(f.name, len(order)))
    return found if _allowed(method, found.name, phase) else _fallback(method, found, phase)


def _fallback(method: Methodology, found: Finding, phase: int) -> Finding | None:
    for name in method.attitude_fallback:
        attitude = method.attitude(name)
        if attitude is not None and _allowed(method, attitude.id, phase):
            return Finding(attitude.id, found.quote, found.strength)
    return None


def _allowed(method: Methodology, attitude_id: str, phase: int) -> bool:
    attitude = method.attitude(attitude_id)
    return attitude is not None and (not attitude.phases or phase in attitude.phases)


def _bare_answer(method: Methodology, cues: MethodCues, spoken: Spoken) -> list[Finding]:
    """What `yes` or `no` and nothing else means when the seller had asked something."""
    answer = cues.bare(spoken.words) if _was_asked(spoken.before) else None
    wanted = {"yes": TipType.POSITIEF, "no": TipType.WAARSCHUWING}.get(answer or "")
    found = next((a for a in method.attitudes if a.tip_type is wanted), None)
    return [Finding(found.id, spoken.words.text.strip(), 0.7)] if found else []


def _was_asked(before: Sequence[Turn]) -> bool:
    return bool(before) and before[-1].is_seller and before[-1].is_question


def _agrees(
    method: Methodology, cues: MethodCues, spoken: Spoken, attitude: Finding | None, asked: str
) -> bool:
    """A bare yes; a yes at the start of something that is neither resistance nor a question back; or, where a
    yes was sought, any positive answer."""
    if spoken.before and not spoken.before[-1].is_seller:
        return False
    if (answer := cues.bare(spoken.words)) is not None:
        return answer == "yes"
    meant = method.attitude(attitude.name) if attitude else None
    positive = meant is not None and meant.tip_type is TipType.POSITIEF
    if asked or not (positive or meant is None):
        return False
    return cues.begins_with_yes(spoken.words) or (positive and _yes_was_sought(method, spoken.before))


def _yes_was_sought(method: Methodology, before: Sequence[Turn]) -> bool:
    """Whether the last turn was a summary or question that commits."""
    uses = before[-1].uses if before and before[-1].is_seller else ()
    wanted = {step.id for name in method.commitment if (step := method.step(name)) is not None}
    return any((step := method.step(use.id)) is not None and step.id in wanted for use in uses)
