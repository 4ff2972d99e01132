from __future__ import annotations

import re
from pathlib import Path

import pytest

from coach_server import paths
from coach_server.domain.cues import Pattern, compile_pattern, index_patterns, words_of
from coach_server.domain.method.methodology import Epic, Methodology, SubScore, Technique, sort_key
from coach_server.domain.tip import Stage
from coach_server.errors import ConfigError, NotFound
from coach_server.services.method.entry import LANGUAGES
from coach_server.services.method.methodologies import (
    HINT_RULES,
    MISSED_RULES,
    Methodologies,
    read_methodology,
)

METHODS = Methodologies.load()
HUGO = METHODS.get("hugo")
FOLDER = paths.catalog() / "methodologies"

# The seed's four tables: id, technique, minutes, required (only phase 1 has that column).
SEED = """
1.1 | Koopklimaat creëren | 2 | required
1.2 | Gentleman's agreement | 1 | required
1.3 | Firmavoorstelling + reference | 2 | required
1.4 | Instapvraag | 1 | required
2.1.1 | Feitgerichte vragen | 3
2.1.2 | Meningsgerichte vragen (open vragen) | 3
2.1.3 | Feitgerichte vragen onder alternatieve vorm | 2
2.1.4 | Ter zijde schuiven | 2
2.1.5 | Pingpong techniek | 2
2.1.6 | Actief en empathisch luisteren | 3
2.1.7 | LEAD questioning (storytelling) | 4
2.1.8 | Lock questioning | 2
3.1 | Empathie tonen | 2
3.2 | Oplossing | 3
3.3 | Voordeel | 2
3.4 | Baat | 2
3.5 | Mening vragen / standpunt onder alternatieve vorm | 2
4.1 | Proefafsluiting | 2
4.2.1 | Klant stelt vragen | 3
4.2.2 | Twijfels | 3
4.2.3 | Poging tot uitstel | 2
4.2.4 | Bezwaren | 4
4.2.5 | Angst / Bezorgdheden | 3
"""
SEED_PHASES = {
    1: ("Openingsfase", "Koopklimaat creëren en vertrouwen opbouwen", 4, []),
    2: (
        "Ontdekkingsfase",
        "Klantbehoeften, wensen en bezwaren in kaart brengen",
        8,
        "Bron, Motivatie, Ervaring, Verwachtingen, Alternatieven, Budget, Timing, Beslissingscriteria".split(
            ", "
        ),
    ),
    3: ("Aanbevelingsfase", "Oplossing koppelen aan klantbehoeften", 5, ["USP's"]),
    4: ("Beslissingsfase", "Deal sluiten en bezwaren neutraliseren", 6, ["Beslissing"]),
}

# Names and flags of the 25 techniques that later sources added: id, counts as, Dutch name.
DETAIL = """
0.1 1.1 Prospectanalyse
0.2 1.1 SWOT-analyse prospect
0.3 1.1 CRM-historiek raadplegen
0.4 1.1 One Minute Manager
0.5 1.1 Gespreksvoorbereiding
2.1.1.1 2.1.1 Bron
2.1.1.2 2.1.1 Motivatie
2.1.1.3 2.1.1 Ervaring
2.1.1.4 2.1.1 Verwachtingen
2.1.1.5 2.1.1 Alternatieven
2.1.1.6 2.1.1 Budget
2.1.1.7 2.1.1 Timing
2.1.1.8 2.1.1 Beslissingscriteria
2.3 2.1.7 Impact / Gevolg vragen
3.6 3.3 Technisch voorrekenen
3.7 3.4 Vat baten samen
4.2.6 4.2.5 Risico-inschatting behandelen
4.ABC 4.1 ABC-techniek (Always Be Closing)
4.INDIEN 4.1 Indien-techniek
4.3 4.1 Finale Closing
4.3.1 4.1 Samenvatten in klantwoorden
4.3.2 4.1 Verwachtingen-oplossing koppeling
4.3.3 4.1 CVP bevestigen
4.3.4 4.1 Alternatieve keuze (finale)
4.3.5 4.1 Order schrijven
"""

