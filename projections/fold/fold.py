"""The fold: definitions compiled to one generated Python function from event to state (design C5).

Live processing, rebuilds and backtests run this same function, so there is no second path that could disagree with it.
Decoding reads only what the definitions need. No I/O, no clock.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial, reduce
from hashlib import sha256
from typing import Any, Final, NamedTuple, cast

import msgspec

from projections.days import LocalDays
from projections.fold import state as st
from projections.fold.code import CORRECTED, IDENTIFIED, source_of
from projections.fold.event import FoldEvent, event_decoder
from projections.fold.handler import matches
from projections.fold.layout import Layout, SlotPlace, make_layout
from projections.fold.order_code import NEGATIVE
from projections.fold.state import State
from projections.orders.entries import join_orders
from projections.orders.orders import summed_up
from projections.orders.parts import Order, Part, named_order
from projections.orders.summary import Maps, OrderSummaries, Summary
from projections.slots.keyed import OVERFLOW, merge_keyed
from schemas.conditions import used_properties
from schemas.control import LAYOUT_VERSION
from schemas.definitions import ANY_EVENT, Definitions, decimal_marks
from schemas.errors import ReaderTooOld, RecordUnreadable
from schemas.paths import sealed_names
from schemas.record import CURRENT, EPOCH, Reader, encode, version_of
from schemas.record import decode as decode_record
from schemas.sales import ORDER_IDS, REFUND_IDS
from schemas.stamps import order_of
from schemas.touchpoints import BASE_TYPES, HOLDING_TYPES, ORDER_TYPES

_US: Final = timedelta(microseconds=1)

Apply = Callable[[FoldEvent, State, Mapping[str, Any] | None], None]


class Fold:
    """A compiled fold. `apply(event, state, opened)` folds one event in; `opened` is its sealed JSON, opened.

    `parts`: the same, and what of it concerns who sent it or the order it names (`orders.parts`).
    `apply` knows no cap: `lift` a stored state before it, and `lay_off` what is over the cap after it.
    """

    apply: Apply

    def __init__(
        self, layout: Layout, time_zone: str, currency: str, order_cap: int | None, reader: Reader = CURRENT
    ) -> None:
        self.layout = layout
        self.reader = reader
        self.time_zone = time_zone
        self.currency = currency
        self.order_cap = order_cap
        self.days = LocalDays(time_zone)
        source = source_of(layout, self.days, currency, order_cap)
        self.source = "\n".join(source.lines)
        space = source.run("fold")
        self.apply = space["apply"]
        self.parts: Mapping[Part, Apply] = {
            Part.WHOLE: space["apply"], Part.OWN: space["apply_own"], Part.ORDER: space["apply_order"],
        }  # fmt: skip
        self.new_state: Callable[[], State] = space["new_state"]
        self._merge_two: Callable[[State, State], State] = space["merge_two"]
        self._drop: Callable[[State, int], None] = space["drop"]
        self._decoder, self._event_type = event_decoder(layout)
        self._needs: dict[str, Needs] = _sealed_needs(layout)
        self._any_needs = self._needs.get(ANY_EVENT, NO_NEEDS)
        self._order_id: Callable[[FoldEvent], str | None] = space["order_id"]
        self._sold: Callable[[FoldEvent], int] = space["sold"]
        self._keyed_slots = tuple(slot.index for slot in layout.keyed())
        self._map_slots = (st.ORDERS, st.REFUNDS, st.CANCELS, *self._keyed_slots)
        self.summaries = OrderSummaries(layout, self.days)
        self.layout_hash = _layout_hash(layout, time_zone, currency)

    def decode(self, value: bytes) -> FoldEvent:
        """Read stored bytes. Raises RecordUnreadable, or ReaderTooOld for a record of a newer version.

        Checks only what the definitions need; `schemas.record.decode` checks whether it is a record at all.
        """
        reader = self.reader
        try:
            event = self._decoder.decode(value)
            if event.v != reader.version and not reader.reads_as_is(event.v):
                event = self._decoder.decode(encode(decode_record(value, reader)))
            event.key = key = bytes.fromhex(event.id.replace("-", ""))
        except (msgspec.MsgspecError, RecursionError, ValueError) as err:
            if version_of(value) > reader.version:
                raise ReaderTooOld(f"touchpoint v{version_of(value)}; this build reads v{reader.version}") from err
            raise RecordUnreadable(f"not a touchpoint record: {type(err).__name__}") from err
        event.occurred_us = (event.occurred_at - EPOCH) // _US
        event.received_us = received_us = (event.received_at - EPOCH) // _US
        event.order = order_of(received_us, event.n, key)
        return cast(FoldEvent, event)

    def named_order(self, event: FoldEvent, identifier_set: bytes) -> Order | None:
        """The order that an order event names in clear, and how; None if it names none or says nothing about it."""
        order_id = self._order_id(event)
        if order_id is None:
            return None
        sold = self._sold(event) if event.type in HOLDING_TYPES else -1
        return named_order(event.source, order_id, identifier_set, follows=sold < 0) if sold else None

    def needs_sealed(self, event: FoldEvent) -> bool:
        """Whether the event's sealed part holds a property or trait that a definition compares or keeps."""
        if event.sealed is None:
            return False
        names = event.sealed.names
        if self._needs.get(event.type, self._any_needs).of(names):
            return True
        return event.type == "custom" and self._needs.get(event.name or "", self._any_needs).of(names)

    pack = staticmethod(st.pack)
    unpack = staticmethod(st.unpack)

    def merge(self, states: Iterable[State]) -> State:
        """The state of all their events together. May share structure with its inputs: fold into neither afterwards."""
        merged: State | None = None
        for state in states:
            merged = state if merged is None else self._merge_two(merged, state)
        return self.new_state() if merged is None else merged

    def merge_whole(self, states: Sequence[State]) -> State:
        """`merge` that keeps maps beyond the cap: `lay_off` them before the state is stored."""
        merged = self.merge(states)
        if self.order_cap is not None and self.overflowed(merged):
            for slot in self._map_slots:
                every = _all_orders if slot == st.ORDERS else _all_entries
                merged[slot] = every([state[slot] for state in states])
        return merged

    def prune(self, state: State, at_us: int) -> State:
        """Drop, in place, day cells that no window reaches at `at_us` or later; only the clock decides."""
        self._drop(state, self.days.day(at_us))
        return state

    def canonical(self, state: State, at_us: int) -> bytes:
        """The bytes to hash: pruned at `at_us`; the given state is left unchanged."""
        return st.pack(self.prune(list(state), at_us))

    # -- over the cap

    def overflowed(self, state: State) -> bool:
        """Whether a map is over its cap, so that its entries are not in the state."""
        if state[st.REFUNDS] == OVERFLOW:
            return True
        return bool(self._keyed_slots) and any(state[index] == OVERFLOW for index in self._keyed_slots)

    def summed_up(self, state: State) -> bool:
        """Whether a profile's state holds a summary of its orders instead of the orders."""
        return summed_up(state)

    def maps(self, state: State) -> Maps:
        """The entries that a state itself holds, in the form a tree takes them (`orders.tree`)."""
        return [[] if state[slot] == OVERFLOW else state[slot] for slot in self._map_slots]

    def lift(self, state: State) -> tuple[int, ...]:
        """Make room, in place, for new entries of the maps that are over the cap; returns the slots of these maps."""
        if not self.overflowed(state):
            return ()
        slots = tuple(slot for slot in self._map_slots if state[slot] == OVERFLOW)
        for slot in slots:
            state[slot] = []
        return slots

    def lay_off(self, state: State, lifted: tuple[int, ...] = ()) -> Maps | None:
        """Take out, in place, the maps that are over the cap; returns their entries, or None if there are none.

        `lifted`: what `lift` returned; those maps were over the cap already.
        """
        cap = self.order_cap
        over = set(lifted)
        if cap is not None:
            if len(state[4]) > cap or len(state[5]) > cap or len(state[6]) > cap:
                over.update((st.ORDERS, st.REFUNDS, st.CANCELS))
            over.update(slot for slot in self._keyed_slots if len(state[slot]) > cap)
        if not over:
            return None
        maps = [state[slot] if slot in over else [] for slot in self._map_slots]
        for slot in over:
            state[slot] = OVERFLOW
        return maps if any(maps) else None

    def sum_up(self, state: State, summary: Summary) -> None:
        """Replace a profile's orders and journals with a summary, in place."""
        state[st.ORDERS] = summary
        state[st.REFUNDS] = state[st.CANCELS] = OVERFLOW
        for number, slot in enumerate(self._keyed_slots, 1):
            state[slot] = [summary[number]]

    def take_maps(self, state: State) -> Maps:
        """Take out, in place, what has been folded into a state since `make_room` emptied its maps."""
        maps = [state[slot] for slot in self._map_slots]
        self.make_room(state)
        return maps

    def make_room(self, state: State) -> None:
        """Empty all maps of a profile's state, in place, to take new entries."""
        for slot in self._map_slots:
            state[slot] = []

    def fill(self, state: State, maps: Maps) -> None:
        """Put whole maps into a state, in place, regardless of the cap."""
        for slot, entries in zip(self._map_slots, maps, strict=True):
            state[slot] = entries


