"""Which fields were declared clear, and since when (migration 0013)."""

from typing import Final

from psycopg2.extras import Json

from infra.adapters.postgres.database import Database
from schemas.clear_rules import Declared
from schemas.clear_view import hash_of, plain_of

_NEWEST: Final = "select hash from clear_rules order by since desc limit 1"
_NOTE: Final = """
insert into clear_rules
select %s, %s, created_at from revisions where state in ('live', 'building') order by revision desc limit 1
on conflict (hash) do update set since = excluded.since
"""


class PostgresClearRules:
    """Any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted = ""

    def note(self, declared: Declared) -> None:
        """Note that these declarations are now in force."""
        now = hash_of(declared)
        if now == self._noted:
            return
        with self._database.transaction() as cursor:
            cursor.execute(_NEWEST)
            row = cursor.fetchone()
            if row is None or row[0] != now:
                cursor.execute(_NOTE, (now, Json(plain_of(declared))))
        self._noted = now

    def newest(self) -> str | None:
        """The hash of those in force; None: the archive process has not noted any yet."""
        with self._database.reading() as cursor:
            cursor.execute(_NEWEST)
            row = cursor.fetchone()
        return None if row is None else str(row[0])
