"""What a state's orders and refunds come to: which of them count, and for how much. Pure.

States keep what events said, because only raw entries merge in any order; this is done when they are read, after all
merging. Both results are tuples with the fields ID to UNREAD, then an order's extras, or a refund's `of_order`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from projections.fold import state as st
from schemas.money import divide

Entries = Sequence[Sequence[Any]]
Counted = tuple[Any, ...]

ID, KEY, US, OWN, CURRENCY, BASE, BITS, UNREAD, EXTRA = range(9)
OF_ORDER: Final = EXTRA  # of a refund: whether its order is among the orders


class Pins(dict[str, int]):
    """Currency → the bits of a refund that count in it: traits over one currency take no refund in another.

    An order's refunds are in its currency, whatever they name, so this is known only when they are read.
    """

    def __init__(self, pinned: Mapping[int, str]) -> None:
        """`pinned`: bit → the only currency that its traits are over."""
        super().__init__()
        self._pinned = pinned

    def __missing__(self, currency: str) -> int:
        out = sum(1 << bit for bit, only in self._pinned.items() if only != currency)
        mask = self[currency] = ~out
        return mask


def count(orders: Entries, refunds: Entries, cancels: Entries, pins: Pins | None = None) -> tuple[list[Any], list[Any]]:
    """The orders and refunds that count.

    An order counts if it was completed and no cancel is newer than its newest completion; at the instant of its
    earliest completion, with the amount of its highest state. Refunds of a cancelled order do not count.
    """
    gone = {entry[0]: (entry[1], entry[2]) for entry in cancels} if cancels else {}
    if gone:
        orders = [o for o in orders if not _is_cancelled(o, gone)]
    bases = [
        (
            o[0],
            o[4],
            o[10],
            o[5],
            o[6],
            o[7],
            o[8],
            o[9],
            *o[13:],
        )  # by numbers: this runs for each order at each decision
        for o in orders
        if o[10] is not None
    ]
    return bases, _refunds(bases, refunds, gone, pins) if refunds else []


assert (st.O_KEY, st.O_OWN, st.O_UNREAD, st.O_FIRST_US, st.O_EXTRA) == (4, 5, 9, 10, 13), "see `count`"


def _is_cancelled(order: Sequence[Any], gone: dict[str, tuple[int, bytes]]) -> bool:
    """Whether a cancel is newer than the newest completion; takes those that are not out of `gone`."""
    cancel = gone.get(order[0])
    if cancel is None or order[st.O_FIRST_US] is None:
        return cancel is not None
    if cancel > (order[st.O_LAST_US], order[st.O_LAST_KEY]):
        return True
    del gone[order[0]]
    return False


def _refunds(bases: Iterable[Counted], refunds: Entries, gone: Mapping[str, Any], pins: Pins | None) -> list[Counted]:
    known = {order[ID]: order for order in bases}
    found: list[Counted] = []
    of_order: dict[str, list[Sequence[Any]]] = {}
    for entry in refunds:
        order_id = entry[st.R_ID]
        if order_id in known:
            of_order.setdefault(order_id, []).append(entry)
        elif order_id not in gone:
            found.append((*_named(entry), *entry[st.R_OWN : st.R_NAMED], entry[st.R_UNREAD], False))
    for order_id, entries in of_order.items():
        found += _clamped(known[order_id], sorted(entries, key=_stamp) if len(entries) > 1 else entries)
    return found if pins is None else [(*r[:BITS], r[BITS] & pins[r[CURRENCY]], *r[UNREAD:]) for r in found]


def _stamp(entry: Sequence[Any]) -> tuple[int, bytes]:
    return entry[st.R_US], entry[st.R_STAMP]


def _named(entry: Sequence[Any]) -> tuple[Any, Any, Any]:
    return entry[st.R_ID], entry[st.R_STAMP], entry[st.R_US]


def _clamped(order: Counted, entries: Entries) -> list[Counted]:
    """An order's refunds in the order of their stamps, each at most what is left of the order, in its currency.

    In base currency each takes the same share of the order's amount: a refunded order is worth exactly nothing. One in
    another currency counts by its own rate of its own day.
    """
    found: list[Counted] = []
    own, currency, base = order[OWN], order[CURRENCY], order[BASE]
    rest, rest_base = own, base
    for entry in entries:
        amount, value = entry[st.R_OWN], entry[st.R_BASE]
        foreign = entry[st.R_NAMED] and entry[st.R_CURRENCY] != currency
        taken: tuple[int | None, str, int | None] = None, currency, None
        if own is None or entry[st.R_UNREAD]:
            pass
        elif amount is None or not foreign:
            part = rest if amount is None else min(amount, rest)
            taken = part, currency, _share(part, own, base, rest, rest_base)
        elif value is None or base is None:
            taken = amount, entry[st.R_CURRENCY], None
        else:
            part_base = min(value, rest_base)
            taken = _part(part_base, own, base, rest, rest_base), currency, part_base
        if taken[1] == currency and taken[0] is not None:
            rest -= taken[0]
            rest_base = None if base is None else rest_base - (taken[2] or 0)
        found.append((*_named(entry), *taken, entry[st.R_BITS], entry[st.R_UNREAD], True))
    return found


def _share(part: int, own: int, base: int | None, rest: int, rest_base: int | None) -> int | None:
    """The part in base currency of an amount in the order's own."""
    if base is None or rest_base is None or base == own:
        return None if base is None else part
    return rest_base if part == rest else min(divide(part * base, own), rest_base)


def _part(part_base: int, own: int, base: int, rest: int, rest_base: int) -> int:
    """The part in the order's own currency of an amount in base currency."""
    return rest if part_base == rest_base else min(divide(part_base * own, base), rest)
