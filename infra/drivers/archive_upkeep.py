"""What the archive process does when nothing is to be archived: merges, removes what was replaced, proves files."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from infra.adapters.archive_proofs import Proofs, within
from processors.archive_merge import Merger
from schemas.archive import Turns

if TYPE_CHECKING:
    from infra.adapters.disk import Disk
    from infra.adapters.parquet_archive import ParquetArchive

PROVED_BYTES: Final = 64 * 2**20  # read at a time: a tenth of a second; a day's round over 1 TB is 12 MB/s
LOOK_S: Final = 5.0  # between two looks at which files are to be proved
SAY_S: Final = 10.0  # between two lines about merges that go on
_log = logging.getLogger("touchfold.archive")


class Upkeep:
    """One step at a time, so that archiving never waits long."""

    def __init__(
        self, archive: "ParquetArchive", turns: Turns, disk: "Disk | None", stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._archive = archive

        def room(_size: int) -> None:
            if disk is not None:
                disk.check()

        self._merger = Merger(archive, turns, time.monotonic, _alarm, room, stop)
        self._proofs: Proofs | None = archive.proofs()
        self._looked_at = float("-inf")
        self._said_at = float("-inf")

    def run_once(self) -> bool:
        """Whether something was done, so that there may be more. Raises what Merger does, and DiskFull."""
        removed = self._merger.retire()  # first: it makes room where a merge finds none
        step = self._merger.run_once()
        if step.merged:
            self._say(step.merged, step.waiting)
        return bool(removed or step.merged) or self._prove()

    def _say(self, merged: int, waiting: int) -> None:
        if waiting and time.monotonic() - self._said_at >= SAY_S:
            self._said_at = time.monotonic()
            _log.info("merging the archive's small files: %d put together just now, %d wait", merged, waiting)

    def _prove(self) -> bool:
        """Read some files whole: new ones, changed ones, and each one again after a day."""
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
    _log.error("a file of the archive is damaged (touchfold doctor names all): %s", text)
