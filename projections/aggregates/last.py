"""`last` value by stamp, of whatever type."""

from typing import Final

from projections.aggregates.base import Aggregate, Reading, counted
from projections.aggregates.best import best_stamped, best_time
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import value
from projections.slots.base import SlotNeed
from projections.slots.extremes import MAX
from projections.slots.stamped import LAST as SLOT
from projections.slots.values import restore
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


class Last(Aggregate):
    name, slot = "last", SLOT
    meaning = "the last value of a property by the event's time, as it was sent; unknown of none"
    takes_value = True

    def kind(self, spec: ComputedTrait) -> Kind:
        return {"occurred_at": "time", "revenue": "decimal"}.get(spec.of or "", "any")  # type: ignore[return-value]  # literals

    def words(self, spec: ComputedTrait) -> str:
        return counted(spec, f"last {value(spec)} of")

    def order_slot(self, spec: ComputedTrait) -> SlotNeed:
        if spec.of != "occurred_at":
            return super().order_slot(spec)
        return SlotNeed(MAX if spec.window_days is None else MAX.windowed, spec.of)

    def finish(self, code: Reading, raw: str, var: str, *, stamped: bool = True) -> list[str]:
        if not stamped:
            return super().finish(code, raw, var)
        return [f"c = {raw}", f"{var} = None if c is None else {code.src.use(restore)}(c[2])"]

    def over_orders(self, code: OrderTrait, var: str) -> None:
        best = best_time if code.spec.of == "occurred_at" else best_stamped
        code.after(f"{var} = {best(code, '>')}")


LAST: Final = Last()
