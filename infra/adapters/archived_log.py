"""`EventLog` of an archive and the log behind it: what retention removed from the log is read from the files.

The archive first: that is cheaper for the brokers, and after retention it is the log (design C13). A file that was
read is kept decoded, so that reading on is slicing a list. What the archive does not give, because it is away or
damaged, the log gives while it has it: only what neither gives is an error.
"""

import logging
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from infra.adapters.reading_log import LogBefore
from schemas.archive import ArchiveFile, join
from schemas.errors import ArchiveDamaged, LogTruncated, StoreUnavailable, TouchfoldError
from schemas.ports import EventLog
from schemas.record import Stored

if TYPE_CHECKING:  # pyarrow's 60 MB are for who reads
    import pyarrow as pa

    from infra.adapters.parquet_archive import ParquetArchive

KEPT_BYTES: Final = 256 * 2**20  # decoded: 12 partitions of 20,000 records, each 700 bytes, with what Python adds
_ROW_BYTES: Final = 150  # what a record takes beside its value
_FROM_FILE: Final = 16  # positions in one file from which on reading the file is cheaper than asking the log for each
_AT_ONCE: Final = 8  # files opened together by a fetch
_COLUMNS: Final = ("offset", "record", "sealed")
_AMISS: Final = (ArchiveDamaged, StoreUnavailable)
_log = logging.getLogger("touchfold.archive")


class Rows(NamedTuple):
    """A decoded file."""

    offsets: list[int]
    records: list[Stored]


class _Covered(NamedTuple):
    """A partition's entries, and where each starts."""

    starts: list[int]
    entries: list[ArchiveFile]


class ArchiveReader:
    """Files of an archive, decoded and kept within a bound. Any thread; one for a process is enough.

    `archive`: or what makes it, at the first read.
    """

    def __init__(self, archive: "ParquetArchive | Callable[[], ParquetArchive]", kept_bytes: int = KEPT_BYTES) -> None:
        self._given = archive
        self._most = kept_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[Rows]] = OrderedDict()
        self._sizes: dict[str, int] = {}  # of those that are decoded
        self._total = 0
        self._stamp: Hashable = object()
        self._loaded: bool | None = None  # whether a look at the manifest has succeeded; None: none was tried
        self._generation: int | None = None
        self._covered: Mapping[int, _Covered] = {}

    @property
    def _archive(self) -> "ParquetArchive":
        if callable(self._given):
            self._given = self._given()
        return self._given

    def expect(self, generation: int) -> None:
        """Files of another log generation are an error from now on."""
        self._generation = generation

    def holds(self, partition: int, offset: int) -> bool:
        """Whether a file covers an offset, as far as known: the first call looks, later ones do not.

        Who reads the tail needs no archive: one that is away or damaged then does not disturb it more than once.
        """
        if self._loaded is None:
            self._loaded = False
            try:
                entries = self._archive.store.entries(0.0)
            except _AMISS as err:  # the log is asked, and when that has it no more `refresh` says so
                _log.error("the log is read instead of the archive: %s", err.message)
            else:
                self._load(entries)
                self._loaded = True
        covered = self._covered.get(partition)
        return covered is not None and offset < covered.entries[-1].next

    def refresh(self) -> None:
        """Look at the manifest, however short ago that was. Raises StoreUnavailable, ArchiveDamaged."""
        self._load(self._archive.store.entries(0.0))
        self._loaded = True

    def look(self) -> None:
        """The same when it is time to, or when no look has succeeded yet."""
        stamp = self._archive.store.stamp()
        if stamp != self._stamp or not self._loaded:
            self._load(self._archive.store.entries())
            self._stamp = stamp
            self._loaded = True

    def read(self, partition: int, start: int, limit: int) -> tuple[list[Stored], int]:
        """At most `limit` records from `start` on, and the offset up to which all were given. From one file.

        `start` must be held.
        """
        entry = self.entry(partition, start)
        rows = self.rows(entry)
        at = bisect_left(rows.offsets, start)
        found = rows.records[at : at + limit]
        return found, entry.next if at + limit >= len(rows.records) else found[-1].offset + 1

    def entry(self, partition: int, offset: int) -> ArchiveFile:
        """The file that covers a held offset. Raises ArchiveDamaged where the manifest has a gap."""
        covered = self._covered[partition]
        entry = covered.entries[max(0, bisect_right(covered.starts, offset) - 1)]
        if not entry.start <= offset < entry.next:
            raise ArchiveDamaged(f"no file of the archive covers offset {offset} of partition {partition}")
        return entry

    def rows(self, entry: ArchiveFile) -> Rows:
        """The decoded file; who asks while another thread decodes it waits for that."""
        with self._lock:
            found = self._kept.get(entry.path)
            mine = found is None
            if found is None:
                found = self._kept[entry.path] = Future()
            else:
                self._kept.move_to_end(entry.path)
        if mine:
            self._decode(entry, found)
        return found.result()

    @property
    def kept_bytes(self) -> int:
        """About what the decoded files take."""
        return self._total

    def at_hand(self, entry: ArchiveFile) -> bool:
        return entry.path in self._kept

    def _decode(self, entry: ArchiveFile, into: "Future[Rows]") -> None:
        try:
            rows, size = _decoded(entry, self._archive.rows(entry, _COLUMNS))
        except BaseException as err:
            with self._lock:
                self._kept.pop(entry.path, None)
            into.set_exception(err)
            return
        into.set_result(rows)
        with self._lock:
            self._sizes[entry.path] = size
            self._total += size
            for path in [each for each in self._kept if each in self._sizes and each != entry.path]:  # used least first
                if self._total <= self._most:
                    break
                del self._kept[path]
                self._total -= self._sizes.pop(path)

    def _load(self, entries: Sequence[ArchiveFile]) -> None:
        by_partition: dict[int, _Covered] = defaultdict(lambda: _Covered([], []))
        for entry in entries:
            if self._generation is not None and entry.generation != self._generation:
                raise ArchiveDamaged(
                    f"the archive is of log generation {entry.generation}, the log of {self._generation}: restore both"
                    " from the same backup"
                )
            covered = by_partition[entry.partition]
            covered.starts.append(entry.start)
            covered.entries.append(entry)
        self._covered = dict(by_partition)


