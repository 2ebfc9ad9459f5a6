"""Whether a vault has its own row, and which master key opens it: looked at without making anything."""

from contextlib import closing

import psycopg2
from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import Database
from infra.adapters.vault.keys import META, master_keys, opened
from schemas.errors import KeyMissing


def prove(cursor: Cursor, master_key: bytes | None) -> None:
    """Prove that the vault has its own row, and that the master key opens it; makes nothing.

    Raises MasterKeyWrong, KeyMissing for a vault that is empty or has no tables.
    """
    try:
        cursor.execute(META)
    except psycopg2.errors.UndefinedTable as err:
        raise KeyMissing("the vault has no tables: restore its database from a backup") from err
    row = cursor.fetchone()
    if row is None:
        raise KeyMissing("the vault lost its keys: restore its database from a backup")
    if master_key is not None:
        opened(master_keys(cursor, master_key), row)


def vault_is_new(vault_dsn: str) -> bool:
    """Whether no master key was ever used on this vault (migrated or not). Raises StoreUnavailable."""
    with closing(Database(vault_dsn, "touchfold vault")) as database:
        try:
            with database.transaction() as cursor:
                cursor.execute("select 1 from vault_meta")
                return cursor.fetchone() is None
        except psycopg2.errors.UndefinedTable:
            return True
