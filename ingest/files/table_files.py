"""Reads files of rows in order, a little at a time: CSV (plain or gzip), JSON lines (plain or gzip), Parquet.

A row that cannot be read is returned as a refusal in its place; a file that cannot be read raises BadRequest.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.accept.canonical import Refused
from schemas.errors import BadRequest, Problem

MAX_FIELD: Final = 1_000_000  # characters of one CSV field; an unclosed quote ends there
PARQUET_ROWS: Final = 16_384
_GZIP: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"
_DECODE: Final = msgspec.json.Decoder().decode

Values = tuple[Any, ...]


class Line(NamedTuple):
    """A row: its line number (Parquet: row number) from 1, and the wanted values in order, or why there are none."""

    number: int
    values: Values
    refused: Refused | None


class Table(Protocol):
    """One file. `columns`: its columns in order. `done()`: the share of the file read by the latest `rows`, 0..1."""

    path: Path
    columns: tuple[str, ...]

    def rows(self, wanted: Sequence[str]) -> Iterator[Line]:
        """All rows from the first; each call reads the file again. Values missing from a row are None."""

    def done(self) -> float: ...


def open_table(path: Path, form: str, delimiter: str = ",") -> Table:
    """The file as a table. Raises BadRequest with the file's name if it does not have that format."""
    if not path.is_file():
        raise BadRequest(f"there is no file {path}")
    if form == "parquet":
        return ParquetTable(path)
    return CsvTable(path, delimiter) if form == "csv" else JsonLinesTable(path)


def _selector(columns: Sequence[str], wanted: Sequence[str]) -> Callable[[Sequence[Any]], Values]:
    """Picks the wanted values of a row in C."""
    if list(columns) == list(wanted):
        return tuple
    places = [columns.index(name) for name in wanted]
    if len(places) == 1:
        only = places[0]
        return lambda row: (row[only],)
    return cast("Callable[[Sequence[Any]], Values]", itemgetter(*places))


