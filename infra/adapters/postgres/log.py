"""`EventLog` in PostgreSQL tables, the embedded default. Offsets are gapless per partition."""

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, copy_rows
from schemas.failpoints import failpoint
from schemas.record import Pending, Stored, partition_of

PARTITIONS: Final = 4
READ_BYTES: Final = 32 * 2**20  # of records in one read: 2,000 of a usual size have 3 MB, of the largest 3 GB
_UNBOUNDED: Final = 16  # so few may be of any size
_COLUMNS: Final = ("partition", "offset", "value")
_row_head: Final = Struct("!ihiqi").pack  # each field preceded by its length, as binary COPY expects


class PostgresLog:
    """Any thread. The row of log_head is locked from reserve to commit (C13)."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, "touchfold log", Lane.WORK)
        self._reads = Database(dsn, "touchfold log reads")

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
        if not batch:
            return []
        groups: dict[int, list[int]] = {}
        for index, pending in enumerate(batch):
            groups.setdefault(partition_of(pending.key, PARTITIONS), []).append(index)
        positions: list[tuple[int, int]] = [(0, 0)] * len(batch)
        with self._database.transaction() as cursor:
            failpoint("log.before_reserve")
            rows: list[bytes] = []
            firsts = _reserve(cursor, {partition: len(group) for partition, group in groups.items()})
            for partition, group in sorted(groups.items()):
                for offset, index in enumerate(group, firsts[partition]):
                    positions[index] = (partition, offset)
                    value = batch[index].value
                    rows.append(_row_head(2, partition, 8, offset, len(value)) + value)
            copy_rows(cursor, "event_log", _COLUMNS, rows)
            failpoint("log.before_commit")
        failpoint("log.after_commit")
        return positions

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        # gapless, so the range bounds the rows: the plan is an index range scan without a sort
        rows = f'select "offset", value from event_log_{int(partition)} where "offset" >= %s and "offset" < %s'
        if limit > _UNBOUNDED:  # sizes alone are read without the values: 0.3 ms for 2,000
            rows = (
                'select "offset", value from (select "offset", value, sum(octet_length(value)) over'
                f' (order by "offset") - octet_length(value) as before from event_log_{int(partition)}'
                f' where "offset" >= %s and "offset" < %s) r where before < {READ_BYTES}'
            )
        with self._reads.reading() as cursor:
            cursor.execute(f'{rows} order by "offset"', (start, start + limit))
            return [Stored(partition, offset, bytes(value)) for offset, value in cursor.fetchall()]

    def fetch(self, positions: Iterable[tuple[int, int]]) -> list[Stored]:
        groups: dict[int, list[int]] = {}
        for partition, offset in positions:
            groups.setdefault(partition, []).append(offset)
        found: list[Stored] = []
        with self._reads.reading() as cursor:
            for partition, offsets in groups.items():
                cursor.execute(
                    f'select "offset", value from event_log_{int(partition)} where "offset" = any(%s)',
                    (offsets,),
                )
                found += [Stored(partition, offset, bytes(value)) for offset, value in cursor.fetchall()]
        return found

    def ends(self) -> list[int]:
        with self._database.reading() as cursor:  # one row each, and what /health asks
            cursor.execute("select next_offset from log_head order by partition")
            return [int(row[0]) for row in cursor.fetchall()]

    def close(self) -> None:
        self._database.close()
        self._reads.close()


def _reserve(cursor: Cursor, counts: Mapping[int, int]) -> dict[int, int]:
    """The first offset for each partition's `counts`; one round trip.

    Rows are first locked in order of their number, so that two writers never deadlock, then advanced by a second
    statement, which sees what the lock waited for.
    """
    values = ",".join([f"({int(partition)}::smallint,{int(count)}::bigint)" for partition, count in counts.items()])
    cursor.execute(
        f"select from log_head where partition in ({','.join([str(int(each)) for each in counts])})"
        " order by partition for update;"
        f" update log_head h set next_offset = next_offset + n.count from (values {values}) n (partition, count)"
        " where h.partition = n.partition returning h.partition, next_offset"
    )
    ends = dict(cursor.fetchall())
    assert ends.keys() == counts.keys(), "log_head lacks a partition"
    return {partition: end - counts[partition] for partition, end in ends.items()}
