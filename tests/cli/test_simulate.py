from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coach_server.cli import main, simulate
from coach_server.cli.player import Plan, Player, Target
from coach_server.cli.simulate import Checked, percentiles, summary
from coach_server.clock import SystemClock
from coach_server.errors import Unavailable
from coach_server.services.demo import load_demo
from coach_server.services.recordings import Turn, parse_recording
from tests.fakes.coach import KEY, FakeCoach

LINES = [f"{'Agent' if n % 2 else 'Caller'}: sentence {n}" for n in range(1, 10)]


def turns(pause_ms: int = 1) -> list[Turn]:
    return [Turn(turn.speaker, turn.text, pause_ms) for turn in parse_recording("call.txt", "\n".join(LINES))]


@pytest.fixture
async def coach() -> AsyncIterator[FakeCoach]:
    async with FakeCoach().running() as server:
        yield server


async def play(coach: FakeCoach, **changes: Any) -> list[Checked]:
    runner = {key: changes.pop(key) for key in ("calls", "concurrency", "watch") if key in changes}
    plan = Plan(turns=turns(), **changes)
    return await simulate.simulate(Target(coach.url, KEY), plan, SystemClock(), **runner)


async def test_a_call_is_played_as_the_contract_has_it_and_checked_against_the_store(
    coach: FakeCoach,
) -> None:
    (call,) = await play(coach, language="nl", metadata={"company": "X"}, warmup_ms=5, interval_ms=100)
    (kept,) = coach.conversations.values()
    assert kept.start["agentId"] == "simulate-0"
    assert kept.start["metadata"] == {"source": "coach-simulate", "company": "X"}
    assert (kept.start["mode"], kept.start["language"]) == ("auto", "nl")
    assert (kept.start["warmupMs"], kept.start["intervalMs"]) == (5, 100)
    assert [segment["text"] for segment in kept.segments] == [f"sentence {n}" for n in range(1, 10)]
    assert [segment["speaker"] for segment in kept.segments[:2]] == ["agent", "caller"]
    assert all(segment["isFinal"] is True and segment["timestamp"] > 1e12 for segment in kept.segments)
    assert kept.ended
    assert coach.transports == ["websocket"]
    assert call.whole
    assert (call.played.sent, len(call.played.acked), call.stored, call.lost) == (9, 9, 9, 0)
    assert len(call.played.tips) == 3
    assert kept.selected == []


async def test_event_driven_mode_chooses_an_option_of_each_tip(coach: FakeCoach) -> None:
    await play(coach, mode="event-driven")
    (kept,) = coach.conversations.values()
    tips = [payload["recommendationId"] for name, payload in kept.log if name == "AI_TIP"]
    assert {chosen["recommendationId"] for chosen in kept.selected} <= set(tips)
    assert len(kept.selected) >= 2
    assert all(chosen["selectedOption"] in (1, 2, 3) for chosen in kept.selected)


async def test_a_cut_network_loses_nothing_and_doubles_nothing(coach: FakeCoach) -> None:
    (call,) = await play(coach, drop=1.0)
    assert call.whole, call
    assert call.played.cuts == call.played.resumed == 9
    assert coach.connections == 10
    assert (call.stored, len(call.played.acked)) == (9, 9)
    assert (call.played.missing, call.played.doubled) == (0, 0)
    assert len(call.played.tips) == 3, "those shown while the line was dead come with the resume"


async def test_a_segment_that_was_acknowledged_and_not_stored_is_called_lost(coach: FakeCoach) -> None:
    coach.forget = ("sentence 4", "sentence 7")
    (call,) = await play(coach)
    assert (call.lost, call.stored, call.whole) == (2, 7, False)


async def test_a_segment_stored_twice_is_a_problem(coach: FakeCoach) -> None:
    coach.twice = ("sentence 4",)
    (call,) = await play(coach)
    assert (call.problem, call.whole) == ("a segment was stored twice", False)


