"""`python -m bench` runs every measurement, `python -m bench sockets …` those named."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path


def measurements() -> list[str]:
    """The modules here that have a `main`; the others are parts of them."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return [name for name in names if not name.startswith("_") and name not in ("results",)]


def run(name: str) -> None:
    main = getattr(importlib.import_module(f"bench.{name}"), "main", None)
    if main is not None:
        print(f"== {name}", flush=True)
        main()


if __name__ == "__main__":
    for wanted in sys.argv[1:] or measurements():
        run(wanted)