_all_entries: Final = partial(reduce, merge_keyed(None))
_all_orders: Final = partial(reduce, merge_keyed(None, join_orders))


def compile_fold(
    definitions: Definitions,
    *,
    time_zone: str,
    currency: str,
    order_cap: int | None = st.ORDER_CAP,
    reader: Reader = CURRENT,
) -> Fold:
    """Generate the fold of some definitions. `order_cap`: map entries that a state itself may hold; None: any number.

    `reader`: which records it can read.
    """
    return Fold(make_layout(definitions), time_zone, currency, order_cap, reader)


_SEALED_ONCE: Final = frozenset({"value", "items", *ORDER_IDS[1:], *REFUND_IDS})
"""Properties of orders that earlier doors sealed, because their table did not name them."""


class Needs(NamedTuple):
    """Dotted names of sealed fields: these, or those that begin and end like one of the pairs."""

    names: frozenset[str]
    like: tuple[tuple[str, str], ...] = ()

    def of(self, names: Sequence[str]) -> bool:
        """Whether any of an event's sealed names is needed."""
        if not self.names.isdisjoint(names):
            return True
        return any(name.startswith(start) and name.endswith(end) for start, end in self.like for name in names)


NO_NEEDS: Final = Needs(frozenset())


def _sealed_needs(layout: Layout) -> dict[str, Needs]:
    """Event name → the sealed fields that a `where` compares or whose value a trait keeps."""
    streams = [slot.stream for slot in layout.slots] + layout.order_streams
    needs: dict[str, Needs] = {}
    for name in [*layout.event_names(), ANY_EVENT]:
        used = {prop for slot in layout.slots if matches(slot.stream, name) for prop in slot.properties}
        used |= set(layout.extras) if name in BASE_TYPES else set()
        used = {prop for prop in used if not layout.is_closed(prop, name)}
        once = _SEALED_ONCE if name in ORDER_TYPES else frozenset()
        used |= {prop for prop in once if not layout.is_closed(prop, name)}
        for stream in streams:
            if stream.where and (matches(stream, name) or matches(stream, NEGATIVE.get(name, name))):
                used |= used_properties(layout.where[stream.where])
        needs[name] = _needs_of(used)
    attributes = frozenset(f"traits.{name.partition('.')[0]}" for name in layout.declared.attributes)
    attributes |= {f"traits.{name}" for name in layout.declared.attributes}
    for name in (IDENTIFIED, CORRECTED):
        names, like = needs.get(name, needs[ANY_EVENT])
        needs[name] = Needs(names | attributes, like)
    return needs


def _needs_of(used: Iterable[str]) -> Needs:
    found = [sealed_names(prop) for prop in sorted(used)]
    return Needs(frozenset().union(*(names for names, _ in found)), tuple(like for _, like in found if like))


def _layout_hash(layout: Layout, time_zone: str, currency: str) -> str:
    """Equal for equal folds: then a changed definition needs no refold."""
    defs = layout.definitions
    parts = [
        LAYOUT_VERSION, time_zone, currency, layout.extras, [(s.events, s.where) for s in layout.order_streams],
        [_slot_parts(slot) for slot in layout.slots],
        [(r.currency, r.date, str(r.rate)) for r in defs.rates],
        sorted((n, s.rank) for n, s in defs.sources.items()), sorted(decimal_marks(defs).items()),
        [(name, sorted(layout.closed(name))) for name in [*layout.event_names(), ANY_EVENT]],
        sorted((name, trait.personal) for name, trait in defs.traits.items()),
    ]  # fmt: skip
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _slot_parts(slot: SlotPlace) -> tuple[object, ...]:
    need, stream = slot.need, slot.stream
    return (need.kind.name, stream.events, stream.where, need.of, slot.window_days, need.key, need.opens)
