"""What /health reports: database, log, vault, disk, work, archive. Public, so it reveals no secret and no person."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from infra.adapters.archive.reading_log import TimelyEnds, ends_of
from infra.adapters.ledger.erasures import LedgerFile
from infra.adapters.machine.transient import GRACE_S, Steady
from infra.adapters.postgres.applied import applied_offsets, waiting_now
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.vault.master_key import read_key
from infra.app import checks
from infra.app.checks import Finding, guarded
from infra.app.databases import database_of, vault_database_of
from infra.app.log import log_of
from infra.app.vault import vault_of
from schemas.errors import StoreUnavailable, TouchfoldError
from schemas.waits import Waiting, applicable, open_transaction

if TYPE_CHECKING:
    from infra.app.session import Session

FRESH_S: Final = 0.25  # so that even a thousand probes a second cost only four queries
SLOWLY_S: Final = 3.0  # between checks of what changes rarely: files, keys, a new connection
AGAIN_S: Final = 1.0  # the same, after a check found a problem
_BROKERS: Final = "check that the brokers are running: touchfold doctor"
_NO_LEASE: Final = "the vault's database does not answer, or was restored: run touchfold doctor"


class Health:
    """Callable from any thread; one checks, the others use its result. `edges`: what the process serves."""

    def __init__(
        self,
        session: "Session",
        edges: str = "door,api",
        monotonic: Callable[[], float] = time.monotonic,
        grace_s: float = GRACE_S,
    ) -> None:
        self._session = session
        self._edges = edges
        self._database = database_of(session, "touchfold health", Lane.WORK)  # reported even while reads wait
        self._slow_database = database_of(session, "touchfold health slow")
        self._vault_database = vault_database_of(session, "touchfold health vault")
        self._timely = None if session.adapters.kafka is None else TimelyEnds(partial(log_of, session))
        self._ends = _ends(session) if self._timely is None else self._timely.ends
        self._writable = Steady(_writable(session), grace_s, monotonic)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._advance = checks.Advance(monotonic)
        self._seen: tuple[float, dict[str, Any]] | None = None
        self._slow: tuple[float, list[Finding]] | None = None
        self._slowly_s = SLOWLY_S
        self._archive: Any = None

    def look(self) -> dict[str, Any]:
        """{"status", "ready", "database", "log", "vault", "disk_free", "accepted", "applied", "lag", "problems",
        "waiting"}.

        `accepted` and `lag` are None if the log does not answer.

        `status`: ok; degraded: requests are accepted and answered, but something needs attention; unavailable.
        `ready`: whether requests are answered at all. `problems`: [{"check", "detail", "fix"}].
        """
        with self._lock:
            if self._seen is None or self._monotonic() - self._seen[0] > FRESH_S:
                found = self._look()
                self._seen = (self._monotonic(), found)
            return self._seen[1]

    def answer(self) -> tuple[int, dict[str, Any]]:
        """The HTTP status and body. A cluster's door stays in its load balancer when another role has a problem."""
        found = self.look()
        alone = self._session.adapters.kafka is None or self._edges == "door,api"
        good = found["status"] == "ok" or (found["status"] == "degraded" and not alone)
        return 200 if good else 503, found

    def _look(self) -> dict[str, Any]:
        database, log = "ok", "ok"
        progress: list[int] = []
        waits: list[Waiting] = []
        problems: list[Finding] = []
        try:
            progress, waits = applied_offsets(self._database), waiting_now(self._database)
        except TouchfoldError as err:
            self._database.close()
            database = err.code
            problems.append(
                Finding("database", False, err.message, "check that PostgreSQL is running: touchfold doctor")
            )
        applied = sum(progress)
        ends: list[int] | None = None
        held: dict[int, tuple[int, int]] = {}
        log_problem: Finding | None = None
        try:
            if database != "ok" and self._session.adapters.kafka is None:
                log = database  # they are one
            else:
                ends = self._ends(progress)
                held = {} if self._timely is None else self._timely.held
        except TouchfoldError as err:
            log = err.code
            log_problem = Finding("log", False, err.message, _BROKERS)
        waits += [open_transaction(partition, *place) for partition, place in sorted(held.items())]
        if self._session.adapters.kafka is not None and "door" in self._edges:
            cannot = self._writable.problem()  # a short outage is a leader election: the door stays up
            log_problem = None if cannot is None else Finding("log", False, cannot, _BROKERS)
            log = log if cannot is None else StoreUnavailable.code
            problems += [] if log_problem is None else [log_problem]
        vault = "ok" if vault_of(self._session).has_lease() else "no lease"
        if vault != "ok":
            problems.append(
                Finding("vault", False, "no lease: personal data can be neither stored nor read", _NO_LEASE)
            )
        disk = checks.disk(self._session.disk)
        serves = not problems
        if log_problem is not None and log_problem not in problems:
            problems.append(log_problem)  # the API works without it
        if database == "ok":
            could = None if ends is None else applicable(ends, progress, waits)
            problems += [each for each in (checks.records(waits), *self._others(could, applied)) if not each.ok]
        taken = serves and (disk.ok or "door" not in self._edges)
        problems += [] if disk.ok else [disk]
        accepted = None if ends is None else max(applied, sum(ends))
        return {
            "status": ("degraded" if problems else "ok") if taken else "unavailable",
            "ready": serves,
            "database": database,
            "log": log,
            "vault": vault,
            "disk_free": round(self._session.disk.free(), 4),
            "accepted": accepted,
            "applied": applied,
            "lag": None if accepted is None else accepted - applied,
            "waiting": [each.answer() for each in waits],
            "problems": [{"check": each.check, "detail": each.detail, "fix": each.fix} for each in problems],
        }

    def _others(self, waiting: int | None, applied: int) -> Iterator[Finding]:
        if waiting is not None:
            yield self._advance.look(waiting, applied)
        if self._slow is None or self._monotonic() - self._slow[0] > self._slowly_s:
            found = [guarded(name, partial(_twice, check)) for name, check in self._slow_checks()]
            self._slow = (self._monotonic(), found)
            self._slowly_s = SLOWLY_S if all(each.ok for each in found) else AGAIN_S
        yield from self._slow[1]

    def _slow_checks(self) -> Iterator[tuple[str, Callable[[], Finding]]]:
        session, database = self._session, self._slow_database
        yield "connections", partial(checks.connections, session.dsn)
        yield "pages", partial(checks.checksums, database)
        yield "states", partial(checks.states, session.dsn)
        key = None if session.settings.master_key else partial(read_key, session.data)
        yield "vault", partial(checks.vault, database, self._vault_database, key)
        if session.settings.database is None and "api" in self._edges:
            yield "backups", self._look_at_backups
        if "api" in self._edges:  # a cluster's door has neither
            yield "archive", self._look_at_archive
            if session.adapters.kafka is None:  # otherwise each machine has a ledger of what it erased
                yield "ledger", partial(checks.ledger, database, LedgerFile.of(session.ledger_folder))

    def _look_at_backups(self) -> Finding:
        from infra.app.backup_checks import backups  # noqa: PLC0415  # pyarrow's 60 MB

        session = self._session
        now = session.door_clock.now()
        return backups(self._vault_database, session.settings, session.time_zone, now, runs=session.joined)

    def _look_at_archive(self) -> Finding:
        if self._archive is None:
            from infra.app.archive import archive_of  # noqa: PLC0415  # pyarrow's 60 MB

            self._archive = archive_of(self._session)
        return checks.archive(self._archive, self._slow_database)


def _twice(check: Callable[[], Finding]) -> Finding:
    """Try again after a failure: the connection may date from before a restart of PostgreSQL."""
    try:
        return check()
    except StoreUnavailable:
        return check()


def _writable(session: "Session") -> Callable[[], None]:
    if session.adapters.kafka is None:
        return lambda: None  # the database's answer is the log's
    from infra.adapters.kafka.writable import events_writable  # noqa: PLC0415  # of a cluster alone

    return events_writable(session.adapters.kafka)


def _ends(session: "Session") -> Callable[[Sequence[int]], list[int]]:
    """The end of a log in PostgreSQL, read over a separate connection."""
    log = log_of(session)
    return lambda _applied: ends_of(log)
