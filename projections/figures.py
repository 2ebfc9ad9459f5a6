"""What profiles and events add to the figures of the overview (decision 0018). Pure.

The cells of a profile are a function of its state, so what a decision changes is the cells after it less those before.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from projections import state as st
from projections.orders import Order, Refund, changed_orders, counted, order_slots, orders_of
from projections.state import LocalDays, State
from schemas.figures import BUCKET_US, LONGEST_DAYS, Cells, Counted, Key, Kind, add

_ORDER, _REFUND = 0, 1


def same_orders(before: State, after: State) -> bool:
    """Whether the slots that orders are read from are equal."""
    return before[st.ORDERS : st.CANCELS + 1] == after[st.ORDERS : st.CANCELS + 1]


def add_profile(cells: Cells, row: Counted, days: LocalDays, sign: int = 1, state: State | None = None) -> None:
    """The cells of a profile, or with `sign` -1 what takes them away. `state`: of the row, where it is unpacked."""
    if state is None:
        state = order_slots(row.state)
    if row.first_us is not None:
        add(cells, (Kind.CUSTOMERS, row.first_us // BUCKET_US, 0, ""), sign)
    add(cells, (Kind.STAGE, 0, 0, f"{row.lifecycle}/{row.risk}"), sign)
    add(cells, (Kind.RISK, 0, 0, row.risk), sign)
    if state[st.ORDERS] == st.OVERFLOW:
        add(cells, (Kind.UNKNOWN, 0, 0, ""), sign)
    elif state[st.ORDERS] or state[st.REFUNDS]:
        _amounts(cells, *orders_of(state), sign, row.risk)
        for key in _buyer(state, days):
            add(cells, key, sign)


def add_change(cells: Cells, old: Counted, new: Counted, before: State, after: State, days: LocalDays) -> None:
    """What takes the cells of a profile from one row to the next; `before` and `after` are their unpacked states.

    What stays costs little: a customer may have thousands of orders.
    """
    overflowed = st.OVERFLOW in (before[st.ORDERS], after[st.ORDERS])
    if overflowed or old.risk != new.risk:  # all their amounts move to another level
        add_profile(cells, old, days, -1, before)
        add_profile(cells, new, days, 1, after)
        return
    if old.first_us != new.first_us:
        for row, sign in ((old, -1), (new, 1)):
            if row.first_us is not None:
                add(cells, (Kind.CUSTOMERS, row.first_us // BUCKET_US, 0, ""), sign)
    if old.lifecycle != new.lifecycle:
        for row, sign in ((old, -1), (new, 1)):
            add(cells, (Kind.STAGE, 0, 0, f"{row.lifecycle}/{row.risk}"), sign)
    if not same_orders(before, after):
        for made, sign in zip(changed_orders(before, after), (-1, 1), strict=True):
            _amounts(cells, *made, sign, new.risk)
        was, now = _buyer(before, days), _buyer(after, days)
        for key in was ^ now:
            add(cells, key, 1 if key in now else -1)


def add_nobody(cells: Cells, packed: bytes, sign: int = 1) -> None:
    """The orders of a signature that is nobody's: they count, and no customer does."""
    _amounts(cells, *orders_of(order_slots(packed)), sign, None)


def add_events(cells: Cells, events: Iterable[tuple[str, int]], days: LocalDays, sign: int = 1) -> None:
    """Applied events as (type, occurred_us)."""
    for (type_, bucket), n in Counter([(type_, us // BUCKET_US) for type_, us in events]).items():
        add(cells, (Kind.EVENT, bucket, 0, ""), sign * n)
        add(cells, (Kind.FAMILY, days.day(bucket * BUCKET_US), 0, type_.partition(".")[0]), sign * n)


def _amounts(cells: Cells, orders: Iterable[Order], refunds: Iterable[Refund], sign: int, risk: str | None) -> None:
    """Orders at their stamp, net of their refunds, and refunds of no order at their own. `risk`: of whose they are."""
    total = lacking = 0
    stamps: dict[str | None, int] = {}
    for order in orders:
        bucket = order.occurred_us // BUCKET_US
        stamps[order.order_id] = order.occurred_us
        net = (order.base_revenue or 0) - (order.base_refunded or 0)
        total += net
        add(cells, (Kind.ORDERS, bucket, 0, ""), sign, sign * net)
        if order.missing_rate:
            lacking += order.missing_rate
            if order.revenue is not None and order.base_revenue is None:
                add(cells, (Kind.UNRATED, bucket, _ORDER, order.currency), sign, sign * order.revenue)
    for refund in refunds:
        at_us = stamps[refund.order_id] if refund.of_order else refund.occurred_us
        if refund.lacks_rate:
            lacking += not refund.of_order
            add(cells, (Kind.UNRATED, at_us // BUCKET_US, _REFUND, refund.currency), sign, sign * (refund.amount or 0))
        elif not refund.of_order and refund.base_amount is not None:
            total -= refund.base_amount
            add(cells, (Kind.ORDERS, at_us // BUCKET_US, 0, ""), 0, -sign * refund.base_amount)
    if risk is not None:
        add(cells, (Kind.RISK, 0, 0, risk), 0, sign * total)
        add(cells, (Kind.RISK, 0, 1, risk), sign * lacking)


def _buyer(state: State, days: LocalDays) -> set[Key]:
    """The cells of the days a customer ordered on, by the days since the one before.

    Whoever orders inside a period of days counts there once: on the day whose gap reaches back before its beginning.
    Gaps end at LONGEST_DAYS, which also stands for none: no period is longer.
    """
    known, day = days.cache.get, days.day
    stamps = [entry[st.O_US] for entry in counted(state)[0]]
    every = sorted([known(us // BUCKET_US) or day(us) for us in stamps])
    if not every:
        return set()
    each = sorted(set(every))
    gaps = [LONGEST_DAYS, *(min(later - earlier, LONGEST_DAYS) for earlier, later in pairwise(each))]
    cells = {(Kind.BUYERS, at, gap, "") for at, gap in zip(each, gaps, strict=True)}
    if len(every) == 1 or every[1] != every[0]:
        cells.add((Kind.FIRSTS, every[0], gaps[1] if len(each) > 1 else LONGEST_DAYS, ""))
    return cells
