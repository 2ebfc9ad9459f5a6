"""`ProjectionStore` in PostgreSQL: one connection with FOLD's and DECIDE's transactions, and the numbering of the feed.

Revision tables are named directly (`states_r3`), so no plan touches another revision.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import Dedicated
from infra.adapters.postgres.decide import PostgresDecide
from infra.adapters.postgres.fold import PostgresFold
from infra.adapters.postgres.locks import FEED_LOCK
from infra.adapters.postgres.orders import LAID_OFF, NODES
from infra.adapters.postgres.rows import ALL
from schemas.failpoints import failpoint
from schemas.store import DecideTx, FoldTx

CHANGES_CHANNEL: Final = "touchfold_changes"
# The lock is a separate statement: the numbering's snapshot is then younger. All in one transaction and one round trip.
_NUMBER: Final = f"""
set local synchronous_commit to default;
select pg_advisory_xact_lock({FEED_LOCK});
with base as (select coalesce(max(seq), 0) as top from feed_batches),
fresh as (select batch, row_number() over (order by batch) as place from feed_batches where seq is null),
numbered as (
    update feed_batches b set seq = base.top + fresh.place from base, fresh where b.batch = fresh.batch
    returning b.batch)
select count(*), case when count(*) > 0 then pg_notify('{CHANGES_CHANNEL}', '') end from numbered
"""


class PostgresStore:
    """One connection: for one FOLD and DECIDE loop.

    Neither waits for the disk: a crash of PostgreSQL may lose their last commits, whole and in order, and the log still
    has everything. `number_feed` waits, and with it everything committed before is on disk: what the feed publishes is
    durable (decision 0008).

    `idle_s`: how long its transaction may be idle before PostgreSQL ends it, when others wait for its locks.
    """

    def __init__(self, dsn: str, name: str = "touchfold worker", *, idle_s: float | None = None) -> None:
        self._database = Dedicated(dsn, name)
        self._idle_ms = None if idle_s is None else int(idle_s * 1_000)
        self._prepared: object = None

    @contextmanager
    def fold(self) -> Iterator[FoldTx]:
        with self._transaction() as cursor:
            yield PostgresFold(cursor)
            failpoint("fold.before_commit")
        failpoint("fold.after_commit")

    @contextmanager
    def decide(self) -> Iterator[DecideTx]:
        with self._transaction() as cursor:
            yield PostgresDecide(cursor)
            failpoint("decide.before_commit")
        failpoint("decide.after_commit")

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        self._prepare()
        with self._database.transaction() as cursor:
            yield cursor

    def _prepare(self) -> None:
        connection = self._database.connection()
        if self._prepared is not connection:
            with self._database.transaction() as cursor:
                cursor.execute("set client_min_messages = warning; set synchronous_commit = off")
                if self._idle_ms is not None:
                    cursor.execute("set idle_in_transaction_session_timeout = %s", (self._idle_ms,))
                cursor.execute("".join([staging.ddl for staging in (*ALL, LAID_OFF, NODES)]))
            self._prepared = connection

    def number_feed(self) -> int:
        with self._database.reading() as cursor:
            cursor.execute(_NUMBER)
            row = cursor.fetchone()
            assert row is not None, "a count gives one row"
        if row[0]:
            failpoint("feed.after_number")
        return int(row[0])

    def hold(self, name: str) -> bool:
        """Whether `name` is ours among all sessions of the database, for exactly as long as this connection lasts."""
        with self._database.reading() as cursor:
            cursor.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (name,))
            row = cursor.fetchone()
        return row is not None and bool(row[0])

    def close(self) -> None:
        self._database.close()
