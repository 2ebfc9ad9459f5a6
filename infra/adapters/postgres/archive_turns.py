"""`Turns` of the archivers: PostgreSQL session advisory locks, held by a dedicated connection."""

from contextlib import suppress
from typing import Final

from infra.adapters.postgres.database import Dedicated
from schemas.errors import StoreUnavailable

ARCHIVE_LOCKS: Final = 0x617263  # two keys: this and the partition


class PostgresTurns:
    """Any number of processes. If the connection is lost, all turns are lost, and `check` reports it. One thread."""

    def __init__(self, dsn: str) -> None:
        self._session = Dedicated(dsn, "touchfold archive turns")

    def take(self, partition: int) -> bool:
        return bool(self._ask("select pg_try_advisory_lock(%s, %s)", (ARCHIVE_LOCKS, partition)))

    def check(self) -> None:
        if not self._session.is_open:
            raise StoreUnavailable("the connection that held the archiver's turn is lost", retry_after_s=1)
        self._ask("select true", ())

    def give(self, partition: int) -> None:
        with suppress(StoreUnavailable):  # the turn was lost with the connection
            if self._session.is_open:
                self._ask("select pg_advisory_unlock(%s, %s)", (ARCHIVE_LOCKS, partition))

    def close(self) -> None:
        self._session.close()

    def _ask(self, statement: str, values: tuple[int, ...]) -> object:
        try:
            with self._session.reading() as cursor:
                cursor.execute(statement, values)
                row = cursor.fetchone()
        except StoreUnavailable:
            self.close()
            raise
        return row[0] if row else None
