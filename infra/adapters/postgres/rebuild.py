"""`Rebuilding` in PostgreSQL: the swap of revisions."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres import members as postgres_members
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Dedicated, Uuid
from infra.adapters.postgres.decide import PostgresDecide
from infra.adapters.postgres.figures import count_anew
from infra.adapters.postgres.locks import BUILD_LOCK, ERASURE_LOCK, FOLD_GATE, LIVE_LOCK
from infra.adapters.postgres.snapshot import PostgresSnapshot, Tell, snapshot
from schemas.errors import ProgressConflict, StoreUnavailable
from schemas.failpoints import failpoint
from schemas.rebuilding import SwapPlan
from schemas.store_rows import Change, change_id

_CHUNK: Final = 10_000  # changes in memory at a swap


class PostgresRebuild:
    """Used by the worker that builds, and by comparisons. One thread."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, "touchfold rebuild", Lane.WORK)
        self._leading = Dedicated(dsn, "touchfold builder")  # open while it holds BUILD_LOCK

    def next_profiles(self, after: bytes, limit: int) -> list[bytes]:
        with self._database.transaction() as cursor:
            cursor.execute(
                "select distinct profile_id from evidence where profile_id > %s order by profile_id limit %s",
                (Uuid(after), limit),
            )
            return [row[0] for row in cursor.fetchall()]

    def await_folds(self) -> None:
        with self._database.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (ERASURE_LOCK,))

    def copy_states(self, old: int, new: int) -> None:
        with self._database.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (ERASURE_LOCK,))  # FOLD waits at its batch boundary
            for table in ("states", "laid_off"):
                cursor.execute(f"insert into {table}_r{int(new)} select * from {table}_r{int(old)}")
            cursor.execute(
                "insert into marks (revision, shard, kind, signatures, newest_us, newest_events)"
                " select %s, shard, kind, signatures, newest_us, newest_events from marks"
                " where revision = %s and kind = 'refold'",
                (new, old),
            )
            cursor.execute(
                "update progress n set next_offset = o.next_offset from progress o"
                " where n.revision = %s and o.revision = %s and n.partition = o.partition",
                (new, old),
            )

    def lead(self) -> bool:
        if self._leading.is_open:
            return True
        leads = False
        try:
            with self._leading.reading() as cursor:
                cursor.execute("select pg_try_advisory_lock(%s)", (BUILD_LOCK,))
                row = cursor.fetchone()
            leads = row is not None and bool(row[0])
        finally:
            if not leads:
                self._leading.close()
        return leads

    def resign(self) -> None:
        # Unlock explicitly: the server notices a closed connection a moment later, and the next builder would wait.
        try:
            if self._leading.is_open:
                with self._leading.reading() as cursor:
                    cursor.execute("select pg_advisory_unlock(%s)", (BUILD_LOCK,))
        except StoreUnavailable:
            pass  # the lock ended with its connection
        finally:
            self._leading.close()

    @contextmanager
    def halted(self) -> Iterator[None]:
        gate = Dedicated(self._database.dsn, "touchfold build gate")
        try:
            with gate.transaction() as cursor:
                cursor.execute("select pg_advisory_xact_lock(%s)", (FOLD_GATE,))
                yield
        finally:
            gate.close()

    def swap(self, plan: SwapPlan) -> int:
        with self._database.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s), pg_advisory_xact_lock(%s)", (ERASURE_LOCK, LIVE_LOCK))
            self._check(cursor, plan)
            old, new = plan.old, plan.new
            cursor.execute(
                f"delete from profiles_r{new} p where not exists"
                " (select from evidence e where e.profile_id = p.profile_id)"
            )
            if cursor.rowcount:  # they were counted when they were decided
                count_anew(cursor, new)
            gone = f"where not exists (select from profiles_r{new} p where p.profile_id = m.profile_id)"
            postgres_members.remove(cursor, new, gone)
            cursor.execute(f"delete from order_nodes_r{new} m {gone}")
            cursor.execute(
                f"update profiles_r{new} n set version = o.version from profiles_r{old} o"
                " where n.profile_id = o.profile_id"
            )
            _find_differences(cursor, plan)
            changes = _tell_differences(cursor, plan)
            _note_versions(cursor, plan)
            cursor.execute(
                "update progress n set watermark_us = o.watermark_us from progress o"
                " where n.revision = %s and o.revision = %s and n.partition = o.partition",
                (new, old),
            )
            cursor.execute("update progress set epoch = epoch + 1 where revision = %s", (old,))  # nobody folds it now
            cursor.execute("update revisions set state = 'retired' where revision = %s", (old,))
            cursor.execute("update revisions set state = 'live', done = 1 where revision = %s", (new,))
            failpoint("swap.before_commit")
        failpoint("swap.after_commit")
        return changes

    def _check(self, cursor: Cursor, plan: SwapPlan) -> None:
        cursor.execute(
            "select count(*) from progress a join progress b using (partition)"
            " where a.revision = %s and b.revision = %s and a.next_offset <> b.next_offset",
            (plan.old, plan.new),
        )
        uneven = cursor.fetchone()
        cursor.execute("select count(*) from marks where revision in (%s, %s)", (plan.old, plan.new))
        queued = cursor.fetchone()
        if uneven is None or queued is None or uneven[0] or queued[0]:
            raise ProgressConflict(f"revision {plan.new} is not level with {plan.old} yet")

    def close(self) -> None:
        self._database.close()
        self.resign()

    def snapshot(
        self, revision: int, timeout_s: float = 300, *, folder: Path | None = None, tell: Tell = lambda *_told: None
    ) -> AbstractContextManager[PostgresSnapshot]:
        """See `postgres_snapshot.snapshot`. `folder`: for its temporary files, else the system's."""
        return snapshot(self._database.dsn, revision, timeout_s, folder, tell)


