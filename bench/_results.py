"""What a measurement leaves behind: a table on the screen, a file in results/, and its part of the README."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- results: made by the measurements -->\n", "<!-- end of results -->"

# One repetition after another by variant and figure, medians of them by the same.
Repeated = dict[str, dict[str, list[float]]]
Medians = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure must reach, and whether it does. `unit` stands behind both."""

    what: str
    value: float
    bar: float
    unit: str = "ms"
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    @property
    def told(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{self.what}: {self.value:,.4g} {self.unit} (bar {sign} {self.bar:,.4g}), " + (
            "met" if self.met else "MISSED"
        )


def note(figures: Repeated, variant: str, found: Mapping[str, float]) -> None:
    for what, value in found.items():
        figures.setdefault(variant, {}).setdefault(what, []).append(value)


def medians(figures: Repeated) -> Medians:
    return {
        variant: {what: _rounded(statistics.median(values)) for what, values in found.items()}
        for variant, found in figures.items()
    }


def _rounded(value: float) -> float:
    return round(value, 1) if abs(value) >= 10 else round(value, 3)


def spread(times_s: Sequence[float], name: str) -> dict[str, float]:
    """p50, p95, p99 and the highest, in milliseconds."""
    cuts = statistics.quantiles(times_s, n=100, method="inclusive")
    shares = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(times_s)}
    return {f"{name} {share} ms": value * 1000 for share, value in shares.items()}


def save(
    name: str, title: str, table: Medians, bars: Sequence[Bar] = (), *, rounds: int, notes: Sequence[str] = ()
) -> None:
    print(_text(table))
    for bar in bars:
        print(bar.told)
    for line in notes:
        print(line)
    document = {
        "title": title,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "median": table,
        "bars": [{**asdict(bar), "met": bar.met} for bar in bars],
        "notes": list(notes),
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    _refresh()


def _text(table: Medians) -> str:
    names, rows = _grid(table)
    first = max((len(row[0]) for row in rows), default=0) + 2
    widths = [max(12, len(name)) + 2 for name in names]
    lines = [" " * first + "".join(name.rjust(width) for name, width in zip(names, widths, strict=True))]
    for what, *cells in rows:
        told = "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(what.ljust(first) + told)
    return "\n".join(lines)


def _grid(table: Medians) -> tuple[list[str], list[list[str]]]:
    """Variants are columns, figures are rows, in the order they were first seen."""
    names = list(table)
    figures = dict.fromkeys(what for found in table.values() for what in found)
    cells = {what: [f"{table[n][what]:,g}" if what in table[n] else "" for n in names] for what in figures}
    return names, [[what, *row] for what, row in cells.items()]


def _refresh() -> None:
    """Put the newest results into the README, between its two marks."""
    if not README.is_file():
        return
    head, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    documents = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.json"))}
    parts = [_markdown(name, document) for name, document in documents.items() if "median" in document]
    README.write_text(f"{head}{BEGIN}\n" + "\n".join(parts) + f"\n{END}{tail}", encoding="utf-8")


def _markdown(name: str, document: Mapping[str, Any]) -> str:
    names, rows = _grid(document["median"])
    lines = [f"### {name}: {document.get('title', '')}".rstrip(": "), ""]
    lines += [f"| | {' | '.join(names)} |", "|---" + "|---:" * len(names) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    bars = [
        Bar(**{key: value for key, value in bar.items() if key != "met"}) for bar in document.get("bars", ())
    ]
    lines += ["", *(f"- {line}" for line in (*(bar.told for bar in bars), *document.get("notes", ())))]
    return "\n".join(lines).rstrip() + "\n"
