"""How much of a disk is left, and who stops when, so that PostgreSQL itself never finds the disk full.

The reserve is 5 % of the disk, at least 64 MiB and at most 5 GiB, and never more than a quarter of it. 64 MiB still fit
the largest commits in flight (32 MB of requests, with their WAL); 5 GiB are five full WALs, and 5 % of a 10 TB disk
would waste 500 GB. Whatever adds most stops first: a revision being built at twice the reserve, so that a rebuild does
not close the door; the door, imports and the archive at the reserve; the worker at half of it, so that what the door
has accepted is still applied. The last half is for what must continue: erasures, sign-in, audit entries, and
PostgreSQL's WAL, which is sized to fit (`wal_bytes`).
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from schemas.errors import DiskFull

MIB: Final = 2**20
SHARE: Final = 0.05
LEAST: Final = 64 * MIB
MOST: Final = 5 * 2**30
LARGEST_SHARE: Final = 0.25
BUILDING: Final = 2.0  # multiples of the reserve: below this, building revisions stops
DOOR: Final = 1.0  # the door, the inbox, imports, the archive
WORKER: Final = 0.5
LOOK_EVERY_S: Final = 0.1  # statvfs costs 2 µs, but a thousand requests a second need not ask
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Space(NamedTuple):
    """Bytes of a disk. `free`: available to an ordinary user."""

    free: int
    total: int

    @property
    def share(self) -> float:
        return self.free / self.total if self.total else 1.0


def space(path: Path) -> Space:
    """For the disk that holds `path`."""
    found = os.statvfs(path)
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def reserve_bytes(total: int) -> int:
    """What is kept free on a disk of `total` bytes."""
    return int(min(max(SHARE * total, LEAST), MOST, LARGEST_SHARE * total))


def wal_bytes(total: int) -> int:
    """The WAL that PostgreSQL may keep on such a disk: half the reserve, 32 MiB (two segments) to 1 GiB."""
    return min(max(reserve_bytes(total) // 2, 32 * MIB), 1024 * MIB) // (16 * MIB) * (16 * MIB)


def disk_full(path: Path, found: Space, times: float = DOOR) -> DiskFull:
    """The error for a disk with less than this multiple of its reserve left."""
    kept = int(reserve_bytes(found.total) * times)
    return DiskFull(
        f"the disk of {path} has {found.free // MIB:,} MiB left of {found.total // MIB:,}, and the last "
        f"{kept // MIB:,} MiB are kept free: make room, or move the data folder to a larger disk. Work resumes "
        "by itself when there is space",
        retry_after_s=30,
    )


@contextmanager
def room_needed(path: Path) -> Iterator[None]:
    """Turn a disk-full OSError into DiskFull."""
    try:
        yield
    except OSError as err:
        if err.errno not in _FULL:
            raise
        raise disk_full(path, space(_existing(path))) from err


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.resolve().parents) if each.exists())


class Disk:
    """The disk of a folder. Any thread; two callers may both look at the same moment."""

    def __init__(
        self,
        path: Path,
        *,
        measure: Callable[[Path], Space] = space,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._measure = measure
        self._monotonic = monotonic
        self._seen: tuple[float, Space] | None = None

    def space(self) -> Space:
        """At most a tenth of a second old."""
        now = self._monotonic()
        if self._seen is None or now - self._seen[0] >= LOOK_EVERY_S:
            self._seen = (now, self._measure(_existing(self.path)))
        return self._seen[1]

    def free(self) -> float:
        """0..1 of the disk."""
        return self.space().share

    def has_room(self, times: float = DOOR, needed: int = 0) -> bool:
        """Whether more than this multiple of the reserve is free, on top of `needed` bytes about to be written."""
        found = self.space()
        return found.free - needed >= reserve_bytes(found.total) * times

    def check(self, times: float = DOOR, needed: int = 0) -> None:
        """Raises DiskFull (503, Retry-After) unless more than this multiple of the reserve is left besides `needed`."""
        if not self.has_room(times, needed):
            raise disk_full(self.path, self.space(), times)
