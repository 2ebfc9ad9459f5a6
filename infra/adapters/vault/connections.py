"""The vault's two connections: one that writes, used by one thread at a time, and one for reads. Retried once."""

import threading
from collections.abc import Callable
from typing import TypeVar

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database
from schemas.errors import ConnectionsInUse, DiskFull, StoreUnavailable

T = TypeVar("T")


class VaultDatabase:
    """Any thread may call. Connects when first used, and again after an outage."""

    def __init__(self, dsn: str) -> None:
        self._writer = Database(dsn, "touchfold vault", Lane.WORK)
        self._reader = Database(dsn, "touchfold vault reads")
        self._lock = threading.RLock()

    def write(self, work: Callable[[Cursor], T]) -> T:
        """Run in a transaction; retried once after an outage, which may only be a connection from before a restart."""
        with self._lock:
            try:
                with self._writer.transaction() as cursor:
                    return work(cursor)
            except (DiskFull, ConnectionsInUse):
                raise
            except StoreUnavailable:
                with self._writer.transaction() as cursor:
                    return work(cursor)

    def read(self, work: Callable[[Cursor], T]) -> T:
        """Run one read-only statement; retried once after an outage."""
        try:
            with self._reader.reading() as cursor:
                return work(cursor)
        except ConnectionsInUse:
            raise
        except StoreUnavailable:
            with self._reader.reading() as cursor:
                return work(cursor)

    def close(self) -> None:
        with self._lock:
            self._writer.close()
        self._reader.close()
