"""`distinct_count` of a property: how many different values."""

from typing import Any, Final

from projections.aggregates.base import Aggregate, Place, Reading
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import chosen, value
from projections.slots.different import DIFFERENT
from projections.slots.keyed import OVERFLOW
from projections.slots.values import text_key
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


class DistinctCount(Aggregate):
    name, slot = "distinct_count", DIFFERENT
    meaning = (
        'how many different values a property had (9 and "9" are one; lists count as missing); 0 of none; over orders'
        " unknown beyond 1,024"
    )
    of_nothing = 0
    takes_value, takes_times, windows = True, False, False

    def kind(self, spec: ComputedTrait) -> Kind:
        return "integer"

    def words(self, spec: ComputedTrait) -> str:
        return f"number of different values of {value(spec)} of {chosen(spec)}"

    def lifetime(self, code: Reading, place: Place, var: str) -> list[str]:
        return [f"{var} = {code.src.use(value_count)}({place.at})"]

    def over_orders(self, code: OrderTrait, var: str) -> None:
        kept, what = code.value(numeric=False)
        seen = code.start(f"u{code.tag}_{what}", "set()")
        code.each(f"{seen}.add({code.src.use(text_key)}({kept}))")
        code.after(f"{seen}.discard(None)", f"{var} = len({seen})")


def value_count(entries: Any) -> int | None:
    """How many values there are; a profile over the cap stores the number, taken from its tree."""
    if entries == OVERFLOW:
        return None
    return entries[0] if len(entries) == 1 and type(entries[0]) is int else len(entries)


DISTINCT_COUNT: Final = DistinctCount()
