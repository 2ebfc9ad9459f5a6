"""Notifies readers of the change feed when it has grown: `FeedGrowth` over LISTEN."""

import logging
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from psycopg2.extensions import connection as Connection

from infra.adapters.postgres.database import Dedicated, mapped
from schemas.errors import StoreUnavailable

log = logging.getLogger("touchfold.reads")
CHANNEL: Final = "touchfold_changes"
POLL_S: Final = 0.2  # how late readers notice if a notification is lost


class FeedNotifier:
    """`FeedGrowth` by LISTEN on the sequencer's channel, plus a look at the highest number every 0.2 s.

    One thread serves all waiting readers; it starts with the first. An outage only delays it.
    """

    def __init__(self, dsn: str) -> None:
        self._database = Dedicated(dsn, "touchfold feed bell")
        self._changed = threading.Condition()
        self._count = 0
        self._listeners: set[Callable[[], None]] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def count(self) -> int:
        self._start()
        return self._count

    def wait(self, seen: int, timeout_s: float) -> bool:
        self._start()
        with self._changed:
            return self._changed.wait_for(lambda: self._count != seen or self._stop.is_set(), timeout_s)

    def subscribe(self, ring: Callable[[], None]) -> None:
        """Call `ring` from the notifier's thread whenever the feed grows."""
        self._start()
        with self._changed:
            self._listeners.add(ring)

    def unsubscribe(self, ring: Callable[[], None]) -> None:
        with self._changed:
            self._listeners.discard(ring)

    def close(self) -> None:
        """End the thread and wake all waiting readers."""
        self._stop.set()
        self._notify()
        if self._thread is not None:
            self._thread.join(10)

    def _start(self) -> None:
        with self._changed:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="feed bell", daemon=True)
                self._thread.start()

    def _notify(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()
            for ring in list(self._listeners):
                ring()

    def _run(self) -> None:
        top = -1
        while not self._stop.is_set():
            try:
                with mapped():
                    top = self._listen(top)
            except StoreUnavailable as err:
                log.warning("the change feed cannot be watched: %s", err.message)
                self._database.close()
                self._stop.wait(1)
        self._database.close()

    def _listen(self, top: int) -> int:
        """Watch until told to stop; returns the highest number seen."""
        connection = self._database.connection()
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"listen {CHANNEL}")
        while not self._stop.is_set():
            newest = _highest(connection)
            if newest != top:
                top = newest
                self._notify()
            _await_notice(connection, POLL_S)
        return top


def _highest(connection: Connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute("select coalesce(max(seq), 0) from feed_batches")
        row = cursor.fetchone()
        return int(row[0]) if row else 0


def _await_notice(connection: Connection, timeout_s: float) -> None:
    """Until a notification arrives or the time is up."""
    deadline = time.monotonic() + timeout_s
    while not connection.notifies:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([connection], [], [], left)[0]:
            break
        connection.poll()
    connection.notifies.clear()
