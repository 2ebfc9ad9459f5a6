"""The rows of an import's files as events, in file order; the rows of one order are combined."""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from ingest.accept.canonical import Refused
from ingest.files.mapped_rows import Row, Shaped, Shaper
from ingest.files.notes import Note, Notes
from ingest.files.paths import step_into
from ingest.files.row_parts import LEFT_OUT
from ingest.files.spill import SpillMap
from ingest.files.table_files import layout_of, open_tables
from ingest.files.tables import Table, selector
from ingest.files.values import is_missing, row_hasher
from schemas.errors import BadRequest
from schemas.mapping import Column, FileMapping, column_of

HELD_LINES: Final = 200_000  # of incomplete orders; about 100 MB
PREVIEW_LINES: Final = 20_000
_ENCODE: Final = msgspec.json.Encoder(order="sorted", decimal_format="string").encode


class Progress(NamedTuple):
    """`done`: the share read, 0..1; `events`: how many were read so far."""

    done: float
    events: int


class Source:
    """The files of one command as one data set: rows, orders, events. Equal lines are counted across all files."""

    def __init__(
        self,
        files: Sequence[Path],
        mapping: FileMapping,
        secret: bytes,
        *,
        now: datetime | None = None,
        held_lines: int = HELD_LINES,
    ) -> None:
        """Opens each file and compares its columns with the mapping's. Raises DefinitionsInvalid, BadRequest."""
        self._secret = secret
        self._held_lines = held_lines
        _refuse_repeated(files)
        self._notes = Notes()
        layout = layout_of(mapping, [column for _, column in mapping.columns()])
        opened = [each for path in files for each in open_tables(path, mapping.format, layout, self._notes, mapping)]
        self.mapping = mapping.model_copy(update={"format": _one_format(opened)})
        self.shaper = Shaper(self.mapping, now)
        self.tables = [table for table, _ in opened]
        self._weights = [table.size for table in self.tables]
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
        return self.tables[file].name

    def notes(self) -> list[Note]:
        """What was noticed so far: in the files, in their lines, and while making events of them."""
        return [note for notes in self._all_notes() for note in notes.all()]

    def _all_notes(self) -> list[Notes]:
        return [self._notes, *(table.notes for table in self.tables), self.shaper.notes]

    def events(self, limit: int | None = None) -> Iterator[Shaped]:
        """Every event of the files, including refused ones. `limit`: read only this many lines."""
        made = self._orders(limit) if self.mapping.group_by else self._single(limit)
        for event in made:
            if event.refused is not None and event.refused.rule == LEFT_OUT:
                self.shaper.notes.add("left_out", "lines whose type the mapping leaves out", event.row.line)
            elif self.mapping.id is not None and event.item is not None and event.natural is None:
                yield event._replace(content=self._content_of(event.item))
            else:
                yield event

    def _content_of(self, item: dict[str, Any]) -> bytes:
        """What stands for the id of an event whose own is a filler such as N/A: rows were not hashed for it."""
        return blake2b(_ENCODE(item), digest_size=16, key=self._secret, person=b"tf-import-row").digest()

    def _single(self, limit: int | None) -> Iterator[Shaped]:
        for row in self._rows(limit):
            yield row if isinstance(row, Shaped) else self.shaper.shape((row,))

    def _rows(self, limit: int | None = None) -> Iterator[Row | Shaped]:
        """Rows of all files in order; a line that cannot be read appears as refused in its place."""
        self._pass += 1
        for file, table in enumerate(self.tables):
            self._current = file
            table.notes.paused = self._pass > 1
            yield from islice(self._rows_of(file, table), limit)
        self._current = len(self.tables)

    def _rows_of(self, file: int, table: Table) -> Iterator[Row | Shaped]:
        whole = self.mapping.id is None
        wanted = self._columns_of(table)
        bases = list(dict.fromkeys(column.base for column in wanted))
        read = list(table.columns) if whole else bases
        hash_of = row_hasher(read, self._secret) if whole else None
        pick = self._picker(wanted, read)
        fill = _Filler([self.shaper.columns.index(name) for name in self.mapping.fill_down])
        for number, values, refused in table.rows(read):
            try:
                if refused is not None:
                    raise refused
                own = fill(pick(values))
            except Refused as why:
                yield Shaped(Row(file, number, (), b""), None, None, b"", why)
                continue
            yield Row(file, number, own, b"" if hash_of is None else hash_of(values))

    def _columns_of(self, table: Table) -> list[Column]:
        found = [column_of(name, table.columns) for name in self.shaper.columns]
        return [each for each in found if each is not None]  # check_columns saw all of them

    def _picker(self, wanted: Sequence[Column], read: Sequence[str]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
        """Picks what the mapping names out of the columns that are read."""
        pick = selector(read, [column.base for column in wanted])
        inside = [(place, column) for place, column in enumerate(wanted) if column.steps]
        if not inside:
            return pick

        def into(values: Sequence[Any]) -> tuple[Any, ...]:
            picked = list(pick(values))
            for place, column in inside:
                picked[place] = step_into(picked[place], column)
            return tuple(picked)

        return into

    def _orders(self, limit: int | None) -> Iterator[Shaped]:
        """Groups the lines of each order, wherever they are, in passes over the files. The first pass counts lines.

        Nothing is written to disk, because temporary files would hold personal values in clear. When the incomplete
        orders exceed `held_lines`, the newest are left for another pass; a file sorted by order needs only one.
        """
        missing = self._count(limit)
        first = True
        while first or missing:  # the first pass also tells the lines that belong to no order
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


class _Filler:
    """Writes into blank cells of some columns what stands above them: exports write an order's number only once."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = places
        self._above: dict[int, Any] = {}

    def __call__(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._places:
            return values
        filled = list(values)
        for place in self._places:
            if is_missing(filled[place]):
                filled[place] = self._above.get(place)
            else:
                self._above[place] = filled[place]
        return tuple(filled)


def _one_format(opened: Sequence[tuple[Table, str]]) -> str:
    """The format of all tables. Raises BadRequest where they differ: their values mean different things."""
    forms = dict.fromkeys(form for _, form in opened)
    if len(forms) > 1:
        raise BadRequest(f"the files have different formats ({', '.join(forms)}): import them with separate commands")
    return next(iter(forms))


def _refuse_repeated(files: Sequence[Path]) -> None:
    seen: set[str] = set()
    for path in files:
        real = os.path.realpath(path)
        if real in seen:
            raise BadRequest(f"{path} is listed twice: its lines would count twice")
        seen.add(real)


def preview(
    files: Sequence[Path], mapping: FileMapping, count: int = 5, now: datetime | None = None
) -> list[dict[str, Any]]:
    """The first events as they would be sent (`item`), or why they would not (`refused`). Stores nothing.

    Ids derived from rows are left out, because they need the vault's key.
    """
    source = Source(files, mapping, bytes(32), now=now)
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
