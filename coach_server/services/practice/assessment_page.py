"""What a model is shown of a talk it assesses: the method's techniques, what was measured, what was said."""

from __future__ import annotations

import json
from collections.abc import Sequence

from coach_server.domain.method.methodology import Methodology, sort_key
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.scorecard import ScoreCard
from coach_server.domain.wording import clip, one_line
from coach_server.services.practice.turn_judge import technique_line
from coach_server.services.prompts import Language

TURN_CHARS = 600
WHAT_CHARS = 100
OUTLINE_CHARS = 9_000
SHORTEST_OUTLINE = 16
NOTHING = "-"


def techniques(method: Methodology, language: str) -> str:
    ordered = sorted(method.techniques, key=lambda technique: sort_key(technique.id))
    return "\n".join(technique_line(technique, language, WHAT_CHARS) for technique in ordered)


def facts(card: ScoreCard) -> str:
    """The rules' findings as compact JSON, figures and ids alone: the words stand in the transcript."""
    found = {
        "overallScore": card.overall,
        "subScores": {name.value: score for name, score in card.sub_scores.items()},
        "phases": {str(phase): score for phase, score in card.phases.items()},
        "techniques": {
            name: {"score": score.score, "quality": score.quality.value, "uses": score.uses}
            for name, score in card.technique_scores.items()
        },
        "metrics": {name: metric.score for name, metric in card.metrics.items()},
        "missed": [{"moment": missed.moment, "technique": missed.technique} for missed in card.missed],
        "nextStep": card.next_step,
    }
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def transcript(turns: Sequence[Turn], language: Language) -> str:
    """One turn a line: `[12] Seller: words`."""
    return "\n".join(_line(turn, language, TURN_CHARS) for turn in turns)


def outline(turns: Sequence[Turn], language: Language) -> str:
    """The beginning of every turn, so that a part is judged by what went before and came after it. Where the
    turns are too many even for that, every second or third is left out."""
    every = -(-len(turns) * SHORTEST_OUTLINE // OUTLINE_CHARS)
    shown = turns[:: max(1, every)]
    return "\n".join(
        _line(turn, language, max(SHORTEST_OUTLINE, OUTLINE_CHARS // len(shown))) for turn in shown
    )


def _line(turn: Turn, language: Language, chars: int) -> str:
    who = language.agent if turn.is_seller else language.customer
    return f"[{turn.sequence}] {who}: {clip(one_line(turn.text), chars)}"
