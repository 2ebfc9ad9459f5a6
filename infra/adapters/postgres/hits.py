"""Orders search hits by when customers were last seen: all hits compete, however many there are.

A few hits are sorted. A common word is soon found by walking through the most recently seen customers along their
index. Only if the many hits were all seen long ago is everything sorted.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

from infra.adapters.postgres.database import Uuids

FEW: Final = 5_000  # hits sorted directly: 10 ms
STEPS: Final = (0, 500, 2_500, 10_000, 30_000)  # of the walk: customers examined, about 3 µs each

_ORDER: Final = "order by p.last_us desc nulls last, p.profile_id"
_SOME: Final = "select profile_id from search where {conditions} limit %s"
_SORTED: Final = f"select p.profile_id from profiles_r{{revision}} p where p.profile_id = any(%s) {_ORDER} limit %s"
# Look up each customer's words through the index, in this order; never hash either whole table.
_WALK: Final = f"""
select p.profile_id from (
    select profile_id, last_us from profiles_r{{{{revision}}}} order by last_us desc nulls last, profile_id
    offset %s limit %s) p
cross join lateral (
    select words from search s where s.profile_id = p.profile_id offset 0) s
where {{conditions}} {_ORDER}
"""
_ALL: Final = f"""
select p.profile_id from search s join profiles_r{{{{revision}}}} p using (profile_id)
where {{conditions}} {_ORDER} limit %s
"""
Ask = Callable[[str, Sequence[Any]], list[bytes]]  # (query with {revision}, parameters)


def search_newest(ask: Ask, terms: Sequence[Sequence[int]], limit: int) -> list[bytes]:
    """The `limit` most recently seen hits, newest first. `terms`: a customer must have one from each part."""
    parts = [list(part) for part in terms]
    conditions = " and ".join(["words && %s::bigint[]"] * len(parts))
    some = ask(_SOME.format(conditions=conditions), (*parts, FEW + 1))
    if len(some) <= FEW:
        return ask(_SORTED, (Uuids(some), limit)) if some else []
    found: dict[bytes, None] = {}
    for start, end in pairwise(STEPS):
        found |= dict.fromkeys(ask(_WALK.format(conditions=conditions), (start, end - start, *parts)))
        if len(found) >= limit:
            return list(found)[:limit]
    return ask(_ALL.format(conditions=conditions), (*parts, limit))
