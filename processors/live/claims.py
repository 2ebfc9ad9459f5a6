"""The partitions a worker owns, their epochs, and their watermarks.

A claim raises a partition's epoch in `progress`; the previous owner finds out at its next FOLD.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from processors.live.compiled import epochs_of
from schemas.control import Control
from schemas.errors import TouchfoldError
from schemas.record import MICROSECOND, Stored, received_us, to_us

log = logging.getLogger("touchfold.worker")

GRACE: Final = timedelta(seconds=2)  # how far an idle partition's watermark trails the clock (design C8)
GRACE_US: Final = GRACE // MICROSECOND
SHARED_SAVE_US: Final = 500_000  # other workers decide by the watermarks we save
ALONE_SAVE_US: Final = 5_000_000  # only for monitoring


@dataclass
class Claims:
    """`owner` names the worker in `progress`. `shared`: other workers own the remaining partitions."""

    control: Control
    owner: str
    shared: bool
    epochs: dict[int, int] = field(default_factory=dict)  # of our partitions
    _watermarks: dict[int, int] = field(default_factory=dict)  # of our partitions, as far as we know
    _seen_us: int = 0  # the lowest watermark of all partitions when last read; only rises
    _saved_us: int = 0

    def claim(self, revision: int, partitions: Collection[int]) -> dict[int, int]:
        """Own these partitions from now on; returns the offset where each continues."""
        claimed = self.control.claim(revision, partitions, self.owner)
        if len(claimed) < len(set(partitions)):  # partitions were added to the topic
            self.control.add_partitions(max(partitions) + 1)
            claimed = self.control.claim(revision, partitions, self.owner)
        self.epochs |= epochs_of(claimed)
        for each in claimed:
            self.note(each.partition, each.watermark_us)
        return {each.partition: each.next_offset for each in claimed}

    def release(self, revision: int | None, partitions: Collection[int]) -> None:
        """Release these partitions. If that cannot be recorded, the next claim fences us anyway."""
        mine = {partition: self.epochs.pop(partition) for partition in partitions if partition in self.epochs}
        for partition in mine:
            self._watermarks.pop(partition, None)
        if not mine or revision is None:
            return
        try:
            self.control.release(revision, mine)
        except TouchfoldError as err:
            log.info("partitions are released, but this could not be recorded: %s", err.message)

    def note(self, partition: int, watermark_us: int) -> None:
        """Note that everything a partition received before this instant is folded."""
        self._watermarks[partition] = max(watermark_us, self._watermarks.get(partition, 0))

    def see(self, lowest_us: int) -> None:
        """The lowest watermark of all partitions in `progress`."""
        self._seen_us = max(self._seen_us, lowest_us)

    @property
    def lowest_us(self) -> int:
        """The watermark of the log: the lowest of its partitions. The owner of all of them need not read the table."""
        if self.shared or not self._watermarks:
            return self._seen_us
        return max(self._seen_us, min(self._watermarks.values()))

    def save(self, revision: int, caught_up: Mapping[int, int], now_us: int) -> None:
        """Save, now and then, the watermarks of partitions with nothing more to read (by partition: since when)."""
        if now_us - self._saved_us < (SHARED_SAVE_US if self.shared else ALONE_SAVE_US):
            return
        mine = {partition: at - GRACE_US for partition, at in caught_up.items() if partition in self.epochs}
        if mine:
            self.control.save_owned_watermarks(revision, self.epochs, mine)
        self._saved_us = now_us


def watermark_before(record: Stored, now: datetime) -> int:
    """The watermark of a partition with this next record; 0 if the record does not say, which leaves it unchanged.

    A record received later than the clock's `now` is ignored: a deployment with its clock set to the past decides as of
    that instant, while receipts keep the real time.
    """
    received = received_us(record.value) or 0
    return received if received <= to_us(now) else to_us(now - GRACE)
