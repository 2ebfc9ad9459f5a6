"""`FeedToPublish` in PostgreSQL: the claim, the place and the feed over one connection.

The claim is a session advisory lock plus a raised epoch. The server ends a session that is silent for `SILENCE_S`, so a
publisher that hangs, or whose machine is gone, loses the claim; it finds out by its epoch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg2.errors
from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import Dedicated, Uuids
from infra.adapters.postgres.profile_reads import DECIDED, OWNED, profile_read
from schemas.errors import ProgressConflict, RevisionReplaced, StoreUnavailable
from schemas.publishing import Place
from schemas.reads import ChangeRow, ProfileRead

PUBLISH_LOCK: Final = 0x707562
SILENCE_S: Final = 20  # twice the time we wait for the brokers
FEED: Final = "changes"  # the row of `publishers`

_CHANGES: Final = """
select b.seq, c.idx, c.id, c.type, c.profile_id, c.version, c.name, c.old, c.new, c.at_us, c.cause, c.cause_event,
    c.cause_definition
from (select batch, seq from feed_batches where seq >= %(seq)s order by seq) b
cross join lateral (
    select * from changes r where r.batch = b.batch and (b.seq > %(seq)s or r.idx > %(idx)s) order by r.idx) c
order by b.seq, c.idx limit %(limit)s
"""
_LIVE: Final = "select revision from revisions where state = 'live'"
_PROFILES: Final = f"""
select (select revision from revisions where state = 'live'), p.profile_id, {DECIDED}
from (select 1) one
left join profiles_r{{revision}} p on p.profile_id = any(%s)
{OWNED}
"""


class PostgresPublishing:
    """One thread."""

    def __init__(self, dsn: str, silence_s: int = SILENCE_S) -> None:
        self._database = Dedicated(dsn, "touchfold publish")
        self._silence_s = silence_s
        self._epoch: int | None = None

    @property
    def claimed(self) -> bool:
        return self._epoch is not None

    def claim(self) -> bool:
        with self._asking() as cursor:
            cursor.execute("set idle_session_timeout = %s", (self._silence_s * 1_000,))
            cursor.execute("select pg_try_advisory_lock(%s)", (PUBLISH_LOCK,))
            if not _one(cursor):
                return False
            cursor.execute(
                "insert into publishers as p (name, epoch) values (%s, 1)"
                " on conflict (name) do update set epoch = p.epoch + 1 returning epoch",
                (FEED,),
            )
            self._epoch = int(_one(cursor))
        return True

    def place(self) -> Place:
        with self._asking() as cursor:
            cursor.execute("select seq, idx from publishers where name = %s and epoch = %s", (FEED, self._epoch))
            row = cursor.fetchone()
            if row is None:
                raise self._taken()
            return Place(int(row[0]), int(row[1]))

    def changes(self, after: Place, limit: int) -> list[ChangeRow]:
        with self._asking() as cursor:
            cursor.execute(_CHANGES, {"seq": after.seq, "idx": after.idx, "limit": limit})
            return [ChangeRow(*row) for row in cursor.fetchall()]

    def live(self) -> int:
        with self._asking() as cursor:
            cursor.execute(_LIVE)
            row = cursor.fetchone()
            if row is None:
                raise StoreUnavailable("no definitions are live yet: the worker has not started", retry_after_s=1)
            return int(row[0])

    def profiles(self, revision: int, profile_ids: Sequence[bytes]) -> list[ProfileRead]:
        with self._asking() as cursor:
            try:
                cursor.execute(_PROFILES.format(revision=int(revision)), (Uuids(list(profile_ids)),))
            except psycopg2.errors.UndefinedTable as err:
                raise RevisionReplaced(f"revision {revision} is gone", retry_after_s=1) from err
            rows = cursor.fetchall()
        if rows[0][0] != revision:
            raise RevisionReplaced(f"revision {revision} is no longer live", retry_after_s=1)
        return [profile_read(row[1:]) for row in rows if row[1] is not None]

    def settle(self) -> None:
        with self._asking() as cursor:  # a commit that waits for the disk, and so for everything committed before it
            cursor.execute("update publishers set seq = seq where name = %s and epoch = %s", (FEED, self._epoch))
            if cursor.rowcount != 1:
                raise self._taken()

    def advance(self, place: Place) -> None:
        with self._asking() as cursor:
            cursor.execute(
                "update publishers set seq = %s, idx = %s where name = %s and epoch = %s",
                (place.seq, place.idx, FEED, self._epoch),
            )
            if cursor.rowcount != 1:
                raise self._taken()

    def _taken(self) -> ProgressConflict:
        self.close()
        return ProgressConflict("another publisher has taken over the change feed")

    @contextmanager
    def _asking(self) -> Iterator[Cursor]:
        """Autocommit statements. After an outage the claim is gone, because its lock went with the connection."""
        try:
            with self._database.reading() as cursor:
                yield cursor
        except RevisionReplaced:
            raise
        except StoreUnavailable:
            self.close()
            raise

    def close(self) -> None:
        """Release the claim."""
        self._epoch = None
        self._database.close()


def _one(cursor: Cursor) -> Any:
    row = cursor.fetchone()
    assert row is not None, "the statement gives one row"
    return row[0]
