"""The archiver: applied records leave the log for Parquet files. It writes no file a second and nothing unapplied.

A file is written when a partition has `min_rows` records to archive, or its oldest is older than `max_age_s`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from schemas.archive import ArchiveStore
from schemas.errors import ArchiveDamaged, RecordUnreadable
from schemas.event_columns import event_table
from schemas.ports import Clock, EventLog
from schemas.record import Stored, decode

_READ: Final = 2_000  # records a read
_MAX_BYTES: Final = 64 * 2**20  # of records in one file: bounds memory whatever their size


@dataclass
class Archiver:
    """`applied_until()` gives by partition the live revision's next offset; no record beyond it is archived.

    `currency`: the deployment's, for amounts without one.
    """

    log: EventLog
    store: ArchiveStore
    clock: Clock
    applied_until: Callable[[], list[int]]
    currency: str = "USD"
    min_rows: int = 20_000
    max_age_s: float = 60.0
    _ready: bool = field(default=False, init=False)

    def run_once(self) -> int:
        """Write the files that are due; returns how many records were archived. Raises StoreUnavailable: try again.

        The first call recovers the archive from a crash (see ArchiveStore.recover).
        """
        return self._run(everything=False)

    def flush(self) -> int:
        """Archive all that is applied, however little."""
        return self._run(everything=True)

    def _run(self, *, everything: bool) -> int:
        self._prepare()
        done = 0
        for partition, until in enumerate(self.applied_until()):
            while True:
                start = self.store.next_offsets()[partition]
                if start >= until or not (everything or self._is_due(partition, start, until)):
                    break
                done += self._write(partition, start, until)
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
                    " the same backup, or move the archive folder away to archive this log from its start"
                )
        self._ready = True

    def _is_due(self, partition: int, start: int, until: int) -> bool:
        if until - start >= self.min_rows:
            return True
        oldest = self.log.read(partition, start, 1)
        received = _received(oldest[0]) if oldest else None
        return received is None or (self.clock.now() - received).total_seconds() >= self.max_age_s

    def _write(self, partition: int, start: int, until: int) -> int:
        records, upto = self._read(partition, start, until)
        if not records:
            raise ArchiveDamaged(
                f"the log has no record of partition {partition} in [{start}, {until}), but these offsets are applied"
                " and not archived"
            )
        rows = event_table(records, self.currency, originals=True)
        self.store.add(partition, upto, self.log.generation, rows)
        return len(records)

    def _read(self, partition: int, start: int, until: int) -> tuple[list[Stored], int]:
        """Records of one file, and the offset after all that were looked at."""
        records: list[Stored] = []
        size, at = 0, start
        while at < until and len(records) < self.min_rows and size < _MAX_BYTES:
            found = self.log.read(partition, at, min(_READ, self.min_rows - len(records)))
            wanted = [record for record in found if record.offset < until]
            records += wanted
            size += sum(len(record.value) for record in wanted)
            # without more below `until` all of it was looked at, whatever gap the log has there
            at = until if not found or len(wanted) < len(found) else found[-1].offset + 1
        return records, at


def _received(record: Stored) -> datetime | None:
    """None for an unreadable record: it is due at once."""
    try:
        return decode(record.value).received_at
    except RecordUnreadable:
        return None
