"""`coach doctor` against fakes and real engines: what is wrong is told, what is secret is not."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import make_url

from coach_server.cli import checkup, doctor, main
from coach_server.cli.checkup import Finding, Status
from coach_server.cli.checkup_services import (
    Clocks,
    check_clocks,
    check_database,
    check_model,
    check_port,
    check_redis,
    service_checks,
)
from coach_server.clock import SystemClock
from coach_server.errors import ProviderError
from coach_server.settings import Settings, variable_names
from coach_server.testing import ManualClock
from tests.fakes.openai import FakeOpenAI, Step, garbage, hang, status
from tests.serving import serving

STRONG = "3f9c1b7a5d2e48069b8c7d6e5f4a3b2c"
SECRET = "sk-very-secret-0123456789"
LIVE = {"LIVEAVATAR_API_KEY": "k", "LIVEAVATAR_AVATAR_ID": "0b3f8d9e-6f2b-4a52-8a0c-6f3d1f4f9a11"}
HEYGEN = {"HEYGEN_API_KEY": "k", "HEYGEN_AVATAR_ID": "Anna_public"}
TODAY = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a test sets counts."""
    for field in Settings.model_fields.values():
        for name in variable_names(field.validation_alias):
            monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RDS_HOSTNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def settings(tmp_path: Path, **values: object) -> Settings:
    given: dict[str, Any] = {"DATA_DIR": tmp_path / "data", "BACKEND_API_KEY": STRONG, **values}
    return Settings(_env_file=None, **given)


def told(findings: Iterator[Finding] | list[Finding], name: str) -> Finding:
    """The finding of that name; the worst, where there are several."""
    named = [finding for finding in findings if finding.name == name]
    assert named, f"nothing was said of {name}"
    return max(named, key=lambda finding: list(Status).index(finding.status))


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **env: str) -> tuple[int, str]:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    code = main(["doctor"])
    return code, capsys.readouterr().out


# --- the command


def test_a_fresh_checkout_is_sound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, said = run(monkeypatch, capsys, DATA_DIR=str(tmp_path / "new"), PORT=str(free_port()))
    assert code == 0, said
    assert " 0 fail" in said
    assert not (tmp_path / "new").exists(), "doctor must change nothing"


def test_every_mistake_of_the_settings_is_told_and_the_rest_is_looked_at_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(
        monkeypatch,
        capsys,
        APP_ENV="production",
        PORT="70000",
        CORS_ORIGIN="ftp://x",
        STT_PROVIDER="deepgram",
    )
    assert code == 1
    for told_of in ("PORT", "CORS_ORIGIN", "BACKEND_API_KEY is missing", "DEEPGRAM_API_KEY is missing"):
        assert told_of in said
    assert said.count("fix: ") >= 4


def test_json_is_one_object_with_every_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PORT", "0")
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert {"settings", "database", "model", "port", "prompts"} <= {
        check["name"] for check in document["checks"]
    }
    assert all(check.keys() == {"name", "status", "message", "fix"} for check in document["checks"])


def test_an_env_file_of_another_name_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "other.env").write_text("MAIL_PROVIDER=ses\nPORT=0\n")
    assert main(["doctor", "--env-file", "other.env"]) == 1
    assert "EMAIL_FROM_ADDRESS" in capsys.readouterr().out


def test_no_secret_is_ever_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = run(
        monkeypatch,
        capsys,
        BACKEND_API_KEY=f"web:{SECRET}",
        TOKEN_SECRET=SECRET,
        OPENAI_API_KEY=SECRET,
        OPENAI_BASE_URL=f"http://user:{SECRET}@127.0.0.1:{free_port()}/v1",
        DATABASE_URL=f"postgresql://user:{SECRET}@127.0.0.1:{free_port()}/name",
        REDIS_URL=f"redis://:{SECRET}@127.0.0.1:{free_port()}/0",
        DEEPGRAM_API_KEY=SECRET,
        PORT="0",
    )
    assert "does not answer" in said
    assert SECRET not in said


# --- keys, origins, folders


@pytest.mark.parametrize("key", ["short", "a" * 40, "abcabc" * 8], ids=["short", "one letter", "few letters"])
def test_a_key_that_is_easy_to_guess_is_told(tmp_path: Path, key: str) -> None:
    found = told(checkup.check_keys(settings(tmp_path, BACKEND_API_KEY=key)), "api keys")
    assert found.status is Status.WARN
    assert key not in found.message + found.fix


