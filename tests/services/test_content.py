from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coach_server import paths
from coach_server.domain.detection import Objection, Signal
from coach_server.domain.moves import MOVES
from coach_server.domain.tip import Stage
from coach_server.errors import ConfigError, NotFound
from coach_server.services.content import Content, word_beginnings

CONTENT = Content.load()

OWN = """
id = "own"
title = "Our own"
language = "en"

[[line]]
id = "one"
stage = "GREETING"
text = "Hello [Customer Name]."
neutral = "Hello."
heading = "Say hello"
label = "Minimal"

[[line]]
id = "two"
stage = "OBJECTION_HANDLING"
text = "Compared with what?"
when = { objections = ["price"], signals = ["pain"], known = ["budget"], not_before = "DISCOVERY" }

[[line]]
id = "three"
stage = "CLOSING"
text = "Thank you for your time."
when = { after_refusal = true }
"""


def own(folder: Path, text: str = OWN, name: str = "own.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def catalog_with(tmp_path: Path, part: str, old: str, new: str) -> Path:
    """Our catalog with one change in `part`."""
    shutil.copytree(paths.catalog(), tmp_path / "catalog")
    changed = tmp_path / "catalog" / part
    source = changed.read_text(encoding="utf-8")
    assert old in source
    changed.write_text(source.replace(old, new, 1), encoding="utf-8")
    return tmp_path / "catalog"


def test_the_catalog_that_ships_is_whole() -> None:
    assert [(p.id, p.language) for p in CONTENT.playbooks()] == [("b2b", "en"), ("b2b", "nl")]
    assert set(CONTENT.phrasebooks) == {"en", "nl", "he"}
    assert set(CONTENT.facts.languages) == {"en", "nl", "he"}
    for phrases in CONTENT.phrasebooks.values():
        assert set(phrases.moves) == MOVES


def test_a_playbook_is_given_in_the_language_of_the_call() -> None:
    assert CONTENT.playbook("b2b", "nl-BE").language == "nl"
    assert CONTENT.playbook("b2b", "fr").language == "en"
    assert CONTENT.playbook("b2b").language == "en"


def test_an_unknown_playbook_is_not_found() -> None:
    assert CONTENT.has_playbook("b2b")
    assert not CONTENT.has_playbook("nobody")
    with pytest.raises(NotFound):
        CONTENT.playbook("nobody")


def test_a_language_without_phrases_is_coached_in_english() -> None:
    assert CONTENT.phrases("nl_BE").language == "nl"
    assert CONTENT.phrases("fr").language == "en"


def test_a_customers_own_playbook_is_read_beside_ours(tmp_path: Path) -> None:
    content = Content.load(own(tmp_path))
    assert [p.id for p in content.playbooks()] == ["b2b", "b2b", "own"]
    line = content.playbook("own").line("two")
    assert line is not None
    assert line.stage is Stage.OBJECTION_HANDLING
    assert line.conditions.objections == {Objection.PRICE}
    assert line.conditions.signals == {Signal.PAIN}
    assert line.conditions.not_before is Stage.DISCOVERY
    assert content.playbook("own", "nl").language == "en"


def test_a_customers_playbook_of_the_same_id_replaces_ours(tmp_path: Path) -> None:
    content = Content.load(own(tmp_path, OWN.replace('id = "own"', 'id = "b2b"', 1)))
    assert content.playbook("b2b", "en").title == "Our own"
    assert content.playbook("b2b", "nl").title == "Algemeen zakelijk"


def test_a_folder_that_is_not_there_is_no_mistake(tmp_path: Path) -> None:
    assert len(Content.load(tmp_path / "none").playbooks()) == 2


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('stage = "GREETING"', 'stage = "HELLO"', r"line 8, line\[1\]\.stage: 'HELLO' is none of GREETING"),
        ('id = "two"', 'id = "one"', r"line\[2\]\.id: 'one' is used twice"),
        ('id = "one"', 'id = "o n e"', r"line\[1\]\.id: 'o n e'"),
        ('text = "Compared with what?"', "", r"line\[2\]\.text: is missing"),
        ("Hello [Customer Name].", "Hello [Customer Name.", r"line 9, line\[1\]\.text: has a bracket"),
        ('heading = "Say hello"', 'heading = "Say a warm hello"', r"line 11, line\[1\]\.heading"),
        ('objections = ["price"]', 'objections = ["cost"]', r"line\[2\]\.when\.objections: 'cost'"),
        ('known = ["budget"]', 'known = ["shoe_size"]', r"line\[2\]\.when\.known: 'shoe_size'"),
        ("after_refusal = true", "after_no = true", r"line\[3\]\.when\.after_no: is not known here"),
        ("after_refusal = true", 'after_refusal = "yes"', r"line\[3\]\.when\.after_refusal"),
        ('title = "Our own"', "title = 3", r"title: must be a text"),
        ('language = "en"', 'language = "English!"', r"language: must be a language code"),
        ("[[line]]", "[line", r"own\.toml: .*line 6"),
        ('[[line]]\nid = "three"', '[other]\nid = "three"', r"other: is not known here"),
    ],
)
def test_a_mistake_in_a_playbook_names_file_and_field(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in OWN
    with pytest.raises(ConfigError, match=told) as raised:
        Content.load(own(tmp_path, OWN.replace(old, new, 1)))
    assert raised.value.message.startswith(f"{tmp_path.name}/own.toml: ")


def test_a_playbook_of_two_lines_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 to 2000 lines; this one has 2"):
        Content.load(own(tmp_path, OWN[: OWN.rindex("[[line]]")]))


def test_two_playbooks_of_one_id_and_language_are_a_mistake(tmp_path: Path) -> None:
    own(tmp_path)
    with pytest.raises(ConfigError, match="a second playbook 'own'"):
        Content.load(own(tmp_path, name="second.toml"))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"own\.toml: is not UTF-8"):
        Content.load(tmp_path)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="larger than"):
        Content.load(own(tmp_path, "#" * 1_000_001))


