"""Addresses that an earlier build may have made of two, and the customers that nothing else holds together."""

from collections.abc import Collection, Iterable
from itertools import groupby
from typing import Final

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database, Uuids, copy_out, uuid_list

# All identifier sets of customers with several old ones that hold such an address, without what says nothing about who
# it is: these addresses, and shared identifiers.
_SETS: Final = """
with held as (
    select distinct e.profile_id, e.signature
    from ambiguous_tokens a join evidence_tokens h on h.token = a.token join evidence e on e.signature = h.signature
    where e.profile_id is not null and e.first_us <= a.until_us
)
select e.profile_id, h.signature, array(
    select s.token from unnest(e.tokens) as s (token)
    where not exists (select from ambiguous_tokens a where a.token = s.token)
      and not exists (select from tokens t where t.token = s.token and t.hub))
from evidence e left join held h on h.signature = e.signature
where e.profile_id in (select profile_id from held group by profile_id having count(*) > 1)
order by e.profile_id
"""


class AmbiguousTokens:
    """One connection."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, "touchfold ambiguous tokens", Lane.WORK)

    def add(self, tokens: Collection[bytes]) -> None:
        """Note them: as of now, and those noted before as of then."""
        with self._database.transaction() as cursor:
            cursor.execute(
                "insert into ambiguous_tokens select a.token,"
                " greatest((extract(epoch from now()) * 1000000)::bigint, t.last_us)"  # a door's clock may be ahead
                " from unnest(%s) as a (token) left join tokens t on t.token = a.token order by 1"
                " on conflict do nothing",
                (Uuids(list(tokens)),),
            )

    def joined(self) -> list[bytes]:
        """Profiles, by id, that these addresses alone hold together: without them there would be two or more."""
        with self._database.reading() as cursor:
            rows = copy_out(cursor, _SETS)
        found = groupby(rows, key=lambda row: row[0] or b"")
        return [profile for profile, of in found if _parts((row[1] is not None, uuid_list(row[2])) for row in of) > 1]

    def close(self) -> None:
        self._database.close()


def _parts(sets: Iterable[tuple[bool, list[bytes]]]) -> int:
    """How many groups of sets have no token in common, of groups with a set that held an address (True)."""
    parts: list[tuple[bool, set[bytes]]] = []
    for held, tokens in sets:
        if not tokens:
            continue  # the address alone: no sign of a further person
        apart = [part for part in parts if part[1].isdisjoint(tokens)]
        met = [part for part in parts if not part[1].isdisjoint(tokens)]
        parts = [*apart, (held or any(part[0] for part in met), set(tokens).union(*(part[1] for part in met)))]
    return sum(held for held, _ in parts)
