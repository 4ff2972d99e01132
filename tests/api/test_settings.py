"""Settings: read from the environment and `.env`, checked all at once, secret in every print."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

import pytest

from coach_server.errors import ConfigError
from coach_server.settings import (
    AppEnv,
    Settings,
    load_settings,
    variable_names,
    with_generated_key,
)

STRONG = "3f9c1b7a5d2e48069b8c7d6e5f4a3b2c"
RDS = {
    "RDS_HOSTNAME": "db.internal",
    "RDS_PORT": "5433",
    "RDS_DB_NAME": "coach",
    "RDS_USERNAME": "us:er",
    "RDS_PASSWORD": "p@ss/word",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours from outside, and no `.env` in the working directory."""
    for field in Settings.model_fields.values():
        for name in variable_names(field.validation_alias):
            monkeypatch.delenv(name, raising=False)
    for name in RDS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def refusal() -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings()
    return caught.value.message.splitlines()


def test_nothing_is_needed_in_development() -> None:
    settings = load_settings()
    assert (settings.app_env, settings.port, settings.warmup_ms) == (AppEnv.DEVELOPMENT, 8080, 180_000)
    assert settings.resolved_database_url.startswith("sqlite:///")
    assert settings.problems() == []


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "DEEPGRAM_BASE_URL"])
def test_an_address_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    given(monkeypatch, **{variable: "nonsense"})
    assert refusal() == [f"{variable} must be a URL such as https://host/v1."]


def test_every_mistake_is_told_at_once_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        PORT="web",
        WARMUP_MS="-1",
        LOG_LEVEL="loud",
        CORS_ORIGIN="https://a.example/path",
        STT_PROVIDER="whisper",
        COST_CAP_USD_PER_DAY="lots",
        TRUST_PROXY="maybe",
    )
    assert [line.split(":")[0] for line in refusal()] == [
        "PORT",
        "LOG_LEVEL",
        "TRUST_PROXY",
        "CORS_ORIGIN (or ALLOWED_ORIGINS)",
        "COST_CAP_USD_PER_DAY",
        "WARMUP_MS",
        "STT_PROVIDER",
    ]


def test_what_production_refuses_is_told_beside_other_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, APP_ENV="production", PORT="web", CORS_ORIGIN="*")
    told = refusal()
    named = [line.split(":")[0].split(" ")[0] for line in told]
    assert named == ["PORT", "DATA_ENCRYPTION_KEY", "BACKEND_API_KEY", "CORS_ORIGIN"]


def test_a_mistake_is_told_without_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, PORT="sk-oops-a-secret", EMAIL_FROM_ADDRESS="a@b.c")
    assert "sk-oops" not in "\n".join(refusal())


@pytest.mark.parametrize(
    ("alias", "value", "field", "expected"),
    [
        ("NODE_ENV", "test", "app_env", AppEnv.TEST),
        ("API_KEY", "abc", "api_keys", [("default", "abc")]),
        ("ALLOWED_ORIGINS", "https://a.example", "cors_origin", ("https://a.example",)),
    ],
)
def test_the_names_of_earlier_servers_still_work(
    monkeypatch: pytest.MonkeyPatch, alias: str, value: str, field: str, expected: object
) -> None:
    given(monkeypatch, **{alias: value})
    assert getattr(load_settings(), field) == expected


def test_our_name_wins_over_its_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, BACKEND_API_KEY="ours", API_KEY="theirs")
    assert load_settings().api_keys == [("default", "ours")]


@pytest.mark.parametrize("name", ["APP_ENV", "NODE_ENV"])
def test_the_environment_wins_over_the_file_whatever_name_it_uses(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    Path(".env").write_text(f"APP_ENV=development\nBACKEND_API_KEY={STRONG}\n", encoding="utf-8")
    given(monkeypatch, DATA_ENCRYPTION_KEY=DATA_KEY, **{name: "production"})
    assert load_settings().is_production


def test_an_empty_variable_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, TRUST_PROXY="", PLAYBOOK_DIR="", PORT="", BACKEND_API_KEY="", API_KEY="abc")
    settings = load_settings()
    assert (settings.trust_proxy, settings.playbook_dir, settings.port) == (None, None, 8080)
    assert settings.api_keys == [("default", "abc")]


