"""How long files of the archive stay after a merge replaced them."""

import time
from collections.abc import Callable
from typing import Final

from schemas.archive import ArchiveFile

GRACE_S: Final = 900.0  # a statement takes 60 s, a rebuild reads a file in seconds
_AHEAD_S: Final = 5.0  # an entry dated this far in the future was made by another clock


class Grace:
    """How long replaced files stay. Setting the clock forward does not shorten it; setting it back at most doubles it.

    `now`: Unix seconds; `monotonic`: seconds. A restarted process has only the clock.
    """

    def __init__(
        self,
        grace_s: float,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grace_s = grace_s
        self._now = now
        self._monotonic = monotonic
        self._since: dict[str, float] = {}  # by path of the entry, while the clock cannot tell

    def began(self, entry: ArchiveFile) -> None:
        """This process has just listed an entry, so the clock is not needed."""
        self._since[entry.path] = self._monotonic()

    def is_over(self, by: ArchiveFile) -> bool:
        """Whether the files that an entry replaces were replaced long enough ago."""
        age_s = self._now() - by.replaced_at
        if by.path not in self._since and age_s < -_AHEAD_S:  # the clock was set back: count from now
            self._since[by.path] = self._monotonic()
        since = self._since.get(by.path)
        if since is None:
            return age_s >= self._grace_s
        over = self._monotonic() - since >= self._grace_s
        if over and age_s >= self._grace_s:
            del self._since[by.path]  # from here on the clock can tell
        return over
