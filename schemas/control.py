"""Rows and port of what steers the processors: revisions of the projections, their progress, the facts."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from schemas.facts import Fact
from schemas.waits import Wait, Waiting

# Of the states of signatures. Raise it when the same definitions fold to other states: the first start of such a build
# folds the log again beside the live revision.
LAYOUT_VERSION: Final = 3
SUPERSEDED: Final = "superseded by a newer revision before it was ready"


class Revision(NamedTuple):
    """A set of definitions and the tables folded by it."""

    revision: int
    state: str  # building | live | retired | failed
    cause: str  # initial | definition | rebuild | check
    definitions: Mapping[str, Any]  # as `Definitions.to_json` wrote it
    content_hash: str
    done: float  # 0..1 while building
    message: str | None


class Layout(NamedTuple):
    """By which layout states are folded in revisions from `since` on; those before are by an older one."""

    version: int
    since: int


class Progress(NamedTuple):
    partition: int
    epoch: int
    next_offset: int
    watermark_us: int


class Beat(NamedTuple):
    """What there is to do beside the log, in one look. Of a revision that is live no more, `live` alone is true."""

    live: int
    building: int | None = None
    work: bool = False  # to decide, of the revision asked for
    refolds: bool = False
    watermark_us: int = 0  # the lowest of all partitions
    search: bool = False  # whether profiles wait to be indexed
    waits: bool = False  # whether a partition waits at a record that cannot be read yet
    set_aside: int = 0  # records set aside by hand so far
    figures: bool = False  # whether what was there before the figures waits to be counted
    due_us: int | None = None  # the earliest timer


class Control(Protocol):
    """Revisions and progress. Each call is a transaction of its own."""

    def live(self) -> Revision: ...

    def building(self) -> Revision | None:
        """The oldest revision that is being built."""

    def revision(self, number: int) -> Revision: ...

    def layout(self) -> Layout:
        """The newest layout that was noted; (0, 0) where none was."""

    def progress(self, revision: int) -> list[Progress]:
        """By partition, ascending."""

    def claim(self, revision: int, partitions: Collection[int], owner: str) -> list[Progress]:
        """Own these from now on: their epoch rises, which fences whoever had them."""

    def has_unclaimed(self) -> bool:
        """Whether a partition of the live revision was never anybody's."""

    def add_partitions(self, count: int) -> None:
        """The log has so many now: progress at the beginning of the new ones, in every revision."""

    def release(self, revision: int, epochs: Mapping[int, int]) -> None:
        """Own these no more, where they are still ours in these epochs (by partition)."""

    def save_owned_watermarks(self, revision: int, epochs: Mapping[int, int], watermarks: Mapping[int, int]) -> None:
        """Raise the watermarks of partitions that are still ours in these epochs."""

    def beat(self, revision: int) -> Beat:
        """One cheap statement; `revision` may be retired already."""

    def newest(self) -> Revision:
        """The newest revision being built, else the live one: what the next change of definitions starts from."""

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
        """A new revision in state building, with its tables and progress at 0, and the fact that says so.

        Supersedes others that are building: they fail with the message SUPERSEDED, and the next number is their
        successor. `base`: content hash of what `definitions` were made from. Raises DefinitionsMoved when that is no
        longer the newest: compare and set.
        """

    def set_done(self, revision: int, done: float) -> None: ...

    def fail(self, revision: int, message: str) -> None:
        """Give a building revision up, with the reason; its tables are dropped."""

    def drop_retired(self) -> None:
        """Drop the tables of retired revisions."""

    def note_wait(self, reader: str, wait: Wait, at: datetime) -> None:
        """A partition of a reader waits at a record; `at` counts where it did not wait there already."""

    def end_wait(self, reader: str, partition: int) -> None:
        """It waits no more."""

    def waiting(self) -> list[Waiting]:
        """What waits now; a worker's, where the live revision stands there."""

    def open_work(self, revision: int, kind: str | None = None) -> int: ...

    def open_refolds(self, revision: int) -> int:
        """How many signatures wait to be made again from the log."""

    def work_up_to(self, revision: int, last: int | None = None) -> tuple[int, int]:
        """How many work items with an id up to `last` are open (None: all), and the highest id there is."""
