"""Rows and ports of a rebuild: the swap of revisions, and a snapshot of the live one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from schemas.figures import Cells
from schemas.store_rows import EvidenceRow, ProfileRow


class SegmentPair(NamedTuple):
    """A segment by name, with its bit in the old and the new revision (-1: not in it)."""

    name: str
    old: int
    new: int


class SwapPlan(NamedTuple):
    """What a swap needs to know besides the tables."""

    old: int
    new: int
    cause: str  # definition | rebuild
    segments: Sequence[SegmentPair]
    contents: Mapping[str, str]  # segment -> hash of its condition in the new definitions
    at_us: int


class Rebuilding(Protocol):
    """What building a revision needs from the store besides FOLD and DECIDE."""

    def next_profiles(self, after: bytes, limit: int) -> list[bytes]:
        """Ids of the profiles that own evidence, ascending, greater than `after`."""

    def await_folds(self) -> None:
        """Wait until every FOLD running now has ended; those that start later know about revisions created before."""

    def copy_states(self, old: int, new: int) -> None:
        """Copy the live revision's states, refold items and progress; correct only if both fold the same way."""

    def lead(self) -> bool:
        """Whether this process builds: the first to ask does, until it resigns or loses its connection."""

    def resign(self) -> None:
        """Let another process build from now on."""

    def halted(self) -> AbstractContextManager[None]:
        """While this is held nobody folds for the live revision: all workers have stopped at a batch boundary."""

    def swap(self, plan: SwapPlan) -> int:
        """Make the new revision live if both have folded equally far and nothing is queued; returns changes emitted.

        Raises ProgressConflict otherwise. Versions are kept, as is `since` of members that stay; new ones have NULL.
        """


class Snapshot(Protocol):
    """One consistent view of the live revision at a batch boundary, work items drained (design C9).

    Rows come in ascending order of their key, and each call reads them afresh; one reader at a time.
    """

    @property
    def next_offsets(self) -> Sequence[int]: ...

    @property
    def watermark_us(self) -> int:
        """The lowest watermark of all partitions."""

    def skipped(self) -> Iterator[tuple[int, int]]:
        """Positions that are not applied."""

    def erased(self) -> set[bytes]: ...

    def unnamed(self) -> set[bytes]:
        """Tokens of values that name nobody, made before that was known: they link nothing."""

    def states(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(identifier set, partition, packed state)."""

    def evidence(self) -> Iterator[EvidenceRow]: ...

    def profiles(self) -> Iterator[ProfileRow]: ...

    def figures(self) -> tuple[Cells, Cells] | None:
        """The cells of the live revision, stored cells plus pending deltas; None until everything is counted."""

    def nobody(self) -> Iterable[bytes]:
        """The packed orders of identifier sets without an owner."""
