"""`min` of a number or a time."""

from typing import Final

from projections.aggregates.best import BestNumber
from projections.slots.extremes import MIN as SLOT


class Min(BestNumber):
    name, slot, sign = "min", SLOT, "<"
    meaning = "the least of a property that is a number, or the earliest time; unknown of none"
    adjectives = "lowest", "earliest"


MIN: Final = Min()
