"""The archive process: what is applied leaves the log for Parquet files, in the background."""

import logging
import threading
from collections.abc import Callable
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from infra.adapters.parquet_archive import ParquetArchive, give_back_memory
from infra.adapters.postgres_control import PostgresControl
from infra.adapters.postgres_dead_letters import PostgresDeadLetters
from processors.archive import Archiver
from schemas.errors import Disposition, TouchfoldError

if TYPE_CHECKING:
    from infra.bootstrap import Session

PAUSE_S: Final = 1.0
KEEP_LETTERS: Final = timedelta(days=30)  # what is sealed under a daily key opens no longer than this (design C12)
_log = logging.getLogger("touchfold.archive")


def archiver_of(session: "Session") -> Archiver:
    """The archiver of a session's log and folder."""
    control = PostgresControl(session.dsn, "touchfold archive")

    def applied_until() -> list[int]:
        return [each.next_offset for each in control.progress(control.live().revision)]

    store = ParquetArchive(session.archive_folder)
    return Archiver(session.log(), store, session.door_clock, applied_until, session.currency)


def forget_old_letters(session: "Session", today: date) -> None:
    """Once a day: dead letters under daily keys of 30 days ago go, and their keys after them."""
    before = today - KEEP_LETTERS
    letters = PostgresDeadLetters(session.dsn)
    try:
        letters.delete_without_tokens(before)
    finally:
        letters.close()
    session.vault().expire_daily_keys(before)


def run(session: "Session", stop: threading.Event, ready: Callable[[], None]) -> None:
    """Until `stop`: write the files that are due. An outage is waited out; a damaged archive ends the process."""
    archiver = archiver_of(session)
    ready()
    swept: date | None = None
    worked = True
    while not stop.is_set():
        try:
            today = session.door_clock.now().date()
            if today != swept:
                forget_old_letters(session, today)
                swept = today
            if archiver.run_once():
                worked = True
                continue
            if worked:
                give_back_memory()
                worked = False
        except TouchfoldError as err:
            if err.disposition is not Disposition.RETRY:
                raise
            _log.warning("waiting: %s", err.message)
        stop.wait(PAUSE_S)
