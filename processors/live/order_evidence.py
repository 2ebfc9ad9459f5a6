"""What FOLD keeps of who has which orders, and of what was said about them (decision 0037)."""

from collections.abc import Iterable

from processors.live.applied import Applied
from schemas.store import FoldTx
from schemas.store_rows import HolderRow, OrderSetRow


def held(events: Iterable[Applied]) -> set[HolderRow]:
    """The orders that the senders of these events have by them."""
    return {
        HolderRow(each.of_order.key, each.of_order.source, each.identifier_set)
        for each in events
        if each.of_order is not None and each.of_order.order_set is None and not each.names_nobody
    }


def followed(events: Iterable[Applied]) -> dict[bytes, OrderSetRow]:
    """The order sets of these events."""
    found: dict[bytes, OrderSetRow] = {}
    for each in events:
        if each.of_order is None:
            continue
        key, source, order_set = each.of_order
        if order_set is not None:
            route = each.tokens[0][1] if each.names_nobody else None
            found[order_set] = OrderSetRow(order_set, key, source, each.identifier_set, route)
    return found


def save_orders(tx: FoldTx, chosen: Iterable[Applied], erased: Iterable[Applied] = ()) -> list[bytes]:
    """Store who has which orders, and the order sets; returns the orders of which something new is known.

    Erased people's orders, too: they keep what names such an order from becoming somebody else's.
    """
    named = [each for each in chosen if each.of_order is not None]
    holders = held(named) | held(erased)
    sets = followed(named)
    return tx.save_orders(sorted(holders), [sets[name] for name in sorted(sets)]) if holders or sets else []
