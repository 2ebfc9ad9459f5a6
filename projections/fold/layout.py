"""From definitions to layout: which slot, order bit or extra value serves which computed trait. The fold and the
evaluator share it, so that they cannot disagree about a position. Pure.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from projections.aggregates.base import Aggregate
from projections.aggregates.registry import aggregate_of
from projections.fold.state import BASE_SLOTS
from projections.orders.counting import Pins
from projections.slots.base import SlotNeed
from projections.slots.keyed import Keyed
from schemas.clear_rules import NOTHING_DECLARED, Declared, clear_rules, declared_of
from schemas.conditions import All, PropertyLeaf, used_properties
from schemas.definitions import ANY_EVENT, ComputedTrait, Definitions, plain
from schemas.paths import CONTEXT, FLAGS, path_of
from schemas.sales import AMOUNTS, LINES, ORDER_IDS, REFUND_IDS
from schemas.touchpoints import BASE_TYPES, CANCEL_TYPES, REFUND_TYPES

DIRECT_OF: Final = ("revenue", "occurred_at")  # every event has these; they are not read from a property of that name


@dataclass(frozen=True, slots=True)
class Stream:
    """The events a trait looks at: their names, and a condition on each (canonical JSON; "" for none)."""

    events: tuple[str, ...]
    where: str


@dataclass(slots=True)
class SlotPlace:
    """A slot after the base slots. `window_days`: the longest window that reads it; 0 for a lifetime."""

    index: int
    need: SlotNeed
    stream: Stream
    window_days: int = 0

    @property
    def properties(self) -> set[str]:
        """The properties whose values the slot keeps."""
        return {name for name in (self.need.of, self.need.key) if name}


@dataclass(frozen=True, slots=True)
class TraitPlace:
    """Where a computed trait is: its slots, or a bit of the order map."""

    name: str
    spec: ComputedTrait
    stream: Stream
    pinned: bool
    slots: tuple[int, ...]
    bit: int | None

    @property
    def aggregate(self) -> Aggregate:
        return aggregate_of(self.spec)


@dataclass(slots=True)
class Layout:
    """The layout of states under some definitions."""

    definitions: Definitions
    slots: list[SlotPlace] = field(default_factory=list)
    order_streams: list[Stream] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)  # properties kept with each order's base
    traits: dict[str, TraitPlace] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)  # canonical JSON → tree
    declared: Declared = NOTHING_DECLARED

    def keyed(self) -> list[SlotPlace]:
        """The slots that are lists by key."""
        return [slot for slot in self.slots if isinstance(slot.need.kind, Keyed)]

    def event_names(self) -> list[str]:
        """Every event name that a stream or rule names, except "*"."""
        named = {name for slot in self.slots for name in slot.stream.events}
        named.update(BASE_TYPES, REFUND_TYPES, CANCEL_TYPES)
        named.update(event for event, own in self.declared.properties.items() if True in own.values())
        return sorted(named - {ANY_EVENT})

    def closed(self, name: str) -> frozenset[str]:
        """Properties of an event that are declared personal: no state keeps their values."""
        return clear_rules(self.declared, name, name).sealed

    def pins(self) -> Pins | None:
        """The bits of traits over one currency; None if there are none."""
        pinned: dict[int, str] = {}
        for trait in self.traits.values():
            currency = pinned_currency(trait.spec.where) if trait.bit is not None else None
            if currency is not None and trait.bit is not None:
                pinned[trait.bit] = currency
        return Pins(pinned) if pinned else None

    def is_closed(self, prop: str, name: str) -> bool:
        """Whether a property, or what a path leads through, is declared or known to be personal."""
        closed, path = self.closed(name), path_of(prop)
        if path is None:
            return prop in closed
        return not closed.isdisjoint((prop, path.root, *path.steps))

    def properties(self) -> list[str]:
        """Every property a fold reads."""
        used = {*ORDER_IDS, *REFUND_IDS, *AMOUNTS, *LINES, "currency"} | self._named()
        used |= {path.root for name in used if (path := path_of(name)) is not None and path.section != CONTEXT}
        return sorted(used - {"occurred_at", FLAGS})

    def reads_context(self) -> bool:
        """Whether a definition looks into the context."""
        return any(path is not None and path.section == CONTEXT for path in map(path_of, self._named()))

    def _named(self) -> set[str]:
        """The properties and paths that definitions name."""
        used = set(self.extras)
        for tree in self.where.values():
            used |= used_properties(tree)
        for slot in self.slots:
            used |= slot.properties
        return used


def pinned_leaf(where: Any) -> PropertyLeaf | None:
    """The condition by which a `where` admits one currency alone."""
    for leaf in where.all if isinstance(where, All) else (where,):
        if isinstance(leaf, PropertyLeaf) and leaf.property == "currency" and leaf.op == "eq":
            return leaf
    return None


def pinned_currency(where: Any) -> str | None:
    """The only currency that a `where` admits: such traits are summed in it instead of the base currency."""
    leaf = pinned_leaf(where)
    return None if leaf is None else str(leaf.value).upper()


def make_layout(definitions: Definitions) -> Layout:
    """The layout; the same for equal definitions, whatever order they are written in."""
    layout = Layout(definitions, declared=declared_of(plain(definitions)))
    known: dict[tuple[object, ...], SlotPlace] = {}
    for name in sorted(definitions.computed_traits):
        spec = definitions.computed_traits[name]
        where = "" if spec.where is None else json.dumps(plain(spec.where), sort_keys=True)
        if where:
            layout.where[where] = spec.where
        stream = Stream(spec.all_events, where)
        slots: tuple[int, ...] = ()
        bit = None
        if spec.by_order:
            bit = _order_bit(layout, spec, stream)
        else:
            needs = aggregate_of(spec).slots(spec)
            slots = tuple(_slot(layout, known, need, stream, spec.window_days).index for need in needs)
        layout.traits[name] = TraitPlace(name, spec, stream, pinned_currency(spec.where) is not None, slots, bit)
    return layout


def _order_bit(layout: Layout, spec: ComputedTrait, stream: Stream) -> int:
    if spec.of is not None and spec.of not in DIRECT_OF and spec.of not in layout.extras:
        layout.extras.append(spec.of)
    if stream not in layout.order_streams:
        layout.order_streams.append(stream)
    return layout.order_streams.index(stream)


def _slot(
    layout: Layout, known: dict[tuple[object, ...], SlotPlace], need: SlotNeed, stream: Stream, days: int | None
) -> SlotPlace:
    """A slot, shared by all traits that fold the same values."""
    same = (need, stream, days is None)
    slot = known.get(same)
    if slot is None:
        slot = known[same] = SlotPlace(BASE_SLOTS + len(layout.slots), need, stream)
        layout.slots.append(slot)
    slot.window_days = max(slot.window_days, days or 0)
    return slot
