"""`days_since` the newest."""

from collections.abc import Sequence
from typing import Final

from projections.aggregates.base import Aggregate, Place, Reading
from projections.aggregates.best import best_time
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import chosen
from projections.days import DAY_US
from projections.slots.base import SlotNeed
from projections.slots.extremes import MAX
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


class DaysSince(Aggregate):
    name, slot = "days_since", MAX
    meaning = "full 24 hours since the newest event; unknown of none"
    windows, ages = False, True

    def unit(self, spec: ComputedTrait) -> str:
        return "days"

    def kind(self, spec: ComputedTrait) -> Kind:
        return "integer"

    def words(self, spec: ComputedTrait) -> str:
        return f"full days since the last {chosen(spec, one=True)}"

    def slots(self, spec: ComputedTrait) -> list[SlotNeed]:
        return [SlotNeed(self.slot, "occurred_at")]

    def lifetime(self, code: Reading, place: Place, var: str) -> list[str]:
        return _since(place.at, var, code.marks)

    def over_orders(self, code: OrderTrait, var: str) -> None:
        code.after(*_since(best_time(code, ">"), var, code.marks))


def _since(newest: str, var: str, marks: Sequence[int]) -> list[str]:
    """The value, and the next number of days a condition looks at."""
    lines = [f"c = {newest}", f"{var} = None if c is None else (at - c) // {DAY_US}"]
    if marks:
        lines += [
            "if c is not None:",
            f"    for k in {tuple(marks)}:",
            f"        d = c + k * {DAY_US}",
            "        if d > at:",
            "            if d < due: due = d",
            "            break",
        ]
    return lines


DAYS_SINCE: Final = DaysSince()
