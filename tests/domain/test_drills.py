from __future__ import annotations

from dataclasses import replace

import pytest

from coach_server.domain.method.methodology import say_all
from coach_server.domain.method.turns import Quality, TechniqueUse, Turn
from coach_server.domain.practice.drills import LINE_CHARS, WEAKEST, DrillSpec, drills_of, is_better
from coach_server.domain.practice.scoring import score
from coach_server.services.practice.feedback_wording import feedback_wording
from tests.domain.talks import STARTED_AT, customer, hurried, method, opening, seller, talk, whole

WORDS = feedback_wording("nl").words


def drills(turns: list[Turn], name: str = "hugo") -> tuple[DrillSpec, ...]:
    card = score(turns, method(name), language="nl", started_at=STARTED_AT, words=WORDS)
    return drills_of(card, turns, method(name), "nl")


def test_the_heaviest_missed_moment_is_the_first_drill() -> None:
    first = drills(hurried())[0]
    assert (first.moment, first.technique, first.phase) == ("commit_gemist", "2.1.8", 2)
    assert first.seller_line == "Wij hebben een systeem dat alles automatisch plant."
    assert first.better


def test_there_are_one_to_three_and_no_technique_or_place_twice() -> None:
    found = drills(hurried())
    assert 1 <= len(found) <= 3
    assert len({spec.technique for spec in found}) == len(found)
    assert len({spec.customer_lines + (spec.seller_line,) for spec in found}) == len(found)


def test_the_customer_is_made_of_that_customers_own_words() -> None:
    turns = hurried()
    theirs = [turn.text for turn in turns if not turn.is_seller]
    for spec in drills(turns):
        assert 2 <= len(spec.customer_lines) <= 4
        assert all(line in theirs for line in spec.customer_lines)
        assert list(spec.customer_lines) == sorted(spec.customer_lines, key=theirs.index)


def test_the_words_of_the_moment_itself_are_among_the_lines() -> None:
    objection = next(spec for spec in drills(hurried()) if spec.technique == "4.2.4")
    assert "Dat is wel veel te duur voor ons." in objection.customer_lines
    assert (objection.attitude, objection.phase) == ("H7", 3)


def test_a_drill_takes_sixty_to_ninety_seconds() -> None:
    for turns in (hurried(), whole(), opening()):
        assert all(60 <= spec.seconds <= 90 for spec in drills(turns))


def test_long_lines_are_shortened() -> None:
    turns = hurried()
    turns[3] = replace(turns[3], text="De planning loopt elke week mis. " * 40)
    assert all(len(line) <= LINE_CHARS for spec in drills(turns) for line in spec.customer_lines)


def test_a_talk_too_short_to_judge_gives_no_drill() -> None:
    assert drills(opening()[:3]) == ()


def test_a_perfect_talk_gives_the_weakest_technique_that_was_used() -> None:
    turns = whole()
    turns[0] = replace(turns[0], uses=(replace(turns[0].uses[0], quality=Quality.GOED),))
    (spec,) = drills(turns)
    assert (spec.moment, spec.technique) == (WEAKEST, "1.1")
    assert spec.better in say_all(method().technique("1.1").examples, "nl")


def test_a_talk_without_any_technique_gives_the_next_step() -> None:
    turns = talk(*(seller("Zo is dat.", 1), customer("Dat zal wel zo zijn.", 1)) * 3)
    (spec,) = drills(turns)
    assert (spec.moment, spec.technique, spec.seller_line) == (WEAKEST, "1.1", "")


def test_a_technique_is_never_drilled_where_it_is_forbidden() -> None:
    turns = talk(
        customer("Wat kost het nu eigenlijk?", 4, "H5"),
        *(seller("Daar kom ik op terug.", 4, ("2.1.4", "goed")), customer("Dat zeg je altijd.", 4)) * 3,
    )
    (spec,) = drills(turns)
    assert (spec.technique, spec.phase) == ("2.1.4", 2)


OBJECTION = DrillSpec("bezwaar_overgeslagen", "4.2.4", "H7", 4, ("Te duur.", "Echt."), "Nee hoor.", "?", 70)


def answered(*pairs: tuple[str, str]) -> list[TechniqueUse]:
    return [TechniqueUse(id, Quality(quality), "x") for id, quality in pairs]


@pytest.mark.parametrize(
    ("before", "uses", "closes"),
    [
        (None, answered(("4.2.4", "goed")), True),
        (None, answered(("4.2.4", "bijna")), False),
        (None, answered(), False),
        (None, answered(("1.1", "perfect")), False),
        (None, answered(("2.1.4", "perfect")), False),
        (Quality.GEMIST, answered(("4.2.4", "goed")), True),
        (Quality.BIJNA, answered(("4.2.4", "goed")), True),
        (Quality.GOED, answered(("4.2.4", "goed")), False),
        (Quality.GOED, answered(("1.1", "perfect"), ("4.2.4", "perfect")), True),
        (Quality.PERFECT, answered(("4.2.4", "goed")), False),
        (Quality.PERFECT, answered(("4.2.4", "perfect")), True),
    ],
)
def test_a_better_answer_closes_a_drill(
    before: Quality | None, uses: list[TechniqueUse], closes: bool
) -> None:
    assert is_better(before, uses, OBJECTION, method()) is closes


def test_a_technique_beneath_the_drilled_one_counts() -> None:
    spec = replace(OBJECTION, technique="2.1.1", attitude=None, phase=2)
    assert is_better(None, answered(("2.1.1.6", "goed")), spec, method())
