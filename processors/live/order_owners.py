"""Decides inside DECIDE whose order sets are (decision 0037): what follows an order, and who gains or loses by it.

The rule is in `projections.orders.owners`; this module only reads the rows it needs and stores the changes.
"""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from projections.orders.owners import Holder, owner_of
from schemas.store import DecideTx


@dataclass
class OrderMoves:
    """`moved`: the order sets whose owner changed; `owners`: of those of them that have one now.

    `gained`, `lost`: the profiles they came to and went from.
    """

    owners: dict[bytes, bytes] = field(default_factory=dict)
    moved: set[bytes] = field(default_factory=set)
    gained: set[bytes] = field(default_factory=set)
    lost: set[bytes] = field(default_factory=set)


def follow_orders(tx: DecideTx, order_keys: Collection[bytes], moved: AbstractSet[bytes]) -> OrderMoves:
    """Decide the order sets of these orders, and those that identifier sets with another owner bear on.

    After identity, before the locks on profiles; the order sets stay locked until commit.
    """
    found = OrderMoves()
    if order_keys and not moved:
        tx.share_identity()  # an erasure waits, instead of us for its profiles while it waits for our order sets
    rows = tx.lock_order_sets(order_keys, moved) if order_keys or moved else []
    if not rows:
        return found
    holders: dict[bytes, list[Holder]] = {}
    for key, source, owner in tx.holders({row.order_key for row in rows}):
        holders.setdefault(key, []).append(Holder(source, owner))
    changed: list[tuple[bytes, bytes | None, bool]] = []
    nobodys: set[bytes] = set()
    for row in rows:
        owner, matched = owner_of(row.sender_id, row.source, holders.get(row.order_key, ()))
        if (owner, matched) == (row.profile_id, row.matched):
            continue
        changed.append((row.order_set, owner, matched))
        if row.from_nobody:
            nobodys.add(row.sender)  # what of it no profile has counts as nobody's
        if owner != row.profile_id:
            found.moved.add(row.order_set)
            if owner is not None:
                found.owners[row.order_set] = owner
                found.gained.add(owner)
            if row.profile_id is not None:
                found.lost.add(row.profile_id)
    tx.save_order_owners(changed)
    tx.add_nobody(nobodys)
    return found