def _find_differences(cursor: Cursor, plan: SwapPlan) -> None:
    """Put into a table what subscribers must learn: memberships, stages and risks that have changed."""
    old, new = plan.old, plan.new
    values = ", ".join("(%s, %s::smallint, %s::smallint)" for _ in plan.segments) or "(null, null, null)"
    cursor.execute("create temporary table pairs (name text, was smallint, is_ smallint) on commit drop")
    if plan.segments:
        cursor.execute(f"insert into pairs values {values}", [item for pair in plan.segments for item in pair])
    cursor.execute(
        f"update memberships_r{new} n set since_us = o.since_us from pairs p, memberships_r{old} o"
        " where n.segment = p.is_ and o.segment = p.was and o.profile_id = n.profile_id"
    )
    cursor.execute(  # someone who is a member now and was not before is one "since load"
        f"update memberships_r{new} n set since_us = null from pairs p where n.segment = p.is_ and not exists"
        f" (select from memberships_r{old} o where o.segment = p.was and o.profile_id = n.profile_id)"
    )
    cursor.execute(
        "create temporary table differing (profile_id uuid, type text, name text, was jsonb, is_ jsonb) on commit drop"
    )
    cursor.execute(
        f"insert into differing select n.profile_id, 'segment', p.name, 'false', 'true'"
        f" from memberships_r{new} n join pairs p on p.is_ = n.segment"
        f" where not exists (select from memberships_r{old} o"
        " where o.segment = p.was and o.profile_id = n.profile_id)"
    )
    cursor.execute(
        f"insert into differing select o.profile_id, 'segment', p.name, 'true', 'false'"
        f" from memberships_r{old} o join pairs p on p.was = o.segment"
        f" join profiles_r{new} living on living.profile_id = o.profile_id"
        f" where not exists (select from memberships_r{new} n"
        " where n.segment = p.is_ and n.profile_id = o.profile_id)"
    )
    both = f"from profiles_r{new} n left join profiles_r{old} o using (profile_id)"
    cursor.execute(
        "insert into differing select n.profile_id, 'lifecycle', null, to_jsonb(o.lifecycle), to_jsonb(n.lifecycle)"
        f" {both} where o.lifecycle is distinct from n.lifecycle"
    )
    cursor.execute(
        "insert into differing"
        " select n.profile_id, 'risk', null, to_jsonb(coalesce(o.risk, 'low')), to_jsonb(n.risk)"
        f" {both} where coalesce(o.risk, 'low') <> n.risk"
    )


def _tell_differences(cursor: Cursor, plan: SwapPlan) -> int:
    """Add them to the change feed, thousands at a time: a definition may change every profile. Returns the number."""
    told = 0
    cursor.execute("create temporary table raised (profile_id uuid, version bigint) on commit drop")
    with cursor.connection.cursor("differing") as found:
        found.execute(
            f"select d.profile_id, d.type, d.name, d.was, d.is_, p.version from differing d"
            f" join profiles_r{plan.new} p using (profile_id)"
            ' order by d.profile_id, d.type collate "C", d.name collate "C" nulls first'
        )
        last, version = b"", 0
        while rows := found.fetchmany(_CHUNK):
            changes = []
            for profile_id, type_, name, was, now, stored in rows:
                version = version + 1 if profile_id == last else int(stored) + 1
                last = profile_id
                changes.append(_change(plan, profile_id, version, type_, name, was, now))
            PostgresDecide(cursor).add_changes(changes)
            _note_raised(cursor, changes)
            told += len(changes)
    cursor.execute(
        f"update profiles_r{plan.new} p set version = r.version"
        " from (select profile_id, max(version) as version from raised group by 1) r where p.profile_id = r.profile_id"
    )
    return told


def _change(
    plan: SwapPlan, profile_id: bytes, version: int, type_: str, name: str | None, was: Any, now: Any
) -> Change:
    key = change_id(profile_id, version, type_, name, was, now)
    return Change(*(key, type_, profile_id, version, name, was, now, plan.at_us, plan.cause, None, str(plan.new)))


def _note_raised(cursor: Cursor, changes: Sequence[Change]) -> None:
    highest = {change.profile_id: change.version for change in changes}
    cursor.execute(
        "insert into raised select * from unnest(%s::uuid[], %s::bigint[])",
        ([key.hex() for key in highest], list(highest.values())),
    )


def _note_versions(cursor: Cursor, plan: SwapPlan) -> None:
    """A segment's version rises when its own meaning changed; removed segments are forgotten."""
    for name, content in plan.contents.items():
        cursor.execute(
            "insert into segment_versions as v (segment, version, content_hash) values (%s, 1, %s)"
            " on conflict (segment) do update set version = v.version + 1, content_hash = excluded.content_hash"
            " where v.content_hash <> excluded.content_hash",
            (name, content),
        )
    cursor.execute("delete from segment_versions where segment <> all(%s)", (list(plan.contents),))