def test_a_strong_key_passes_and_a_short_token_secret_does_not(tmp_path: Path) -> None:
    assert told(checkup.check_keys(settings(tmp_path)), "api keys").status is Status.OK
    found = told(checkup.check_keys(settings(tmp_path, TOKEN_SECRET="brief")), "api keys")
    assert (found.status, "TOKEN_SECRET" in found.message) == (Status.WARN, True)


@pytest.mark.parametrize(
    ("origins", "production", "status"),
    [
        ("", False, Status.OK),
        ("", True, Status.WARN),
        ("*", False, Status.WARN),
        ("http://app.example.com", True, Status.WARN),
        ("chrome-extension://" + "a" * 32, True, Status.OK),
    ],
    ids=["none in development", "none in production", "any", "not encrypted", "an extension"],
)
def test_what_origins_let_in_is_told(tmp_path: Path, origins: str, production: bool, status: Status) -> None:
    made = settings(tmp_path, CORS_ORIGIN=origins, APP_ENV="production" if production else "development")
    assert told(checkup.check_origins(made), "origins").status is status


def test_a_data_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    found = told(
        checkup.check_data_dir(settings(tmp_path, DATA_DIR=tmp_path / "file" / "data")), "data folder"
    )
    assert found.status is Status.FAIL


def test_a_disk_that_is_nearly_full_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = lambda path: type("Usage", (), {"free": checkup.LEAST_FREE_BYTES - 1})()  # noqa: E731
    monkeypatch.setattr(checkup.shutil, "disk_usage", usage)
    assert told(checkup.check_data_dir(settings(tmp_path)), "data folder").status is Status.FAIL


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_a_generated_key_that_others_may_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text(STRONG)
    (tmp_path / "api-key").chmod(stat.S_IRUSR | stat.S_IRGRP)
    found = told(checkup.check_data_dir(settings(tmp_path, DATA_DIR=tmp_path)), "data folder")
    assert (found.status, "chmod 600" in found.fix) == (Status.WARN, True)


def test_plain_words_on_the_disk_are_told_in_production(tmp_path: Path) -> None:
    found = told(checkup.check_encryption(settings(tmp_path, APP_ENV="production")), "encryption")
    assert (found.status, "openssl" in found.fix) == (Status.FAIL, True)


# --- vendors that are not asked


@pytest.mark.parametrize(
    ("check", "name", "values", "status"),
    [
        (checkup.check_speech, "speech", {}, Status.OK),
        (checkup.check_speech, "speech", {"STT_PROVIDER": "deepgram"}, Status.FAIL),
        (checkup.check_speech, "speech", {"DEEPGRAM_API_KEY": "my-key"}, Status.WARN),
        (checkup.check_speech, "speech", {"DEEPGRAM_API_KEY": "0123456789" * 4}, Status.OK),
        (checkup.check_speech, "speech", {"STT_PROVIDER": "aws", "AWS_REGION": "Frankfurt"}, Status.FAIL),
        (checkup.check_speech, "speech", {"STT_PROVIDER": "aws", "AWS_REGION": "eu-west-1"}, Status.OK),
        (checkup.check_avatar, "avatar", {}, Status.OK),
        (checkup.check_avatar, "avatar", {"AVATAR_PROVIDER": "off", **LIVE}, Status.OK),
        (checkup.check_avatar, "avatar", LIVE, Status.OK),
        (checkup.check_avatar, "avatar", {**LIVE, "LIVEAVATAR_AVATAR_ID": "anna"}, Status.WARN),
        (checkup.check_avatar, "avatar", {**LIVE, "LIVEAVATAR_SANDBOX": True}, Status.OK),
        (checkup.check_avatar, "avatar", HEYGEN, Status.WARN),
        (checkup.check_mail, "mail", {}, Status.OK),
        (checkup.check_mail, "mail", {"MAIL_PROVIDER": "ses"}, Status.FAIL),
        (checkup.check_mail, "mail", {"MAIL_PROVIDER": "ses", "EMAIL_FROM_ADDRESS": "a@b.nl"}, Status.OK),
        (checkup.check_caps, "costs", {"OPENAI_API_KEY": "x", "COST_CAP_USD_PER_DAY": 0}, Status.WARN),
    ],
)
def test_vendors_that_would_cost_money_are_judged_by_what_is_set(
    tmp_path: Path,
    check: Callable[[Settings], Iterator[Finding]],
    name: str,
    values: dict[str, object],
    status: Status,
) -> None:
    assert told(check(settings(tmp_path, **values)), name).status is status


def test_half_of_the_aws_keys_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    found = told(checkup.check_speech(settings(tmp_path, STT_PROVIDER="aws")), "speech")
    assert (found.status, "only one of" in found.message) == (Status.FAIL, True)


