from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coach_server.domain.method.methodology import Methodology, SubScore
from coach_server.domain.method.turns import RANK, Quality, TechniqueUse, Turn
from coach_server.domain.practice.scorecard import HIGHEST, LOWEST, Kind, ScoreCard
from coach_server.domain.practice.scoring import facts_hash, score
from coach_server.domain.practice.talk import TalkWords
from coach_server.domain.transcript import Speaker
from coach_server.services.practice.feedback_wording import feedback_wording
from tests.domain.talks import STARTED_AT, customer, hurried, method, opening, seller, talk, whole

WORDS = feedback_wording("nl").words
METHODS = ("hugo", "b2b")


def card_of(turns: Sequence[Turn], name: str = "hugo", words: TalkWords | None = WORDS) -> ScoreCard:
    return score(turns, method(name), language="nl", started_at=STARTED_AT, words=words)


def test_a_practice_of_the_opening_alone_can_score_everything() -> None:
    card = card_of(opening("perfect"))
    assert card.overall == 100
    assert card.phases == {1: 100, 2: None, 3: None, 4: None}


def test_a_short_practice_like_the_seeds_scores_well_with_three_techniques() -> None:
    turns = talk(
        seller("Fijn dat u tijd maakt.", 1, ("1.1", "perfect")),
        customer("Graag.", 1),
        seller("Eerst een paar vragen, en dan beslist u. Akkoord?", 1, ("1.2", "goed")),
        customer("Ja.", 1, yes=True),
        seller("Met hoeveel bent u?", 2, ("2.1.1", "perfect"), themes=("ervaring",)),
        customer("Met zes.", 2, "H1"),
    )
    overall = card_of(turns).overall
    assert overall is not None and overall >= 70


def test_a_whole_talk_by_the_book_scores_above_ninety() -> None:
    card = card_of(whole())
    assert card.overall is not None and card.overall > 90
    assert card.missed == ()
    assert all(value is not None and value > 80 for value in card.sub_scores.values())


def test_a_hurried_talk_is_measured_against_all_of_the_phases_it_left_behind() -> None:
    card = card_of(hurried())
    assert card.overall is not None and card.overall < 45
    # One good use of five key techniques, then on to the offer.
    assert card.phases[2] == 14
    # The phase it stopped in: one turn, one technique, which met the postponement.
    assert card.phases[4] == 85


def test_a_phase_that_is_left_out_is_worth_nothing() -> None:
    turns = talk(
        *opening(),
        seller("Wij bieden u een programma.", 3, ("3.2", "perfect")),
        customer("Mooi.", 3),
    )
    assert card_of(turns).phases[2] == 0


def test_a_phase_for_objections_is_only_left_out_when_there_was_one() -> None:
    def over_all_but_the_fourth(attitude: str) -> ScoreCard:
        said = [(seller("Zo?", phase), customer("Zo is dat.", phase, attitude)) for phase in (1, 2, 3, 5)]
        return card_of(talk(*(turn for pair in said for turn in pair)), "b2b")

    assert over_all_but_the_fourth("A1").phases[4] is None
    assert over_all_but_the_fourth("A4").phases[4] == 0


def test_a_practice_that_begins_later_is_not_blamed_for_the_phases_before() -> None:
    turns = talk(
        customer("Het is te duur.", 4, "H7"),
        seller("Te duur waarmee vergeleken?", 4, ("4.2.4", "perfect")),
        customer("Met mijn huidige leverancier.", 4),
        seller("Is dat het enige wat u tegenhoudt?", 4, ("4.2.4", "perfect")),
        customer("Ja.", 4, yes=True),
        seller("Dan beginnen we maandag?", 4, ("4.1", "perfect")),
    )
    card = card_of(turns)
    assert card.phases == {1: None, 2: None, 3: None, 4: 67}
    assert card.missed == ()


def test_too_few_turns_are_no_score_and_not_zero() -> None:
    card = card_of(opening()[:4])
    assert card.insufficient
    assert card.overall is None
    assert set(card.sub_scores.values()) == {None}
    assert (card.highlights, card.evidence, card.missed, card.next_step) == ((), (), (), None)


