"""What an import must remember about every row, without holding it all in memory: a map and a list.

Both begin in memory and continue in a nameless temporary file that disappears with the process. Neither holds
personal data: keys are keyed hashes, and lines are a file, a number and a reason.
"""

import sqlite3
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

MOST: Final = 50_000  # entries of a map in memory; about 8 MB, and as much again while they are written
MOST_BYTES: Final = 2**20  # of a list
V = TypeVar("V", int, bytes)


class SpillMap(Generic[V]):
    """Like a dict of 16-byte keys. One thread. Entries beyond `most` are in SQLite, at about 3 µs a look-up."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._near: dict[bytes, V] = {}
        self._far: sqlite3.Connection | None = None

    def get(self, key: bytes) -> V | None:
        found = self._near.get(key)
        if found is not None or self._far is None:
            return found
        row = self._far.execute("select value from entries where key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def __setitem__(self, key: bytes, value: V) -> None:
        self._near[key] = value
        if len(self._near) > self._most:
            self._spill()

    def count(self: "SpillMap[int]", key: bytes) -> int:
        """How often this key has been counted, including this time."""
        times = self[key] = (self.get(key) or 0) + 1
        return times

    def remove(self, key: bytes) -> None:
        """Remove a key; no error if it is missing."""
        self._near.pop(key, None)
        if self._far is not None:
            self._far.execute("delete from entries where key = ?", (key,))

    def __bool__(self) -> bool:
        if self._near or self._far is None:
            return bool(self._near)
        return self._far.execute("select 1 from entries limit 1").fetchone() is not None

    def _spill(self) -> None:
        if self._far is None:
            self._far = sqlite3.connect("", isolation_level=None)  # "": a temporary file, removed on close
            self._far.execute("pragma journal_mode = off")
            self._far.execute("pragma cache_size = -16384")  # KiB
            self._far.execute("create table entries (key blob primary key, value) without rowid")
        self._far.execute("begin")
        self._far.executemany("insert or replace into entries values (?, ?)", sorted(self._near.items()))
        self._far.execute("commit")
        self._near.clear()

    def close(self) -> None:
        self._near.clear()
        if self._far is not None:
            self._far.close()
            self._far = None


class RefusedLine(NamedTuple):
    """A line that was refused. `line`: in a grouped event, the bad one; `file`: the path as given."""

    file: str
    line: int
    reason: str


class RefusedLines:
    """Lines in the order they were refused; each iteration reads the file from its start."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._file = SpooledTemporaryFile(most_bytes)  # noqa: SIM115  # closed by `close`
        self._count = 0

    def append(self, line: RefusedLine) -> None:
        self._file.seek(0, 2)  # an iteration may have stopped anywhere
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[RefusedLine]:
        """Append nothing meanwhile."""
        self._file.seek(0)
        for line in self._file:
            yield RefusedLine(*msgspec.json.decode(line))

    def close(self) -> None:
        self._file.close()