ATTITUDES = {
    "H1": ("positief", "Positief antwoord", (1, 2, 3, 4)),
    "H2": ("negatief", "Negatief antwoord", (1, 2, 3, 4)),
    "H3": ("vaag", "Schijninstemming", (1, 2, 3, 4)),
    "H4": ("ontwijkend", "Te algemeen antwoord", (1, 2, 3, 4)),
    "H5": ("vraag", "Vraag", (1, 2, 3, 4)),
    "H6": ("twijfel", "Twijfel", (3, 4)),
    "H7": ("bezwaar", "Bezwaar", (3, 4)),
    "H8": ("uitstel", "Uitstel", (3, 4)),
    "H9": ("angst", "Angst / Bezorgdheid", (3, 4)),
}

both = pytest.mark.parametrize("method", METHODS.all(), ids=lambda method: method.id)


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def fires(patterns: tuple[str, ...], text: str) -> bool:
    phrases = index_patterns(Pattern(compile_pattern(pattern)) for pattern in patterns)
    words = words_of(text)
    return any(True for i in range(len(words.forms)) for _ in phrases.at(words, i, len(words.forms)))


# --- the seed


def test_the_steps_are_the_23_of_the_seed_word_for_word() -> None:
    steps = [
        [s.id, s.name["nl"], str(s.minutes), *(["required"] if s.required and s.phase == 1 else [])]
        for s in HUGO.steps
    ]
    assert steps == rows(SEED)


def test_only_the_opening_has_required_steps() -> None:
    assert [step.id for step in HUGO.steps if step.required] == ["1.1", "1.2", "1.3", "1.4"]


def test_the_phases_are_those_of_the_seed_word_for_word() -> None:
    for phase in HUGO.flow:
        name, goal, count, themes = SEED_PHASES[phase.id]
        assert phase.name["nl"] == name
        assert phase.goal["nl"] == f"{goal}."
        assert len(HUGO.steps_of(phase.id)) == count
        assert [theme.name["nl"] for theme in phase.themes] == themes
    assert [phase.id for phase in HUGO.flow] == [1, 2, 3, 4]


def test_the_later_techniques_are_detail_beneath_a_step() -> None:
    detail = [f"{t.id} {t.counts_as} {t.name['nl']}" for t in HUGO.techniques if not t.is_step]
    assert sorted(detail) == sorted(DETAIL.strip().splitlines())
    assert len(HUGO.techniques) == 48


def test_the_upstream_numbers_lead_to_the_seeds_steps() -> None:
    assert HUGO.technique("2.2").id == "2.1.7"
    assert HUGO.technique("2.4").id == "2.1.8"
    assert HUGO.step("2.2") is HUGO.technique("2.1.7")


def test_epic_runs_from_explore_to_commit() -> None:
    assert HUGO.epic_of("2.1.1.6") is Epic.EXPLORE
    assert [HUGO.epic_of(i) for i in ("2.1.3", "2.2", "2.3", "2.4")] == list(Epic)
    assert {t.phase for t in HUGO.techniques if t.epic} == {2}


def test_the_attitudes_are_the_nine_of_the_contract() -> None:
    assert {a.id: (a.key, a.name["nl"], a.phases) for a in HUGO.attitudes} == ATTITUDES
    for attitude in HUGO.attitudes:
        assert attitude.needs == (("4.1", "4.INDIEN") if 1 not in attitude.phases else ())
    keys = [a.key for i in HUGO.attitude_priority if (a := HUGO.attitude(i))]
    assert keys == "bezwaar angst uitstel twijfel vraag vaag ontwijkend negatief positief".split()
    assert HUGO.attitude_fallback == ("H3", "H4", "H1")


def test_nothing_is_recommended_before_a_yes_to_the_summary() -> None:
    assert (HUGO.commitment, HUGO.commitment_before) == (("2.1.8",), 3)


def test_parking_is_forbidden_in_the_decision() -> None:
    park = HUGO.technique("2.1.4")
    assert 2 in park.phases
    assert park.forbidden == (4,)
    assert [t.id for t in HUGO.answers("H5", 2)] == ["2.1.4"]
    assert [t.id for t in HUGO.answers("H5", 4)] == ["4.2.1"]


