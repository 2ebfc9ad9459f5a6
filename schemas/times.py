"""Reads a time as senders and files write it: ISO 8601 and its relatives, RFC 2822, seconds since 1970 in four units.

A form is read where it can mean one thing: `03/04/2024` cannot, so nobody guesses. Pure.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_S: Final = 10**8  # March 1973: a smaller number is a counter, a day, or seconds of another clock
_UNITS: Final = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1), (10**20, 0))
"""(below which number, microseconds of its unit): seconds to the year 5138, then milli-, micro- and nanoseconds."""
ZONE_HOURS: Final = {
    **{"Z": 0, "UTC": 0, "GMT": 0, "UT": 0, "WET": 0, "WEST": 1, "BST": 1, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2},
    **{"EET": 2, "EEST": 3, "MSK": 3, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13},
    **{
        "HKT": 8,
        "SAST": 2,
        "AKST": -9,
        "AKDT": -8,
        "EST": -5,
        "EDT": -4,
        "CST": -6,
        "CDT": -5,
        "MST": -7,
        "MDT": -6,
        "PST": -8,
        "PDT": -7,
        "HST": -10,
    },
}
"""Names of zones and their hours ahead of UTC; left out are those that mean several, such as IST."""
_NUMBER: Final = re.compile(r"\d{1,20}(?:[.,]\d+)?(?:[eE]\+?\d{1,2})?")
_COMPACT: Final = re.compile(r"(?:19|20)\d{6}(?:\d{4}(?:\d\d)?)?")  # 20240305, 202403051000, 20240305100000
_ISO_LIKE: Final = re.compile(
    r"(?:(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})"
    r"|(?P<day2>\d{1,2})\.(?P<month2>\d{1,2})\.(?P<year2>\d{4}))"
    r"(?:[T_, ]+(?P<hour>\d{1,2})(?::(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})(?:[.,](?P<part>\d+))?)?)?"
    r"(?: ?(?P<half>[AP])\.?M\.?)?)?"
    r" ?(?P<zone>.*)"
)
_OFFSET: Final = re.compile(
    r"(?:UTC|GMT)?(?P<sign>[+-])(?P<hours>\d{1,2}):?(?P<minutes>\d\d)?(?::?\d\d)?(?: ?[A-Z]{1,5})?"
)
_NOISE: Final = re.compile(
    r"\([^)]*\)$| M=[+-][\d.]+$|(?:(?<=Z)|(?<=[+-]\d\d:\d\d)|(?<=[+-]\d{4}))(?:\[[A-Z_/+\-0-9]+\]|Z)$"
)
"""A zone's name beside its offset, as JavaScript and Java write it; Go's monotonic clock; a Z too many."""
_DAYS: Final = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
_MONTHS: Final = (
    *("JANUARY", "FEBRUARY", "MARCH", "APRIL", "MAY", "JUNE", "JULY"),
    *("AUGUST", "SEPTEMBER", "OCTOBER", "NOVEMBER", "DECEMBER"),
)
_OF_DOT_NET: Final = re.compile(r"\\?/DATE\((-?\d+)(?:[+-]\d{4})?\)\\?/")


class BadTime(ValueError):
    """A time that cannot be read or cannot be. The reason names no value."""


def read_time(value: object, zone: tzinfo = UTC) -> datetime:
    """The aware UTC time of a text or number; without a zone it is in `zone`. Raises BadTime.

    Fractions beyond microseconds are cut off. Years before 1900 are typing errors or zero values, not events. A local
    time that occurs twice is the first of the two.
    """
    if type(value) is not str:
        return _in_range(_of_other(value), zone)
    text = value.strip()
    if text[4:5] == "-" or text[8:9] == "T":  # not digits alone: Python takes the first eight for a day
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return _in_range(_of_text(text), zone)
        return at if at.tzinfo is UTC and at.year >= EARLIEST.year else _in_range(at, zone)
    return _in_range(_of_text(text), zone)


def why_impossible(at: datetime, now: datetime) -> str | None:
    """Why nothing can have happened at a time that could be read; None if something can."""
    if at < EARLIEST + timedelta(days=1):
        return "is a zero date"
    if _EPOCH - timedelta(days=1) <= at < _EPOCH + timedelta(days=31):
        return "is in January 1970, so its unit is wrong or its clock was never set"
    if at > now + timedelta(days=1):
        return "is in the future"
    return None


def _in_range(at: datetime, zone: tzinfo) -> datetime:
    try:
        if at.tzinfo is not UTC:
            at = (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)
    except (ValueError, OverflowError) as err:
        raise BadTime("is a time out of range") from err
    if at.year < EARLIEST.year:
        raise BadTime("is before 1900")
    return at


def _of_other(value: object) -> datetime:
    """Numbers, and the objects that some systems write for a time."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _of_number(Decimal(repr(value)) if isinstance(value, float) else Decimal(value))
    if isinstance(value, Mapping):
        return _of_object(value)
    if isinstance(value, datetime):
        return value
    raise BadTime("is no time")


def _of_object(value: Mapping[str, Any]) -> datetime:
    """MongoDB's {"$date"}, Firestore's {"_seconds"}, PHP's {"date", "timezone"}."""
    if "$date" in value:
        inner = value["$date"]
        return read_time(inner.get("$numberLong") if isinstance(inner, Mapping) else inner)
    for name in ("_seconds", "seconds"):
        if name in value:
            return read_time(value[name])
    date, zone = value.get("date"), value.get("timezone")
    if isinstance(date, str) and isinstance(zone, str):
        return read_time(f"{date} {zone}")
    raise BadTime("is no time")


