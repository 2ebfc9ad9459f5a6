"""The record gate in PostgreSQL: what live processes can read, and the floor. See `schemas.record_gate`."""

import threading
import time
from collections.abc import Callable
from typing import Final

from infra.adapters.postgres.database import Database
from infra.adapters.postgres.presence import RENEW_S, present
from schemas.errors import BadRequest, StoreUnavailable
from schemas.record import VERSION
from schemas.record_gate import FIRST, lacking, version_to_write

_FLOOR: Final = "record_floor"


def floor_of(database: Database) -> int:
    """The version that every reader of this log is known to read."""
    with database.reading() as cursor:
        cursor.execute("select value from meta where key = %s", (_FLOOR,))
        row = cursor.fetchone()
    return FIRST if row is None else int(row[0])


def raise_floor(database: Database, wanted: int, own: int = VERSION) -> int:
    """Allow records of a version; returns the previous floor. Raises BadRequest while a live process reads less."""
    if not FIRST <= wanted <= own:
        raise BadRequest(f"this build reads records up to version {own}")
    old = [(f"{each.role} on {each.host} (process {each.pid})", each.reads) for each in present(database)]
    if names := lacking(wanted, old):
        raise BadRequest(f"these cannot read version {wanted} yet, upgrade them first: {', '.join(names)}")
    before = floor_of(database)
    start_floor(database, wanted)
    return before


def start_floor(database: Database, wanted: int) -> None:
    """Raise the floor without looking around, where no older build can be about.

    That is a database that nobody used before, and a folder with one owner, which an older build refuses to open.
    """
    with database.transaction() as cursor:
        cursor.execute(
            "insert into meta values (%s, to_jsonb(%s::int)) on conflict (key) do update set value = excluded.value"
            " where (meta.value)::int < %s",
            (_FLOOR, wanted, wanted),
        )


class RecordGate:
    """Any thread. A result stays valid for as long as a presence row is renewed."""

    def __init__(self, database: Database, own: int = VERSION, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._own = own
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._version = FIRST
        self._until = 0.0

    def version(self) -> int:
        """The version to write now; while PostgreSQL is unavailable the last one, before the first look version 1."""
        if self._own == FIRST:
            return FIRST  # no need to ask
        with self._lock:
            if self._monotonic() >= self._until:
                try:
                    readers = [each.reads for each in present(self._database)]
                    self._version = version_to_write(self._own, floor_of(self._database), readers)
                except StoreUnavailable:
                    pass  # nobody who needs an older version can have started without it
                self._until = self._monotonic() + RENEW_S
            return self._version
