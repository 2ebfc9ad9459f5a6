"""Generates the code of computed traits: their values over a state and when time alone changes them. No I/O, no clock.

Each aggregate defines what it reads (`projections.aggregates`); this module selects the traits of a function, and
builds the single pass over the orders that serves them all.
"""

from collections.abc import Mapping, Sequence

from projections.aggregates.base import Place, Reading
from projections.aggregates.order_loop import OrderLoop, OrderTrait
from projections.days import NEVER
from projections.fold import state as st
from projections.fold.fold import Fold
from projections.fold.layout import TraitPlace
from projections.generated import Source
from projections.orders.counting import BITS, US
from projections.orders.orders import counted
from projections.orders.summary import Cell
from projections.slots.keyed import OVERFLOW


class TraitCode:
    """The statements that put each trait in a local, and set `due`. `thresholds` is empty if nothing falls due."""

    def __init__(
        self, src: Source, fold: Fold, traits: Sequence[TraitPlace], thresholds: Mapping[str, set[int]]
    ) -> None:
        self.src, self.fold, self.traits, self.thresholds = src, fold, traits, thresholds
        self.vars = {trait.name: f"t{i}" for i, trait in enumerate(traits)}

    def emit(self) -> None:
        add = self.src.add
        add(1, "if s[2] is not None and s[2][0] > at: at = s[2][0]", f"due = due_day = {NEVER}")
        if any(trait.spec.window_days for trait in self.traits):
            add(1, "today = DAYS(at // 900000000)", "if today is None: today = day_of(at)")
        for trait in self.traits:
            if trait.bit is None:
                places = [Place(f"s[{i}]", self.fold.layout.slots[i - st.BASE_SLOTS].need.kind) for i in trait.slots]
                add(1, *trait.aggregate.read(self._reading(trait), places, self.vars[trait.name]))
        orders = [trait for trait in self.traits if trait.bit is not None]
        if orders:
            self._orders(orders)
        if self.thresholds:
            add(1, f"if due_day < {NEVER}:", "    d = start(due_day)", "    if d < due: due = d")

    def _reading(self, trait: TraitPlace) -> Reading:
        return Reading(self.src, trait.spec, bool(self.thresholds), self._marks(trait))

    def _marks(self, trait: TraitPlace) -> tuple[int, ...]:
        """The numbers of days at which a condition on the trait changes."""
        return tuple(sorted(days for days in self.thresholds.get(trait.name, ()) if days > 0))

    # -- orders: from the map one pass over bases, one over refunds; from a summary (`orders.summary`) cell by cell

    def _orders(self, traits: Sequence[TraitPlace]) -> None:
        loop = OrderLoop()
        for trait in traits:
            trait.aggregate.over_orders(self._in_loop(loop, trait), self.vars[trait.name])
        add = self.src.add
        add(1, f"if not s[{st.ORDERS}] and not s[{st.REFUNDS}]:")
        add(2, *(f"{self.vars[trait.name]} = {trait.aggregate.of_nothing}" for trait in traits))
        add(1, f"elif s[{st.ORDERS}] == {OVERFLOW}:")
        add(2, *(f"{self.vars[trait.name]} = None" for trait in traits))
        add(1, f"elif s[{st.REFUNDS}] == {OVERFLOW}:")
        add(2, f"m = s[{st.ORDERS}]")
        for trait in traits:
            add(2, *self._summed(trait))
        add(1, "else:")
        self._pass(loop)

    def _in_loop(self, loop: OrderLoop, trait: TraitPlace) -> OrderTrait:
        return OrderTrait(
            loop, self.src, trait.spec, bit=trait.bit or 0, pinned=trait.pinned, extras=self.fold.layout.extras,
            due=bool(self.thresholds), marks=self._marks(trait),
        )  # fmt: skip

    def _summed(self, trait: TraitPlace) -> list[str]:
        """The value from a summary, the same as from the orders themselves."""
        places = self.fold.summaries.places[trait.name]
        leaving = tuple(_place(cell) for cell in places.expiry)
        found = [Place(f"m[{cell.index}]", cell.kind, cell.kind.stamped, leaving) for cell in places.cells]
        return trait.aggregate.read(self._reading(trait), found, self.vars[trait.name])

    def _pass(self, loop: OrderLoop) -> None:
        add = self.src.add
        windows = sorted({window for _, window in (*loop.bases, *loop.refunds) if window})
        add(2, *(f"{var} = {empty}" for var, empty in loop.inits.items()))
        pins = self.fold.layout.pins()
        only = "" if pins is None else f", {self.src.constant(pins)}"
        add(2, f"bases, refunds = {self.src.use(counted)}(s{only})")
        add(2, *(f"f{w} = start(today - {w - 1})" for w in windows))
        self._entries("bases", loop.bases)
        if loop.refunds:
            self._entries("refunds", loop.refunds)
        add(2, *loop.after)

    def _entries(self, entries: str, steps: Mapping[tuple[int, int], dict[str, None]]) -> None:
        add = self.src.add
        add(2, f"for o in {entries}:")
        add(3, f"us = o[{US}]", f"b = o[{BITS}]")
        for bit in sorted({bit for bit, _ in steps}):
            add(3, f"if b & {1 << bit}:")
            for window in sorted(w for b, w in steps if b == bit):
                if window:
                    add(4, f"if us >= f{window}:")
                add(5 if window else 4, *steps[bit, window])


def _place(cell: Cell) -> Place:
    return Place(f"m[{cell.index}]", cell.kind)