# --- files


def test_a_broken_playbook_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.en.toml").write_text('id = "mine"\n')
    found = told(checkup.check_catalog(settings(tmp_path, PLAYBOOK_DIR=tmp_path / "own")), "playbooks")
    assert (found.status, "mine.en.toml" in found.message) == (Status.FAIL, True)


def test_missing_embeddings_and_browser_modules_are_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkup, "find_embedder", lambda: None)
    monkeypatch.setattr(checkup.paths, "bundled", lambda name: tmp_path / name)
    assert told(checkup.check_embeddings(), "embeddings").status is Status.WARN
    assert told(checkup.check_console(), "console page").status is Status.WARN


def test_an_embedder_that_fails_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def embed(self, texts: list[str]) -> None:
            raise ProviderError("The sentence embedder failed.")

    monkeypatch.setattr(checkup, "find_embedder", Broken)
    assert told(checkup.check_embeddings(), "embeddings").status is Status.WARN


# --- the database


async def database(made: Settings) -> list[Finding]:
    return await check_database(made, SystemClock(), Clocks())


async def test_a_migrated_database_is_told_with_its_version(tmp_path: Path, database_url: str) -> None:
    found = (await database(settings(tmp_path, DATABASE_URL=database_url)))[0]
    assert (found.status, "(the newest)" in found.message) == (Status.OK, True)


async def test_an_empty_postgres_is_a_warning_for_it_is_migrated_at_the_start(
    tmp_path: Path, empty_postgres_url: str
) -> None:
    found = (await database(settings(tmp_path, DATABASE_URL=empty_postgres_url)))[0]
    assert (found.status, "empty" in found.message) == (Status.WARN, True)


async def test_a_database_of_a_newer_server_fails(tmp_path: Path, sqlite_url: str) -> None:
    await asyncio.to_thread(change_version, sqlite_url)
    found = (await database(settings(tmp_path, DATABASE_URL=sqlite_url)))[0]
    assert (found.status, "9999_later" in found.message) == (Status.FAIL, True)


def change_version(url: str) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(str(make_url(url).database))) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_later'")
        connection.commit()


async def test_a_file_that_is_no_database_fails(tmp_path: Path) -> None:
    file = tmp_path / "coach.db"
    await asyncio.to_thread(file.write_bytes, b"these are words and not pages" * 100)
    assert (await database(settings(tmp_path, DATABASE_URL=f"sqlite:///{file}")))[0].status is Status.FAIL


@pytest.mark.parametrize("url", ["mysql://a/b", "no address", "postgresql://host"])
async def test_an_address_that_is_none_fails(tmp_path: Path, url: str) -> None:
    assert (await database(settings(tmp_path, DATABASE_URL=url)))[0].status is Status.FAIL


async def test_postgres_without_redis_is_told_for_those_with_several_instances(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    alone = await database(settings(tmp_path, DATABASE_URL=postgres_url))
    assert told(alone, "redis").status is Status.WARN
    both = await database(settings(tmp_path, DATABASE_URL=postgres_url, REDIS_URL=redis_url))
    assert [finding.name for finding in both] == ["database"]


async def test_the_clock_of_postgres_is_compared_with_ours(tmp_path: Path, postgres_url: str) -> None:
    clocks = Clocks()
    await check_database(settings(tmp_path, DATABASE_URL=postgres_url), SystemClock(), clocks)
    assert abs(clocks.ahead["the database"]) < 5


# --- Redis


async def test_redis_answers_with_its_version(tmp_path: Path, redis_url: str) -> None:
    (found,) = await check_redis(settings(tmp_path, REDIS_URL=redis_url))
    assert (found.status, found.message.endswith("answers")) == (Status.OK, True)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "no address"])
async def test_a_redis_that_does_not_answer_fails(tmp_path: Path, url: str) -> None:
    (found,) = await check_redis(settings(tmp_path, REDIS_URL=url))
    assert found.status is Status.FAIL


# --- the model


async def ask_model(made: Settings, clocks: Clocks | None = None) -> list[Finding]:
    clock = ManualClock(TODAY.timestamp())
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.5)) as http:
        return await check_model(made, http, clock, clocks or Clocks())


def with_model(tmp_path: Path, fake: FakeOpenAI, **values: object) -> Settings:
    return settings(tmp_path, OPENAI_API_KEY=SECRET, OPENAI_BASE_URL=fake.base_url, **values)


