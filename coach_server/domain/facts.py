"""What was told in a call: names, figures, dates, who decides. Plain rules, one book per language.

The rules are data (`catalog/facts/<language>.toml`). They are careful on purpose: a wrong name in an agent's
mouth is worse than none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from coach_server.domain.language import base
from coach_server.domain.transcript import Speaker, Utterance

VALUE_CHARS = 80
HEARD_CHARS = 800
KEYS = frozenset(
    {
        "customer_name",
        "agent_name",
        "company",
        "agent_company",
        "location",
        "budget",
        "current_price",
        "team_size",
        "timeline",
        "preferred_time",
        "supplier",
        "decision_maker",
        "pain",
        "email_known",
        "phone_known",
    }
)
_MACRO = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class FactRule:
    """`who`: whose words count, None for both. `value`: a fixed value (`yes`), None for what was captured.
    `cues`: lower-case words of which one must be there before the patterns are tried at all."""

    fact: str
    patterns: tuple[re.Pattern[str], ...]
    who: Speaker | None = None
    value: str | None = None
    cues: tuple[str, ...] = ()
    name: bool = False


@dataclass(frozen=True, slots=True)
class FactRules:
    """The rules of one language. `not_names`: words that look like a name at the start of a sentence."""

    rules: tuple[FactRule, ...]
    not_names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FactBook:
    languages: Mapping[str, FactRules] = field(default_factory=dict)

    def collect(self, facts: Mapping[str, str], utterance: Utterance, language: str) -> dict[str, str]:
        """`facts` with what this utterance told; the latest telling wins, values are at most 80 characters.
        A language without rules learns nothing."""
        rules = self.languages.get(base(language))
        return collect(facts, utterance, rules) if rules else dict(facts)


def collect(facts: Mapping[str, str], utterance: Utterance, rules: FactRules) -> dict[str, str]:
    """`facts` with what this utterance told, by these rules."""
    known = dict(facts)
    text = utterance.text[:HEARD_CHARS].replace("’", "'")
    lower = text.casefold()
    for rule in rules.rules:
        if rule.who is not None and rule.who is not utterance.speaker:
            continue
        if rule.cues and not any(cue in lower for cue in rule.cues):
            continue
        value = _last_value(rule, text, rules.not_names)
        if value:
            known[rule.fact] = value
    return known


def compile_pattern(pattern: str, macros: Mapping[str, str]) -> re.Pattern[str]:
    """A pattern of the catalog: the words round `{macro}` match in any case, the macro as it is written.

    Raises ValueError for an unknown macro and re.error for a broken pattern.
    """
    unknown = [name for name in _MACRO.findall(pattern) if name not in macros]
    if unknown:
        raise ValueError(f"unknown macro {{{unknown[0]}}}")
    pieces = re.split(r"(\{[A-Za-z_]+\})", pattern)
    return re.compile("".join(_piece(piece, macros) for piece in pieces))


def _piece(piece: str, macros: Mapping[str, str]) -> str:
    found = _MACRO.fullmatch(piece)
    if found:
        return f"(?P<value>{macros[found.group(1)]})"
    return f"(?i:{piece})" if piece else ""


def _last_value(rule: FactRule, text: str, not_names: frozenset[str]) -> str | None:
    latest: tuple[int, str] | None = None
    for pattern in rule.patterns:
        for match in pattern.finditer(text):
            value = rule.value or _tidy(match["value"], rule.name, not_names)
            if value and (latest is None or match.start() >= latest[0]):
                latest = (match.start(), value)
    return latest[1] if latest else None


def _tidy(raw: str, is_name: bool, not_names: frozenset[str]) -> str | None:
    value = plain(raw).strip(" .,;:!?-–'\"")
    if is_name:
        words = value.split()
        while words and words[-1].casefold() in not_names:
            words.pop()
        if not words or words[0].casefold() in not_names:
            return None
        value = " ".join(words)
    return shorten(value, VALUE_CHARS) or None


def plain(text: str) -> str:
    """One line without control characters, lone surrogates, brackets or markup."""
    kept = (" " if c.isspace() else c for c in text if c not in "[]{}<>|")
    return " ".join("".join(c for c in kept if unicodedata.category(c) not in ("Cc", "Cs", "Cf")).split())


def sentence_with(quote: str, text: str) -> str:
    """The sentence of `text` that holds `quote`, as the value of a fact."""
    wanted = plain(quote).casefold()
    spoken = [plain(part) for part in re.split(r"(?<=[.!?…])\s+", text[:HEARD_CHARS])]
    found = next((part for part in spoken if wanted in part.casefold()), plain(quote))
    return shorten(found, VALUE_CHARS).strip(" .,;:!?…-–'\"")


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, cut at a word's end where there is one."""
    if len(text) <= limit:
        return text
    cut = text[:limit]
    return (cut.rsplit(" ", 1)[0] if " " in cut else cut).rstrip(" ,;:-")