def test_the_figures_of_the_contract_stand_in_the_file() -> None:
    assert [phase.weight for phase in HUGO.phases] == [0, 0.15, 0.40, 0.25, 0.20]
    scoring = HUGO.scoring
    assert list(scoring.turn_points.values()) == [10, 5, 2, 0]
    assert list(scoring.use_points.values()) == [10, 7, 4, 0]
    assert scoring.bonus == 5
    assert scoring.weights["structure"] == {"flow": 0.30, "themes": 0.25, "opening": 0.20, "epic": 0.25}
    assert list(scoring.weights["attitudes"].values()) == [0.30, 0.40, 0.30]
    assert scoring.weights["balance"] == {"talk": 0.30, "perspective": 0.25, "questions": 0.25, "echo": 0.20}
    assert {missed.rule for missed in HUGO.missed} == MISSED_RULES
    assert {hint.rule for hint in HUGO.hints} == HINT_RULES
    assert HUGO.stages[Stage.GREETING] == 1
    assert {HUGO.stages[s] for s in (Stage.CLOSING, Stage.OBJECTION_HANDLING, Stage.CONVERSION)} == {4}


def test_unlocking_follows_the_phases() -> None:
    assert {p.id: (p.needs, p.completes_with, p.ordered) for p in HUGO.flow} == {
        1: ((), ("1.1", "1.2", "1.3", "1.4"), True),
        2: ((1,), ("2.1.8",), False),
        3: ((2,), ("3.4",), False),
        4: ((1, 2, 3), ("4.1",), False),
    }


# --- what the domain asks of it


def test_the_steps_follow_each_other_in_the_flow() -> None:
    assert (after := HUGO.next_step("1.4")) and after.id == "2.1.1"
    assert (after := HUGO.next_step("2.1.8")) and after.id == "3.1"
    assert HUGO.next_step("4.2.5") is None
    assert (phase := HUGO.next_phase(1)) and phase.id == 2


def test_detail_counts_for_the_step_above_it() -> None:
    for technique_id, step_id in (("2.1.1.6", "2.1.1"), ("2.3", "2.1.7"), ("4.ABC", "4.1"), ("3.5", "3.5")):
        assert (step := HUGO.step(technique_id)) and step.id == step_id
    assert HUGO.step("9.9") is None


def test_ids_are_ordered_by_their_parts_and_words_come_last() -> None:
    assert sorted(["4.ABC", "4.3.1", "4.1", "2.1.10", "4.INDIEN", "2.1.9", "4.2.5", "4.3"], key=sort_key) == [
        *("2.1.9", "2.1.10", "4.1", "4.2.5", "4.3", "4.3.1", "4.ABC", "4.INDIEN"),
    ]
    ids = [step.id for step in HUGO.steps]
    assert ids == sorted(ids, key=sort_key)


@pytest.mark.parametrize(
    ("technique", "attitude", "phase", "meets"),
    [
        ("4.2.4", "H7", 4, True),
        ("4.2.2", "H7", 4, False),
        ("4.2.6", "H9", 4, True),
        ("2.4", "H1", 2, True),
        ("2.1.4", "H5", 2, True),
        ("2.1.4", "H5", 4, False),
        ("2.1.5", "vaag", 2, True),
        ("9.9", "H7", 4, False),
        ("4.2.4", None, 4, False),
    ],
)
def test_a_technique_meets_the_attitude_that_asks_for_it(
    technique: str, attitude: str | None, phase: int, meets: bool
) -> None:
    assert HUGO.meets(technique, attitude, phase) is meets


# --- completeness


@both
def test_every_step_is_complete_in_every_language(method: Methodology) -> None:
    for step in method.steps:
        for language in LANGUAGES:
            for words in (step.name, step.goal, step.what, step.when):
                assert words[language]
            assert len(step.how[language]) >= 3
            assert step.cues[language]
            assert step.marks[language]


def test_hugos_steps_have_enough_steps_examples_and_cues() -> None:
    for step in HUGO.steps:
        for language, examples, fewest, most in (("nl", 4, 6, 18), ("en", 4, 6, 18), ("he", 3, 4, 12)):
            assert 3 <= len(step.how[language]) <= 5, step.id
            assert len(step.examples[language]) >= examples, (step.id, language)
            assert fewest <= len(step.cues[language]) <= most, (step.id, language)
            assert 1 <= len(step.marks[language]) <= 4, (step.id, language)


