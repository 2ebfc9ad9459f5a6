"""How entries of one order become one: its states, its completions (`projections.fold.state` has the fields). Pure."""

from typing import Any

from projections.fold import state as st
from projections.slots.keyed import put


def join_orders(a: list[Any], b: list[Any]) -> list[Any]:
    """The greater state, the earliest completion and the newest one: each a maximum or minimum of its own."""
    best = a if a[st.O_STATED : st.O_OWN] >= b[st.O_STATED : st.O_OWN] else b
    first_a, first_b = a[st.O_FIRST_US], b[st.O_FIRST_US]
    if first_a is None or first_b is None:
        times = a if first_b is None else b
        if times is best:
            return best
        return [*best[: st.O_FIRST_US], *times[st.O_FIRST_US : st.O_EXTRA], *best[st.O_EXTRA :]]
    last = max(a[st.O_LAST_US : st.O_EXTRA], b[st.O_LAST_US : st.O_EXTRA])
    first = min(first_a, first_b)
    if best[st.O_FIRST_US] == first and best[st.O_LAST_US : st.O_EXTRA] == last:
        return best
    return [*best[: st.O_FIRST_US], first, *last, *best[st.O_EXTRA :]]


def put_order(entries: list[list[Any]], entry: list[Any]) -> None:
    """Put an order's entry into its list, in place."""
    put(entries, entry, join_orders)
