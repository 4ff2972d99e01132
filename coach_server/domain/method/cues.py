"""A method's cue patterns in one language, compiled, and what they find in a text with its exact words.

The patterns stand in the method's file and are those of `domain/cues.py`; the word lists (negators, question
forms, bare answers) are the language's own. What a finding is worth, `domain/method/judging.py` decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from coach_server.domain.cues import (
    Choice,
    Cue,
    Cues,
    Finding,
    Nodes,
    Pattern,
    Phrases,
    Words,
    compile_pattern,
    index_patterns,
)
from coach_server.domain.method.methodology import Methodology, Technique, say_all
from coach_server.domain.questions import questions
from coach_server.domain.reading import is_bare
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError

# How telling a pattern is grows with its words: one word says little, four in a row hardly deceive.
STRENGTHS = (0.5, 0.62, 0.72, 0.8, 0.86)


@dataclass(frozen=True, slots=True)
class MethodCues:
    """`speech`: the language's own cues; `found`: the method's, named by technique or attitude id; `marks`:
    by technique, one group of phrases for each thing that doing it well takes."""

    speech: Cues
    found: Cues
    marks: Mapping[str, tuple[Phrases, ...]]

    def find(self, words: Words, speaker: Speaker) -> list[Finding]:
        """The seller's techniques or the customer's attitudes, in order of appearance."""
        return self.found.find(words, speaker)

    def followed(self, technique_id: str, words: Words) -> tuple[str, ...]:
        """The words that show each mark of the technique that was met."""
        groups = self.marks.get(technique_id, ())
        return tuple(quote for group in groups if (quote := _first(group, words)))

    def mark_count(self, technique_id: str) -> int:
        return len(self.marks.get(technique_id, ()))

    def question(self, words: Words) -> str:
        """The first question asked, empty when nothing was asked."""
        return next((found.quote for found in questions(self.speech, words)), "")

    def bare(self, words: Words) -> str | None:
        """ "yes" or "no" when the text is nothing but that."""
        return is_bare(self.speech, words)

    def begins_with_yes(self, words: Words) -> bool:
        i, stop = 0, len(words.forms)
        while i < stop:
            if self.speech.listed("yes", words, i, stop) > i:
                return True
            end = self.speech.listed("fillers", words, i, stop)
            if end == i:
                return False
            i = end
        return False


def compile_method(method: Methodology, speech: Cues) -> MethodCues:
    """Raises ConfigError naming the method, the technique or attitude, and the pattern."""
    cues: list[Cue] = []
    patterns: list[Pattern] = []
    language = speech.language
    for technique in method.techniques:
        for nodes in _compiled(method, technique.id, say_all(technique.cues, language)):
            patterns.append(Pattern(nodes, len(cues)))
            cues.append(Cue(technique.id, _strength(nodes), Speaker.AGENT, False, None))
    for attitude in method.attitudes:
        for nodes in _compiled(method, attitude.id, say_all(attitude.cues, language)):
            patterns.append(Pattern(nodes, len(cues)))
            cues.append(Cue(attitude.id, _strength(nodes), Speaker.CUSTOMER, True, None))
    found = replace(speech, cues=tuple(cues), phrases=index_patterns(patterns))
    return MethodCues(speech, found, {t.id: _marks(method, t, language) for t in method.techniques})


def _marks(method: Methodology, technique: Technique, language: str) -> tuple[Phrases, ...]:
    code = language.lower()
    groups = technique.marks.get(code) or technique.marks.get("en") or ()
    return tuple(
        index_patterns(Pattern(nodes) for nodes in _compiled(method, technique.id, group)) for group in groups
    )


def _compiled(method: Methodology, name: str, patterns: Iterable[str]) -> list[Nodes]:
    made = []
    for pattern in patterns:
        try:
            made.append(compile_pattern(pattern))
        except ValueError as fault:
            raise ConfigError(f'{method.id}, {name}: pattern "{pattern}": {fault}') from fault
    return made


def _strength(nodes: Nodes) -> float:
    words = sum(isinstance(node, Choice) and not node.optional for node in nodes)
    return STRENGTHS[min(words, len(STRENGTHS)) - 1] if words else STRENGTHS[0]


def _first(group: Phrases, words: Words) -> str:
    stop = len(words.forms)
    for i in range(stop):
        end = max((end for _, end in group.at(words, i, stop)), default=i)
        if end > i:
            return words.quote(i, end - 1)
    return ""
