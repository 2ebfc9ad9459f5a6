"""Events between FOLD and DECIDE: a profile that only grew by them need not be summed anew from its signatures.

A state is a commutative fold, so the state of a profile with some more events is its stored state with these folded
in. That holds while every event the stored state lacks has its mark here: a mark of another process, an identity
that moved or a profile summed anew meanwhile ends it for the signatures concerned, and DECIDE goes the long way.
Only where one process folds and decides may an instance be shared between the two.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from projections.fold import FoldEvent

Seen = list[tuple[FoldEvent, dict[str, Any] | None]]
"""Events of one signature in the order of the log, each with its opened sealed part where the fold wanted it."""


class Fresh:
    """What the last FOLDs applied, by mark and signature. Lost with the process, which costs time alone."""

    def __init__(self) -> None:
        self._by_mark: dict[int, Mapping[bytes, Seen]] = {}
        self._spoiled: set[bytes] = set()

    def add(self, marks: Iterable[tuple[int, Mapping[bytes, Seen]]]) -> None:
        """Events of a FOLD that committed."""
        if not self._by_mark:
            self._spoiled.clear()
        self._by_mark.update(marks)

    def of(self, mark: int, signatures: Sequence[bytes]) -> Mapping[bytes, Seen] | None:
        """The events behind a mark by signature; None when it is not known whole."""
        seen = self._by_mark.get(mark)
        if seen is None or (self._spoiled and not self._spoiled.isdisjoint(signatures)):
            return None
        return seen

    def decided(self, marks: Iterable[int]) -> None:
        """These marks are gone."""
        for mark in marks:
            self._by_mark.pop(mark, None)

    def spoil(self, signatures: Iterable[bytes]) -> None:
        """A stored state has these signatures' events already: whatever mark still holds them says nothing now."""
        if self._by_mark:
            self._spoiled.update(signatures)

    def clear(self) -> None:
        self._by_mark.clear()
        self._spoiled.clear()
