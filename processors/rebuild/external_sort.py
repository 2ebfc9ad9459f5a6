"""Sorts more (key, value) pairs than fit in memory: sorted runs in nameless temporary files, merged while reading.

A run has no name in the file system, so a killed process leaves nothing behind.
"""

import errno
import heapq
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final, TypeVar

from schemas.errors import DiskFull

HELD_BYTES: Final = 32_000_000  # of keys and values in memory per sorter, three times that with Python's overhead
WIDTH: Final = 32  # runs merged together: that many open files per level, and one more level per 32 times the data
_PAIR_BYTES: Final = 100  # overhead of two bytes objects and their tuple
_BUFFER: Final = 1 << 18
_SIZES: Final = struct.Struct("<HI")
Pair = tuple[bytes, bytes]
A = TypeVar("A")
B = TypeVar("B")


class Sorter:
    """Pairs in ascending order of key, then value. Fill first, then read any number of times; one thread."""

    def __init__(
        self, folder: Path | None = None, room: Callable[[], None] = lambda: None, held_bytes: int = HELD_BYTES
    ) -> None:
        """`folder`: for the runs; None: the system's. `room` is called before each run and may raise DiskFull."""
        self._folder = folder
        self._room = room
        self._limit = held_bytes
        self._held: list[Pair] = []
        self._held_bytes = 0
        self._levels: list[list[IO[bytes]]] = []

    def add(self, key: bytes, value: bytes) -> None:
        """Raises DiskFull."""
        self._held.append((key, value))
        self._held_bytes += len(key) + len(value) + _PAIR_BYTES
        if self._held_bytes >= self._limit:
            self._spill()

    def __iter__(self) -> Iterator[Pair]:
        self._held.sort()
        runs = [_pairs(run) for level in self._levels for run in level]
        return heapq.merge(*runs, self._held) if runs else iter(self._held)

    def close(self) -> None:
        """Drop everything and free the disk."""
        self._held.clear()
        for level in self._levels:
            for run in level:
                run.close()
        self._levels.clear()

    def _spill(self) -> None:
        self._held.sort()
        run: IO[bytes] = self._write(self._held)
        self._held.clear()
        self._held_bytes = 0
        for level in self._levels:
            level.append(run)
            if len(level) < WIDTH:
                return
            run = self._write(heapq.merge(*map(_pairs, level)))
            for merged in level:
                merged.close()
            level.clear()
        self._levels.append([run])

    def _write(self, pairs: Iterable[Pair]) -> IO[bytes]:
        self._room()
        run = tempfile.TemporaryFile(dir=self._folder, buffering=_BUFFER)  # noqa: SIM115  # `close` closes it
        try:
            pack = _SIZES.pack
            for key, value in pairs:
                run.write(pack(len(key), len(value)) + key + value)
            run.flush()
        except OSError as err:
            run.close()
            if err.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(f"no room for temporary files in {self._folder}", retry_after_s=30) from err
            raise
        return run


class Scratch:
    """Makes sorters in one folder; closing it closes them all."""

    def __init__(
        self, folder: Path | None = None, room: Callable[[], None] = lambda: None, held_bytes: int = HELD_BYTES
    ) -> None:
        self._folder = folder
        self._room = room
        self._held_bytes = held_bytes
        self._made = ExitStack()

    def sorter(self) -> Sorter:
        made = Sorter(self._folder, self._room, self._held_bytes)
        self._made.callback(made.close)
        return made

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_raised: object) -> None:
        self._made.close()


def _pairs(run: IO[bytes]) -> Iterator[Pair]:
    """The pairs of a run. Reads by position, so that several readers of one run do not interfere."""
    file, at, data, position = run.fileno(), 0, b"", 0
    sizes_at, head = _SIZES.unpack_from, _SIZES.size
    while True:
        if len(data) - position < head:
            more = os.pread(file, _BUFFER, at)
            if not more and position == len(data):
                return
            data, position, at = data[position:] + more, 0, at + len(more)
        key_size, value_size = sizes_at(data, position)
        end = position + head + key_size + value_size
        while len(data) < end:
            more = os.pread(file, max(_BUFFER, end - len(data)), at)
            assert more, "a run ends inside a pair"
            data, position, end, at = data[position:] + more, 0, end - position, at + len(more)
        split = position + head + key_size
        yield data[position + head : split], data[split:end]
        position = end


def joined(
    left: Iterable[tuple[bytes, A]], right: Iterable[tuple[bytes, B]]
) -> Iterator[tuple[bytes, A | None, B | None]]:
    """A full outer merge join of two ascending sides, each with unique keys."""
    ones, twos = iter(left), iter(right)
    one, two = next(ones, None), next(twos, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one[0] < two[0]):
            assert one is not None, "one side is left"
            yield one[0], one[1], None
            one = next(ones, None)
        elif one is None or two[0] < one[0]:
            yield two[0], None, two[1]
            two = next(twos, None)
        else:
            yield one[0], one[1], two[1]
            one, two = next(ones, None), next(twos, None)
