"""Records of an archive by offset. Files stay open and row groups stay decoded, within a bound.

If a file was merged into another since the manifest was read, the manifest is read again.
"""

import logging
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar, cast

from schemas.archive import ArchiveFile, join
from schemas.errors import ArchiveDamaged, StoreUnavailable
from schemas.record import Stored

if TYPE_CHECKING:  # pyarrow's 60 MB are only for processes that read
    import pyarrow as pa

    from infra.adapters.archive.parquet import Groups
    from infra.adapters.archive.store import ParquetArchive

KEPT_BYTES: Final = 256 * 2**20  # decoded: 12 partitions of 20,000 records of 700 bytes, with Python's overhead
_KEPT_FILES: Final = 24  # open; those of an object store are unnamed files of at most 64 MiB
_ROW_BYTES: Final = 150  # per record, besides its value
_COLUMNS: Final = ("offset", "record", "sealed")
_AMISS: Final = (ArchiveDamaged, StoreUnavailable)
_log = logging.getLogger("touchfold.archive")

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Rows(NamedTuple):
    """A decoded row group."""

    offsets: list[int]
    records: list[Stored]


class Piece(NamedTuple):
    """A row group of a file, covering [start, next); `group` None: the file has only one."""

    entry: ArchiveFile
    group: int | None
    start: int
    next: int

    def __hash__(self) -> int:
        return hash((self.entry.path, self.group))


class _Covered(NamedTuple):
    """A partition's pieces, and where each starts."""

    starts: list[int]
    pieces: list[Piece]


