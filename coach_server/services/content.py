"""The catalog, read once at the start: playbooks, the offline coach's phrases, and the rules for facts.

A mistake in a file stops the start with a ConfigError that names it; nothing is found out during a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coach_server.domain import facts as telling
from coach_server.domain.detection import Objection, Signal
from coach_server.domain.facts import FactBook, FactRule, FactRules
from coach_server.domain.language import base
from coach_server.domain.moves import MOVES
from coach_server.domain.phrases import SLOT, SLOTS, Listening, Move, Phrase, Phrases
from coach_server.domain.playbook import Conditions, Playbook, PlaybookLine
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError, NotFound
from coach_server.paths import catalog
from coach_server.services.catalog_file import CatalogFile

DEFAULT_LANGUAGE = "en"
MIN_LINES = 3
MAX_LINES = 2000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ADDRESS = re.compile(r"<([^<>|]*)\|([^<>|]*)>")
_EXCHANGE = ("followed", "changed", "unused")
_REACTIONS = ("objection", "question", "buying", "refusal", "pain", "quiet", "other")


@dataclass(frozen=True, slots=True)
class Content:
    """What the catalog holds. Playbooks are kept by id and language."""

    books: Mapping[tuple[str, str], Playbook]
    phrasebooks: Mapping[str, Phrases]
    facts: FactBook

    @classmethod
    def load(cls, extra_playbook_dir: Path | None = None, folder: Path | None = None) -> Content:
        """Read the catalog in `folder` (ours by default) and the playbooks of a customer's own folder, which
        may not exist. A playbook of theirs replaces ours of the same id and language. Raises ConfigError."""
        home = folder or catalog()
        books = _playbooks(home / "playbooks")
        if extra_playbook_dir is not None and extra_playbook_dir.is_dir():
            books = {**books, **_playbooks(extra_playbook_dir)}
        phrasebooks = {p.language: p for p in map(_phrases, _files(home / "phrases"))}
        if DEFAULT_LANGUAGE not in phrasebooks:
            raise ConfigError(f"phrases/{DEFAULT_LANGUAGE}.toml is missing.")
        rules = dict(map(_facts, _files(home / "facts")))
        return cls(books, phrasebooks, FactBook(rules))

    def playbooks(self) -> list[Playbook]:
        """All of them, by id and language."""
        return [self.books[key] for key in sorted(self.books)]

    def playbook(self, playbook_id: str, language: str | None = None) -> Playbook:
        """The playbook in this language; where it is not written in it, in English or else in whatever it is
        written in. Raises NotFound for an unknown id."""
        for wanted in (base(language), DEFAULT_LANGUAGE):
            if (playbook_id, wanted) in self.books:
                return self.books[playbook_id, wanted]
        for key in sorted(self.books):
            if key[0] == playbook_id:
                return self.books[key]
        raise NotFound("There is no such playbook.", field="playbook")

    def has_playbook(self, playbook_id: str) -> bool:
        return any(key[0] == playbook_id for key in self.books)

    def phrases(self, language: str) -> Phrases:
        """The phrases of this language, English where there are none."""
        return self.phrasebooks.get(base(language)) or self.phrasebooks[DEFAULT_LANGUAGE]


def _files(folder: Path) -> list[CatalogFile]:
    return [CatalogFile.read(path) for path in sorted(folder.glob("*.toml"))] if folder.is_dir() else []


def _language(file: CatalogFile) -> str:
    language = base(file.text(file.data, "language", "language", limit=20))
    if not re.fullmatch(r"[a-z]{2,3}", language):
        raise file.wrong("language", "must be a language code such as en or nl.", language)
    return language


# --- playbooks


def _playbooks(folder: Path) -> dict[tuple[str, str], Playbook]:
    books: dict[tuple[str, str], Playbook] = {}
    for file in _files(folder):
        book = _playbook(file)
        if (book.id, book.language) in books:
            raise file.wrong("id", f"a second playbook {book.id!r} in {book.language!r}.", book.id)
        books[book.id, book.language] = book
    return books


def _playbook(file: CatalogFile) -> Playbook:
    file.only(file.data, ("id", "title", "language", "line"), "")
    book_id = _id(file, file.data, "id")
    lines: dict[str, PlaybookLine] = {}
    for number, entry in enumerate(file.tables("line"), 1):
        line = _line(file, entry, f"line[{number}]")
        if line.id in lines:
            raise file.wrong(f"line[{number}].id", f"{line.id!r} is used twice.", line.text)
        lines[line.id] = line
    if not MIN_LINES <= len(lines) <= MAX_LINES:
        raise file.wrong(
            "line", f"a playbook has {MIN_LINES} to {MAX_LINES} lines; this one has {len(lines)}."
        )
    title = file.text(file.data, "title", "title", limit=120)
    return Playbook(book_id, title, _language(file), tuple(lines.values()))


def _id(file: CatalogFile, holder: Mapping[str, Any], field: str) -> str:
    value = file.text(holder, "id", field, limit=64)
    if not _ID.fullmatch(value):
        raise file.wrong(field, f"{value!r}: only letters, digits, '-', '_' and '.'.", value)
    return value


def _line(file: CatalogFile, entry: Mapping[str, Any], field: str) -> PlaybookLine:
    file.only(entry, ("id", "stage", "text", "label", "neutral", "heading", "when"), field)
    heading = file.optional_text(entry, "heading", f"{field}.heading")
    text = file.text(entry, "text", f"{field}.text")
    neutral = file.optional_text(entry, "neutral", f"{field}.neutral")
    for name, script in (("text", text), ("neutral", neutral or "")):
        if script.count("[") != script.count("]"):
            raise file.wrong(f"{field}.{name}", "has a bracket that is not closed.", script)
    return PlaybookLine(
        id=_id(file, entry, f"{field}.id"),
        stage=file.one_of(file.text(entry, "stage", f"{field}.stage"), Stage, f"{field}.stage"),
        text=text,
        label=file.optional_text(entry, "label", f"{field}.label", limit=40),
        neutral=neutral,
        heading=file.heading(heading, f"{field}.heading") if heading else None,
        conditions=_conditions(file, file.table(entry, "when", f"{field}.when"), f"{field}.when"),
    )


def _conditions(file: CatalogFile, when: Mapping[str, Any], field: str) -> Conditions:
    file.only(when, ("objections", "signals", "known", "unknown", "not_before", "after_refusal"), field)
    not_before = file.optional_text(when, "not_before", f"{field}.not_before")
    after_refusal = when.get("after_refusal", False)
    if not isinstance(after_refusal, bool):
        raise file.wrong(f"{field}.after_refusal", "must be true or false.")
    objections = file.words(when, "objections", f"{field}.objections")
    signals = file.words(when, "signals", f"{field}.signals")
    return Conditions(
        objections=frozenset(file.one_of(o, Objection, f"{field}.objections") for o in objections),
        signals=frozenset(file.one_of(s, Signal, f"{field}.signals") for s in signals),
        known=_fact_names(file, when, "known", field),
        unknown=_fact_names(file, when, "unknown", field),
        not_before=file.one_of(not_before, Stage, f"{field}.not_before") if not_before else None,
        after_refusal=after_refusal,
    )


def _fact_names(file: CatalogFile, holder: Mapping[str, Any], key: str, field: str) -> frozenset[str]:
    names = file.words(holder, key, f"{field}.{key}")
    for name in names:
        if name not in telling.KEYS:
            raise file.wrong(
                f"{field}.{key}", f"{name!r} is none of {', '.join(sorted(telling.KEYS))}.", name
            )
    return frozenset(names)


# --- phrases


def _phrases(file: CatalogFile) -> Phrases:
    known = ("language", "leads", "listen", "objection_names", "reflections", "exchange", "move", "address")
    file.only(file.data, known, "")
    reader = _PhraseReader(file)
    moves = file.table(file.data, "move", "move")
    for name in sorted(set(moves) ^ MOVES):
        problem = "is not known here." if name in moves else "is missing."
        raise file.wrong(f"move.{name}", problem)
    spoken = file.table(file.data, "objection_names", "objection_names")
    names = {
        str(o): reader.phrase(file.text(spoken, o, f"objection_names.{o}"), f"objection_names.{o}")
        for o in Objection
    }
    exchange = file.table(file.data, "exchange", "exchange")
    file.only(exchange, (*_EXCHANGE, *_REACTIONS), "exchange")
    reflections = file.table(file.data, "reflections", "reflections")
    file.only(reflections, (*SLOTS, "none"), "reflections")
    if not reflections.get("none"):
        raise file.wrong("reflections.none", "is missing.")
    return Phrases(
        language=_language(file),
        moves={name: reader.move(name, file.table(moves, name, f"move.{name}")) for name in moves},
        leads=file.words(file.data, "leads", "leads"),
        reflections={
            slot: reader.phrases(reflections, slot, "reflections", range(1, 2)) for slot in reflections
        },
        exchange={
            name: reader.phrase(file.text(exchange, name, f"exchange.{name}"), f"exchange.{name}")
            for name in (*_EXCHANGE, *_REACTIONS)
        },
        objection_names=names,
        listening=_listening(file, reader),
    )


class _PhraseReader:
    def __init__(self, file: CatalogFile) -> None:
        self._file = file

    def move(self, name: str, table: Mapping[str, Any]) -> Move:
        file, field = self._file, f"move.{name}"
        lists = ("contexts", "minimal", "explanative", "contextual", "reasons")
        file.only(table, ("stage", "headings", *lists), field)
        headings = file.words(table, "headings", f"{field}.headings")
        move = Move(
            name=name,
            stage=file.one_of(file.text(table, "stage", f"{field}.stage"), Stage, f"{field}.stage"),
            headings=tuple(file.heading(h, f"{field}.headings") for h in headings),
            contexts=self.phrases(table, "contexts", field, range(1, 4)),
            minimal=self.phrases(table, "minimal", field, range(1, 2)),
            explanative=self.phrases(table, "explanative", field, range(2, 4)),
            contextual=self.phrases(table, "contextual", field, range(2, 4)),
            reasons=self.phrases(table, "reasons", field, range(1, 2)),
        )
        self._complete(move, field)
        return move

    def _complete(self, move: Move, field: str) -> None:
        """Whatever was said, a move must have something to say."""
        always = [p for p in move.minimal if not p.slots and p.when is None and p.unless is None]
        if len(always) < 3 or not move.reasons or not move.headings:
            raise self._file.wrong(
                field, "needs three minimal phrases that always fit, a reason and a heading."
            )
        if not any(not p.slots and p.when is None for p in move.contexts):
            raise self._file.wrong(f"{field}.contexts", "needs one without slots.")

    def phrases(self, table: Mapping[str, Any], key: str, field: str, length: range) -> tuple[Phrase, ...]:
        entries = table.get(key, [])
        if not isinstance(entries, list):
            raise self._file.wrong(f"{field}.{key}", "must be a list.")
        made = []
        for number, entry in enumerate(entries, 1):
            where = f"{field}.{key}[{number}]"
            phrase = self.phrase(entry, where)
            for text in (phrase.formal, phrase.informal):
                self._file.sentences(SLOT.sub("x", text), length, where)
            made.append(phrase)
        return tuple(made)

    def phrase(self, entry: object, field: str) -> Phrase:
        file = self._file
        table: Mapping[str, Any] = entry if isinstance(entry, dict) else {"t": entry}
        file.only(table, ("t", "when", "unless", "asks"), field)
        text = file.text(table, "t", f"{field}.t")
        slots = frozenset(SLOT.findall(text))
        if slots - SLOTS:
            raise file.wrong(field, f"unknown slot {{{min(slots - SLOTS)}}}.", text)
        if set("[]") & set(text):
            raise file.wrong(field, "brackets are for playbooks only.", text)
        return Phrase(
            formal=_ADDRESS.sub(r"\1", text),
            informal=_ADDRESS.sub(r"\2", text),
            slots=slots,
            when=self._cues(table, "when", field),
            unless=self._cues(table, "unless", field),
            asks=_fact_names(file, table, "asks", field),
        )

    def _cues(self, table: Mapping[str, Any], key: str, field: str) -> re.Pattern[str] | None:
        return word_beginnings(self._file.words(table, key, f"{field}.{key}"))


def _listening(file: CatalogFile, reader: _PhraseReader) -> Listening:
    listen = file.table(file.data, "listen", "listen")
    file.only(
        listen,
        (
            "fillers",
            "acks",
            "joints",
            "gatekeeper",
            "send_me",
            "farewell",
            "stakes",
            "numbers",
            "topics",
            "asked",
        ),
        "listen",
    )
    topics = []
    table = file.table(listen, "topics", "listen.topics")
    for said in table:
        cues = word_beginnings(file.words(table, said, f"listen.topics.{said}"))
        if cues is None:
            raise file.wrong(f"listen.topics.{said}", "needs at least one word.", said)
        topics.append((reader.phrase(said, f"listen.topics.{said}"), cues))
    asked = file.table(listen, "asked", "listen.asked")
    file.only(asked, telling.KEYS, "listen.asked")
    address = file.table(file.data, "address", "address")
    return Listening(
        fillers=tuple(sorted(file.words(listen, "fillers", "listen.fillers"), key=len, reverse=True)),
        acks=frozenset(file.words(listen, "acks", "listen.acks")),
        joints=frozenset(file.words(listen, "joints", "listen.joints")),
        gatekeeper=file.words(listen, "gatekeeper", "listen.gatekeeper"),
        send_me=file.words(listen, "send_me", "listen.send_me"),
        farewell=file.words(listen, "farewell", "listen.farewell"),
        stakes=_figures(file, listen, ("stakes",)),
        numbers=_figures(file, listen, ("stakes", "numbers")),
        topics=tuple(topics),
        asked={fact: file.words(asked, fact, f"listen.asked.{fact}") for fact in asked},
        formal_words=frozenset(file.words(address, "formal", "address.formal")),
        informal_words=frozenset(file.words(address, "informal", "address.informal")),
    )


def _figures(file: CatalogFile, listen: Mapping[str, Any], keys: tuple[str, ...]) -> re.Pattern[str] | None:
    """One pattern of all the figures under these keys, found only as whole words."""
    found = [(key, pattern) for key in keys for pattern in file.words(listen, key, f"listen.{key}")]
    for key, pattern in found:
        file.pattern(pattern, f"listen.{key}")
    whole = "|".join(rf"(?<!\w)(?:{pattern})(?!\w)" for _, pattern in found)
    return re.compile(whole, re.IGNORECASE) if found else None


def word_beginnings(cues: Iterable[str]) -> re.Pattern[str] | None:
    """Finds any of the cues where a word begins; a cue that ends in a space must be a whole word."""
    forms = [re.escape(c.strip()) + (r"\b" if c.endswith(" ") else "") for c in cues]
    return re.compile(rf"\b(?:{'|'.join(forms)})", re.IGNORECASE) if forms else None


# --- facts


def _facts(file: CatalogFile) -> tuple[str, FactRules]:
    file.only(file.data, ("language", "not_names", "macros", "rule"), "")
    macros = file.table(file.data, "macros", "macros")
    for name in macros:
        file.pattern(file.text(macros, name, f"macros.{name}", limit=4000), f"macros.{name}")
    rules = tuple(
        _fact_rule(file, entry, f"rule[{number}]", macros)
        for number, entry in enumerate(file.tables("rule"), 1)
    )
    names = frozenset(word.casefold() for word in file.words(file.data, "not_names", "not_names"))
    return _language(file), FactRules(rules, names)


def _fact_rule(
    file: CatalogFile, entry: Mapping[str, Any], field: str, macros: Mapping[str, str]
) -> FactRule:
    file.only(entry, ("fact", "who", "name", "value", "cues", "find"), field)
    fact = file.text(entry, "fact", f"{field}.fact")
    if fact not in telling.KEYS:
        raise file.wrong(f"{field}.fact", f"{fact!r} is none of {', '.join(sorted(telling.KEYS))}.", fact)
    who = file.optional_text(entry, "who", f"{field}.who")
    value = file.optional_text(entry, "value", f"{field}.value", limit=telling.VALUE_CHARS)
    patterns = []
    for pattern in file.words(entry, "find", f"{field}.find"):
        try:
            compiled = telling.compile_pattern(pattern, macros)
        except (ValueError, re.error) as error:
            raise file.wrong(f"{field}.find", f"is not a pattern ({error}).", pattern) from error
        if value is None and "value" not in compiled.groupindex:
            raise file.wrong(f"{field}.find", "needs a {macro} that captures the value.", pattern)
        patterns.append(compiled)
    if not patterns:
        raise file.wrong(f"{field}.find", "needs at least one pattern.", fact)
    return FactRule(
        fact=fact,
        patterns=tuple(patterns),
        who=file.one_of(who, Speaker, f"{field}.who") if who else None,
        value=value,
        cues=tuple(cue.casefold() for cue in file.words(entry, "cues", f"{field}.cues")),
        name=entry.get("name") is True,
    )
