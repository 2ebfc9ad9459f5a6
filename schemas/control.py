"""Rows and port for controlling the processors: projection revisions, their progress, system facts."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from schemas.facts import Fact
from schemas.waits import Wait, Waiting

# The version of identifier sets' states. Raise it when the same definitions fold to different states: the first start
# of the new build then folds the log again next to the live revision.
LAYOUT_VERSION: Final = 4
SUPERSEDED: Final = "superseded by a newer revision before it was ready"


class Revision(NamedTuple):
    """A set of definitions and the tables folded with it."""

    revision: int
    state: str  # building | live | retired | failed
    cause: str  # initial | definition | rebuild | check
    definitions: Mapping[str, Any]  # as `Definitions.to_json` wrote it
    content_hash: str
    done: float  # 0..1 while building
    message: str | None


class Layout(NamedTuple):
    """The layout of states in revisions from `since` on; earlier revisions have an older one."""

    version: int
    since: int


class Progress(NamedTuple):
    partition: int
    epoch: int
    next_offset: int
    watermark_us: int


class Beat(NamedTuple):
    """What there is to do besides the log, in one query. If the revision is no longer live, only `live` is valid."""

    live: int
    building: int | None = None
    work: bool = False  # whether the requested revision has work items to decide
    refolds: bool = False
    watermark_us: int = 0  # the lowest watermark of all partitions
    search: bool = False  # whether profiles wait to be indexed
    waits: bool = False  # whether a partition waits at a record that cannot be read yet
    set_aside: int = 0  # records set aside by hand so far
    figures: bool = False  # whether data older than the figures waits to be counted
    due_us: int | None = None  # the earliest timer


class Control(Protocol):
    """Revisions and progress. Each call is a transaction of its own."""

    def live(self) -> Revision: ...

    def building(self) -> Revision | None:
        """The oldest revision being built."""

    def revision(self, number: int) -> Revision: ...

    def layout(self) -> Layout:
        """The newest recorded layout; (0, 0) if there is none."""

    def progress(self, revision: int) -> list[Progress]:
        """By partition, ascending."""

    def claim(self, revision: int, partitions: Collection[int], owner: str) -> list[Progress]:
        """Own these partitions from now on: their epoch rises, which fences the previous owner."""

    def has_unclaimed(self) -> bool:
        """Whether a partition of the live revision was never owned."""

    def add_partitions(self, count: int) -> None:
        """Add progress rows, in every revision, for partitions added to the log; they start at the beginning."""

    def release(self, revision: int, epochs: Mapping[int, int]) -> None:
        """Release these partitions if they are still ours in these epochs (by partition)."""

    def save_owned_watermarks(self, revision: int, epochs: Mapping[int, int], watermarks: Mapping[int, int]) -> None:
        """Raise the watermarks of those partitions that are still ours in these epochs."""

    def beat(self, revision: int) -> Beat:
        """One cheap statement; `revision` may already be retired."""

    def newest(self) -> Revision:
        """The newest revision being built, else the live one; the next change of definitions starts from it."""

    def add_revision(
        self,
        cause: str,
        definitions: Mapping[str, Any],
        content_hash: str,
        at: datetime,
        *,
        base: str,
        fact: Fact | None = None,
    ) -> int:
        """Create a revision in state building, with its tables, progress at 0, and the fact that records it.

        Supersedes other revisions being built: they fail with the message SUPERSEDED, and this one is their successor.
        `base`: content hash of the definitions these were made from. Raises DefinitionsMoved if that is no longer the
        newest (compare-and-set).
        """

    def set_done(self, revision: int, done: float) -> None: ...

    def fail(self, revision: int, message: str) -> None:
        """Mark a building revision as failed, with the reason, and drop its tables."""

    def drop_retired(self) -> None:
        """Drop the tables of retired revisions."""

    def note_wait(self, reader: str, wait: Wait, at: datetime) -> None:
        """Record that a reader's partition waits at a record; `at` applies only if it was not already waiting there."""

    def end_wait(self, reader: str, partition: int) -> None:
        """Record that it no longer waits."""

    def waiting(self) -> list[Waiting]:
        """The current waits; a worker's only if the live revision has stopped at that record."""

    def open_work(self, revision: int, kind: str | None = None) -> int: ...

    def open_refolds(self, revision: int) -> int:
        """How many identifier sets wait to be folded again from the log."""

    def work_up_to(self, revision: int, last: int | None = None) -> tuple[int, int]:
        """How many work items with an id up to `last` are open (None: all), and the highest id."""
