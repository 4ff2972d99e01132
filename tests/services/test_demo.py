from __future__ import annotations

from pathlib import Path

import pytest

from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError
from coach_server.services.demo import demo_languages, load_demo, read_demo

GOOD = """
language = "en"
title = "A call"
[metadata]
agent_name = "Maya"
customer_name = "Daniel"
company = "Finch Lane"
location = "Leeds"
[[turn]]
speaker = "agent"
text = "Hello."
pause_ms = 100
"""


@pytest.mark.parametrize("language", ["en", "nl"])
def test_the_demo_calls_are_real_conversations_of_three_to_four_minutes(language: str) -> None:
    call = load_demo(language)
    assert call.language == language
    assert 30 <= len(call.turns) <= 40
    assert 180_000 <= call.duration_ms <= 240_000
    speakers = [turn.speaker for turn in call.turns]
    assert speakers[0] is Speaker.AGENT
    assert all(one is not next_one for one, next_one in zip(speakers, speakers[1:], strict=False))
    assert sum("?" in turn.text for turn in call.turns if turn.speaker is Speaker.AGENT) >= 8
    # A pace people speak at: 190 words a minute at most, the breath included.
    assert all(len(turn.text.split()) / turn.pause_ms * 60_000 < 190 for turn in call.turns[1:])


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "en",
            ("too expensive", "we already use", "How long does it take to set up", "Thursday the twelfth"),
        ),
        ("nl", ("te duur", "We hebben al een pakket", "Hoe snel kunnen we", "dinsdag de negende")),
    ],
)
def test_each_demo_has_price_competitor_buying_signal_and_a_dated_next_step(
    language: str, words: tuple[str, ...]
) -> None:
    said = " ".join(turn.text for turn in load_demo(language).turns)
    assert [word for word in words if word not in said] == []


def test_the_metadata_names_who_speaks() -> None:
    call = load_demo("nl")
    assert call.metadata["agent_name"] in call.turns[0].text
    assert call.metadata["customer_name"] in call.turns[0].text


@pytest.mark.parametrize("language", ["fr", "../demo/en", "en/../nl", ""])
def test_a_language_without_a_demo_is_refused_with_those_there_are(language: str) -> None:
    with pytest.raises(ConfigError, match="there are: en, nl"):
        load_demo(language)


def test_languages_are_found_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "en.toml").write_text(GOOD, encoding="utf-8")
    assert demo_languages(tmp_path) == ("en",)
    assert load_demo("en", tmp_path).title == "A call"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('language = "en"', 'language = "nl"', 'en.toml: language must be "en"'),
        ('title = "A call"', "", "en.toml: title must be a text"),
        ("[metadata]", "[names]", r"en.toml: a \[metadata\] table is missing"),
        ('company = "Finch Lane"', "company = 3", r"en.toml: metadata.company must be a text"),
        ("pause_ms = 100", "", r"en.toml turn\[1\]: pause_ms is missing"),
        ('speaker = "agent"', 'speaker = "robot"', r"en.toml turn\[1\]: speaker must be"),
        ('text = "Hello."', "", r"en.toml turn\[1\]: text must be"),
        ("[[turn]]", "[[segments]]", r"the turns must be \[\[turn\]\] tables"),
    ],
)
def test_a_mistake_in_a_demo_stops_with_the_file_and_the_field(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_demo("en.toml", GOOD.replace(old, new), "en")
