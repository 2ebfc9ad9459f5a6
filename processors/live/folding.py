"""Folds fetched records for a worker; if a record makes that fail, isolates it and folds the rest."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from processors.live.applied import Batch, Report
from processors.live.claims import GRACE_US, Claims, watermark_before
from processors.live.fold_batch import Folder
from processors.live.services import Services
from schemas.errors import ProgressConflict, TouchfoldError
from schemas.waits import WORKER, Wait
from schemas.work import Fetched

log = logging.getLogger("touchfold.worker")


@dataclass
class Folding:
    """`folder`: for the live revision and our partitions; None until these are known."""

    services: Services
    claims: Claims
    folder: Folder | None = None
    totals: Report = field(default_factory=Report)
    waits: dict[int, Wait] = field(default_factory=dict)  # by partition of ours: the record it waits at
    _set_aside: int | None = None  # records set aside by hand when last checked

    def use(self, folder: Folder) -> None:
        """Fold with this one from now on; records found to be poison stay so."""
        if self.folder is not None:
            folder.poison = self.folder.poison
        self.folder = folder

    def fold(self, batches: Sequence[Fetched]) -> dict[int, int]:
        """Fold all in one transaction. Returns the waiting partitions, with the offset of the record each waits at."""
        claims, folder = self.claims, self.folder
        unowned = [each.partition for each in batches if each.partition not in claims.epochs]
        if unowned or folder is None:
            raise ProgressConflict(f"partitions {unowned} are not ours")
        for each in batches:
            if each.caught_up_us is not None and each.start == each.end:
                claims.note(each.partition, each.caught_up_us - GRACE_US)
        taken = [self._batch(each) for each in batches if each.end > each.start]
        report = folder.run(taken, claims.lowest_us)
        for name, value in vars(report).items():
            setattr(self.totals, name, getattr(self.totals, name) + value)
        self._note_watermarks(folder, taken)
        return self._note_waits(folder, {each.partition for each in batches})

    def _batch(self, fetched: Fetched) -> Batch:
        records = fetched.records
        if fetched.caught_up_us is not None:
            watermark = fetched.caught_up_us - GRACE_US
        else:
            watermark = watermark_before(records[-1], self.services.clock.now()) if records else 0
        return Batch(fetched.partition, fetched.start, fetched.end, records, watermark)

    def _note_watermarks(self, folder: Folder, batches: Sequence[Batch]) -> None:
        now = self.services.clock.now()
        for batch in batches:
            wait = folder.waits.get(batch.partition)
            at = [] if wait is None else [each for each in batch.records if each.offset == wait.offset]
            self.claims.note(batch.partition, watermark_before(at[0], now) if at else batch.watermark_us)

    def _note_waits(self, folder: Folder, mine: set[int]) -> dict[int, int]:
        """Log an error for partitions that now wait."""
        found = {partition: wait for partition, wait in folder.waits.items() if partition in mine}
        for partition, wait in found.items():
            if self.waits.get(partition) != wait:
                log.error("waiting at %s, the other partitions continue: %s", wait.place, wait.reason)
                self.services.control.note_wait(WORKER, wait, self.services.clock.now())
        self.waits = {partition: wait for partition, wait in self.waits.items() if partition not in mine} | found
        return {partition: wait.offset for partition, wait in found.items()}

    def noticed(self, set_aside: int) -> bool:
        """Whether records were set aside by hand since the last call, so that waiting partitions are tried again."""
        some = self._set_aside is not None and set_aside != self._set_aside and bool(self.waits)
        self._set_aside = set_aside
        if some:
            self.waits.clear()
        return some

    def isolate(self, batch: Fetched) -> dict[int, int]:
        """Halve the batch until a single record fails; set that aside and fold the rest. Returns as `fold`."""
        left = [batch]
        stopped: dict[int, int] = {}
        while left and not stopped:
            part = left.pop()
            try:
                stopped = self.fold([part])
            except TouchfoldError:
                raise
            except Exception:
                left += reversed(self._halves(part))
        return stopped

    def _halves(self, batch: Fetched) -> list[Fetched]:
        """The two halves of a batch; a single record is set aside instead."""
        records = batch.records
        if len(records) == 1:
            place = (batch.partition, records[0].offset)
            assert self.folder is not None, "it just failed"
            if place in self.folder.poison:
                raise ProgressConflict(f"partition {place[0]} offset {place[1]} fails even though it is set aside")
            log.exception("set aside the record at partition %d offset %d", *place)
            self.folder.poison.add(place)
            return [batch]
        half = len(records) // 2
        border = records[half].offset
        return [
            Fetched(batch.partition, batch.start, border, records[:half], None),
            Fetched(batch.partition, border, batch.end, records[half:], batch.caught_up_us),
        ]
