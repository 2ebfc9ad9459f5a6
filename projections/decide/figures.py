"""What profiles and events contribute to the overview's figures (decision 0018). Pure.

The cells of a profile depend only on its state, so a decision changes them by the cells after it minus those before.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from projections.days import LocalDays
from projections.fold import state as st
from projections.fold.state import State
from projections.orders.counting import BASE, OWN, UNREAD, US
from projections.orders.orders import Order, Refund, changed_orders, counted, order_slots, orders_of, whole
from projections.orders.summary import Spent
from projections.slots.keyed import OVERFLOW
from schemas.figures import BUCKET_US, BY_BUCKET, LONGEST_DAYS, PERIODS, Cells, Counted, Key, Kind, add

_ORDER, _REFUND = 0, 1


def spent_of(state: State, days: LocalDays) -> Spent:
    """The totals of a state that holds all its orders."""
    bases, refunds = counted(state)
    known, day = days.cache.get, days.day
    net = lacking = unread = 0
    on: list[int] = []
    for sign, entries in ((1, bases), (-1, refunds)):
        for entry in entries:
            if sign > 0:
                us = entry[US]
                on.append(known(us // BUCKET_US) or day(us))
            base = entry[BASE]
            unread += entry[UNREAD]
            if base is not None:
                net += sign * base
            elif entry[OWN] is not None:
                lacking += 1
    on.sort()
    return Spent(net, lacking, unread, sorted(set(on)), len(on) == 1 or (len(on) > 1 and on[0] != on[1]))


def add_profile(cells: Cells, row: Counted, days: LocalDays, sign: int = 1, state: State | None = None) -> None:
    """The cells of a profile; with `sign` -1 their negation. `state`: unpacked, with all orders."""
    if state is None:
        state = whole(order_slots(row.state), row.leaves)
    _add_row(cells, row, sign)
    if state[st.ORDERS] == OVERFLOW:
        add(cells, (Kind.UNKNOWN, 0, 0, ""), sign)
    elif state[st.ORDERS] or state[st.REFUNDS]:
        _amounts(cells, *orders_of(state), sign)
        _add_spent(cells, row.risk, spent_of(state, days), sign)


def _add_row(cells: Cells, row: Counted, sign: int) -> None:
    if row.first_us is not None:
        add(cells, (Kind.CUSTOMERS, row.first_us // BUCKET_US, 0, ""), sign)
    add(cells, (Kind.STAGE, 0, 0, f"{row.lifecycle}/{row.risk}"), sign)
    add(cells, (Kind.RISK, 0, 0, row.risk), sign)


def _add_spent(cells: Cells, risk: str, spent: Spent, sign: int) -> None:
    add(cells, (Kind.RISK, 0, 0, risk), 0, sign * spent.net)
    if spent.lacking:
        add(cells, (Kind.RISK, 0, 1, risk), sign * spent.lacking)
    if spent.unread:
        add(cells, (Kind.UNREADABLE, 0, 0, ""), sign * spent.unread)
    for key in _buyer(spent):
        add(cells, key, sign)


class Side(NamedTuple):
    """A profile before or after a decision. `spent`: over all its orders; None: these are not available."""

    row: Counted
    spent: Spent | None


def add_change(cells: Cells, old: Side, new: Side, orders: tuple[State, State] | None) -> None:
    """The change of a profile's cells from one row to the next.

    `orders`: order slots with at least all orders that differ; None: none differ.
    """
    if (old.row.first_us, old.row.risk, old.row.lifecycle) != (new.row.first_us, new.row.risk, new.row.lifecycle):
        _add_row(cells, old.row, -1)
        _add_row(cells, new.row, 1)
    if (old.spent, old.row.risk) != (new.spent, new.row.risk):
        for side, sign in ((old, -1), (new, 1)):
            if side.spent is None:
                add(cells, (Kind.UNKNOWN, 0, 0, ""), sign)
            else:
                _add_spent(cells, side.row.risk, side.spent, sign)
    if orders is not None:
        for made, sign in zip(changed_orders(*orders), (-1, 1), strict=True):
            _amounts(cells, *made, sign)


def roll_up(cells: Cells, days: LocalDays) -> Cells:
    """The cells as they are stored: those by quarters of an hour by days too, and buyers by the periods they count in.

    A day of orders with the one before it `gap` days earlier counts in the periods of `length` days that end on
    [max(day, day - gap + length), day + length): at both ends of that range of days the sum changes.
    """
    stored: Cells = {}
    for (kind, place, other, label), (n, amount) in cells.items():
        if kind in BY_BUCKET:
            add(stored, (Kind.DAY + kind, days.day(place * BUCKET_US), other, label), n, amount)
        if kind == Kind.BUYERS:
            for length in PERIODS:
                add(stored, (Kind.PERIOD_BUYERS, place + max(0, length - other), length, ""), n)
                add(stored, (Kind.PERIOD_BUYERS, place + length, length, ""), -n)
        elif kind == Kind.FIRSTS:
            for length in PERIODS:
                add(stored, (Kind.PERIOD_FIRSTS, place, length, ""), n)
                add(stored, (Kind.PERIOD_FIRSTS, place + min(other, length), length, ""), -n)
        else:
            add(stored, (kind, place, other, label), n, amount)
    return stored


def add_nobody(cells: Cells, packed: bytes, sign: int = 1) -> None:
    """The orders of an identifier set without an owner: they count, but no customer does."""
    _amounts(cells, *orders_of(order_slots(packed)), sign)


def add_events(cells: Cells, events: Iterable[tuple[str, int]], days: LocalDays, sign: int = 1) -> None:
    """Applied events as (type, occurred_us)."""
    for (type_, bucket), n in Counter([(type_, us // BUCKET_US) for type_, us in events]).items():
        add(cells, (Kind.EVENT, bucket, 0, ""), sign * n)
        add(cells, (Kind.FAMILY, days.day(bucket * BUCKET_US), 0, type_.partition(".")[0]), sign * n)


def _amounts(cells: Cells, orders: Iterable[Order], refunds: Iterable[Refund], sign: int) -> None:
    """Orders at their stamp, net of refunds, and refunds without an order at their own stamp."""
    stamps: dict[str | None, int] = {}
    for order in orders:
        bucket = order.occurred_us // BUCKET_US
        stamps[order.order_id] = order.occurred_us
        net = (order.base_revenue or 0) - (order.base_refunded or 0)
        add(cells, (Kind.ORDERS, bucket, 0, ""), sign, sign * net)
        if order.missing_rate and order.revenue is not None and order.base_revenue is None:
            add(cells, (Kind.UNRATED, bucket, _ORDER, order.currency), sign, sign * order.revenue)
    for refund in refunds:
        at_us = stamps[refund.order_id] if refund.of_order else refund.occurred_us
        if refund.lacks_rate:
            add(cells, (Kind.UNRATED, at_us // BUCKET_US, _REFUND, refund.currency), sign, sign * (refund.amount or 0))
        elif not refund.of_order and refund.base_amount is not None:
            add(cells, (Kind.ORDERS, at_us // BUCKET_US, 0, ""), 0, -sign * refund.base_amount)


def _buyer(spent: Spent) -> set[Key]:
    """The cells for the days a customer ordered on, by the days since the previous one.

    A customer who orders within a period counts once: on the day with a gap that reaches back before its beginning.
    Gaps are capped at LONGEST_DAYS, which also means "none before", because no period is longer.
    """
    each = spent.days
    if not each:
        return set()
    gaps = [LONGEST_DAYS, *(min(later - earlier, LONGEST_DAYS) for earlier, later in pairwise(each))]
    cells = {(Kind.BUYERS, at, gap, "") for at, gap in zip(each, gaps, strict=True)}
    if spent.once:
        cells.add((Kind.FIRSTS, each[0], gaps[1] if len(each) > 1 else LONGEST_DAYS, ""))
    return cells
