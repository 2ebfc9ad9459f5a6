"""Whether a vault has its own row, and which master key opens it: read-only."""

from contextlib import closing

import psycopg2
from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import Database
from infra.adapters.vault.keys import META, master_keys, opened
from schemas.errors import KeyMissing


def prove(cursor: Cursor, master_key: bytes | None) -> None:
    """Prove that the vault has its own row, and that the master key opens it; creates nothing.

    Raises MasterKeyWrong, or KeyMissing for a vault that is empty or has no tables.
    """
    try:
        cursor.execute(META)
    except psycopg2.errors.UndefinedTable as err:
        raise KeyMissing("the vault has no tables: restore its database from a backup") from err
    row = cursor.fetchone()
    if row is None:
        raise KeyMissing("the vault has lost its keys: restore its database from a backup")
    if master_key is not None:
        opened(master_keys(cursor, master_key), row)


def holds_anyone(database: Database, master_key: bytes | None) -> bool:
    """`prove`, and whether there are identifiers or suppressed people. Raises as `prove`."""
    with database.reading() as cursor:
        prove(cursor, master_key)
        cursor.execute("select exists (select from identifiers) or exists (select from suppressed)")
        row = cursor.fetchone()
    return bool(row and row[0])


def sample_of(database: Database, size: int = 20) -> tuple[int, list[bytes]]:
    """How many identifiers there are, and the tokens of a few."""
    with database.reading() as cursor:
        cursor.execute("select count(*) from identifiers")
        row = cursor.fetchone()
        cursor.execute("select token from identifiers limit %s", (size,))
        return int(row[0]) if row else 0, [token for (token,) in cursor.fetchall()]


def vault_is_new(vault_dsn: str) -> bool:
    """Whether no master key has ever been used on this vault (migrated or not). Raises StoreUnavailable."""
    with closing(Database(vault_dsn, "touchfold vault")) as database:
        try:
            with database.transaction() as cursor:
                cursor.execute("select 1 from vault_meta")
                return cursor.fetchone() is None
        except psycopg2.errors.UndefinedTable:
            return True
