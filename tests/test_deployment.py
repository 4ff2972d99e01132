"""The deployment files, read the way Elastic Beanstalk and nginx will: form, ports, and no secrets."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from coach_server.settings import Settings

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / ".ebextensions").glob("*.config"))
EXAMPLES = sorted((ROOT / ".ebextensions").glob("*.config.example"))
NGINX = sorted((ROOT / ".platform" / "nginx").rglob("*.conf"))
DEPLOYED = [
    *CONFIGS,
    *EXAMPLES,
    *NGINX,
    ROOT / "Procfile",
    ROOT / ".ebignore",
    ROOT / "docs" / "deploy-elastic-beanstalk.md",
]


def options(paths: list[Path] = CONFIGS) -> dict[str, dict[str, Any]]:
    """Namespace -> option -> value over all files."""
    merged: dict[str, dict[str, Any]] = {}
    for path in paths:
        for namespace, values in (
            yaml.safe_load(path.read_text("utf-8")).get("option_settings") or {}
        ).items():
            for name, value in values.items():
                assert name not in merged.get(namespace, {}), f"{path.name}: {namespace} {name} is set twice"
                merged.setdefault(namespace, {})[name] = value
    return merged


def option(namespace: str, name: str) -> str:
    return str(options()[namespace][name])


@dataclass
class Block:
    """One nginx block: its opening words, its directives, the blocks in it."""

    head: str
    directives: list[list[str]] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def value(self, name: str) -> str | None:
        found = [words[1:] for words in self.directives if words[0] == name]
        assert len(found) <= 1, f"{self.head}: {name} is given twice"
        return " ".join(found[0]) if found else None

    def headers(self) -> dict[str, str]:
        return {words[1]: words[2] for words in self.directives if words[0] == "proxy_set_header"}


def parse_nginx(text: str) -> Block:
    """A small reader of nginx's grammar: words, `;`, `{`, `}`, quotes and comments."""
    root = Block("")
    stack, words = [root], []
    for token in re.findall(r'#[^\n]*|"[^"\n]*"|[;{}]|[^\s;{}"#]+', text):
        if token.startswith("#"):
            continue
        if token == ";":
            assert words, "a ; without a directive"
            stack[-1].directives.append(words)
            words = []
        elif token == "{":
            assert words, "a block without a name"
            block = Block(" ".join(words).replace(" )", ")"))
            stack[-1].blocks.append(block)
            stack.append(block)
            words = []
        elif token == "}":
            assert not words, f"{' '.join(words)} is not ended by ;"
            stack.pop()
            assert stack, "one } too many"
        else:
            words.append(token.strip('"') or '""')
    assert not words and len(stack) == 1, "the file ends in the middle"
    return root


def locations() -> dict[str, Block]:
    found: dict[str, Block] = {}
    for path in NGINX:
        if path.parent.name == "elasticbeanstalk":
            for block in parse_nginx(path.read_text("utf-8")).blocks:
                assert block.head not in found, f"{path.name}: {block.head} is there twice"
                found[block.head] = block
    return found


@pytest.mark.parametrize("path", CONFIGS + EXAMPLES, ids=lambda path: path.name)
def test_each_config_is_yaml_of_known_sections_with_string_values(path: Path) -> None:
    document = yaml.safe_load(path.read_text("utf-8"))
    assert set(document) <= {"option_settings", "commands", "Resources"}
    for namespace, values in (document.get("option_settings") or {}).items():
        assert re.fullmatch(r"aws:[a-z0-9]+(:[a-zA-Z0-9]+)*", namespace), namespace
        for name, value in values.items():
            assert isinstance(name, str)
            assert isinstance(value, str) and value, f"{namespace} {name} must be a quoted string"
    for name, command in (document.get("commands") or {}).items():
        assert isinstance(command.get("command"), str), name


def test_the_load_balancer_carries_websockets_and_asks_for_health() -> None:
    assert option("aws:elasticbeanstalk:environment", "EnvironmentType") == "LoadBalanced"
    assert option("aws:elasticbeanstalk:environment", "LoadBalancerType") == "application"
    process = options()["aws:elasticbeanstalk:environment:process:default"]
    assert process["HealthCheckPath"] == "/health"
    assert process["MatcherHTTPCode"] == "200"
    assert (process["StickinessEnabled"], process["StickinessType"]) == ("true", "lb_cookie")
    assert int(process["HealthCheckTimeout"]) < int(process["HealthCheckInterval"])
    # The process drains within 25 s; the load balancer must not cut its sockets sooner.
    assert 25 <= int(process["DeregistrationDelay"]) <= 3600


