"""The hand-written pages of docs/: their links lead somewhere, their examples load, their names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coach_server.api import contract
from coach_server.api.declared import declared
from coach_server.services.content import Content
from coach_server.settings import Settings, variable_names

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = (
    *("architecture.md", "compatibility.md", "adding.md", "operating.md", "events.md", "privacy.md"),
    *("personas.md", "simulation.md", "roleplay.md", "methodology.md", "knowledge.md"),
)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
# Named in the pages because other programs set or read them, or because earlier servers did.
FOREIGN = re.compile(
    r"AI_\w+|AWS_\w+|DB_\w+|RDS_\w+|DATA_RETENTION_DAYS|ENABLE_\w+|MAX_CONTEXT_TOKENS|SUMMARY_\w+"
)


# The events and codes of the wire, and those of earlier servers.
WIRE = str(contract.asyncapi(declared()[1].events)) + "TRANSCRIPT_RECEIVED AI_ERROR"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings_that_exist(name: str) -> None:
    for target, anchor in LINK.findall(page(name)):
        if target.startswith("http"):
            continue
        file = (ROOT / "docs" / target) if target else ROOT / "docs" / name
        assert file.is_file(), f"{name} links to {target}"
        if anchor:
            assert anchor[1:] in anchors(file.read_text(encoding="utf-8")), (
                f"{name} links to {target}{anchor}"
            )


@pytest.mark.parametrize("name", PAGES)
def test_the_files_a_page_names_exist(name: str) -> None:
    places = (ROOT, ROOT / "coach_server", ROOT / "coach_server" / "services")
    for path in re.findall(r"`([a-z_]+/[a-z_/0-9]*\.(?:py|toml|md))`", page(name)):
        assert any((place / path).exists() for place in places), f"{name} names {path}"


@pytest.mark.parametrize("name", ["compatibility.md", "adding.md", "operating.md"])
def test_the_settings_a_page_names_exist(name: str) -> None:
    known = {v for field in Settings.model_fields.values() for v in variable_names(field.validation_alias)}
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", page(name)))
    settings = {n for n in named if not FOREIGN.fullmatch(n) and not _is_of_the_wire(n)}
    assert settings and settings <= known, settings - known


def _is_of_the_wire(name: str) -> bool:
    return name in WIRE


def test_the_playbook_of_the_guide_loads(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", page("adding.md"), re.S)
    third = '\n[[line]]\nid = "x"\nstage = "CLOSING"\ntext = "Shall we put it down for Tuesday?"\n'
    (tmp_path / "solar.toml").write_text(example + third, encoding="utf-8")
    book = Content.load(tmp_path).playbook("solar")
    assert [line.id for line in book.lines] == ["greet-roof", "price-compare", "x"]
