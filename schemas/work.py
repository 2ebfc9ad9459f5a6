"""What drives a worker and what the worker does for it: the line between a runner or a feeder and the processors."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from schemas.record import Stored


class Fetched(NamedTuple):
    """Consecutive records of one partition as they were fetched. Gaps inside are real (markers of transactions).

    `start`: the offset that `claim` or the last `apply` said comes next, at or before the first record's.
    `end`: the offset after the last record.
    `caught_up_us`: when nothing more was there, the instant before the fetch that said so was sent; else None.
    Without records, and `end` at `start`, it says only that.
    """

    partition: int
    start: int
    end: int
    records: Sequence[Stored]
    caught_up_us: int | None


class PartitionWork(Protocol):
    """What the processors do with the partitions that are theirs. One call at a time, from any one thread.

    Every call may raise a TouchfoldError: RETRY (an outage: nothing is kept; try the same again, without an end),
    STOP (end the process with its message).
    """

    def claim(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Own these from now on, whoever had them; the offset where each goes on. Fences the owner before."""

    def release(self, partitions: Collection[int]) -> None:
        """Own these no more. Never fails: the next claim fences us anyway."""

    def apply(self, batches: Sequence[Fetched]) -> Mapping[int, int]:
        """Fold all of them in one transaction, at most one a partition; then decide.

        Returns the partitions that wait, each with the offset of the record that cannot be read yet: it is folded up
        to there, and what lies behind is to be brought again after a while.

        Raises ProgressConflict when one of them is not ours any more or does not start where it stands (nothing is
        kept: claim again), and any other exception when a record cannot be folded (nothing is kept).
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
