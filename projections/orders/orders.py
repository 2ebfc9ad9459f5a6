"""What an order adds up to, in one place: which orders and refunds of a state count, and their amounts (decision 0035).

Traits, the SQL tables `orders` and `refunds`, and the overview's figures all read states through this module. States
keep what events said (`fold.order_code`); `orders.counting` says what it comes to. Pure.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from projections.fold import state as st
from projections.fold.state import State
from projections.orders.counting import BITS, ID, UNREAD, Pins, count
from projections.orders.summary import FORM
from projections.slots.keyed import OVERFLOW
from schemas.stamps import key_of

Entries = list[list[Any]]


class Order(NamedTuple):
    """An order. Amounts are scaled (10^4); None is unknown, never 0."""

    order_id: str  # or the id of its event, if that states none
    event: bytes  # key of the event which the amounts are from
    occurred_us: int  # of the earliest completion
    revenue: int | None  # in `currency`
    currency: str
    base_revenue: int | None  # in the deployment's currency; None without an amount or a rate
    refunded: int  # in `currency`, never more than `revenue`
    base_refunded: int | None  # None if there are refunds but none has a rate
    missing_rate: int  # how many of its amounts (its own and its refunds') have no rate
    unreadable_amounts: int  # and how many could not be read


class Refund(NamedTuple):
    """A refund that counts: of an order in its currency, and at most what was left of it."""

    event: bytes
    order_id: str | None
    occurred_us: int
    amount: int | None  # in `currency`
    currency: str
    base_amount: int | None
    of_order: bool  # its order is among the orders; otherwise the refund counts by itself
    unreadable: bool  # it has an amount that could not be read

    @property
    def lacks_rate(self) -> bool:
        return self.amount is not None and self.base_amount is None


def summed_up(state: State) -> bool:
    """Whether a profile's state holds a summary in place of its orders, which are then in a tree beside it."""
    return bool(state[st.REFUNDS] == OVERFLOW and state[st.ORDERS] != OVERFLOW)


def whole(state: State, leaves: Iterable[bytes]) -> State:
    """The order slots with all orders: those in a state itself, or in the packed leaves of a profile's tree."""
    return of_maps([st.unpack(leaf) for leaf in leaves]) if summed_up(state) else state


def of_maps(many: Sequence[Sequence[Entries]]) -> State:
    """Order slots with the entries of a tree's leaves or maps (`orders.tree`), which have no entries in common."""
    bases, refunds, cancels = ([entry for maps in many for entry in maps[part]] for part in range(3))
    return [0, None, None, [], bases, refunds, cancels]


def counted(state: State, pins: Pins | None = None) -> tuple[list[Any], list[Any]]:
    """The orders and refunds of a state that count (`orders.counting`). Not for an OVERFLOW."""
    if not state[st.REFUNDS] and not state[st.ORDERS]:
        return [], []
    return count(state[st.ORDERS], state[st.REFUNDS], state[st.CANCELS], pins)


def orders_of(state: State) -> tuple[list[Order], list[Refund]]:
    """The orders and refunds that count, orders sorted by their id. Not for an OVERFLOW.

    The sum of `base_revenue` minus the sum of all refunds' `base_amount`, skipping None, equals a lifetime sum of
    revenue over order events.
    """
    return _made(*counted(state))


def changed_orders(before: State, after: State) -> tuple[tuple[list[Order], list[Refund]], ...]:
    """The orders and refunds in each of two states of one customer, leaving out those that are the same in both."""
    states = [[{entry[0]: entry for entry in state[part]} for part in _PARTS] for state in (before, after)]
    orders, refunds, cancels = (_differing(was, now) for was, now in zip(*states, strict=True))
    ids = orders | cancels | {of[1][key][st.R_ID] for of in states for key in refunds if key in of[1]}
    return tuple(
        _made(
            *count(
                [entry for key, entry in of[0].items() if key in ids],
                [
                    entry
                    for key, entry in of[1].items()
                    if entry[st.R_ID] in ids and (entry[st.R_ID] is not None or key in refunds)
                ],
                [entry for key, entry in of[2].items() if key in ids],
            )
        )
        for of in states
    )


_PARTS: Final = (st.ORDERS, st.REFUNDS, st.CANCELS)


def _differing(was: dict[Any, list[Any]], now: dict[Any, list[Any]]) -> set[Any]:
    if was == now:
        return set()
    return {key for key, entry in now.items() if was.get(key) != entry} | (was.keys() - now.keys())


def _made(bases: Sequence[Any], entries: Sequence[Any]) -> tuple[list[Order], list[Refund]]:
    refunds = [_refund(entry) for entry in entries]
    of_order: dict[str | None, list[Refund]] = {}
    for refund in refunds:
        if refund.of_order:
            of_order.setdefault(refund.order_id, []).append(refund)
    return [_order(entry, of_order.get(entry[ID], ())) for entry in bases], refunds


def _refund(entry: Sequence[Any]) -> Refund:
    order_id, key, us, own, currency, base, _, unread, of_order = entry
    return Refund(key_of(key), order_id, us, own, currency, base, of_order, bool(unread))


def _order(entry: Sequence[Any], refunds: "list[Refund] | tuple[()]") -> Order:
    order_id, key, us, own, currency, base = entry[:BITS]
    missing, unread = int(own is not None and base is None), int(entry[UNREAD])
    if not refunds:
        return Order(order_id, key_of(key), us, own, currency, base, 0, 0, missing, unread)
    known = [refund.base_amount for refund in refunds if refund.base_amount is not None]
    lacking = sum(refund.lacks_rate for refund in refunds)
    return Order(
        *(order_id, key_of(key), us, own, currency, base),
        sum(refund.amount or 0 for refund in refunds if refund.currency == currency),
        sum(known) if known or not lacking else None,
        *(missing + lacking, unread + sum(refund.unreadable for refund in refunds)),
    )


class _Head(msgspec.Struct, array_like=True):
    """The base slots of a state; the others are skipped, and those not needed here are not decoded."""

    count: msgspec.Raw
    first: msgspec.Raw
    last: msgspec.Raw
    traits: msgspec.Raw
    orders: Any
    refunds: Any
    cancels: Any


_DECODE: Final = msgspec.msgpack.Decoder(_Head, ext_hook=st.read_big).decode


def order_slots(packed: bytes) -> State:
    """The base slots of a packed state with only the orders: a fifth of the cost of unpacking all of it.

    Also OVERFLOW if an older version made the summary and it lacks what is needed here: it will soon be made again.
    """
    head = _DECODE(packed)
    orders, refunds = st.renewed_orders(head.orders, head.refunds)
    if refunds == OVERFLOW and orders != OVERFLOW and orders[0] < FORM:
        orders = OVERFLOW
    return [0, None, None, [], orders, refunds, head.cancels]


def orders_alone(state: State) -> State:
    """The same for an unpacked state, without the extra values that its definitions keep with an order."""
    bases = state[st.ORDERS]
    if bases != OVERFLOW:
        bases = [entry[: st.O_EXTRA] for entry in bases]
    return [0, None, None, [], bases, state[st.REFUNDS], state[st.CANCELS]]
