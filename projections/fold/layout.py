"""From definitions to layout: which slot, order bit or extra value serves which computed trait. Shared by fold and
evaluate, so that the two cannot disagree about a position. Pure.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from projections.fold.state import BASE_SLOTS
from schemas.clear import NOTHING_DECLARED, Declared, clear_rules, declared_of
from schemas.conditions import All, PropertyLeaf, used_properties
from schemas.definitions import ANY_EVENT, BASE_TYPES, CANCEL_TYPES, REFUND_TYPES, ComputedTrait, Definitions, plain

DIRECT_OF: Final = ("revenue", "occurred_at")  # values every event has, not read from the property of that name


@dataclass(frozen=True, slots=True)
class Stream:
    """The events a trait looks at: their names, and a condition on each (canonical JSON, "" for none)."""

    events: tuple[str, ...]
    where: str


@dataclass(slots=True)
class SlotPlan:
    """One slot after the base slots. `window_days`: the longest window that reads it, 0 for lifetime."""

    index: int
    kind: str  # a key of state.MONOIDS, or "open"
    stream: Stream
    of: str | None = None
    window_days: int = 0
    key: str | None = None
    opens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TraitPlan:
    """Where a computed trait is: a slot, or a bit of the order map."""

    name: str
    spec: ComputedTrait
    stream: Stream
    pinned: bool
    slot: int | None
    bit: int | None


@dataclass(slots=True)
class Plan:
    """The layout of a state under some definitions."""

    definitions: Definitions
    slots: list[SlotPlan] = field(default_factory=list)
    order_streams: list[Stream] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)  # properties kept with each order's base
    traits: dict[str, TraitPlan] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)  # canonical JSON → tree
    declared: Declared = NOTHING_DECLARED

    def event_names(self) -> list[str]:
        """Every event name some stream or rule names, "*" left out."""
        named = {name for slot in self.slots for name in slot.stream.events}
        named.update(BASE_TYPES, REFUND_TYPES, CANCEL_TYPES)
        named.update(event for event, own in self.declared.properties.items() if True in own.values())
        return sorted(named - {ANY_EVENT})

    def closed(self, name: str) -> frozenset[str]:
        """Properties of an event that are declared personal: no state keeps their values."""
        return clear_rules(self.declared, name, name).sealed

    def properties(self) -> list[str]:
        """Every property a fold reads."""
        used = {"order_id", "revenue", "total", "currency", "products", *self.extras}
        for tree in self.where.values():
            used |= used_properties(tree)
        for slot in self.slots:
            used |= {name for name in (slot.of, slot.key) if name}
        return sorted(used - {"occurred_at"})


def pinned_currency(where: Any) -> str | None:
    """The one currency a `where` admits: such a trait is summed in it, not in the base currency."""
    for leaf in where.all if isinstance(where, All) else (where,):
        if isinstance(leaf, PropertyLeaf) and leaf.property == "currency" and leaf.op == "eq":
            return str(leaf.value).upper()
    return None


def make_plan(definitions: Definitions) -> Plan:
    """The layout; the same for equal definitions, in whatever order they were written."""
    plan = Plan(definitions, declared=declared_of(plain(definitions)))
    slots: dict[tuple[object, ...], SlotPlan] = {}
    for name in sorted(definitions.computed_traits):
        spec = definitions.computed_traits[name]
        where = "" if spec.where is None else json.dumps(plain(spec.where), sort_keys=True)
        if where:
            plan.where[where] = spec.where
        stream = Stream(spec.all_events, where)
        slot = bit = None
        if spec.by_order:
            bit = _order_bit(plan, spec, stream)
        else:
            slot = _slot(plan, slots, spec, stream).index
        plan.traits[name] = TraitPlan(name, spec, stream, pinned_currency(spec.where) is not None, slot, bit)
    return plan


def _order_bit(plan: Plan, spec: ComputedTrait, stream: Stream) -> int:
    if spec.of is not None and spec.of not in DIRECT_OF and spec.of not in plan.extras:
        plan.extras.append(spec.of)
    if stream not in plan.order_streams:
        plan.order_streams.append(stream)
    return plan.order_streams.index(stream)


_KINDS: Final = {
    "sum": "sum", "avg": "sum", "days_since": "max", "gap_days": "top_two", "distinct_days": "days",
    "open_count": "open",
}  # fmt: skip


def _slot(plan: Plan, slots: dict[tuple[object, ...], SlotPlan], spec: ComputedTrait, stream: Stream) -> SlotPlan:
    """The slot of a trait, shared with every trait that folds the same."""
    kind = _KINDS.get(spec.aggregate, spec.aggregate)
    windowed = spec.window_days is not None
    if windowed and kind != "days":
        kind = f"day_{kind}"
    of = "occurred_at" if spec.aggregate == "days_since" else spec.of
    same = (kind, stream, of, windowed, spec.key, spec.opens if kind == "open" else ())
    slot = slots.get(same)
    if slot is None:
        slot = SlotPlan(BASE_SLOTS + len(plan.slots), kind, stream, of, 0, spec.key, spec.opens)
        slots[same] = slot
        plan.slots.append(slot)
    slot.window_days = max(slot.window_days, spec.window_days or 0)
    return slot