async def test_models_that_are_listed_pass_and_none_is_asked_a_question(tmp_path: Path) -> None:
    async with FakeOpenAI() as fake:
        (found,) = await ask_model(with_model(tmp_path, fake))
        assert (found.status, fake.calls) == (Status.OK, 0)


async def test_without_a_key_the_built_in_coach_answers(tmp_path: Path) -> None:
    (found,) = await ask_model(settings(tmp_path))
    assert found.status is Status.OK


@pytest.mark.parametrize(
    ("date", "status"),
    [
        (None, Status.OK),
        ("2027-11-21", Status.OK),
        ("2027-01-02", Status.WARN),
        ("2026-11-20", Status.FAIL),
        ("soon", Status.OK),
    ],
)
async def test_a_shutdown_date_is_told_before_it_comes(
    tmp_path: Path, date: str | None, status: Status
) -> None:
    async with FakeOpenAI() as fake:
        fake.models = [{"id": "gpt-6-luna", "shutdown_date": date}]
        (found,) = await ask_model(with_model(tmp_path, fake))
    assert found.status is status


async def test_a_model_that_its_server_does_not_have_is_told_by_name(tmp_path: Path) -> None:
    async with FakeOpenAI() as fake:
        found = await ask_model(with_model(tmp_path, fake, OPENAI_MODEL_CHEAP="llama-9"))
    assert [(f.status, f.message.split()[0]) for f in found] == [
        (Status.OK, "gpt-6-luna"),
        (Status.WARN, "llama-9"),
    ]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (status(401), Status.FAIL),
        (status(404), Status.WARN),
        (status(429), Status.WARN),
        (status(500), Status.WARN),
        (garbage(), Status.FAIL),
        (hang(), Status.FAIL),
    ],
    ids=["401", "404", "429", "500", "garbage", "hang"],
)
async def test_a_server_that_does_not_list_its_models_is_told(
    tmp_path: Path, step: Step, expected: Status
) -> None:
    async with FakeOpenAI() as fake:
        fake.models_step = step
        (found,) = await ask_model(with_model(tmp_path, fake))
    assert found.status is expected
    assert found.fix


async def test_a_server_that_is_not_there_fails(tmp_path: Path) -> None:
    (found,) = await ask_model(settings(tmp_path, OPENAI_BASE_URL=f"http://127.0.0.1:{free_port()}/v1"))
    assert found.status is Status.FAIL


# --- clocks


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(0.4, Status.OK), (-4.0, Status.OK), (30.0, Status.WARN), (-600.0, Status.FAIL)],
)
def test_a_clock_that_differs_is_told(ahead: float, expected: Status) -> None:
    (found,) = check_clocks(Clocks({"the database": ahead, "the model's server": 0.0}))
    assert found.status is expected


async def test_the_date_of_an_http_answer_is_compared_with_our_clock(tmp_path: Path) -> None:
    clocks = Clocks()
    async with FakeOpenAI() as fake, aiohttp.ClientSession() as http:
        late = ManualClock(SystemClock().now() - 600)
        await check_model(with_model(tmp_path, fake), http, late, clocks)
    assert clocks.ahead["the model's server"] == pytest.approx(600, abs=3)


# --- the port


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ask_port(made: Settings) -> Finding:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.5)) as http:
        (found,) = await check_port(made, http)
    return found


async def test_a_free_port_passes(tmp_path: Path) -> None:
    assert "is free" in (await ask_port(settings(tmp_path, PORT=free_port()))).message


async def test_a_port_that_our_own_server_holds_passes(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        found = await ask_port(settings(tmp_path, PORT=server.port))
    assert (found.status, "running" in found.message) == (Status.OK, True)


async def test_a_port_that_another_program_holds_fails(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        found = await ask_port(settings(tmp_path, PORT=other.getsockname()[1]))
    assert (found.status, "PORT" in found.fix) == (Status.FAIL, True)


async def test_everything_that_is_asked_is_in_one_report(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with FakeOpenAI() as fake:
        made = with_model(tmp_path, fake, DATABASE_URL=postgres_url, REDIS_URL=redis_url, PORT=0)
        found = await service_checks(made, SystemClock())
    assert {finding.name for finding in found} == {"database", "redis", "model", "port", "clock"}
    assert all(finding.status is Status.OK for finding in found)


def test_the_report_says_what_to_do_under_each_finding_that_needs_it() -> None:
    lines = list(doctor.report([checkup.ok("a", "is well"), checkup.fail("b", "is not", "mend it")]))
    assert lines == [
        "ok    a             is well",
        "fail  b             is not",
        "                    fix: mend it",
        "1 ok, 0 warn, 1 fail",
    ]
