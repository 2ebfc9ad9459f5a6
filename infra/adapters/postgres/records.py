"""Records by their place: what was set aside by hand, and how far the live revision is."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from infra.adapters.postgres.control import insert_fact, waiting
from infra.adapters.postgres.database import Database
from schemas.facts import RecordSetAside
from schemas.waits import WORKER, Wait


class Place(NamedTuple):
    """What is known about a place in the log. `verdict`: from not_applied; `wait`: of the worker blocked there."""

    next_offset: int | None
    verdict: int | None
    wait: Wait | None
    set_aside: bool


class PostgresRecords:
    """Over the connection of a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def place(self, partition: int, offset: int) -> Place:
        with self._database.reading() as cursor:
            cursor.execute(
                "select (select next_offset from progress where partition = %(p)s"
                "   and revision = (select revision from revisions where state = 'live')),"
                ' (select verdict from not_applied where partition = %(p)s and "offset" = %(o)s),'
                ' exists (select from set_aside where partition = %(p)s and "offset" = %(o)s and restored_at is null)',
                {"p": partition, "o": offset},
            )
            row = cursor.fetchone()
            assert row is not None, "a query without a table gives one row"
            waits = [each.wait for each in waiting(cursor) if each.reader == WORKER]
        here = [wait for wait in waits if (wait.partition, wait.offset) == (partition, offset)]
        return Place(row[0], row[1], here[0] if here else None, bool(row[2]))

    def set_aside(self, wait: Wait, who: str, at: datetime) -> None:
        """From now on, folding the partition skips this record. Committed on return; repeating it changes nothing."""
        fact = RecordSetAside(partition=wait.partition, offset=wait.offset, code=wait.code, reason=wait.reason)
        with self._database.transaction() as cursor:
            cursor.execute(
                'insert into set_aside (partition, "offset", at, who, code, reason) values (%s, %s, %s, %s, %s, %s)'
                " on conflict do nothing",
                (wait.partition, wait.offset, at, who, wait.code, wait.reason),
            )
            if cursor.rowcount:
                insert_fact(cursor, fact, at)

    def quarantined(self) -> Sequence[tuple[int, int]]:
        """(partition, offset) of records set aside, by hand or because they can never be read."""
        with self._database.reading() as cursor:
            cursor.execute('select partition, "offset" from not_applied where verdict = 3 and event_key is null')
            return [(int(partition), int(offset)) for partition, offset in cursor.fetchall()]
