"""The contract as documents: made from the code, in step with the committed files, and true on the wire."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from openapi_spec_validator import validate
from pydantic import TypeAdapter

from coach_server import cli
from coach_server.api import contract, reference, wire_out
from coach_server.api.declared import declared
from coach_server.api.practice import out as practice_out
from coach_server.api.simulation import frames
from coach_server.app import build_app
from coach_server.cli import docs
from coach_server.clock import SystemClock
from coach_server.domain.tip import Stage
from coach_server.settings import Settings, variable_names
from tests.fakes.deepgram import KEY as DEEPGRAM_KEY
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.openai import FakeOpenAI
from tests.serving import Client, Server, serving, test_settings

ROOT = Path(__file__).resolve().parent.parent.parent
REST, SOCKETS = declared()
OPENAPI = contract.openapi(REST)
ASYNCAPI = contract.asyncapi(SOCKETS.events)
SENT = wire_out.EVENTS | practice_out.BARE_EVENTS
FRAMES = {f"simulation.client.{name}" for name in frames.FROM_CLIENT} | {
    f"simulation.server.{name}" for name in frames.FROM_SERVER
}


# --- files


@pytest.mark.parametrize("name", docs.documents())
def test_a_committed_file_is_what_the_code_generates(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == docs.documents()[name], f"run `make docs` for {name}"


def test_the_command_writes_every_file_and_then_finds_them_in_step(tmp_path: Path) -> None:
    assert cli.main(["docs", "--folder", str(tmp_path)]) == 0
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == set(
        docs.documents()
    )
    assert cli.main(["docs", "--check", "--folder", str(tmp_path)]) == 0


def test_the_check_names_the_file_that_is_out_of_step_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["docs", "--folder", str(tmp_path)])
    stale = tmp_path / "docs" / "events.md"
    stale.write_text("old", encoding="utf-8")
    (tmp_path / ".env.example").unlink()
    assert cli.main(["docs", "--check", "--folder", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "docs/events.md" in told and ".env.example" in told and "openapi" not in told
    assert stale.read_text(encoding="utf-8") == "old"


def test_documents_are_made_without_a_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["docs", "--check"]) == 0
    assert list(tmp_path.iterdir()) == []


# --- .env.example


def test_the_example_environment_is_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields.values():
        for name in variable_names(field.validation_alias):
            monkeypatch.delenv(name, raising=False)
    path = tmp_path / ".env"
    path.write_text(docs.env_example(), encoding="utf-8")
    assert Settings(_env_file=path) == Settings(_env_file=None)


def test_every_variable_is_in_the_example_under_a_sentence_of_its_own() -> None:
    lines = docs.env_example().splitlines()
    for name, field in Settings.model_fields.items():
        first, *aliases = variable_names(field.validation_alias)
        (place,) = [number for number, line in enumerate(lines) if line.startswith(f"{first}=")]
        assert field.description, f"{name} has no description"
        assert lines[place - 1].startswith("# ")
        for alias in aliases:
            assert f"Alias {alias}." in field.description


def test_the_example_holds_no_secret() -> None:
    lines = docs.env_example().splitlines()
    secrets = [f for f in Settings.model_fields.values() if "SecretStr" in str(f.annotation)]
    assert len(secrets) >= 6
    for field in secrets:
        assert f"{variable_names(field.validation_alias)[0]}=" in lines


# --- OpenAPI


def test_the_openapi_document_is_valid() -> None:
    validate(OPENAPI)
    assert OPENAPI["openapi"] == "3.1.0"


async def test_every_route_of_the_server_is_documented_and_no_other(tmp_path: Path) -> None:
    app = build_app(test_settings(tmp_path))
    runner = web.AppRunner(app)
    await runner.setup()
    await runner.cleanup()
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and not _is_page(route.resource.canonical) and route.method != "HEAD"
    }
    documented = {(method.upper(), path) for path, methods in OPENAPI["paths"].items() for method in methods}
    assert documented == served


def _is_page(path: str) -> bool:
    """Pages, and what speaks another protocol than HTTP."""
    pages = ("/roleplay", "/progress", "/practice", "/dashboard", "/static", "/favicon", "/socket.io", "/ws/")
    return path == "/" or path.startswith(pages)


def test_every_route_but_the_open_ones_asks_for_credentials() -> None:
    open_to_all = {
        path
        for path, methods in OPENAPI["paths"].items()
        for operation in methods.values()
        if operation["security"] == []
    }
    assert open_to_all == {
        "/health", "/ready", "/docs", "/docs/docs.css", "/docs/openapi.json", "/docs/asyncapi.json",
    }  # fmt: skip
    for path, methods in OPENAPI["paths"].items():
        for operation in methods.values():
            assert ("401" in operation["responses"]) == (path not in open_to_all)


def test_operations_have_names_of_their_own() -> None:
    names = [o["operationId"] for methods in OPENAPI["paths"].values() for o in methods.values()]
    assert len(set(names)) == len(names)
    assert "getConversationsIdTranscript" in names


# --- AsyncAPI


def test_every_event_a_client_may_send_is_documented_with_its_ack() -> None:
    received = {
        name: operation
        for name, operation in ASYNCAPI["operations"].items()
        if operation["action"] == "receive" and operation["channel"]["$ref"] == "#/channels/live"
    }
    assert received.keys() == {_key(name) for name in SOCKETS.events}
    for name, operation in received.items():
        assert operation["reply"]["messages"] == [{"$ref": f"#/channels/live/messages/{name}.ack"}]
        assert f"{name}.ack" in ASYNCAPI["channels"]["live"]["messages"]


def _key(name: str) -> str:
    return name.replace(":", ".")


def test_every_frame_of_a_simulation_is_documented_on_its_own_channel() -> None:
    channel = ASYNCAPI["channels"]["simulation"]
    assert channel["address"] == "/ws/sessions/{id}"
    assert channel["messages"].keys() == FRAMES
    for name in FRAMES:
        action = "receive" if ".client." in name else "send"
        assert ASYNCAPI["operations"][name]["action"] == action


def test_every_event_of_the_contract_is_there() -> None:
    contract_in = {
        "START_CONVERSATION", "TRANSCRIPT", "OPTION_SELECTED", "REQUEST_NEXT_TIP", "REQUEST_ALTERNATIVE_TIP",
        "END_CONVERSATION", "PING", "START_TRANSCRIPTION", "AUDIO_CHUNK", "END_TRANSCRIPTION",
    }  # fmt: skip
    contract_out = {
        "CONVERSATION_STARTED", "AI_TIP", "CONVERSATION_ENDED", "ERROR", "PONG", "OPTION_SELECTED_ACK",
        "TRANSCRIPTION_STARTED", "TRANSCRIPTION_ENDED", "TRANSCRIPTION_RESULT",
    }  # fmt: skip
    assert contract_in <= SOCKETS.events.keys()
    assert contract_out <= wire_out.EVENTS.keys()


def test_what_an_event_says_it_is_answered_with_exists() -> None:
    for event in SOCKETS.events.values():
        assert set(event.answers) <= SENT.keys()
        if event.refused_as is not None:
            TypeAdapter(wire_out.ErrorCode).validate_python(event.refused_as)


def test_every_event_and_field_is_in_the_page_for_people() -> None:
    page = docs.events_page(reference.events(ASYNCAPI))
    for name in (*SOCKETS.events, *SENT):
        assert f"### {name}\n" in page
    for stage in Stage:
        assert stage.value in page
    for field in ("resumeToken", "techniqueId", "reconnectInMs", "segmentId"):
        assert f"`{field}`" in page


def test_the_schemas_are_the_validating_models_own() -> None:
    schemas = ASYNCAPI["components"]["schemas"]
    transcript = schemas["Transcript"]
    assert transcript["required"] == ["conversationId", "speaker", "text"]
    assert transcript["properties"]["text"]["maxLength"] == 8000
    assert schemas["AiTip"]["additionalProperties"] is False
    assert schemas["AiTip"]["properties"]["options"]["minItems"] == 3
    assert "why" not in schemas["AiTip"]["required"]


@pytest.mark.node
async def test_the_asyncapi_document_passes_its_own_parser() -> None:
    node = shutil.which("node")
    if node is None or not (ROOT / "node_modules" / "@asyncapi" / "parser").is_dir():
        pytest.skip("NOT TESTED: no Node.js with @asyncapi/parser")
    process = await asyncio.create_subprocess_exec(
        node,
        "tests/node/asyncapi.mjs",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(json.dumps(ASYNCAPI).encode())
    assert process.returncode == 0, err.decode()
    found = json.loads(out)
    serious = [fault for fault in found["diagnostics"] if fault["severity"] <= 1]
    assert found["parsed"] and serious == []
    assert set(found["operations"]) == {_key(name) for name in (*SOCKETS.events, *SENT)} | FRAMES


# --- the wire


class Checked(Client):
    """A client that holds everything it is told against the documented models."""

    async def ask(self, name: str, data: object = None) -> dict[str, Any]:
        answer = await super().ask(name, data)
        model = SOCKETS.events[name].ack if answer.get("ok") else wire_out.Refused
        model.model_validate(answer)
        return answer

    def check(self) -> set[str]:
        """The names of the events that were told, each of which was as documented."""
        for name, payload in self.events:
            wire_out.EVENTS[name].model_validate(payload)
        return {name for name, _ in self.events}


async def checked_get(server: Server, path: str, model: type[wire_out.Outbound], status: int = 200) -> None:
    found, answer = await server.get(path)
    assert found == status, answer
    model.model_validate(answer)


@pytest.mark.parametrize("stores", [True, False], ids=["kept", "not kept"])
async def test_all_that_a_call_is_told_is_as_documented(tmp_path: Path, stores: bool) -> None:
    quick = {"SILENCE_MS": 50, "REACTION_TIMEOUT_MS": 200}
    async with serving(tmp_path, **quick) as server:
        client = Checked()
        await client.connect(server)
        started = await client.start(
            mode="event-driven", warmupMs=0, storeTranscript=stores, idempotencyKey="once", consent=True
        )
        named = {"conversationId": started["conversationId"]}
        first = await client.wait_for("AI_TIP")
        chosen = {"recommendationId": first["recommendationId"], "selectedOption": 1}
        await client.ask("OPTION_SELECTED", chosen)
        await client.say(
            named["conversationId"], "agent", "How do you plan the rounds today?", segmentId="s1"
        )
        await client.say(
            named["conversationId"], "agent", "How do you plan the rounds today?", segmentId="s1"
        )
        await client.ask("TRANSCRIPT", {**named, "speaker": "caller", "text": "By", "isFinal": False})
        for words in (
            "By hand, and it goes wrong every week, that is a real problem.",
            "But it is far too expensive for us.",
            "Could you send an offer on Tuesday at ten?",
        ):
            await client.say(named["conversationId"], "caller", words)
            await client.say(named["conversationId"], "agent", "Shall we meet on Tuesday at ten?")
        await client.wait_for("AI_TIP", 2)
        await client.ask("SET_MODE", {**named, "mode": "auto", "verbosity": "low", "muted": True})
        await client.ask("REQUEST_ALTERNATIVE_TIP", {**named, "currentStage": "CLOSING"})
        await client.wait_for("AI_TIP", 3)
        await client.ask("REQUEST_NEXT_TIP", named)
        await client.ask(
            "RESUME_CONVERSATION", {**named, "resumeToken": started["resumeToken"], "lastSeq": 1}
        )
        await client.ask("PING")
        await client.send("REQUEST_NEXT_TIP", {"conversationId": "unknown", "selectedOption": 1})
        await client.wait_for("ERROR")
        await client.ask("REQUEST_NEXT_TIP", {"conversationId": "unknown"})
        await client.ask("TRANSCRIPT", None)
        await client.ask("END_CONVERSATION", named)
        await client.ask("END_CONVERSATION", named)
        await client.wait_for("ANALYSIS_READY")
        told = client.check()
        await client.close()
        assert told == wire_out.EVENTS.keys() - {
            "TIP_CHUNK", "TIP_UPDATED", "SERVER_DRAINING", "TRANSCRIPTION_STARTED", "TRANSCRIPTION_RESULT",
            "TRANSCRIPTION_ENDED",
        }  # fmt: skip
        one = f"/api/conversations/{named['conversationId']}"
        await checked_get(server, "/api/conversations?status=ended&limit=1", wire_out.ConversationPage)
        await checked_get(server, one, wire_out.ConversationDetail)
        await checked_get(server, f"{one}/transcript", wire_out.TranscriptAnswer)
        await checked_get(server, f"{one}/tips", wire_out.TipsAnswer)
        await checked_get(server, f"{one}/analysis", wire_out.AnalysisAnswer)


async def test_the_analysis_of_a_call_too_short_to_judge_is_as_documented(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        client = Checked()
        await client.connect(server)
        call_id = (await client.start())["conversationId"]
        await client.ask("END_CONVERSATION", {"conversationId": call_id})
        ready = await client.wait_for("ANALYSIS_READY")
        assert ready["analysis"]["insufficient"] is True
        client.check()
        await client.close()
        await checked_get(server, f"/api/conversations/{call_id}/analysis", wire_out.AnalysisAnswer)


async def test_a_tip_that_is_written_before_the_clients_eyes_is_as_documented(tmp_path: Path) -> None:
    async with FakeOpenAI() as fake:
        values = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url}
        async with serving(tmp_path, **values) as server:
            client = Checked()
            await client.connect(server)
            call_id = (await client.start(tipStreaming=True))["conversationId"]
            await client.say(call_id, "caller", "We lose two days a month on this.")
            await client.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
            await client.wait_for("TIP_UPDATED")
            assert {"AI_TIP", "TIP_CHUNK", "TIP_UPDATED"} <= client.check()
            await client.close()


async def test_what_audio_is_answered_with_is_as_documented(tmp_path: Path) -> None:
    stream = {"sessionId": "s-1"}
    sound = base64.b64encode(bytes(3200)).decode()
    async with FakeDeepgram(SystemClock()) as fake:
        values = {"DEEPGRAM_API_KEY": DEEPGRAM_KEY, "DEEPGRAM_BASE_URL": fake.url}
        async with serving(tmp_path, **values) as server:
            client = Checked()
            await client.connect(server)
            await client.ask("START_TRANSCRIPTION", stream)
            await client.ask("AUDIO_CHUNK", {**stream, "chunk": "no base64"})
            await client.ask("AUDIO_CHUNK", {**stream, "chunk": sound, "speaker": "agent"})
            await (await fake.connection()).words("hello there")
            await client.wait_for("TRANSCRIPTION_RESULT")
            await client.ask("END_TRANSCRIPTION", stream)
            await client.send("END_TRANSCRIPTION", stream)
            assert (await client.wait_for("ERROR"))["code"] == "END_TRANSCRIPTION_ERROR"
            await client.send("AUDIO_CHUNK", {**stream, "chunk": 5})
            assert (await client.wait_for("ERROR", 2))["code"] == "INVALID_AUDIO_TYPE"
            await client.send("AUDIO_CHUNK", {**stream, "chunk": "%"})
            assert (await client.wait_for("ERROR", 3))["code"] == "INVALID_AUDIO_DATA"
            told = client.check()
            await client.close()
            assert told == {
                "TRANSCRIPTION_STARTED", "TRANSCRIPTION_RESULT", "TRANSCRIPTION_ENDED", "ERROR",
            }  # fmt: skip
            for path, body, model in (
                ("/api/auth/deepgram-token", {"userId": "u", **stream}, wire_out.SpeechTokenAnswer),
                ("/api/transcribe/start", stream, wire_out.TranscribeStarted),
                ("/api/transcribe/chunk", {**stream, "chunk": sound}, wire_out.TranscribeTaken),
                ("/api/transcribe/end", stream, wire_out.TranscribeEnded),
            ):
                status, answer = await server.post(path, body)
                assert status == 200, answer
                model.model_validate(answer)


async def test_without_a_speech_vendor_a_start_is_told_that_the_service_is_not_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        client = Checked()
        await client.connect(server)
        await client.send("START_TRANSCRIPTION", {"sessionId": "s-1"})
        assert (await client.wait_for("ERROR"))["code"] == "SERVICE_UNAVAILABLE"
        assert (await client.ask("START_TRANSCRIPTION", {"sessionId": "s-1"}))[
            "code"
        ] == "SERVICE_UNAVAILABLE"
        client.check()
        await client.close()


async def test_a_drain_is_told_as_documented(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        client = Checked()
        await client.connect(server)
        drained = asyncio.ensure_future(server.coaching.drain())
        await client.wait_for("SERVER_DRAINING")
        client.check()
        await drained
        await checked_get(server, "/health", wire_out.Health, status=503)
        await checked_get(server, "/ready", wire_out.Ready, status=503)


async def test_the_other_routes_answer_as_documented(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await checked_get(server, "/health", wire_out.Health)
        await checked_get(server, "/ready", wire_out.Ready)
        await checked_get(server, "/api/conversations/none", wire_out.ErrorAnswer, status=404)
        await checked_get(server, "/api/conversations?limit=0", wire_out.ErrorAnswer, status=400)
        for path, body, status, model in (
            ("/api/auth/token", {"userId": "u", "role": "agent"}, 200, wire_out.TokenAnswer),
            ("/api/auth/token", {"userId": "u"}, 400, wire_out.ErrorAnswer),
            (
                "/api/ai/generate",
                {"persona": "sales-coach", "context": "It is expensive."},
                200,
                wire_out.GenerateAnswer,
            ),
            ("/api/generate-report", REPORT, 200, wire_out.ReportAnswer),
            ("/api/transcribe/start", {"sessionId": "s"}, 503, wire_out.PhrasedErrorAnswer),
            ("/api/transcribe/end", {"sessionId": "§"}, 400, wire_out.PhrasedErrorAnswer),
            (
                "/api/auth/deepgram-token",
                {"userId": "u", "sessionId": "s"},
                503,
                wire_out.PhrasedErrorAnswer,
            ),
        ):
            found, answer = await server.post(path, body)
            assert found == status, (path, answer)
            model.model_validate(answer)


REPORT = {
    "callMetadata": {"conversationId": "c", "agentEmail": "agent@example.com", "startTime": 1, "endTime": 2},
    "transcripts": [{"timestamp": 1, "speaker": "agent", "text": "Hello."}],
}


async def test_a_method_a_route_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        status, answer = await server.request("PUT", "/api/auth/token")
        assert status == 405
        wire_out.ErrorAnswer.model_validate(answer)


# --- the page


class Reader(HTMLParser):
    """What a page holds: its ids, where its links go, and which tags it uses."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src"):
                self.links.append(value or "")


