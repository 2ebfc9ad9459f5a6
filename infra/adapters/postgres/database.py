"""Transactions in PostgreSQL and binary COPY. Knows none of our tables."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Final

import psycopg2
from psycopg2 import DataError
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.connect import PooledConnection, connect, mapped, translated
from infra.adapters.postgres.connection_pool import Lane, pool_of

__all__ = ["DataError", "Database", "Dedicated", "Uuid", "Uuids", "connect", "mapped"]


class Uuid:
    """Adapts 16 raw bytes to a uuid literal: `cursor.execute(…, (Uuid(token),))`."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __conform__(self, _protocol: object) -> "Uuid":
        return self

    def getquoted(self) -> bytes:
        return b"'" + self.raw.hex().encode() + b"'::uuid"


class Uuids:
    """Adapts a sequence of 16-byte values to a uuid[] literal."""

    __slots__ = ("raws",)

    def __init__(self, raws: Sequence[bytes]) -> None:
        self.raws = raws

    def __conform__(self, _protocol: object) -> "Uuids":
        return self

    def getquoted(self) -> bytes:
        return ("'{" + ",".join([raw.hex() for raw in self.raws]) + "}'::uuid[]").encode()


@contextmanager
def _transaction(connection: Connection) -> Iterator[Cursor]:
    try:
        with connection.cursor() as cursor:
            yield cursor
        connection.commit()
    except BaseException:
        _abandon(connection)
        raise


@contextmanager
def _reading(connection: Connection) -> Iterator[Cursor]:
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        if not connection.closed:
            connection.autocommit = False


def _abandon(connection: Connection) -> None:
    try:
        connection.rollback()
    except psycopg2.Error:
        connection.close()  # the next transaction replaces a broken connection


class Database:
    """A database, over whichever connection of the process's pool is free. Any thread.

    A connection goes back to the pool when a block ends: nothing that outlives a transaction (SET without LOCAL,
    LISTEN, a session lock, a temporary table) belongs here; see `Dedicated`. `lane`: work has connections in reserve.
    """

    def __init__(self, dsn: str, name: str = "touchfold", lane: Lane = Lane.READ) -> None:
        """`name`: what it is for; shown in pg_stat_activity by dedicated connections, otherwise for the reader."""
        self.dsn = dsn
        self.name = name
        self._lane = lane
        self.pool = pool_of(dsn)
        self._attached = False

    def transaction(self) -> "_Lent":
        """Commits when the block ends, rolls back if it raises. Outages become StoreUnavailable."""
        return _Lent(self, autocommit=False)

    def reading(self) -> "_Lent":
        """A cursor with autocommit: one round trip per statement, where a transaction takes three."""
        return _Lent(self, autocommit=True)

    def one(self, query: str, params: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row of one autocommit statement."""
        with self.reading() as cursor:
            cursor.execute(query, params)
            return cursor.fetchone()

    def lend(self) -> tuple[PooledConnection, Lane]:
        if not self._attached:
            self._attached = True
            self.pool.attach(self)
        return self.pool.lend(self._lane)

    def close(self) -> None:
        """No longer used; the last user in the process closes idle connections. If used again, it counts again."""
        self._attached = False
        self.pool.detach(self)


class _Lent:
    """The block of a transaction or of statements: a context with a cursor. A class, as every statement uses it."""

    __slots__ = ("_autocommit", "_connection", "_cursor", "_database", "_lane")

    def __init__(self, database: Database, *, autocommit: bool) -> None:
        self._database = database
        self._autocommit = autocommit

    def __enter__(self) -> Cursor:
        connection, self._lane = self._database.lend()
        self._connection = connection
        try:
            if self._autocommit:
                connection.autocommit = True
            self._cursor = connection.cursor()
        except BaseException as err:
            self.__exit__(type(err), err, None)
            raise
        return self._cursor

    def __exit__(self, _type: object, err: BaseException | None, _traceback: object) -> None:
        """Raises what the block's error, or one from the commit, is translated to."""
        connection = self._connection
        try:
            if err is None and not self._autocommit:
                self._cursor.close()
                connection.commit()
            elif not self._autocommit:
                _abandon(connection)
            elif not connection.closed:
                connection.autocommit = False
        except psycopg2.Error as failed:
            _abandon(connection)
            raise (translated(failed) or failed) from (err or failed)
        finally:
            self._database.pool.take_back(connection, self._lane)
        meant = None if err is None else translated(err)
        if meant is not None:
            raise meant from err


class Dedicated:
    """A dedicated connection, for what belongs to a session. Opened when first needed and again after an outage.

    One thread at a time. Each comes on top of the pool, so they are few and counted (decision 0014).
    """

    def __init__(self, dsn: str, name: str) -> None:
        self.dsn = dsn
        self._name = name
        self._connection: PooledConnection | None = None
        pool_of(dsn).attach_dedicated(self)

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.closed

    def connection(self) -> PooledConnection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self.dsn, self._name)
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """As in Database."""
        with mapped(), _transaction(self.connection()) as cursor:
            yield cursor

    @contextmanager
    def reading(self) -> Iterator[Cursor]:
        """As in Database."""
        with mapped(), _reading(self.connection()) as cursor:
            yield cursor

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


