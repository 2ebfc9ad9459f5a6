"""Ends the current WAL segment on a data folder's server, and waits until the archiver has taken it."""

import time
from typing import Final

from psycopg2.extensions import cursor as Cursor

from schemas.errors import StoreUnavailable

TAKEN_S: Final = 30.0  # a segment is linked in milliseconds
_LOOK_S: Final = 0.02


def end_segment(cursor: Cursor) -> str:
    """The name of the segment that ends the WAL of all earlier commits. Needs a superuser's autocommit connection.

    Raises StoreUnavailable if the archiver does not take it; PostgreSQL then keeps it.
    """
    # if nothing was written since the last switch, it returns the start of an unfinished segment
    cursor.execute("select pg_walfile_name(pg_switch_wal() - 1)")
    row = cursor.fetchone()
    assert row is not None, "a function gives a row"
    segment = str(row[0])
    deadline = time.monotonic() + TAKEN_S
    while not _is_taken(cursor, segment):
        if time.monotonic() > deadline:
            raise StoreUnavailable(
                "PostgreSQL's archiver is not taking finished WAL, so it piles up: read logs/postgres.log",
                retry_after_s=60,
            )
        time.sleep(_LOOK_S)
    return segment


def _is_taken(cursor: Cursor, segment: str) -> bool:
    cursor.execute(
        "select not exists (select from pg_ls_archive_statusdir()"
        " where name like '%%.ready' and name <= %s || '.ready')",
        (segment,),
    )
    row = cursor.fetchone()
    return row is not None and bool(row[0])