@both
def test_detail_has_a_goal_and_examples_in_dutch_and_english(method: Methodology) -> None:
    for technique in method.techniques:
        assert set(technique.name) == set(LANGUAGES)
        for language in ("nl", "en"):
            assert technique.goal[language]
            assert technique.what[language]
            assert len(technique.examples[language]) >= 2


@both
def test_every_attitude_moment_and_hint_speaks_every_language(method: Methodology) -> None:
    for attitude in method.attitudes:
        assert set(attitude.name) == set(attitude.meaning) == set(attitude.cues) == set(LANGUAGES)
    for missed in method.missed:
        assert set(missed.name) == set(missed.why) == set(LANGUAGES)
        assert all(len(missed.better[language]) >= 3 for language in LANGUAGES)
    for hint in method.hints:
        assert set(hint.text) == set(LANGUAGES)
        for text in hint.text.values():
            assert text.count("{question}") == 1
            assert "?" not in text


@both
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_examples_of_a_step_carry_its_own_cues(method: Methodology, language: str) -> None:
    silent = [
        example
        for step in method.steps
        for example in step.examples[language]
        if not any(fires(t.cues.get(language, ()), example) for t in _family(method, step))
    ]
    assert len(silent) <= 1, silent


def _family(method: Methodology, step: Technique) -> list[Technique]:
    return [technique for technique in method.techniques if technique.step_id == step.id]


@pytest.mark.parametrize(
    "sentence",
    [
        "Het is rood of blauw.",
        "Dat was eerder zo.",
        "Ik weet wat het is.",
        "Wie weet.",
        "Dat is echt waar.",
        "Tot morgen dan.",
    ],
)
def test_function_words_alone_are_no_technique(sentence: str) -> None:
    assert [t.id for t in HUGO.techniques if fires(t.cues["nl"], sentence)] == []


def test_every_sub_score_is_fed_by_a_step() -> None:
    for method in METHODS.all():
        assert {sub for step in method.steps for sub in step.sub_scores} == set(SubScore)


# --- the second method


def test_the_second_method_owes_nothing_to_the_first() -> None:
    b2b = METHODS.get("b2b")
    assert [phase.id for phase in b2b.flow] == [1, 2, 3, 4, 5]
    assert 12 <= len(b2b.steps) <= 14
    assert not {t.id for t in b2b.techniques} & {t.id for t in HUGO.techniques}
    assert not {a.id for a in b2b.attitudes} & {a.id for a in HUGO.attitudes}
    assert b2b.scoring.weights != HUGO.scoring.weights
    assert b2b.meets("value.proof", "A1", 3) is False
    assert [t.id for t in b2b.answers("A4", 4)] == ["objection.clarify", "objection.answer"]


# --- the catalog


def test_no_method_named_is_the_default_one() -> None:
    assert METHODS.get(None) is METHODS.default is HUGO
    assert [method.id for method in METHODS.all()] == ["hugo", "b2b"]
    with pytest.raises(NotFound) as raised:
        METHODS.get("nobody")
    assert raised.value.field == "methodology"


def test_a_catalog_without_the_default_method_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hugo\.toml is missing"):
        Methodologies.load(tmp_path)


def test_the_hash_names_the_exact_bytes(tmp_path: Path) -> None:
    source = (FOLDER / "b2b.toml").read_text(encoding="utf-8")
    (tmp_path / "b2b.toml").write_text(source + "\n# a remark\n", encoding="utf-8")
    changed = read_methodology(tmp_path / "b2b.toml")
    assert changed.stamp == METHODS.get("b2b").stamp == "b2b@1"
    assert changed.source_hash != METHODS.get("b2b").source_hash
    assert re.fullmatch("[0-9a-f]{64}", changed.source_hash)


# --- what is refused