def test_a_talk_outside_the_flow_is_not_judged() -> None:
    assert card_of([replace(turn, phase=0) for turn in opening()]).insufficient


def test_a_turn_without_words_is_no_turn() -> None:
    silent = [replace(turn, text="  ") for turn in opening()]
    assert card_of(silent).insufficient


def test_a_technique_in_a_phase_where_it_is_forbidden_counts_as_missed() -> None:
    turns = talk(
        customer("Ik twijfel nog.", 4, "H1"),
        seller("Waarover?", 4),
        customer("De prijs.", 4, "H1"),
        seller("Die kent u.", 4),
        customer("En wat kost het?", 4, "H5"),
        seller("Daar kom ik straks op terug.", 4, ("2.1.4", "perfect")),
    )
    card = card_of(turns)
    assert card.technique_scores["2.1.4"].score == 0
    assert card.technique_scores["2.1.4"].quality is Quality.GEMIST
    assert any(h.id == "forbidden" and h.kind is Kind.WARNING for h in card.highlights)


def test_a_technique_in_a_phase_where_it_does_not_belong_does_not_count() -> None:
    turns = opening()
    turns[0] = replace(turns[0], uses=(*turns[0].uses, TechniqueUse("3.3", Quality.PERFECT, "Fijn")))
    assert "3.3" not in card_of(turns).technique_scores


def test_meeting_the_customers_attitude_is_worth_more() -> None:
    def answered(attitude: str | None) -> int:
        turns = talk(
            *opening(),
            customer("Ach ja, dat zal wel.", 2, attitude),
            seller("Hoe bedoelt u dat?", 2, ("2.1.5", "goed")),
        )
        return card_of(turns).technique_scores["2.1.5"].score

    assert (answered(None), answered("H3")) == (70, 85)


def test_a_missed_use_earns_no_bonus_for_the_attitude_it_met() -> None:
    turns = talk(
        *opening(),
        customer("Ach ja, dat zal wel.", 2, "H3"),
        seller("Hoe bedoelt u dat?", 2, ("2.1.5", "gemist")),
    )
    assert card_of(turns).technique_scores["2.1.5"].score == 0


def test_without_an_objection_there_is_no_score_for_objections() -> None:
    assert card_of(opening()).sub_scores[SubScore.OBJECTIONS] is None
    assert card_of(opening()).sub_scores[SubScore.SAMENVATTEN] is None


def test_an_objection_that_was_passed_by_is_a_zero() -> None:
    turns = talk(
        customer("Het is te duur.", 4, "H7"),
        seller("We leveren in blauw en groen.", 4),
        customer("Tja.", 4),
        seller("En in rood.", 4),
        customer("Goed.", 4),
        seller("Zo zit dat.", 4),
    )
    assert card_of(turns).sub_scores[SubScore.OBJECTIONS] == 0


def test_leaving_the_discovery_without_a_summary_is_low_for_summarising_and_not_unjudged() -> None:
    summed_up = card_of(hurried()).sub_scores[SubScore.SAMENVATTEN]
    assert summed_up is not None and summed_up <= 20


def test_the_best_use_of_a_technique_counts() -> None:
    turns = talk(
        *opening("bijna"),
        seller("Wat een mooie plek hier.", 1, ("1.1", "perfect")),
    )
    best = card_of(turns).technique_scores["1.1"]
    assert (best.score, best.uses, best.evidence.quote) == (100, 2, "Wat een mooie plek hier.")


def test_an_alias_is_the_technique_it_stands_for() -> None:
    turns = talk(*opening(), seller("Klopt dat?", 2, ("2.4", "perfect")), customer("Ja.", 2, yes=True))
    assert "2.1.8" in card_of(turns).technique_scores


def test_an_invented_technique_is_nobodys() -> None:
    turns = opening()
    turns[0] = replace(turns[0], uses=(TechniqueUse("9.9", Quality.PERFECT, "Fijn"),))
    assert "9.9" not in card_of(turns).technique_scores


