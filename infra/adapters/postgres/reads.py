"""The reading side's SQL over the live tables: `Reads`.

One connection and one round trip per question: statements autocommit, nothing is locked.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Final

import psycopg2.errors

from infra.adapters.postgres.database import Database, Uuid, Uuids
from infra.adapters.postgres.figures import read_figures
from infra.adapters.postgres.hits import search_newest
from infra.adapters.postgres.log_order import LogOrder
from infra.adapters.postgres.profile_reads import DECIDED, OWNED, profile_read
from infra.adapters.postgres.statements import Params, PerThread, Rows
from schemas.errors import RevisionReplaced, StoreUnavailable
from schemas.figures import Figures, Window
from schemas.reads import (
    ChangeRow,
    Deployment,
    Found,
    FoundDeadLetter,
    MemberRow,
    ProfileRead,
    RegisteredEvent,
    RevisionRow,
)
from schemas.record import from_us
from schemas.stamps import parts_of

log = logging.getLogger("touchfold.reads")


_PROFILE: Final = f"""
select (select revision from revisions where state = 'live'),
    exists (select from erased_tokens where token = $1), coalesce(t.hub, false),
    t.profile_id, {DECIDED}
from (select 1) one
left join tokens t on t.token = $1
left join profiles_r{{revision}} p on p.profile_id = t.profile_id
{OWNED}
"""
_PROFILES: Final = f"""
select p.profile_id, {DECIDED}
from profiles_r{{revision}} p
{OWNED}
where p.profile_id = any(%s)
"""
_HOLDERS: Final = """
select p.profile_id from (
    select distinct e.profile_id from evidence_tokens h join evidence e using (signature)
    where h.token = %s and e.profile_id is not null) held
join profiles_r{revision} p using (profile_id) order by p.last_us desc, p.profile_id limit %s
"""
_CHANGES: Final = """
select (select coalesce(max(seq), 0) from feed_batches), c.*
from (select 1) one
left join lateral (
    select b.seq, c.idx, c.id, c.type, c.profile_id, c.version, c.name, c.old, c.new, c.at_us, c.cause, c.cause_event,
        c.cause_definition
    from (select batch, seq from feed_batches where seq >= %(seq)s order by seq) b
    cross join lateral (
        select * from changes r where r.batch = b.batch and (b.seq > %(seq)s or r.idx > %(idx)s)
            and (%(all)s or r.type = any(%(types)s)) order by r.idx) c
    order by b.seq, c.idx limit %(limit)s) c on true
order by c.seq, c.idx
"""
_LISTED: Final = """
with looked as materialized (
    select profile_id, lifecycle, risk from profiles_r{revision} where profile_id > %(after)s
    order by profile_id limit %(looked)s),
hits as (
    select profile_id from looked where (%(stage)s::text is null or lifecycle = %(stage)s)
        and (%(risk)s::text is null or risk = %(risk)s) order by profile_id limit %(limit)s)
select (select count(*) from looked), (select profile_id from looked order by profile_id desc limit 1),
    array(select profile_id from hits order by profile_id)
"""
LOOKED_AT: Final = 20_000  # rows examined for a page of a stage: 15 ms; however rare the stage, never a full scan
_REGISTERED: Final = """
select r.event_key, r.verdict, e.profile_id,
    (select count(*) from not_applied n where n.event_key = r.event_key)
from register r left join evidence e on e.signature = r.signature where r.event_key = any(%s)
"""
# A customer's events: of their identifier sets, and those about their orders that name nobody (decision 0037).
_OWN: Final = """
    from evidence e left join order_sets s on s.signature = e.signature and s.route is not null
    join register r on r.signature = coalesce(s.own, e.signature)
"""
_PLACES: Final = f"""
select r.partition, r."offset", r.event_key {_OWN}
where e.profile_id = %s and r.verdict = 0
"""
# 100,000 places are not fetched to be examined here: the database finds the last ones of each partition.
_LAST_PLACES: Final = f"""
select partition, "offset", total from (
    select r.partition, r."offset", count(*) over () total,
        row_number() over (partition by r.partition order by r."offset" desc) place
    {_OWN}
    where e.profile_id = %s and r.verdict = 0) own
where place <= %s
"""
# The sort key is read inside the database: fetching 50,000 records to sort them here takes 1.2 s, this 0.2 to 0.4 s.
# No sender's text precedes `type`, the times, `n` and `digest` with unescaped quotes. The cut may end inside a
# character: LATIN1 accepts any bytes. It reaches from `occurred_at` to `digest`, before which `n` stands.
_NEWEST: Final = f"""
select partition, "offset" from (
    select r.partition, r."offset", r.event_key,
        split_part(h.head, '"', 1)::timestamptz at,
        split_part(split_part(h.head, '"received_at":"', 2), '"', 1)::timestamptz received_at,
        coalesce(substring(split_part(h.head, '"digest":', 1) from '"n":([0-9]{{1,10}}),')::bigint, 0) n,
        split_part(convert_from(substring(l.value from position('"type":"'::bytea in l.value) + 8 for 64),
            'LATIN1'), '"', 1) type
    {_OWN}
    cross join lateral (  -- never a scan of the log, whatever the planner knows
        select value from event_log o where o.partition = r.partition and o."offset" = r."offset" limit 1) l
    cross join lateral (select convert_from(
        substring(l.value from position('"occurred_at":"'::bytea in l.value) + 15 for 400), 'LATIN1') head) h
    where e.profile_id = %(profile)s and r.verdict = 0) own
