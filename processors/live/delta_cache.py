"""Caches events between FOLD and DECIDE, so that a profile that only gained them need not be summed again.

A state is a commutative fold, so a profile's new state is its stored state with the new events folded in. That holds
while the work item of every event the stored state lacks is here. An event of another process, an identity that moved
or a profile summed again in between ends it for the identifier sets concerned, and DECIDE sums them in full. FOLD and
DECIDE of one process share an instance. If other processes decide too (`shared`), any of them may have summed a profile
with events whose work items are still here, so the short cut applies only while nobody has summed the profile since
this process wrote it. Other processes may add their own events this way: no event has two work items.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from projections.fold.event import FoldEvent
from projections.orders.parts import Part
from schemas.store_rows import ProfileRow

MOST_ITEMS: Final = 2_000  # other workers take some of ours without notice
MOST_PROFILES: Final = 200_000  # remembered as we last wrote them: 30 MB

Seen = list[tuple[Part, FoldEvent, dict[str, Any] | None]]
"""Events of one state in log order: what of each it gets, and its opened sealed part if the fold needed it."""


class DeltaCache:
    """What the last FOLDs applied, by work item and identifier set. Losing it with the process costs only time."""

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self._left: dict[bytes, int] = {}  # profile -> `summed` when we wrote it last
        self._writing: dict[bytes, int] = {}
        self._by_item: dict[int, Mapping[bytes, Seen]] = {}
        self._spoiled: set[bytes] = set()

    def add(self, items: Iterable[tuple[int, Mapping[bytes, Seen]]]) -> None:
        """Add the events of a committed FOLD."""
        if not self._by_item:
            self._spoiled.clear()
        self._by_item.update(items)
        while len(self._by_item) > MOST_ITEMS:
            del self._by_item[next(iter(self._by_item))]

    def of(self, item: int, identifier_sets: Sequence[bytes]) -> Mapping[bytes, Seen] | None:
        """The events behind a work item by identifier set; None if they are not all known."""
        seen = self._by_item.get(item)
        if seen is None or (self._spoiled and not self._spoiled.isdisjoint(identifier_sets)):
            return None
        return seen

    def writes(self, rows: Iterable[ProfileRow]) -> None:
        """Note what a DECIDE writes before it commits."""
        if self._shared:
            self._writing |= {row.profile_id: row.summed for row in rows}

    def decided(self, items: Iterable[int]) -> None:
        """Note that the DECIDE committed; these work items are gone."""
        for item in items:
            self._by_item.pop(item, None)
        if len(self._left) + len(self._writing) > MOST_PROFILES:
            self._left.clear()
        self._left |= self._writing
        self._writing.clear()

    def knows(self, row: ProfileRow) -> bool:
        """Whether nobody else can have added our events to this stored profile."""
        return not self._shared or self._left.get(row.profile_id) == row.summed

    def spoil(self, identifier_sets: Iterable[bytes]) -> None:
        """Drop these identifier sets: a stored state already has their events, so cached work items no longer apply."""
        if self._by_item:
            self._spoiled.update(identifier_sets)

    def clear(self) -> None:
        """Forget everything after a FOLD or DECIDE with unknown outcome. Reading profiles shows how they were left."""
        self._writing.clear()
        self._by_item.clear()
        self._spoiled.clear()
