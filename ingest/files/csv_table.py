"""Delimiter-separated values, as people have them: any encoding, delimiter and preamble, and quotes that never close.

A quote that is not closed swallows all rows up to the next quote. So a row of several lines that does not look whole is
refused at the line where it begins, and its other lines are read again, each by itself.
"""

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO, TextIOWrapper
from typing import Any, Final, NamedTuple

from ingest.accept.canonical import Refused
from ingest.files.encodings import SAMPLE, Encoding, encoding_of, is_text, reread
from ingest.files.headers import LOOKED_AT, SEPARATOR, Candidate, column_names, find_delimiter, find_header
from ingest.files.notes import Notes
from ingest.files.parts import Part, unreadable
from ingest.files.tables import Layout, Line, selector
from ingest.files.values import is_missing, plain_text
from schemas.mapping import column_of

MAX_FIELD: Final = 1_000_000  # characters of one field
_MOST_LINES: Final = 1_000  # of one row
_FALLBACK: Final = (
    "{} was read as Windows-1252, because it is not UTF-8; if letters look wrong, say its encoding in the mapping"
)
_AGAIN: Final = "the header comes again inside the file: these lines were left out"
_NOT_TEXT: Final = "is not {}: save the file as UTF-8, or say its encoding in the mapping"


class _Record(NamedTuple):
    """A row as the CSV reader gives it. `line`: where it begins; `whole`: False if a quote in it is never closed."""

    line: int
    cells: list[str]
    whole: bool


class CsvTable:
    """A text file with a header; `number` is the line where a row begins."""

    def __init__(self, part: Part, layout: Layout) -> None:
        self.part, self.name, self.size = part, part.name, part.size
        self.notes = Notes()
        sample = part.sample(SAMPLE)
        self._encoding = encoding_of(sample, layout.encoding)
        self._tell_encoding()
        self._is_mixed = self._encoding.fallback is not None and not sample.isascii()
        lines = _lines_of(sample, self._encoding)
        self._delimiter, self._above = _separator(lines, layout)
        header = self._header(lines, layout)
        if header.line - 1 > self._above:
            self.notes.add("preamble", f"{part.name}: the header is in line {header.line}; what is above was left out")
        self._above = header.line - 1
        self.columns = header.names
        self._least = _least(header.names, layout.needed)

    def done(self) -> float:
        return self.part.done()

    @property
    def layout(self) -> Layout:
        """What was found out, as a mapping would say it."""
        encoding = self._encoding.fallback if self._is_mixed else self._encoding.name
        return Layout(self._delimiter, encoding, self._above + 1)

    def _tell_encoding(self) -> None:
        if self._encoding.name.startswith(("utf-16", "utf-32")):
            self.notes.add("encoding", f"{self.name} was read as {self._encoding.name.upper()}")

    def _header(self, lines: Sequence[str], layout: Layout) -> Candidate:
        try:
            rows = [
                (record.line, record.cells)
                for record in _records(iter(lines[self._above :]), self._delimiter, self._above)
            ]
        except csv.Error as err:
            raise unreadable(self.name, f"its first line is not a CSV header: {err}") from err
        rows = [(line, [self._text(cell) for cell in cells]) for line, cells in rows]
        if layout.header_row is not None:
            said = next((cells for line, cells in rows if line == layout.header_row), ())
            found: Candidate | None = Candidate(layout.header_row, column_names(said), 1.0)
        else:
            found = find_header(rows, layout.needed)
        if found is None or not any(found.names):
            raise unreadable(self.name, "it has no header: a line must name the columns")
        return found

    def _text(self, cell: str) -> str:
        if is_text(cell) or self._encoding.fallback is None:
            return cell
        try:
            return reread(cell, self._encoding.fallback)
        except UnicodeDecodeError:
            return cell

    @contextmanager
    def _open(self) -> Iterator[Iterator[str]]:
        csv.field_size_limit(MAX_FIELD)
        with self.part.open() as raw:
            text = TextIOWrapper(raw, encoding=self._encoding.name, errors=self._encoding.errors, newline="")
            try:
                for _ in range(self._above):
                    next(text, None)
                yield text
            finally:
                text.detach()

    def rows(self, wanted: Sequence[str]) -> Iterator[Line]:
        select, width = selector(self.columns, wanted), len(self.columns)
        header = list(self.columns)
        fit = _Fit(width)
        with self._open() as text:
            records = _records(text, self._delimiter, self._above, fit)
            next(records, None)
            for number, row, whole in records:
                if not whole:
                    yield Line(number, (), Refused("bad_csv", "", "has a quote that is never closed"))
                    continue
                if len(row) != width and not self._fits(row, width, number):
                    if row:
                        reason = f"has {len(row)} fields where the header has {width}"
                        yield Line(number, (), Refused("bad_csv", "", reason))
                    continue
                if row[0] == header[0] and [cell.strip() for cell in row] == header:
                    self.notes.add("header_again", _AGAIN, number)
                    continue
                joined = "".join(row)
                if joined.isascii() or is_text(joined):
                    yield Line(number, select(row), None)
                else:
                    yield self._in_other_encoding(number, row, select)

    def _fits(self, row: list[str], width: int, number: int) -> bool:
        """Whether a row has the header's width but for cells at its end, which are then taken off or added: empty ones
        that are too many, or missing ones of columns that nobody asks for.
        """
        if len(row) > width:
            if any(cell.strip() for cell in row[width:]):
                return False
            del row[width:]
        elif len(row) < self._least:
            return False
        else:
            self.notes.add("short", "lines end before the last columns, none of which is mapped", number)
            row += [""] * (width - len(row))
        return True

    def _in_other_encoding(self, number: int, row: Sequence[str], select: Callable[[Sequence[Any]], Any]) -> Line:
        fallback = self._encoding.fallback
        try:
            if fallback is None:
                raise ValueError("only UTF-8 is expected")
            cells = [reread(cell, fallback) for cell in row]
        except ValueError:
            name = "UTF-8" if self._encoding.name.startswith("utf-8") else self._encoding.name
            return Line(number, (), Refused("bad_encoding", "", _NOT_TEXT.format(name)))
        self.notes.add("encoding", _FALLBACK.format(self.name), number)
        return Line(number, select(cells), None)


