"""Rates that many processes of a folder keep together: token buckets in a small file that each maps to memory.

A bucket is one number, the time at which it would be full again (GCRA), beside a hash of its name. The table has a
fixed size: where a new bucket finds its eight places taken, the fullest one is forgotten, which is the one that
matters least. Taking costs some microseconds; nothing is written out by us.
"""

import fcntl
import logging
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final

from infra.adapters.machine.private_files import make_folder

SETS: Final = 2_048
WAYS: Final = 8
LOCK_S: Final = 0.2  # it is held for microseconds
_SEED: Final = 16  # bytes at the front: what names are hashed with, so that nobody chooses which bucket to push out
_SIZE: Final = _SEED + SETS * WAYS * 16
_log = logging.getLogger("touchfold.rates")


class SharedBuckets:
    """Any thread and any process may take. `path`: the file; it is made when it is missing.

    `monotonic` is the same clock for all processes of a machine, and begins anew when that does.
    """

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._handle, self._map = _mapped(path)
        self._names = memoryview(self._map)[_SEED:].cast("Q")
        self._times = memoryview(self._map)[_SEED:].cast("d")
        with self._alone():
            if not any(self._map[:_SEED]):
                self._map[:_SEED] = os.urandom(_SEED)
            self._seed = bytes(self._map[:_SEED])

    def take(self, name: str, rate: float, burst: float, cost: float = 1.0) -> float:
        """Take `cost` from a bucket of `burst` that gains `rate` a second: 0.0, or the seconds to wait.

        More than the bucket holds is given when it is full.
        """
        return self._ask(name, rate, burst, cost, spend=True)

    def wait_s(self, name: str, rate: float, burst: float) -> float:
        """What `take` of one would answer; nothing is taken."""
        return self._ask(name, rate, burst, 1.0, spend=False)

    def _ask(self, name: str, rate: float, burst: float, cost: float, *, spend: bool) -> float:
        hashed = int.from_bytes(blake2b(name.encode(errors="replace"), digest_size=8, key=self._seed).digest()) or 1
        first = hashed % SETS * WAYS * 2
        with self._alone():
            now, holds_s = self._monotonic(), burst / rate
            place, full_at = self._find(first, hashed, now)
            if full_at > now + holds_s + 1e-6:
                full_at = now  # of another rate, or from before the machine started again
            full_at = max(full_at, now) + min(cost, burst) / rate
            wait_s = full_at - now - holds_s
            if wait_s > 1e-6:
                return wait_s
            if spend:
                self._names[place], self._times[place + 1] = hashed, full_at
            return 0.0

    def _find(self, first: int, hashed: int, now: float) -> tuple[int, float]:
        """(its place, when it is full); a new bucket is full now."""
        fullest = first
        for place in range(first, first + 2 * WAYS, 2):
            if self._names[place] == hashed:
                return place, self._times[place + 1]
            if self._times[place + 1] < self._times[fullest + 1]:
                fullest = place
        return fullest, now

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread or process. One that is killed here lets go; one that stands still is not waited for."""
        with self._lock:
            locked = self._handle >= 0 and _locked(self._handle)
            try:
                yield
            finally:
                if locked:
                    fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1


def _locked(handle: int) -> bool:
    """False after `LOCK_S`: a count that is off by one is better than an event loop that waits for a stopped one."""
    until = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            os.sched_yield()


def _mapped(path: Path) -> tuple[int, mmap.mmap]:
    """The file's handle and map; (-1, memory of our own) where the disk has no room for it."""
    make_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(handle, 0, _SIZE)  # a page that the disk cannot hold would end us when it is written
        return handle, mmap.mmap(handle, _SIZE)
    except OSError as err:
        os.close(handle)
        _log.warning("rates are kept by each process alone: %s: %s", path, err.strerror)
        return -1, mmap.mmap(-1, _SIZE)
