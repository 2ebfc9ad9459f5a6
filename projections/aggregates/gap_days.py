"""`gap_days` between the last two."""

from typing import Final

from projections.aggregates.base import Aggregate, Place, Reading
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import chosen
from projections.days import DAY_US
from projections.slots.top_two import TOP_TWO
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


class GapDays(Aggregate):
    name, slot = "gap_days", TOP_TWO
    meaning = "full days between the last two events; unknown of fewer"
    windows = False

    def unit(self, spec: ComputedTrait) -> str:
        return "days"

    def kind(self, spec: ComputedTrait) -> Kind:
        return "integer"

    def words(self, spec: ComputedTrait) -> str:
        return f"full days between the last two {chosen(spec)}"

    def lifetime(self, code: Reading, place: Place, var: str) -> list[str]:
        return [f"c = {place.at}", f"{var} = (c[0] - c[1]) // {DAY_US} if len(c) == 2 else None"]

    def over_orders(self, code: OrderTrait, var: str) -> None:
        one, two = code.start(f"x{code.tag}", "None"), code.start(f"y{code.tag}", "None")
        code.each(
            f"if {one} is None or us > {one}: {one}, {two} = us, {one}",
            f"elif {two} is None or us > {two}: {two} = us",
        )
        code.after(f"{var} = None if {two} is None else ({one} - {two}) // {DAY_US}")


GAP_DAYS: Final = GapDays()