def test_production_starts_from_two_instances_and_deploys_without_losing_capacity() -> None:
    assert int(option("aws:autoscaling:asg", "MinSize")) >= 2
    assert int(option("aws:autoscaling:asg", "MaxSize")) > int(option("aws:autoscaling:asg", "MinSize"))
    assert option("aws:autoscaling:trigger", "MeasureName") == "CPUUtilization"
    low, high = (float(option("aws:autoscaling:trigger", f"{end}Threshold")) for end in ("Lower", "Upper"))
    assert 0 < low < high < 100
    assert option("aws:elasticbeanstalk:command", "DeploymentPolicy") == "RollingWithAdditionalBatch"
    assert option("aws:elasticbeanstalk:healthreporting:system", "SystemType") == "enhanced"
    assert option("aws:elasticbeanstalk:cloudwatch:logs", "StreamLogs") == "true"
    assert int(option("aws:elasticbeanstalk:cloudwatch:logs", "RetentionInDays")) in (
        1,
        3,
        5,
        7,
        14,
        30,
        60,
        90,
    )


def test_one_port_is_named_everywhere() -> None:
    port = str(Settings.model_fields["port"].default)
    assert port == "8080"
    assert option("aws:elasticbeanstalk:application:environment", "PORT") == port
    named = {port for path in NGINX for port in re.findall(r"127\.0\.0\.1:(\d+)", path.read_text("utf-8"))}
    assert named == {port}


def test_the_server_is_told_only_what_it_knows() -> None:
    known = set()
    for info in Settings.model_fields.values():
        alias = info.validation_alias
        known |= set(getattr(alias, "choices", ())) or {str(alias)}
    told = set(options()["aws:elasticbeanstalk:application:environment"])
    assert told - {"PYTHONUNBUFFERED"} <= known
    secrets = options(EXAMPLES)["aws:elasticbeanstalk:application:environmentsecrets"]
    assert set(secrets) <= known
    assert not told & set(secrets), "a variable must not be plain and secret at once"
    assert option("aws:elasticbeanstalk:application:environment", "APP_ENV") == "production"


def test_the_procfile_starts_the_package_as_process_web() -> None:
    lines = [line for line in (ROOT / "Procfile").read_text("utf-8").splitlines() if line.strip()]
    assert lines == ["web: python -m coach_server"]
    assert (ROOT / "coach_server" / "__main__.py").is_file()


@pytest.mark.parametrize("path", NGINX, ids=lambda path: path.name)
def test_each_nginx_file_is_well_formed_and_leaves_the_platforms_own_alone(path: Path) -> None:
    root = parse_nginx(path.read_text("utf-8"))
    text = " ".join([*(block.head for block in root.blocks), *(" ".join(words) for words in root.directives)])
    # A second server on port 80, or a second map, keeps nginx from starting.
    assert "server" not in {block.head.split()[0] for block in root.blocks}
    assert "map" not in text.split()
    if path.parent.name == "elasticbeanstalk":
        # The platform's server block has these already; twice in one block is an error.
        taken = {"keepalive_timeout", "client_header_timeout", "client_body_timeout", "access_log", "listen"}
        assert not {words[0] for words in root.directives} & taken


@pytest.mark.parametrize("text", ["location / {", "a b; }", "proxy_pass x }", "a b", "; a;", "{ }"])
def test_the_structural_check_notices_a_broken_file(text: str) -> None:
    with pytest.raises(AssertionError):
        parse_nginx(text)


@pytest.mark.parametrize("head", ["location /socket.io/", "location /ws/"])
def test_socket_locations_upgrade_and_wait_long(head: str) -> None:
    block = locations()[head]
    assert block.value("proxy_pass") == "http://127.0.0.1:8080"
    assert block.value("proxy_http_version") == "1.1"
    assert block.value("proxy_buffering") == "off"
    assert block.headers()["Upgrade"] == "$http_upgrade"
    assert block.headers()["Connection"] == "$connection_upgrade"
    for name in ("proxy_read_timeout", "proxy_send_timeout"):
        assert int(str(block.value(name)).removesuffix("s")) >= 3600


def test_plain_http_is_redirected_except_for_the_health_check() -> None:
    for head, block in locations().items():
        redirects = [inner for inner in block.blocks if inner.head.startswith("if ($http_x_forwarded_proto")]
        if head == "location = /health":
            assert not block.blocks
        else:
            (redirect,) = redirects
            assert redirect.head == "if ($http_x_forwarded_proto = http)"
            assert redirect.directives == [["return", "308", "https://$host$request_uri"]]


def test_the_client_address_reaches_a_server_that_trusts_one_proxy() -> None:
    for head, block in locations().items():
        if head != "location = /health":
            # nginx must pass on what the load balancer wrote; its own entry would hide the client.
            assert block.headers()["X-Forwarded-For"] == "$http_x_forwarded_for"
            assert block.headers()["X-Forwarded-Proto"] == "$http_x_forwarded_proto"


def test_each_hop_keeps_idle_connections_longer_than_the_one_before_it() -> None:
    from coach_server.api.http_runner import KEEPALIVE_S

    balancer = int(option("aws:elbv2:loadbalancer", "IdleTimeout"))
    proxy = {int(str(block.value("keepalive_timeout")).removesuffix("s")) for block in locations().values()}
    assert len(proxy) == 1
    # nginx's own connections to the server close after 60 s of silence, its default.
    assert balancer < min(proxy)
    assert KEEPALIVE_S > 60
    assert balancer > 2 * 25, "two of the server's pings fit in"


