"""The archiver: applied records leave the log for Parquet files. It writes no file a second and nothing unapplied.

A file is written when a partition has `min_rows` offsets to archive, or its oldest record is older than `max_age_s`.
Several archivers may run: each takes a partition's turn, looks where the others have come to, and writes what is due.
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

_READ: Final = 2_000  # records a read
_MAX_BYTES: Final = 64 * 2**20  # of records in one file: bounds memory whatever their size


class _Alone:
    """Turns where nobody else writes."""

    def take(self, partition: int) -> bool:
        return True

    def check(self) -> None:
        pass

    def give(self, partition: int) -> None:
        pass


@dataclass
class Archiver:
    """`applied_until()` gives by partition the live revision's next offset; no record beyond it is archived.

    `currency`: the deployment's, for amounts without one. `stop()` ends a long run between two files.
    """

    log: EventLog
    store: ArchiveStore
    clock: Clock
    applied_until: Callable[[], list[int]]
    currency: str = "USD"
    min_rows: int = 20_000
    max_age_s: float = 60.0
    gaps: bool = False  # whether offsets without a record are normal in this log, as in Kafka's
    turns: Turns = field(default_factory=_Alone)
    stop: Callable[[], bool] = lambda: False
    set_aside: Callable[[Wait], bool] = lambda _wait: False  # whether the record it would wait at does not count
    waits: Callable[[Wait], None] = lambda _wait: None  # told of a partition that waits
    goes_on: Callable[[int], None] = lambda _partition: None  # and of one that does no more
    reader: Reader = CURRENT
    view: Callable[[], ClearView | None] = lambda: None  # what is clear by now, where that is not the records' own
    _waits: dict[int, int] = field(default_factory=dict, init=False)  # by partition: at which offset it waits
    check_room: Callable[[], None] = lambda: None  # raises DiskFull where no file may be written for now
    _ready: bool = field(default=False, init=False)
    _oldest: dict[int, tuple[int, datetime]] = field(default_factory=dict, init=False)  # partition: offset, since

    def run_once(self) -> int:
        """Write the files that are due; returns how many offsets were archived. Raises StoreUnavailable: try again.

        The first call recovers the archive from a crash (see ArchiveStore.recover).
        """
        return self._run(everything=False)

    def flush(self) -> int:
        """Archive all that is applied, however little."""
        return self._run(everything=True)

    def forget(self) -> None:
        """Before the next run, take up again what is stored: an archive that was damaged may have been mended."""
        self._ready = False

    def oldest_age_s(self) -> float:
        """How old the oldest record is that no file holds, whether applied or not; 0 when there is none."""
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
                    f"the archive is of log generation {entry.generation}, the log of {generation}: restore both from"
                    " the same backup, or move the archive away to archive this log from its start"
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
            return False  # this build will not read it: `flush` and the next process look again
        if until - start >= self.min_rows:
            return True
        return start < until and (self.clock.now() - self._since(partition, start)).total_seconds() >= self.max_age_s

    def _since(self, partition: int, start: int) -> datetime:
        """When the oldest record from `start` on was received; of none, or of an unreadable one, since when we know."""
        known = self._oldest.get(partition)
        if known is None or known[0] != start:
            oldest = self.log.read(partition, start, 1)
            known = (start, (_received(oldest[0]) if oldest else None) or self.clock.now())
            self._oldest[partition] = known
        return known[1]

    def _write(self, partition: int, until: int) -> int:
        """One file; returns how many offsets it covers. Raises DiskFull before it reads."""
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
        """Records of one file, and the offset up to which nothing else is in the log, for good."""
        records: list[Stored] = []
        size, at = 0, start
        while at < until and len(records) < self.min_rows and size < _MAX_BYTES:
            found = self.log.read(partition, at, min(_READ, self.min_rows - len(records)))
            wanted = [record for record in found if record.offset < until]
            records += wanted
            size += sum(len(record.value) for record in wanted)
            if len(wanted) < len(found):
                return records, until  # a record behind it proves that all before was seen
            if not found:
                return records, until if self._is_empty(partition, at, until) else at
            at = found[-1].offset + 1
        return records, at

    def _is_empty(self, partition: int, start: int, until: int) -> bool:
        """Whether no record ever was or will be in [start, until), though none was seen behind it.

        Nothing found proves it only where the log's end is behind it and there is still nothing: a broker that has
        just become the leader shows less for a moment.
        """
        ends = self.log.ends()
        if partition >= len(ends) or ends[partition] < until:
            return False
        found = self.log.read(partition, start, 1)
        return not found or found[0].offset >= until


def _received(record: Stored) -> datetime | None:
    """None for a record that does not say."""
    at_us = received_us(record.value)
    return None if at_us is None else from_us(at_us)
