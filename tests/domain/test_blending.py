"""What of a model's judgement counts beside what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach_server.domain.method.methodology import SubScore
from coach_server.domain.method.turns import Quality
from coach_server.domain.practice.blending import (
    MOST_MOVED,
    JudgedHighlight,
    JudgedTechnique,
    ModelJudgement,
    blend,
    move,
)
from coach_server.domain.practice.scorecard import Evidence, Highlight, Kind, ScoreCard, TechniqueScore
from coach_server.domain.transcript import Speaker
from tests.domain.test_progress import HUGO

SCORES = st.integers(0, 100)
SHARES = st.floats(0, 1)


def said(criterion: str, quote: str = "Waarom vraagt u dat?", speaker: Speaker = Speaker.AGENT) -> Evidence:
    return Evidence(criterion, quote, speaker, 3, 4000)


def scored(technique: str, score: int) -> TechniqueScore:
    return TechniqueScore(technique, score, Quality.GOED, 1, said(technique))


def card(techniques: Mapping[str, int] | None = None, **changes: Any) -> ScoreCard:
    made = ScoreCard(
        method=HUGO.stamp,
        insufficient=False,
        overall=50,
        sub_scores=dict.fromkeys(SubScore, 50) | {SubScore.OBJECTIONS: None},
        phases={1: 60, 2: 40, 3: None, 4: None},
        technique_scores={name: scored(name, score) for name, score in (techniques or {"1.1": 70}).items()},
        metrics={},
        highlights=(Highlight(Kind.GOOD, "asked", 1.0), Highlight(Kind.WARNING, "rushed", 2.0)),
        evidence=(said("1.1"),),
        missed=(),
        next_step="2.1.2",
        facts_hash="f" * 64,
    )
    return replace(made, **changes)


def judgement(**changes: Any) -> ModelJudgement:
    made = ModelJudgement(
        model="gpt-6-luna",
        overall=60,
        sub_scores=dict.fromkeys(SubScore, 60),
        techniques=(),
        highlights=(),
        advice="Vraag door op het antwoord.",
        next_step="2.1.5",
    )
    return replace(made, **changes)


def judged(technique: str, score: int, evidence: Evidence | None = None) -> JudgedTechnique:
    return JudgedTechnique(technique, score, evidence)


def test_without_a_judgement_the_cards_own_scores_stand() -> None:
    blended = blend(card(), None, HUGO)

    assert (blended.overall, blended.technique_scores, blended.next_step) == (50, {"1.1": 70}, "2.1.2")
    assert blended.sub_scores == card().sub_scores
    assert (blended.advice, blended.judged) == ("", False)


def test_a_talk_that_is_too_short_is_not_scored_by_a_model_either() -> None:
    short = card(insufficient=True, overall=None, sub_scores=dict.fromkeys(SubScore), technique_scores={})

    blended = blend(short, judgement(overall=100, techniques=(judged("1.1", 100, said("1.1")),)), HUGO)

    assert blended.overall is None
    assert blended.technique_scores == {}
    assert not blended.judged


def test_the_model_has_the_share_that_the_method_gives_it() -> None:
    assert HUGO.scoring.model_share == 0.4
    assert blend(card(overall=50), judgement(overall=60), HUGO).overall == 54


def test_the_model_gives_no_score_where_the_talk_says_nothing() -> None:
    blended = blend(card(), judgement(sub_scores=dict.fromkeys(SubScore, 100)), HUGO)

    assert blended.sub_scores[SubScore.OBJECTIONS] is None
    assert blended.sub_scores[SubScore.LUISTEREN] == 70


def test_a_zero_of_the_rules_is_a_score_and_takes_part() -> None:
    assert blend(card(overall=0), judgement(overall=50), HUGO).overall == 20


def test_a_technique_both_saw_is_blended_with_or_without_a_quote_of_the_model() -> None:
    blended = blend(card({"1.1": 70}), judgement(techniques=(judged("1.1", 90),)), HUGO)

    assert blended.technique_scores == {"1.1": 78}


def test_a_technique_nobody_can_point_at_does_not_count() -> None:
    customers = said("2.1.5", speaker=Speaker.CUSTOMER)
    told = (judged("2.1.8", 100), judged("2.1.5", 100, customers), judged("9.9", 100, said("9.9")))

    assert blend(card(), judgement(techniques=told), HUGO).technique_scores == {"1.1": 70}


def test_a_technique_only_the_model_saw_counts_with_its_quote_and_does_not_master_the_step() -> None:
    quote = said("2.1.5")

    blended = blend(card(), judgement(techniques=(judged("2.1.5", 100, quote),)), HUGO)

    assert blended.technique_scores["2.1.5"] == 64
    assert blended.technique_scores["2.1.5"] < HUGO.unlock.step_score
    assert quote in blended.evidence


def test_highlights_of_the_model_come_first_and_the_heaviest_of_the_rules_fill_up() -> None:
    rules = tuple(Highlight(kind, f"{kind}{n}", float(n)) for kind in Kind for n in range(3))
    own = JudgedHighlight(Kind.GOOD, "Je vatte samen wat de klant zei.", said("highlight"))

    blended = blend(card(highlights=rules), judgement(highlights=(own,)), HUGO)

    assert blended.highlights == (own, rules[2], rules[5], rules[4])
    assert own.evidence in blended.evidence


def test_the_next_step_is_one_of_the_method_that_was_not_just_done_well() -> None:
    done = card({"2.1.5": 95})

    assert blend(card(), judgement(next_step="2.1.5"), HUGO).next_step == "2.1.5"
    assert blend(done, judgement(next_step="2.1.5"), HUGO).next_step == "2.1.2"
    assert blend(card(), judgement(next_step="rm -rf"), HUGO).next_step == "2.1.2"
    assert blend(card(), judgement(next_step=None), HUGO).next_step == "2.1.2"


def test_the_model_sends_nobody_further_than_the_talk_came_or_the_rules_suggest() -> None:
    assert blend(card(), judgement(next_step="4.1"), HUGO).next_step == "2.1.2"
    assert (
        blend(card(phases={1: 60, 2: 40, 3: 0, 4: 10}), judgement(next_step="4.1"), HUGO).next_step == "4.1"
    )
    assert blend(card(next_step="4.2.1"), judgement(next_step="4.1"), HUGO).next_step == "4.1"
    assert blend(card(next_step=None), judgement(next_step="1.2"), HUGO).next_step == "1.2"


@given(rules=SCORES, model=st.integers(-500, 500), share=SHARES)
def test_a_moved_score_stays_in_bounds_and_near_the_rules(rules: int, model: int, share: float) -> None:
    moved = move(rules, model, share)

    assert 0 <= moved <= 100
    assert abs(moved - rules) <= MOST_MOVED
    assert min(rules, max(0, min(100, model))) <= moved <= max(rules, min(100, max(0, model)))


@given(rules=SCORES, better=SCORES, model=SCORES, kinder=SCORES, share=SHARES)
def test_a_better_score_of_either_never_makes_the_blend_worse(
    rules: int, better: int, model: int, kinder: int, share: float
) -> None:
    (rules, better), (model, kinder) = sorted((rules, better)), sorted((model, kinder))

    assert move(rules, model, share) <= move(better, model, share)
    assert move(rules, model, share) <= move(rules, kinder, share)


@given(
    overall=st.none() | SCORES,
    told=SCORES,
    techniques=st.dictionaries(st.sampled_from([t.id for t in HUGO.techniques] + ["9.9"]), SCORES),
    quoted=st.booleans(),
)
def test_whatever_a_model_says_ids_are_of_the_catalog_and_scores_in_bounds(
    overall: int | None, told: int, techniques: dict[str, int], quoted: bool
) -> None:
    given_techniques = tuple(judged(n, s, said(n) if quoted else None) for n, s in techniques.items())

    blended = blend(card(overall=overall), judgement(overall=told, techniques=given_techniques), HUGO)

    assert (blended.overall is None) == (overall is None)
    assert all(HUGO.find(name) for name in blended.technique_scores)
    assert all(0 <= score <= 100 for score in blended.technique_scores.values())
    assert abs(blended.technique_scores["1.1"] - 70) <= MOST_MOVED


def test_a_kept_judgement_is_read_back_as_it_was() -> None:
    made = judgement(
        techniques=(judged("1.1", 80, said("1.1")), judged("1.2", 10)),
        highlights=(JudgedHighlight(Kind.WARNING, "Te snel.", said("highlight", speaker=Speaker.CUSTOMER)),),
        next_step=None,
    )

    assert ModelJudgement.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize("broken", [{}, {"model": "m"}, judgement().to_dict() | {"subScores": {"charm": 1}}])
def test_a_kept_judgement_of_another_form_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        ModelJudgement.from_dict(broken)
