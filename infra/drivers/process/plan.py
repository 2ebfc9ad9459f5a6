"""Which processes a command runs, and the state of each."""

import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from infra.app.settings import Settings
from schemas.errors import Problem, SettingsInvalid

TOO_OFTEN: Final = 5  # exits to remember per role


@dataclass
class Child:
    """One process of a role, and its history."""

    role: str
    number: int
    process: "subprocess.Popen[bytes] | None" = None
    report: int = -1
    heard: bytes = b""
    ready: bool = False
    came_up: bool = False  # has been ready
    starts: int = 0
    started_at: float = 0.0
    start_after: float = 0.0
    reason: str = ""
    idle: bool = False  # nothing to back up: it is not started
    ends: "deque[float]" = field(default_factory=lambda: deque(maxlen=TOO_OFTEN))

    @property
    def name(self) -> str:
        return f"{self.role} {self.number}"


class Plan(NamedTuple):
    """Which processes a command runs. A listening one serves HTTP: the door, the API and the pages."""

    command: str
    roles: Sequence[tuple[str, int]]
    edges: str = ""  # served by its HTTP processes: door, api, or both; empty if it does not listen
    pages: bool = False


def plan_of(command: str, settings: Settings) -> Plan:
    """What `touchfold COMMAND` runs with these settings. Raises SettingsInvalid for a role that needs Kafka."""
    kafka = settings.log == "kafka"
    if command == "up":
        roles = [("http", settings.doors), ("worker", settings.workers), ("archive", 1)]
        roles += [("publish", 1), ("inbox", 1)] if kafka else []
        roles += [("backup", 1)] if settings.database is None else []
        return Plan(command, roles + ([("ui", 1)] if settings.ui else []), "door,api", settings.ui)
    if not kafka:
        raise SettingsInvalid(
            f"touchfold {command} is a role of a cluster, which needs TOUCHFOLD_LOG=kafka: set it, or run touchfold up",
            [Problem("TOUCHFOLD_LOG", "must be kafka")],
        )
    if settings.database is None:
        raise SettingsInvalid(
            f"touchfold {command} needs the PostgreSQL that all roles share: set TOUCHFOLD_DATABASE",
            [Problem("TOUCHFOLD_DATABASE", "is missing")],
        )
    if command == "ingest":
        return Plan(command, [("http", settings.doors), ("inbox", 1)], "door")
    if command == "serve":
        ui = [("ui", 1)] if settings.ui else []
        return Plan(command, [("http", settings.doors), *ui], "api", settings.ui)
    return Plan(command, [(command, settings.workers if command == "worker" else 1)])
