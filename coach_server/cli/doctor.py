"""`coach doctor`: look at the configuration as the server would, and say what to fix.

A line for each check: ok, warn (it runs, but look at it) or fail (it will not run or not do what was asked
for). Nothing is changed, nothing that costs money is asked, and no secret is shown. Exit code 1 when any
check failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from loguru import logger

from coach_server.cli.checkup import Finding, Status, check_files, local_checks, read_settings
from coach_server.cli.checkup_services import service_checks
from coach_server.clock import Clock, SystemClock

NAME_WIDTH = 13


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument(
        "--env-file", default=".env", metavar="FILE", help="read this instead of .env (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """0 when nothing failed, 1 otherwise."""
    logger.disable("coach_server")  # what the parts log on the way is not the report
    try:
        findings = examine(args.env_file, SystemClock())
    finally:
        logger.enable("coach_server")
    failed = any(finding.status is Status.FAIL for finding in findings)
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in findings]}))
    else:
        print("\n".join(report(findings)))
    return 1 if failed else 0


def examine(env_file: str | None, clock: Clock) -> list[Finding]:
    """Every finding, in the order of the report. Blocks, for some seconds where others do not answer."""
    settings, findings = read_settings(env_file)
    findings += local_checks(settings)
    findings += asyncio.run(service_checks(settings, clock))
    return [*findings, *check_files(settings)]


def report(findings: Sequence[Finding]) -> Iterable[str]:
    for finding in findings:
        yield f"{finding.status.value:<5} {finding.name:<{NAME_WIDTH}} {finding.message}"
        if finding.fix:
            yield f"{'':<{6 + NAME_WIDTH}} fix: {finding.fix}"
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    yield f"{counts[Status.OK]} ok, {counts[Status.WARN]} warn, {counts[Status.FAIL]} fail"
