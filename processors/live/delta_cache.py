"""Events between FOLD and DECIDE: a profile that only grew by them need not be summed anew from its signatures.

A state is a commutative fold, so the state of a profile with some more events is its stored state with these folded
in. That holds while every event the stored state lacks has its work item here: one of another process, an identity
that moved or a profile summed anew meanwhile ends it for the signatures concerned, and DECIDE goes the long way.
One process's FOLD and DECIDE share an instance. Where other processes decide too (`shared`), any of them may have
summed a profile with events whose work items wait here: it grows only while nobody has summed it since this process
wrote it. That others let it grow by their events does not matter: no event has two work items.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from projections.fold.event import FoldEvent
from schemas.store import ProfileRow

MOST_ITEMS: Final = 2_000  # others take some of ours, and do not tell
MOST_PROFILES: Final = 200_000  # remembered as we left them: 30 MB

Seen = list[tuple[FoldEvent, dict[str, Any] | None]]
"""Events of one signature in the order of the log, each with its opened sealed part where the fold wanted it."""


class DeltaCache:
    """What the last FOLDs applied, by work item and signature. Lost with the process, which costs time alone."""

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self._left: dict[bytes, int] = {}  # profile -> `summed` when we wrote it last
        self._writing: dict[bytes, int] = {}
        self._by_item: dict[int, Mapping[bytes, Seen]] = {}
        self._spoiled: set[bytes] = set()

    def add(self, items: Iterable[tuple[int, Mapping[bytes, Seen]]]) -> None:
        """Events of a FOLD that committed."""
        if not self._by_item:
            self._spoiled.clear()
        self._by_item.update(items)
        while len(self._by_item) > MOST_ITEMS:
            del self._by_item[next(iter(self._by_item))]

    def of(self, item: int, identifier_sets: Sequence[bytes]) -> Mapping[bytes, Seen] | None:
        """The events behind a work item by signature; None when it is not known whole."""
        seen = self._by_item.get(item)
        if seen is None or (self._spoiled and not self._spoiled.isdisjoint(identifier_sets)):
            return None
        return seen

    def writes(self, rows: Iterable[ProfileRow]) -> None:
        """What a DECIDE writes; it has not committed."""
        if self._shared:
            self._writing |= {row.profile_id: row.summed for row in rows}

    def decided(self, items: Iterable[int]) -> None:
        """The DECIDE committed; these work items are gone."""
        for item in items:
            self._by_item.pop(item, None)
        if len(self._left) + len(self._writing) > MOST_PROFILES:
            self._left.clear()
        self._left |= self._writing
        self._writing.clear()

    def knows(self, row: ProfileRow) -> bool:
        """Whether nobody else can have put events of ours into this stored profile."""
        return not self._shared or self._left.get(row.profile_id) == row.summed

    def spoil(self, identifier_sets: Iterable[bytes]) -> None:
        """A stored state has these signatures' events already: whatever work item still holds them says nothing now."""
        if self._by_item:
            self._spoiled.update(identifier_sets)

    def clear(self) -> None:
        """What a FOLD or DECIDE did is not known. How profiles were left is seen when they are read."""
        self._writing.clear()
        self._by_item.clear()
        self._spoiled.clear()
