"""The `coach` command. Each command is a module with `configure(parser)` and `run(args) -> int`.

Only the module of the command that was asked for is imported: `coach detect` must not wait for the server's
libraries, nor fail because of them.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from coach_server import __version__
from coach_server.errors import CoachError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command lives, and the line `coach --help` shows for it without importing it."""

    module: str
    summary: str


COMMANDS: dict[str, Command] = {
    "detect": Command("coach_server.cli.detect", "label sentences of your own calls (NDJSON in, NDJSON out)"),
    "simulate": Command("coach_server.cli.simulate", "play a scripted or recorded call against a server"),
    "doctor": Command("coach_server.cli.doctor", "check the configuration and say what to fix"),
    "rotate-keys": Command(
        "coach_server.cli.rotate", "encrypt what is stored with the first key of DATA_ENCRYPTION_KEY"
    ),
    "knowledge": Command(
        "coach_server.cli.knowledge", "search the coach's knowledge, or export it for an avatar vendor"
    ),
    "files": Command("coach_server.cli.files", "write the data files of simulations again"),
    "docs": Command("coach_server.cli.docs", "write the OpenAPI and AsyncAPI documents"),
}


class CommandMissing(CoachError):
    """The command is known, but its module is not part of this installation."""

    code = "COMMAND_MISSING"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 failed, 2 wrong use, 130 interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in words if word in COMMANDS), None)
    try:
        parser = _parser(name)
        args = parser.parse_args(words)
        if args.command is None:
            parser.print_help()
            return USAGE
        return int(_load(args.command).run(args))
    except CoachError as fault:
        print(f"coach: {fault.message}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser(name: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="coach", description="Coach Server's commands")
    parser.add_argument("--version", action="version", version=f"coach {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    for each, command in COMMANDS.items():
        sub = commands.add_parser(each, help=command.summary, description=command.summary)
        if each == name:
            _load(each).configure(sub)
    return parser


def _load(name: str) -> ModuleType:
    path = COMMANDS[name].module
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as fault:
        if fault.name != path:
            raise
        raise CommandMissing(f"the command '{name}' is not part of this installation ({path})") from fault