def test_each_score_has_words_it_rests_on() -> None:
    card = card_of(whole())
    criteria = {found.criterion for found in card.evidence}
    assert {sub.value for sub in SubScore} <= criteria
    assert set(card.technique_scores) <= criteria
    assert all(found.quote for found in card.evidence)


def test_a_quote_is_the_sentence_around_the_words_that_count() -> None:
    turns = opening()
    turns[2] = replace(
        turns[2],
        text="Goed. Zullen we eerst kijken waar u staat? Daarna beslist u.",
        uses=(TechniqueUse("1.2", Quality.GOED, "Zullen we eerst"),),
    )
    quote = card_of(turns).technique_scores["1.2"].evidence.quote
    assert quote == "Zullen we eerst kijken waar u staat?"


def test_an_opening_without_a_next_step_is_not_judged_on_it() -> None:
    turns = [turn for turn in opening() if not any(use.id == "1.2" for use in turn.uses)]
    assert card_of(turns).sub_scores[SubScore.NEXT_STEP] is None


def test_evidence_says_when_it_was_said() -> None:
    first = card_of(opening()).technique_scores["1.1"].evidence
    assert (first.sequence, first.at_ms, first.speaker) == (1, 10_000, Speaker.AGENT)


def test_no_more_than_two_highlights_of_a_kind() -> None:
    for turns in (opening("gemist"), hurried(), whole()):
        kinds = [h.kind for h in card_of(turns).highlights]
        assert kinds.count(Kind.GOOD) <= 2 and kinds.count(Kind.WARNING) <= 2


def test_the_step_after_a_missed_moment_is_the_one_that_was_missing() -> None:
    assert card_of(hurried()).next_step == "2.1.8"


def test_the_weakest_step_is_practised_next_when_nothing_was_missed() -> None:
    turns = opening()
    turns[2] = replace(turns[2], uses=(TechniqueUse("1.2", Quality.BIJNA, "Zullen we"),))
    assert card_of(turns).next_step == "1.2"


def test_after_a_mastered_opening_the_first_step_of_the_discovery_is_next() -> None:
    assert card_of(opening()).next_step == "2.1.1"


def test_a_step_marked_as_done_is_not_suggested_and_changes_no_score() -> None:
    card = score(opening(), method(), language="nl", started_at=STARTED_AT, manual=["2.1.1"], words=WORDS)
    assert card.next_step == "2.1.2"
    assert card.overall == card_of(opening()).overall


def test_the_same_turns_give_the_same_card() -> None:
    assert card_of(whole()) == card_of(whole())


def test_the_hash_names_words_phases_order_and_method() -> None:
    turns = whole()
    same = facts_hash(turns, method(), "nl")
    other = replace(turns[0], phase=2)
    assert facts_hash(turns, method(), "nl") == same
    assert facts_hash([*turns[1:], turns[0]], method(), "nl") != same
    assert facts_hash([other, *turns[1:]], method(), "nl") != same
    assert facts_hash(turns, replace(method(), version=2), "nl") != same
    assert facts_hash(turns, replace(method(), source_hash="other"), "nl") != same
    twins = [turns[0], turns[0]]
    assert facts_hash(twins, method(), "nl") == facts_hash(twins[::-1], method(), "nl")


def test_a_lone_surrogate_does_not_stop_the_hash() -> None:
    turns = opening()
    turns[0] = replace(turns[0], text="Fijn \ud83d")
    assert card_of(turns).overall is not None


# --- properties, for every method there is


