"""What an export of one person reads from the main database besides their events, in pages by key."""

from collections.abc import Collection, Iterator
from typing import Any, Final

from infra.adapters.postgres.database import Database, Uuids
from schemas.reads import ChangeRow

PAGE: Final = 1_000


class PostgresPerson:
    """Any thread may call. Ids: every id that the person's profile ever had."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, "touchfold export person")

    def changes(self, ids: Collection[bytes]) -> Iterator[ChangeRow]:
        """Numbered changes of these profiles, in order."""
        seq, idx = 0, -1
        while True:
            with self._database.reading() as cursor:
                cursor.execute(
                    "select b.seq, c.idx, c.id, c.type, c.profile_id, c.version, c.name, c.old, c.new, c.at_us,"
                    " c.cause, c.cause_event, c.cause_definition from changes c join feed_batches b using (batch)"
                    " where c.profile_id = any(%s) and b.seq is not null and (b.seq, c.idx) > (%s, %s)"
                    " order by b.seq, c.idx limit %s",
                    (Uuids(list(ids)), seq, idx, PAGE),
                )
                rows = [ChangeRow(*row) for row in cursor.fetchall()]
            yield from rows
            if len(rows) < PAGE:
                return
            seq, idx = rows[-1].seq, rows[-1].idx

    def views(self, ids: Collection[bytes]) -> Iterator[dict[str, Any]]:
        """Entries of the audit log about these profiles, in order: when, what, and in which role; not by whom."""
        seq = 0
        while True:
            with self._database.reading() as cursor:
                cursor.execute(
                    "select seq, at, role, action from audit_log where profile_id = any(%s) and seq > %s"
                    " order by seq limit %s",
                    (Uuids(list(ids)), seq, PAGE),
                )
                rows = cursor.fetchall()
            for _, at, role, action in rows:
                yield {"at": at.isoformat().replace("+00:00", "Z"), "action": action, "role": role}
            if len(rows) < PAGE:
                return
            seq = int(rows[-1][0])

    def close(self) -> None:
        self._database.close()
