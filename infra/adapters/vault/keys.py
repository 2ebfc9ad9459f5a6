"""The vault's master key, and its replacement by another one while everything runs.

What it wraps: the hash key and the check in `vault_meta`, and a key in each row of `_TABLES`. Nothing is derived from
it. During the rewrapping either key opens the other (`key_rotation`), so a process may start with either, and a running
one learns the new key with the next epoch of its lease.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Uuids
from infra.adapters.vault.epochs import bump_epoch, wait_for_leases
from infra.adapters.vault.sealing import open_sealed, seal
from schemas.errors import MasterKeyWrong, SealBroken
from schemas.failpoints import failpoint

CHECKED: Final = b"touchfold vault"
CHECK_AAD: Final = b"master_check"
HASH_KEY_AAD: Final = b"hash_key"
DESTROY_LOCK: Final = 0x64657374  # held to delete or change rows: a copy of the table must not miss either
BATCH: Final = 2_000  # rows: some 20 ms
_NEXT_AAD: Final = b"next master key"
_PREVIOUS_AAD: Final = b"previous master key"
_LEASES_S: Final = 60.0
_TABLES: Final = ("identifiers", "daily_keys", "word_keys")
_PASSES: Final = (*_TABLES, *_TABLES)  # the second round catches what was added under the old key during the first
_DAY: Final = "convert_to(day::text, 'UTF8')"
_PLACE: Final = {"identifiers": "hash", "daily_keys": _DAY, "word_keys": _DAY}
META: Final = "select hash_key_wrapped, master_check from vault_meta"


class MasterKeys(NamedTuple):
    """`newest`: raw, wraps new rows. `ciphers`: what may open a row, newest first."""

    newest: bytes
    ciphers: tuple[AESGCM, ...]

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        return seal(self.ciphers[0], key, aad)

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """Raises InvalidTag."""
        for cipher in self.ciphers[:-1]:
            try:
                return open_sealed(cipher, wrapped, aad)
            except InvalidTag:
                continue
        return open_sealed(self.ciphers[-1], wrapped, aad)

    @classmethod
    def of(cls, key: bytes) -> "MasterKeys":
        return cls(key, (AESGCM(key),))


class Progress(NamedTuple):
    """Of a rotation. `total` as it was at the start."""

    done: int
    total: int


def master_keys(cursor: Cursor, key: bytes) -> MasterKeys:
    """The keys valid now, if `key` is one of them. The vault has its own row. Raises MasterKeyWrong."""
    given = AESGCM(key)
    cursor.execute("select next_wrapped, previous_wrapped from key_rotation")
    row = cursor.fetchone()
    if row is None:
        return MasterKeys(key, (given,))
    try:
        newer = open_sealed(given, bytes(row[0]), _NEXT_AAD)
        return MasterKeys(newer, (AESGCM(newer), given))
    except InvalidTag:
        pass
    try:
        older = open_sealed(given, bytes(row[1]), _PREVIOUS_AAD)
    except InvalidTag as err:
        raise _wrong() from err
    return MasterKeys(key, (given, AESGCM(older)))


def opened(keys: MasterKeys, row: Sequence[bytes]) -> bytes:
    """The hash key of vault_meta's (hash_key_wrapped, master_check). Raises MasterKeyWrong."""
    try:
        keys.unwrap(bytes(row[1]), CHECK_AAD)
        return keys.unwrap(bytes(row[0]), HASH_KEY_AAD)
    except InvalidTag as err:
        raise _wrong() from err


def _wrong() -> MasterKeyWrong:
    return MasterKeyWrong(
        "the master key is not the one this vault was created with, or touchfold key rotate has replaced it: put back "
        "the right file master.key, or the right TOUCHFOLD_MASTER_KEY. Nothing was changed"
    )


