"""Writes the vault's table into new files without the deleted rows, while readers and writers go on.

For the server in the data folder, which is ours alone. On a server run by others, PostgreSQL's own VACUUM must do
(decision 0022).
"""

import time
from typing import Final

from psycopg2.errors import LockNotAvailable
from psycopg2.extensions import cursor as Cursor

from infra.adapters.backup.wal_segments import end_segment
from infra.adapters.postgres.connect import PooledConnection
from infra.adapters.postgres.embedded import CLUSTER_NAME
from schemas.errors import StoreUnavailable

COLUMNS: Final = ("hash", "token", "key_wrapped", "value_sealed", "sent_sealed")  # of these an erasure leaves none
LOCK_TRY_S: Final = 0.3  # other requests for the table queue behind us: give up soon and try again
LOCKED_S: Final = 60.0  # how long a dump of the vault may hold its lock


def is_ours(cursor: Cursor) -> bool:
    """Whether this is a data folder's server: its settings are ours, and its WAL has nobody else's rows."""
    cursor.execute(
        "select r.rolsuper and current_setting('cluster_name') = %s and current_setting('wal_recycle') = 'off'"
        " from pg_roles r where r.rolname = current_user",
        (CLUSTER_NAME,),
    )
    row = cursor.fetchone()
    return row is not None and bool(row[0])


def keep_statistics_empty(cursor: Cursor, table: str) -> None:
    """Otherwise ANALYZE copies rows into pg_statistic, where no erasure looks."""
    for column in COLUMNS:
        cursor.execute(f"alter table {table} alter column {column} set statistics 0")


def rewrite(connection: PooledConnection) -> None:
    """Copy all rows while others read and write, then, under an exclusive lock, copy later additions and swap.

    Deleting or changing rows requires the lock that the caller holds; everybody else only adds rows. The exclusive
    part is one scan for new rows, without building an index. Raises StoreUnavailable if a lock is held too long.
    """
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("set transaction isolation level repeatable read")
        cursor.execute("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        row = cursor.fetchone()
        assert row is not None, "a function returns a row"
        cursor.execute("drop table if exists identifiers_next")  # left by a process that ended here
        cursor.execute("create table identifiers_next (like identifiers including all)")
        keep_statistics_empty(cursor, "identifiers_next")
        cursor.execute("insert into identifiers_next select * from identifiers")
        connection.commit()
        _swap(connection, cursor, int(row[0]))
    connection.autocommit = True


def _swap(connection: PooledConnection, cursor: Cursor, copied_before: int) -> None:
    deadline = time.monotonic() + LOCKED_S
    while True:
        try:
            cursor.execute(f"set local lock_timeout = '{LOCK_TRY_S}s'")
            cursor.execute("lock table identifiers in access exclusive mode")
            break
        except LockNotAvailable as err:
            connection.rollback()
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    "a long transaction in the vault, such as a dump, holds its table: erasing continues when it ends",
                    retry_after_s=60,
                ) from err
            time.sleep(LOCK_TRY_S)
    cursor.execute(  # every row of a transaction that the copy may not have seen; a frozen one has the highest age
        "insert into identifiers_next select * from identifiers where age(xmin) <= age((%s %% 4294967296)::text::xid)"
        " on conflict do nothing",
        (copied_before,),
    )
    cursor.execute("drop table identifiers")
    cursor.execute("alter table identifiers_next rename to identifiers")
    cursor.execute("alter index identifiers_next_pkey rename to identifiers_pkey")
    cursor.execute("alter index identifiers_next_token_key rename to identifiers_token_key")
    connection.commit()


def end_wal(cursor: Cursor) -> None:
    """Leave no earlier WAL on the disk. On an autocommitting connection. Raises StoreUnavailable."""
    end_segment(cursor)
    cursor.execute("checkpoint")
