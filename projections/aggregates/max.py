"""`max` of a number or a time."""

from typing import Final

from projections.aggregates.best import BestNumber
from projections.slots.extremes import MAX as SLOT


class Max(BestNumber):
    name, slot, sign = "max", SLOT, ">"
    meaning = "the greatest of a property that is a number, or the latest time; unknown of none"
    adjectives = "highest", "latest"


MAX: Final = Max()