async def test_the_served_documents_are_the_committed_ones(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for name in ("openapi", "asyncapi"):
            status, document = await server.get(f"/docs/{name}.json", key=None)
            assert status == 200
            assert document == json.loads((ROOT / "docs" / f"{name}.json").read_text(encoding="utf-8"))


async def test_the_page_needs_nothing_but_its_own_style(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        status, html = await server.get("/docs", key=None)
        page = Reader()
        page.feed(html)
        assert status == 200
        assert not page.tags & {"script", "style", "iframe", "object", "img"}
        assert "style" not in page.attributes and not [a for a in page.attributes if a.startswith("on")]
        outside = {link for link in page.links if not link.startswith("#")}
        assert outside == {"/docs/docs.css", "/docs/openapi.json", "/docs/asyncapi.json"}
        assert len(set(page.ids)) == len(page.ids)
        assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
        for name in (*SOCKETS.events, *wire_out.EVENTS, *OPENAPI["paths"]):
            assert f"<code>{name}</code>" in html
        status, _ = await server.get("/docs/docs.css", key=None)
        assert status == 200


async def test_the_page_is_served_under_a_strict_policy(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        aiohttp.ClientSession() as http,
        http.get(f"{server.url}/docs") as answer,
    ):
        policy = answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src" not in policy
