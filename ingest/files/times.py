"""Reads the time of a row, in the format and zone that the mapping says, as aware UTC. Pure: `now` is passed in.

A time that cannot be is refused, not taken: 1970 is a missing value or a wrong unit, and nothing happened after today.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Final
from zoneinfo import ZoneInfo

from ingest.accept.canonical import Refused
from ingest.files.values import as_utc, is_missing, plain_text
from schemas.record import EPOCH
from schemas.times import ZONE_HOURS, read_time

_CACHED: Final = 100_000
_FIRST_YEAR: Final = 1971
_AHEAD: Final = timedelta(days=1)  # clocks and zones differ
_UNITS: Final[Mapping[str, int | Decimal]] = {
    "epoch_s": 1_000_000,
    "epoch_ms": 1_000,
    "epoch_us": 1,
    "epoch_ns": Decimal("0.001"),
}
_SIZES: Final = ((10**11, "epoch_s"), (10**14, "epoch_ms"), (10**17, "epoch_us"))
"""Below 10^11, seconds reach the year 5138; above it, milliseconds begin in 1973."""
_DAY_ZERO: Final = datetime(1899, 12, 30)  # noqa: DTZ001  # of spreadsheets; the mapping's zone is added
_ZONE_NAME: Final = re.compile(r"[A-Za-z_]+/[A-Za-z_/+-]+\d*|\b[A-Z]{1,5}\b")
_NO_ZONES: Final = ("AM", "PM", "T")
_UNREADABLE: Final = (ValueError, OverflowError, InvalidOperation, TypeError)

ReadTime = Callable[[object], datetime]


def time_reader(pattern: str, zone: tzinfo, now: datetime | None = None) -> ReadTime:
    """Reads a value as aware UTC. Raises Refused; repeated values are parsed once.

    `pattern`: a word of `schemas.mapping.TIME_WORDS` or a strptime pattern. `now`: nothing is a day later than this.
    """
    known: dict[object, datetime] = {}
    latest = None if now is None else now + _AHEAD

    def read(value: object) -> datetime:
        if isinstance(value, list | dict):
            raise Refused("bad_time", "occurred_at", "is a list or an object")
        found = known.get(value)
        if found is None:
            if is_missing(value):
                raise Refused("bad_time", "occurred_at", "has no time")
            try:
                found = _time(value, pattern, zone)
            except _UNREADABLE as err:
                raise Refused("bad_time", "occurred_at", _not_a_time(value, pattern)) from err
            _check(found, value, pattern, latest)
            if len(known) >= _CACHED:
                known.clear()
            known[value] = found
        return found

    return read


def _not_a_time(value: object, pattern: str) -> str:
    reason = f"is not a time in the format {pattern}"
    text = str(value).strip()
    if text.isdecimal() and pattern in _UNITS and unit_of(Decimal(text)) != pattern:
        reason += f": these look like {unit_of(Decimal(text))}"
    return reason


def _check(at: datetime, value: object, pattern: str, latest: datetime | None) -> None:
    if at.year >= _FIRST_YEAR and (latest is None or at <= latest):
        return
    reason = f"is in {at.year}, which cannot be"
    if pattern in _UNITS and isinstance(value, int | float | str):
        better = unit_of(Decimal(str(value)))
        if better != pattern:
            reason += f": these look like {better}"
    raise Refused("impossible_time", "occurred_at", reason)


def unit_of(number: Decimal) -> str:
    """The unit of a time since 1970, by its size."""
    return next((unit for size, unit in _SIZES if abs(number) < size), "epoch_ns")


def joined_time(day: object, clock: object) -> object:
    """A day and a time of day from two columns, as one value for a reader."""
    if isinstance(day, datetime):
        day = day.date()
    if isinstance(clock, datetime):
        clock = clock.time()
    if isinstance(day, date) and isinstance(clock, time):
        return datetime.combine(day, clock)
    if is_missing(day) or is_missing(clock):
        return None
    return f"{str(day).strip()} {str(clock).strip()}"


def _time(value: object, pattern: str, zone: tzinfo) -> datetime:
    if isinstance(value, datetime):
        return as_utc(value, zone)
    if isinstance(value, date):
        return as_utc(datetime(value.year, value.month, value.day), zone)  # noqa: DTZ001  # as_utc gives it the zone
    text = plain_text(value) if type(value) is not str else value.strip()
    if pattern == "iso":
        return _iso(text, zone)
    if pattern == "epoch":
        return _since_1970(text, unit_of(Decimal(text)))
    if pattern in _UNITS:
        return _since_1970(text, pattern)
    if pattern == "excel":
        return as_utc(_DAY_ZERO + timedelta(microseconds=int(Decimal(text) * 86_400_000_000)), zone)
    return _by_pattern(text, pattern, zone)


def _since_1970(text: str, unit: str) -> datetime:
    return EPOCH + timedelta(microseconds=int(Decimal(text) * _UNITS[unit]))


def _iso(text: str, zone: tzinfo) -> datetime:
    """What the door reads (`schemas.times`); of a zone's short name the mapping's own meaning comes first."""
    if text[4:5] == "-":  # years that cannot be are read, and told as such
        with suppress(ValueError):
            return as_utc(datetime.fromisoformat(text), zone)
    head, _, name = text.rpartition(" ")
    if head and name.isalpha() and name not in _NO_ZONES:
        return _in_zone(read_time(head).replace(tzinfo=None), name, zone)
    return read_time(text, zone)


def _in_zone(at: datetime, said: str | None, zone: tzinfo) -> datetime:
    """A wall clock's time in the zone beside it: +02:00, +0200, CEST or Europe/Berlin. Raises ValueError."""
    if not said:
        return as_utc(at, zone)
    if said[0] in "+-":
        digits = said[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        return at.replace(tzinfo=timezone(-offset if said[0] == "-" else offset)).astimezone(UTC)
    if "/" in said:
        try:
            return as_utc(at, ZoneInfo(said))
        except (KeyError, OSError) as err:
            raise ValueError(said) from err
    for fold in (0, 1):
        own = at.replace(tzinfo=zone, fold=fold)
        if own.tzname() == said:
            return own.astimezone(UTC)
    if said.upper() not in ZONE_HOURS:
        raise ValueError(said)
    return (at - timedelta(hours=ZONE_HOURS[said.upper()])).replace(tzinfo=UTC)


def _by_pattern(text: str, pattern: str, zone: tzinfo) -> datetime:
    said = None
    if "%Z" in pattern:  # Python's reads UTC and the machine's own zone alone, and then forgets what it read
        text, said = _without_zone(text)
        pattern = " ".join(pattern.replace("%Z", " ").split())
    leap = 0
    try:
        at = datetime.strptime(text, pattern)  # noqa: DTZ007  # its zone comes next
    except ValueError:
        if ":60" not in text:
            raise
        at, leap = datetime.strptime(text.replace(":60", ":59"), pattern), 1  # noqa: DTZ007
    return (as_utc(at, zone) if said is None else _in_zone(at, said, zone)) + timedelta(seconds=leap)


def _without_zone(text: str) -> tuple[str, str]:
    """The text without the name of its zone, and the name. Raises ValueError."""
    names = [each for each in _ZONE_NAME.finditer(text) if each[0] not in _NO_ZONES]
    if not names:
        raise ValueError(text)
    name = names[-1]
    return " ".join((text[: name.start()] + " " + text[name.end() :]).split()), name[0]
