"""Connections to PostgreSQL: error mapping, transactions, binary COPY. Knows no table of ours."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Final

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from schemas.errors import DiskFull, StoreUnavailable

_DISK_FULL: Final = "53100"
_IDLE: Final = "25P03"  # the server ended a transaction that asked nothing for two minutes
_OPTIONS: Final = "-c TimeZone=UTC -c standard_conforming_strings=on"
_CONSTRAINT: Final = "23"  # class of integrity violations: ours, not an outage


@contextmanager
def mapped() -> Iterator[None]:
    """Turn the driver's outages into StoreUnavailable or DiskFull; integrity and SQL errors pass through."""
    try:
        yield
    except psycopg2.Error as err:
        code = err.pgcode or ""
        if code == _DISK_FULL:
            raise DiskFull("PostgreSQL has no disk space left", retry_after_s=10) from err
        # 40 serialisation and deadlock, 53 resources, 57 shutdown, 08 connection; no code: the socket is gone
        # (a server that crashes in the middle of an answer leaves a bare DatabaseError)
        gone = type(err) is psycopg2.DatabaseError and not code
        if (
            gone
            or isinstance(err, psycopg2.OperationalError | psycopg2.InterfaceError)
            or code[:2]
            in {
                "40",
                "53",
                "57",
                "08",
            }
            or code == _IDLE
        ):
            raise StoreUnavailable(f"PostgreSQL is away ({type(err).__name__})", retry_after_s=1) from err
        raise


def connect(dsn: str, name: str = "touchfold") -> Connection:
    """A new connection in UTC, `name` shown in pg_stat_activity. Raises StoreUnavailable."""
    with mapped():
        connection = psycopg2.connect(dsn, application_name=name, connect_timeout=10, options=_OPTIONS)
    psycopg2.extensions.register_type(_UUID, connection)
    psycopg2.extensions.register_type(_UUID_ARRAY, connection)
    return connection


def _uuid_bytes(value: str | bytes | None, _cursor: object) -> bytes | None:
    return None if value is None else bytes.fromhex(str(value).replace("-", ""))


_UUID = psycopg2.extensions.new_type((2950,), "TOKEN", _uuid_bytes)
_UUID_ARRAY = psycopg2.extensions.new_array_type((2951,), "TOKEN[]", _UUID)


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


class Database:
    """One connection, made when first needed and made anew after an outage. One thread at a time."""

    def __init__(self, dsn: str, name: str = "touchfold") -> None:
        self.dsn = dsn
        self._name = name
        self._connection: Connection | None = None

    def connection(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self.dsn, self._name)
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Commits when the block ends, rolls back when it raises. Outages become StoreUnavailable."""
        with mapped():
            connection = self.connection()
            try:
                with connection.cursor() as cursor:
                    yield cursor
                connection.commit()
            except BaseException:
                self._abandon(connection)
                raise

    @contextmanager
    def reading(self) -> Iterator[Cursor]:
        """A cursor whose statements commit by themselves: one round trip each where a transaction takes three."""
        with mapped():
            connection = self.connection()
            connection.autocommit = True
            try:
                with connection.cursor() as cursor:
                    yield cursor
            finally:
                if not connection.closed:
                    connection.autocommit = False

    def _abandon(self, connection: Connection) -> None:
        try:
            connection.rollback()
        except psycopg2.Error:
            connection.close()  # a broken connection is made anew by the next transaction

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
    """The bytes of a query's binary COPY, header and end included, for parsers that know their columns."""
    buffer = BytesIO()
    cursor.copy_expert(f"COPY ({query}) TO STDOUT BINARY", buffer)
    return buffer.getvalue()


def copy_out(cursor: Cursor, query: str) -> list[tuple[bytes | None, ...]]:
    """The rows of a query by binary COPY, each field raw: uuid 16 bytes, integers big-endian, bytea as it is.

    1 µs a row where the text protocol takes 7. `query` holds no parameters: build it from our own literals
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
    """`copy_out` of two fields, a uuid and a bytea or uuid, neither NULL: half its cost."""
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
    """A uuid[] literal of 16-byte values, safe to stand in a query: hexadecimal digits only."""
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
