"""The archiver: copies applied records from the log into Parquet files, and never a record that is not applied.

It writes a file when a partition has `min_rows` offsets to archive, or its oldest record is older than `max_age_s`.
Several archivers may run: each takes a partition's turn, checks how far the others have got, and writes what is due.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from schemas.archive import ArchiveStore, Turns
from schemas.clear_view import ClearView
from schemas.errors import ArchiveDamaged
from schemas.event_columns import readable_table
from schemas.ports import Clock, EventLog
from schemas.record import CURRENT, Reader, Stored, from_us, received_us
from schemas.waits import Wait

_READ: Final = 2_000  # records per read
_MAX_BYTES: Final = 64 * 2**20  # of records in one file: bounds memory whatever their size


class _Alone:
    """Turns for a single writer."""

    def take(self, partition: int) -> bool:
        return True

    def check(self) -> None:
        pass

    def give(self, partition: int) -> None:
        pass


@dataclass
class Archiver:
    """`applied_until()`: the live revision's next offset by partition; no record beyond it is archived.

    `currency`: the deployment's, for amounts without one. `stop()` makes a long run end between two files.
    """

    log: EventLog
    store: ArchiveStore
    clock: Clock
    applied_until: Callable[[], list[int]]
    currency: str = "USD"
    min_rows: int = 20_000
    max_age_s: float = 60.0
    gaps: bool = False  # whether gaps between offsets are normal in this log, as in Kafka
    turns: Turns = field(default_factory=_Alone)
    stop: Callable[[], bool] = lambda: False
    set_aside: Callable[[Wait], bool] = lambda _wait: False  # whether the record it would wait at was set aside
    waits: Callable[[Wait], None] = lambda _wait: None  # called when a partition waits
    goes_on: Callable[[int], None] = lambda _partition: None  # called when it no longer does
    reader: Reader = CURRENT
    view: Callable[[], ClearView | None] = lambda: None  # what is clear now, if that differs from the records
    _waits: dict[int, int] = field(default_factory=dict, init=False)  # by partition: the offset it waits at
    check_room: Callable[[], None] = lambda: None  # raises DiskFull while no file may be written
    _ready: bool = field(default=False, init=False)
    _oldest: dict[int, tuple[int, datetime]] = field(default_factory=dict, init=False)  # partition: offset, since

    def run_once(self) -> int:
        """Write the files that are due; returns how many offsets were archived. On StoreUnavailable, try again.

        The first call recovers the archive from a crash (see ArchiveStore.recover).
        """
        return self._run(everything=False)

    def flush(self) -> int:
        """Archive everything that is applied, however little."""
        return self._run(everything=True)

    def forget(self) -> None:
        """Reload the stored state before the next run: a damaged archive may have been repaired."""
        self._ready = False

    def oldest_age_s(self) -> float:
        """The age of the oldest record that is in no file, applied or not; 0 if there is none."""
        self._prepare()
        ages = [0.0]
        for partition in range(self.log.partitions):
            start = self.store.next_offset(partition)
            found = self.log.read(partition, start, 1)
            received = _received(found[0]) if found else None
            if received is not None:
                ages.append((self.clock.now() - received).total_seconds())
        return max(ages)

    def _run(self, *, everything: bool) -> int:
        self._prepare()
        done = 0
        for partition, until in enumerate(self.applied_until()):
            if self.stop():
                break
            if (everything or self._is_due(partition, until)) and self.turns.take(partition):
                try:
                    self.store.refresh(partition)
                    done += self._partition(partition, until, everything)
                finally:
                    self.turns.give(partition)
        return done

    def _prepare(self) -> None:
        if self._ready:
            return
        self.store.recover()
        generation = self.log.generation
        for entry in self.store.files():
            if entry.generation != generation:
                raise ArchiveDamaged(
                    f"the archive belongs to log generation {entry.generation}, but the log is generation {generation}:"
                    " restore both from the same backup, or move the archive away to archive this log from its start"
                )
        self._ready = True

    def _partition(self, partition: int, until: int, everything: bool) -> int:
        done = 0
        while self.store.next_offset(partition) < until and (everything or self._is_due(partition, until)):
            written = self._write(partition, until)
            done += written
            if not written or self.stop():
                break
        return done

    def _is_due(self, partition: int, until: int) -> bool:
        start = self.store.next_offset(partition)
        if self._waits.get(partition) == start:
            return False  # this build cannot read it: `flush` and the next process try again
        if until - start >= self.min_rows:
            return True
        return start < until and (self.clock.now() - self._since(partition, start)).total_seconds() >= self.max_age_s

    def _since(self, partition: int, start: int) -> datetime:
        """When the oldest record from `start` on was received; if there is none or it is unreadable, when we saw it."""
        known = self._oldest.get(partition)
        if known is None or known[0] != start:
            oldest = self.log.read(partition, start, 1)
            known = (start, (_received(oldest[0]) if oldest else None) or self.clock.now())
            self._oldest[partition] = known
        return known[1]

    def _write(self, partition: int, until: int) -> int:
        """Write one file; returns how many offsets it covers. Raises DiskFull before reading."""
        self.check_room()
        start = self.store.next_offset(partition)
        records, upto = self._read(partition, start, until)
        if upto == start:
            return 0
        if not records and not self.gaps:
            raise ArchiveDamaged(
                f"the log has no record of partition {partition} in [{start}, {upto}), but these offsets are applied"
                " and not archived"
            )
        view = self.view()
        rows, wait = readable_table(
            records, self.currency, self.set_aside, originals=True, reader=self.reader, view=view
        )
        if wait is not None:
            upto = wait.offset
            if self._waits.get(partition) != upto:
                self._waits[partition] = upto
                self.waits(wait)
            if upto == start:
                return 0
        self.turns.check()
        clear = view.hash if view is not None and view.complete else ""
        self.store.add(partition, upto, self.log.generation, rows, clear)
        if wait is None and self._waits.pop(partition, None) is not None:
            self.goes_on(partition)
        return upto - start

    def _read(self, partition: int, start: int, until: int) -> tuple[list[Stored], int]:
        """The records of one file, and the offset up to which the log has and will have no others."""
        records: list[Stored] = []
        size, at = 0, start
        while at < until and len(records) < self.min_rows and size < _MAX_BYTES:
            found = self.log.read(partition, at, min(_READ, self.min_rows - len(records)))
            wanted = [record for record in found if record.offset < until]
            records += wanted
            size += sum(len(record.value) for record in wanted)
            if len(wanted) < len(found):
                return records, until  # a later record proves that all earlier ones were seen
            if not found:
                return records, until if self._is_empty(partition, at, until) else at
            at = found[-1].offset + 1
        return records, at

    def _is_empty(self, partition: int, start: int, until: int) -> bool:
        """Whether [start, until) has no records and never will, although no later record has been seen.

        An empty read proves it only if the log's end is past the range and a second read is still empty: a broker that
        has just become the leader briefly shows fewer records.
        """
        ends = self.log.ends()
        if partition >= len(ends) or ends[partition] < until:
            return False
        found = self.log.read(partition, start, 1)
        return not found or found[0].offset >= until


def _received(record: Stored) -> datetime | None:
    """When a record was received; None if it does not say."""
    at_us = received_us(record.value)
    return None if at_us is None else from_us(at_us)
