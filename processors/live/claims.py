"""The partitions a worker owns, in which epochs, and up to when all that was received is known.

A claim raises a partition's epoch in `progress`; whoever had it finds out at its next FOLD.
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

GRACE: Final = timedelta(seconds=2)  # how far an idle partition's watermark stays behind the clock (design C8)
GRACE_US: Final = GRACE // MICROSECOND
SHARED_SAVE_US: Final = 500_000  # other workers decide by the watermarks that we save
ALONE_SAVE_US: Final = 5_000_000  # for those who watch


@dataclass
class Claims:
    """`owner` names the worker in `progress`. `shared`: other workers own the partitions that are not ours."""

    control: Control
    owner: str
    shared: bool
    epochs: dict[int, int] = field(default_factory=dict)  # of the partitions that are ours
    _watermarks: dict[int, int] = field(default_factory=dict)  # the same, as far as we know ourselves
    _seen_us: int = 0  # the lowest of all partitions when last read; it only rises
    _saved_us: int = 0

    def claim(self, revision: int, partitions: Collection[int]) -> dict[int, int]:
        """Own these from now on; the offset where each goes on."""
        claimed = self.control.claim(revision, partitions, self.owner)
        if len(claimed) < len(set(partitions)):  # the topic was given more
            self.control.add_partitions(max(partitions) + 1)
            claimed = self.control.claim(revision, partitions, self.owner)
        self.epochs |= epochs_of(claimed)
        for each in claimed:
            self.note(each.partition, each.watermark_us)
        return {each.partition: each.next_offset for each in claimed}

    def release(self, revision: int | None, partitions: Collection[int]) -> None:
        """Own these no more. Without a note where it cannot be written: the next claim fences us anyway."""
        mine = {partition: self.epochs.pop(partition) for partition in partitions if partition in self.epochs}
        for partition in mine:
            self._watermarks.pop(partition, None)
        if not mine or revision is None:
            return
        try:
            self.control.release(revision, mine)
        except TouchfoldError as err:
            log.info("partitions are given back without a note: %s", err.message)

    def note(self, partition: int, watermark_us: int) -> None:
        """All of a partition that was received before is folded."""
        self._watermarks[partition] = max(watermark_us, self._watermarks.get(partition, 0))

    def see(self, lowest_us: int) -> None:
        """What `progress` says of all partitions."""
        self._seen_us = max(self._seen_us, lowest_us)

    @property
    def lowest_us(self) -> int:
        """The watermark of the log: the lowest of its partitions. Whoever owns them all knows better than the table."""
        if self.shared or not self._watermarks:
            return self._seen_us
        return max(self._seen_us, min(self._watermarks.values()))

    def save(self, revision: int, caught_up: Mapping[int, int], now_us: int) -> None:
        """Write down, now and then, what we know of those that have nothing more (by partition: since when)."""
        if now_us - self._saved_us < (SHARED_SAVE_US if self.shared else ALONE_SAVE_US):
            return
        mine = {partition: at - GRACE_US for partition, at in caught_up.items() if partition in self.epochs}
        if mine:
            self.control.save_owned_watermarks(revision, self.epochs, mine)
        self._saved_us = now_us


def watermark_before(record: Stored, now: datetime) -> int:
    """The watermark of a partition whose next record this is; 0 where it does not say: it stays where it is.

    One that was received later than `now`, the clock's, is as none: a deployment whose clock is set to a past instant
    decides as of that instant, and receipts keep the real time.
    """
    received = received_us(record.value) or 0
    return received if received <= to_us(now) else to_us(now - GRACE)