def test_bodies_up_to_the_servers_own_limit_pass_nginx() -> None:
    sizes = [
        words[1]
        for path in NGINX
        for words in parse_nginx(path.read_text("utf-8")).directives
        if words[0] == "client_max_body_size"
    ]
    assert sizes == ["3m"]


def resources() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in CONFIGS:
        found |= yaml.safe_load(path.read_text("utf-8")).get("Resources") or {}
    return found


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "Ref":
                yield inner
            elif key == "Fn::GetAtt":
                yield inner[0]
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_alarms_watch_things_that_exist_and_tell_the_topic() -> None:
    # Names that Elastic Beanstalk gives the resources of an environment with an application load balancer.
    given = {"AWSEBV2LoadBalancer", "AWSEBV2LoadBalancerTargetGroup", "AWSEBAutoScalingGroup"}
    made = resources()
    assert set(references(made)) <= given | set(made)
    alarms = [item["Properties"] for item in made.values() if item["Type"] == "AWS::CloudWatch::Alarm"]
    assert len(alarms) == 3
    for alarm in alarms:
        assert alarm["AlarmActions"] == [{"Ref": "CoachAlarms"}]
        assert alarm["Period"] % 60 == 0 and alarm["EvaluationPeriods"] >= 1
        assert alarm["TreatMissingData"] == "notBreaching"
    assert made["CoachAlarms"]["Type"] == "AWS::SNS::Topic"


def pins() -> dict[str, str]:
    found = {}
    for entry in re.split(r"(?<!\\)\n", (ROOT / "requirements.txt").read_text("utf-8").strip()):
        entry = entry.replace("\\\n", " ")
        requirement = Requirement(entry.split("--hash")[0].strip())
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}", entry), f"{requirement.name} has no hash"
        (pin,) = requirement.specifier
        assert pin.operator == "==", f"{requirement.name} is not pinned"
        found[canonicalize_name(requirement.name)] = pin.version
    return found


def test_every_dependency_is_pinned_hashed_and_within_what_pyproject_allows() -> None:
    pinned = pins()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for text in project["dependencies"]:
        wanted = Requirement(text)
        version = pinned.get(canonicalize_name(wanted.name))
        assert version is not None, f"{wanted.name} is not in requirements.txt: run make lock"
        assert wanted.specifier.contains(version, prereleases=True), f"{wanted.name} {version}: run make lock"


def test_the_requirements_name_no_registry() -> None:
    text = (ROOT / "requirements.txt").read_text("utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash", ""), re.MULTILINE)


SECRETS = [
    r"sk-[A-Za-z0-9_-]{16,}",
    r"AKIA[0-9A-Z]{16}",
    r"-----BEGIN",
    r"\b\d{12}\b",  # an AWS account
    r"://[^\s:/@]+:(?!PASSWORD@|TOKEN@)[^\s:/@]+@",
    r"(?<![\w/])(?=[\w+-]*\d)(?=[\w+-]*[a-z])(?=[\w+-]*[A-Z])[\w+-]{24,}",
]


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: path.name)
def test_no_file_holds_anything_that_looks_like_a_secret(path: Path) -> None:
    text = path.read_text("utf-8")
    # AWS's own names of resources and policies are long words too.
    text = re.sub(r"\b(?:AWSEB|AWSElasticBeanstalk|ELBSecurityPolicy-|HTTPCode_)[\w-]+", "", text)
    for pattern in SECRETS:
        assert (found := re.search(pattern, text)) is None, (
            f"{pattern}: line {text[: found.start()].count(chr(10))}"
        )


def test_the_bundle_leaves_out_secrets_and_tests_and_takes_what_the_server_reads() -> None:
    rules = [line for line in (ROOT / ".ebignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert {".env", "data/", "tests/", ".venv/", ".git/"} <= set(rules)
    for needed in ("coach_server/", "prompts/", "migrations/", "requirements.txt", "Procfile", ".platform/"):
        assert needed not in rules
        assert (ROOT / needed).exists()
    assert rules.index("/node_modules/*") < rules.index("!/node_modules/socket.io-client/")


def test_the_guide_names_every_file_and_only_variables_that_exist() -> None:
    guide = (ROOT / "docs" / "deploy-elastic-beanstalk.md").read_text("utf-8")
    for path in CONFIGS:
        assert path.name in guide, path.name
    for path in EXAMPLES:
        assert path.name in guide or "*.example" in guide
    known = {"RDS_HOSTNAME", "RDS_PORT", "RDS_DB_NAME", "RDS_USERNAME", "RDS_PASSWORD"}
    for info in Settings.model_fields.values():
        alias = info.validation_alias
        known |= set(getattr(alias, "choices", ())) or {str(alias)}
    said = set(re.findall(r"\b([A-Z]+(?:_[A-Z]+)+)=", guide)) | {
        "DATABASE_URL",
        "REDIS_URL",
        "CORS_ORIGIN",
        "COST_CAP_USD_PER_CALL",
        "COST_CAP_USD_PER_DAY",
        *(word for word in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", guide) if not word.startswith("SG_")),
    }
    events = {"SERVER_DRAINING", "RESUME_CONVERSATION", "CONVERSATION_ENDED"}
    assert said - events <= known
