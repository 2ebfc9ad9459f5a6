"""Merges the small files of an archive in the background, one step at a time, and removes the replaced files.

A damaged file raises an alarm and is left out; the files before and after it are still merged.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from schemas.archive import ArchiveFile, MergingStore, Turns
from schemas.errors import ArchiveDamaged, ProgressConflict
from schemas.merge_plan import due, waiting

RETIRE_S: Final = 300.0  # between checks for a partition's replaced files
BAD_S: Final = 600.0  # until a damaged file is tried again: it may have been repaired


class Step(NamedTuple):
    """What one call of `run_once` did. `waiting`: files still to be merged, as far as known."""

    merged: int = 0
    waiting: int = 0


@dataclass
class Merger:
    """`now`: seconds, monotonic. `alarm` is called once per damaged file.

    `room(bytes)` raises DiskFull if the disk has no room for a file of that size on top of the reserve.
    """

    store: MergingStore
    turns: Turns
    now: Callable[[], float]
    alarm: Callable[[str], None]
    room: Callable[[int], None] = lambda _size: None
    stop: Callable[[], bool] = lambda: False
    bad: dict[str, float] = field(default_factory=dict, init=False)  # damaged files, and until when to skip them
    _retired_at: dict[int, float] = field(default_factory=dict, init=False)

    def run_once(self) -> Step:
        """Do one merge, in the first partition that has one due and whose turn is free.

        On StoreUnavailable or DiskFull, try again later. A conflict with another writer is no error: it did the work.
        """
        entries = self.store.known()
        for partition, of_partition in _by_partition(entries):
            if self.stop():
                break
            if not due(of_partition, self._bad()) or not self.turns.take(partition):
                continue
            try:
                merged = self._merge(partition)
            finally:
                self.turns.give(partition)
            if merged:
                return Step(merged, waiting(self.store.known()))
        return Step(0, waiting(entries))

    def retire(self) -> int:
        """Remove files that were replaced long enough ago, each partition every RETIRE_S; returns how many."""
        removed = 0
        for partition in sorted({entry.partition for entry in self.store.known() if entry.replaces}):
            if self.now() - self._retired_at.get(partition, float("-inf")) < RETIRE_S or self.stop():
                continue
            if not self.turns.take(partition):
                continue
            try:
                self._retired_at[partition] = self.now()
                removed += self.store.retire(partition)
            except ArchiveDamaged as err:
                self._alarm(err)
            finally:
                self.turns.give(partition)
        return removed

    def _merge(self, partition: int) -> int:
        self.store.refresh(partition)
        entries = [entry for entry in self.store.known() if entry.partition == partition]
        for run in due(entries, self._bad())[:1]:
            self.room(sum(entry.bytes for entry in run))
            try:
                self.store.merge(run, self.turns.check)
            except ProgressConflict:
                return 0
            except ArchiveDamaged as err:
                if not err.problems:
                    raise
                self._alarm(err)
                return 0
            return len(run)
        return 0

    def _alarm(self, err: ArchiveDamaged) -> None:
        for problem in err.problems:
            if problem.path not in self.bad:
                self.alarm(problem.reason)
            self.bad[problem.path] = self.now() + BAD_S

    def _bad(self) -> set[str]:
        now = self.now()
        return {path for path, until in self.bad.items() if now < until}


def _by_partition(entries: list[ArchiveFile]) -> Iterator[tuple[int, list[ArchiveFile]]]:
    found: dict[int, list[ArchiveFile]] = defaultdict(list)
    for entry in entries:
        found[entry.partition].append(entry)
    yield from sorted(found.items())
