"""What the archive process does when there is nothing to archive: merge, remove replaced files, verify files."""

import logging
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from infra.adapters.archive.proofs import Proofs, within
from infra.adapters.machine.disk import DOOR, room_needed
from processors.archive.merge import Merger, Step
from processors.archive.rewrite import Rewriter
from schemas.archive import Turns
from schemas.clear_rules import Declared
from schemas.clear_view import Open
from schemas.errors import DiskFull

if TYPE_CHECKING:
    from infra.adapters.archive.store import ParquetArchive
    from infra.adapters.machine.disk import Disk

PROVED_BYTES: Final = 64 * 2**20  # read at a time: a tenth of a second; a day's round over 1 TB is 12 MB/s
LOOK_S: Final = 5.0  # between checks which files to verify
FULL_S: Final = 30.0  # after a full disk, before merging is tried again
SAY_S: Final = 10.0  # between log lines about merging
_log = logging.getLogger("touchfold.archive")


T = TypeVar("T")


class Rewriting(NamedTuple):
    """The current declarations, how to open sealed parts, which people are erased, the deployment's currency."""

    declared: Callable[[], Declared]
    open: Open
    erased: Callable[[Collection[bytes]], set[bytes]]
    currency: str


class Upkeep:
    """Works one step at a time, so that archiving never waits long."""

    def __init__(
        self,
        archive: "ParquetArchive",
        turns: Turns,
        disk: "Disk | None",
        stop: Callable[[], bool] = lambda: False,
        rewrite: "Rewriting | None" = None,
    ) -> None:
        """`rewrite`: what rewriting files needs from the deployment; None: files are not rewritten."""
        self._archive = archive

        def room(size: int) -> None:
            if disk is not None:
                disk.check(DOOR, size)

        self._merger = Merger(archive, turns, time.monotonic, _alarm, room, stop)
        self._rewriter = None
        if rewrite is not None:
            self._rewriter = Rewriter(
                *(archive, turns, rewrite.declared, rewrite.open, rewrite.erased, rewrite.currency),
                *(time.monotonic, _log.error, room, stop),
            )
        self._disk = disk
        self._merges_at = float("-inf")  # no merge before
        self._is_full = False
        self._proofs: Proofs | None = archive.proofs()
        self._looked_at = float("-inf")
        self._said_at = float("-inf")

    def run_once(self) -> bool:
        """Whether something was done, so there may be more to do. Raises what Merger does; waits out a full disk."""
        removed = self._merger.retire()  # first, because it frees space that a merge may need
        return bool(removed or self._rewrite() or self._merge()) or self._prove()

    def _rewrite(self) -> int:
        """Rewrite one file whose columns follow older declarations; returns how many there were."""
        rewriter = self._rewriter
        left = 0 if rewriter is None else self._where_there_is_room(rewriter.run_once, 0, "rewritten")
        if left and time.monotonic() - self._said_at >= SAY_S:
            self._said_at = time.monotonic()
            _log.info("field declarations have changed: %d files of the archive need rewriting", left)
        return left

    def _merge(self) -> int:
        step = self._where_there_is_room(self._merger.run_once, Step(), "merged")
        if step.merged:
            self._is_full = False
            self._say(step.merged, step.waiting)
        return step.merged

    def _where_there_is_room(self, step: Callable[[], T], nothing: T, what: str) -> T:
        """Do a step that writes a file, unless the disk was full a moment ago."""
        if time.monotonic() < self._merges_at:
            return nothing
        try:
            if self._disk is None:
                return step()
            with room_needed(self._disk.path):
                return step()
        except DiskFull as err:
            self._merges_at = time.monotonic() + FULL_S
            if not self._is_full:  # once: a full disk may last for days
                _log.warning("files of the archive are not %s: %s", what, err.message)
            self._is_full = True
            return nothing

    def _say(self, merged: int, waiting: int) -> None:
        if waiting and time.monotonic() - self._said_at >= SAY_S:
            self._said_at = time.monotonic()
            _log.info("merging the archive's small files: %d merged just now, %d waiting", merged, waiting)

    def _prove(self) -> bool:
        """Read some files completely: new ones, changed ones, and every file again after a day."""
        if self._proofs is None or time.monotonic() - self._looked_at < LOOK_S:
            return False
        due = self._proofs.due(self._archive.files())
        if not due:
            self._looked_at = time.monotonic()
            return False
        for problem in self._proofs.prove(within(due, PROVED_BYTES)):
            _alarm(problem.reason)
        return len(within(due, PROVED_BYTES)) < len(due)


def _alarm(text: str) -> None:
    _log.error("a file of the archive is damaged (touchfold doctor lists all): %s", text)
