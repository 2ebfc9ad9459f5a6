"""How much of a disk is left: the door stops before the last 5 %, so that PostgreSQL can still write and erase."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from schemas.errors import DiskFull

RESERVED: Final = 0.05
LOOK_EVERY_S: Final = 1.0  # statvfs costs 2 µs, but a thousand requests a second need not ask


def free_share(path: Path) -> float:
    """0..1 of the disk that holds `path`, as an ordinary user may use it."""
    found = os.statvfs(path)
    return found.f_bavail / found.f_blocks if found.f_blocks else 1.0


class Disk:
    """The disk of the data folder. Any thread; two that ask at once may both look."""

    def __init__(
        self,
        path: Path,
        *,
        measure: Callable[[Path], float] = free_share,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._measure = measure
        self._monotonic = monotonic
        self._seen = (float("-inf"), 1.0)

    def free(self) -> float:
        """0..1, at most a second old."""
        now = self._monotonic()
        if now - self._seen[0] >= LOOK_EVERY_S:
            self._seen = (now, self._measure(self._path))
        return self._seen[1]

    def check(self) -> None:
        """Raises DiskFull (503, Retry-After) when the last 5 % are reached."""
        free = self.free()
        if free < RESERVED:
            raise DiskFull(
                f"the disk of {self._path} has {free:.1%} left and the last {RESERVED:.0%} are kept free: "
                "make room, or move the data folder to a larger disk",
                retry_after_s=30,
            )
