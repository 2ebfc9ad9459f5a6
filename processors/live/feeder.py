"""Feeds a worker from a log that it reads directly: all of the embedded worker that the one among others lacks.

It owns every partition. A command on a cluster without workers uses it too.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from processors.live.worker import Worker
from schemas.errors import DiskFull, Disposition, ProgressConflict, TouchfoldError
from schemas.log_range import records_between
from schemas.record import Stored, to_us
from schemas.work import Fetched

log = logging.getLogger("touchfold.worker")

AWAY_S: Final = 0.2  # between two tries in an outage
FULL_S: Final = 1.0  # on a full disk
WAITING_S: Final = 2.0  # between two looks at a record that cannot be read yet, as on Kafka (`Pace.waiting_s`)


class LogFeeder:
    """`batch`: records of a partition in one FOLD."""

    def __init__(self, worker: Worker, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.worker = worker
        self.batch = worker.services.batch
        self._monotonic = monotonic
        self._next: dict[int, int] = {}  # by partition: the offset that comes next
        self._ends: dict[int, int] = {}  # a broker that has just become the leader may show less than before
        self._look_at = 0.0  # when those that wait are tried again

    def step(self) -> bool:
        """What the log has, then what idle finds; True if there was work. With none it is two small queries.

        Raises DiskFull before it begins with work for which there is no room.
        """
        try:
            return self._step()
        except ProgressConflict as err:
            log.info("claimed again: %s", err.message)
            self._next.clear()
            return True
        except TouchfoldError as err:
            if not isinstance(err, DiskFull):
                self._next.clear()  # what PostgreSQL has of it now is not known
            raise

    def run(self, stop: threading.Event) -> None:
        """Until `stop`. An outage is waited out; an error of disposition STOP ends the process."""
        idle, said = 0, ""
        while not stop.is_set():
            try:
                idle = 0 if self.step() else idle + 1
                said = ""
            except TouchfoldError as err:
                if err.disposition is not Disposition.RETRY:
                    raise
                if err.code != said:  # once: a full disk may last for days
                    log.warning("waiting: %s", err.message)
                said = err.code
                stop.wait(FULL_S if isinstance(err, DiskFull) else AWAY_S)
            if idle:
                stop.wait(0.02 if idle < 250 else 0.1)  # an idle poll costs 0.3 ms: 1.5 % of a core, then 0.3 %

    def release(self) -> None:
        """Give all partitions back."""
        self.worker.release(self._next)
        self._next.clear()

    def _step(self) -> bool:
        before = to_us(self.worker.services.clock.now())
        caught_up, moved = self.fold(before)
        return self.worker.idle(dict.fromkeys(caught_up, before)) or moved

    def fold(self, before: int) -> tuple[set[int], bool]:
        """What the log has now; which partitions have nothing more since `before`, and whether any moved on."""
        for partition, end in enumerate(self.worker.services.log.ends()):
            self._ends[partition] = max(end, self._ends.get(partition, 0))
        unclaimed = self._ends.keys() - self._next.keys()
        if unclaimed:
            self._next |= self.worker.claim(unclaimed)
        batches = self._fetch(before)
        moved = any(each.records for each in batches) and self._apply(batches)
        caught_up = {each.partition for each in batches if each.caught_up_us is not None}
        return caught_up - self.worker.folding.waits.keys(), moved

    def _fetch(self, before: int) -> list[Fetched]:
        """The next batch of each partition; an empty one says that nothing more was there at `before`."""
        waits = self.worker.folding.waits
        looks = self._monotonic() >= self._look_at
        if waits and looks:
            self._look_at = self._monotonic() + WAITING_S
        batches = []
        for partition, start in self._next.items():
            if partition in waits and not looks:
                continue
            records = self._read(partition, start, 1 if partition in waits else self.batch)
            end = records[-1].offset + 1 if records else start
            at_end = not records or end >= self._ends[partition]
            batches.append(Fetched(partition, start, end, records, before if at_end else None))
        return batches

    def _read(self, partition: int, start: int, limit: int) -> Sequence[Stored]:
        end = self._ends[partition]
        if start >= end:
            return ()
        return next(records_between(self.worker.services.log, partition, start, end, limit), ())

    def _apply(self, batches: Sequence[Fetched]) -> bool:
        """All in one transaction; each alone where that fails for a reason of the records. True if any moved on."""
        try:
            return self._advance(batches, self.worker.apply(batches))
        except TouchfoldError:
            raise
        except Exception:
            log.exception("a fetch of %d partitions cannot be applied: each alone", len(batches))
        moved = [self._alone(each) for each in batches if each.records]
        return any(moved)

    def _alone(self, batch: Fetched) -> bool:
        try:
            stopped: Mapping[int, int] = self.worker.apply([batch])
        except TouchfoldError:
            raise
        except Exception:
            log.exception("partition %d [%d, %d) cannot be applied", batch.partition, batch.start, batch.end)
            stopped = self.worker.isolate(batch)
        return self._advance([batch], stopped)

    def _advance(self, batches: Sequence[Fetched], stopped: Mapping[int, int]) -> bool:
        if stopped:
            self._look_at = self._monotonic() + WAITING_S
        moved = False
        for batch in batches:
            reached = stopped.get(batch.partition, batch.end)
            moved = moved or reached > batch.start
            self._next[batch.partition] = reached
        return moved