# --- keys


def test_keys_may_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, BACKEND_API_KEY="first, extension:second ,third,odd name:fourth,")
    assert load_settings().api_keys == [
        ("default", "first"),
        ("extension", "second"),
        ("key-3", "third"),
        ("key-4", "odd name:fourth"),
    ]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (None, "BACKEND_API_KEY is missing"),
        ("your-secure-random-key", "is a template value"),
        ("change_me_change_me_change_me_change_me", "is a template value"),
        ("<generate-a-random-key-of-32-characters>", "is a template value"),
        (STRONG[:31], "is shorter than 32 characters"),
        (f"good:{STRONG},bad:{STRONG[:8]}", "BACKEND_API_KEY (bad) is shorter"),
        (f"a:{STRONG},a:{STRONG[::-1]}", "each key needs a name of its own"),
        ("a:" + "k" * 513, "is longer than 512 characters"),
        ("a:", "BACKEND_API_KEY (a) is empty"),
    ],
    ids=["missing", "seed's", "template", "bracketed", "short", "one of two", "twice", "long", "empty"],
)
def test_production_refuses_a_key_that_is_not_safe(
    monkeypatch: pytest.MonkeyPatch, keys: str | None, told: str
) -> None:
    given(monkeypatch, NODE_ENV="production", DATA_ENCRYPTION_KEY=DATA_KEY)
    if keys is not None:
        given(monkeypatch, BACKEND_API_KEY=keys)
    (line,) = refusal()
    assert told in line
    assert STRONG not in line


# --- encryption of what is stored

DATA_KEY = "MDEyMzQ1Njc4OTo7PD0+P0FCQ0RFRkdISUpLTE1OT1A="
PLAIN_KEY = b"0123456789:;<=>?ABCDEFGHIJKLMNOP"


def test_without_a_key_nothing_is_encrypted() -> None:
    assert load_settings().data_keys == []


@pytest.mark.parametrize(
    "written", [DATA_KEY, DATA_KEY.rstrip("="), DATA_KEY.replace("+", "-"), f" {DATA_KEY} ,"]
)
def test_a_data_key_alone_gets_an_id_from_its_digest(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    given(monkeypatch, DATA_ENCRYPTION_KEY=written)
    ((id, key),) = load_settings().data_keys
    assert key == PLAIN_KEY
    assert id == hashlib.sha256(PLAIN_KEY).hexdigest()[:8]


def test_data_keys_may_have_ids_and_the_first_one_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    other = base64.b64encode(b"x" * 32).decode()
    given(monkeypatch, DATA_ENCRYPTION_KEY=f"2026-11:{other}, old:{DATA_KEY}")
    assert load_settings().data_keys == [("2026-11", b"x" * 32), ("old", PLAIN_KEY)]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (base64.b64encode(b"x" * 16).decode(), "key 1 must be 32 bytes"),
        (f"good:{DATA_KEY},bad:c2hvcnQ=", "key 2 must be 32 bytes"),
        ("not base64 at all!", "key 1 must be 32 bytes"),
        (f"bad id:{DATA_KEY}", "the id of key 1 must be"),
        (f"a:{DATA_KEY},a:{DATA_KEY}", "the id of key 2 is given twice"),
        (f"{DATA_KEY},{DATA_KEY}", "the id of key 2 is given twice"),
    ],
    ids=["short", "second one short", "no base64", "bad id", "same id", "same key"],
)
def test_a_data_key_that_is_not_one_is_told_without_the_key(
    monkeypatch: pytest.MonkeyPatch, written: str, told: str
) -> None:
    given(monkeypatch, DATA_ENCRYPTION_KEY=written)
    (line,) = refusal()
    assert line.startswith("DATA_ENCRYPTION_KEY: ") and told in line
    assert DATA_KEY not in line and "c2hvcnQ" not in line and "not base64 at all" not in line


