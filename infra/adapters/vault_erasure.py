"""`ErasureVault` in PostgreSQL: destroys vault rows down to the files, and keeps the list of the suppressed."""

import time
from collections.abc import Collection
from contextlib import closing
from datetime import datetime
from typing import Final

from infra.adapters.connection_pool import Lane
from infra.adapters.postgres import Database, Uuids, connect, mapped
from infra.adapters.vault_epochs import bump_epoch, wait_for_leases
from schemas.errors import StoreUnavailable

LEASES_S: Final = 60.0  # a door renews its lease within seconds, or it has ended
SNAPSHOTS_S: Final = 60.0  # a dump of the vault keeps deleted rows alive while it runs


class PostgresVaultRows:
    """One connection, made when first used."""

    def __init__(self, vault_dsn: str) -> None:
        self._dsn = vault_dsn
        self._database = Database(vault_dsn, "touchfold vault erase", Lane.WORK)

    def hashes(self, tokens: Collection[bytes]) -> list[bytes]:
        with self._database.transaction() as cursor:
            cursor.execute("select hash from identifiers where token = any(%s)", (Uuids(list(tokens)),))
            return [bytes(row[0]) for row in cursor.fetchall()]

    def present(self, tokens: Collection[bytes]) -> set[bytes]:
        with self._database.transaction() as cursor:
            cursor.execute("select token from identifiers where token = any(%s)", (Uuids(list(tokens)),))
            return {row[0] for row in cursor.fetchall()}

    def suppress(self, hashes: Collection[bytes], at: datetime) -> None:
        with self._database.transaction() as cursor:
            cursor.execute(
                "insert into suppressed select hash, %s from unnest(%s::bytea[]) as hash on conflict do nothing",
                (at, list(hashes)),
            )

    def unsuppress(self, hashes: Collection[bytes]) -> int:
        with self._database.transaction() as cursor:
            cursor.execute("delete from suppressed where hash = any(%s::bytea[])", (list(hashes),))
            return cursor.rowcount

    def forget_everywhere(self, deadline_s: float) -> None:
        wait_for_leases(self._dsn, bump_epoch(self._dsn), deadline_s)

    def destroy(self, tokens: Collection[bytes]) -> None:
        """DELETE leaves the bytes in the page and plain VACUUM too: VACUUM FULL writes the table anew (0.9 s at
        200,000 rows of 250 bytes), a checkpoint removes the old file and, WAL recycling being off, all WAL of before.

        A door that serves this person may have read the rows again since the epoch before: after one more nobody
        can, and who returns is a new customer. Without it such a door hands out the erased tokens for ever.
        """
        with self._database.transaction() as cursor:
            cursor.execute("delete from identifiers where token = any(%s)", (Uuids(list(tokens)),))
            cursor.execute("select pg_current_xact_id()::text::bigint")
            row = cursor.fetchone()
        assert row is not None, "a transaction has an id"
        self.forget_everywhere(LEASES_S)
        with closing(connect(self._dsn, "touchfold vault erase")) as connection, mapped():
            connection.autocommit = True
            with connection.cursor() as cursor:
                end = time.monotonic() + SNAPSHOTS_S
                while self._seen_by_others(int(row[0])):
                    if time.monotonic() > end:
                        raise StoreUnavailable(
                            "a long transaction in the vault still sees erased rows", retry_after_s=60
                        )
                    time.sleep(0.05)
                cursor.execute("vacuum full identifiers")
                cursor.execute("select pg_switch_wal()")
                cursor.execute("checkpoint")

    def _seen_by_others(self, transaction: int) -> bool:
        """Whether a snapshot of this database is older than the deletion: its rows would be copied as well."""
        with self._database.transaction() as cursor:
            cursor.execute(
                "select count(*) from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid() and backend_xmin is not null"
                " and age(backend_xmin) >= age((%s %% 4294967296)::text::xid)",
                (transaction,),
            )
            row = cursor.fetchone()
        return row is not None and int(row[0]) > 0

    def close(self) -> None:
        self._database.close()
