"""Orders over the cap as a tree: leaves hold them by a hash of the order id, inner nodes the summary of their children.

An event touches one leaf and the nodes above it, however long the history. Everything about one order id (its base,
refunds and cancellation) is in the same leaf, so a leaf alone knows what its orders add up to. Pure.
"""

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from projections.fold import state as st
from projections.orders.entries import join_orders
from projections.orders.summary import BASES, REFUNDS, Maps, OrderSummaries, Summary
from projections.slots.keyed import Join

FANOUT: Final = 16
LEAVES: Final = FANOUT**3  # 24 orders per leaf at 100,000 orders: 2 KB rewritten per order
ROOT: Final = 0  # the children of node n are 16 n + 1 to 16 n + 16
FIRST_LEAF: Final = 1 + FANOUT + FANOUT**2


class Node(NamedTuple):
    """A stored node. `maps`: what a leaf holds; None for inner nodes."""

    summary: Summary
    maps: Maps | None


def split(maps: Maps) -> dict[int, Maps]:
    """The entries by the node number of their leaf; each list stays sorted."""
    leaves: dict[int, Maps] = {}
    known: dict[str, int] = {}
    for i, entries in enumerate(maps):
        for entry in entries:
            key = entry[st.R_ID] or entry[st.R_KEY].hex() if i == REFUNDS else entry[0]
            leaf = known.get(key)
            if leaf is None:
                leaf = known[key] = _leaf(key)
            held = leaves.get(leaf)
            if held is None:
                held = leaves[leaf] = [[] for _ in maps]
            held[i].append(entry)
    return leaves


def _leaf(key: str) -> int:
    return FIRST_LEAF + int.from_bytes(blake2b(key.encode(), digest_size=2).digest(), "big") % LEAVES


def joined(many: Iterable[Maps], kinds: int) -> Maps:
    """All entries of several maps together; `kinds`: how many lists each has."""
    merged: list[dict[Any, list[Any]]] = [{} for _ in range(kinds)]
    joins: list[Join] = [join_orders if part == BASES else max for part in range(kinds)]
    for maps in many:
        for entries, known, join in zip(maps, merged, joins, strict=True):
            for entry in entries:
                mine = known.get(entry[0])
                known[entry[0]] = entry if mine is None else join(mine, entry)
    return [sorted(entries.values()) for entries in merged]


def parent(node: int) -> int:
    return (node - 1) // FANOUT


def needed(leaves: Collection[int]) -> set[int]:
    """The nodes to read before `grown`: the leaves themselves, and the children of every node above them."""
    above: set[int] = set(leaves)
    found: set[int] = set()
    while above:
        above = {parent(node) for node in above if node != ROOT}
        for node in above:
            found.update(range(FANOUT * node + 1, FANOUT * node + FANOUT + 1))
    return found | {ROOT}


def grown(
    summaries: OrderSummaries, stored: Mapping[int, Node], added: Mapping[int, Maps], today: int
) -> dict[int, Node]:
    """The nodes that change when entries are added to these leaves, including the root; {} if all were there already.

    `stored`: the `needed` nodes that exist. `added`: from `split`.
    """
    nodes = dict(stored)
    changed: dict[int, Node] = {}
    for leaf, maps in added.items():
        old = stored.get(leaf)
        assert old is None or old.maps is not None, "a leaf is read with its entries"
        merged = maps if old is None or old.maps is None else joined((old.maps, maps), len(maps))
        if old is None or merged != old.maps:
            nodes[leaf] = changed[leaf] = Node(summaries.of(merged, today), merged)
    above = {parent(leaf) for leaf in changed}
    while above:
        for node in above:
            children = range(FANOUT * node + 1, FANOUT * node + FANOUT + 1)
            summary = summaries.merge((nodes[each].summary for each in children if each in nodes), today)
            nodes[node] = changed[node] = Node(summary, None)
        above = {parent(node) for node in above if node != ROOT}
    return changed
