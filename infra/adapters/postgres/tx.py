"""What FOLD's and DECIDE's transactions share: an open cursor, staged rows, work items and positions."""

from collections.abc import Iterable, Sequence

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import array_literal, copy_out, int8
from infra.adapters.postgres.figures import PostgresFigureTx
from infra.adapters.postgres.staging import Stage, quoted
from schemas.store_rows import NewWorkItem


class PostgresTx(PostgresFigureTx):
    """Over an open cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._stage = Stage(cursor)

    def add_work(self, items: Sequence[NewWorkItem]) -> list[int]:
        if not items:
            return []
        self._cursor.execute(
            "insert into marks (revision, shard, kind, signatures, newest_us, newest_events) values"
            f" {','.join([_work_row(item) for item in items])} returning id"
        )
        return [int(row[0]) for row in self._cursor.fetchall()]

    def building(self) -> list[int]:
        self._cursor.execute("select revision from revisions where state = 'building' order by revision")
        return [int(row[0]) for row in self._cursor.fetchall()]

    def skipped(self, partition: int, start: int, end: int) -> set[int]:
        self._cursor.execute(
            'select "offset" from not_applied where partition = %s and "offset" >= %s and "offset" < %s',
            (partition, start, end),
        )
        return {int(row[0]) for row in self._cursor.fetchall()}

    def positions(self, identifier_sets: Iterable[bytes]) -> list[tuple[int, int]]:
        rows = copy_out(
            self._cursor,
            'select partition, "offset" from register'
            f" where verdict = 0 and signature = any({array_literal(identifier_sets)})",
        )
        return [(int8(row[0]), int8(row[1])) for row in rows]


def _work_row(item: NewWorkItem) -> str:
    identifier_sets = sorted(item.newest)
    newest = [item.newest[identifier_set] for identifier_set in identifier_sets]
    times = ",".join([str(at_us) for at_us, _ in newest])
    events = array_literal(event for _, event in newest)
    head = f"{int(item.revision)},{int(item.shard)},{quoted(item.kind)}"
    return f"({head},{array_literal(identifier_sets)},'{{{times}}}'::bigint[],{events})"
