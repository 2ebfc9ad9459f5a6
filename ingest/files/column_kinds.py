"""What the values of a column are: addresses, numbers, times and how they are written, words. Pure.

`facts_of` looks at the first rows of a file, for `ingest.files.propose`. It keeps no values.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from ingest.accept.canonical import Refused
from ingest.files.amounts import amount_reader
from ingest.files.times import time_reader, unit_of
from ingest.files.values import is_missing

Kind = Literal["empty", "email", "phone", "integer", "decimal", "time", "clock", "boolean", "lines", "object", "text"]

_ENOUGH: Final = 0.97  # of the values
_LOOKED_AT: Final = 2_000  # different values of a column
_EMAIL: Final = re.compile(r"[^@\s,;]+@[^@\s,;]+\.[^@\s,;.]+")
_PHONE: Final = re.compile(r"[+(]?\d[\d\s()./-]{6,18}\d")
_INTEGER: Final = re.compile(r"-?\d+(?:\.0+)?", re.ASCII)
_CLOCK: Final = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?(?:\s*[AaPp][Mm])?")
_CODE: Final = re.compile(r"[A-Z]{3}|[a-z]{3}")
_WORDS_OF_TRUTH: Final = frozenset({"true", "false", "yes", "no", "y", "n", "t", "f"})
_SIGNS: Final = {"€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "$": "USD", "₽": "RUB", "₺": "TRY", "zł": "PLN"}
_DAYS: Final = {
    ".": (("%d.%m.%Y", "%d.%m.%y"), ()),
    "/": (("%d/%m/%Y", "%d/%m/%y"), ("%m/%d/%Y", "%m/%d/%y")),
    "-": (("%d-%m-%Y", "%d-%b-%Y", "%d-%b-%y", "%d-%m-%y"), ("%m-%d-%Y",)),
    " ": (("%d %b %Y", "%d %B %Y"), ("%b %d, %Y", "%B %d, %Y", "%b %d %Y")),
}
_CLOCKS: Final = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", ", %I:%M %p")
_ZONES: Final = ("", " %z", " %Z")
_CLOCK_FORMATS: Final = ("%H:%M:%S", "%H:%M", "%I:%M %p", "%I:%M:%S %p")
_NUMBERS: Final = amount_reader()
_COMMAS: Final = amount_reader(",")


class Facts(NamedTuple):
    """A column. `distinct` of `filled` values; `format`: of times; `decimal`: the sign before fractions, if it shows.

    `currency`: a code that stands beside the amounts; `codes`: whether the values are currency codes; `negative`: how
    many numbers are below 0; `ambiguous`: both orders of day and month would fit.
    """

    name: str
    place: int
    kind: Kind
    filled: int
    distinct: int
    format: str = ""
    decimal: str | None = None
    currency: str | None = None
    codes: bool = False
    negative: int = 0
    ambiguous: bool = False

    @property
    def unique(self) -> bool:
        return self.filled > 0 and self.distinct == self.filled


def facts_of(name: str, place: int, values: Sequence[Any], now: datetime, hint: str) -> Facts:
    """What a column is. `hint`: its name in lower-case words, since 20240131 is a day only where a day is named."""
    there = [value for value in values if not is_missing(value)]
    different = list(dict.fromkeys(_hashable(value) for value in there))
    known = Facts(name, place, "empty", len(there), len(different))
    if not there:
        return known
    sample = different[:_LOOKED_AT]
    if all(isinstance(value, list) for value in there[:50]) or _mostly(sample, _is_json_list):
        return known._replace(kind="lines")
    if all(isinstance(value, dict) for value in there[:50]) or _mostly(sample, _is_json_object):
        return known._replace(kind="object")
    if all(isinstance(value, bool) for value in sample):
        return known._replace(kind="boolean")
    if any(isinstance(value, date) for value in sample):
        return known._replace(kind="time", format="iso")
    if all(isinstance(value, time) for value in sample):
        return known._replace(kind="clock", format="%H:%M:%S")
    if any(isinstance(value, int | float | Decimal) for value in sample):
        return _typed(known, sample, hint)
    return _of_text(known, [str(value).strip() for value in sample], now, hint)


def _hashable(value: Any) -> Any:
    return str(value) if isinstance(value, list | dict) else value


def _mostly(sample: Sequence[Any], test: Callable[[str], bool]) -> bool:
    return sum(isinstance(value, str) and test(value) for value in sample) >= _ENOUGH * len(sample)


def _is_json_list(text: str) -> bool:
    return text.lstrip().startswith("[{") and text.rstrip().endswith("]")


def _is_json_object(text: str) -> bool:
    return text.lstrip().startswith(('{"', "{'")) and text.rstrip().endswith("}")


def _typed(known: Facts, sample: Sequence[Any], hint: str) -> Facts:
    """Numbers of JSON, Parquet and sheets."""
    numbers = [value for value in sample if isinstance(value, int | float | Decimal)]
    whole = all(value == int(value) for value in numbers)
    format_ = _epoch([Decimal(str(value)) for value in numbers], hint)
    if format_:
        return known._replace(kind="time", format=format_)
    negative = sum(value < 0 for value in numbers)
    return known._replace(kind="integer" if whole else "decimal", negative=negative)


def _epoch(numbers: Sequence[Decimal], hint: str) -> str:
    """The format of times that are numbers; "" if they are none."""
    if not any(word in hint for word in ("time", "date", "day", "when", "stamp", " at", " on", " ts", "datum")):
        return ""
    least, most = min(numbers), max(numbers)
    if least > 19_700_101 and most < 21_000_101 and all(_is_day(int(number)) for number in numbers):
        return "%Y%m%d"
    for unit, size in (("epoch_s", 1), ("epoch_ms", 10**3), ("epoch_us", 10**6), ("epoch_ns", 10**9)):
        if 315_532_800 * size <= least and most < 4_102_444_800 * size and unit_of(least) == unit:
            return unit  # 1980 to 2100
    return "excel" if least > 25_000 and most < 73_050 else ""


def _is_day(number: int) -> bool:
    return 1 <= number // 100 % 100 <= 12 and 1 <= number % 100 <= 31


def _of_text(known: Facts, sample: Sequence[str], now: datetime, hint: str) -> Facts:
    if _mostly(sample, lambda text: _EMAIL.fullmatch(text) is not None):
        return known._replace(kind="email")
    if all(text.lower() in _WORDS_OF_TRUTH for text in sample):
        return known._replace(kind="boolean")
    if all(_INTEGER.fullmatch(text) for text in sample):
        format_ = _epoch([Decimal(text) for text in sample], f" {hint}")
        if format_:
            return known._replace(kind="time", format=format_)
    called = any(word in f" {hint}" for word in ("phone", "mobile", "telefon", " tel"))
    if called and _mostly(sample, lambda text: _PHONE.fullmatch(text.lstrip("'")) is not None):
        return known._replace(kind="phone")
    if _mostly(sample, lambda text: _CLOCK.fullmatch(text) is not None):
        return known._replace(kind="clock", format=_first_format(sample, _CLOCK_FORMATS))
    number = _number(known, sample)
    if number is not None:
        return number
    format_, ambiguous = _time_format(sample, now)
    if format_:
        return known._replace(kind="time", format=format_, ambiguous=ambiguous)
    codes = known.distinct <= 30 and all(_CODE.fullmatch(text) for text in sample)
    return known._replace(kind="text", codes=codes)


def _number(known: Facts, sample: Sequence[str]) -> Facts | None:
    """The column as numbers, with how they are written; None if they are none."""
    comma = [text for text in sample if "," in text]
    decimal: str | None = None
    if comma and any(re.search(r",\d{1,2}\D*$|\.\d{3},", text) for text in comma):
        decimal = ","
    elif comma:
        decimal = "."
    read = _COMMAS if decimal == "," else amount_reader(decimal) if decimal else _NUMBERS
    amounts = [amount for text in sample if (amount := _amount(read, text)) is not None]
    if len(amounts) < _ENOUGH * len(sample):
        return None
    whole = all(_INTEGER.fullmatch(text) for text in sample)
    return known._replace(
        kind="integer" if whole else "decimal",
        decimal=decimal,
        currency=_currency_in(sample),
        negative=sum(amount < 0 for amount in amounts),
    )


def _amount(read: Any, text: str) -> Decimal | None:
    try:
        found: Decimal | None = read(text, "")
    except Refused:
        return None
    return found


def _currency_in(sample: Sequence[str]) -> str | None:
    """The currency whose sign or code stands beside the numbers."""
    found = Counter[str]()
    for text in sample:
        mark = re.sub(r"[\d.,\s()'+-]", "", text)
        if mark:
            code = _SIGNS.get(mark) or (mark if _CODE.fullmatch(mark) else None)
            found[code or next((_SIGNS[sign] for sign in _SIGNS if sign in mark), "")] += 1
    code = found.most_common(1)[0][0] if found else ""
    return code or None


def _time_format(sample: Sequence[str], now: datetime) -> tuple[str, bool]:
    """The format that reads all values, and whether another would, too; ("", False) if none does."""
    if not any(any(letter.isdigit() for letter in text) for text in sample[:20]):
        return "", False
    if not all(text.isdecimal() for text in sample) and _reads("iso", sample, now) >= _ENOUGH:
        return "iso", False
    sign = next((each for each in _DAYS if each in sample[0]), "")
    if not sign:
        return "", False
    fitting = [[_fitting(day, sample, now) for day in order] for order in _DAYS[sign]]
    day_first, month_first = (next((each for each in order if each), "") for order in fitting)
    if day_first and month_first:
        return min((day_first, month_first), key=lambda format_: _leaps(format_, sample, now)), True
    return day_first or month_first, False


def _fitting(day: str, sample: Sequence[str], now: datetime) -> str:
    return next(
        (
            day + clock + zone
            for clock in _CLOCKS
            for zone in _ZONES
            if _reads(day + clock + zone, sample[:1], now) and _reads(day + clock + zone, sample, now) >= _ENOUGH
        ),
        "",
    )


def _first_format(sample: Sequence[str], formats: Sequence[str]) -> str:
    return next((each for each in formats if _parses(each, sample)), formats[0])


def _parses(format_: str, sample: Sequence[str]) -> bool:
    try:
        for text in sample[:200]:
            datetime.strptime(text, format_)  # noqa: DTZ007  # only whether it can be read
    except ValueError:
        return False
    return True


def _reads(format_: str, sample: Sequence[str], now: datetime) -> float:
    """The share of values that a format reads as times that can be."""
    read = time_reader(format_, UTC, now)
    good = 0
    for text in sample:
        try:
            read(text)
            good += 1
        except Refused:
            continue
    return good / len(sample)


def _leaps(format_: str, sample: Sequence[str], now: datetime) -> float:
    """How far times jump from one value to the next: files are mostly in the order of time."""
    read = time_reader(format_, UTC, now)
    times = [read(text).timestamp() for text in sample if _reads(format_, [text], now)]
    return sum(abs(one - other) for one, other in pairwise(times))
