"""`count`: how many events or orders."""

from typing import Final

from projections.aggregates.base import Aggregate
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import chosen
from projections.slots.count import COUNT as SLOT
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


class Count(Aggregate):
    name, slot = "count", SLOT
    meaning = "how many events; 0 of none"
    of_nothing = 0

    def kind(self, spec: ComputedTrait) -> Kind:
        return "integer"

    def words(self, spec: ComputedTrait) -> str:
        return f"number of {chosen(spec)}"

    def over_orders(self, code: OrderTrait, var: str) -> None:
        number = code.start(f"n{code.tag}", "0")
        code.each(f"{number} += 1")
        code.after(f"{var} = {number}")


COUNT: Final = Count()
