"""Vault epochs, for callers that must be sure that no process remembers a row any more (design C2, C12)."""

import time
from contextlib import closing
from typing import Final

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database
from schemas.errors import StoreUnavailable

_LOOK_S: Final = 0.05


def bump_epoch(vault_dsn: str) -> int:
    """Begin a new epoch; returns it. Every holder clears its memory at its next renewal. Raises StoreUnavailable."""
    with closing(Database(vault_dsn, "touchfold vault epoch", Lane.WORK)) as database, database.transaction() as cursor:
        cursor.execute("update vault_meta set epoch = epoch + 1 returning epoch")
        row = cursor.fetchone()
    if row is None:
        raise StoreUnavailable("the vault has not been prepared", retry_after_s=1)
    return int(row[0])


def wait_for_leases(vault_dsn: str, epoch: int, deadline_s: float) -> None:
    """Return when every lease has been renewed in this epoch or has expired by the database's clock.

    Raises StoreUnavailable if one still holds after `deadline_s`; leases last 5 s unless renewed.
    """
    end = time.monotonic() + deadline_s
    with closing(Database(vault_dsn, "touchfold vault epoch", Lane.WORK)) as database:
        while True:
            with database.transaction() as cursor:
                # clock_timestamp, not now(): later than any renewal that committed before
                cursor.execute("delete from leases where expires_at < clock_timestamp()")
                cursor.execute("select count(*) from leases where epoch < %s", (epoch,))
                row = cursor.fetchone()
            assert row is not None, "count returns a row"
            if row[0] == 0:
                return
            if time.monotonic() > end:
                raise StoreUnavailable(f"{row[0]} earlier vault leases are still held", retry_after_s=5)
            time.sleep(_LOOK_S)
