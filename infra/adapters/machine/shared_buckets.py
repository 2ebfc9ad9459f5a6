"""Rate limits shared by all processes of a folder: token buckets in a small file that each maps into memory.

A bucket is one number, the time at which it will be full again (GCRA), next to a hash of its name. The table has a
fixed size: if a new bucket finds its eight places taken, it replaces the fullest one, which matters least. Taking costs
a few microseconds; we never write the file out ourselves.
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
_SEED: Final = 16  # bytes at the front, mixed into the hash so that nobody can choose which bucket to push out
_SIZE: Final = _SEED + SETS * WAYS * 16
_log = logging.getLogger("touchfold.rates")


class SharedBuckets:
    """Any thread and any process may take. `path`: the file, created if missing.

    `monotonic` is the same clock for all processes of a machine; it restarts when the machine does.
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
        """Take `cost` from a bucket of `burst` that gains `rate` per second: 0.0, or the seconds to wait.

        A cost greater than the bucket is granted when the bucket is full.
        """
        return self._ask(name, rate, burst, cost, spend=True)

    def wait_s(self, name: str, rate: float, burst: float) -> float:
        """What `take` with a cost of one would return; nothing is taken."""
        return self._ask(name, rate, burst, 1.0, spend=False)

    def _ask(self, name: str, rate: float, burst: float, cost: float, *, spend: bool) -> float:
        hashed = int.from_bytes(blake2b(name.encode(errors="replace"), digest_size=8, key=self._seed).digest()) or 1
        first = hashed % SETS * WAYS * 2
        with self._alone():
            now, holds_s = self._monotonic(), burst / rate
            place, full_at = self._find(first, hashed, now)
            if full_at > now + holds_s + 1e-6:
                full_at = now  # a bucket of another rate, or from before the machine restarted
            full_at = max(full_at, now) + min(cost, burst) / rate
            wait_s = full_at - now - holds_s
            if wait_s > 1e-6:
                return wait_s
            if spend:
                self._names[place], self._times[place + 1] = hashed, full_at
            return 0.0

    def _find(self, first: int, hashed: int, now: float) -> tuple[int, float]:
        """(its place, when it will be full); a new bucket is full now."""
        fullest = first
        for place in range(first, first + 2 * WAYS, 2):
            if self._names[place] == hashed:
                return place, self._times[place + 1]
            if self._times[place + 1] < self._times[fullest + 1]:
                fullest = place
        return fullest, now

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Excludes other threads and processes. A killed holder releases it; a suspended one is not waited for."""
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
    """False after `LOCK_S`: a count that is off by one is better than an event loop waiting for a suspended process."""
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
    """The file's handle and map; (-1, private memory) if the disk has no space for it."""
    make_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(handle, 0, _SIZE)  # writing to a page that the disk cannot hold would kill the process
        return handle, mmap.mmap(handle, _SIZE)
    except OSError as err:
        os.close(handle)
        _log.warning("rate limits are kept per process, not shared: %s: %s", path, err.strerror)
        return -1, mmap.mmap(-1, _SIZE)
