"""A method's patterns compiled by language, and the exact words they find."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coach_server import paths
from coach_server.domain.cuefile import parse_cues
from coach_server.domain.cues import Cues, words_of
from coach_server.domain.method.cues import MethodCues, compile_method
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError
from tests.domain.talks import method

HUGO = method()


def speech(language: str) -> Cues:
    file = paths.catalog() / "cues" / f"{language}.toml"
    return parse_cues(file.read_text("utf-8"), file.name)


def with_cues(**cues: tuple[str, ...]) -> Methodology:
    """Hugo with these Dutch cues alone: `t2_1_4` for technique 2.1.4, `H7` for an attitude."""
    techniques = tuple(
        replace(t, cues={"nl": cues.get("t" + t.id.replace(".", "_"), ())}) for t in HUGO.techniques
    )
    attitudes = tuple(replace(a, cues={"nl": cues.get(a.id, ())}) for a in HUGO.attitudes)
    return replace(HUGO, techniques=techniques, attitudes=attitudes)


def compiled(**cues: tuple[str, ...]) -> MethodCues:
    return compile_method(with_cues(**cues), speech("nl"))


def test_a_technique_is_found_with_the_exact_words() -> None:
    cues = compiled(t2_1_4=("(parkeren|opzij)",))
    found = cues.find(words_of("Mag ik dat even Parkeren?"), Speaker.AGENT)
    assert [(f.name, f.quote) for f in found] == [("2.1.4", "Parkeren")]


def test_techniques_are_the_sellers_and_attitudes_the_customers() -> None:
    cues = compiled(t2_1_4=("te duur",), H7=("te duur",))
    words = words_of("dat is te duur")
    assert [f.name for f in cues.find(words, Speaker.AGENT)] == ["2.1.4"]
    assert [f.name for f in cues.find(words, Speaker.CUSTOMER)] == ["H7"]


def test_a_denied_attitude_is_not_one() -> None:
    cues = compiled(H6=("zeker van",))
    assert cues.find(words_of("ik ben niet zeker van mijn stuk"), Speaker.CUSTOMER) == []


def test_more_words_are_stronger_evidence() -> None:
    cues = compiled(t2_1_4=("parkeren",), t2_1_5=("hoe bedoelt u dat",))
    words = words_of("Parkeren? Hoe bedoelt u dat?")
    strength = {f.name: f.strength for f in cues.find(words, Speaker.AGENT)}
    assert strength["2.1.5"] > strength["2.1.4"]


def test_the_marks_that_were_met_are_told_by_their_words() -> None:
    marked = with_cues()
    marked = replace(
        marked,
        techniques=tuple(
            replace(t, marks={"nl": (("(klopt|juist)",), ("vermijden",), ("bereiken",))})
            for t in marked.techniques
        ),
    )
    cues = compile_method(marked, speech("nl"))
    words = words_of("U wilt groei bereiken, klopt dat?")
    assert cues.followed("2.1.8", words) == ("klopt", "bereiken")
    assert cues.mark_count("2.1.8") == 3


def test_a_language_the_method_does_not_speak_gets_the_english_words() -> None:
    english = replace(
        HUGO, techniques=tuple(replace(t, cues={"en": ("park that",)}) for t in HUGO.techniques[:1])
    )
    cues = compile_method(english, speech("he"))
    assert len(cues.find(words_of("let us park that"), Speaker.AGENT)) == 1


def test_a_wrong_pattern_is_told_with_method_technique_and_pattern() -> None:
    with pytest.raises(ConfigError, match=r'hugo, 2\.1\.4: pattern "\(open"'):
        compiled(t2_1_4=("(open",))


@pytest.mark.parametrize("name", ["hugo", "b2b"])
@pytest.mark.parametrize("language", ["nl", "en", "he"])
def test_every_method_of_the_catalog_compiles(name: str, language: str) -> None:
    assert compile_method(method(name), speech(language)).found.cues


@pytest.mark.parametrize(
    ("text", "begins"),
    [("Ja, zeker, dat willen we.", True), ("Dat willen we niet.", False), ("", False)],
    ids=["a yes", "something else", "nothing"],
)
def test_a_yes_at_the_start_is_heard(text: str, begins: bool) -> None:
    assert compiled().begins_with_yes(words_of(text)) is begins
