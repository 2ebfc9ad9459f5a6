"""The `first` value by stamp, of whatever type."""

from typing import Final

from projections.aggregates.best import BestStamped
from projections.slots.extremes import MIN
from projections.slots.stamped import FIRST as SLOT


class First(BestStamped):
    name, slot, of_times, sign = "first", SLOT, MIN, "<"
    meaning = "the first value of a property by the event's time, as it was sent; unknown of none"


FIRST: Final = First()
