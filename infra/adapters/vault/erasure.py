"""`ErasureVault` in PostgreSQL: destroys vault rows, and keeps the list of the suppressed (decisions 0022, 0027)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.backup.notes import Note, gone_at, notes_of
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Dedicated, Uuids, mapped
from infra.adapters.postgres.rights import Need, check_rights
from infra.adapters.vault.epochs import bump_epoch, wait_for_leases
from infra.adapters.vault.keys import DESTROY_LOCK
from infra.adapters.vault.rewrite import end_wal, is_ours, rewrite
from infra.adapters.vault.suppressed import SuppressedList
from schemas.erasures import Remains

LEASES_S: Final = 60.0  # a running door renews its lease within seconds
_NEEDS: Final = (
    Need("identifiers", ("select", "delete", "maintain")),
    Need("suppressed", ("select", "insert", "delete", "maintain")),
    Need("word_keys", ("delete", "maintain")),
    Need("leases", ("select", "delete")),
    Need("vault_meta", ("select", "update")),
)
_BACKUPS: Final = Remains("backups", "you delete the backups that were made before the erasure")
_SPACE: Final = Remains("vault_table", "PostgreSQL overwrites the space of the deleted rows with others")


class PostgresVaultRows:
    """One connection, made when first used."""

    def __init__(self, vault_dsn: str) -> None:
        self._dsn = vault_dsn
        self._database = Database(vault_dsn, "touchfold vault erase", Lane.WORK)
        self._list = SuppressedList(vault_dsn)

    def hashes(self, tokens: Collection[bytes]) -> dict[bytes, bytes]:
        with self._database.transaction() as cursor:
            cursor.execute("select token, hash from identifiers where token = any(%s)", (Uuids(list(tokens)),))
            return {row[0]: bytes(row[1]) for row in cursor.fetchall()}

    def find(self, hashes: Collection[bytes]) -> dict[bytes, bytes]:
        with self._database.transaction() as cursor:
            cursor.execute("select hash, token from identifiers where hash = any(%s::bytea[])", (list(hashes),))
            return {bytes(row[0]): row[1] for row in cursor.fetchall()}

    def present(self, tokens: Collection[bytes]) -> set[bytes]:
        with self._database.transaction() as cursor:
            cursor.execute("select token from identifiers where token = any(%s)", (Uuids(list(tokens)),))
            return {row[0] for row in cursor.fetchall()}

    def suppress(self, people: Iterable[Collection[bytes]]) -> None:
        self._list.add(people)

    def unsuppress(self, hashed: bytes) -> bool:
        return self._list.remove(hashed)

    def suppressed(self) -> dict[bytes, bytes]:
        return self._list.read()

    def add_suppressed(self, marks: Mapping[bytes, bytes]) -> None:
        self._list.restore(marks)

    def forget_everywhere(self, deadline_s: float) -> None:
        wait_for_leases(self._dsn, bump_epoch(self._dsn), deadline_s)

    def check_rights(self) -> None:
        with self._database.transaction() as cursor:
            check_rights(cursor, _NEEDS, "erasing")

    def destroy(self, tokens: Collection[bytes]) -> None:
        """A door that serves one of them may have read the rows again since the epoch before. After one more epoch none
        can, and a returning person is a new customer. Without it such a door would go on handing out the erased tokens.
        """
        with closing(Dedicated(self._dsn, "touchfold vault erase")) as session, mapped():
            connection = session.connection()
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("select pg_advisory_lock(%s)", (DESTROY_LOCK,))  # released with the connection
                cursor.execute("delete from identifiers where token = any(%s)", (Uuids(list(tokens)),))
                if tokens:  # make hashes of searched words meaningless: a view of these people may follow a search
                    cursor.execute("delete from word_keys")
                self.forget_everywhere(LEASES_S)

    def clean(self) -> None:
        """Neither DELETE nor plain VACUUM removes the bytes from the page. On the data folder's server the table is
        rewritten, a checkpoint removes the old file and, as WAL recycling is off, all earlier WAL. On other servers
        VACUUM frees the space, and `remains` says what is left where, and until when.
        """
        with closing(Dedicated(self._dsn, "touchfold vault erase")) as session, mapped():
            connection = session.connection()
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("select pg_advisory_lock(%s)", (DESTROY_LOCK,))
                if not is_ours(cursor):
                    cursor.execute("vacuum (truncate false, index_cleanup on) identifiers, word_keys")
                    return
                cursor.execute("set lock_timeout = '60s'")
                cursor.execute("truncate word_keys")  # keys made since then were used in the log for a few seconds
                cursor.execute("reset lock_timeout")
            rewrite(connection)
            with connection.cursor() as cursor:
                end_wal(cursor)

    def remains(self) -> list[Remains]:
        with self._database.transaction() as cursor:
            if not is_ours(cursor):
                return [_SPACE, *_of_the_wal(cursor), _BACKUPS]
            return [_of_our_backups(notes_of(cursor), datetime.now(UTC))]

    def close(self) -> None:
        self._list.close()
        self._database.close()


def _of_our_backups(notes: Sequence[Note], now: datetime) -> Remains:
    """The day from which no copy made by us holds the rows any more: bases and WAL are removed by then."""
    at = gone_at(notes, now)
    if at is None:
        return _BACKUPS
    return Remains(
        "backups",
        f"{at:%Y-%m-%d}: by then touchfold has removed every backup and all WAL from before the erasure; copies you"
        " made in other ways remain until you delete them",
    )


def _of_the_wal(cursor: Cursor) -> list[Remains]:
    """What an ordinary account can know: how much WAL the server keeps, not when it will have written as much."""
    cursor.execute(
        "select name, setting from pg_settings where name in"
        " ('max_wal_size', 'wal_keep_size', 'checkpoint_timeout', 'archive_mode')"
    )
    told = {str(name): str(value) for name, value in cursor.fetchall()}
    cursor.execute("select (select count(*) from pg_replication_slots), (select count(*) from pg_stat_replication)")
    row = cursor.fetchone()
    slots, replicas = (int(row[0]), int(row[1])) if row else (0, 0)
    kept = f"max_wal_size {told['max_wal_size']} MB, wal_keep_size {told['wal_keep_size']} MB"
    found = [
        Remains(
            "wal",
            f"the server has overwritten the WAL that it keeps ({kept}, a checkpoint at least every"
            f" {told['checkpoint_timeout']} s); when that happens is not known",
        )
    ]
    if slots or replicas:
        found.append(
            Remains("replicas", f"they have done the same ({replicas} connected, {slots} replication slots keep WAL)")
        )
    if told["archive_mode"] != "off":
        found.append(Remains("wal_archive", "you delete the archived WAL from before the erasure"))
    return found
