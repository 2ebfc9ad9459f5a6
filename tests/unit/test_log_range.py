"""`records_between`: a range is read whole, or not at all."""

from collections.abc import Iterable, Sequence
from itertools import chain

import pytest

from schemas.errors import StoreUnavailable
from schemas.log_range import records_between
from schemas.record import Pending, Stored

KEPT = [0, 1, 4, 5, 9]  # gaps, as markers of transactions leave them


class Miserly:
    """A log of one partition that gives `most` records at a time, and nothing at these reads; it ends at 11."""

    partitions, generation = 1, 1

    def __init__(self, most: int, empty: Iterable[int] = (), end: int = 11) -> None:
        self._most, self._empty, self._end, self._reads = most, set(empty), end, 0

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        self._reads += 1
        if self._reads in self._empty:
            return []
        found = [Stored(partition, offset, b"") for offset in KEPT if start <= offset < self._end]
        return found[: min(limit, self._most)]

    def ends(self) -> list[int]:
        return [self._end]

    def append(self, batch: Sequence[Pending]) -> list[tuple[int, int]]:
        raise AssertionError("nobody appends here")

    def fetch(self, positions: Iterable[tuple[int, int]]) -> list[Stored]:
        raise AssertionError("nobody fetches here")


def offsets(log: Miserly, start: int, end: int, chunk: int = 100) -> list[int]:
    return [record.offset for record in chain.from_iterable(records_between(log, 0, start, end, chunk))]


@pytest.mark.parametrize("most", [1, 2, 100])
@pytest.mark.parametrize(("start", "end"), [(0, 11), (0, 9), (1, 5), (2, 4), (5, 10), (10, 11)])
def test_a_range_is_whole_however_little_the_log_gives_at_a_time(most: int, start: int, end: int) -> None:
    assert offsets(Miserly(most), start, end) == [offset for offset in KEPT if start <= offset < end]


def test_an_empty_read_in_the_middle_loses_nothing() -> None:
    assert offsets(Miserly(1, empty=[1, 3]), 0, 11) == KEPT


def test_a_log_that_shows_less_than_it_had_is_away() -> None:
    with pytest.raises(StoreUnavailable):
        offsets(Miserly(100, end=5), 0, 11)
