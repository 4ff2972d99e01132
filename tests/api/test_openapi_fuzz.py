"""Every documented route under generated requests, right ones and wrong ones, by schemathesis as a client."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from coach_server.api import contract
from coach_server.api.declared import declared
from coach_server.clock import SystemClock
from tests.fakes.deepgram import KEY as DEEPGRAM_KEY
from tests.fakes.deepgram import FakeDeepgram
from tests.serving import KEY, Server, connected, serving

EXAMPLES = 12
SEED = 20_260_101
# A schema cannot say that audio ends on a whole sample, what a real mail provider takes for an address, that
# something is left of a text without its control characters, that an API key must name the trainee and a user
# need not, what is a date, or all that makes a persona or a scenario whole.
CHECKED_BEYOND_THE_SCHEMA = (
    "POST /api/transcribe/chunk",
    "POST /api/generate-report",
    "POST /api/ai/generate",
    "GET /api/dashboard",
    "GET /api/dashboard/csv",
    "GET /api/dashboard/stats",
    "GET /api/drills",
    "GET /api/sessions",
    "POST /api/roleplay/sessions/start",
    "POST /api/roleplay/sessions/{id}/transcript",
    "POST /api/sessions",
    "POST /api/sessions/{id}/events",
    "PUT /api/personas/{id}",
    "PUT /api/scenarios/{id}",
    "PUT /api/roleplay/scenarios/{id}",
    "PUT /api/users/{userId}/settings",
)
# Where a number is wanted, one that is written as a text or as true is taken too; null is taken for an empty
# body.
TAKES_MORE = (
    "PUT /api/users/{userId}/settings",
    "POST /api/generate-report",
    "POST /api/auth/token",
    "POST /api/transcribe/start",
)
ACCEPTED = ["2xx", 401, 403, 404, 409, 429]
REFUSED = [400, 401, 403, 404, 405, 409, 413, 429]


async def an_ended_call(server: Server) -> str:
    async with connected(server) as client:
        call_id = str((await client.start())["conversationId"])
        await client.say(call_id, "caller", "It is too expensive for us.")
        await client.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
        await client.wait_for("AI_TIP")
        await client.ask("END_CONVERSATION", {"conversationId": call_id})
        await client.wait_for("ANALYSIS_READY")
    return call_id


def configuration(call_id: str) -> str:
    """schemathesis.toml: the id of a call that exists, and where more than the schema is checked."""
    lines = ["[parameters]", f'id = "{call_id}"']
    for name in dict.fromkeys((*CHECKED_BEYOND_THE_SCHEMA, *TAKES_MORE)):
        right = [*ACCEPTED, 400] if name in CHECKED_BEYOND_THE_SCHEMA else ACCEPTED
        wrong = [*REFUSED, 200] if name in TAKES_MORE else REFUSED
        lines += [
            "[[operations]]",
            f'include-name = "{name}"',
            f"checks.positive_data_acceptance.expected-statuses = {json.dumps(right)}",
            f"checks.negative_data_rejection.expected-statuses = {json.dumps(wrong)}",
        ]
    return "\n".join(lines)


def operations() -> int:
    return sum(len(methods) for methods in contract.openapi(declared()[0])["paths"].values())


async def run(server: Server, folder: Path) -> tuple[int, str]:
    config = folder / "schemathesis.toml"
    config.write_text(configuration(await an_ended_call(server)), encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--no-color",
        "--config-file",
        str(config),
    ]
    command += ["run", f"{server.url}/docs/openapi.json", "-H", f"x-api-key: {KEY}", "--checks", "all"]
    command += ["--phases", "coverage,fuzzing", "-n", str(EXAMPLES), "--seed", str(SEED), "--no-shrink"]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "120"},
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@pytest.mark.timeout(240)
async def test_no_request_breaks_the_server_or_gets_an_answer_that_is_not_documented(tmp_path: Path) -> None:
    (tmp_path / "fuzz").mkdir()
    async with FakeDeepgram(SystemClock()) as fake:
        values = {"DEEPGRAM_API_KEY": DEEPGRAM_KEY, "DEEPGRAM_BASE_URL": fake.url}
        async with serving(tmp_path / "data", **values) as server:
            code, told = await run(server, tmp_path / "fuzz")
            assert code == 0, told[-12_000:]
            tried = operations() - 1  # not the route of the document itself
            assert f"{tried} selected / {tried} total" in told, told[:2000]
            assert (await server.get("/ready", key=None))[0] == 200