@pytest.mark.parametrize(
    ("part", "old", "new", "told"),
    [
        ("phrases/en.toml", "[move.opening]", "[move.beginning]", r"move\.beginning: is not known here"),
        ("phrases/en.toml", "[move.refusal]", "[ignored]", r"ignored: is not known here"),
        ("phrases/en.toml", '"Shall we do it?"', '"Do? Do it?"', r"closing\.minimal\[1\]: has 2 sentences"),
        ("phrases/en.toml", "You brought up {topic}.", "You brought up {theme}.", r"unknown slot \{theme\}"),
        ("phrases/en.toml", '"Shall we do it?"', '"Shall we do [it]?"', r"brackets are for playbooks only"),
        ("phrases/en.toml", 'asks = ["pain"]', 'asks = ["paid"]', r"asks: 'paid' is none of"),
        ("phrases/en.toml", '"Warm opening"', '"A very warm opening"', r"move\.opening\.headings"),
        ("phrases/nl.toml", 'price = "de prijs"', "", r"objection_names\.price: is missing"),
        ("facts/nl.toml", "{company}", "{firm}", r"rule\[\d+\]\.find: is not a pattern \(unknown macro"),
        ("facts/en.toml", 'fact = "budget"', 'fact = "money"', r"rule\[\d+\]\.fact: 'money' is none of"),
        ("facts/en.toml", "tool = '''(?i:", "tool = '''(?i:(", r"macros\.tool: is not a pattern"),
    ],
)  # fmt: skip
def test_a_mistake_in_our_own_files_stops_the_start(
    tmp_path: Path, part: str, old: str, new: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        Content.load(folder=catalog_with(tmp_path, part, old, new))
    assert raised.value.message.startswith(f"{part}: ")


def test_english_phrases_are_indispensable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"phrases/en\.toml is missing"):
        Content.load(folder=tmp_path)


def test_cues_are_found_where_a_word_begins() -> None:
    cues = word_beginnings(["plan", "temp "])
    assert cues is not None
    assert cues.search("the Planning")
    assert not cues.search("an explanation")
    assert cues.search("a temp.")
    assert not cues.search("temperature")
    assert word_beginnings([]) is None
