"""What an export of one person reads from the main database besides their events, in pages by key."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from infra.adapters.postgres.database import Database, Uuid, Uuids
from schemas.reads import ChangeRow, PartOf
from schemas.record import from_us

PAGE: Final = 1_000
_VIEWS: Final = """
select a.seq, a.at, a.role, a.action from audit_log a
where (a.profile_id = any(%s) or exists (
        select from unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[]) as p (id, since, until)
        where p.id = a.profile_id and a.at between p.since and p.until))
    and a.seq > %s order by a.seq limit %s
"""
# A profile named by a shared identifier ends when its parts need it no more: it merges into one, the others split off.
_PART_OF: Final = """
with ended as (
    select c.profile_id, c.new ->> 0 into_, c.at_us from changes c join tokens t on t.token = c.profile_id and t.hub
    where c.type = 'identity' and c.name = 'merged_into'),
parted as (
    select profile_id, at_us from changes where type = 'identity' and name = 'split_off' and new ? %(id)s::uuid::text)
select coalesce(e.profile_id, p.profile_id), f.since_us, p.at_us
from (
    select profile_id, at_us from parted union select %(id)s, at_us from ended where into_ = %(id)s::uuid::text) p
left join ended e on e.into_ = p.profile_id::text and e.at_us = p.at_us
cross join (select min(first_us) since_us from tokens where token = any(%(tokens)s)) f
where coalesce(e.profile_id, p.profile_id) <> %(id)s and f.since_us is not null
"""
# From the first event of a person who split off: if that profile is gone or merged by now, it is no longer known.
_JOINED: Final = """
select c.profile_id, coalesce(min(e.first_us), 0), c.at_us
from changes c cross join lateral jsonb_array_elements_text(c.new) part
left join evidence e on e.profile_id = part::uuid
where c.type = 'identity' and c.name = 'split_off' and c.profile_id = any(%s) group by 1, 3
"""


class PostgresPerson:
    """Any thread may call. Ids: every id that the person's profile has ever had."""

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

    def views(self, ids: Collection[bytes], parts: Sequence[PartOf] = ()) -> Iterator[dict[str, Any]]:
        """Audit log entries about these profiles, in order: when, what, and in which role; not by whom."""
        seq = 0
        joined = [Uuids([each.profile_id for each in parts])]
        times = [[from_us(each.since_us) for each in parts], [from_us(each.until_us) for each in parts]]
        while True:
            with self._database.reading() as cursor:
                cursor.execute(_VIEWS, (Uuids(list(ids)), *joined, *times, seq, PAGE))
                rows = cursor.fetchall()
            for _, at, role, action in rows:
                yield {"at": at.isoformat().replace("+00:00", "Z"), "action": action, "role": role}
            if len(rows) < PAGE:
                return
            seq = int(rows[-1][0])

    def joined(self, ids: Collection[bytes]) -> list[PartOf]:
        """See PersonRows."""
        with self._database.reading() as cursor:
            cursor.execute(_JOINED, (Uuids(list(ids)),))
            return [PartOf(*row) for row in cursor.fetchall()]

    def part_of(self, tokens: Collection[bytes], profile_id: bytes) -> list[PartOf]:
        """See PersonRows. From the first receipt of one of the tokens until the profiles were split."""
        with self._database.reading() as cursor:
            cursor.execute(_PART_OF, {"tokens": Uuids(list(tokens)), "id": Uuid(profile_id)})
            return [PartOf(*row) for row in cursor.fetchall()]

    def close(self) -> None:
        self._database.close()