where (%(types)s::text[] is null or type = any(%(types)s::text[]))
    and (%(at)s::timestamptz is null or (at, received_at, n, event_key)
        < (%(at)s::timestamptz, %(received_at)s::timestamptz, %(n)s::bigint, %(key)s::uuid))
order by at desc, received_at desc, n desc, event_key desc limit %(limit)s
"""


@contextmanager
def _of_revision(revision: int) -> Iterator[None]:
    """Report that a revision's tables are gone."""
    try:
        yield
    except psycopg2.errors.UndefinedTable as err:
        raise RevisionReplaced(f"revision {revision} is gone", retry_after_s=1) from err


def _stamp(before: tuple[int, bytes] | None) -> dict[str, object]:
    """The parts of a stamp that a statement compares; an order that nobody made is one of no event."""
    if before is None:
        return dict.fromkeys(("at", "received_at", "n", "key"))
    received_us, n, key = parts_of(before[1])
    return {"at": from_us(before[0]), "received_at": from_us(received_us), "n": n, "key": Uuid(key)}


class PostgresReads:
    """`Reads` in PostgreSQL; any thread may call. `order`: sorts events that are outside PostgreSQL."""

    def __init__(self, dsn: str, name: str = "touchfold reads", order: LogOrder | None = None) -> None:
        self._connections = PerThread(lambda: Database(dsn, name))
        self._rows = self._connections.rows
        self._order = order

    def _revision_rows(self, revision: int, query: str, params: Params = ()) -> Rows:
        """Rows of a query over a revision's tables, named with `{revision}`."""
        with _of_revision(revision):
            return self._rows(query.format(revision=int(revision)), params)

    def deployment(self) -> Deployment:
        rows = self._rows("select value from meta where key = 'deployment'")
        if not rows:
            raise StoreUnavailable("the deployment has never been started: run touchfold up first", retry_after_s=5)
        value = rows[0][0]
        return Deployment(value["time_zone"], value["region"], value["currency"])

    def live(self) -> int:
        rows = self._rows("select revision from revisions where state = 'live'")
        if not rows:
            raise StoreUnavailable("no definitions are live yet: the worker has not started", retry_after_s=1)
        return int(rows[0][0])

    def revision(self, number: int) -> RevisionRow:
        rows = self._rows("select revision, cause, definitions, done from revisions where revision = %s", (number,))
        if not rows:
            raise RevisionReplaced(f"revision {number} is gone", retry_after_s=1)
        return RevisionRow(*rows[0])

    def building(self) -> RevisionRow | None:
        rows = self._rows(
            "select revision, cause, definitions, done from revisions where state = 'building'"
            " order by revision limit 1"
        )
        return RevisionRow(*rows[0]) if rows else None

    def profile(self, revision: int, token: bytes) -> Found:
        number = int(revision)
        with _of_revision(number):
            rows = self._connections.prepared(f"profile_r{number}", _PROFILE.format(revision=number), token)
        live, erased, shared, owner, version, *_ = rows[0]
        if live is None:
            raise StoreUnavailable("no definitions are live yet: the worker has not started", retry_after_s=1)
        if version is None:
            return Found(live, erased, owner, None, shared)
        return Found(live, erased, owner, profile_read(rows[0][3:]), shared)

    def profiles(self, revision: int, profile_ids: Sequence[bytes]) -> list[ProfileRead]:
        ids = list(profile_ids)
        if not ids:
            return []
        found = {row[0]: profile_read(row) for row in self._revision_rows(revision, _PROFILES, (Uuids(ids),))}
        return [found[key] for key in ids if key in found]

    def owners(self, tokens: Sequence[bytes]) -> list[bytes]:
        rows = self._rows("select token, profile_id from tokens where token = any(%s)", (Uuids(list(tokens)),))
        owner = {token: profile_id for token, profile_id in rows if profile_id is not None}
        return list(dict.fromkeys(owner[token] for token in tokens if token in owner))

    def holders(self, revision: int, token: bytes, limit: int) -> list[bytes]:
        return [profile_id for (profile_id,) in self._revision_rows(revision, _HOLDERS, (Uuid(token), limit))]

    def search(self, revision: int, terms: Sequence[Sequence[int]], limit: int) -> list[bytes]:
        def ask(query: str, params: Params) -> list[bytes]:
            return [row[0] for row in self._revision_rows(revision, query, params)]

        return search_newest(ask, terms, limit)

    def segment_sizes(self, revision: int) -> dict[int, int]:
        with _of_revision(revision):
            rows = self._rows(
                "select segment, sum(members) from segment_counts where revision = %s group by segment", (revision,)
            )
        return {segment: int(members) for segment, members in rows if members}

    def segment_versions(self) -> dict[str, int]:
        return dict(self._rows("select segment, version from segment_versions"))

    def segment_moves(self, day: date, segments: Sequence[str]) -> dict[str, tuple[int, int]]:
        rows = self._rows(
            'select segment, sum(entered), sum("left") from segment_days'
            " where day = %s and segment = any(%s) group by segment",
            (day, list(segments)),
        )
        return {segment: (int(entered), int(left)) for segment, entered, left in rows}

    def segment_days(self, since: date, segments: Sequence[str]) -> list[tuple[str, date, int, int]]:
        rows = self._rows(
            'select segment, day, sum(entered), sum("left") from segment_days'
            " where day >= %s and segment = any(%s) group by segment, day",
            (since, list(segments)),
        )
        return [(segment, day, int(entered), int(left)) for segment, day, entered, left in rows]

    def figures(self, revision: int, now: Window, before: Window, days: Sequence[int]) -> Figures:
        return read_figures(self._rows, revision, now, before, days)

    def segments_before(self, day: date, segments: Sequence[str]) -> set[str]:
        rows = self._rows(
            "select name from unnest(%s::text[]) name"
            " where exists (select from segment_days d where d.segment = name and d.day < %s)",
            (list(segments), day),
        )
        return {row[0] for row in rows}

    def watermark_us(self, revision: int) -> int:
        rows = self._rows("select coalesce(min(watermark_us), 0) from progress where revision = %s", (revision,))
        return int(rows[0][0])

    def members(self, revision: int, segment: int, after: bytes, limit: int) -> list[MemberRow]:
        rows = self._revision_rows(
            revision,
            "select profile_id, since_us from memberships_r{revision} where segment = %s and profile_id > %s"
            " order by profile_id limit %s",
            (segment, Uuid(after), limit),
        )
        return [MemberRow(*row) for row in rows]

    def listed(
        self, revision: int, after: bytes, stage: str | None, risk: str | None, limit: int
    ) -> tuple[list[bytes], bytes, bool]:
        params = {"after": Uuid(after), "stage": stage, "risk": risk, "limit": limit, "looked": LOOKED_AT}
        ((looked, last, ids),) = self._revision_rows(revision, _LISTED, params)
        found = [bytes(each) for each in ids]
        if len(found) == limit:
            return found, found[-1], True
        return found, after if last is None else bytes(last), looked == LOOKED_AT

    def memberships(self, revision: int, segment: int, profile_ids: Sequence[bytes]) -> list[MemberRow]:
        query = "select profile_id, since_us from memberships_r{revision} where segment = %s and profile_id = any(%s)"
        return [MemberRow(*row) for row in self._revision_rows(revision, query, (segment, Uuids(list(profile_ids))))]

    def changes(self, seq: int, idx: int, limit: int, types: Sequence[str]) -> tuple[list[ChangeRow], int]:
        params = {"seq": seq, "idx": idx, "limit": limit, "all": not types, "types": list(types)}
        rows = self._rows(_CHANGES, params)
        return [ChangeRow(*row[1:]) for row in rows if row[1] is not None], int(rows[0][0])

    def last_positions(self, profile_id: bytes, depth: int) -> tuple[int, list[tuple[int, int]]]:
        rows = self._rows(_LAST_PLACES, (Uuid(profile_id), depth))
        return (int(rows[0][2]) if rows else 0), [(partition, offset) for partition, offset, _ in rows]

    def newest(
        self, profile_id: bytes, before: tuple[int, bytes] | None, limit: int, types: frozenset[str] | None
    ) -> list[tuple[int, int]]:
        if self._order is not None:
            return self._order.newest(self._rows(_PLACES, (Uuid(profile_id),)), before, limit, types)
        params: dict[str, object] = {"profile": Uuid(profile_id), "limit": limit}
        params |= {"types": None if types is None else sorted(types), **_stamp(before)}
        return [(partition, offset) for partition, offset in self._rows(_NEWEST, params)]

    def next_offsets(self, revision: int) -> list[int]:
        rows = self._rows("select next_offset from progress where revision = %s order by partition", (revision,))
        return [int(row[0]) for row in rows]

    def sources(self) -> list[str]:
        return [row[0] for row in self._rows("select name from sources order by name")]

    def registered(self, event_keys: Iterable[bytes]) -> list[RegisteredEvent]:
        return [RegisteredEvent(*row) for row in self._rows(_REGISTERED, (Uuids(list(event_keys)),))]

    def letters(self, event_keys: Iterable[bytes]) -> list[FoundDeadLetter]:
        rows = self._rows(
            "select id, stage, rule, path, reason, source, state, event_id from dead_letters"
            " where event_id = any(%s) order by received_at desc, id",
            (Uuids(list(event_keys)),),
        )
        return [FoundDeadLetter(*row) for row in rows]

    def suppressed(self, event_keys: Iterable[bytes]) -> set[bytes]:
        rows = self._rows("select event_id from suppressed_events where event_id = any(%s)", (Uuids(list(event_keys)),))
        return {row[0] for row in rows}

    def close(self) -> None:
        """Close the connections of all threads; call it when no thread is reading any more."""
        self._connections.close()
