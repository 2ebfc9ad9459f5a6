"""`distinct_days`: on how many local days."""

from typing import Final

from projections.aggregates.base import Aggregate, Place, Reading
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import chosen
from projections.slots.days import DAYS
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


class DistinctDays(Aggregate):
    name, slot = "distinct_days", DAYS
    meaning = "the number of local days with an event; 0 of none"
    of_nothing = 0

    def unit(self, spec: ComputedTrait) -> str:
        return "days"

    def kind(self, spec: ComputedTrait) -> Kind:
        return "integer"

    def words(self, spec: ComputedTrait) -> str:
        return f"number of different days with {chosen(spec)}"

    def lifetime(self, code: Reading, place: Place, var: str) -> list[str]:
        return [f"{var} = sum(w.bit_count() for w in {place.at}[1::2])"]

    def over_orders(self, code: OrderTrait, var: str) -> None:
        days = code.start(f"d{code.tag}", "set()")
        code.each(f"{days}.add(day_of(us))")
        code.after(f"{var} = len({days})")


DISTINCT_DAYS: Final = DistinctDays()
