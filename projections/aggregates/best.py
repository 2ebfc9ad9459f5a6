"""What min, max, first and last share over orders: the best of what was seen. Pure."""

from projections.aggregates.order_loop import OrderTrait
from projections.fold import state as st
from projections.slots.values import restore


def best_time(code: OrderTrait, sign: str) -> str:
    """The accumulator of the earliest (`<`) or latest (`>`) stamp."""
    best = code.start(f"{'e' if sign == '<' else 'l'}{code.tag}", "None")
    code.each(f"if {best} is None or us {sign} {best}: {best} = us")
    return best


def best_number(code: OrderTrait, sign: str) -> str:
    """The accumulator of the least (`<`) or greatest (`>`) value."""
    value, what = code.value(numeric=True)
    amount = f"a{what}"
    best = code.start(f"{'i' if sign == '<' else 'j'}{code.tag}_{what}", "None")
    code.each(
        f"{amount} = {value}",
        f"if {amount} is not None and ({best} is None or {amount} {sign} {best}): {best} = {amount}",
    )
    return best


def best_stamped(code: OrderTrait, sign: str) -> str:
    """The expression of the first (`<`) or last (`>`) value by stamp."""
    value, what = code.value(numeric=False)
    best = code.start(f"{'g' if sign == '<' else 'h'}{code.tag}_{what}", "None")
    stamped = f"[us, o[{st.O_KEY}], {value}]"
    code.each(f"if {value} is not None and ({best} is None or {stamped} {sign} {best}): {best} = {stamped}")
    return f"None if {best} is None else {code.src.use(restore)}({best}[2])"
