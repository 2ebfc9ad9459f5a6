"""What min and max, and first and last, share: the best value seen, by a comparison sign. Pure."""

from typing import ClassVar

from projections.aggregates.base import Aggregate, Reading
from projections.aggregates.order_loop import OrderTrait
from projections.aggregates.phrases import chosen, value
from projections.orders.counting import KEY
from projections.slots.base import SlotKind, SlotNeed
from projections.slots.values import restore
from schemas.conditions import Kind
from schemas.definitions import ComputedTrait


class BestNumber(Aggregate):
    """The least (`<`) or greatest (`>`) number or time. `adjectives`: for a number, for a time."""

    sign: ClassVar[str]
    adjectives: ClassVar[tuple[str, str]]
    takes_value, numeric = True, True

    def kind(self, spec: ComputedTrait) -> Kind:
        return "time" if spec.of == "occurred_at" else "decimal"

    def words(self, spec: ComputedTrait) -> str:
        return f"{self.adjectives[spec.of == 'occurred_at']} {value(spec)} of {chosen(spec)}"

    def over_orders(self, code: OrderTrait, var: str) -> None:
        best = best_time if code.spec.of == "occurred_at" else _best_number
        code.after(f"{var} = {best(code, self.sign)}")


class BestStamped(Aggregate):
    """The first (`<`) or last (`>`) value by stamp. `of_times`: the kind of slot for the times of orders."""

    sign: ClassVar[str]
    of_times: ClassVar[SlotKind]
    takes_value = True

    def kind(self, spec: ComputedTrait) -> Kind:
        if spec.of == "occurred_at":
            return "time"
        return "decimal" if spec.of == "revenue" else "any"

    def words(self, spec: ComputedTrait) -> str:
        return f"{self.name} {value(spec)} of {chosen(spec)}"

    def order_slots(self, spec: ComputedTrait) -> list[SlotNeed]:
        if spec.of != "occurred_at":
            return super().order_slots(spec)
        return [SlotNeed(self.of_times if spec.window_days is None else self.of_times.windowed, spec.of)]

    def finish(self, code: Reading, raw: str, var: str, *, stamped: bool = True) -> list[str]:
        if not stamped:
            return super().finish(code, raw, var)
        return [f"c = {raw}", f"{var} = None if c is None else {code.src.use(restore)}(c[2])"]

    def over_orders(self, code: OrderTrait, var: str) -> None:
        best = best_time if code.spec.of == "occurred_at" else _best_stamped
        code.after(f"{var} = {best(code, self.sign)}")


def best_time(code: OrderTrait, sign: str) -> str:
    """The accumulator of the earliest or latest stamp."""
    best = code.start(f"{'e' if sign == '<' else 'l'}{code.tag}", "None")
    code.each(f"if {best} is None or us {sign} {best}: {best} = us")
    return best


def _best_number(code: OrderTrait, sign: str) -> str:
    value_of, what = code.value(numeric=True)
    amount = f"a{what}"
    best = code.start(f"{'i' if sign == '<' else 'j'}{code.tag}_{what}", "None")
    code.each(
        f"{amount} = {value_of}",
        f"if {amount} is not None and ({best} is None or {amount} {sign} {best}): {best} = {amount}",
    )
    return best


def _best_stamped(code: OrderTrait, sign: str) -> str:
    value_of, what = code.value(numeric=False)
    best = code.start(f"{'g' if sign == '<' else 'h'}{code.tag}_{what}", "None")
    stamped = f"[us, o[{KEY}], {value_of}]"
    code.each(f"if {value_of} is not None and ({best} is None or {stamped} {sign} {best}): {best} = {stamped}")
    return f"None if {best} is None else {code.src.use(restore)}({best}[2])"
