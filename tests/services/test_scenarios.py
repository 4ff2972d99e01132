from __future__ import annotations

import copy
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from coach_server.domain.customer.persona import BuyingClock, Persona
from coach_server.errors import ConfigError, Invalid, NotFound
from coach_server.paths import catalog
from coach_server.services.method.methodologies import Methodologies
from coach_server.services.practice.customer_words import CustomerWords
from coach_server.services.practice.scenarios import DEFAULT, Scenarios, from_dict

METHODS = Methodologies.load()
FOLDER = catalog() / "scenarios"
DOCUMENT: dict[str, Any] = tomllib.loads((FOLDER / f"{DEFAULT}.toml").read_text(encoding="utf-8"))


def document() -> dict[str, Any]:
    return copy.deepcopy(DOCUMENT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the default scenario alone."""
    home = tmp_path / "scenarios"
    home.mkdir()
    shutil.copy(FOLDER / f"{DEFAULT}.toml", home)
    return home


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / f"{DEFAULT}.toml"
    source = path.read_text(encoding="utf-8")
    assert old in source
    path.write_text(source.replace(old, new, 1), encoding="utf-8")


def test_the_catalogs_scenarios_load_with_the_default_one_first() -> None:
    scenarios = Scenarios.load(FOLDER, METHODS)

    assert scenarios.all()[0].id == DEFAULT
    assert len(scenarios.all()) >= 6
    assert {"hugo", "b2b"} == {scenario.methodology for scenario in scenarios.all()}


def test_every_scenario_is_told_in_dutch_and_english_and_two_in_hebrew() -> None:
    languages = [scenario.languages for scenario in Scenarios.load(FOLDER, METHODS).all()]

    assert all({"nl", "en"} <= set(told) for told in languages)
    assert sum("he" in told for told in languages) >= 2


def test_every_scenario_has_an_objection_for_each_kind_of_resistance() -> None:
    for scenario in Scenarios.load(FOLDER, METHODS).all():
        for story in scenario.stories.values():
            assert {o.attitude for o in story.objections} == {"twijfel", "bezwaar", "uitstel", "angst"}


def test_a_scenario_is_found_by_its_id(folder: Path) -> None:
    scenarios = Scenarios.load(folder, METHODS)

    assert scenarios.get(DEFAULT).persona == Persona()
    assert scenarios.find("nobody") is None
    with pytest.raises(NotFound) as refused:
        scenarios.get("nobody")
    assert refused.value.field == "scenarioId"


@pytest.mark.parametrize(("wanted", "told"), [("nl-BE", "nl"), ("he", "he"), ("de", "en"), ("EN_us", "en")])
def test_a_story_is_told_in_the_wanted_language_or_english(folder: Path, wanted: str, told: str) -> None:
    scenario = Scenarios.load(folder, METHODS).get(DEFAULT)

    assert scenario.story(wanted) is scenario.stories[told]


@pytest.mark.parametrize(
    ("old", "new", "field", "near"),
    [
        ('style = "analyserend"', 'style = "vrolijk"', "persona.style", 'style = "vrolijk"'),
        ('methodology = "hugo"', 'methodology = "nobody"', "methodology", 'methodology = "nobody"'),
        ('role = "zaakvoerder"', 'roll = "zaakvoerder"', "nl.role", "[nl]"),
        ('dirk = ["dirk", "ploegbaas"]', 'dirk = ["dirk ~"]', "nl.cues.dirk", 'dirk = ["dirk ~"]'),
        ("volume = [", "weather = [", "nl.facts.weather", "weather = ["),
        (
            'attitude = "bezwaar"',
            'attitude = "boos"',
            "nl.objections.price.attitude",
            'attitude = "boos"',
        ),
    ],
)
def test_a_mistake_stops_the_start_with_file_line_and_field(
    folder: Path, old: str, new: str, field: str, near: str
) -> None:
    edit(folder, old, new)
    source = (folder / f"{DEFAULT}.toml").read_text(encoding="utf-8").splitlines()
    line = next(n for n, text in enumerate(source, 1) if near in text)

    with pytest.raises(ConfigError) as refused:
        Scenarios.load(folder, METHODS)

    assert f"{DEFAULT}.toml: line {line}, {field}: " in refused.value.message


def test_a_folder_without_the_default_scenario_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=DEFAULT):
        Scenarios.load(tmp_path, METHODS)


def test_an_id_in_two_files_is_refused(folder: Path) -> None:
    shutil.copy(folder / f"{DEFAULT}.toml", folder / "twin.toml")

    with pytest.raises(ConfigError, match="two files"):
        Scenarios.load(folder, METHODS)


def test_a_document_from_elsewhere_makes_the_same_scenario(folder: Path) -> None:
    assert from_dict(document()) == Scenarios.load(folder, METHODS).get(DEFAULT)


def test_a_document_may_leave_out_the_axes() -> None:
    made = document()
    del made["persona"]

    assert from_dict(made).persona.clock is BuyingClock.MARKET_RESEARCH


def _without(made: dict[str, Any], *path: str) -> None:
    for key in path[:-1]:
        made = made[key]
    del made[path[-1]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda d: d.update(id="no spaces"), "id"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d["persona"].update(difficulty="impossible"), "persona.difficulty"),
        (lambda d: _without(d, "nl", "openings"), "nl.openings"),
        (lambda d: d["nl"]["facts"].update(budget=[]), "nl.facts.budget"),
        (lambda d: d["nl"]["facts"].update(budget="much"), "nl.facts.budget"),
        (lambda d: d["nl"]["facts"].update(budget=["x" * 301]), "nl.facts.budget.0"),
        (lambda d: _without(d, "en", "facts", "budget"), "en.facts.budget"),
        (lambda d: d["en"]["objections"].pop(), "en.objections.standstill"),
        (lambda d: d["nl"]["cues"].update(nobody=["x"]), "nl.cues.nobody"),
        (lambda d: [_without(d, code) for code in ("nl", "en", "he")], "nl"),
    ],
)
def test_a_wrong_document_is_refused_with_the_field(change: Any, field: str) -> None:
    made = document()
    change(made)

    with pytest.raises(Invalid) as refused:
        from_dict(made)

    assert refused.value.field == field


@pytest.mark.parametrize("made", [{}, {"id": "x"}, {"id": "x", "methodology": "hugo", "nl": "text"}])
def test_a_document_of_another_kind_is_refused(made: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        from_dict(made)


# The words of the customers


def test_the_customers_words_exist_in_three_languages() -> None:
    words = CustomerWords.load(catalog() / "customers")

    assert set(words.languages) == {"nl", "en", "he"}
    assert words.book("nl-BE").language == "nl"
    assert words.book("de").language == "en"


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('language = "en"', 'language = "fr"', "line .*language"),
        ("ack = [", "akc = [", "lines.akc"),
        ('ack = ["Let me think."', 'ack = ["Let me {think}."', "line .*lines.ack.*no slot"),
        ("{missing}", "{mising}", "line .*lines.summary_half"),
        ("farewell = [", 'farewell = ["bye ~", ', "line .*moves: .*bye ~"),
        ("budget = [", "buget = [", "topics.buget"),
        ("rapport_low =", "rapport_lo =", "moods.rapport_lo"),
    ],
)
def test_a_mistake_in_the_words_names_its_place(tmp_path: Path, old: str, new: str, match: str) -> None:
    source = (catalog() / "customers" / "en.toml").read_text(encoding="utf-8")
    assert old in source
    (tmp_path / "en.toml").write_text(source.replace(old, new, 1), encoding="utf-8")

    with pytest.raises(ConfigError, match=match):
        CustomerWords.load(tmp_path)


def test_the_words_must_exist_in_english(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="en.toml: is missing"):
        CustomerWords.load(tmp_path)
