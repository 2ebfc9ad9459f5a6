"""Results of a statement as JSON values, CSV cells and text. Pure.

DECIMAL, integers beyond 2^53, NaN and infinities become strings, times ISO-8601 with Z, nested values stay nested.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Final

import msgspec
import pyarrow as pa

from query.sql.values import values
from schemas.waits import Wait

SAFE_INTEGER: Final = 2**53
_NOT_FINITE: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class SqlResult:
    """`columns`: (name, DuckDB type), names unique. `truncated`: there were more rows than `limit`.

    `left_out`: applied records that this build cannot read; the rows include neither them nor anything after them
    in their partition. `warnings`: anything else to know about the rows.
    """

    columns: list[tuple[str, str]]
    table: pa.Table
    truncated: bool
    left_out: Sequence[Wait] = ()
    warnings: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.columns]

    def rows(self) -> Iterator[list[Any]]:
        """JSON values, row by row."""
        converters = [_converter(type_) for _, type_ in self.columns]
        for batch in self.table.to_batches():
            columns = [values(column) for column in batch.columns]
            for row in zip(*columns, strict=True):
                yield [convert(value) for convert, value in zip(converters, row, strict=True)]

    def objects(self) -> Iterator[dict[str, Any]]:
        """JSON objects, row by row."""
        names = self.names
        for row in self.rows():
            yield dict(zip(names, row, strict=True))


def _converter(type_: str) -> Callable[[Any], Any]:
    if type_ == "JSON":
        return _json
    if type_ in ("HUGEINT", "UHUGEINT"):
        return lambda value: None if value is None else plain(int(value))
    return plain


def _json(value: Any) -> Any:
    """A JSON column holds text; numbers in it stay as written where possible."""
    if value is None:
        return None
    try:
        return _safe(msgspec.json.decode(value))
    except (msgspec.MsgspecError, RecursionError):
        return value


def _safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _safe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_safe(item) for item in value]
    return plain(value) if isinstance(value, int) else value


def plain(value: Any) -> Any:
    """An Arrow value as JSON."""
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        return value if -SAFE_INTEGER <= value <= SAFE_INTEGER else str(value)
    if kind is float:
        return value if math.isfinite(value) else _NOT_FINITE.get(value, "NaN")
    if kind is Decimal:
        return format(value, "f")
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if kind is bytes:
        return value.hex()
    if kind is dict:
        return {str(key): plain(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    return str(value)


def iso(at: datetime) -> str:
    """ISO-8601; with Z for an instant, without for a local time."""
    if at.tzinfo is None:
        return at.isoformat()
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def cell(value: Any) -> str:
    """A JSON value as the text of a table or CSV cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def csv_cell(value: Any, type_: str) -> str:
    """As `cell`; text that a spreadsheet would take for a formula gets a leading apostrophe."""
    text = cell(value)
    is_text = type_ in {"VARCHAR", "JSON"} or type_.startswith("ENUM")
    return "'" + text if is_text and text.startswith(_FORMULA) else text


_WIDTH: Final = 60


def text_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns, long cells cut at 60 characters; control characters shown as spaces."""
    cells = [[_shown(cell(value)) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(names)]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(names))]

    def line(parts: Sequence[str]) -> str:
        padded = [p.rjust(w) if r else p.ljust(w) for p, w, r in zip(parts, widths, right, strict=True)]
        return "  ".join(padded).rstrip()

    return "\n".join([line(names), "  ".join("-" * width for width in widths), *map(line, cells)])


def _shown(text: str) -> str:
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    return clean if len(clean) <= _WIDTH else clean[: _WIDTH - 1] + "…"


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        digits = value.removeprefix("-").replace(".", "", 1)
        return digits.isascii() and digits.isdigit()
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
