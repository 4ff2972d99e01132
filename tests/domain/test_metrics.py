from __future__ import annotations

import pytest

from coach_server import paths
from coach_server.domain.cuefile import parse_cues
from coach_server.domain.detection import Signal
from coach_server.domain.metrics import conduct, count_words, split_sentences
from coach_server.domain.transcript import Speaker, Utterance

AGENT, CUSTOMER = Speaker.AGENT, Speaker.CUSTOMER


def call(*turns: tuple[Speaker, str, float, float]) -> list[Utterance]:
    return [Utterance(n, who, text, begin, end) for n, (who, text, begin, end) in enumerate(turns, 1)]


def test_talk_share_counts_words_of_both_sides() -> None:
    figures = conduct(call((AGENT, "one two three", 0, 1), (CUSTOMER, "four", 2, 3)))
    assert (figures.agent_share, figures.agent_words, figures.customer_words) == (0.75, 3, 1)


def test_a_silent_call_has_no_share_and_no_pace() -> None:
    figures = conduct([])
    assert (figures.agent_share, figures.pace_wpm, figures.longest_monologue_words) == (None, None, 0)


def test_the_longest_monologue_runs_over_segments_until_the_customer_speaks() -> None:
    figures = conduct(
        call(
            (AGENT, "one two", 0, 2),
            (AGENT, "three four five", 3, 6),
            (CUSTOMER, "yes", 7, 8),
            (AGENT, "six", 9, 10),
        )
    )
    assert (figures.longest_monologue_words, figures.longest_monologue_s) == (5, 6.0)


def test_pace_comes_from_the_agents_timed_segments() -> None:
    text = " ".join(["word"] * 30)
    figures = conduct(call((AGENT, text, 0, 12), (CUSTOMER, "okay", 13, 14)))
    assert figures.pace_wpm == pytest.approx(150)


def test_impossible_times_give_no_pace() -> None:
    text = " ".join(["word"] * 30)
    assert conduct(call((AGENT, text, 0, 1.0))).pace_wpm is None
    assert conduct(call((AGENT, text, 5, 5))).pace_wpm is None


@pytest.mark.parametrize(
    ("language", "text", "opened", "closed"),
    [
        ("en", "How do you plan that? Do you use Excel?", 1, 1),
        ("en", "We start at 9.30. It costs 2.500 a year.", 0, 0),
        ("nl", "Hoe plannen jullie dat nu? En wie doet dat? Klopt dat?", 2, 1),
        ("he", "איך אתם מטפלים בזה היום? יש לכם תוכנה?", 1, 1),
    ],
)
def test_the_agents_questions_are_counted_by_kind(language: str, text: str, opened: int, closed: int) -> None:
    file = paths.catalog() / "cues" / f"{language}.toml"
    cues = parse_cues(file.read_text("utf-8"), file.name)
    figures = conduct(call((AGENT, text, 0, 5), (CUSTOMER, "What does it cost?", 6, 8)), cues)
    assert (figures.open_questions, figures.closed_questions) == (opened, closed)
    assert figures.questions == opened + closed


def test_a_given_classifier_is_asked_about_each_sentence() -> None:
    heard: list[str] = []

    def classify(sentence: str) -> list[Signal]:
        heard.append(sentence)
        return [Signal.QUESTION_OPEN]

    figures = conduct(call((AGENT, "So. And then?", 0, 2)), classify=classify)
    assert (heard, figures.open_questions) == (["So.", "And then?"], 2)


def test_words_and_sentences_of_any_script() -> None:
    assert count_words("don't - stop!") == 2
    assert count_words("שלום, מה שלומך?") == 3
    assert split_sentences("Ja. Om 9.30 uur? Prima…") == ["Ja.", "Om 9.30 uur?", "Prima…"]