class _Bytes:
    """Reads a file, unpacking it if its first bytes say gzip, and tracks the position in the packed file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = max(1, path.stat().st_size)
        self._raw: BufferedReader | None = None

    def done(self) -> float:
        raw = self._raw
        return 0.0 if raw is None else 1.0 if raw.closed else raw.tell() / self._size

    @contextmanager
    def open(self) -> Iterator[BufferedReader]:
        try:
            with self.path.open("rb") as raw:
                self._raw = raw
                if raw.peek(2)[:2] == _GZIP:
                    with gzip.GzipFile(fileobj=raw) as unpacked:
                        yield BufferedReader(unpacked, 262_144)
                else:
                    yield raw
        except (EOFError, zlib.error, gzip.BadGzipFile) as err:
            raise _unreadable(
                self.path, "the gzip file is truncated or damaged: get it again, then import it again"
            ) from err
        except OSError as err:
            raise _unreadable(self.path, err.strerror or type(err).__name__) from err


def _unreadable(path: Path, reason: str) -> BadRequest:
    return BadRequest(f"{path} cannot be read: {reason}", [Problem(path.name, reason)])


class CsvTable:
    """Comma-separated values with a header, UTF-8; `number` is the line where a row begins."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path = path
        self._delimiter = delimiter
        self._bytes = _Bytes(path)
        self.columns = self._header()

    def done(self) -> float:
        return self._bytes.done()

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        csv.field_size_limit(MAX_FIELD)
        with self._bytes.open() as raw:
            # bytes that are not UTF-8 become lone surrogates, and these get the row refused
            text = TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
            try:
                yield csv.reader(text, delimiter=self._delimiter)
            finally:
                text.detach()

    def _header(self) -> tuple[str, ...]:
        with self._reader() as reader:
            try:
                names = tuple(name.strip() for name in next(reader, ()))
            except csv.Error as err:
                raise _unreadable(self.path, f"its first line is not a CSV header: {err}") from err
        if not any(names):
            raise _unreadable(self.path, "it has no header: the first line must name the columns")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise _unreadable(self.path, f"the header has a column twice: {', '.join(twice)}")
        return names

    def rows(self, wanted: Sequence[str]) -> Iterator[Line]:
        select, width = _selector(self.columns, wanted), len(self.columns)
        with self._reader() as reader:
            next(reader)
            while True:
                number = reader.line_num + 1
                try:
                    row = next(reader, None)
                except csv.Error as err:
                    yield Line(number, (), Refused("bad_csv", "", f"no CSV: {err}"))
                    continue
                if row is None:
                    return
                if len(row) == width:
                    whole = "".join(row)
                    if whole.isascii() or _is_text(whole):
                        yield Line(number, select(row), None)
                    else:
                        yield Line(number, (), Refused("bad_encoding", "", "is not UTF-8: save the file as UTF-8"))
                elif row:
                    reason = f"has {len(row)} fields where the header has {width}"
                    yield Line(number, (), Refused("bad_csv", "", reason))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class JsonLinesTable:
    """One JSON object per line. Nested objects become columns with dotted names; all lines contribute columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = _Bytes(path)
        names: dict[str, None] = {}
        for _, row, _ in self._objects():
            if row is not None and not row.keys() <= names.keys():
                names.update(dict.fromkeys(row))
        if not names:
            raise _unreadable(path, "it has no JSON objects: write one per line")
        self.columns = tuple(names)

    def done(self) -> float:
        return self._bytes.done()

    def _objects(self) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
        with self._bytes.open() as raw:
            for number, text in enumerate(raw, 1):
                line = (text.removeprefix(_BOM) if number == 1 else text).strip()
                if not line:
                    continue
                try:
                    row = _DECODE(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    yield number, None, "is not JSON or not UTF-8"
                    continue
                if isinstance(row, dict):
                    yield number, _flat(row), ""
                else:
                    yield number, None, "is not a JSON object"

    def rows(self, wanted: Sequence[str]) -> Iterator[Line]:
        names = list(wanted)
        for number, row, reason in self._objects():
            if row is None:
                yield Line(number, (), Refused("invalid_json", "", reason))
            else:
                yield Line(number, tuple([row.get(name) for name in names]), None)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Nested objects as dotted names; most rows have none and are returned unchanged."""
    if not any(type(each) is dict for each in row.values()):
        return row
    out: dict[str, Any] = {}
    stack: list[tuple[str, Mapping[str, Any]]] = [("", row)]
    while stack:
        prefix, node = stack.pop()
        for name, each in node.items():
            if type(each) is dict:
                stack.append((f"{prefix}{name}.", each))
            else:
                out[f"{prefix}{name}"] = each
    return out


class ParquetTable:
    """Parquet, read in slices of a row group, and only the wanted columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                self.columns = tuple(file.schema_arrow.names)
                self._total = max(1, file.metadata.num_rows)
        except (pa.ArrowException, OSError) as err:
            raise _unreadable(path, "it is not a Parquet file, or it is damaged") from err
        self._read = 0

    def done(self) -> float:
        return self._read / self._total

    def rows(self, wanted: Sequence[str]) -> Iterator[Line]:
        self._read = 0
        names = list(dict.fromkeys(wanted))
        select = _selector(names, wanted)
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(PARQUET_ROWS, columns=names):
                    number = self._read
                    columns = [_python(batch.column(name)) for name in names]
                    for row in zip(*columns, strict=True):
                        number += 1
                        yield Line(number, select(row), None)
                    self._read = number
        except (pa.ArrowException, OSError) as err:
            raise _unreadable(self.path, f"damaged after row {self._read}: get it again, then import it again") from err


def _python(column: Any) -> list[Any]:
    """A column as Python values; nanoseconds are cut off, because Python's times have none."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return cast("list[Any]", column.to_pylist())
