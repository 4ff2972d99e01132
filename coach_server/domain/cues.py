"""Cue words as data, and the engine that finds them: a sentence in, findings with the exact quote out.

A cue file (catalog/cues/<language>.toml) holds word lists and cues. A pattern of a cue is words in order:

    too expensive        these words, next to each other (a comma may stand between, a full stop may not)
    expens*              a word that begins so (three letters at least)
    (cannot|can not)     one of these; an empty one makes it optional: `too (damn|) expensive`
    no ~ budget          up to four other words between
    count me in $        at the end of a sentence

Case, accents and apostrophes do not count (`don't` = `dont`). Hebrew words are also found behind their
one-letter prefixes. A negator shortly before a pattern cancels it, unless the pattern contains one itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain
from typing import TypeAlias

from coach_server.domain.detection import Objection, Signal
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Speaker

GAP_WORDS = 4
MOST_WAYS = 200
NEGATION_REACH = 3
NEGATION_REACH_BEHIND = 4
HEBREW_PREFIXES = "ומשהלכב"

# What a customer's bare answer means depends on what was asked; these name the kinds of asking.
ASKED = ("asks_interest", "asks_need", "asks_concern")
NAMES = (
    frozenset(str(o) for o in Objection)
    | frozenset(str(s) for s in Signal)
    | frozenset(str(s) for s in Stage)
    | frozenset(ASKED)
)
WORD_LISTS = (
    "negators",
    "negators_behind",
    "not_negating",
    "fillers",
    "yes",
    "no",
    "open_words",
    "open_requests",
    "open_inversions",
    "closed_starts",
    "tags",
)

_WORD = re.compile(r"(?:[^\W_]|[\u0591-\u05c7])+(?:['’`׳״\"](?:[^\W_]|[\u0591-\u05c7])+)*|[.?!…\n]|[,;:–—]")
_HARD, _SOFT = frozenset(".?!…\n"), frozenset(",;:–—")
_MARKS = re.compile(r"['’`׳״\"]")


@dataclass(frozen=True, slots=True)
class Finding:
    """`name` is an Objection, Signal, Stage or one of ASKED; `quote` the exact words; `strength` 0..1."""

    name: str
    quote: str
    strength: float


@dataclass(frozen=True, slots=True)
class Words:
    """A text cut into words.

    `forms[i]`: the spellings word i may be looked up by. `pause[i]`: what stands before it: 0 nothing, 1 a
    comma, 2 the end of a sentence. `question[i]`: its sentence ends in a question mark. `traces`: every form,
    and the first three letters of each with a star, so that most patterns are ruled out by a look at sets.
    """

    text: str
    forms: tuple[tuple[str, ...], ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    pause: tuple[int, ...]
    question: tuple[bool, ...]
    traces: frozenset[str] = frozenset()

    def quote(self, first: int, last: int) -> str:
        return self.text[self.starts[first] : self.ends[last]]

    def sentences(self) -> Iterator[tuple[int, int]]:
        """Index pairs [first, behind the last) of the sentences."""
        first = 0
        for i in range(1, len(self.forms)):
            if self.pause[i] == 2:
                yield first, i
                first = i
        if self.forms:
            yield first, len(self.forms)


def plain(word: str) -> str:
    """The spelling that cues are compared by: lower case, no apostrophes, no accents or vowel points."""
    bare = _MARKS.sub("", word).lower()
    if bare.isascii():
        return bare
    split = unicodedata.normalize("NFD", bare)
    return "".join(c for c in split if not unicodedata.combining(c))


def words_of(text: str) -> Words:
    forms: list[tuple[str, ...]] = []
    starts: list[int] = []
    ends: list[int] = []
    pause: list[int] = []
    question: list[bool] = []
    sentence_from, waiting = 0, 0
    for match in _WORD.finditer(text):
        token = match.group()
        if token in _SOFT:
            waiting = max(waiting, 1)
        elif token in _HARD:
            waiting = 2
            if token == "?":
                question[sentence_from:] = [True] * (len(question) - sentence_from)
            sentence_from = len(forms)
        else:
            forms.append(_forms(plain(token)))
            starts.append(match.start())
            ends.append(match.end())
            pause.append(waiting if len(forms) > 1 else 0)
            question.append(False)
            waiting = 0
    every = {form for spelled in forms for form in spelled}
    traces = frozenset(every | {_trace(form) for form in every})
    return Words(text, tuple(forms), tuple(starts), tuple(ends), tuple(pause), tuple(question), traces)


def _trace(start: str) -> str:
    return start[:3] + "*"


def _forms(word: str) -> tuple[str, ...]:
    if not word or not "\u05d0" <= word[0] <= "\u05ea":
        return (word,)
    found = [word]
    rest = word
    for _ in range(2):
        if len(rest) < 3 or rest[0] not in HEBREW_PREFIXES:
            break
        rest = rest[1:]
        found.append(rest)
    return tuple(found)


# --- patterns


@dataclass(frozen=True, slots=True)
class Cue:
    """One [[cue]] of a file. `speaker` None means either."""

    name: str
    strength: float
    speaker: Speaker | None
    negatable: bool
    question: bool | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One place of a pattern: one of `words`, a word with one of `starts`, or one of longer `branches`."""

    words: frozenset[str]
    starts: tuple[str, ...] = ()
    branches: tuple[Nodes, ...] = ()
    optional: bool = False

    def takes(self, forms: tuple[str, ...]) -> bool:
        for form in forms:
            if form in self.words or (self.starts and form.startswith(self.starts)):
                return True
        return False


