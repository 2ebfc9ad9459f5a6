"""`Rebuilding` and `Snapshot` in PostgreSQL: the swap of revisions, and the view that `rebuild --check` reads."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.connection_pool import Lane
from infra.adapters.postgres import Database, Dedicated, Uuid, copy_out, int8, mapped
from infra.adapters.postgres_decide import PostgresDecide
from infra.adapters.postgres_locks import BUILD_LOCK, ERASURE_LOCK, FOLD_GATE, LIVE_LOCK
from infra.adapters.postgres_rows import PROFILES, evidence_row, profile_row
from schemas.errors import ProgressConflict, StoreUnavailable
from schemas.failpoints import failpoint
from schemas.store import Change, EvidenceRow, ProfileRow, SwapPlan, change_id

_CHUNK: Final = 20_000


class PostgresRebuild:
    """Used by the worker that builds, and by who compares. One thread."""

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
            for table in ("memberships", "order_nodes"):
                cursor.execute(
                    f"delete from {table}_r{new} m where not exists"
                    f" (select from profiles_r{new} p where p.profile_id = m.profile_id)"
                )
            cursor.execute(
                f"update profiles_r{new} n set version = o.version from profiles_r{old} o"
                " where n.profile_id = o.profile_id"
            )
            changes = _differences(cursor, plan)
            PostgresDecide(cursor).add_changes(changes)
            cursor.execute("create temporary table raised (profile_id uuid, version bigint) on commit drop")
            _raise_versions(cursor, plan, changes)
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
        return len(changes)

    def _check(self, cursor: Cursor, plan: SwapPlan) -> None:
        cursor.execute(
            "select count(*) from progress a join progress b using (partition)"
            " where a.revision = %s and b.revision = %s and a.next_offset <> b.next_offset",
            (plan.old, plan.new),
        )
        uneven = cursor.fetchone()
        cursor.execute("select count(*) from marks where revision in (%s, %s)", (plan.old, plan.new))
        marked = cursor.fetchone()
        if uneven is None or marked is None or uneven[0] or marked[0]:
            raise ProgressConflict(f"revision {plan.new} is not level with {plan.old} yet")

    def close(self) -> None:
        self._database.close()
        self._leading.close()

    @contextmanager
    def snapshot(self, revision: int, timeout_s: float = 300) -> Iterator["PostgresSnapshot"]:
        """Halt FOLD at a batch boundary, wait until marks and open timers are worked off, look, and go on.

        Someone else (the worker) works them off. Raises StoreUnavailable after `timeout_s`.
        """
        gate = Dedicated(self._database.dsn, "touchfold snapshot gate")
        view_of = Dedicated(self._database.dsn, "touchfold snapshot")
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                with gate.transaction() as cursor:
                    cursor.execute("select pg_advisory_xact_lock(%s)", (ERASURE_LOCK,))
                    if self._drained(cursor, revision, deadline):
                        connection = view_of.connection()
                        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
                        view = connection.cursor()
                        view.execute("select 1")  # the view is of this moment; FOLD may go on
                        break
                if time.monotonic() > deadline:
                    raise StoreUnavailable(
                        f"the worker did not decide everything within {timeout_s:.0f} s: is it running?"
                    )
                time.sleep(0.1)
        finally:
            gate.close()
        try:
            with mapped():
                yield PostgresSnapshot(view, revision)
        finally:
            view_of.close()

    def _drained(self, cursor: Cursor, revision: int, deadline: float) -> bool:
        """While FOLD is halted, give DECIDE up to 5 s to work off what is marked or due."""
        until = min(deadline, time.monotonic() + 5)
        while True:
            cursor.execute(
                "select (select count(*) from marks where revision = %s) +"
                f" (select count(*) from profiles_r{int(revision)} where due_us <="
                " (select min(watermark_us) from progress where revision = %s))",
                (revision, revision),
            )
            row = cursor.fetchone()
            if row is not None and row[0] == 0:
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.02)


class PostgresSnapshot:
    """`Snapshot` over a cursor of a repeatable-read transaction."""

    def __init__(self, cursor: Cursor, revision: int) -> None:
        self._cursor = cursor
        self._revision = int(revision)

    @property
    def next_offsets(self) -> Sequence[int]:
        self._cursor.execute(
            "select next_offset from progress where revision = %s order by partition", (self._revision,)
        )
        return [int(row[0]) for row in self._cursor.fetchall()]

    @property
    def watermark_us(self) -> int:
        self._cursor.execute("select min(watermark_us) from progress where revision = %s", (self._revision,))
        row = self._cursor.fetchone()
        return int(row[0]) if row else 0

    def skipped(self) -> set[tuple[int, int]]:
        self._cursor.execute('select partition, "offset" from not_applied')
        return {(int(partition), int(offset)) for partition, offset in self._cursor.fetchall()}

    def erased(self) -> set[bytes]:
        self._cursor.execute("select token from erased_tokens")
        return {row[0] for row in self._cursor.fetchall()}

    def states(self) -> Iterator[tuple[bytes, int, bytes]]:
        for row in self._chunks(f"states_r{self._revision}", "signature", "signature, partition, state"):
            yield row[0] or b"", int8(row[1]), row[2] or b""

    def evidence(self) -> Iterator[EvidenceRow]:
        names = "signature, tokens, kinds, first_us, first_event, profile_id"
        return map(evidence_row, self._chunks("evidence", "signature", names))

    def profiles(self) -> Iterator[ProfileRow]:
        return map(profile_row, self._chunks(f"profiles_r{self._revision}", "profile_id", PROFILES.names))

    def _chunks(self, table: str, key: str, columns: str) -> Iterator[tuple[bytes | None, ...]]:
        """All rows of a table by its uuid key, memory flat."""
        for start in range(256):
            low = f"'{start:02x}{'0' * 30}'::uuid"
            high = f"and {key} < '{start + 1:02x}{'0' * 30}'::uuid" if start < 255 else ""
            yield from copy_out(
                self._cursor, f"select {columns} from {table} where {key} >= {low} {high} order by {key}"
            )


def _differences(cursor: Cursor, plan: SwapPlan) -> list[Change]:
    """What subscribers must learn: memberships, stages and risks that are not what they were."""
    old, new = plan.old, plan.new
    values = ", ".join("(%s, %s::smallint, %s::smallint)" for _ in plan.segments) or "(null, null, null)"
    cursor.execute("create temporary table pairs (name text, was smallint, is_ smallint) on commit drop")
    if plan.segments:
        cursor.execute(f"insert into pairs values {values}", [item for pair in plan.segments for item in pair])
    cursor.execute(
        f"update memberships_r{new} n set since_us = o.since_us from pairs p, memberships_r{old} o"
        " where n.segment = p.is_ and o.segment = p.was and o.profile_id = n.profile_id"
    )
    cursor.execute(  # who is a member now and was not is one "since load"
        f"update memberships_r{new} n set since_us = null from pairs p where n.segment = p.is_ and not exists"
        f" (select from memberships_r{old} o where o.segment = p.was and o.profile_id = n.profile_id)"
    )
    found: list[tuple[bytes, str, str | None, Any, Any]] = []
    cursor.execute(
        f"select n.profile_id, p.name from memberships_r{new} n join pairs p on p.is_ = n.segment"
        f" where not exists (select from memberships_r{old} o"
        " where o.segment = p.was and o.profile_id = n.profile_id)"
    )
    found += [(row[0], "segment", row[1], False, True) for row in cursor.fetchall()]
    cursor.execute(
        f"select o.profile_id, p.name from memberships_r{old} o join pairs p on p.was = o.segment"
        f" join profiles_r{new} living on living.profile_id = o.profile_id"
        f" where not exists (select from memberships_r{new} n"
        " where n.segment = p.is_ and n.profile_id = o.profile_id)"
    )
    found += [(row[0], "segment", row[1], True, False) for row in cursor.fetchall()]
    cursor.execute(
        "select n.profile_id, o.lifecycle, n.lifecycle, o.risk, n.risk"
        f" from profiles_r{new} n left join profiles_r{old} o using (profile_id)"
        " where o.lifecycle is distinct from n.lifecycle or o.risk is distinct from n.risk"
    )
    for profile_id, was_stage, stage, was_risk, risk in cursor.fetchall():
        if was_stage != stage:
            found.append((profile_id, "lifecycle", None, was_stage, stage))
        if (was_risk or "low") != risk:
            found.append((profile_id, "risk", None, was_risk or "low", risk))
    versions = _versions(cursor, plan, {row[0] for row in found})
    changes = []
    for profile_id, type_, name, was, now in sorted(found, key=lambda row: (row[0], row[1], row[2] or "")):
        versions[profile_id] = versions.get(profile_id, 0) + 1
        changes.append(_change(plan, profile_id, versions[profile_id], type_, name, was, now))
    return changes


def _versions(cursor: Cursor, plan: SwapPlan, profile_ids: set[bytes]) -> dict[bytes, int]:
    cursor.execute(f"select profile_id, version from profiles_r{plan.new}")
    return {row[0]: int(row[1]) for row in cursor.fetchall() if row[0] in profile_ids}


def _change(
    plan: SwapPlan, profile_id: bytes, version: int, type_: str, name: str | None, was: Any, now: Any
) -> Change:
    key = change_id(profile_id, version, type_, name, was, now)
    return Change(*(key, type_, profile_id, version, name, was, now, plan.at_us, plan.cause, None, str(plan.new)))


def _raise_versions(cursor: Cursor, plan: SwapPlan, changes: Sequence[Change]) -> None:
    highest = {change.profile_id: change.version for change in changes}
    for at in range(0, len(highest), _CHUNK):
        part = list(highest.items())[at : at + _CHUNK]
        cursor.execute(
            "insert into raised select * from unnest(%s::uuid[], %s::bigint[])",
            ([key.hex() for key, _ in part], [version for _, version in part]),
        )
    cursor.execute(
        f"update profiles_r{plan.new} p set version = r.version from raised r where p.profile_id = r.profile_id"
    )


def _note_versions(cursor: Cursor, plan: SwapPlan) -> None:
    """A segment's version rises when its own meaning changed; one that is gone is forgotten."""
    for name, content in plan.contents.items():
        cursor.execute(
            "insert into segment_versions as v (segment, version, content_hash) values (%s, 1, %s)"
            " on conflict (segment) do update set version = v.version + 1, content_hash = excluded.content_hash"
            " where v.content_hash <> excluded.content_hash",
            (name, content),
        )
    cursor.execute("delete from segment_versions where segment <> all(%s)", (list(plan.contents),))
