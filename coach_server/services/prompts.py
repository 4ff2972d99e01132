"""The words for models: `prompts/<language>/<name>.md`, read and checked once, at start.

A file is TOML between two `+++` lines (`role`, `temperature`, `max_tokens`, `output`, `variables`, optional
`model`), then the system text, then a line `=== user ===`, then the user text with `$name` placeholders. The
system text takes no placeholder, so nothing of a call can get into it, and it is the same bytes for every
call: the prefix that a vendor can cache. What fills the placeholders of the user text is data: it cannot
close the `<call>` that stands round it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from loguru import logger
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coach_server.domain.wording import one_line
from coach_server.errors import ConfigError

BASE_LANGUAGE = "en"
# The prompts that the code asks for by name. Others may lie beside them.
NEEDED = (
    "tip",
    "next_tip",
    "alternative",
    "choose",
    "summary",
    "generate_coach",
    "generate_customer",
    "customer",
    "supervise",
    "score",
    "check_reply",
    "evaluate",
    "assess",
)
USER_LINE = "=== user ==="
_NO_CLOSING = str.maketrans({"<": "‹", ">": "›"})


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: str = Field(min_length=1, max_length=40)
    temperature: float = Field(ge=0, le=2)
    max_tokens: int = Field(ge=1, le=8000)
    output: str = "text"
    variables: list[str] = []
    model: str | None = None


class _LanguageFile(BaseModel):
    # Other parts of the server keep words of theirs in the same file.
    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1)
    direction: str = Field(pattern="^(ltr|rtl)$")
    letters: str = Field(pattern="^[A-Z]+$")
    agent: str = Field(min_length=1)
    customer: str = Field(min_length=1)
    doubts: list[str] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Language:
    """How a language is called in itself, its direction (ltr, rtl), the Unicode name of its letters (LATIN),
    and the names of the two speakers. `doubts`: lines of the offline sceptical customer."""

    code: str
    name: str
    direction: str
    letters: str
    agent: str
    customer: str
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """`role` picks the model unless `model` names one; `output` names the form of the answer (`text`: free);
    `cache_key` is the same for all calls that share the system text."""

    role: str
    temperature: float
    max_tokens: int
    output: str
    cache_key: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    system: str
    user: str
    settings: PromptSettings


@dataclass(frozen=True, slots=True)
class _Prompt:
    system: str
    user: Template
    variables: frozenset[str]
    settings: PromptSettings


class Prompts:
    """All prompts of all languages. Build it with `load`."""

    def __init__(
        self, prompts: Mapping[str, Mapping[str, _Prompt]], languages: Mapping[str, Language]
    ) -> None:
        self._prompts = prompts
        self._languages = languages

    @classmethod
    def load(
        cls, folder: Path, *, needed: Iterable[str] = NEEDED, outputs: Collection[str] | None = None
    ) -> Prompts:
        """Read every language below `folder`. `outputs`: the known names of `output`, None for any.

        Raises ConfigError naming file and line for the first fault. Blocks: call it before serving.
        """
        found = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        prompts = {p.name: {f.stem: _read(f, outputs) for f in sorted(p.glob("*.md"))} for p in found}
        languages = {p.name: _language(p / "language.toml") for p in found}
        _complete(folder, prompts, needed)
        return cls(prompts, languages)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self._languages)

    def language(self, code: str) -> Language:
        """The language of `code` (`nl-BE` is `nl`), English where there is none."""
        return self._languages[self._folder(code)]

    def speaks(self, code: str) -> bool:
        return _primary(code) in self._languages

    def render(self, name: str, language: str, /, **variables: str) -> Rendered:
        """The prompt in that language, or in English where the language has none. Every declared variable and
        no other must be given."""
        prompt = self._prompts[self._folder(language)].get(name) or self._prompts[BASE_LANGUAGE][name]
        if variables.keys() != prompt.variables:
            wrong = ", ".join(sorted(variables.keys() ^ prompt.variables))
            raise ValueError(f"prompt {name}: these variables are missing or unknown: {wrong}")
        filled = {key: as_data(value) for key, value in variables.items()}
        return Rendered(prompt.system, prompt.user.substitute(filled), prompt.settings)

    def _folder(self, code: str) -> str:
        primary = _primary(code)
        return primary if primary in self._languages else BASE_LANGUAGE


def as_data(text: str) -> str:
    """`text` that cannot be mistaken for a part of the prompt: no angle brackets, nothing unprintable."""
    return "\n".join(one_line(line) for line in text.split("\n")).translate(_NO_CLOSING)


def _primary(code: str) -> str:
    return re.split("[-_]", code.lower(), maxsplit=1)[0]


def _complete(folder: Path, prompts: Mapping[str, Mapping[str, _Prompt]], needed: Iterable[str]) -> None:
    base = prompts.get(BASE_LANGUAGE, {})
    everywhere = set(needed).union(*(names.keys() for names in prompts.values()))
    if lacking := sorted(everywhere - base.keys()):
        raise ConfigError(f"{folder / BASE_LANGUAGE / lacking[0]}.md: is missing; English must be complete")
    for language, own in prompts.items():
        for name in own:
            if own[name].variables != base[name].variables:
                raise ConfigError(
                    f"{folder / language / name}.md:1: variables differ from those of the English prompt"
                )
        if absent := sorted(base.keys() - own.keys()):
            logger.info("Prompts fall back to English", language=language, prompts=absent)


def _read(path: Path, outputs: Collection[str] | None) -> _Prompt:
    lines = path.read_text(encoding="utf-8").splitlines()
    fences = [number for number, line in enumerate(lines) if line.strip() == "+++"]
    if len(fences) < 2 or fences[0] != 0:
        raise ConfigError(f"{path}:1: must begin with settings between two lines +++")
    front = _front_matter(path, lines[1 : fences[1]])
    if outputs is not None and front.output not in outputs:
        raise ConfigError(
            f"{path}:{_line_of(lines, 'output')}: output {front.output!r} is none of {sorted(outputs)}"
        )
    marks = [number for number, line in enumerate(lines) if line.strip() == USER_LINE]
    if len(marks) != 1:
        raise ConfigError(f"{path}:{fences[1] + 2}: needs one line {USER_LINE} after the system text")
    system = "\n".join(lines[fences[1] + 1 : marks[0]]).strip()
    if not system:
        raise ConfigError(f"{path}:{fences[1] + 2}: the system text is empty")
    _check_placeholders(path, lines[: marks[0]], fences[1] + 1, frozenset())
    declared = frozenset(front.variables)
    used = _check_placeholders(path, lines, marks[0] + 1, declared)
    if unused := sorted(declared - used):
        raise ConfigError(f"{path}:{_line_of(lines, 'variables')}: ${unused[0]} is declared and never used")
    settings = PromptSettings(
        front.role,
        front.temperature,
        front.max_tokens,
        front.output,
        f"coach:{path.parent.name}:{path.stem}",
        front.model,
    )
    user = Template("\n".join(lines[marks[0] + 1 :]).strip())
    return _Prompt(Template(system).substitute(), user, declared, settings)


def _check_placeholders(path: Path, lines: list[str], start: int, declared: frozenset[str]) -> set[str]:
    """The placeholders used from line `start` (from 0) on; ConfigError for a broken or undeclared one."""
    used: set[str] = set()
    for number, line in enumerate(lines[start:], start + 1):
        template = Template(line)
        if not template.is_valid():
            raise ConfigError(f"{path}:{number}: a lone $ must be written $$")
        names = set(template.get_identifiers())
        if unknown := sorted(names - declared):
            place = "is not declared in variables" if declared else "may not stand in the system text"
            raise ConfigError(f"{path}:{number}: ${unknown[0]} {place}")
        used |= names
    return used


def _front_matter(path: Path, lines: list[str]) -> _FrontMatter:
    try:
        return _FrontMatter.model_validate(tomllib.loads("\n".join(lines)))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}:{_toml_line(error, 1)}: the settings are not valid TOML") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        line = _line_of(["+++", *lines], field)
        raise ConfigError(f"{path}:{line}: {field}: {first['msg']}") from error


def _language(path: Path) -> Language:
    try:
        text = path.read_text(encoding="utf-8")
        made = _LanguageFile.model_validate(tomllib.loads(text))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: is missing") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}:{_toml_line(error, 0)}: is not valid TOML") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        line = _line_of(text.splitlines(), field)
        raise ConfigError(f"{path}:{line}: {field}: {first['msg']}") from error
    return Language(
        path.parent.name,
        made.name,
        made.direction,
        made.letters,
        made.agent,
        made.customer,
        tuple(made.doubts),
    )


def _toml_line(error: tomllib.TOMLDecodeError, offset: int) -> int:
    """Python 3.11 to 3.13 tell the line only inside the message."""
    found = re.search(r"line (\d+)", str(error))
    return int(found[1]) + offset if found else 1 + offset


def _line_of(lines: list[str], key: str) -> int:
    return next((n for n, line in enumerate(lines, 1) if re.match(rf"{re.escape(key)}\s*=", line)), 1)