class Kept(Generic[Key, Value]):
    """Cache of values that are slow to make: each is made once for all threads; least recently used are evicted."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Future[Value]] = OrderedDict()
        self._sizes: dict[Key, int] = {}  # of finished values
        self.total = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def get(self, key: Key, make: Callable[[], tuple[Value, int]]) -> Value:
        """The value; waits if another thread is making it. `make` also returns its size."""
        with self._lock:
            found = self._kept.get(key)
            mine = found is None
            if found is None:
                found = self._kept[key] = Future()
            else:
                self._kept.move_to_end(key)
        if mine:
            self._make(key, make, found)
        return found.result()

    def _make(self, key: Key, make: Callable[[], tuple[Value, int]], into: "Future[Value]") -> None:
        try:
            value, size = make()
        except BaseException as err:
            with self._lock:
                self._kept.pop(key, None)
            into.set_exception(err)
            return
        into.set_result(value)
        with self._lock:
            self._sizes[key] = size
            self.total += size
            for other in [each for each in self._kept if each in self._sizes and each != key]:
                if self.total <= self._most:
                    break
                del self._kept[other]
                self.total -= self._sizes.pop(other)


class ArchiveReader:
    """Files of an archive, decoded and cached within a bound. Any thread; one per process is enough.

    `archive`: the archive, or a function that makes it at the first read.
    """

    def __init__(self, archive: "ParquetArchive | Callable[[], ParquetArchive]", kept_bytes: int = KEPT_BYTES) -> None:
        self._given = archive
        self._rows: Kept[tuple[str, int | None], Rows] = Kept(kept_bytes)
        self._files: Kept[str, Groups] = Kept(_KEPT_FILES)
        self._stamp: Hashable = object()
        self._loaded: bool | None = None  # whether reading the manifest has succeeded; None: not tried yet
        self._generation: int | None = None
        self._covered: Mapping[int, _Covered] = {}

    @property
    def _archive(self) -> "ParquetArchive":
        if callable(self._given):
            self._given = self._given()
        return self._given

    def expect(self, generation: int) -> None:
        """From now on, files of another log generation are an error."""
        self._generation = generation

    def holds(self, partition: int, offset: int) -> bool:
        """Whether a file is known to cover an offset: the first call reads the manifest, later ones do not.

        Reading the tail needs no archive, so an unavailable or damaged one disturbs it only once.
        """
        if self._loaded is None:
            self._loaded = False
            try:
                entries = self._archive.store.entries(0.0)
            except _AMISS as err:  # the log is asked; if it no longer has the record, `refresh` raises this again
                _log.error("reading the log instead of the archive: %s", err.message)
            else:
                self._load(entries)
                self._loaded = True
        covered = self._covered.get(partition)
        return covered is not None and offset < covered.pieces[-1].next

    def refresh(self) -> None:
        """Read the manifest now, however recently it was read. Raises StoreUnavailable, ArchiveDamaged."""
        self._load(self._archive.store.entries(0.0))
        self._loaded = True

    def look(self) -> None:
        """The same if it is due, or has not succeeded yet."""
        stamp = self._archive.store.stamp()
        if stamp != self._stamp or not self._loaded:
            self._load(self._archive.store.entries())
            self._stamp = stamp
            self._loaded = True

    def read(self, partition: int, start: int, limit: int) -> tuple[list[Stored], int]:
        """At most `limit` records from `start` on, from one row group, and the offset up to which they are complete.

        `start` must be covered (`holds`).
        """
        piece = self.piece(partition, start)
        try:
            rows = self.rows(piece)
        except ArchiveDamaged:
            if not self.is_replaced(piece):
                raise
            piece = self.piece(partition, start)
            rows = self.rows(piece)
        at = bisect_left(rows.offsets, start)
        found = rows.records[at : at + limit]
        return found, piece.next if at + limit >= len(rows.records) else found[-1].offset + 1

    def piece(self, partition: int, offset: int) -> Piece:
        """The piece that covers an offset. Raises ArchiveDamaged if the manifest has a gap there."""
        covered = self._covered[partition]
        piece = covered.pieces[max(0, bisect_right(covered.starts, offset) - 1)]
        if not piece.start <= offset < piece.next:
            raise ArchiveDamaged(f"no file of the archive covers offset {offset} of partition {partition}")
        return piece

    def rows(self, piece: Piece) -> Rows:
        """The decoded row group. Raises ArchiveDamaged."""
        return self._rows.get((piece.entry.path, piece.group), lambda: self._decode(piece))

    def is_replaced(self, piece: Piece) -> bool:
        """Whether the manifest now lists another file there: if so, ask for the piece again."""
        self.refresh()
        return self.piece(piece.entry.partition, piece.start).entry.path != piece.entry.path

    @property
    def kept_bytes(self) -> int:
        """Approximate size of the decoded row groups."""
        return self._rows.total

    def at_hand(self, piece: Piece) -> bool:
        return (piece.entry.path, piece.group) in self._rows

    def _decode(self, piece: Piece) -> tuple[Rows, int]:
        entry = piece.entry
        if not entry.groups:  # most are small and not worth keeping open
            return _decoded(entry, self._archive.rows(entry, _COLUMNS))
        file = self._files.get(entry.path, lambda: (self._archive.groups(entry), 1))
        return _decoded(entry, file.table(piece.group, _COLUMNS))

    def _load(self, entries: Sequence[ArchiveFile]) -> None:
        by_partition: dict[int, _Covered] = defaultdict(lambda: _Covered([], []))
        for entry in entries:
            if self._generation is not None and entry.generation != self._generation:
                raise ArchiveDamaged(
                    f"the archive belongs to log generation {entry.generation}, the log to {self._generation}: restore"
                    " both from the same backup"
                )
            covered = by_partition[entry.partition]
            for piece in pieces_of(entry):
                covered.starts.append(piece.start)
                covered.pieces.append(piece)
        self._covered = dict(by_partition)


def pieces_of(entry: ArchiveFile) -> list[Piece]:
    """A file's row groups and the offsets that each covers."""
    if not entry.groups:
        return [Piece(entry, None, entry.start, entry.next)]
    bounds = [entry.start, *entry.groups, entry.next]
    return [Piece(entry, number, bounds[number], bounds[number + 1]) for number in range(len(bounds) - 1)]


def _decoded(entry: ArchiveFile, table: "pa.Table") -> tuple[Rows, int]:
    """The rows of a table and their approximate size in bytes."""
    offsets, records, parts = (cast(list[Any], table.column(name).to_pylist()) for name in _COLUMNS)
    values = [join(record, sealed) for record, sealed in zip(records, parts, strict=True)]
    partition = entry.partition
    stored = [Stored(partition, offset, value) for offset, value in zip(offsets, values, strict=True)]
    return Rows(offsets, stored), table.nbytes + _ROW_BYTES * len(stored)
