"""Readiness: whether a role can do its work, checked by its supervisor every second.

A backend failing for less than GRACE_S is electing a leader or restarting: leaving the load balancer for that would
close all doors at the same time, since they share the backend. A role that stands by for another is ready.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

from infra.adapters.machine.transient import GRACE_S, Steady
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.inspection import answers
from infra.app.running import health_of
from schemas.errors import ServiceFailed, StoreUnavailable

if TYPE_CHECKING:
    from infra.adapters.kafka.access import KafkaAccess

LOOK_S: Final = 1.0
STALE_S: Final = 10.0  # a check that takes longer is waiting for a backend that does not answer
NEEDS: Final[Mapping[str, tuple[str, ...]]] = {  # by command; described in docs/cluster.md
    "up": ("http", "database"),
    "ingest": ("http", "database"),
    "serve": ("http", "database"),
    "worker": ("database", "vault", "log"),
    "archive": ("database", "log"),
    "publish": ("database", "changes"),
}


class Places(NamedTuple):
    """Where a supervisor's backends are. The connection strings of its own server change when it restarts."""

    url: str
    dsn: Callable[[], str]
    vault_dsn: Callable[[], str]
    access: "KafkaAccess | None"


def checks_of(command: str, places: Places) -> dict[str, Steady]:
    """For each need of a command, whether it is met. An HTTP process answers for itself, with its own grace period."""
    return {need: Steady(_check(need, places), 0.0 if need == "http" else GRACE_S) for need in NEEDS[command]}


def _check(need: str, places: Places) -> Callable[[], None]:
    if need == "http":
        return lambda: _answers(places.url)
    if need in {"database", "vault"}:
        dsn = places.dsn if need == "database" else places.vault_dsn
        return lambda: _database_answers(dsn())
    from infra.adapters.kafka.writable import change_topics, events_readable  # noqa: PLC0415  # of a cluster alone

    assert places.access is not None, "a role of a cluster has Kafka"
    return events_readable(places.access) if need == "log" else change_topics(places.access)


def _answers(url: str) -> None:
    found = health_of(url)
    if found is None:
        raise ServiceFailed(f"{url}/health does not answer")  # not a backend outage: it answers during any
    if not found.get("ready"):
        told = "; ".join(str(each.get("detail")) for each in found.get("problems", []))
        raise StoreUnavailable(told or f"{url}/health says {found.get('status')}")


def _database_answers(dsn: str) -> None:
    with closing(Database(dsn, "touchfold probe")) as database:
        answers(database)


class Readiness:
    """Checks in its own thread. `excuse` is called while a backend is unavailable or slow to answer."""

    def __init__(
        self,
        needs: Mapping[str, Steady],
        excuse: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._needs = needs
        self._excuse = excuse
        self._monotonic = monotonic
        self._stop = threading.Event()
        self._looked_at = monotonic()
        self._found: dict[str, str | None] = dict.fromkeys(needs, "not checked yet")
        self._thread = threading.Thread(target=self._run, name="readiness", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(LOOK_S)  # a thread waiting for a backend ends with the process

    def problems(self) -> dict[str, str]:
        """The unmet needs of the role, with reasons; empty when it is ready."""
        waits_s = self._monotonic() - self._looked_at
        self.excuse_a_wait()
        if waits_s > GRACE_S:
            return dict.fromkeys(self._needs, f"no answer for {waits_s:.0f} s")
        return {need: problem for need, problem in self._found.items() if problem is not None}

    def excuse_a_wait(self) -> None:
        """Call before reporting liveness: a check that has not returned is blocked in a call to a backend."""
        if self._monotonic() - self._looked_at > STALE_S:
            self._excuse()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(LOOK_S)

    def look(self) -> None:
        """Check all of them once."""
        found: dict[str, str | None] = {}
        for need, check in self._needs.items():
            found[need] = check.problem()
            if isinstance(check.error, StoreUnavailable):
                self._excuse()
        self._found, self._looked_at = found, self._monotonic()
