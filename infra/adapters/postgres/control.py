"""`Control` in PostgreSQL: revisions, progress, facts."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from psycopg2.errors import UndefinedTable
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import Json

from infra.adapters.postgres import members as postgres_members
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.figures import forget_figures, make_nobody_due
from infra.adapters.postgres.locks import PARTITIONS_LOCK
from schemas.control import SUPERSEDED, Beat, Layout, Progress, Revision
from schemas.errors import DefinitionsMoved
from schemas.facts import Fact
from schemas.waits import Wait, Waiting

_REVISION: Final = "select revision, state, cause, definitions, content_hash, done, message from revisions"
_BEAT: Final = """
select (select revision from revisions where state = 'live'),
    (select min(revision) from revisions where state = 'building'),
    exists (select from marks where revision = %(revision)s and kind <> 'refold'),
    exists (select from marks where revision = %(revision)s and kind = 'refold'),
    (select coalesce(min(watermark_us), 0) from progress where revision = %(revision)s),
    exists (select from search_due),
    exists (select from waiting w join progress p using (partition)
        where w.reader = 'worker' and p.revision = %(revision)s and p.next_offset = w."offset"),
    (select count(*) from set_aside),
    exists (select from nobody_due where revision = %(revision)s)
        or exists (select from figure_profile_fills where revision = %(revision)s)
        or exists (select from figure_event_fills),
    """

WAITING: Final = """
select w.reader, w.since, w.partition, w."offset", w.code, w.reason from waiting w
where w.reader <> 'worker' or exists (
    select from progress p where p.revision = (select revision from revisions where state = 'live')
        and p.partition = w.partition and p.next_offset = w."offset")
