"""The vault's rows in PostgreSQL: statements over an open cursor. Knows no key; what it reads is wrapped or sealed."""

from collections.abc import Sequence
from datetime import date

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import Uuid, Uuids
from infra.adapters.vault.values import Made, Row


class Byteas:
    """Adapts byte strings to a bytea[] literal; psycopg2's own way, element by element, takes 3 times as long."""

    __slots__ = ("raws",)

    def __init__(self, raws: Sequence[bytes | None]) -> None:
        self.raws = raws

    def __conform__(self, _protocol: object) -> "Byteas":
        return self

    def getquoted(self) -> bytes:
        return (
            "'{"
            + ",".join(["NULL" if raw is None else '"\\\\x' + raw.hex() + '"' for raw in self.raws])
            + "}'::bytea[]"
        ).encode()


def of_hashes(cursor: Cursor, hashes: Sequence[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    """(hash, token, wrapped key) of those that exist."""
    cursor.execute("select hash, token, key_wrapped from identifiers where hash = any(%s)", (Byteas(hashes),))
    return [(bytes(row[0]), row[1], bytes(row[2])) for row in cursor.fetchall()]


def insert(cursor: Cursor, made: Sequence[Made], wrapped: Sequence[bytes]) -> set[bytes]:
    """Insert rows with their wrapped keys; the hashes of those that were not there before."""
    cursor.execute(
        "insert into identifiers (hash, token, kind, key_wrapped, value_sealed, sent_sealed) "
        "select * from unnest(%s, %s, %s::text[], %s, %s, %s) on conflict (hash) do nothing returning hash",
        (
            Byteas([each.hashed for each in made]),
            Uuids([each.token for each in made]),
            [each.kind for each in made],
            Byteas(wrapped),
            Byteas([each.value for each in made]),
            Byteas([each.sent for each in made]),
        ),
    )
    return {bytes(row[0]) for row in cursor.fetchall()}


def values_of(cursor: Cursor, tokens: Sequence[bytes]) -> list[Row]:
    """Of those that exist."""
    cursor.execute(
        "select token, kind, key_wrapped, value_sealed, sent_sealed from identifiers where token = any(%s)",
        (Uuids(tokens),),
    )
    return [
        (row[0], row[1], bytes(row[2]), bytes(row[3]), None if row[4] is None else bytes(row[4]))
        for row in cursor.fetchall()
    ]


def keys_of(cursor: Cursor, tokens: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """(token, wrapped key): of identifiers, of days' dead letters and of days' words."""
    cursor.execute(
        "select token, key_wrapped from identifiers where token = any(%(tokens)s) union all "
        "select token, key_wrapped from daily_keys where token = any(%(tokens)s) union all "
        "select token, key_wrapped from word_keys where token = any(%(tokens)s)",
        {"tokens": Uuids(tokens)},
    )
    return [(row[0], bytes(row[1])) for row in cursor.fetchall()]


def key_of_day(cursor: Cursor, table: str, day: date, token: bytes, wrapped: bytes) -> bytes:
    """The token of a day's key in `daily_keys` or `word_keys`; this one where the day has none."""
    cursor.execute(f"insert into {table} values (%s, %s, %s) on conflict (day) do nothing", (day, Uuid(token), wrapped))
    cursor.execute(f"select token from {table} where day = %s", (day,))
    row = cursor.fetchone()
    assert row is not None, "the day's key was deleted while we looked"
    return bytes(row[0])


def word_tokens(cursor: Cursor) -> dict[bytes, date]:
    """The day of each key of words."""
    cursor.execute("select token, day from word_keys")
    return {bytes(token): day for token, day in cursor.fetchall()}


def expire(cursor: Cursor, before: date) -> int:
    """Delete the keys of days before `before`; how many sealed dead letters."""
    cursor.execute("delete from word_keys where day < %s", (before,))
    cursor.execute("delete from daily_keys where day < %s", (before,))
    return cursor.rowcount
