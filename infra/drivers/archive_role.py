"""The archive process: what is applied leaves the log for Parquet files, in the background."""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from infra.adapters.parquet_archive import ParquetArchive
from infra.adapters.postgres_control import PostgresControl
from processors.archive import Archiver
from schemas.errors import Disposition, TouchfoldError

if TYPE_CHECKING:
    from infra.bootstrap import Session

PAUSE_S: Final = 1.0
_log = logging.getLogger("touchfold.archive")


def archiver_of(session: "Session") -> Archiver:
    """The archiver of a session's log and folder."""
    control = PostgresControl(session.dsn, "touchfold archive")

    def applied_until() -> list[int]:
        return [each.next_offset for each in control.progress(control.live().revision)]

    store = ParquetArchive(session.archive_folder)
    return Archiver(session.log(), store, session.door_clock, applied_until, session.currency)


def run(session: "Session", stop: threading.Event, ready: Callable[[], None]) -> None:
    """Until `stop`: write the files that are due. An outage is waited out; a damaged archive ends the process."""
    archiver = archiver_of(session)
    ready()
    while not stop.is_set():
        try:
            if archiver.run_once():
                continue
        except TouchfoldError as err:
            if err.disposition is not Disposition.RETRY:
                raise
            _log.warning("waiting: %s", err.message)
        stop.wait(PAUSE_S)
