"""What the cells of a file mean as ids, texts and JSON values, whether they come from CSV, JSON, Parquet or a sheet.

Pure. The same value gives the same text in each format: "12.00", 12.0 and 12 are all "12".
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final

import msgspec

_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,10})?", re.ASCII)
_WHOLE_FLOAT: Final = re.compile(r"-?\d{1,15}\.0+", re.ASCII)
_SCIENTIFIC: Final = re.compile(r"[+-]?\d(?:[.,]\d+)?[eE]\+\d{2,}", re.ASCII)
_EXACT_FLOATS: Final = 2**53
_ENCODE: Final = msgspec.json.Encoder(order="sorted", decimal_format="string").encode


def is_missing(value: object) -> bool:
    """Whether a value is missing: null, empty or blank text, NaN (which data frames write for missing values)."""
    return value is None or (type(value) is str and not value.strip()) or value != value  # noqa: PLR0124


def plain_text(value: object) -> str:
    """The same text for the same value, whether from CSV, JSON or Parquet: "12.00", 12.0 and 12 are all "12"."""
    kind = type(value)
    if kind is str:
        text: str = value  # type: ignore[assignment]  # kind is str
        if _NUMBER.fullmatch(text):
            return text.rstrip("0").rstrip(".") if "." in text else text
        if text in ("True", "False"):
            return text.lower()
        if len(text) > 10 and text[10] == "T" and text[4] == "-":
            return text[:10] + " " + text[11:].replace("Z", "+00:00")
        return text
    if kind is int:
        return str(value)
    if kind is float or kind is Decimal:
        text = format(Decimal(repr(value)) if kind is float else value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if kind is bool:
        return "true" if value else "false"
    if isinstance(value, date | time):
        return str(value)
    if kind is bytes:
        return str(value.hex())  # type: ignore[attr-defined]  # kind is bytes
    return _ENCODE(value).decode()


def id_text(value: object) -> str | None:
    """An identifier or name as text; None when missing. 12.0 is "12", also as the text a data frame writes.

    A spreadsheet's ways of saying "this is text" are taken off: ="0012" and '0012 are "0012".
    """
    kind = type(value)
    if kind is int:
        return str(value)
    if is_missing(value):
        return None
    if kind is not str:
        return plain_text(value)
    text: str = value.strip()  # type: ignore[attr-defined]  # kind is str
    if text[:1] in "='" and len(text) > 1:
        text = _unmarked(text)
    if text[-1:] == "0" and "." in text and _WHOLE_FLOAT.fullmatch(text):
        return text.partition(".")[0]
    return text


def _unmarked(text: str) -> str:
    if text.startswith('="') and text.endswith('"') and len(text) > 3:
        return text[2:-1].strip()
    return text[1:] if text[0] == "'" and (text[1].isdigit() or text[1] == "+") else text


def is_destroyed(value: object) -> bool:
    """Whether the digits of an id are lost: "8.20983E+17", or a float too large to be a whole number exactly."""
    if type(value) is str:
        return "+" in value and _SCIENTIFIC.fullmatch(value.strip()) is not None
    return type(value) is float and abs(value) > _EXACT_FLOATS


def json_value(value: object, *, untyped: bool, zone: tzinfo) -> Any:
    """A value as JSON; None when missing. `untyped`: a CSV cell, where numbers and booleans come as text."""
    if is_missing(value):
        return None
    kind = type(value)
    if kind is str:
        text: str = value  # type: ignore[assignment]  # kind is str
        if untyped and _NUMBER.fullmatch(text):
            return float(text) if "." in text else int(text)
        if untyped and text in ("true", "false", "True", "False"):
            return text in ("true", "True")
        return text
    if kind is Decimal:
        return int(value) if value == int(value) else float(value)  # type: ignore[call-overload, arg-type]  # Decimal
    if isinstance(value, datetime):
        return as_utc(value, zone).isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if kind is bytes:
        return value.decode(errors="replace")  # type: ignore[attr-defined]  # kind is bytes
    if kind is list:
        return [json_value(each, untyped=False, zone=zone) for each in value]  # type: ignore[attr-defined]  # a list
    if kind is dict:
        return {str(name): json_value(each, untyped=False, zone=zone) for name, each in value.items()}  # type: ignore[attr-defined]
    return value


def as_utc(at: datetime, zone: tzinfo) -> datetime:
    """A time without a zone is in the mapping's zone; if its hour occurs twice, it is the first."""
    return (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)


def row_hasher(columns: Sequence[str], secret: bytes) -> Callable[[Sequence[Any]], bytes]:
    """The keyed 128-bit hash of a whole row, independent of the column order and the file's format.

    Missing values do not count, because JSON leaves them out. Keyed, because a row may hold guessable personal values
    and ids are stored in clear.
    """
    order = sorted(range(len(columns)), key=lambda place: columns[place])
    names = list(columns)

    def content(values: Sequence[Any]) -> bytes:
        parts: list[str] = []
        for place in order:
            value = values[place]
            if not is_missing(value):
                parts.append(names[place])
                parts.append(plain_text(value))
        return blake2b(_ENCODE(parts), digest_size=16, key=secret, person=b"tf-import-row").digest()

    return content
