"""compose.yaml, the Dockerfile and the pages on deployment: what they name exists. They cannot be run in the tests."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import typer
import yaml

from infra.app.settings import FILE_KEYS, KEYS, load
from infra.cli.main import MODULES, build_app
from infra.drivers.process.plan import plan_of

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final = (ROOT / "compose.yaml").read_text()
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()
PAGES: Final = tuple(ROOT / "docs" / name for name in ("cluster.md", "topics-inbox.md"))
NOT_OF_COMPOSE: Final = {"POSTGRES_PASSWORD", "TOUCHFOLD_MASTER_KEY"}  # what who starts it must set
ONE_SHOT: Final = {"topics"}
_COMMAND: Final = re.compile(r"\btouchfold ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")
_PLACEHOLDER: Final = re.compile(r"\$\{([A-Z_]+)(:\?[^}]+)?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE)
    return found


def commands() -> Mapping[str, set[str]]:
    """Every command with its subcommands, as the application registers them."""
    found: dict[str, set[str]] = {}
    for name in MODULES:
        command = typer.main.get_command(build_app([name]))
        for key, each in getattr(command, "commands", {}).items():
            alone = {""} if getattr(each, "invoke_without_command", False) else set()
            found[key] = alone | set(getattr(each, "commands", {}))
    return found


COMMANDS: Final = commands()


def ours(compose: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The services of our image."""
    for name, service in compose["services"].items():
        if "build" in service:
            yield name, service


def test_every_variable_of_ours_is_a_setting(compose: dict[str, Any]) -> None:
    texts = [COMPOSE, DOCKERFILE, *(page.read_text() for page in PAGES)]
    named = {name for text in texts for name in re.findall(r"\bTOUCHFOLD_([A-Z0-9_]+)\b", text)}
    assert named
    assert named <= {*KEYS, *FILE_KEYS, "CONFIG"}
    for _, service in ours(compose):
        assert service["environment"].keys() >= {"TOUCHFOLD_DATABASE", "TOUCHFOLD_MASTER_KEY", "TOUCHFOLD_LOG"}


def test_the_settings_of_the_roles_can_be_read(compose: dict[str, Any], tmp_path: Path) -> None:
    filled = {"POSTGRES_PASSWORD": "0a" * 24, "TOUCHFOLD_MASTER_KEY": "0b" * 32}
    for name, service in ours(compose):
        given = {
            key: _PLACEHOLDER.sub(lambda found: filled[found[1]], value)
            for key, value in service["environment"].items()
        }
        settings = load({**given, "TOUCHFOLD_DATA": str(tmp_path)})
        assert settings.log == "kafka"
        assert settings.kafka_bootstrap == "kafka:9092"
        if name not in ONE_SHOT:
            assert plan_of(name, settings).roles


def test_every_command_of_the_services_and_pages_exists(compose: dict[str, Any]) -> None:
    for name, service in ours(compose):
        first, *rest = service["command"]
        assert first in COMMANDS, name
        assert not rest or rest[0] in COMMANDS[first], name
    for page in PAGES:
        used = _COMMAND.findall(_code(page.read_text()))
        assert used, page.name
        for command, below in used:
            assert command in COMMANDS, f"{page.name}: touchfold {command}"
            assert not COMMANDS[command] or below in COMMANDS[command], f"{page.name}: touchfold {command} {below}"


def _code(text: str) -> str:
    """What stands in backticks and fences: elsewhere, and in SQL, "touchfold" is a name."""
    text = re.sub(r"```sql\n.*?```", "", text, flags=re.DOTALL)
    fences = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    rest = re.sub(r"```[a-z]*\n.*?```", "", text, flags=re.DOTALL)
    return "\n".join([*fences, *re.findall(r"`([^`\n]+)`", rest)])


def test_every_role_of_a_cluster_is_a_service(compose: dict[str, Any]) -> None:
    assert {name for name, _ in ours(compose)} == {"topics", "ingest", "worker", "archive", "publish", "serve"}


def test_every_service_says_whether_it_is_well(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name in ONE_SHOT:
            assert service["healthcheck"] == {"disable": True}
        else:
            assert service["healthcheck"]["test"][0] == "CMD", name
    for name, service in ours(compose):
        if name not in ONE_SHOT:
            port = service["environment"]["TOUCHFOLD_PROBE_PORT"]
            assert f"127.0.0.1:{port}/ready" in service["healthcheck"]["test"][-1], name


def test_the_image_asks_the_probe_port_that_it_sets() -> None:
    port = re.search(r"^ENV .*TOUCHFOLD_PROBE_PORT=(\d+)", DOCKERFILE, re.M)
    assert port is not None
    assert f"http://127.0.0.1:{port[1]}/ready" in DOCKERFILE.split("HEALTHCHECK")[1]


def test_every_volume_is_declared_and_used_and_nothing_durable_is_in_a_container(compose: dict[str, Any]) -> None:
    used: dict[str, set[tuple[str, str]]] = {}
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            used.setdefault(source, set()).add((name, target))
    assert used.keys() == compose["volumes"].keys()
    for name, service in ours(compose):
        if name not in ONE_SHOT:
            targets = {volume.split(":")[1] for volume in service["volumes"]}
            assert targets == {"/data", service["environment"]["TOUCHFOLD_ARCHIVE"]}
    data = [source for source, places in used.items() if any(target == "/data" for _, target in places)]
    assert all(len(used[source]) == 1 for source in data), "a data folder has one owner"


def test_there_is_no_password_in_the_files(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY$|SECRET|TOKEN", key):
                assert _PLACEHOLDER.fullmatch(value), key
    for name, must in _PLACEHOLDER.findall(COMPOSE):
        assert name in NOT_OF_COMPOSE
        assert must.startswith(":?"), f"{name} has a default, or may be empty"
    assert re.search(r"://[^$\s]+:[^$\s]+@", COMPOSE) is None
    assert not re.search("PASSWORD|SECRET|MASTER_KEY", DOCKERFILE)


def test_ports_are_open_to_this_machine_alone(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_dockerfile_copies_what_exists_and_all_rooms() -> None:
    copied = [
        line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY") and "--from" not in line
    ]
    names = [name for line in copied for name in line]
    assert all((ROOT / name).exists() for name in names)
    assert {"schemas", "projections", "ingest", "processors", "query", "infra", "requirements.lock"} <= set(names)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in names} <= set(ignored)


def test_the_image_runs_as_nobody_special_from_the_locked_packages() -> None:
    lines = DOCKERFILE.splitlines()
    assert lines.index("USER touchfold") < lines.index('ENTRYPOINT ["touchfold"]')
    assert "--require-hashes" in DOCKERFILE
    stages = [line for line in lines if line.startswith("FROM ")]  # npm is in the first, which is not in the image
    assert stages == ["FROM node:22-slim AS browser", "FROM python:3.11-slim"]
    assert re.search(r"https?://(?!127\.0\.0\.1:)", DOCKERFILE) is None