order by w.partition, w.reader
"""


class PostgresControl:
    """One connection: give each thread its own."""

    def __init__(self, dsn: str, name: str = "touchfold control") -> None:
        self._database = Database(dsn, name, Lane.WORK)

    def live(self) -> Revision:
        (found,) = self._revisions("where state = 'live'")
        return found

    def building(self) -> Revision | None:
        found = self._revisions("where state = 'building' order by revision limit 1")
        return found[0] if found else None

    def revision(self, number: int) -> Revision:
        (found,) = self._revisions(f"where revision = {int(number)}")
        return found

    def newest_of_all(self) -> Revision:
        """Whatever became of it; `newest` leaves out failed ones."""
        return self._revisions("order by revision desc limit 1")[0]

    def _revisions(self, where: str) -> list[Revision]:
        with self._database.reading() as cursor:
            cursor.execute(f"{_REVISION} {where}")
            return [Revision(*row) for row in cursor.fetchall()]

    def layout(self) -> Layout:
        with self._database.reading() as cursor:
            cursor.execute("select value from meta where key = 'layout'")
            row = cursor.fetchone()
        return Layout(0, 0) if row is None else Layout(**row[0])

    def note_layout(self, layout: Layout) -> None:
        """States of revisions from `layout.since` on have this layout."""
        with self._database.transaction() as cursor:
            cursor.execute(
                "insert into meta values ('layout', %s) on conflict (key) do update set value = excluded.value",
                (Json(layout._asdict()),),
            )

    def progress(self, revision: int) -> list[Progress]:
        with self._database.reading() as cursor:
            cursor.execute(
                "select partition, epoch, next_offset, watermark_us from progress where revision = %s"
                " order by partition",
                (revision,),
            )
            return [Progress(*row) for row in cursor.fetchall()]

    def claim(self, revision: int, partitions: Collection[int], owner: str) -> list[Progress]:
        with self._database.transaction() as cursor:
            cursor.execute(
                "select from progress where revision = %(revision)s and partition = any(%(partitions)s)"
                " order by partition for update;"
                " update progress set epoch = epoch + 1, owner = %(owner)s"
                " where revision = %(revision)s and partition = any(%(partitions)s)"
                " returning partition, epoch, next_offset, watermark_us",
                {"revision": revision, "partitions": sorted(partitions), "owner": owner},
            )
            return sorted(Progress(*row) for row in cursor.fetchall())

    def has_unclaimed(self) -> bool:
        with self._database.reading() as cursor:
            cursor.execute(
                "select exists (select from progress join revisions using (revision)"
                " where state = 'live' and epoch = 1 and owner is null)"
            )
            row = cursor.fetchone()
        return row is not None and bool(row[0])

    def add_partitions(self, count: int) -> None:
        with self._database.transaction() as cursor:
            add_partitions(cursor, count)

    def release(self, revision: int, epochs: Mapping[int, int]) -> None:
        with self._database.transaction() as cursor:
            for partition, epoch in sorted(epochs.items()):
                cursor.execute(
                    "update progress set owner = null where revision = %s and partition = %s and epoch = %s",
                    (revision, partition, epoch),
                )

    def save_owned_watermarks(self, revision: int, epochs: Mapping[int, int], watermarks: Mapping[int, int]) -> None:
        rows = [(partition, epochs[partition], at) for partition, at in sorted(watermarks.items())]
        values = ",".join([f"({int(p)}::smallint,{int(epoch)}::bigint,{int(at)}::bigint)" for p, epoch, at in rows])
        with self._database.transaction() as cursor:
            cursor.execute("set local synchronous_commit = off")
            cursor.execute(
                f"update progress p set watermark_us = greatest(p.watermark_us, v.at) from (values {values})"
                " v (partition, epoch, at) where p.revision = %s and p.partition = v.partition and p.epoch = v.epoch",
                (revision,),
            )

    def beat(self, revision: int) -> Beat:
        due = f"(select min(due_us) from profiles_r{int(revision)})"
        with self._database.reading() as cursor:
            try:
                cursor.execute(_BEAT + due, {"revision": revision})
                row = cursor.fetchone()
            except UndefinedTable:  # it was retired and its tables dropped
                cursor.execute("select revision from revisions where state = 'live'")
                row = cursor.fetchone()
        assert row is not None, "there is a live revision"
        return Beat(*row)

    def newest(self) -> Revision:
        return self._revisions("where state in ('building', 'live') order by revision desc limit 1")[0]

    def add_revision(
        self,
        cause: str,
        definitions: Mapping[str, Any],
        content_hash: str,
        at: datetime,
        *,
        base: str,
        fact: Fact | None = None,
    ) -> int:
        with self._database.transaction() as cursor:
            cursor.execute("lock table revisions in share row exclusive mode")
            cursor.execute(f"{_REVISION} where state in ('building', 'live') order by revision desc")
            standing = [Revision(*row) for row in cursor.fetchall()]
            if standing[0].content_hash != base:
                raise DefinitionsMoved("somebody else changed the definitions in the meantime: apply again")
            for older in standing:
                if older.state == "building":
                    _drop(cursor, older.revision, "failed", SUPERSEDED)
            cursor.execute("select max(revision) + 1 from revisions")
            row = cursor.fetchone()
            assert row is not None, "an aggregate gave no row"
            if fact is not None:
                insert_fact(cursor, fact, at)
            insert_revision(cursor, int(row[0]), "building", cause, definitions, content_hash, at)
            make_nobody_due(cursor, int(row[0]))
            return int(row[0])

    def set_done(self, revision: int, done: float) -> None:
        with self._database.transaction() as cursor:
            cursor.execute("update revisions set done = %s where revision = %s", (done, revision))

    def fail(self, revision: int, message: str) -> None:
        with self._database.transaction() as cursor:
            _drop(cursor, revision, "failed", message)

    def drop_retired(self) -> None:
        with self._database.transaction() as cursor:
            cursor.execute(
                "select revision from revisions where state in ('retired', 'failed')"
                " and to_regclass('profiles_r' || revision) is not null"
            )
            for (revision,) in cursor.fetchall():
                _forget(cursor, revision)

    def open_refolds(self, revision: int) -> int:
        with self._database.reading() as cursor:
            cursor.execute(
                "select coalesce(sum(cardinality(signatures)), 0) from marks where revision = %s and kind = 'refold'",
                (revision,),
            )
            row = cursor.fetchone()
            return int(row[0]) if row else 0

    def work_up_to(self, revision: int, last: int | None = None) -> tuple[int, int]:
        with self._database.reading() as cursor:
            cursor.execute(
                "select count(*) filter (where %(last)s is null or id <= %(last)s), coalesce(max(id), 0)"
                " from marks where revision = %(revision)s",
                {"last": last, "revision": revision},
            )
            row = cursor.fetchone()
            return (int(row[0]), int(row[1])) if row else (0, 0)

    def note_wait(self, reader: str, wait: Wait, at: datetime) -> None:
        with self._database.transaction() as cursor:
            cursor.execute(
                'insert into waiting as w (reader, partition, "offset", code, reason, since)'
                " values (%s, %s, %s, %s, %s, %s) on conflict (reader, partition) do update set"
                ' "offset" = excluded."offset", code = excluded.code, reason = excluded.reason,'
                ' since = case when w."offset" = excluded."offset" then w.since else excluded.since end',
                (reader, wait.partition, wait.offset, wait.code, wait.reason[:1_000], at),
            )

    def end_wait(self, reader: str, partition: int) -> None:
        with self._database.transaction() as cursor:
            cursor.execute("delete from waiting where reader = %s and partition = %s", (reader, partition))

    def waiting(self) -> list[Waiting]:
        with self._database.reading() as cursor:
            return waiting(cursor)

    def open_work(self, revision: int, kind: str | None = None) -> int:
        with self._database.reading() as cursor:
            cursor.execute(
                "select count(*) from marks where revision = %s and (%s::text is null or kind = %s)",
                (revision, kind, kind),
            )
            row = cursor.fetchone()
            return int(row[0]) if row else 0

    def close(self) -> None:
        self._database.close()


def waiting(cursor: Cursor) -> list[Waiting]:
    """What is waiting now: see `Control.waiting`. For everything that reports it."""
    cursor.execute(WAITING)
    return [Waiting(reader, Wait(*wait), since) for reader, since, *wait in cursor.fetchall()]


def insert_fact(cursor: Cursor, fact: Fact, at: datetime) -> None:
    """A system fact, in the order of its commit."""
    cursor.execute(
        "insert into facts (type, version, at, payload) values (%s, %s, %s, %s)",
        (fact.type, fact.version, at, Json(fact.payload())),
    )


def add_partitions(cursor: Cursor, count: int) -> None:
    """Rows for partitions below `count` that the log has gained; existing rows stay. Any number may do it.

    Records arriving there were received after everything decided so far, so a new partition's watermark is the lowest
    of the others: it holds nobody back before somebody reads it.
    """
    cursor.execute("select pg_advisory_xact_lock(%s)", (PARTITIONS_LOCK,))
    cursor.execute(
        "insert into log_head select p, 0 from generate_series(0, %s) p on conflict do nothing", (count - 1,)
    )
    cursor.execute(
        "insert into progress (revision, partition, epoch, next_offset, watermark_us)"
        " select r.revision, h.partition, 1, 0,"
        " coalesce((select min(p.watermark_us) from progress p where p.revision = r.revision), 0)"
        " from revisions r cross join log_head h where r.state in ('live', 'building') on conflict do nothing"
    )


def insert_revision(
    cursor: Cursor,
    revision: int,
    state: str,
    cause: str,
    definitions: Mapping[str, Any],
    content_hash: str,
    at: datetime,
) -> None:
    """A revision with its tables, and its progress at the start of every partition."""
    cursor.execute("select pg_advisory_xact_lock(%s)", (PARTITIONS_LOCK,))
    cursor.execute(
        "insert into revisions (revision, state, cause, definitions, content_hash, created_at)"
        " values (%s, %s, %s, %s, %s, %s)",
        (revision, state, cause, Json(dict(definitions)), content_hash, at),
    )
    cursor.execute("select create_revision_tables(%s)", (revision,))
    cursor.execute(
        "insert into progress (revision, partition, epoch, next_offset) select %s, partition, 1, 0 from log_head",
        (revision,),
    )


def _drop(cursor: Cursor, revision: int, state: str, message: str) -> None:
    cursor.execute(
        "update revisions set state = %s, message = %s where revision = %s and state = 'building'",
        (state, message, revision),
    )
    _forget(cursor, revision)


def _forget(cursor: Cursor, revision: int) -> None:
    """Everything kept per revision, except its row and the feed."""
    cursor.execute("select drop_revision_tables(%s)", (revision,))
    postgres_members.forget(cursor, revision)
    cursor.execute("delete from progress where revision = %s", (revision,))
    cursor.execute("delete from marks where revision = %s", (revision,))
    forget_figures(cursor, revision)
