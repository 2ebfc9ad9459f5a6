"""What one customer's order events come to, by the words of the contract: slow, plain loops, nothing of the product.

An order has one life. It was bought if a sale says so; its instant is that of the earliest sale, its worth what the
highest (source rank, stamp) of sales and updates says. A sale below zero is money given back. A sale of nothing
without lines is no sale. It is cancelled if the newest of cancels and sales is a cancel. Money given back for an order
is at most what is left of it.
"""

from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

SALES = ("purchase.completed", "pos.purchase")
UPDATES = ("purchase.updated",)
REFUNDS = ("purchase.refunded", "pos.return")
CANCELS = ("purchase.cancelled",)
InBase = Callable[[Decimal, str, int], Decimal | None]


class Said(NamedTuple):
    """What an event says. `own` below zero only of a sale; None: it states no amount."""

    type: str
    key: str
    order: str | None
    refund: str | None
    at_us: int
    received_us: int
    n: int
    rank: int
    own: Decimal | None
    currency: str | None
    lines: bool

    @property
    def stamp(self) -> tuple[int, int, int, str]:
        return self.at_us, self.received_us, self.n, self.key


class Counts(NamedTuple):
    """An order or refund that counts: the event it is from, its instant and its amounts."""

    said: Said
    order: str | None
    at_us: int
    own: Decimal | None
    currency: str
    base: Decimal | None


def four(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.0001"), ROUND_HALF_EVEN)


def settle(events: Iterable[Said], default: str, in_base: InBase) -> tuple[list[Counts], list[Counts]]:
    """The orders and the refunds of one customer."""
    said = [each for each in events if each.type in (*SALES, *UPDATES, *REFUNDS, *CANCELS)]
    names = {each.order or each.key for each in said}
    orders: list[Counts] = []
    refunds: list[Counts] = []
    for name in sorted(names):
        mine = [each for each in said if (each.order or each.key) == name]
        bought = [each for each in mine if each.type in SALES and _is_sale(each)]
        given_back = _once([each for each in mine if _is_refund(each)])
        ends = max([each.stamp for each in mine if each.type in CANCELS and each.order], default=None)
        if ends is not None and all(each.stamp < ends for each in bought):
            continue  # cancelled: it counts nowhere, and neither does what was given back
        if not bought:
            refunds += [_alone(each, default, in_base) for each in given_back]
            continue
        order = _order(name, mine, bought, default, in_base)
        orders.append(order)
        refunds += _of_order(order, given_back, default, in_base)
    return orders, refunds


def _is_sale(each: Said) -> bool:
    return each.own is None or each.own > 0 or (each.own == 0 and each.lines)


def _is_refund(each: Said) -> bool:
    return each.type in REFUNDS or (each.type in SALES and each.own is not None and each.own < 0)


def _once(refunds: Iterable[Said]) -> list[Said]:
    """Copies of one refund, by its id, once: the highest of them."""
    best: dict[str, Said] = {}
    for each in refunds:
        name = each.key if each.refund is None else f"id {each.refund}"
        if name not in best or (each.rank, each.stamp) > (best[name].rank, best[name].stamp):
            best[name] = each
    return sorted(best.values(), key=lambda each: each.stamp)


def _order(name: str, mine: Iterable[Said], bought: list[Said], default: str, in_base: InBase) -> Counts:
    updates = [each for each in mine if each.type in UPDATES and each.order and each.own is not None and each.own >= 0]
    known = [each for each in (*bought, *updates) if each.own is not None] or bought
    top = max(known, key=lambda each: (each.rank, each.stamp))
    currency = top.currency or default
    base = None if top.own is None else in_base(top.own, currency, top.at_us)
    return Counts(top, name, min(each.at_us for each in bought), top.own, currency, base)


def _alone(each: Said, default: str, in_base: InBase) -> Counts:
    currency, own = each.currency or default, None if each.own is None else abs(each.own)
    return Counts(
        each, each.order, each.at_us, own, currency, None if own is None else in_base(own, currency, each.at_us)
    )


def _of_order(order: Counts, given_back: Iterable[Said], default: str, in_base: InBase) -> list[Counts]:
    """Each at most the rest, in the order's currency; another currency by the rate of the refund's own day."""
    found: list[Counts] = []
    rest, rest_base = order.own, order.base
    for each in given_back:
        own = None if each.own is None else abs(each.own)
        unknown = own is None and each.lines  # a part of it, whose price nobody says
        if rest is None or order.own is None or unknown:
            found.append(Counts(each, order.order, each.at_us, None, order.currency, None))
            continue
        currency = each.currency or order.currency
        base: Decimal | None = None
        if own is None or currency == order.currency:
            took = rest if own is None else min(own, rest)
            if order.base is not None and rest_base is not None:
                base = rest_base if took == rest else min(four(took * order.base / order.own), rest_base)
        else:
            worth = in_base(own, currency, each.at_us)
            if worth is None or order.base is None or rest_base is None:
                found.append(Counts(each, order.order, each.at_us, own, currency, None))
                continue
            base = min(worth, rest_base)
            took = rest if base == rest_base else min(four(base * order.own / order.base), rest)
        rest -= took
        rest_base = None if rest_base is None or base is None else rest_base - base
        found.append(Counts(each, order.order, each.at_us, took, order.currency, base))
    return found