class Mark(StrEnum):
    GAP = "~"
    END = "$"


Nodes: TypeAlias = "tuple[Choice | Mark, ...]"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern of the cue with this number. `cancels`: it stood under `unless`. `needs`: of each of
    these sets of traces (see `Words.traces`) a text must have one, or the pattern cannot match."""

    nodes: Nodes
    cue: int = 0
    cancels: bool = False
    needs: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True, slots=True)
class Phrases:
    """Patterns by the words they may begin with, so that a sentence tries only the few that can match."""

    by_word: Mapping[str, tuple[Pattern, ...]]
    by_start: Mapping[str, tuple[Pattern, ...]]

    def at(self, words: Words, i: int, stop: int) -> Iterator[tuple[Pattern, int]]:
        """Patterns that match from word i on, with the index behind their last word."""
        traces = words.traces
        for form in words.forms[i]:
            for pattern in chain(self.by_word.get(form, ()), self.by_start.get(form[:3], ())):
                for needed in pattern.needs:
                    if needed.isdisjoint(traces):
                        break
                else:
                    if (end := max(_ends(pattern.nodes, 0, words, i, stop, i), default=-1)) > i:
                        yield pattern, end


def _ends(nodes: Nodes, k: int, words: Words, i: int, stop: int, first: int) -> Iterator[int]:
    """Every index behind the words that nodes[k:] may take from word i on."""
    if k == len(nodes):
        yield i
        return
    node = nodes[k]
    if node is Mark.END:
        if i >= stop or words.pause[i] == 2:
            yield i
    elif node is Mark.GAP:
        for behind in range(i, min(stop, i + GAP_WORDS + 1)):
            if words.pause[behind] == 2:
                return
            yield from _ends(nodes, k + 1, words, behind, stop, first)
    else:
        assert isinstance(node, Choice)
        if i < stop and (i == first or words.pause[i] < 2):
            if node.takes(words.forms[i]):
                yield from _ends(nodes, k + 1, words, i + 1, stop, first)
            for branch in node.branches:
                for end in _ends(branch, 0, words, i, stop, first):
                    yield from _ends(nodes, k + 1, words, end, stop, first)
        if node.optional:
            yield from _ends(nodes, k + 1, words, i, stop, first)


def compile_pattern(pattern: str) -> Nodes:
    """Raises ValueError with what is wrong with it."""
    branches, rest = _branches(pattern, 0, inside=False)
    if rest != len(pattern):
        raise ValueError("a ')' too many")
    nodes = branches[0]
    words, _, empty = _beginnings(nodes)
    if empty:
        raise ValueError("may match nothing at all")
    if nodes[0] in (Mark.GAP, Mark.END) or nodes[-1] is Mark.GAP:
        raise ValueError("begins with '~' or '$', or ends with '~'")
    return nodes


def _branches(pattern: str, at: int, *, inside: bool) -> tuple[list[Nodes], int]:
    done: list[Nodes] = []
    current: list[Choice | Mark] = []
    while at < len(pattern):
        char = pattern[at]
        if char == "(":
            inner, at = _branches(pattern, at + 1, inside=True)
            current.append(_choice(inner))
        elif char == "|" and inside:
            done.append(tuple(current))
            current, at = [], at + 1
        elif char == ")" and inside:
            return [*done, tuple(current)], at + 1
        elif char == ")":
            break
        elif char == " ":
            at += 1
        else:
            word, at = _word_at(pattern, at)
            current.append(word)
    if inside:
        raise ValueError("a '(' without its ')'")
    return [tuple(current)], at


def _choice(branches: list[Nodes]) -> Choice:
    """Branches of one word join one set, which a lookup answers; the longer ones stay."""
    words: set[str] = set()
    starts: list[str] = []
    longer: list[Nodes] = []
    for branch in branches:
        only = branch[0] if len(branch) == 1 else None
        if isinstance(only, Choice) and not only.branches and not only.optional:
            words |= only.words
            starts += only.starts
        elif branch:
            longer.append(branch)
    return Choice(frozenset(words), tuple(starts), tuple(longer), optional=() in branches)


def _word_at(pattern: str, at: int) -> tuple[Choice | Mark, int]:
    end = at
    while end < len(pattern) and pattern[end] not in " ()|":
        end += 1
    raw = pattern[at:end]
    if raw in ("~", "$"):
        return Mark(raw), end
    bare = raw[:-1] if raw.endswith("*") else raw
    word = plain(bare)
    if not word or not all(c.isalnum() for c in word):
        raise ValueError(f"'{raw}' is not a word")
    if bare == raw:
        return Choice(frozenset({word})), end
    if len(word) < 3:
        raise ValueError(f"'{raw}' needs three letters before its '*'")
    return Choice(frozenset(), (word,)), end


def _beginnings(nodes: Nodes) -> tuple[set[str], set[str], bool]:
    """The words and the word starts that a match may begin with, and whether it may be empty."""
    words: set[str] = set()
    starts: set[str] = set()
    for node in nodes:
        if not isinstance(node, Choice):
            continue
        words |= node.words
        starts |= set(node.starts)
        empty = node.optional
        for branch in node.branches:
            more_words, more_starts, branch_empty = _beginnings(branch)
            words |= more_words
            starts |= more_starts
            empty = empty or branch_empty
        if not empty:
            return words, starts, False
    return words, starts, True


def _straight(nodes: Nodes) -> list[Nodes]:
    """The pattern once for each of its longer branches: what one of them needs says more than what all do."""
    made: list[Nodes] = [()]
    for node in nodes:
        ways = _ways(node)
        if len(made) * len(ways) > MOST_WAYS:
            ways = [(node,)]
        made = [begun + way for begun in made for way in ways]
    return made


def _ways(node: Choice | Mark) -> list[Nodes]:
    if not isinstance(node, Choice) or not node.branches:
        return [(node,)]
    ways: list[Nodes] = [way for branch in node.branches for way in _straight(branch)]
    if node.words or node.starts:
        ways.append((Choice(node.words, node.starts),))
    return [*ways, ()] if node.optional else ways


def _needs(nodes: Nodes) -> tuple[frozenset[str], ...]:
    """Traces of each word that no match can do without, the shortest list first: that one fails soonest. The
    first word is what a pattern is looked up by."""
    needed: list[frozenset[str]] = []
    for node in nodes[1:]:
        words, starts, empty = _beginnings((node,))
        if isinstance(node, Choice) and not empty:
            needed.append(frozenset(words | {_trace(start) for start in starts}))
    return tuple(sorted(needed, key=len))


def index_patterns(patterns: Iterable[Pattern]) -> Phrases:
    by_word: dict[str, list[Pattern]] = {}
    by_start: dict[str, list[Pattern]] = {}
    for whole in patterns:
        for nodes in _straight(whole.nodes):
            _add(replace(whole, nodes=nodes, needs=_needs(nodes)), by_word, by_start)
    return Phrases({k: tuple(v) for k, v in by_word.items()}, {k: tuple(v) for k, v in by_start.items()})


def _add(pattern: Pattern, by_word: dict[str, list[Pattern]], by_start: dict[str, list[Pattern]]) -> None:
    words, starts, _ = _beginnings(pattern.nodes)
    for word in words:
        by_word.setdefault(word, []).append(pattern)
    for start in {start[:3] for start in starts}:
        by_start.setdefault(start, []).append(pattern)


# --- a language


@dataclass(frozen=True, slots=True)
class Cues:
    """The cues of one language, ready to use."""

    language: str
    cues: tuple[Cue, ...]
    phrases: Phrases
    lists: Mapping[str, Phrases]
    negators: frozenset[str] = field(default_factory=frozenset)
    negators_behind: frozenset[str] = field(default_factory=frozenset)
    not_negating: frozenset[str] = field(default_factory=frozenset)

    def find(self, words: Words, speaker: Speaker) -> list[Finding]:
        """Every cue in the text, the strongest quote for each name, in order of appearance."""
        hits: dict[int, tuple[int, int]] = {}
        cancelled: set[int] = set()
        for i in range(len(words.forms)):
            for pattern, end in self.phrases.at(words, i, len(words.forms)):
                if pattern.cancels:
                    cancelled.add(pattern.cue)
                elif self._holds(pattern, words, i, end, speaker):
                    known = hits.get(pattern.cue)
                    if known is None or end - i > known[1] - known[0]:
                        hits[pattern.cue] = (i, end)
        best: dict[str, Finding] = {}
        for number, (first, end) in hits.items():
            if number in cancelled:
                continue
            cue = self.cues[number]
            if cue.name not in best or cue.strength > best[cue.name].strength:
                best[cue.name] = Finding(cue.name, words.quote(first, end - 1), cue.strength)
        return list(best.values())

    def _holds(self, pattern: Pattern, words: Words, first: int, end: int, speaker: Speaker) -> bool:
        cue = self.cues[pattern.cue]
        if cue.speaker is not None and cue.speaker is not speaker:
            return False
        if cue.question is not None and words.question[end - 1] is not cue.question:
            return False
        if not cue.negatable or any(self.is_negator(words.forms[i]) for i in range(first, end)):
            return True
        return not (self._negated_before(words, first) or self._negated_behind(words, end))

    def _negated_before(self, words: Words, first: int) -> bool:
        for i in range(first - 1, max(-1, first - 1 - NEGATION_REACH), -1):
            if words.pause[i + 1]:
                return False
            if self.is_negator(words.forms[i]):
                following = words.forms[i + 1]
                return not any(form in self.not_negating for form in following)
        return False

    def _negated_behind(self, words: Words, end: int) -> bool:
        for i in range(end, min(len(words.forms), end + NEGATION_REACH_BEHIND)):
            if words.pause[i]:
                return False
            if any(form in self.negators_behind for form in words.forms[i]):
                return i + 1 == len(words.forms) or words.pause[i + 1] > 0
        return False

    def is_negator(self, forms: tuple[str, ...]) -> bool:
        return any(form in self.negators for form in forms)

    def listed(self, name: str, words: Words, i: int, stop: int) -> int:
        """Where the longest entry of a word list that begins at word i ends, or i when none does."""
        return max((end for _, end in self.lists[name].at(words, i, stop)), default=i)
