"""Parquet, read in slices of a row group, and only the wanted columns."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.files.notes import Notes
from ingest.files.parts import Part, unreadable
from ingest.files.tables import Layout, Line, selector

_ROWS: Final = 16_384


class ParquetTable:
    """`number` is the row's. Structs and lists come as objects and lists."""

    def __init__(self, part: Part) -> None:
        self.part, self.name, self.size = part, part.name, part.size
        self.notes = Notes()
        try:
            with part.seekable() as raw, pq.ParquetFile(raw) as file:
                self.columns = tuple(file.schema_arrow.names)
                self._total = max(1, file.metadata.num_rows)
        except (pa.ArrowException, OSError) as err:
            raise unreadable(self.name, "it is not a Parquet file, or it is damaged") from err
        self._read = 0

    def done(self) -> float:
        return self._read / self._total

    @property
    def layout(self) -> Layout:
        return Layout()

    def rows(self, wanted: Sequence[str]) -> Iterator[Line]:
        self._read = 0
        names = list(dict.fromkeys(wanted))
        select = selector(names, wanted)
        try:
            with self.part.seekable() as raw, pq.ParquetFile(raw) as file:
                for batch in file.iter_batches(_ROWS, columns=names):
                    number = self._read
                    columns = [_python(batch.column(name)) for name in names]
                    for row in zip(*columns, strict=True):
                        number += 1
                        yield Line(number, select(row), None)
                    self._read = number
        except (pa.ArrowException, OSError) as err:
            reason = f"damaged after row {self._read}: get it again, then import it again"
            raise unreadable(self.name, reason) from err


def _python(column: Any) -> list[Any]:
    """A column as Python values; nanoseconds are cut off, because Python's times have none."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return cast("list[Any]", column.to_pylist())