def _of_number(number: Decimal) -> datetime:
    """A number since 1970, whose size tells its unit; or a day written as a number, such as 20240305."""
    if not number.is_finite():
        raise BadTime("is no time")
    if number < 10**14 and number == int(number) and (day := _of_digits(str(int(number)))) is not None:
        return day
    if number < _LEAST_S:
        raise BadTime("is a number too small for a time since 1970")
    for below, unit in _UNITS:
        if number < below:
            return _EPOCH + timedelta(microseconds=int(number * unit if unit else number / 1_000))
    raise BadTime("is a number too large for a time since 1970")


def _of_digits(text: str) -> datetime | None:
    """Digits that are a date, with or without the time of day."""
    if not _COMPACT.fullmatch(text):
        return None
    padded = text.ljust(14, "0")
    month, day, hour, minute, second = (int(padded[at : at + 2]) for at in range(4, 14, 2))
    return _made(int(padded[:4]), month, day, hour, minute, second)


def _made(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime | None:
    """A naive time; the hour may be 24 and the second 60. None: there is no such day or time of day."""
    if hour > 24 or (hour == 24 and (minute or second)) or minute > 59 or second > 60:
        return None
    try:
        return datetime(year, month, day) + timedelta(hours=hour, minutes=minute, seconds=second)  # noqa: DTZ001
    except (ValueError, OverflowError):
        return None


def _of_text(text: str) -> datetime:
    text = text.strip("\"' ")  # of what was encoded twice
    if _NUMBER.fullmatch(text):
        return _of_digits(text) or _of_number(_decimal(text))
    upper = _NOISE.sub("", text.upper().replace("\u2212", "-")).strip()
    found = _ISO_LIKE.fullmatch(upper)
    at = _of_words(upper) if found is None else _of_iso_like(found, text)
    if at is None:
        raise BadTime("is no time that can be read")
    return at


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text.replace(",", "."))
    except InvalidOperation as err:
        raise BadTime("is no time that can be read") from err


def _of_iso_like(found: "re.Match[str]", text: str) -> datetime | None:
    """Unpadded parts, a comma before the fraction, leap seconds, AM and PM, offsets and zones after a space."""
    part = found.group
    hour = int(part("hour") or 0)
    if part("half"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if part("half") == "P" else 0)
    year, month, day = (int(part(name) or part(f"{name}2")) for name in ("year", "month", "day"))
    at = _made(year, month, day, hour, int(part("minute") or 0), int(part("second") or 0))
    if at is None:
        return None
    at += timedelta(microseconds=int((part("part") or "0")[:6].ljust(6, "0")))
    named = part("zone")
    return at if not named else _at_zone(at, named, text[-len(named) :])


def _at_zone(at: datetime, upper: str, text: str) -> datetime | None:
    """`upper`: an offset, a zone's short name, or its IANA name, which is `text` as it was written."""
    if upper in ZONE_HOURS:
        return at.replace(tzinfo=timezone(timedelta(hours=ZONE_HOURS[upper])))
    found = _OFFSET.fullmatch(upper)
    if found is None:
        zone = _zone(text.strip("[] "))
        return None if zone is None else at.replace(tzinfo=zone)
    offset = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"] or 0))
    if offset >= timedelta(hours=24):
        return None
    return at.replace(tzinfo=timezone(-offset if found["sign"] == "-" else offset))


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo | None:
    if "/" not in name:
        return None
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return None


def _of_words(upper: str) -> datetime | None:
    """RFC 2822, RFC 850, asctime and JavaScript's Date: a month by its name, so no doubt which number is the day."""
    found = _OF_DOT_NET.fullmatch(upper)
    if found is not None:
        return _EPOCH + timedelta(milliseconds=int(found[1])) if len(found[1]) < 15 else None
    words = _Words()
    for word in re.sub(r"(?<=\d)-(?=[A-Z]{3})|(?<=[A-Z]{3})-(?=\d)|,", " ", upper).split():
        if not words.take(word):
            return None
    return words.time()


def _named(word: str, names: Sequence[str]) -> int | None:
    """Which of the names, from 1, a word of at least three letters begins; None: none."""
    return next((place for place, name in enumerate(names, 1) if len(word) >= 3 and name.startswith(word)), None)


class _Words:
    """The words of a time, one after the other; each kind may come once."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def take(self, word: str) -> bool:
        """Whether the word belongs to a time."""
        if _named(word, _DAYS) is not None:
            return True
        kind = self._kind(word)
        if kind is None or kind in self._found:
            return False
        self._found[kind] = word
        return True

    def _kind(self, word: str) -> str | None:
        if _named(word, _MONTHS) is not None:
            return "month"
        if word in ("AM", "PM"):
            return "half"
        if ":" in word and word[0].isdigit():
            return "clock"
        if word in ZONE_HOURS or _OFFSET.fullmatch(word):
            return "zone"
        if re.fullmatch(r"\d{1,2}(?:ST|ND|RD|TH)?", word) and "day" not in self._found:
            return "day"
        return "year" if re.fullmatch(r"\d{4}|\d\d", word) else None

    def time(self) -> datetime | None:
        """None: something is missing."""
        found = self._found
        if not {"month", "day", "year"} <= found.keys():
            return None
        month, day = _named(found["month"], _MONTHS), re.sub("[A-Z]", "", found["day"])
        year = found["year"] if len(found["year"]) == 4 else ("19" if found["year"] > "69" else "20") + found["year"]
        rest = " ".join([found[name] for name in ("clock", "half", "zone") if name in found])
        match = _ISO_LIKE.fullmatch(f"{year}-{month}-{day} {rest}".strip())
        return None if match is None else _of_iso_like(match, found.get("zone", ""))
