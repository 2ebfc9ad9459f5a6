"""The `last` value by stamp, of whatever type."""

from typing import Final

from projections.aggregates.best import BestStamped
from projections.slots.extremes import MAX
from projections.slots.stamped import LAST as SLOT


class Last(BestStamped):
    name, slot, of_times, sign = "last", SLOT, MAX, ">"
    meaning = "the last value of a property by the event's time, as it was sent; unknown of none"


LAST: Final = Last()
