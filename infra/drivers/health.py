"""What /health says: database, vault lease, disk, worker lag. Open, so it names no secret and no person."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from infra.adapters.disk import RESERVED
from schemas.errors import TouchfoldError

if TYPE_CHECKING:
    from infra.bootstrap import Session

FRESH_S: Final = 0.25  # a probe a second costs nothing, a thousand a second cost four queries
_LAG: Final = """
select coalesce(sum(h.next_offset), 0), coalesce(sum(p.next_offset), 0)
from log_head h left join progress p
  on p.partition = h.partition and p.revision = (select revision from revisions where state = 'live')
"""


class Health:
    """Any thread; one looks, the others take what it found."""

    def __init__(self, session: "Session", monotonic: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._database = session.database("touchfold health")
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seen: tuple[float, dict[str, Any]] | None = None

    def look(self) -> dict[str, Any]:
        """{"status": "ok" | "unavailable", "database", "vault", "disk_free", "accepted", "applied", "lag"}."""
        with self._lock:
            if self._seen is None or self._monotonic() - self._seen[0] > FRESH_S:
                found = self._look()
                self._seen = (self._monotonic(), found)
            return self._seen[1]

    def _look(self) -> dict[str, Any]:
        database, accepted, applied = "ok", 0, 0
        try:
            with self._database.transaction() as cursor:
                cursor.execute(_LAG)
                row = cursor.fetchone()
                accepted, applied = (int(row[0]), int(row[1])) if row else (0, 0)
        except TouchfoldError as err:
            self._database.close()
            database = err.code
        vault = "ok" if self._session.vault().has_lease() else "no lease"
        free = self._session.disk.free()
        good = database == vault == "ok" and free >= RESERVED
        return {
            "status": "ok" if good else "unavailable",
            "database": database,
            "vault": vault,
            "disk_free": round(free, 4),
            "accepted": accepted,
            "applied": applied,
            "lag": accepted - applied,
        }
