"""Dockerfile and docker-compose.yml, read the way Docker will: form, paths, variables, no secrets; and what
the image starts is started here, from the files the image gets and with the environment it is given."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from packaging.specifiers import SpecifierSet

from coach_server.settings import Settings, load_settings, variable_names
from tests.process import free_port
from tests.test_deployment import SECRETS

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"
FILES = [ROOT / "Dockerfile", COMPOSE, ROOT / ".dockerignore"]

KNOWN = {name for info in Settings.model_fields.values() for name in variable_names(info.validation_alias)}
# Documented by the images themselves, or of the interpreter.
OF_IMAGES = {
    "python:3.11-slim": {"PYTHONUNBUFFERED"},
    "postgres:18": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"},
    "valkey/valkey:9-alpine": set(),
}


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile. `words`: of an exec form its list, else split at spaces; `options`:
    what stands before them as --name=value."""

    name: str
    words: list[str]
    options: dict[str, str]
    is_exec: bool
    stage: int


def steps() -> list[Step]:
    found: list[Step] = []
    lines = [
        line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")
    ]
    stage = -1
    for line in re.split(r"(?<!\\)\n", "\n".join(lines)):
        text = line.replace("\\\n", " ").strip()
        if not text:
            continue
        name, _, rest = text.partition(" ")
        assert re.fullmatch(r"[A-Z]+", name), f"{name} is no instruction"
        stage += name == "FROM"
        assert stage >= 0, "nothing comes before FROM"
        options, rest = _options(rest.strip())
        if name == "HEALTHCHECK":
            rest = rest.removeprefix("CMD").strip()
        words = json.loads(rest) if rest.startswith("[") else rest.split()
        found.append(Step(name, words, options, rest.startswith("["), stage))
    return found


def _options(rest: str) -> tuple[dict[str, str], str]:
    options = {}
    while found := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
        options[found[1]] = found[2]
        rest = rest[found.end() :]
    return options, rest


def last(name: str) -> Step:
    """The instruction that counts in the image that is made."""
    made = [step for step in steps() if step.name == name]
    assert made, f"{name} is missing"
    assert made[-1].stage == steps()[-1].stage
    return made[-1]


def image_environment() -> dict[str, str]:
    return dict(word.split("=", 1) for step in steps() if step.name == "ENV" for word in step.words)


def copied() -> list[tuple[str, str]]:
    """What the image gets from this folder, and where to (in its work folder)."""
    pairs = []
    for step in steps():
        if step.name == "COPY" and "from" not in step.options:
            *sources, target = step.words
            pairs += [(source, target) for source in sources]
    return pairs


def ignored() -> list[str]:
    return [
        line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"
    ]


def compose() -> dict[str, Any]:
    document = yaml.safe_load(COMPOSE.read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def service(name: str) -> dict[str, Any]:
    made: dict[str, Any] = compose()["services"][name]
    return made


def documented() -> dict[str, str]:
    """The secrets that the head of the file tells to make, made as it says."""
    head = COMPOSE.read_text("utf-8").partition("\nname:")[0]
    made = {}
    for name, form, count in re.findall(r"#   ([A-Z_]+)=\$\(openssl rand -(hex|base64) (\d+)\)", head):
        raw = secrets.token_bytes(int(count))
        made[name] = raw.hex() if form == "hex" else base64.b64encode(raw).decode()
    return made


_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([?-])([^}]*))?\}")


def filled(text: str, variables: Mapping[str, str]) -> str:
    """`${NAME:-default}` and `${NAME:?message}`, as Compose reads them."""

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if value := variables.get(name):
            return value
        assert kind == "-", f"{name} is not set"
        return str(rest)

    return _VARIABLE.sub(fill, text)


def server_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What the server sees: the image's variables, then `.env`, then those of the service."""
    own = {name: filled(str(value), variables) for name, value in service("server")["environment"].items()}
    return {**image_environment(), **variables, **own}


# Dockerfile


@pytest.mark.parametrize("source", [source for source, _ in copied()])
def test_each_path_the_image_gets_exists_and_is_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    assert source.strip("./") not in [rule.strip("/") for rule in ignored()]


def test_a_path_of_another_stage_is_of_a_stage_that_exists() -> None:
    stages = {step.words[2] for step in steps() if step.name == "FROM" and len(step.words) == 3}
    wanted = {step.options["from"] for step in steps() if step.name == "COPY" and "from" in step.options}
    assert wanted == stages == {"pages"}


