"""The backup process of `touchfold up`: sends WAL continuously, makes a daily base, and removes expired backups."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from infra.adapters.backup.notes import BackupNotes
from infra.adapters.backup.places import place_text
from infra.adapters.backup.wal_spool import Following, Spool
from infra.adapters.ledger.copies import ledger_state
from infra.adapters.machine.disk import BUILDING
from infra.app.backing_up import back_up, next_at, open_store, prune_all, put_ledger
from infra.app.databases import vault_database_of
from schemas.errors import FolderLocked, TouchfoldError

if TYPE_CHECKING:
    from infra.app.session import Session

LOOK_S: Final = 1.0
FLUSH_S: Final = 60.0  # at most this much is lost with the machine
PRUNE_S: Final = 3_600.0
AGAIN: Final = timedelta(minutes=10)  # after a backup that failed
_log = logging.getLogger("touchfold.backup")


def run(session: "Session", stop: threading.Event, ready: Callable[[], None]) -> None:
    """Run until `stop`. While a destination is unreachable, WAL is sealed and kept as long as there is space."""
    role = _Role(session, stop)
    ready()
    while not stop.is_set():
        role.turn()
        stop.wait(LOOK_S)
    role.flush()


class _Role:
    def __init__(self, session: "Session", stop: threading.Event) -> None:
        self._session = session
        self._stop = stop
        self._spool = Spool(session.data)
        self._vault = vault_database_of(session, "touchfold backup")
        self._notes = BackupNotes(self._vault)
        self._flushed_at = float("-inf")
        self._pruned_at = float("-inf")
        self._tried_at: datetime | None = None
        self._ledger = ""
        self._told = ""

    def turn(self) -> None:
        """Check everything that may be due, once."""
        try:
            if self._is_due():
                self._back_up()
            with self._spool.lock():
                self._ship(time.monotonic() - self._flushed_at > FLUSH_S)
            if time.monotonic() - self._pruned_at > PRUNE_S:
                self._pruned_at = time.monotonic()
                prune_all(self._session)
        except FolderLocked:
            return  # a command is making a backup, and sends WAL meanwhile
        except TouchfoldError as err:
            self._tell(err)

    def flush(self) -> None:
        """At the end: send what has been written so far."""
        try:
            with self._spool.lock():
                self._ship(flush=True)
        except TouchfoldError as err:
            self._tell(err)

    def _tell(self, err: TouchfoldError) -> None:
        if err.message != self._told:  # once: a destination may be unreachable for days
            _log.warning("%s", err.message)
        self._told = err.message
        following = self._spool.following()
        to = following.to if following is not None else self._session.settings.backup_to
        if to is not None:
            self._notes.write(place_text(to), self._session.settings.backup_days, trouble=err.message)

    def _is_due(self) -> bool:
        settings, now = self._session.settings, self._session.door_clock.now()
        if settings.backup_to is None or (self._tried_at is not None and now < self._tried_at + AGAIN):
            return False
        to, following = place_text(settings.backup_to), self._spool.following()
        if following is None or following.to != to:
            return True
        last = next((note.last_at for note in self._notes.read() if note.destination == to), None)
        return now >= next_at(last, settings.backup_at, self._session.time_zone, now)

    def _back_up(self) -> None:
        self._tried_at = self._session.door_clock.now()
        assert self._session.settings.backup_to is not None, "called only if there is a destination"

        def tell(_what: str, _done: int, _of: int) -> None:
            self._stop.is_set()  # calling it also reports that the process is alive

        made = back_up(self._session, self._session.settings.backup_to, tell, _log.warning, wait_s=0.0)
        _log.info("backed up: %s, %d bytes in %.0f s", made.base.id, made.bytes, made.took_s)
        self._told = ""

    def _ship(self, flush: bool) -> None:
        following = self._spool.keep_days(self._session.settings.backup_days)
        if following is None:
            return
        store = open_store(self._session.settings, following.to)
        self._spool.take(following, store.key)
        if self._gives_up(following):
            return
        if flush:
            until = self._spool.flush(self._vault, store, following)
            self._notes.write(following.to, following.days, until_at=until.at, trouble=None)
            self._flushed_at = time.monotonic()
        else:
            self._spool.send(store)
            if self._told:
                self._notes.write(following.to, following.days, trouble=None)
                self._told = ""
        ledger = ledger_state(self._session.ledger_folder)
        if ledger != self._ledger:
            put_ledger(self._session, store)
            self._ledger = ledger

    def _gives_up(self, following: Following) -> bool:
        """WAL that cannot be sent must neither fill the disk nor be kept longer than erasure receipts promise."""
        no_room = not self._session.disk.has_room(BUILDING) and self._spool.waiting_bytes() > 0
        if not no_room and not self._spool.is_overdue(self._session.door_clock.now()):
            return False
        self._spool.end()
        text = (
            f"{following.to} was unreachable for so long that WAL for it was dropped: nothing newer can be "
            "restored until there is a new backup, which is made once it is back"
        )
        self._notes.write(following.to, following.days, trouble=text)
        _log.error("%s", text)
        return True
