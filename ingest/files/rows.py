"""The rows of an import's files as events, in file order; the rows of one order are combined."""

import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from ingest.accept.canonical import Refused
from ingest.files.mapped_rows import Row, Shaped, Shaper, row_hasher
from ingest.files.spill import SpillMap
from ingest.files.table_files import Table, open_table
from schemas.errors import BadRequest
from schemas.mapping import FileMapping, check_columns

HELD_LINES: Final = 200_000  # of incomplete orders; about 100 MB
PREVIEW_LINES: Final = 20_000
_ENCODE: Final = msgspec.json.Encoder(decimal_format="string").encode


class Progress(NamedTuple):
    """`done`: the share read, 0..1; `events`: how many were read so far."""

    done: float
    events: int


class Source:
    """The files of one command as one data set: rows, orders, events. Equal lines are counted across all files."""

    def __init__(
        self, files: Sequence[Path], mapping: FileMapping, secret: bytes, *, held_lines: int = HELD_LINES
    ) -> None:
        """Opens each file and compares its columns with the mapping's. Raises DefinitionsInvalid, BadRequest."""
        self.mapping = mapping
        self.shaper = Shaper(mapping)
        self._secret = secret
        self._held_lines = held_lines
        _refuse_repeated(files)
        self.tables: list[Table] = []
        for path in files:
            table = open_table(path, mapping.format, mapping.delimiter)
            check_columns(mapping, table.columns, str(path))
            self.tables.append(table)
        self._weights = [max(1, path.stat().st_size) for path in files]
        self._pass = 0
        self._current = 0

    def done(self) -> float:
        """The share read, 0..1. With group_by, counting lines is the first half, and extra passes stay at the end."""
        read = float(sum(self._weights[: self._current]))
        if self._current < len(self.tables):
            read += self._weights[self._current] * self.tables[self._current].done()
        share = min(1.0, read / sum(self._weights))
        if not self.mapping.group_by:
            return share
        return share / 2 if self._pass == 1 else (1 + share) / 2 if self._pass == 2 else 1.0

    def name(self, file: int) -> str:
        return str(self.tables[file].path)

    def events(self, limit: int | None = None) -> Iterator[Shaped]:
        """Every event of the files, including refused ones. `limit`: read only this many lines."""
        if not self.mapping.group_by:
            for row in self._rows(limit):
                yield row if isinstance(row, Shaped) else self.shaper.shape((row,))
            return
        yield from self._orders(limit)

    def _rows(self, limit: int | None = None) -> Iterator[Row | Shaped]:
        """Rows of all files in order; a line that cannot be read appears as refused in its place."""
        self._pass += 1
        for file, table in enumerate(self.tables):
            self._current = file
            yield from islice(self._rows_of(file, table), limit)
        self._current = len(self.tables)

    def _rows_of(self, file: int, table: Table) -> Iterator[Row | Shaped]:
        columns = self.shaper.columns
        if self.mapping.id is not None:
            for number, values, refused in table.rows(columns):
                row = Row(file, number, values, b"")
                yield row if refused is None else Shaped(row, None, None, b"", refused)
            return
        hash_of = row_hasher(table.columns, self._secret)
        places = [table.columns.index(name) for name in columns]
        for number, values, refused in table.rows(table.columns):
            if refused is None:
                yield Row(file, number, tuple([values[place] for place in places]), hash_of(values))
            else:
                yield Shaped(Row(file, number, (), b""), None, None, b"", refused)

    def _orders(self, limit: int | None) -> Iterator[Shaped]:
        """Groups the lines of each order, wherever they are, in passes over the files. The first pass counts lines.

        Nothing is written to disk, because temporary files would hold personal values in clear. When the incomplete
        orders exceed `held_lines`, the newest are left for another pass; a file sorted by order needs only one.
        """
        missing = self._count(limit)
        first = True
        while missing:
            left = SpillMap[int]()
            held: dict[bytes, list[Row]] = {}
            lines = 0
            for row in self._rows(limit):
                if isinstance(row, Shaped):
                    if first:
                        yield row
                    continue
                try:
                    group = self._group_of(row)
                except Refused as refused:
                    if first:
                        yield Shaped(row, None, None, row.content, refused)
                    continue
                count = missing.get(group)
                if count is None:
                    continue
                rows = held.setdefault(group, [])
                rows.append(row)
                lines += 1
                if len(rows) == count:
                    del held[group]
                    missing.remove(group)
                    lines -= count
                    yield self.shaper.shape(rows)
                while lines > self._held_lines and len(held) > 1:
                    newest, waiting = held.popitem()
                    lines -= len(waiting)
                    left[newest] = missing.get(newest) or 0
                    missing.remove(newest)
            missing.close()
            missing = left
            first = False

    def _count(self, limit: int | None) -> SpillMap[int]:
        counts = SpillMap[int]()
        for row in self._rows(limit):
            if isinstance(row, Row):
                try:
                    counts.count(self._group_of(row))
                except Refused:
                    continue  # reported in the next pass, in its place
        return counts

    def _group_of(self, row: Row) -> bytes:
        """The keyed hash of the value that the lines of one order share. Raises Refused."""
        group = self.shaper.group_of(row)
        return blake2b(_ENCODE(group), digest_size=16, key=self._secret, person=b"tf-import-order").digest()


def _refuse_repeated(files: Sequence[Path]) -> None:
    seen: set[str] = set()
    for path in files:
        real = os.path.realpath(path)
        if real in seen:
            raise BadRequest(f"{path} is listed twice: its lines would count twice")
        seen.add(real)


def preview(files: Sequence[Path], mapping: FileMapping, count: int = 5) -> list[dict[str, Any]]:
    """The first events as they would be sent (`item`), or why they would not (`refused`). Stores nothing.

    Ids derived from rows are left out, because they need the vault's key.
    """
    source = Source(files, mapping, bytes(32))
    shown: list[dict[str, Any]] = []
    for event in islice(source.events(PREVIEW_LINES), count):
        place = (
            {"line": event.row.line}
            if len(files) == 1
            else {"file": source.name(event.row.file), "line": event.row.line}
        )
        if event.item is None:
            shown.append({**place, "refused": str(event.refused)})
        else:
            id_ = {} if event.natural is None else {"messageId": event.natural}
            shown.append({**place, "item": {**event.item, **id_}})
    return shown
