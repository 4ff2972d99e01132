"""Where files that ship with the server lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def bundled(name: str) -> Path:
    """The folder or file `name` that ships with the server (`prompts`, `migrations`, `node_modules`)."""
    beside = _PACKAGE.parent / name
    return beside if beside.exists() else _PACKAGE / "_bundled" / name


def catalog() -> Path:
    return _PACKAGE / "catalog"