def test_base_images_are_named_by_a_version_that_the_project_allows() -> None:
    images = [step.words[0] for step in steps() if step.name == "FROM"]
    assert images == ["node:24-slim", "python:3.11-slim"]
    python = re.search(r'requires-python = "([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert python is not None and SpecifierSet(python[1]).contains("3.11")


def test_the_image_has_the_locked_requirements_with_their_hashes() -> None:
    (install,) = [step for step in steps() if step.name == "RUN" and "install" in step.words[:6]]
    assert install.words[:4] == ["python", "-m", "pip", "install"]
    assert "--require-hashes" in install.words
    assert install.words[-2:] == ["-r", "requirements.txt"]


def test_the_image_starts_what_the_procfile_starts_as_a_process_of_its_own() -> None:
    command = last("CMD")
    assert command.is_exec
    assert (ROOT / "Procfile").read_text("utf-8").strip() == "web: " + " ".join(command.words)
    assert not [step for step in steps() if step.name == "ENTRYPOINT"]


def test_the_server_does_not_run_as_root_and_may_write_in_its_volume_only() -> None:
    names = [step.name for step in steps()]
    (user,) = last("USER").words
    assert user not in ("root", "0") and names.index("USER") < names.index("CMD")
    runs = " ".join(" ".join(step.words) for step in steps() if step.name == "RUN")
    assert f"useradd --system --uid 10001 --no-create-home {user}" in runs
    assert re.findall(rf"-o {user} \S+ \S+ (\S+)", runs) == last("VOLUME").words
    assert not [step for step in steps() if step.name == "COPY" and "chown" in step.options]


def test_the_image_sets_only_what_the_server_knows() -> None:
    environment = image_environment()
    assert set(environment) - OF_IMAGES["python:3.11-slim"] <= KNOWN
    assert environment["APP_ENV"] == "production"
    assert environment["HOST"] == "0.0.0.0"
    assert [environment["DATA_DIR"]] == last("VOLUME").words
    assert [environment["PORT"]] == last("EXPOSE").words == [str(Settings.model_fields["port"].default)]


def test_nothing_secret_and_nothing_needless_gets_into_an_image() -> None:
    assert {".env", ".env.*", ".git", "data", "tests", ".venv", "node_modules", "docs"} <= set(ignored())
    assert "." not in [source.rstrip("/") for source, _ in copied()]


# docker-compose.yml


def test_the_services_are_the_server_its_database_and_its_bus() -> None:
    services = compose()["services"]
    assert set(services) == {"server", "database", "valkey"}
    assert services["server"]["build"] == "."
    images = {services[name]["image"] for name in ("database", "valkey")}
    assert images <= set(OF_IMAGES)
    assert all(one["restart"] == "unless-stopped" for one in services.values())


def test_only_the_server_has_a_port_and_on_this_machine_only() -> None:
    assert {name for name, one in compose()["services"].items() if "ports" in one} == {"server"}
    assert [filled(port, {}) for port in service("server")["ports"]] == ["127.0.0.1:8080:8080"]
    networks = compose()["networks"]
    assert networks["inside"] == {"internal": True}
    for name in ("database", "valkey"):
        assert service(name)["networks"] == ["inside"]
        assert "network_mode" not in service(name)


def test_every_variable_is_a_setting_or_documented_by_its_image() -> None:
    assert set(service("server")["environment"]) <= KNOWN
    for name in ("database", "valkey"):
        assert set(service(name).get("environment", {})) <= OF_IMAGES[service(name)["image"]]
    used = {name for name, _, _ in _VARIABLE.findall(COMPOSE.read_text("utf-8"))}
    assert used == set(documented()) | {"PUBLISHED_PORT"}


def test_what_is_written_is_kept_in_named_volumes() -> None:
    declared = set(compose()["volumes"])
    mounts = [mount.split(":") for one in compose()["services"].values() for mount in one.get("volumes", [])]
    assert {name for name, _ in mounts} == declared == {"data", "database"}
    assert ["data", service("server")["environment"]["DATA_DIR"]] in mounts
    assert ["database", "/var/lib/postgresql"] in mounts  # of this image from version 18 on


def test_the_server_waits_until_what_it_needs_is_healthy() -> None:
    for name, condition in service("server")["depends_on"].items():
        assert condition == {"condition": "service_healthy"}
        assert service(name)["healthcheck"]["test"][0] == "CMD"
    environment = service("server")["environment"]
    assert "@database:5432/" in environment["DATABASE_URL"]
    assert environment["REDIS_URL"].startswith("redis://valkey:6379/")


def test_the_server_has_the_time_to_drain() -> None:
    assert int(service("server")["stop_grace_period"].removesuffix("s")) >= 25


def test_the_database_is_the_one_whose_url_the_server_has() -> None:
    made = documented()
    own = {name: filled(value, made) for name, value in service("database")["environment"].items()}
    user, password, name = own["POSTGRES_USER"], own["POSTGRES_PASSWORD"], own["POSTGRES_DB"]
    expected = f"postgresql://{user}:{password}@database:5432/{name}"
    assert server_environment(made)["DATABASE_URL"] == expected


def test_every_secret_comes_from_the_environment_and_none_may_be_missing() -> None:
    text = COMPOSE.read_text("utf-8")
    assert set(documented()) == {"BACKEND_API_KEY", "DATA_ENCRYPTION_KEY", "POSTGRES_PASSWORD"}
    for name in documented():
        assert all(kind == "?" for found, kind, _ in _VARIABLE.findall(text) if found == name)
    assert service("server")["env_file"] == ".env"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_holds_anything_that_looks_like_a_secret(path: Path) -> None:
    text = path.read_text("utf-8")
    for pattern in SECRETS:
        assert re.search(pattern, text) is None, pattern


# What production makes of it


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in KNOWN:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_documented_env_is_safe_enough_for_production(clean: pytest.MonkeyPatch) -> None:
    example = (ROOT / ".env.example").read_text("utf-8")
    whole = dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", example, re.MULTILINE))
    for variables in (documented(), {**whole, **documented()}):
        for name, value in server_environment(variables).items():
            clean.setenv(name, value)
        settings = load_settings(None)
        assert settings.is_production
        assert (settings.host, settings.port, settings.data_dir) == ("0.0.0.0", 8080, Path("/data"))
        assert settings.data_keys and settings.redis_url.get_secret_value()


def lay_out(folder: Path) -> Path:
    """The image's work folder: what the Dockerfile copies, without what is ignored."""
    folder.mkdir()
    for source, target in copied():
        if target.rstrip("/") in (".", "./" + source):
            place = folder / source
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                shutil.copy(ROOT / source, place)
    return folder


def command_of(step: Step) -> list[str]:
    assert step.words[0] == "python"
    return [sys.executable, *step.words[1:]]


@asynccontextmanager
async def contained(
    folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The image's command, in its folder and with nothing of this machine's environment but PATH."""
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command_of(last("CMD")),
            cwd=folder,
            env={"PATH": os.environ["PATH"], **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def is_healthy(environment: Mapping[str, str]) -> bool:
    """What the image's health check says."""
    process = await asyncio.create_subprocess_exec(
        *command_of(last("HEALTHCHECK")),
        env={"PATH": os.environ["PATH"], **environment},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait() == 0


async def ready(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    async with asyncio.timeout(40), aiohttp.ClientSession() as http:
        while True:
            assert process.returncode is None, log.read_text("utf-8")
            try:
                async with http.get(f"{url}/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)


@pytest.mark.crash
@pytest.mark.timeout(120)
async def test_what_the_image_starts_runs_is_healthy_and_drains(
    tmp_path: Path, empty_postgres_url: str, redis_url: str
) -> None:
    folder, data, port = lay_out(tmp_path / "app"), tmp_path / "data", free_port()
    data.mkdir()
    here = {"DATABASE_URL": empty_postgres_url, "REDIS_URL": redis_url}
    environment = {**server_environment(documented()), **here, "DATA_DIR": str(data), "PORT": str(port)}
    assert not await is_healthy(environment)
    async with contained(folder, environment) as process:
        await ready(process, f"http://127.0.0.1:{port}", folder / "log")
        assert await is_healthy(environment)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    assert not await is_healthy(environment)
    # Everything is in PostgreSQL: the volume has no database of its own.
    assert not list(data.glob("*.sqlite3"))


@pytest.mark.crash
async def test_the_image_says_all_that_is_missing_and_does_not_start(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "app")
    missing = ("BACKEND_API_KEY", "DATA_ENCRYPTION_KEY")
    environment = {**server_environment(documented()), **dict.fromkeys(missing, "")}
    async with contained(folder, environment) as process, asyncio.timeout(30):
        assert await process.wait() == 2
    said = (folder / "log").read_text("utf-8")
    assert all(f"Cannot start: {name} is missing" in said for name in missing)