def _least(columns: Sequence[str], needed: Sequence[str]) -> int:
    """How many cells a row must have to hold all the needed columns; without any, all."""
    found = [column_of(name, columns) for name in needed]
    places = [columns.index(column.base) for column in found if column is not None]
    return max(places) + 1 if places else len(columns)


def _lines_of(sample: bytes, encoding: Encoding) -> list[str]:
    """The first lines with their ends; the last may be cut off."""
    wide = len(sample) - len(sample) % 4 if "16" in encoding.name or "32" in encoding.name else len(sample)
    text = sample[:wide].decode(encoding.name, encoding.errors)
    lines = list(StringIO(text, newline=""))[: LOOKED_AT + 1]
    return lines[:-1] if len(lines) > LOOKED_AT or (len(sample) >= SAMPLE and len(lines) > 1) else lines


def _separator(lines: Sequence[str], layout: Layout) -> tuple[str, int]:
    """The delimiter, and how many lines are above the table: Excel writes and reads `sep=;` there."""
    said = SEPARATOR.fullmatch(lines[0].strip("\r\n\ufeff ")) if lines else None
    above = 0 if said is None else 1
    if layout.delimiter is not None:
        return layout.delimiter, above
    return (find_delimiter(lines, layout.needed), 0) if said is None else (said[1], 1)


# ---------------------------------------------------------------- rows of several lines


class _Fit:
    """Whether a line inside a quoted field is a row of its own: it has the header's width and the kinds of cells that
    the latest good row had. Prose has commas, too, but no number where the rows have numbers.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._latest: list[str] = []

    def remember(self, row: Sequence[str]) -> None:
        self._latest = list(row)

    def is_row(self, line: str, delimiter: str) -> bool:
        if self._width < 3 or line.count('"') % 2 or line.count(delimiter) < self._width - 1:
            return False
        try:
            cells = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            return False
        if len(cells) != self._width:
            return False
        kinds = [_kind(cell) for cell in cells]
        if not self._latest:
            return sum(kind != "text" for kind in kinds) > 1
        return any(kind not in ("text", "") for kind in kinds) and all(
            one == other or "" in (one, other)
            for one, other in zip(kinds, [_kind(cell) for cell in self._latest], strict=False)
        )


def _kind(cell: str) -> str:
    if is_missing(cell):
        return ""
    text = plain_text(cell.strip())
    return (
        "number" if text.lstrip("-").replace(".", "", 1).isdecimal() else "digits" if text[:1].isdecimal() else "text"
    )


def _records(text: Iterator[str], delimiter: str, above: int, fit: _Fit | None = None) -> Iterator[_Record]:
    """The rows of lines (with their ends). A row whose quote is never closed is not whole; the lines that it swallowed
    are read again.
    """
    again: deque[str] = deque()
    taken: list[str] = []
    ended = False

    def lines() -> Iterator[str]:
        nonlocal ended
        while True:
            line = again.popleft() if again else next(text, None)
            if line is None:
                ended = True
                return
            taken.append(line)
            if len(taken) > _MOST_LINES:
                raise csv.Error("a field of too many lines")
            yield line

    number = above + 1
    reader = csv.reader(lines(), delimiter=delimiter)
    while True:
        try:
            row = next(reader, None)
            whole = not ended
        except csv.Error:
            row, whole = [], False
        if row is None:
            return
        if len(taken) == 1 and whole:
            if fit is not None and len(row) > 2:
                fit.remember(row)
            yield _Record(number, row, True)
            number += 1
        elif whole and _is_whole(taken, row, delimiter, fit):
            yield _Record(number, row, True)
            number += len(taken)
        else:
            again.extendleft(reversed(taken[1:]))
            ended = False
            reader = csv.reader(lines(), delimiter=delimiter)
            yield _Record(number, [], False)
            number += 1
        taken.clear()


def _is_whole(taken: Sequence[str], row: Sequence[str], delimiter: str, fit: _Fit | None) -> bool:
    """Whether several lines are one row: its quotes are closed where a field ends, and no line in it is a row."""
    try:
        again = next(csv.reader(taken, delimiter=delimiter, strict=True), [])
    except csv.Error:
        return False
    return again == row and not (fit is not None and any(fit.is_row(line, delimiter) for line in taken[1:-1]))
