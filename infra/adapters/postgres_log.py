"""`EventLog` in PostgreSQL tables, the embedded default. Offsets are gapless per partition."""

from collections.abc import Iterable, Sequence
from typing import Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres import Database, copy_rows, f_bytes, f_int2, f_int8
from schemas.failpoints import failpoint
from schemas.record import Pending, Stored, partition_of

PARTITIONS: Final = 4
_COLUMNS: Final = ("partition", "offset", "value")


class PostgresLog:
    """One connection: give each thread its own. The row of log_head is locked from reserve to commit (C13)."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, "touchfold log")

    @property
    def partitions(self) -> int:
        return PARTITIONS

    @property
    def generation(self) -> int:
        with self._database.transaction() as cursor:
            cursor.execute("select value from meta where key = 'log_generation'")
            row = cursor.fetchone()
        return int(row[0]) if row else 1

    def append(self, batch: Sequence[Pending]) -> list[tuple[int, int]]:
        """See the port. One transaction; rows are COPYed grouped by partition, in the order given."""
        groups: dict[int, list[int]] = {}
        for index, pending in enumerate(batch):
            groups.setdefault(partition_of(pending.key, PARTITIONS), []).append(index)
        positions: list[tuple[int, int]] = [(0, 0)] * len(batch)
        with self._database.transaction() as cursor:
            failpoint("log.before_reserve")
            rows: list[bytes] = []
            for partition in sorted(groups):  # always in this order: two writers never deadlock
                first = _reserve(cursor, partition, len(groups[partition]))
                for place, index in enumerate(groups[partition]):
                    positions[index] = (partition, first + place)
                    value = batch[index].value
                    rows.append(f_int2(partition) + f_int8(first + place) + f_bytes(value))
            copy_rows(cursor, "event_log", _COLUMNS, rows)
            failpoint("log.before_commit")
        failpoint("log.after_commit")
        return positions

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        # gapless, so the range bounds the rows: the plan is an index range scan without a sort
        with self._database.transaction() as cursor:
            cursor.execute(
                f'select "offset", value from event_log_{int(partition)} '
                'where "offset" >= %s and "offset" < %s order by "offset"',
                (start, start + limit),
            )
            return [Stored(partition, offset, bytes(value)) for offset, value in cursor.fetchall()]

    def fetch(self, positions: Iterable[tuple[int, int]]) -> list[Stored]:
        groups: dict[int, list[int]] = {}
        for partition, offset in positions:
            groups.setdefault(partition, []).append(offset)
        found: list[Stored] = []
        with self._database.transaction() as cursor:
            for partition, offsets in groups.items():
                cursor.execute(
                    f'select "offset", value from event_log_{int(partition)} where "offset" = any(%s)',
                    (offsets,),
                )
                found += [Stored(partition, offset, bytes(value)) for offset, value in cursor.fetchall()]
        return found

    def ends(self) -> list[int]:
        with self._database.transaction() as cursor:
            cursor.execute("select next_offset from log_head order by partition")
            return [int(row[0]) for row in cursor.fetchall()]

    def close(self) -> None:
        self._database.close()


def _reserve(cursor: Cursor, partition: int, count: int) -> int:
    cursor.execute(
        "update log_head set next_offset = next_offset + %s where partition = %s returning next_offset",
        (count, partition),
    )
    row = cursor.fetchone()
    assert row is not None, f"log_head has no partition {partition}"
    return int(row[0]) - count
