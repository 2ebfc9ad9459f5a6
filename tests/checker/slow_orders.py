"""Orders, customers' totals and the overview's figures, by plain loops over the log: slow, but obviously right.

Written only from the contracts; imports nothing from the product. Amounts are Decimals with 4 places.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tests.checker.order_life import Said, four, settle
from tests.checker.reference import Event, revenue

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  # the checker spells it its own way
ZERO = Decimal("0.0000")


class Money(NamedTuple):
    """The rules of a deployment: base currency, dated rates by currency (ISO day, rate), ranks of sources, zone."""

    base: str
    rates: Mapping[str, Sequence[tuple[str, Decimal]]]
    ranks: Mapping[str, int]
    zone: ZoneInfo

    def in_base(self, amount: Decimal, currency: str, at_us: int) -> Decimal | None:
        if currency == self.base:
            return four(amount)
        day = local(at_us, self.zone).isoformat()
        known = [rate for since, rate in sorted(self.rates.get(currency, ())) if since <= day]
        return four(amount * known[-1]) if known else None


class Amount(NamedTuple):
    """The amount of an order or refund; `order` is the order's id."""

    customer: str
    owned: bool  # belongs to a profile
    order: str | None
    event: str
    source: str
    at_us: int
    own: Decimal | None
    currency: str
    base: Decimal | None

    @property
    def lacks_rate(self) -> bool:
        return self.own is not None and self.base is None


def local(at_us: int, zone: ZoneInfo) -> date:
    return (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone).date()


def _said(event: Event, money: Money) -> Said:
    props = event.raw.get("properties", {})
    own = revenue(props)
    currency = (props.get("currency") or "").strip().upper() or None
    rank = money.ranks.get(event.raw["source"], 0)
    order, refund = (str(props[name]) if props.get(name) else None for name in ("order_id", "refund_id"))
    own = None if own is None else four(own)
    lines = bool(props.get("products"))
    place = (event.occurred_us, event.received_us, event.n)
    return Said(event.raw["type"], event.key, order, refund, *place, rank, own, currency, lines)


def orders_and_refunds(
    events: Iterable[Event], owner: Callable[[Event], str | None], money: Money
) -> tuple[list[Amount], list[Amount]]:
    """The orders and refunds that count, per customer, or per identifier set that belongs to nobody."""
    customers: dict[tuple[str, bool], list[Event]] = {}
    for event in events:
        profile = owner(event)
        customers.setdefault((profile or event.signature, profile is not None), []).append(event)
    orders: list[Amount] = []
    refunds: list[Amount] = []
    for (customer, owned), theirs in customers.items():
        by_key = {event.key: event for event in theirs}
        found = settle([_said(event, money) for event in theirs], money.base, money.in_base)
        for counts, into in zip(found, (orders, refunds), strict=True):
            for each in counts:
                event = by_key[each.said.key]
                name = event.raw["id"] if into is orders and each.said.order is None else each.order
                amounts = (each.at_us, each.own, each.currency, each.base)
                into.append(Amount(customer, owned, name, each.said.key, event.raw["source"], *amounts))
    return orders, refunds


def lifetime(orders: Iterable[Amount], refunds: Iterable[Amount]) -> dict[str, Decimal]:
    """Net revenue in the base currency of each customer with a profile; amounts without a rate are left out."""
    totals: dict[str, Decimal] = {}
    for sign, amounts in ((1, orders), (-1, refunds)):
        for each in amounts:
            if each.owned:
                totals.setdefault(each.customer, ZERO)
                totals[each.customer] += sign * (each.base or ZERO)
    return totals


class Figures(NamedTuple):
    """Figures of one window of the overview."""

    orders: int
    revenue: Decimal
    buyers: int
    repeaters: int
    events: int
    unrated: dict[tuple[str, bool], int]  # (currency, whether a refund): count


def figures(
    events: Sequence[Event],
    orders: Sequence[Amount],
    refunds: Sequence[Amount],
    start_us: int,
    end_us: int,
    money: Money,
) -> Figures:
    """An order counts at its own instant, with all its refunds; a refund without an order counts at its own."""
    by_order = {(each.customer, each.order): each for each in orders}
    placed = [(each.at_us, each, False) for each in orders]
    for refund in refunds:
        order = by_order.get((refund.customer, refund.order))
        placed.append((refund.at_us if order is None else order.at_us, refund, True))
    inside = [(each, back) for at, each, back in placed if start_us <= at < end_us]
    total = sum(((-1 if back else 1) * (each.base or ZERO) for each, back in inside), ZERO)
    unrated: dict[tuple[str, bool], int] = {}
    for each, back in inside:
        if each.lacks_rate:
            unrated[each.currency, back] = unrated.get((each.currency, back), 0) + 1
    bought = [each for each, back in inside if not back]
    buyers = _buyers(orders, start_us, end_us, money)
    repeaters = sum(
        sum(each.customer == buyer for each in orders if local(each.at_us, money.zone) <= local(end_us - 1, money.zone))
        > 1
        for buyer in buyers
    )
    seen = sum(start_us <= event.occurred_us < end_us for event in events)
    return Figures(len(bought), total, len(buyers), repeaters, seen, unrated)


def _buyers(orders: Sequence[Amount], start_us: int, end_us: int, money: Money) -> set[str]:
    """Customers with a profile who ordered on a window's days, including all of its last day."""
    first, last = local(start_us, money.zone), local(end_us - 1, money.zone)
    return {each.customer for each in orders if each.owned and first <= local(each.at_us, money.zone) <= last}
