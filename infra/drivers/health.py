"""What /health says: database, log, vault lease, disk, worker lag. Open, so it names no secret and no person."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from infra.adapters.connection_pool import Lane
from infra.adapters.disk import RESERVED
from infra.adapters.postgres_control import waiting
from infra.adapters.reading_log import TimelyEnds, ends_of
from schemas.errors import TouchfoldError
from schemas.waits import Waiting

if TYPE_CHECKING:
    from infra.bootstrap import Session

FRESH_S: Final = 0.25  # a probe a second costs nothing, a thousand a second cost four queries
_APPLIED: Final = """
select coalesce(array_agg(next_offset order by partition), '{}') from progress
where revision = (select revision from revisions where state = 'live')
"""


class Health:
    """Any thread; one looks, the others take what it found."""

    def __init__(self, session: "Session", monotonic: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._database = session.database("touchfold health", Lane.WORK)  # told even while reads wait
        self._ends = _ends(session)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seen: tuple[float, dict[str, Any]] | None = None

    def look(self) -> dict[str, Any]:
        """{"status": "ok" | "degraded" | "unavailable", "database", "log", "vault", "disk_free", "accepted", "applied",
        "lag", "waiting"}. Degraded: all is accepted and answered, but a partition waits at a record.
        """
        with self._lock:
            if self._seen is None or self._monotonic() - self._seen[0] > FRESH_S:
                found = self._look()
                self._seen = (self._monotonic(), found)
            return self._seen[1]

    def _look(self) -> dict[str, Any]:
        database, log = "ok", "ok"
        progress: list[int] = []
        waits: list[Waiting] = []
        try:
            with self._database.transaction() as cursor:
                cursor.execute(_APPLIED)
                row = cursor.fetchone()
                progress = row[0] if row else []
                waits = waiting(cursor)
        except TouchfoldError as err:
            self._database.close()
            database = err.code
        applied = accepted = sum(progress)
        try:
            if database != "ok" and self._session.adapters.kafka is None:
                log = database  # they are one
            else:
                accepted = max(applied, sum(self._ends(progress)))
        except TouchfoldError as err:
            log = err.code
        vault = "ok" if self._session.vault().has_lease() else "no lease"
        free = self._session.disk.free()
        good = database == log == vault == "ok" and free >= RESERVED
        return {
            "status": ("degraded" if waits else "ok") if good else "unavailable",
            "database": database,
            "log": log,
            "vault": vault,
            "disk_free": round(free, 4),
            "accepted": accepted,
            "applied": applied,
            "lag": accepted - applied,
            "waiting": [each.answer() for each in waits],
        }


def _ends(session: "Session") -> Callable[[Sequence[int]], list[int]]:
    """Where the log ends: in time where it is Kafka, else by a query of its own connection."""
    if session.adapters.kafka is not None:
        return TimelyEnds(session.log).ends
    log = session.log()
    return lambda _applied: ends_of(log)
