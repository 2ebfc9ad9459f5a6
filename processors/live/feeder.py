"""Feeds a worker from a log that it reads directly; this is all that the embedded worker has on top of a shared one.

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

AWAY_S: Final = 0.2  # between attempts during an outage
FULL_S: Final = 1.0  # between attempts on a full disk
WAITING_S: Final = 2.0  # between attempts to read a record that cannot be read yet, as on Kafka (`Pace.waiting_s`)


class LogFeeder:
    """`batch`: records per partition in one FOLD."""

    def __init__(self, worker: Worker, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.worker = worker
        self.batch = worker.services.batch
        self._monotonic = monotonic
        self._next: dict[int, int] = {}  # by partition: the next offset
        self._ends: dict[int, int] = {}  # kept, because a broker that has just become the leader may show less
        self._look_at = 0.0  # when to try waiting partitions again

    def step(self) -> bool:
        """Process what the log has, then idle work; True if there was any. Without any it costs two small queries.

        Raises DiskFull before starting work that the disk has no room for.
        """
        try:
            return self._step()
        except ProgressConflict as err:
            log.info("claimed again: %s", err.message)
            self._next.clear()
            return True
        except TouchfoldError as err:
            if not isinstance(err, DiskFull):
                self._next.clear()  # how much PostgreSQL has of it is unknown
            raise

    def run(self, stop: threading.Event) -> None:
        """Run until `stop`. Waits out outages; an error of disposition STOP ends the process."""
        idle, said = 0, ""
        while not stop.is_set():
            try:
                idle = 0 if self.step() else idle + 1
                said = ""
            except TouchfoldError as err:
                if err.disposition is not Disposition.RETRY:
                    raise
                if err.code != said:  # logged once: a full disk may last for days
                    log.warning("waiting: %s", err.message)
                said = err.code
                stop.wait(FULL_S if isinstance(err, DiskFull) else AWAY_S)
            if idle:
                stop.wait(0.02 if idle < 250 else 0.1)  # an idle poll costs 0.3 ms: 1.5 % of a core, then 0.3 %

    def release(self) -> None:
        """Release all partitions."""
        self.worker.release(self._next)
        self._next.clear()

    def _step(self) -> bool:
        before = to_us(self.worker.services.clock.now())
        caught_up, moved = self.fold(before)
        return self.worker.idle(dict.fromkeys(caught_up, before)) or moved

    def fold(self, before: int) -> tuple[set[int], bool]:
        """Apply what the log has now; returns which partitions had no more at `before`, and whether any advanced."""
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
        """The next batch of each partition; an empty batch means there was nothing more at `before`."""
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
        """Apply all in one transaction, or each alone if the records make that fail. True if any advanced."""
        try:
            return self._advance(batches, self.worker.apply(batches))
        except TouchfoldError:
            raise
        except Exception:
            log.exception("batches of %d partitions cannot be applied together: trying each alone", len(batches))
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
