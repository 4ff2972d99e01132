"""Documents with a table for each language (`[en]`, `[cs]`, …), read strictly: a file's tables or a client's
JSON. Every language tells the same. What is wrong is named by its field (`en.objections.brand.says`).
Files write `initial_attitude`; a client may write `initialAttitude`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from coach_server.domain.cues import GAP_WORDS, Choice, Mark, Nodes, compile_pattern
from coach_server.domain.simulation.persona import Lines
from coach_server.errors import Invalid

MOST_WAYS = 300
_LANGUAGE = re.compile("[a-z]{2}")
_Made = TypeVar("_Made", bound="Strict")


def _compiles(pattern: str) -> str:
    """A pattern that can be read and is matched fast: one with many gaps and optional words is tried in so
    many ways that a long sentence would hold up the server."""
    if _ways(compile_pattern(pattern)) > MOST_WAYS:
        raise ValueError("has too many '~', optional words and longer alternatives")
    return pattern


def _ways(nodes: Nodes) -> int:
    """In how many ways it may be laid on a text from one word on, at most."""
    return math.prod(_ways_of(node) for node in nodes)


def _ways_of(node: Choice | Mark) -> int:
    if isinstance(node, Mark):
        return GAP_WORDS + 1 if node is Mark.GAP else 1
    return bool(node.words or node.starts) + node.optional + sum(_ways(branch) for branch in node.branches)


Id: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Short: TypeAlias = Annotated[str, Field(min_length=1, max_length=160)]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=900)]
Line: TypeAlias = Annotated[str, Field(min_length=1, max_length=240)]
LineList: TypeAlias = Annotated[list[Line], Field(min_length=1, max_length=20)]
Cue: TypeAlias = Annotated[str, Field(min_length=1, max_length=240), AfterValidator(_compiles)]
CueList: TypeAlias = Annotated[list[Cue], Field(min_length=1, max_length=80)]
MaybeCues: TypeAlias = Annotated[list[Cue], Field(max_length=80)]


class Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        loc_by_alias=False,
        str_strip_whitespace=True,
    )


_Head = TypeVar("_Head", bound=Strict)
_Told = TypeVar("_Told", bound=Strict)


def read(
    document: Mapping[str, Any], head: type[_Head], text: type[_Told], prefix: str = ""
) -> tuple[_Head, dict[str, _Told]]:
    """The document without its languages, and each language's table."""
    told = {key: value for key, value in document.items() if key != "id" and _LANGUAGE.fullmatch(key)}
    made = _validated(head, {key: value for key, value in document.items() if key not in told}, prefix)
    if not told:
        raise Invalid("At least one language is needed.", field=f"{prefix}en")
    return made, {code: _validated(text, table, f"{prefix}{code}.") for code, table in told.items()}


def parts(
    tables: list[dict[str, Any]],
    name: str,
    head: type[_Head],
    text: type[_Told],
    languages: Mapping[str, Any],
) -> list[tuple[_Head, dict[str, _Told]]]:
    """Entries of a list, each in the languages of the whole and with an id of its own."""
    made: list[tuple[_Head, dict[str, _Told]]] = []
    ids: set[str] = set()
    for number, table in enumerate(tables):
        part, texts = read(table, head, text, f"{name}.{number}.")
        if odd := sorted(set(texts) ^ set(languages)):
            raise Invalid("Every part is told in the same languages.", field=f"{name}.{number}.{odd[0]}")
        part_id = str(getattr(part, "id", ""))
        if part_id in ids:
            raise Invalid(f"{part_id!r} stands here twice.", field=f"{name}.{number}.id")
        ids.add(part_id)
        made.append((part, texts))
    return made


def _validated(model: type[_Made], data: object, prefix: str) -> _Made:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = prefix + ".".join(str(part) for part in first["loc"] if part != "[key]")
        raise Invalid(
            f"{first['msg'].removeprefix('Value error, ')}.", field=field.rstrip(".") or None
        ) from None


def same_everywhere(texts: Mapping[str, Any], place: str) -> None:
    first: set[str] = set(getattr(next(iter(texts.values())), place))
    for code, text in texts.items():
        if odd := sorted(first ^ set(getattr(text, place))):
            raise Invalid("This must stand in every language.", field=f"{code}.{place}.{odd[0]}")


def by_language(texts: Mapping[str, _Told], of: Callable[[_Told], list[str]]) -> dict[str, Lines]:
    return {code: tuple(lines) for code, text in texts.items() if (lines := of(text))}


def by_name(
    texts: Mapping[str, _Told], of: Callable[[_Told], Mapping[Any, list[str]]]
) -> dict[str, dict[str, Lines]]:
    """Tables of lines by language turned into languages by name of the table."""
    names = dict.fromkeys(name for text in texts.values() for name in of(text))
    return {
        str(name): {code: tuple(of(text)[name]) for code, text in texts.items() if name in of(text)}
        for name in names
    }