# Binary COPY: fields are pre-packed with their length, rows are joined. 3 to 5 times cheaper than text.
COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
COPY_END: Final = struct.pack("!h", -1)
NULL: Final = struct.pack("!i", -1)
LENGTH: Final = struct.Struct("!i")
_INT2: Final = struct.Struct("!ih")
_INT4: Final = struct.Struct("!ii")
_INT8: Final = struct.Struct("!iq")


def f_int2(value: int) -> bytes:
    return _INT2.pack(2, value)


def f_int4(value: int) -> bytes:
    return _INT4.pack(4, value)


def f_int8(value: int | None) -> bytes:
    return NULL if value is None else _INT8.pack(8, value)


def f_bool(value: bool) -> bytes:
    return b"\0\0\0\1\1" if value else b"\0\0\0\1\0"


def f_bytes(value: bytes | None) -> bytes:
    """bytea, or uuid from 16 raw bytes, or text already encoded."""
    return NULL if value is None else LENGTH.pack(len(value)) + value


def f_text(value: str | None) -> bytes:
    return NULL if value is None else f_bytes(value.encode())


def f_json(value: bytes | None) -> bytes:
    """jsonb from encoded JSON."""
    return NULL if value is None else LENGTH.pack(len(value) + 1) + b"\x01" + value


def f_array(oid: int, fields: Sequence[bytes]) -> bytes:
    """A one-dimensional array of packed fields; oid: 2950 uuid, 25 text, 20 int8."""
    if not fields:
        body = struct.pack("!iii", 0, 0, oid)
    else:
        body = struct.pack("!iiiii", 1, 0, oid, len(fields), 1) + b"".join(fields)
    return LENGTH.pack(len(body)) + body


def copy_rows(cursor: Cursor, table: str, columns: Sequence[str], rows: Sequence[bytes]) -> None:
    """COPY rows (each: its packed fields joined) into a table, in the order given."""
    if not rows:
        return
    count = struct.pack("!h", len(columns))
    body = COPY_HEADER + b"".join([part for row in rows for part in (count, row)]) + COPY_END
    names = ", ".join(f'"{name}"' for name in columns)
    cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN BINARY", BytesIO(body))


_FIELD_COUNT: Final = struct.Struct("!h")


def copy_raw(cursor: Cursor, query: str) -> bytes:
    """The bytes of a query's binary COPY, including header and end, for parsers that know their columns."""
    buffer = BytesIO()
    cursor.copy_expert(f"COPY ({query}) TO STDOUT BINARY", buffer)
    return buffer.getvalue()


def copy_out(cursor: Cursor, query: str) -> list[tuple[bytes | None, ...]]:
    """The rows of a query by binary COPY, each field raw: uuid 16 bytes, integers big-endian, bytea unchanged.

    1 µs per row where the text protocol takes 7. `query` takes no parameters: build it from our own literals
    (`array_literal`, integers).
    """
    data = copy_raw(cursor, query)
    rows: list[tuple[bytes | None, ...]] = []
    position = len(COPY_HEADER)
    length_at, count_at = LENGTH.unpack_from, _FIELD_COUNT.unpack_from
    while True:
        (count,) = count_at(data, position)
        position += 2
        if count < 0:
            return rows
        fields: list[bytes | None] = []
        for _ in range(count):
            (length,) = length_at(data, position)
            position += 4
            if length < 0:
                fields.append(None)
            else:
                fields.append(data[position : position + length])
                position += length
        rows.append(tuple(fields))


_PAIR: Final = struct.Struct("!hi16si")  # field count, length and bytes of a uuid, length of the second field


def copy_pairs(cursor: Cursor, query: str) -> list[tuple[bytes, bytes]]:
    """`copy_out` for two fields, a uuid and a bytea or uuid, neither NULL: half its cost."""
    data = copy_raw(cursor, query)
    rows: list[tuple[bytes, bytes]] = []
    position, end = len(COPY_HEADER), len(data) - len(COPY_END)
    pair_at, size = _PAIR.unpack_from, _PAIR.size
    while position < end:
        _, _, key, length = pair_at(data, position)
        position += size + length
        rows.append((key, data[position - length : position]))
    return rows


def array_literal(raws: Iterable[bytes]) -> str:
    """A uuid[] literal of 16-byte values, safe to put into a query: hexadecimal digits only."""
    return "'{" + ",".join([raw.hex() for raw in raws]) + "}'::uuid[]"


def int8(raw: bytes | None) -> int:
    """A bigint, integer or smallint field."""
    return int.from_bytes(raw or b"", "big", signed=True)


def uuid_list(raw: bytes | None) -> list[bytes]:
    """A uuid[] field without NULLs."""
    if raw is None or len(raw) <= 12:
        return []
    return [raw[at : at + 16] for at in range(24, len(raw), 20)]


def int8_list(raw: bytes | None) -> list[int]:
    """A bigint[] field without NULLs."""
    if raw is None or len(raw) <= 12:
        return []
    return [int.from_bytes(raw[at : at + 8], "big", signed=True) for at in range(24, len(raw), 12)]


def text_list(raw: bytes | None) -> list[str]:
    """A text[] field without NULLs."""
    found: list[str] = []
    position = 20
    while raw is not None and position < len(raw):
        (length,) = LENGTH.unpack_from(raw, position)
        found.append(raw[position + 4 : position + 4 + length].decode())
        position += 4 + length
    return found