BAD: dict[str, tuple[str, str, str]] = {
    # name: (what stands in b2b.toml, what replaces it, what the message must say)
    "an unknown key at the top": ("version = 1", "version = 1\nauthor = 'me'", "author: is not known here"),
    "an unknown key in a technique": (
        'id = "opening.agenda"\nphase = 1',
        'id = "opening.agenda"\nfase = 1\nphase = 1',
        "technique[opening.agenda].fase: is not known here",
    ),
    "an unknown key in a language": (
        'name = "Agenda afspreken"',
        'naam = "Agenda"\nname = "Agenda afspreken"',
        "technique[opening.agenda].nl.naam: is not known here",
    ),
    "a name missing in Hebrew": (
        '[technique.he]\nname = "הסכמה על סדר היום"',
        "[technique.he]",
        "technique[opening.agenda].he.name: is missing",
    ),
    "an example missing": (
        'examples = ["What do you think of that?", "How would that work at your place?", '
        '"Is that worth it to you?"]',
        "",
        "technique[value.check].en.examples: is missing",
    ),
    "an unknown step above": (
        'counts_as = "value.benefit"',
        'counts_as = "value.nothing"',
        "technique[value.proof].counts_as: 'value.nothing' is not a step",
    ),
    "an unknown parent": (
        'parent = "value.benefit"',
        'parent = "value.nothing"',
        "technique[value.proof].parent: there is no technique 'value.nothing'",
    ),
    "a circle of parents": (
        'parent = "value.benefit"',
        'parent = "value.proof"',
        "technique[value.proof].parent: the techniques above it come back to itself",
    ),
    "an unknown technique in a phase": (
        'completes_with = ["value.benefit"]',
        'completes_with = ["value.nothing"]',
        "phase[3].completes_with: there is no technique 'value.nothing'",
    ),
    "an unknown key technique": (
        'key_techniques = ["close.trial", "close.next"]',
        'key_techniques = ["close.trial", "close.later"]',
        "phase[5].key_techniques: there is no technique 'close.later'",
    ),
    "detail that would complete a phase": (
        'completes_with = ["value.benefit"]',
        'completes_with = ["value.proof"]',
        "phase[3].completes_with: 'value.proof' is not a step",
    ),
    "an unknown technique in an attitude": (
        'answers = ["objection.clarify", "objection.answer"]\ntip_type = "lock"',
        'answers = ["objection.clarfy"]\ntip_type = "lock"',
        "attitude[A4].answers: there is no technique 'objection.clarfy'",
    ),
    "an unknown trigger": (
        'needs = ["close.trial", "close.next"]',
        'needs = ["close.trail"]',
        "attitude[A5].needs: there is no technique 'close.trail'",
    ),
    "an unknown technique of a moment": (
        'technique = "discovery.impact"\nweight = 0.8',
        'technique = "discovery.effect"\nweight = 0.8',
        "missed[impact_missed].technique: there is no technique 'discovery.effect'",
    ),
    "an unknown commitment": (
        'commitment = ["discovery.recap"]',
        'commitment = ["discovery.yes"]',
        "commitment: there is no technique 'discovery.yes'",
    ),
    "weights that do not add up": ("weight = 0.35", "weight = 0.45", "phase[1].weight: the weights of all"),
    "weights of a metric that do not add up": (
        "talk = 0.40",
        "talk = 0.50",
        "scoring.weights.balance: sums up to 1.1",
    ),
    "a negative weight": ("weight = 0.35", "weight = -0.35", "phase[2].weight: must be a number from 0 to 1"),
    "phases that wait for each other": (
        "needs = [2, 3]",
        "needs = [2, 5]",
        "phase[5].needs: a phase may only wait for earlier phases",
    ),
    "a phase that does not exist": (
        "needs = [2, 3]",
        "needs = [9]",
        "phase[5].needs: there is no phase 9",
    ),
    "a step without a phase": (
        'id = "opening.agenda"\nphase = 1\n',
        'id = "opening.agenda"\n',
        "technique[opening.agenda].phase: is missing",
    ),
    "a step in no phase of the method": (
        'id = "opening.agenda"\nphase = 1\n',
        'id = "opening.agenda"\nphase = 7\n',
        "technique[opening.agenda].phase: there is no phase 7",
    ),
    "allowed and forbidden at once": (
        "forbidden = [1, 2]",
        "forbidden = [1, 5]",
        "technique[close.trial].forbidden: names a phase that 'phases' allows",
    ),
    "a cue that does not compile": (
        '"since when"',
        '"since (when"',
        "technique[discovery.situation].en.cues: pattern 'since (when': a '(' without its ')'",
    ),
    "an unknown rule of a moment": (
        'rule = "impact_gemist"',
        'rule = "impact_vergeten"',
        "missed[impact_missed].rule: 'impact_vergeten' is none of",
    ),
    "an unknown rule of a hint": (
        'rule = "stay_on_step"',
        'rule = "stay_put"',
        "hint[stay_on_step].rule: 'stay_put' is none of",
    ),
    "an unknown placeholder": (
        "Stay on {step} a little longer",
        "Stay on {stap} a little longer",
        "hint[stay_on_step].en.text: unknown placeholder {stap}",
    ),
    "an unknown kind of hint": (
        'kind = "warning"',
        'kind = "alarm"',
        "kind: 'alarm' is none of tip, warning",
    ),
    "an id used twice": (
        'id = "value.check"',
        'id = "value.link"',
        "technique[value.link].id: 'value.link' is used twice",
    ),
    "an attitude without a rank": (
        'attitude_priority = ["A4", "A5", "A3", "A2", "A6", "A1"]',
        'attitude_priority = ["A4", "A5", "A3", "A2", "A6"]',
        "attitude_priority: 'A1': is not ranked",
    ),
    "a fallback that does not exist": (
        'attitude_fallback = ["A2", "A1"]',
        'attitude_fallback = ["A9"]',
        "attitude_fallback: there is no attitude 'A9'",
    ),
    "a stage without a phase": ("CONVERSION = 5\n", "", "stages.CONVERSION: is missing"),
    "a stage of an unknown phase": (
        "CONVERSION = 5",
        "CONVERSION = 8",
        "stages.CONVERSION: there is no phase 8",
    ),
    "a theme that is not of the phase": (
        'theme = "decision"',
        'theme = "weather"',
        "technique[discovery.decision].theme: phase 2 has no theme 'weather'",
    ),
    "an unknown sub-score": (
        'sub_scores = ["samenvatten"]',
        'sub_scores = ["praten"]',
        "technique[discovery.recap].sub_scores: 'praten' is none of",
    ),
    "points that rise": (
        "turn_points = { perfect = 10, goed = 6, bijna = 3, gemist = 0 }",
        "turn_points = { perfect = 1, goed = 6, bijna = 3, gemist = 0 }",
        "scoring.turn_points: must fall from perfect to gemist",
    ),
    "an effect out of range": (
        "effect = { commit = 0.04 }",
        "effect = { commit = 4 }",
        "effect.commit: must be",
    ),
    "a colour that is none": (
        'color = "#4F7CAC"',
        'color = "blue"',
        "phase[1].color: 'blue' is not a colour",
    ),
    "a name that is not the file's": (
        'id = "b2b"',
        'id = "other"',
        "id: 'other' must be the name of the file",
    ),
    "a version that is no number": ("version = 1", 'version = "one"', "version: must be a number"),
}