def turns_of(known: Methodology) -> st.SearchStrategy[list[Turn]]:
    """Any talk with that method, also an absurd one."""
    ids = [technique.id for technique in known.techniques] + ["9.9"]
    phases = st.sampled_from([phase.id for phase in known.phases])
    words = st.sampled_from(
        [
            "ja",
            "Dat is lastig voor ons.",
            "Wij hebben een plan, u ook?",
            "De planning loopt elke week mis.",
            "…",
        ]
    )
    use = st.builds(TechniqueUse, st.sampled_from(ids), st.sampled_from(Quality), words)
    themes = st.sampled_from([theme.id for phase in known.phases for theme in phase.themes] or ["x"])
    said = st.builds(
        Turn,
        sequence=st.just(0),
        speaker=st.just(Speaker.AGENT),
        text=words,
        at=st.just(0.0),
        phase=phases,
        uses=st.lists(use, max_size=2).map(tuple),
        themes=st.lists(themes, max_size=2).map(tuple),
        is_question=st.booleans(),
    )
    heard = st.builds(
        Turn,
        sequence=st.just(0),
        speaker=st.just(Speaker.CUSTOMER),
        text=words,
        at=st.just(0.0),
        phase=phases,
        attitude=st.sampled_from([None, *(a.id for a in known.attitudes)]),
        is_yes=st.booleans(),
    )
    return st.lists(st.one_of(said, heard), max_size=24).map(lambda turns: talk(*turns))


def numbers(card: ScoreCard) -> list[int]:
    found = [card.overall, *card.sub_scores.values(), *card.phases.values()]
    found += [technique.score for technique in card.technique_scores.values()]
    found += [metric.score for metric in card.metrics.values()]
    return [number for number in found if number is not None]


@pytest.mark.parametrize("name", METHODS)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_every_score_is_within_bounds_and_every_id_in_the_catalog(name: str, data: st.DataObject) -> None:
    known = method(name)
    card = card_of(data.draw(turns_of(known)), name)
    assert all(LOWEST <= number <= HIGHEST for number in numbers(card))
    named = [*card.technique_scores, *(m.technique for m in card.missed)]
    named += [h.technique for h in card.highlights if h.technique]
    assert all(known.find(id) is not None for id in named)
    assert card.next_step is None or card.next_step in {step.id for step in known.steps}


@pytest.mark.parametrize("name", METHODS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_better_use_never_lowers_a_score(name: str, data: st.DataObject) -> None:
    turns = data.draw(turns_of(method(name)))
    used = [(i, k) for i, turn in enumerate(turns) for k, _ in enumerate(turn.uses)]
    if not used:
        return
    i, k = data.draw(st.sampled_from(used))
    old = turns[i].uses[k]
    better = data.draw(st.sampled_from([q for q in Quality if RANK[q] >= RANK[old.quality]]))
    uses = tuple(replace(u, quality=better) if n == k else u for n, u in enumerate(turns[i].uses))
    improved = [replace(turn, uses=uses) if n == i else turn for n, turn in enumerate(turns)]
    before, after = card_of(turns, name), card_of(improved, name)
    assert_not_lower(before, after)


def assert_not_lower(before: ScoreCard, after: ScoreCard) -> None:
    if before.overall is None:
        return
    assert after.overall is not None and after.overall >= before.overall
    for sub, worth in before.sub_scores.items():
        assert worth is None or (after.sub_scores[sub] or 0) >= worth
    for phase, mark in before.phases.items():
        assert mark is None or (after.phases[phase] or 0) >= mark
    for id, technique in before.technique_scores.items():
        assert after.technique_scores[id].score >= technique.score


@pytest.mark.parametrize("name", METHODS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_turn_that_came_to_nothing_never_raises_a_score(name: str, data: st.DataObject) -> None:
    known = method(name)
    turns = data.draw(turns_of(known))
    before = card_of(turns, name)
    place = data.draw(st.integers(0, len(turns)))
    id = data.draw(st.sampled_from([technique.id for technique in known.techniques]))
    phase = data.draw(st.sampled_from([phase.id for phase in known.phases]))
    technique = known.technique(id)
    if technique.phases and phase not in technique.phases and phase not in technique.forbidden:
        return
    poor = seller("Wij hebben een plan, u ook?", phase, (id, "gemist"))
    after = card_of(talk(*turns[:place], poor, *turns[place:]), name)
    if before.insufficient:
        return
    assert after.overall is not None and before.overall is not None and after.overall <= before.overall
    for sub, worth in before.sub_scores.items():
        assert worth is None or (after.sub_scores[sub] or 0) <= worth
    for id, found in before.technique_scores.items():
        assert after.technique_scores[id].score <= found.score