def _decoded(entry: ArchiveFile, table: "pa.Table") -> tuple[Rows, int]:
    """Rows of a file, and about how many bytes they take."""
    offsets, records, parts = (cast(list[Any], table.column(name).to_pylist()) for name in _COLUMNS)
    values = [join(record, sealed) for record, sealed in zip(records, parts, strict=True)]
    partition = entry.partition
    stored = [Stored(partition, offset, value) for offset, value in zip(offsets, values, strict=True)]
    return Rows(offsets, stored), table.nbytes + _ROW_BYTES * len(stored)


class ArchivedLog(LogBefore):
    """An `EventLog` that is whole. Any thread, where `log` allows it.

    `log`: one without `starts` never loses a record. Raises LogTruncated for an offset that neither has.
    """

    def __init__(self, log: EventLog, reader: ArchiveReader) -> None:
        super().__init__(log)
        self._reader = reader
        self._log_starts: Callable[[], list[int]] | None = getattr(log, "starts", None)
        self._warm_up: Callable[[], None] | None = getattr(log, "warm_up", None)
        self._expects = False

    def warm_up(self) -> None:
        """Where the log has something to make ready for appends."""
        if self._warm_up is not None:
            self._warm_up()

    def starts(self) -> list[int]:
        """By partition the first offset that can be read: 0 where there are files, for they begin there."""
        starts = self._log_starts() if self._log_starts else [0] * self._log.partitions
        return [0 if start and self._holds(partition, 0) else start for partition, start in enumerate(starts)]

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        found: list[Stored] = []
        at = start
        while len(found) < limit:
            if self._holds(partition, at):
                try:
                    more, after = self._reader.read(partition, at, limit - len(found))
                    if not self._holds(partition, after):
                        self._reader.look()  # whoever reads on from file to file gets those that were added meanwhile
                except _AMISS as err:
                    return found + self._read_instead(err, partition, at, limit - len(found))
                found += more
                at = after
                continue
            try:
                return found + self._log.read(partition, at, limit - len(found))
            except LogTruncated:
                self._reader.refresh()  # retention is behind the archiver: then it has the records by now
                if not self._holds(partition, at):
                    raise
        return found

    def fetch(self, positions: Iterable[tuple[int, int]]) -> list[Stored]:
        """See the port. From files what the log has no more, and what is many in one file or at hand; else by the log.

        What the log has no more (retention went on meanwhile) is looked for in the files after all.
        """
        files, rest = self._placed(set(positions))
        starts = self._log_starts() if files and self._log_starts else [0] * self._log.partitions
        chosen: dict[str, tuple[ArchiveFile, list[int]]] = {}
        for path, (entry, offsets) in files.items():
            gone = min(offsets) < _start(starts, entry.partition)
            if gone or len(offsets) >= _FROM_FILE or self._reader.at_hand(entry):
                chosen[path] = (entry, offsets)
            else:
                rest += [(entry.partition, offset) for offset in offsets]
        found = self._from_files(chosen)
        if rest:
            told = self._log.fetch(rest)
            found += told
            missing = set(rest).difference((each.partition, each.offset) for each in told)
            starts = self._log_starts() if missing and self._log_starts else starts
            lost = [(partition, offset) for partition, offset in missing if offset < _start(starts, partition)]
            if lost:
                self._reader.look()
                found += self._from_files(self._placed(lost, last=True)[0])
        return found

    def _read_instead(self, err: TouchfoldError, partition: int, at: int, limit: int) -> list[Stored]:
        """Of the log what the archive did not give; where the log begins later, the archive's error."""
        try:
            found = self._log.read(partition, at, limit)
        except LogTruncated:
            raise err from None
        _log.error("the log is read instead of the archive: %s", err.message)
        return found

    def _fetch_instead(self, err: TouchfoldError, partition: int, offsets: Collection[int]) -> list[Stored]:
        found = self._log.fetch([(partition, offset) for offset in offsets])
        if self._log_starts and min(offsets) < _start(self._log_starts(), partition):
            raise err from None
        _log.error("the log is read instead of the archive: %s", err.message)
        return found

    def _holds(self, partition: int, offset: int) -> bool:
        if not self._expects:
            self._reader.expect(self._log.generation)
            self._expects = True
        return self._reader.holds(partition, offset)

    def _placed(
        self, wanted: Iterable[tuple[int, int]], *, last: bool = False
    ) -> tuple[dict[str, tuple[ArchiveFile, list[int]]], list[tuple[int, int]]]:
        """By file the offsets it covers, and the positions that no file covers. `last`: a gap in them is an error."""
        files: dict[str, tuple[ArchiveFile, list[int]]] = {}
        rest: list[tuple[int, int]] = []
        gap: ArchiveDamaged | None = None
        for partition, offset in wanted:
            if not self._holds(partition, offset):
                rest.append((partition, offset))
                continue
            try:
                entry = self._reader.entry(partition, offset)
            except ArchiveDamaged as err:
                if last:
                    raise
                gap = err
                rest.append((partition, offset))
            else:
                files.setdefault(entry.path, (entry, []))[1].append(offset)
        if gap is not None:
            _log.error("the log is read instead of the archive: %s", gap.message)
        return files, rest

    def _from_files(self, files: Mapping[str, tuple[ArchiveFile, list[int]]]) -> list[Stored]:
        if len(files) < 2:
            return [record for entry, offsets in files.values() for record in self._chosen(entry, offsets)]
        with ThreadPoolExecutor(min(_AT_ONCE, len(files)), "archive fetch") as pool:
            parts = pool.map(lambda each: self._chosen(*each), files.values())
            return [record for part in parts for record in part]

    def _chosen(self, entry: ArchiveFile, offsets: Collection[int]) -> list[Stored]:
        try:
            rows = self._reader.rows(entry)
        except _AMISS as err:
            return self._fetch_instead(err, entry.partition, offsets)
        found = []
        for offset in offsets:
            at = bisect_left(rows.offsets, offset)
            if at < len(rows.offsets) and rows.offsets[at] == offset:
                found.append(rows.records[at])
        return found


def _start(starts: Sequence[int], partition: int) -> int:
    """Of a partition that the log was given after it was asked: nothing is gone from it yet."""
    return starts[partition] if partition < len(starts) else 0
