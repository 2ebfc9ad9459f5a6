"""The interface between a worker and what drives it: a runner or a feeder."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from schemas.record import Stored


class Fetched(NamedTuple):
    """Consecutive records of one partition as they were fetched. Gaps inside are real (markers of transactions).

    `start`: the next offset according to `claim` or the last `apply`, at or before the first record's.
    `end`: the offset after the last record.
    `caught_up_us`: the instant just before the fetch that found nothing more was sent; None if there was more.
    Without records, and with `end` equal to `start`, the batch says only that.
    """

    partition: int
    start: int
    end: int
    records: Sequence[Stored]
    caught_up_us: int | None


class PartitionWork(Protocol):
    """What the processors do with the partitions they own. One call at a time, from any thread.

    Every call may raise a TouchfoldError: RETRY (an outage: nothing was kept; repeat the call for as long as it takes)
    or STOP (end the process with the message).
    """

    def claim(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Own these partitions from now on; returns the offset where each continues. Fences the previous owner."""

    def release(self, partitions: Collection[int]) -> None:
        """Release these partitions. Never fails: the next claim fences us anyway."""

    def apply(self, batches: Sequence[Fetched]) -> Mapping[int, int]:
        """Fold all batches in one transaction, at most one per partition; then decide.

        Returns the partitions that wait, each with the offset of the record that cannot be read yet: everything before
        it is folded, and the rest must be passed in again later.

        Raises ProgressConflict if a partition is no longer ours or a batch does not start at its progress (nothing is
        kept: claim again), and any other exception if a record cannot be folded (nothing is kept).
        """

    def isolate(self, batch: Fetched) -> Mapping[int, int]:
        """Fold what it can of a batch that failed again and again; records that cannot be folded become dead letters.

        Returns what `apply` does.
        """

    def watched_by(self, excuse: Callable[[], None]) -> None:
        """`excuse` is called again and again while one piece of work takes long and goes on."""

    def idle(self, caught_up: Mapping[int, int]) -> bool:
        """Timers, what other workers leave, building revisions; a slice of it. True if there was work.

        `caught_up`: of the owned partitions that have nothing more, when that was known (microseconds, as in Fetched).
        """
