"""A segment's members as a file: CSV guarded against formulas, or Parquet. Read and sent page by page."""

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase, StringIO
from itertools import chain, islice
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from query.people.search import Search
from query.segments.segments import Segments

PAGE: Final = 500
ROW_GROUP: Final = 10_000  # rows of Parquet in memory, about 3 MB
PERSONAL_COLUMNS: Final = ("name", "email", "phone")
COLUMNS: Final = ("id", "since", "lifecycle", "risk", "last_purchase_at", "last_seen_at")
FORMATS: Final = ("csv", "parquet")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
Row = Mapping[str, Any]


def guarded(value: object) -> str:
    """A value that no spreadsheet treats as a formula (OWASP, "CSV injection"); phone numbers are unchanged."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


@dataclass(frozen=True)
class Exports:
    """Any thread may call."""

    segments: Segments
    search: Search

    def rows(self, name: str, *, personal: bool) -> Iterator[Row]:
        """Each member: COLUMNS, plus the personal ones if they may be seen. Raises NotFound."""
        cursor: str | None = None
        while True:
            page = self.segments.members(name, cursor, PAGE)
            since = {item["id"]: item["since"] for item in page["items"]}
            ids = [UUID(item["id"]).bytes for item in page["items"]]
            for card in self.search.cards_of(ids, personal=personal):
                yield {**card, "since": since[card["id"]]}
            cursor = page["next"]
            if cursor is None:
                return

    def chunks(self, name: str, format_: str, *, personal: bool) -> Iterator[bytes]:
        """The file while it is being read, a page of members at a time. Raises NotFound before the first chunk.

        A later error is raised between two chunks: the sender must then abort, so that the partial file does not look
        complete. A Parquet file without its last chunk cannot be opened; CSV has no such protection.
        """
        columns = (*COLUMNS[:1], *(PERSONAL_COLUMNS if personal else ()), *COLUMNS[1:])
        rows = self.rows(name, personal=personal)
        return _csv(columns, rows) if format_ == "csv" else _parquet(columns, rows)


def _csv(columns: Sequence[str], rows: Iterator[Row]) -> Iterator[bytes]:
    mark = BOM_UTF8  # so that spreadsheets recognise UTF-8
    for page in chain(_pages(rows, PAGE), [()]):
        out = StringIO(newline="")
        writer = csv.writer(out)
        if mark:
            writer.writerow(columns)
        writer.writerows([[guarded(row[column]) for column in columns] for row in page])
        yield mark + out.getvalue().encode()
        mark = b""


def _parquet(columns: Sequence[str], rows: Iterator[Row]) -> Iterator[bytes]:
    """Row groups as they fill; the footer, without which the file cannot be read, comes last."""
    schema = pa.schema([(column, pa.string()) for column in columns])
    out = _Sink()
    with pq.ParquetWriter(pa.PythonFile(out, "w"), schema) as writer:
        for page in _pages(rows, ROW_GROUP):
            values = {column: [None if row[column] is None else str(row[column]) for row in page] for column in columns}
            writer.write_table(pa.table(values, schema))
            yield out.taken()
    yield out.taken()


class _Sink(RawIOBase):
    """The file that Arrow writes to; tracks its size, and keeps what has not been taken yet."""

    def __init__(self) -> None:
        self._written = 0
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written

    def taken(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _pages(rows: Iterator[Row], size: int) -> Iterator[Sequence[Row]]:
    while page := list(islice(rows, size)):
        yield page
