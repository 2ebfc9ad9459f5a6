"""Calendar days of a time zone as integers, for counting windows. Pure."""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from schemas.record import EPOCH

DAY_US: Final = 86_400_000_000
BUCKET_US: Final = 900_000_000  # zones change at quarters of an hour: inside one, the local day is mostly constant
NEVER: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999, the latest time
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_FIRST_DAY: Final = date.min.toordinal() - _EPOCH_ORDINAL + 2
_LAST_DAY: Final = date.max.toordinal() - _EPOCH_ORDINAL - 2
_US: Final = timedelta(microseconds=1)


class LocalDays:
    """Calendar days of a time zone as integers (0 = 1970-01-01), and where they begin.

    A day begins at its first instant after local midnight; `day` is the inverse of `start`, also where clocks
    change at midnight.
    """

    def __init__(self, time_zone: str) -> None:
        self._zone = ZoneInfo(time_zone)
        self.cache: dict[int, int] = {}
        self.start = lru_cache(maxsize=8_192)(self._start)

    def _start(self, day: int) -> int:
        """The first microsecond of a local day."""
        if not _FIRST_DAY <= day <= _LAST_DAY:
            return day * DAY_US  # outside the calendar's range: UTC will do
        at = datetime.combine(date.fromordinal(day + _EPOCH_ORDINAL), datetime.min.time(), self._zone)
        return (at.astimezone(UTC) - EPOCH) // _US

    def aware(self, local: datetime) -> datetime:
        """A time without a zone, read in this zone."""
        return local.replace(tzinfo=self._zone)

    def day(self, at_us: int) -> int:
        """The local day of an instant."""
        bucket = at_us // BUCKET_US
        known = self.cache.get(bucket)
        if known is not None:
            return known
        day = at_us // DAY_US
        while at_us < self.start(day):
            day -= 1
        while at_us >= self.start(day + 1):
            day += 1
        begin = bucket * BUCKET_US
        if self.start(day) <= begin and begin + BUCKET_US <= self.start(day + 1):
            if len(self.cache) > 200_000:
                self.cache.clear()
            self.cache[bucket] = day
        return day


def iso_day(day: int) -> str:
    """A day number as 2026-05-03."""
    return date.fromordinal(day + _EPOCH_ORDINAL).isoformat()
