"""`avg` of a number."""

from typing import Final

from projections.aggregates.base import Aggregate, Reading
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import chosen, value
from projections.aggregates.sums import summed
from projections.slots.sum import SUM
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait
from schemas.money import divide


class Avg(Aggregate):
    name, slot = "avg", SUM
    meaning = "the mean of a property that is a number, to 4 places; unknown of none"
    takes_value, takes_times, numeric, less_refunds = True, False, True, True

    def kind(self, spec: ComputedTrait) -> Kind:
        return "decimal"

    def words(self, spec: ComputedTrait) -> str:
        return f"average {value(spec)} of {chosen(spec)}"

    def finish(self, code: Reading, raw: str, var: str, *, stamped: bool = True) -> list[str]:
        return [f"c = {raw}", f"{var} = {code.src.use(divide)}(c[1], c[0]) if c[0] else None"]

    def over_orders(self, code: OrderTrait, var: str) -> None:
        count, total = summed(code)
        code.after(f"{var} = {code.src.use(divide)}({total}, {count}) if {count} else None")


AVG: Final = Avg()
