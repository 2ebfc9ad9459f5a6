"""`sum` of a number."""

from typing import Final

from projections.aggregates.base import Aggregate, Reading
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import chosen, value
from projections.aggregates.sums import summed
from projections.slots.sum import SUM as SLOT
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


class Sum(Aggregate):
    name, slot = "sum", SLOT
    meaning = "the sum of a property that is a number; 0 of none"
    of_nothing = 0
    takes_value, takes_times, numeric, less_refunds = True, False, True, True

    def kind(self, spec: ComputedTrait) -> Kind:
        return "decimal"

    def words(self, spec: ComputedTrait) -> str:
        return f"total {value(spec)} of {chosen(spec)}"

    def finish(self, code: Reading, raw: str, var: str, *, stamped: bool = True) -> list[str]:
        return [f"{var} = {raw}[1]"]

    def over_orders(self, code: OrderTrait, var: str) -> None:
        code.after(f"{var} = {summed(code)[1]}")


SUM: Final = Sum()