class KeyRotation:
    """For one vault. `key`: either of the two. Any number of processes may do steps; each step commits."""

    def __init__(self, vault_dsn: str, key: bytes) -> None:
        self._dsn = vault_dsn
        self._key = key
        self._database = Database(vault_dsn, "touchfold key rotation", Lane.WORK)

    def under_way(self) -> Progress | None:
        with self._database.reading() as cursor:
            cursor.execute("select done, total from key_rotation")
            row = cursor.fetchone()
        return None if row is None else Progress(int(row[0]), int(row[1]))

    def newest(self) -> bytes:
        """The key valid from now on. Raises MasterKeyWrong."""
        with self._database.transaction() as cursor:
            return master_keys(cursor, self._key).newest

    def begin(self, new: bytes, at: datetime) -> None:
        """From here on both keys open everything, and the new one wraps new rows; returns when all know it."""
        with self._database.transaction() as cursor:
            cursor.execute(f"{META} for update")
            row = cursor.fetchone()
            assert row is not None, "the vault was prepared"
            opened(MasterKeys.of(self._key), row)
            cursor.execute(
                "insert into key_rotation select true, %s, %s, %s, '', 0,"
                " 2 * ((select count(*) from identifiers) + (select count(*) from daily_keys)"
                " + (select count(*) from word_keys)), 0, 0",
                (seal(AESGCM(self._key), new, _NEXT_AAD), seal(AESGCM(new), self._key, _PREVIOUS_AAD), at),
            )
        failpoint("rotate.begun")
        self.spread()

    def spread(self) -> None:
        """Every process with a lease learns the new key before it makes another row. Raises StoreUnavailable."""
        wait_for_leases(self._dsn, bump_epoch(self._dsn), _LEASES_S)

    def step(self) -> Progress | None:
        """Rewrap the next rows; None: all are done and the old key is refused, or no rotation is in progress."""
        with self._database.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (DESTROY_LOCK,))
            cursor.execute("select position, done, total, pass from key_rotation for update")
            row = cursor.fetchone()
            if row is None:
                return None
            position, done, total, number = bytes(row[0]), int(row[1]), int(row[2]), int(row[3])
            keys = master_keys(cursor, self._key)
            if number == len(_PASSES):
                self._finish(cursor, keys)
                return None
            if number == len(_TABLES) and not position:
                cursor.execute(
                    "update key_rotation set seen_from = pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
                )
            last, count = _rewrap(cursor, keys, _PASSES[number], position)
            following = (b"", number + 1) if last is None else (last, number)
            cursor.execute("update key_rotation set position = %s, pass = %s, done = %s", (*following, done + count))
        failpoint("rotate.stepped")
        return Progress(min(done + count, total), total)

    def _finish(self, cursor: Cursor, keys: MasterKeys) -> None:
        """With additions locked out: rows added under the old key meanwhile, then the vault's own row."""
        for table in _TABLES:
            cursor.execute(f"lock table {table} in share row exclusive mode")
        for table in _TABLES:  # rows that the last pass may have missed
            cursor.execute(
                f"select token, key_wrapped from {table} where age(xmin) <="
                " (select age((seen_from %% 4294967296)::text::xid) from key_rotation)",
                (),
            )
            _wrap(cursor, keys, table, cursor.fetchall())
        cursor.execute(f"{META} for update")
        row = cursor.fetchone()
        assert row is not None, "the vault was prepared"
        hash_key = opened(keys, row)
        cursor.execute(
            "update vault_meta set hash_key_wrapped = %s, master_check = %s",
            (keys.wrap(hash_key, HASH_KEY_AAD), keys.wrap(CHECKED, CHECK_AAD)),
        )
        cursor.execute("delete from key_rotation")

    def close(self) -> None:
        self._database.close()


def _rewrap(cursor: Cursor, keys: MasterKeys, table: str, after: bytes) -> tuple[bytes | None, int]:
    """Rewrap the next rows of a table with the newest key; (where they end, how many), None: no more rows."""
    place = _PLACE[table]
    cursor.execute(
        f"select token, key_wrapped, {place} from {table} where {place} > %s order by {place} limit %s", (after, BATCH)
    )
    rows = cursor.fetchall()
    _wrap(cursor, keys, table, rows)
    return (bytes(rows[-1][2]) if len(rows) == BATCH else None), len(rows)


def _wrap(cursor: Cursor, keys: MasterKeys, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """(token, wrapped key, …) rows. Raises SealBroken for one that neither key opens: it is never discarded."""
    newest = MasterKeys.of(keys.newest)
    changed: list[tuple[bytes, bytes]] = []
    for token, wrapped, *_ in rows:
        try:
            newest.unwrap(bytes(wrapped), token)
        except InvalidTag:
            try:
                changed.append((token, keys.wrap(keys.unwrap(bytes(wrapped), token), token)))
            except InvalidTag as err:
                raise SealBroken(f"neither master key opens the key of vault row {token.hex()}") from err
    if changed:
        cursor.execute(
            f"update {table} set key_wrapped = new.wrapped from unnest(%s, %s) as new (token, wrapped)"
            f" where {table}.token = new.token",
            (Uuids([token for token, _ in changed]), [wrapped for _, wrapped in changed]),
        )


def opens(master_key: bytes, master_check: bytes) -> bool:
    """Whether a check was made with this key."""
    try:
        open_sealed(AESGCM(master_key), master_check, CHECK_AAD)
    except InvalidTag:
        return False
    return True