def test_a_data_key_is_in_no_print_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, DATA_ENCRYPTION_KEY=f"k:{DATA_KEY}")
    settings = load_settings()
    assert DATA_KEY not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_production_refuses_to_store_words_as_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, APP_ENV="production", BACKEND_API_KEY=f"web:{STRONG}", CORS_ORIGIN="https://a.example")
    (line,) = refusal()
    assert line.startswith("DATA_ENCRYPTION_KEY is missing") and "openssl rand -base64 32" in line


def test_production_starts_with_strong_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, APP_ENV="production", BACKEND_API_KEY=f"web:{STRONG}", CORS_ORIGIN="https://a.example")
    given(monkeypatch, DATA_ENCRYPTION_KEY=DATA_KEY)
    settings = load_settings()
    assert settings.is_production and settings.trusts_proxy
    assert with_generated_key(settings) == (settings, None)


def test_a_key_is_made_once_kept_for_its_owner_only_and_shown_once(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, DATA_DIR=tmp_path / "new")
    first, shown = with_generated_key(settings)
    again, nothing = with_generated_key(settings)
    path = tmp_path / "new" / "api-key"
    assert shown is not None and len(shown) >= 32 and nothing is None
    assert first.api_keys == again.api_keys == [("default", shown)]
    assert path.read_text(encoding="ascii").strip() == shown
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_file_that_a_crash_left_empty_is_filled(tmp_path: Path) -> None:
    (tmp_path / "api-key").touch(mode=0o600)
    settings, shown = with_generated_key(Settings(_env_file=None, DATA_DIR=tmp_path))
    assert shown is not None and settings.api_keys == [("default", shown)]


# --- origins


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "http://localhost:5173",
        "https://[::1]:8443",
        f"chrome-extension://{'abcdefghijklmnop' * 2}",
    ],
)
def test_an_origin_is_kept_as_it_is_compared(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    given(monkeypatch, CORS_ORIGIN=f" {origin}/ , https://b.example")
    assert load_settings().cors_origin == (origin, "https://b.example")


@pytest.mark.parametrize(
    "origin",
    ["app.example.com", "https://a.example/app", "chrome-extension://short", "https://*.example.com", "null"],
)
def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    given(monkeypatch, CORS_ORIGIN=origin)
    (line,) = refusal()
    assert line.startswith("CORS_ORIGIN")


def test_every_origin_is_allowed_in_development_only(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, CORS_ORIGIN="*", BACKEND_API_KEY=STRONG)
    assert load_settings().cors_origin == ("*",)
    given(monkeypatch, APP_ENV="production", DATA_ENCRYPTION_KEY=DATA_KEY)
    (line,) = refusal()
    assert line.startswith("CORS_ORIGIN must not be *")


# --- the database


def test_the_database_coupled_by_beanstalk_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **RDS)
    assert load_settings().resolved_database_url == (
        "postgresql://us%3Aer:p%40ss%2Fword@db.internal:5433/coach?sslmode=require"
    )


def test_a_database_url_wins_over_the_coupled_database(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **RDS, DATABASE_URL="postgresql://other/db")
    assert load_settings().resolved_database_url == "postgresql://other/db"


def test_without_either_it_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, DATA_DIR=tmp_path / "d")
    assert settings.resolved_database_url == f"sqlite:///{(tmp_path / 'd' / 'coach.sqlite3').resolve()}"


# --- secrets


def test_no_secret_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "BACKEND_API_KEY": "canary-api-key",
        "TOKEN_SECRET": "canary-token-secret",
        "DATABASE_URL": "postgresql://u:canary-password@h/d",
        "REDIS_URL": "redis://:canary-redis@h",
        "OPENAI_API_KEY": "canary-openai",
        "DEEPGRAM_API_KEY": "canary-deepgram",
    }
    given(monkeypatch, **secrets)
    settings = load_settings()
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "canary" not in text
