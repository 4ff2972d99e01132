from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coach_server import cli
from coach_server.cli.detect import label
from coach_server.services.detector import BATCH, Detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load(None)


def run(detector: Detector, *lines: Any) -> tuple[int, list[dict[str, Any]]]:
    out = io.StringIO()
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    code = label(text, out, detector)
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def line(**changes: Any) -> dict[str, Any]:
    return {"id": "1", "text": "Too expensive.", "speaker": "customer", "language": "en"} | changes


def test_a_line_gives_a_line_of_the_documented_shape(detector: Detector) -> None:
    code, answers = run(detector, line())
    assert code == 0
    assert answers == [
        {
            "id": "1",
            "stage": "OBJECTION_HANDLING",
            "objections": ["price"],
            "signals": [],
            "techniques": [],
            "attitude": None,
        }
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "an object is needed"),
        (line(text=None), "text:"),
        (line(text="x" * 9000), "text: longer"),
        (line(speaker="boss"), "speaker: 'seller' or 'customer'"),
        (line(speaker=["customer"]), "speaker:"),
        (line(language=7), "language:"),
        (line(context={"a": 1}), "context:"),
        (line(context=["a", 3]), "context:"),
        (line(phase=["2"]), "phase:"),
        (line(id=None), "id:"),
        (line(id=True), "id:"),
    ],
)
def test_a_bad_line_names_the_field_and_the_run_goes_on(detector: Detector, bad: Any, message: str) -> None:
    code, answers = run(detector, line(id="a"), bad, line(id="b"))
    assert code == 1
    assert [a["id"] for a in (answers[0], answers[2])] == ["a", "b"]
    assert set(answers[1]) == {"id", "error"}
    assert answers[1]["error"].startswith("line 2: ")
    assert message in answers[1]["error"]


def test_the_id_of_a_bad_line_comes_back(detector: Detector) -> None:
    _, answers = run(detector, line(id=7, text=3), "nonsense")
    assert [a["id"] for a in answers] == [7, None]


@pytest.mark.parametrize(
    "context",
    ["Would you like a demo?", ["Hello.", "Would you like a demo?"], [{"text": "Would you like a demo?"}]],
)
def test_context_may_be_a_text_or_a_list(detector: Detector, context: Any) -> None:
    _, answers = run(detector, line(text="No, not really.", context=context))
    assert answers[0]["signals"] == ["refusal"]


def test_order_holds_over_batches_and_blank_lines_are_skipped(detector: Detector) -> None:
    lines = [line(id=n) for n in range(2 * BATCH + 3)]
    _, answers = run(detector, *lines[:5], "", *lines[5:])
    assert [a["id"] for a in answers] == list(range(2 * BATCH + 3))


def test_the_command_reads_standard_input_and_files_alike(tmp_path: Path) -> None:
    file = tmp_path / "calls.ndjson"
    file.write_text(
        "\ufeff" + json.dumps(line(text="dat is te duur, joh … שלום", language="nl")) + "\n", "utf-8"
    )
    command = [sys.executable, "-m", "coach_server.cli", "detect", "--rules"]
    from_file = subprocess.run([*command, str(file)], capture_output=True, check=False)
    from_stdin = subprocess.run(command, input=file.read_bytes(), capture_output=True, check=False)
    assert (from_file.returncode, from_stdin.returncode) == (0, 0), from_file.stderr + from_stdin.stderr
    assert from_file.stdout == from_stdin.stdout
    assert json.loads(from_file.stdout)["objections"] == ["price"]


def test_a_missing_file_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["detect", "/no/such/file.ndjson"]) == cli.FAILED
    assert capsys.readouterr().err == "coach: /no/such/file.ndjson: No such file or directory\n"


def test_a_command_whose_module_is_missing_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "detect", cli.Command("coach_server.cli.nowhere", "-"))
    assert cli.main(["detect"]) == cli.FAILED
    assert "'detect' is not part of this installation" in capsys.readouterr().err


def test_help_lists_the_commands_without_loading_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.USAGE
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("detect", "simulate", "doctor", "docs"))