@pytest.mark.parametrize(("old", "new", "message"), BAD.values(), ids=BAD.keys())
def test_a_mistake_in_a_file_is_named_with_file_line_and_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    source = (FOLDER / "b2b.toml").read_text(encoding="utf-8")
    assert old in source
    (tmp_path / "b2b.toml").write_text(source.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_methodology(tmp_path / "b2b.toml")
    assert re.search(r"/b2b\.toml: line \d+, ", str(raised.value)), str(raised.value)
    assert message in str(raised.value)
    assert raised.value.field


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"since when"', '"since (when"'),
        ('parent = "value.benefit"', 'parent = "value.nothing"'),
        ('rule = "impact_gemist"', 'rule = "impact_vergeten"'),
        ('theme = "decision"', 'theme = "weather"'),
        ("needs = [2, 3]", "needs = [9]"),
        ('sub_scores = ["samenvatten"]', 'sub_scores = ["praten"]'),
    ],
)
def test_the_line_is_the_one_with_the_mistake(tmp_path: Path, old: str, new: str) -> None:
    changed = (FOLDER / "b2b.toml").read_text(encoding="utf-8").replace(old, new, 1)
    (tmp_path / "b2b.toml").write_text(changed, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_methodology(tmp_path / "b2b.toml")
    told = re.search(r"line (\d+)", str(raised.value))
    assert told and new in changed.splitlines()[int(told[1]) - 1]


def test_a_file_that_is_not_toml_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "b2b.toml").write_text('id = "b2b"\nversion = = 1\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"b2b\.toml: .*line 2"):
        read_methodology(tmp_path / "b2b.toml")
