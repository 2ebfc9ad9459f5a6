"""Profiles over the cap: their orders are in a tree next to the profile's row, and an event touches one path of it.

The profile's state holds the root's summary, so deciding, pages and reports read a few KB however long the history is.
A tree only gains entries, and adding one twice changes nothing. If entries may have gone (a split, states folded again
from the log), the tree is rebuilt from the identifier sets' states and what FOLD laid off from them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from projections.fold.fold import Fold
from projections.fold.state import ORDERS, State, pack, unpack
from projections.orders import tree as order_tree
from projections.orders.orders import of_maps
from projections.orders.summary import Maps, Summary
from projections.orders.tree import ROOT, Node
from schemas.store import DecideTx
from schemas.store_rows import LaidOff, NodeRow

FromLog = Callable[[DecideTx, Sequence[bytes]], State]
"""The state of some identifier sets, folded from the log with all their orders."""


class Part(NamedTuple):
    """The state of one identifier set in one partition."""

    identifier_set: bytes
    state: State


class Touched:
    """Order slots with the orders of the leaves that one run touched, before and after."""

    def __init__(self) -> None:
        self._before: list[Maps] = []
        self._after: list[Maps] = []

    def was(self, maps: Iterable[Maps]) -> None:
        self._before += maps

    def became(self, maps: Iterable[Maps]) -> None:
        self._after += maps

    @property
    def before(self) -> State:
        return of_maps(self._before)

    @property
    def after(self) -> State:
        return of_maps(self._after)


@dataclass
class LargeProfiles:
    """The trees of one revision's profiles; the caller holds the locks of the profiles' rows.

    `touched`: by profile, the orders in trees that the run changed.
    """

    fold: Fold
    revision: int
    from_log: FromLog
    touched: dict[bytes, Touched] = field(default_factory=dict)

    def grow(
        self,
        tx: DecideTx,
        profile_id: bytes,
        state: State,
        summary: Summary,
        joined: Collection[bytes],
        today: int,
    ) -> bool:
        """Move entries folded into a state with empty maps to the tree. `summary`: of the stored state.

        `joined`: identifier sets new to the profile; everything laid off from them must go into the tree, because it
        may already hold later rows of others. False if there is no tree.
        """
        maps = self.fold.take_maps(state)
        if joined:
            maps = self._joined([maps], tx.laid_off(self.revision, [], {}, joined))
        if any(maps):
            root = self._add(tx, profile_id, maps, None, today)
            if root is None:
                return False
            summary = root
        self._show(state, summary, today)
        return True

    def sum_up(
        self,
        tx: DecideTx,
        profile_id: bytes,
        state: State,
        parts: Sequence[Part],
        queued: Collection[bytes] | None,
        joined: Collection[bytes],
        today: int,
    ) -> None:
        """Put the summary of a profile's orders into its merged state.

        `queued`: identifier sets whose states may hold entries the tree lacks; None: the tree may hold too much.
        `joined`: identifier sets new to the profile.
        """
        root = None if queued is None else self._caught_up(tx, profile_id, parts, queued, joined, today)
        self._show(state, self._rebuilt(tx, profile_id, parts, today) if root is None else root, today)

    def end(self, tx: DecideTx, profile_id: bytes) -> None:
        """Note that the profile has no tree any more."""
        self._touched(profile_id).was(self._leaves(tx, profile_id))
        tx.delete_order_nodes(self.revision, [profile_id])

    def _touched(self, profile_id: bytes) -> Touched:
        return self.touched.setdefault(profile_id, Touched())

    def _leaves(self, tx: DecideTx, profile_id: bytes) -> list[Maps]:
        leaves = range(order_tree.FIRST_LEAF, order_tree.FIRST_LEAF + order_tree.LEAVES)
        rows = tx.order_nodes(self.revision, profile_id, leaves, leaves)
        return [unpack(row.maps) for row in rows if row.maps is not None]

    def _show(self, state: State, summary: Summary, today: int) -> None:
        self.fold.sum_up(state, self.fold.summaries.merge([summary], today))

    def _caught_up(
        self,
        tx: DecideTx,
        profile_id: bytes,
        parts: Sequence[Part],
        queued: Collection[bytes],
        joined: Collection[bytes],
        today: int,
    ) -> Summary | None:
        """The root after adding what identifier sets hold and what was laid off since; None if there is no tree."""
        rows = {row.node: row for row in tx.order_nodes(self.revision, profile_id, [ROOT], [])}
        if ROOT not in rows:
            return None
        seen = _seen(rows[ROOT])
        mine = {part.identifier_set for part in parts}
        laid = tx.laid_off(self.revision, mine.difference(joined), seen, mine.intersection(joined))
        own = [
            self.fold.maps(part.state)
            for part in parts
            if part.identifier_set in queued or part.identifier_set in joined
        ]
        maps = self._joined(own, laid)
        return self._add(tx, profile_id, maps, _last(laid, seen), today)

    def _rebuilt(self, tx: DecideTx, profile_id: bytes, parts: Sequence[Part], today: int) -> Summary:
        fold = self.fold
        identifier_sets = {part.identifier_set for part in parts}
        laid = tx.laid_off(self.revision, [], {}, identifier_sets)
        own = [fold.maps(part.state) for part in parts]
        waiting = tx.awaiting_refold(self.revision, identifier_sets)
        if waiting:  # for example states of a build that laid nothing off
            own.append(fold.maps(self.from_log(tx, sorted(waiting))))
        maps = self._joined(own, laid)
        touched = self._touched(profile_id)
        touched.was(self._leaves(tx, profile_id))
        touched.became([maps])
        nodes = order_tree.grown(fold.summaries, {}, order_tree.split(maps), today)
        root = nodes.get(ROOT) or Node(fold.summaries.merge([], today), None)
        tx.delete_order_nodes(self.revision, [profile_id])
        self._save(tx, profile_id, nodes | {ROOT: root}, _last(laid, {}))
        return root.summary

    def _joined(self, own: Iterable[Maps], laid: Iterable[LaidOff]) -> Maps:
        kinds = len(self.fold.maps(self.fold.new_state()))
        return order_tree.joined([*own, *(unpack(row.maps) for row in laid)], kinds)

    def _add(
        self, tx: DecideTx, profile_id: bytes, maps: Maps, seen: Mapping[int, int] | None, today: int
    ) -> Summary | None:
        """Add entries to a tree; returns the root's summary, None without a tree. `seen`: None leaves it unchanged."""
        added = order_tree.split(maps)
        wanted = order_tree.needed(added)
        rows = {row.node: row for row in tx.order_nodes(self.revision, profile_id, wanted, added)}
        if ROOT not in rows:
            return None
        stored = {node: _node(row, node in added) for node, row in rows.items()}
        nodes = order_tree.grown(self.fold.summaries, stored, added, today)
        touched = self._touched(profile_id)
        for leaf in added:
            if leaf in nodes:
                held = stored.get(leaf)
                touched.was([] if held is None or held.maps is None else [held.maps])
                touched.became([nodes[leaf].maps or []])
        known = _seen(rows[ROOT])
        if seen is not None and seen != known:
            nodes.setdefault(ROOT, stored[ROOT])
        self._save(tx, profile_id, nodes, known if seen is None else seen)
        return (nodes.get(ROOT) or stored[ROOT]).summary

    def _save(self, tx: DecideTx, profile_id: bytes, nodes: Mapping[int, Node], seen: Mapping[int, int]) -> None:
        rows = [
            NodeRow(number, pack(node.summary), None if node.maps is None else pack(node.maps))
            for number, node in sorted(nodes.items())
        ]
        if rows and rows[0].node == ROOT:
            rows[0] = rows[0]._replace(maps=msgspec.msgpack.encode(dict(seen)))
        tx.save_order_nodes(self.revision, profile_id, rows)


def summary_of(state: State) -> Any:
    """The summary in a state that has one."""
    return state[ORDERS]


def _node(row: NodeRow, leaf: bool) -> Node:
    return Node(unpack(row.summary), unpack(row.maps) if leaf and row.maps is not None else None)


def _seen(root: NodeRow) -> dict[int, int]:
    """Partition -> the last id laid off that is in the tree."""
    return {} if root.maps is None else msgspec.msgpack.decode(root.maps, type=dict[int, int])


def _last(laid: Iterable[LaidOff], seen: Mapping[int, int]) -> dict[int, int]:
    last = dict(seen)
    for row in laid:
        last[row.partition] = max(row.id, last.get(row.partition, 0))
    return last
