from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach_server.domain.practice.knowledge import Entry, Kind, KnowledgeBook, Wanted, WordIndex, terms


def entry(name: str, **changes: object) -> Entry:
    given: dict[str, object] = {
        "id": name,
        "kind": Kind.METHOD,
        "question": f"What is {name}?",
        "answer": "It is this. And you?",
        "techniques": (),
        "attitudes": (),
        "phases": (1,),
    }
    return Entry(**(given | changes))  # type: ignore[arg-type]  # as keyword arguments


def book(*entries: Entry) -> KnowledgeBook:
    return KnowledgeBook("en", 1, "Say:", "You are the coach.", "Hello.", entries)


def test_words_are_cut_without_case_and_accents() -> None:
    assert terms("Eén bezwaar, of BEZWAREN? a") == ["een", "bezwa", "of", "bezwa"]


def test_rare_words_weigh_more_than_common_ones() -> None:
    index = WordIndex([["price", "the"], ["boss", "the"], ["the", "time"]])
    scores = index.scores(["the", "boss"])
    assert scores.index(max(scores)) == 1
    assert scores[0] == scores[2] > 0


def test_unknown_words_lower_the_score_of_all() -> None:
    index = WordIndex([["price"], ["boss"]])
    assert index.scores(["price", "zebra"])[0] < index.scores(["price"])[0]


def test_nothing_asked_and_nothing_known_score_nothing() -> None:
    assert WordIndex([["price"]]).scores([]) == [0.0]
    assert WordIndex([]).scores(["price"]) == []


@given(st.lists(st.text(max_size=30), max_size=6), st.text(max_size=60))
def test_a_score_lies_between_0_and_1(documents: list[str], text: str) -> None:
    scores = WordIndex([terms(document) for document in documents]).scores(terms(text))
    assert len(scores) == len(documents)
    assert all(0 <= score <= 1 for score in scores)


def test_the_entry_most_about_a_technique_is_the_one_with_nothing_else_in_it() -> None:
    overview = entry("overview", techniques=("1.1", "1.2"))
    second = entry("second", techniques=("1.2", "1.1"))
    own = entry("own", techniques=("1.1",))
    objection = entry("objection", kind=Kind.OBJECTION, techniques=("1.1",))
    shelf = book(objection, overview, second, own)
    assert shelf.about_technique("1.1") is own
    assert shelf.about_technique("1.2") is second
    assert shelf.about_technique("9.9") is None


def test_the_entry_about_an_attitude_is_of_that_kind_where_there_is_one() -> None:
    objection = entry("objection", kind=Kind.OBJECTION, attitudes=("H7",))
    attitude = entry("attitude", kind=Kind.ATTITUDE, attitudes=("H6", "H7"))
    assert book(objection, attitude).about_attitude("H7") is attitude
    assert book(objection).about_attitude("H7") is objection
    assert book(objection).about_attitude("H1") is None


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("Do this. And you?", "Do this. Say: “How so?” And you?"),
        ("Ask “why?” and wait. And you?", "Ask “why?” and wait. Say: “How so?” And you?"),
        ("And you?", "Say: “How so?” And you?"),
        ("Do this.", "Do this. Say: “How so?”"),
    ],
)
def test_the_ready_sentence_stands_before_the_closing_question(answer: str, told: str) -> None:
    assert book().told(entry("one", answer=answer, better="How so?")) == told


def test_what_is_wanted_adds_up() -> None:
    both = entry("both", techniques=("1.1",), attitudes=("H1",), phases=(1, 2))
    wanted = Wanted(frozenset({"1.1", "1.2"}), "H1", 2)
    parts = (Wanted(frozenset({"1.1"})), Wanted(attitude="H1"), Wanted(phase=2))
    assert wanted.bonus(both) == pytest.approx(sum(part.bonus(both) for part in parts))
    assert Wanted().bonus(both) == 0


def test_another_phase_fits_only_what_was_asked_for_by_name() -> None:
    parking = entry("parking", techniques=("2.1.4",), attitudes=("H5",), phases=(2,))
    assert not Wanted(phase=4).fits(parking)
    assert Wanted(phase=2).fits(parking)
    assert Wanted(frozenset({"2.1.4"}), phase=4).fits(parking)
    assert Wanted(attitude="H5", phase=4).fits(parking)
    assert Wanted().fits(parking)
