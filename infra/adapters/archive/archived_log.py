"""`EventLog` over an archive and the live log: what retention removed from the log is read from the files.

The archive is tried first: that is cheaper for the brokers, and after retention it is the log (design C13). If the
archive is unavailable or damaged, records come from the log while it has them; only if both fail is it an error.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from infra.adapters.archive.reader import ArchiveReader, Piece
from infra.adapters.archive.reading_log import LogBefore
from schemas.errors import ArchiveDamaged, LogTruncated, StoreUnavailable, TouchfoldError
from schemas.ports import EventLog
from schemas.record import Stored

_FROM_FILE: Final = 16  # from this many positions in one piece of a file, reading it is cheaper than asking the log
_AT_ONCE: Final = 8  # pieces that a fetch reads in parallel
_AMISS: Final = (ArchiveDamaged, StoreUnavailable)
_log = logging.getLogger("touchfold.archive")


class ArchivedLog(LogBefore):
    """A complete `EventLog`. Any thread, if `log` allows it.

    `log`: one without `starts` never loses a record. Raises LogTruncated for an offset that is in neither.
    """

    def __init__(self, log: EventLog, reader: ArchiveReader) -> None:
        super().__init__(log)
        self._reader = reader
        self._log_starts: Callable[[], list[int]] | None = getattr(log, "starts", None)
        self._warm_up: Callable[[], None] | None = getattr(log, "warm_up", None)
        self._close: Callable[[], None] | None = getattr(log, "close", None)
        self._expects = False

    def warm_up(self) -> None:
        """Prepare the log for appends, if it needs that."""
        if self._warm_up is not None:
            self._warm_up()

    def close(self) -> None:
        """Close the underlying log, if it can be closed."""
        if self._close is not None:
            self._close()

    def starts(self) -> list[int]:
        """The first readable offset of each partition: 0 if there are files, since they begin there."""
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
                        self._reader.look()  # a reader going from file to file also gets those added meanwhile
                except _AMISS as err:
                    return found + self._read_instead(err, partition, at, limit - len(found))
                found += more
                at = after
                continue
            try:
                return found + self._log.read(partition, at, limit - len(found))
            except LogTruncated:
                self._reader.refresh()  # retention never overtakes the archiver, so the records are archived by now
                if not self._holds(partition, at):
                    raise
        return found

    def fetch(self, positions: Iterable[tuple[int, int]]) -> list[Stored]:
        """See the port. Files serve what the log lacks, what is cached, and many records of one file; else the log.

        What retention removes from the log meanwhile is then looked for in the files.
        """
        files, rest = self._placed(set(positions))
        starts = self._log_starts() if files and self._log_starts else [0] * self._log.partitions
        chosen: dict[Piece, list[int]] = {}
        for piece, offsets in files.items():
            gone = min(offsets) < _start(starts, piece.entry.partition)
            if gone or len(offsets) >= _FROM_FILE or self._reader.at_hand(piece):
                chosen[piece] = offsets
            else:
                rest += [(piece.entry.partition, offset) for offset in offsets]
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
        """Read from the log what the archive failed to give; if the log begins later, raise the archive's error."""
        try:
            found = self._log.read(partition, at, limit)
        except LogTruncated:
            raise err from None
        _log.error("reading the log instead of the archive: %s", err.message)
        return found

    def _fetch_instead(self, err: TouchfoldError, partition: int, offsets: Collection[int]) -> list[Stored]:
        found = self._log.fetch([(partition, offset) for offset in offsets])
        if self._log_starts and min(offsets) < _start(self._log_starts(), partition):
            raise err from None
        _log.error("reading the log instead of the archive: %s", err.message)
        return found

    def _holds(self, partition: int, offset: int) -> bool:
        if not self._expects:
            self._reader.expect(self._log.generation)
            self._expects = True
        return self._reader.holds(partition, offset)

    def _placed(
        self, wanted: Iterable[tuple[int, int]], *, last: bool = False
    ) -> tuple[dict[Piece, list[int]], list[tuple[int, int]]]:
        """The offsets by piece, and the positions that no file covers. `last`: a gap in them is an error."""
        files: dict[Piece, list[int]] = {}
        rest: list[tuple[int, int]] = []
        gap: ArchiveDamaged | None = None
        for partition, offset in wanted:
            if not self._holds(partition, offset):
                rest.append((partition, offset))
                continue
            try:
                piece = self._reader.piece(partition, offset)
            except ArchiveDamaged as err:
                if last:
                    raise
                gap = err
                rest.append((partition, offset))
            else:
                files.setdefault(piece, []).append(offset)
        if gap is not None:
            _log.error("reading the log instead of the archive: %s", gap.message)
        return files, rest

    def _from_files(self, files: Mapping[Piece, list[int]]) -> list[Stored]:
        if len(files) < 2:
            return [record for piece, offsets in files.items() for record in self._chosen(piece, offsets)]
        with ThreadPoolExecutor(min(_AT_ONCE, len(files)), "archive fetch") as pool:
            parts = pool.map(lambda each: self._chosen(*each), files.items())
            return [record for part in parts for record in part]

    def _chosen(self, piece: Piece, offsets: Collection[int]) -> list[Stored]:
        partition = piece.entry.partition
        try:
            rows = self._reader.rows(piece)
        except _AMISS as err:
            if self._reader.is_replaced(piece):
                return self._from_files(self._placed([(partition, each) for each in offsets], last=True)[0])
            return self._fetch_instead(err, partition, offsets)
        found = []
        for offset in offsets:
            at = bisect_left(rows.offsets, offset)
            if at < len(rows.offsets) and rows.offsets[at] == offset:
                found.append(rows.records[at])
        return found


def _start(starts: Sequence[int], partition: int) -> int:
    """The start of a partition; one added after the log was asked has lost nothing yet."""
    return starts[partition] if partition < len(starts) else 0
