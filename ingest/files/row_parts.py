"""Parts of an event that a mapping may take from its rows in more than one way: its time and its type. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from ingest.accept.canonical import Refused
from ingest.files.amounts import AmountOf
from ingest.files.times import ReadTime, joined_time, time_reader
from ingest.files.values import id_text, is_missing
from schemas.mapping import Time, TypeOf

LEFT_OUT: Final = "left_out"  # rule of rows that the mapping's `type` leaves out: no dead letter
_ZERO: Final = Decimal(0)


class TimeOf:
    """Reads when a row occurred: from one column, from the day and the time of day, or the same for all rows."""

    def __init__(self, time: Time, columns: Sequence[str], zone: ZoneInfo, now: datetime | None) -> None:
        self._read: ReadTime = time_reader(time.format, zone, now)
        self._day = None if time.column is None else columns.index(time.column)
        self._clock = None if time.time is None else columns.index(time.time)
        self._at = None if time.at is None else time.at.astimezone(UTC)

    def __call__(self, values: Sequence[Any]) -> datetime:
        if self._day is None:
            assert self._at is not None, "a mapping has a column of times or one instant"
            return self._at
        if self._clock is None:
            return self._read(values[self._day])
        return self._read(joined_time(values[self._day], values[self._clock]))

    def is_there(self, values: Sequence[Any]) -> bool:
        return self._day is None or not is_missing(values[self._day])


class TypeBy:
    """The type of an event by the words of a column or by the sign of an amount."""

    def __init__(self, of: TypeOf, columns: Sequence[str], amount: AmountOf) -> None:
        self._of = of
        self._amount = amount
        self._column = None if of.column is None else columns.index(of.column)
        self._sign = None if of.sign_of is None else columns.index(of.sign_of)
        self._map = {word.strip().casefold(): type_ for word, type_ in of.map.items()}
        self.places = {place for place in (self._column,) if place is not None}

    def of(self, rows: Sequence[Sequence[Any]], values: Sequence[Any]) -> str:
        """Raises Refused: for a word that the map does not have, for rows that it leaves out."""
        if self._sign is not None:
            amounts = (self._amount(row[self._sign], "type.sign_of") for row in rows)
            negative = sum((each for each in amounts if each is not None), _ZERO) < 0
            return (self._of.negative if negative else self._of.positive) or ""
        word = id_text(values[self._column]) if self._column is not None else None
        type_ = self._map.get((word or "").casefold(), self._of.otherwise)
        if type_ is None:
            if word is not None and word.casefold() in self._map:
                raise Refused(LEFT_OUT, "type", "the mapping leaves such rows out")
            raise Refused("unknown_type", "type", f"{self._of.column} has a word that map and otherwise do not name")
        return type_
