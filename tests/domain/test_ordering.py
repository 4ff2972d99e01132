"""Transcripts by place in the conversation, each once."""

from __future__ import annotations

import itertools

import pytest

from coach_server.domain.simulation.ordering import REMEMBERED, Line, Ordering
from coach_server.domain.simulation.talk import Role

HUMAN, AVATAR = Role.TRAINEE, Role.AVATAR


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def test_words_that_come_in_order_are_told_at_once() -> None:
    line = Ordering()
    line.place("u1", HUMAN, None, 0)
    assert texts(line.put("u1", HUMAN, "hallo", 0)) == ["hallo"]
    line.place("a1", AVATAR, "u1", 1)
    assert line.put("a1", AVATAR, "dag", 1) == [Line("a1", AVATAR, "dag", "u1")]
    assert line.deadline is None


def test_an_answer_waits_for_the_words_of_its_question() -> None:
    line = Ordering()
    line.place("u1", HUMAN, None, 0)
    line.place("a1", AVATAR, "u1", 0)
    assert line.put("a1", AVATAR, "dertig", 1) == []
    assert texts(line.put("u1", HUMAN, "hoe oud?", 2)) == ["hoe oud?", "dertig"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_whatever_order_words_come_in_they_are_told_in_the_order_of_the_items(order: tuple[int, ...]) -> None:
    line = Ordering()
    for number in range(4):
        role = HUMAN if number % 2 == 0 else AVATAR
        line.place(f"i{number}", role, f"i{number - 1}" if number else None, 0)
    told: list[str] = []
    for number in order:
        role = HUMAN if number % 2 == 0 else AVATAR
        told += texts(line.put(f"i{number}", role, str(number), 1))
    assert told == ["0", "1", "2", "3"]


def test_an_item_announced_late_takes_its_place_behind_the_one_it_follows() -> None:
    line = Ordering()
    line.place("u1", HUMAN, None, 0)
    line.place("a1", AVATAR, None, 0)
    line.place("u0", HUMAN, "u1", 0)
    line.put("a1", AVATAR, "c", 0)
    line.put("u0", HUMAN, "b", 0)
    assert texts(line.put("u1", HUMAN, "a", 0)) == ["a", "b", "c"]


def test_words_are_told_once_for_each_side() -> None:
    line = Ordering()
    line.place("x", HUMAN, None, 0)
    assert texts(line.put("x", HUMAN, "hallo", 0)) == ["hallo"]
    assert line.put("x", HUMAN, "hallo", 0) == []
    line.place("x", HUMAN, None, 0)
    assert line.put("x", HUMAN, "nog eens", 0) == []


def test_words_told_again_while_they_wait_do_not_replace_the_first() -> None:
    line = Ordering()
    line.place("u1", HUMAN, None, 0)
    line.place("a1", AVATAR, "u1", 0)
    line.put("a1", AVATAR, "eerst", 0)
    line.put("a1", AVATAR, "tweede", 0)
    assert texts(line.put("u1", HUMAN, "x", 0)) == ["x", "eerst"]


def test_words_of_an_item_nobody_announced_are_told_at_once_and_once() -> None:
    line = Ordering()
    assert texts(line.put("u9", HUMAN, "hallo", 0)) == ["hallo"]
    assert line.put("u9", HUMAN, "hallo", 0) == []


def test_an_item_without_words_gives_its_place_away() -> None:
    line = Ordering()
    line.place("u1", HUMAN, None, 0)
    line.place("a1", AVATAR, "u1", 0)
    line.put("a1", AVATAR, "dag", 0)
    assert texts(line.leave("u1", 1)) == ["dag"]
    assert line.leave("unknown", 1) == []


def test_an_item_that_has_its_words_does_not_lose_them_when_it_is_said_to_have_none() -> None:
    line = Ordering()
    line.place("u1", HUMAN, None, 0)
    line.place("a1", AVATAR, "u1", 0)
    line.put("a1", AVATAR, "dag", 0)
    assert line.leave("a1", 1) == []
    assert texts(line.put("u1", HUMAN, "x", 1)) == ["x", "dag"]


def test_the_trainees_words_are_waited_for_four_seconds_and_told_late_all_the_same() -> None:
    line = Ordering()
    line.place("u1", HUMAN, None, 10)
    line.place("a1", AVATAR, "u1", 11)
    line.put("a1", AVATAR, "dag", 11)
    assert line.deadline == 14
    assert line.overdue(13.9) == []
    assert texts(line.overdue(14)) == ["dag"]
    assert texts(line.put("u1", HUMAN, "hallo", 20)) == ["hallo"]


def test_a_long_answer_is_not_passed_by_a_nod_made_during_it() -> None:
    line = Ordering()
    line.place("a1", AVATAR, None, 0)
    line.place("u1", HUMAN, "a1", 5)
    assert line.put("u1", HUMAN, "ja", 6) == []
    assert line.overdue(30) == []
    assert texts(line.put("a1", AVATAR, "een lang verhaal", 31)) == ["een lang verhaal", "ja"]


def test_what_waits_is_told_when_the_line_is_gone() -> None:
    line = Ordering()
    line.place("u1", HUMAN, None, 0)
    line.place("a1", AVATAR, "u1", 0)
    line.put("a1", AVATAR, "dag", 0)
    assert texts(line.flush()) == ["dag"]
    assert line.deadline is None


def test_an_endless_talk_does_not_grow_it() -> None:
    line = Ordering()
    for number in range(3 * REMEMBERED):
        line.place(f"u{number}", HUMAN, None, number)
        line.put(f"u{number}", HUMAN, "x", number)
    assert len(line._done) == REMEMBERED
    assert line._line == []