async def test_a_refused_segment_is_counted_by_its_code_and_is_not_lost(coach: FakeCoach) -> None:
    coach.refuse = {"sentence 2": "RATE_LIMITED"}
    (call,) = await play(coach)
    assert call.played.refused == ["RATE_LIMITED"]
    assert call.whole
    assert summary([call])["problems"] == {"RATE_LIMITED": 1}


async def test_a_segment_the_store_could_not_take_is_sent_again_until_it_can(coach: FakeCoach) -> None:
    coach.refuse_once = {"sentence 2": "STORAGE_FAILED", "sentence 9": "SERVICE_UNAVAILABLE"}
    coach.refuse = {"sentence 5": "STORAGE_FAILED"}
    (call,) = await play(coach)
    assert (call.stored, len(call.played.acked)) == (8, 8)
    assert call.played.refused == ["STORAGE_FAILED"]
    assert call.played.retried == 2 + 3


async def test_a_segment_without_an_answer_makes_the_call_incomplete(
    coach: FakeCoach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coach_server.cli.player.ANSWER_S", 0.3)
    coach.refuse = {}
    coach.sio.handlers["/"].pop("TRANSCRIPT")
    (call,) = await play(coach)
    assert (call.played.unanswered, call.whole) == (9, False)


async def test_events_a_server_does_not_replay_are_counted_missing(coach: FakeCoach) -> None:
    coach.lose_events = True
    (call,) = await play(coach)
    assert (call.played.missing, len(call.played.tips)) == (3, 0)
    assert not call.whole


async def test_many_calls_run_with_bounded_concurrency(coach: FakeCoach) -> None:
    calls = await play(coach, calls=12, concurrency=4)
    assert len(coach.conversations) == 12
    assert all(call.whole for call in calls)
    assert 1 < coach.most_open <= 4
    report = summary(calls)
    assert (report["calls"], report["completed"], report["segments"]["stored"]) == (12, 12, 108)
    assert report["tips"] == {"total": 36, "perCall": 3.0, "sources": {"offline": 36}}
    assert report["tipMs"] == {"p50": 12, "p95": 12, "p99": 12, "max": 12}
    assert report["usage"] == {
        "modelCalls": 24,
        "inputTokens": 10_800,
        "cachedTokens": 6_000,
        "outputTokens": 960,
        "costUsd": 0.018,
    }
    assert 0 < report["ackMs"]["p50"] <= report["ackMs"]["p99"]


async def test_one_refused_call_does_not_stop_the_others(coach: FakeCoach) -> None:
    calls = await play(coach, calls=14)
    failed = [call for call in calls if call.played.failure]
    assert [call.played.failure for call in failed] == [
        "START_CONVERSATION was refused: START_ERROR Not you."
    ]
    assert sum(call.whole for call in calls) == 13


async def test_an_unreadable_transcript_is_a_problem_and_not_a_success(coach: FakeCoach) -> None:
    coach.transcript_status = 503
    (call,) = await play(coach)
    assert call.problem == "the stored transcript could not be read: HTTP 503"
    assert not call.whole


async def test_a_wrong_key_and_a_server_that_is_not_there_are_one_clear_line(coach: FakeCoach) -> None:
    plan = Plan(turns=turns())
    with pytest.raises(Unavailable, match=r"cannot connect to http://127.* Authentication failed"):
        await simulate.simulate(Target(coach.url, "wrong"), plan, SystemClock())
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(Unavailable, match="cannot connect to http://127") as caught:
        await simulate.simulate(Target(url, KEY), plan, SystemClock(), calls=3)
    assert "\n" not in caught.value.message


async def test_a_server_that_goes_away_for_good_ends_the_call_with_a_reason(
    coach: FakeCoach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coach_server.cli.player.RECONNECT_TRIES", 2)
    gone = asyncio.Event()

    def watch(what: str, value: Any) -> None:
        if what == "turn" and value.text == "sentence 3":
            coach.sio.handlers["/"]["connect"] = refuse
            gone.set()

    async def refuse(sid: str, environ: Any, auth: Any) -> bool:
        return False

    plan = Plan(turns=turns(), drop=1.0)
    played = await Player(Target(coach.url, KEY), plan, SystemClock(), watch).play()
    assert gone.is_set()
    assert played.failure == "the connection was lost and did not come back"
    assert played.sent == 3


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentiles([]) is None
    assert percentiles([5]) == {"p50": 5, "p95": 5, "p99": 5, "max": 5}
    assert percentiles(range(1, 101)) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}


def command(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    simulate.configure(parser)
    return parser.parse_args(words)


async def run(*words: str) -> int:
    """`run` starts its own loop, so it gets a thread beside the one the server runs in."""
    return await asyncio.to_thread(simulate.run, command(*words))


async def test_the_command_prints_the_call_its_tips_and_the_figures(
    coach: FakeCoach, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "call.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    code = await run(str(path), "--url", coach.url + "/", "--key", KEY, "--speed", "10000")
    printed = capsys.readouterr().out
    assert code == 0
    assert "  agent     sentence 1\n" in printed
    assert "> Ask more  [DISCOVERY, offline, 12 ms]\n    1. Minimal: Say this." in printed
    assert (
        "segments   9 sent, 9 acknowledged, 9 stored, 0 lost, 0 unanswered, 0 refused, 0 retried" in printed
    )
    assert "tips/call  3.0 (3 offline)" in printed
    assert "model      2 calls, 900 tokens in (500 cached), 80 out, $0.0015" in printed


async def test_with_json_the_command_prints_one_object_and_fails_when_something_was_lost(
    coach: FakeCoach, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = await asyncio.to_thread(load_demo, "en")
    coach.forget = tuple(turn.text for turn in demo.turns[:2])
    code = await run("--url", coach.url, "--key", KEY, "--speed", "10000", "--json", "--drop", "0.2")
    report = json.loads(capsys.readouterr().out)
    assert code == 1
    assert report["segments"]["lost"] == 2
    assert report["segments"]["sent"] == 36
    assert report["network"]["cuts"] == report["network"]["resumed"] > 0


async def test_the_demo_call_and_timings_fit_the_speed(coach: FakeCoach) -> None:
    assert await run("--url", coach.url, "--key", KEY, "--speed", "1000", "--language", "nl", "--json") == 0
    (kept,) = coach.conversations.values()
    assert kept.start["metadata"]["customer_name"] == "Robert"
    assert (kept.start["warmupMs"], kept.start["intervalMs"]) == (10, 100)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--calls", "0"], "must be a whole number from 1 to 1000"),
        (["--calls", "1001"], "must be a whole number from 1 to 1000"),
        (["--speed", "nan"], "must be from 0.1 to 10000"),
        (["--speed", "fast"], "must be a number"),
        (["--drop", "2"], "must be from 0 to 1"),
        (["--mode", "both"], "invalid choice"),
        (["--interval-ms", "5"], "must be a whole number from 100"),
    ],
)
def test_wrong_options_are_refused_with_the_reason(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(*words)
    assert message in capsys.readouterr().err


def test_a_recording_that_cannot_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.txt").write_text("Agent: hi\nnobody said this", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"Agent: caf\xe9")
    for name, line in [
        ("missing.txt", "missing.txt: No such file or directory\n"),
        ("bad.txt", "coach: bad.txt line 2: expected"),
        ("latin.txt", "coach: latin.txt: not UTF-8 text\n"),
    ]:
        assert main(["simulate", str(tmp_path / name), "--key", KEY]) == 1
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1


def test_a_language_without_a_demo_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--language", "fr", "--key", KEY]) == 1
    assert "there are: en, nl" in capsys.readouterr().err


def test_the_key_comes_from_the_environment_or_from_this_machines_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("COACH_API_KEY", "BACKEND_API_KEY", "API_KEY", "APP_ENV", "NODE_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(simulate.ConfigError, match="no API key: give --key"):
        simulate._key()
    (tmp_path / "api-key").write_text("generated\n", encoding="ascii")
    assert simulate._key() == "generated"
    monkeypatch.setenv("BACKEND_API_KEY", "extension:from-settings")
    assert simulate._key() == "from-settings"
    monkeypatch.setenv("COACH_API_KEY", "own")
    assert simulate._key() == "own"
