"""`Turns` of the archivers: session advisory locks of PostgreSQL, held by one connection of its own."""

from contextlib import suppress
from typing import Final

import psycopg2
from psycopg2.extensions import connection as Connection

from infra.adapters.postgres import connect, mapped
from schemas.errors import StoreUnavailable

ARCHIVE_LOCKS: Final = 0x617263  # two keys: this and the partition


class PostgresTurns:
    """Any number of processes. When the connection is lost so are all turns, and `check` says it. One thread."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Connection | None = None

    def take(self, partition: int) -> bool:
        if self._connection is None:
            self._connection = connect(self._dsn, "touchfold archive turns")
            self._connection.autocommit = True
        return bool(self._ask("select pg_try_advisory_lock(%s, %s)", (ARCHIVE_LOCKS, partition)))

    def check(self) -> None:
        if self._connection is None:
            raise StoreUnavailable("the connection that held the archiver's turn is lost", retry_after_s=1)
        self._ask("select true", ())

    def give(self, partition: int) -> None:
        with suppress(StoreUnavailable):  # the turn went with the connection
            if self._connection is not None:
                self._ask("select pg_advisory_unlock(%s, %s)", (ARCHIVE_LOCKS, partition))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg2.Error):
                connection.close()

    def _ask(self, statement: str, values: tuple[int, ...]) -> object:
        assert self._connection is not None, "the callers look"
        try:
            with mapped(), self._connection.cursor() as cursor:
                cursor.execute(statement, values)
                row = cursor.fetchone()
        except StoreUnavailable:
            self.close()
            raise
        return row[0] if row else None
