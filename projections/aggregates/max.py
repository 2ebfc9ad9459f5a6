"""`max` of a number or a time."""

from typing import Final

from projections.aggregates.base import Aggregate, counted
from projections.aggregates.best import best_number, best_time
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import value
from projections.slots.extremes import MAX as SLOT
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


class Max(Aggregate):
    name, slot = "max", SLOT
    meaning = "the greatest of a property that is a number, or the latest time; unknown of none"
    takes_value, numeric = True, True

    def kind(self, spec: ComputedTrait) -> Kind:
        return "time" if spec.of == "occurred_at" else "decimal"

    def words(self, spec: ComputedTrait) -> str:
        return counted(spec, f"{'latest' if spec.of == 'occurred_at' else 'highest'} {value(spec)} of")

    def over_orders(self, code: OrderTrait, var: str) -> None:
        best = best_time if code.spec.of == "occurred_at" else best_number
        code.after(f"{var} = {best(code, '>')}")


MAX: Final = Max()
