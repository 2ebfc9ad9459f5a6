"""Arrow columns as Python values, with times as text so that any range fits. Pure.

Python's dates end at years 1 and 9999, its times stop before 24:00 and at microseconds; DuckDB's do not, and must come
back unchanged. Years outside that range, infinities and BC are written the way DuckDB writes them.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

_PER_S: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S: Final = 86_400
_INFINITE_DAYS: Final = 2**31 - 1
_INFINITE: Final = 2**63 - 1
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31, from 1970-01-01


def values(column: Any) -> list[Any]:
    """An Arrow array as `to_pylist`, with dates and times as ISO-8601 text; nested values stay nested."""
    type_ = column.type
    if not _holds_times(type_):
        return list(column.to_pylist())
    if pa.types.is_struct(type_):
        return _structs(column)
    if pa.types.is_map(type_):
        return [None if not column[i].is_valid else dict(_pairs(column[i].values)) for i in range(len(column))]
    if pa.types.is_nested(type_):  # a list of any kind
        return [None if not column[i].is_valid else values(column[i].values) for i in range(len(column))]
    if pa.types.is_interval(type_):
        return [None if each is None else _interval(*each) for each in column.to_pylist()]
    to_text = _words(type_)
    numbers = column.cast(pa.int32() if type_.bit_width == 32 else pa.int64()).to_pylist()
    return [None if number is None else to_text(number) for number in numbers]


def _holds_times(type_: pa.DataType) -> bool:
    if pa.types.is_nested(type_):
        return any(_holds_times(type_.field(i).type) for i in range(type_.num_fields))
    return pa.types.is_temporal(type_)


def _structs(column: Any) -> list[Any]:
    names = [field.name for field in column.type]
    parts = [values(part) for part in column.flatten()]
    valid = pc.is_valid(column).to_pylist()
    rows = zip(*parts, strict=True) if parts else iter([()] * len(column))
    return [dict(zip(names, row, strict=True)) if is_there else None for row, is_there in zip(rows, valid, strict=True)]


def _pairs(entries: Any) -> Iterator[tuple[Any, Any]]:
    return zip(values(entries.field(0)), values(entries.field(1)), strict=True)


def _words(type_: Any) -> Callable[[int], str]:
    """Text for a number of this type: days, or units since 1970 or midnight."""
    if pa.types.is_date32(type_):
        return _date
    if pa.types.is_date64(type_):
        return lambda number: _date(number // (_DAY_S * 1_000))
    per_s = _PER_S[type_.unit]
    if pa.types.is_timestamp(type_):
        zone = "" if type_.tz is None else "Z"
        return lambda number: _instant(number, per_s, zone)
    return lambda number: _clock(number, per_s)


def _date(days: int) -> str:
    if abs(days) >= _INFINITE_DAYS:
        return "infinity" if days > 0 else "-infinity"
    text, era = _day(days)
    return text + era


def _instant(number: int, per_s: int, zone: str) -> str:
    if abs(number) >= _INFINITE:
        return "infinity" if number > 0 else "-infinity"
    days, rest = divmod(number, _DAY_S * per_s)
    text, era = _day(days)
    return f"{text}T{_clock(rest, per_s)}{zone}{era}"


def _day(days: int) -> tuple[str, str]:
    """The proleptic Gregorian date for days since 1970, and " (BC)" before year 1."""
    if _FIRST_DAY <= days <= _LAST_DAY:
        return datetime.fromordinal(days - _FIRST_DAY + 1).date().isoformat(), ""
    eras, of_era = divmod(days + 719_468, 146_097)  # periods of 400 years that start on March 1
    leap = datetime.fromordinal(730_180 + of_era)  # the same day in the period that starts on 2000-03-01
    year = leap.year - 2_000 + eras * 400
    if year > 0:
        return f"{year:04d}-{leap.month:02d}-{leap.day:02d}", ""
    return f"{1 - year:04d}-{leap.month:02d}-{leap.day:02d}", " (BC)"


def _clock(number: int, per_s: int) -> str:
    seconds, part = divmod(number, per_s)
    digits = len(str(per_s)) - 1
    fraction = f".{part:0{digits}d}" if part else ""
    if len(fraction) == 4:
        fraction += "000"  # as Python writes it: six digits, or nine
    return f"{seconds // 3_600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"


def _interval(months: int, days: int, nanoseconds: int) -> str:
    named = [f"{number} {name}" for number, name in ((months, "months"), (days, "days")) if number]
    sign = "-" if nanoseconds < 0 else ""
    clock = sign + _clock(abs(nanoseconds) // 1_000, 10**6)
    return " ".join([*named, clock] if nanoseconds or not named else named)
