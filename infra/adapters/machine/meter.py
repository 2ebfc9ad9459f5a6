"""Counters kept by many HTTP processes and readable by any of them: one small memory-mapped file of integers each.

A process claims a file by its lock and counts on from its predecessor's totals, so no total ever falls. An addition
costs the same as on a list; we never write the file out ourselves.
"""

import errno
import fcntl
import mmap
import os
from bisect import bisect_left
from collections.abc import MutableSequence, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from infra.adapters.machine.private_files import make_folder
from schemas.errors import ServiceFailed
from schemas.record import FLAGS

DOOR: Final = ("requests", "accepted", "dead_letters", "suppressed", "refused", "unavailable")
STATUSES: Final = (400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 429, 500, 503)  # others count as 500
EDGES: Final = ("door", "api")
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
MOST: Final = 256  # processes
_WIDTH: Final = len(STATUSES) + len(BUCKETS) + 2  # per edge: refusals, buckets and overflow, microseconds
_EVENTS: Final = len(DOOR) + len(FLAGS)  # counted by what takes events in
_COUNTS: Final = _EVENTS + len(EDGES) * _WIDTH
_SIZE: Final = 8 * _COUNTS
_PREFIX: Final = f"meter-1-{_COUNTS}-"  # a different layout uses different files
_STATUS_AT: Final = {status: place for place, status in enumerate(STATUSES)}


class Latency(NamedTuple):
    """Requests of an edge: how many fell into each of BUCKETS (not cumulative), and above; seconds in total."""

    counts: Sequence[int]
    seconds: float


class Totals(NamedTuple):
    """Totals of all processes, including earlier ones."""

    door: dict[str, int]
    flagged: dict[str, int]  # by flag of a record: events accepted with it
    refused: dict[tuple[str, int], int]  # (edge, status) -> requests
    latency: dict[str, Latency]


class Meter:
    """One process's counters. Each is updated by one thread, as the door does; `observe` by the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)
        self._handle = _claim(folder)
        self._map = _mapped(self._handle)
        self._counts = memoryview(self._map).cast("Q")
        self.door: MutableSequence[int] = self._counts[:_EVENTS]  # type: ignore[assignment]  # a memoryview is one

    def refuse(self, edge: int, status: int) -> None:
        """Count a refusal; `edge`: its place in EDGES."""
        self._counts[_base(edge) + _STATUS_AT.get(status, len(STATUSES) - 2)] += 1

    def observe(self, edge: int, seconds: float) -> None:
        """Record how long a request took."""
        base = _base(edge) + len(STATUSES)
        self._counts[base + bisect_left(BUCKETS, seconds)] += 1
        self._counts[base + len(BUCKETS) + 1] += int(seconds * 1e6)

    def totals(self) -> Totals:
        """Totals over every process's file."""
        sums = [0] * _COUNTS
        for path in self._folder.glob(f"{_PREFIX}*"):
            raw = path.read_bytes()
            if len(raw) == _SIZE:
                sums = [a + b for a, b in zip(sums, memoryview(raw).cast("Q"), strict=True)]
        refused: dict[tuple[str, int], int] = {}
        latency: dict[str, Latency] = {}
        for place, edge in enumerate(EDGES):
            base = _base(place)
            refused |= {(edge, status): sums[base + at] for at, status in enumerate(STATUSES)}
            start = base + len(STATUSES)
            counts = sums[start : start + len(BUCKETS) + 1]
            latency[edge] = Latency(counts, sums[start + len(BUCKETS) + 1] / 1e6)
        flagged = dict(zip(FLAGS, sums[len(DOOR) : _EVENTS], strict=True))
        return Totals(dict(zip(DOOR, sums, strict=False)), flagged, refused, latency)

    def close(self) -> None:
        """Release the file to the next process."""
        self.door = list(self.door)
        self._counts = memoryview(bytearray(_SIZE)).cast("Q")  # a late answer may still count
        fcntl.flock(self._handle, fcntl.LOCK_UN)  # closing would not release it: the map has its own handle
        os.close(self._handle)


def _mapped(handle: int) -> mmap.mmap:
    """The file in memory, its blocks allocated first: on a full disk the first count would be fatal (SIGBUS).

    If there is no space for them, plain memory: those counts end with the process.
    """
    try:
        os.posix_fallocate(handle, 0, _SIZE)
    except OSError as err:
        if err.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return mmap.mmap(-1, _SIZE)
    return mmap.mmap(handle, _SIZE)


def _base(edge: int) -> int:
    return _EVENTS + edge * _WIDTH


def _claim(folder: Path) -> int:
    """The handle of the first file that no process holds."""
    for number in range(MOST):
        handle = os.open(folder / f"{_PREFIX}{number}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        os.ftruncate(handle, _SIZE)
        return handle
    raise ServiceFailed(f"more than {MOST} processes are counting in {folder}")
