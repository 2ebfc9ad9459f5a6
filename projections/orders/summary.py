"""What orders add up to, in bounded space: the values of order traits over many orders, as mergeable cells.

A profile over the cap keeps this instead of its order map. Orders are resolved first (one base per order id, cancelled
ones left out), so only whole orders are summed: two summaries of different orders merge like any other slots
(`projections.slots`), and traits read the same values, windows and due times from them as from the orders.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple

from projections.days import LocalDays
from projections.fold.layout import Layout, TraitPlace
from projections.orders.counting import BASE, BITS, CURRENCY, EXTRA, KEY, OWN, UNREAD, US, count
from projections.slots.base import Put, SlotKind
from projections.slots.count import DAY_COUNT, add
from projections.slots.days import DAYS, add_day, days_of
from projections.slots.keyed import Keyed
from projections.slots.values import kept_number
from schemas.touchpoints import REFUND_TYPES

Maps = list[list[Any]]
"""Sorted keyed lists: bases, refunds, cancels, then the journals of open keys in the order of their slots."""

Summary = list[Any]
"""[form, journals' open keys…, amounts by currency, amounts without a rate, unreadable amounts, cells…, their sum in
base currency, days with an order, [the first of these days, its orders]]; form 1 lacks the last three, form 2 the
unreadable ones"""

Value = Callable[[list[Any]], Any]

FORM: Final = 3  # the first item of a summary: no list of orders begins with an integer
BASES, REFUNDS, CANCELS, JOURNALS = range(4)
CURRENCIES, MISSING, UNREADABLE, CELLS = range(1, 5)
TAIL: Final = 3  # items after the cells


class Spent(NamedTuple):
    """What the overview's figures need to know about all orders of a customer (`projections.decide.figures`)."""

    net: int  # scaled, in base currency, less refunds
    lacking: int  # how many amounts have no rate and are not in `net`
    unread: int  # and how many could not be read
    days: list[int]  # days with an order, ascending
    once: bool  # there is only one order on the first day


@dataclass(slots=True)
class Cell:
    """A slot of a summary. `value` reads it from a base, `refund` from a refund, which sums subtract; None: unused."""

    index: int
    kind: SlotKind
    bit: int
    value: Value | None
    refund: Value | None
    window_days: int = 0


@dataclass(slots=True)
class Places:
    """Where a summary holds what a trait reads. `expiry`: counts by day of everything that may leave its window."""

    cells: list[Cell]
    expiry: list[Cell] = field(default_factory=list)


class OrderSummaries:
    """Makes and merges summaries under one layout."""

    def __init__(self, layout: Layout, days: LocalDays) -> None:
        self._days = days
        self._extras = layout.extras
        self._pins = layout.pins()
        keyed = [slot.need.kind for slot in layout.keyed()]
        self._numbers = [kind.number for kind in keyed if isinstance(kind, Keyed)]
        self._journals = len(keyed)
        self.cells: list[Cell] = []
        self._known: dict[tuple[Any, ...], Cell] = {}
        self.places = {trait.name: self._places(trait) for trait in layout.traits.values() if trait.bit is not None}
        self._empties = [cell.kind.empty for cell in self.cells]
        self._merges: list[Callable[[Any, Any], Any]] = [
            *(DAY_COUNT.merge, add, add, *(cell.kind.merge for cell in self.cells)),
            *(add, DAYS.merge, _first_day),
        ]
        numbered = list(enumerate(self.cells))
        self._of_bases = [(1 << c.bit, i, c.value, _put(c.kind)) for i, c in numbered if c.value is not None]
        self._of_refunds = [
            (1 << c.bit, i, c.refund, _put(c.kind) if c.value is None else _take(c.kind))
            for i, c in numbered
            if c.refund is not None
        ]

    # -- the cells

    def _places(self, trait: TraitPlace) -> Places:
        spec, bit, window = trait.spec, trait.bit or 0, trait.spec.window_days or 0
        needs = [(need.kind, self._value(trait, need.of)) for need in trait.aggregate.order_slots(spec)]
        refunds = not set(spec.events).isdisjoint(REFUND_TYPES)
        counted = refunds and trait.aggregate.less_refunds and any(of in ("own", "amt") for _, of in needs)
        places = Places(
            [
                self._cell(kind, bit, of, window, base=True, refund=counted and of in ("own", "amt"))
                for kind, of in needs
            ]
        )
        if window:
            places.expiry.append(self._cell(DAY_COUNT, bit, "us", window, base=True, refund=False))
            if counted:
                places.expiry.append(self._cell(DAY_COUNT, bit, "us", window, base=False, refund=True))
        return places

    def _value(self, trait: TraitPlace, of: str | None) -> str:
        """What a cell keeps of a base (see `_of_base`)."""
        if of is None or of == "occurred_at":
            return "us"
        if of == "revenue":
            return "own" if trait.pinned else "amt"
        return f"{'n' if trait.aggregate.numeric else 'e'}{self._extras.index(of)}"

    def _cell(self, kind: SlotKind, bit: int, of: str, window: int, *, base: bool, refund: bool) -> Cell:
        same = (kind, bit, of, base, refund, bool(window))
        cell = self._known.get(same)
        if cell is None:
            index = CELLS + self._journals + len(self.cells)
            value = (_stamped(_of_base(of)) if kind.stamped else _of_base(of)) if base else None
            cell = Cell(index, kind, bit, value, itemgetter(_FIELDS[of]) if refund else None)
            self._known[same] = cell
            self.cells.append(cell)
        cell.window_days = max(cell.window_days, window)
        return cell

    # -- making and merging

    def of(self, maps: Maps, today: int) -> Summary:
        """The summary of some complete orders. `today`: no later decision is made for an earlier day."""
        summary: Summary = [FORM, *(number(each) for number, each in zip(self._numbers, maps[JOURNALS:], strict=True))]
        currencies: dict[str, int] = {}
        cells = [empty() for empty in self._empties]
        day_of, missing, unread, net = self._days.day, 0, 0, 0
        on: dict[int, int] = {}
        bases, refunds = count(maps[BASES], maps[REFUNDS], maps[CANCELS], self._pins)
        for sign, entries, steps in ((1, bases, self._of_bases), (-1, refunds, self._of_refunds)):
            for entry in entries:
                own, bits, day = entry[OWN], entry[BITS], day_of(entry[US])
                net += sign * (entry[BASE] or 0)
                unread += entry[UNREAD]
                if sign > 0:
                    on[day] = on.get(day, 0) + 1
                if own is not None:
                    currency = entry[CURRENCY]
                    currencies[currency] = currencies.get(currency, 0) + sign * own
                    missing += entry[BASE] is None
                for bit, i, value_of, put in steps:
                    if bits & bit and (value := value_of(entry)) is not None:
                        put(cells, i, day, value)
        by_currency = [part for currency in sorted(currencies) for part in (currency, currencies[currency])]
        summary += [by_currency, missing, unread]
        words: list[int] = []
        for day in sorted(on):
            add_day(words, day)
        first = min(on, default=None)
        summary += [*cells, net, words, [] if first is None else [first, on[first]]]
        return self.pruned(summary, today)

    def merge(self, summaries: Iterable[Summary], today: int) -> Summary:
        """The summary of all their orders together; no order may be in two of them."""
        merged: Summary | None = None
        first, merges = 1 + self._journals, self._merges
        for each in summaries:
            if merged is None:
                merged = list(each)
                continue
            for i in range(1, first):
                merged[i] += each[i]
            for i, join in enumerate(merges, first):
                merged[i] = join(merged[i], each[i])
        if merged is None:
            merged = self.of([[] for _ in range(JOURNALS + self._journals)], today)
        return self.pruned(merged, today)

    def pruned(self, summary: Summary, today: int) -> Summary:
        """Drop, in place, days that no window reaches from `today` on."""
        for cell in self.cells:
            if cell.window_days:
                summary[cell.index] = cell.kind.prune(summary[cell.index], today - cell.window_days + 1)
        return summary

    # -- reading

    def spent(self, summary: Summary) -> Spent:
        """Not for summaries of form 1."""
        net, words, first = summary[-TAIL:]
        _, lacking, unread = self.amounts(summary)
        return Spent(net, lacking, unread, days_of(words), first[1:] == [1])

    def amounts(self, summary: Summary) -> tuple[list[Any], int, int]:
        """[currency, net amount, …] sorted, how many amounts have no rate, and how many could not be read."""
        currencies, missing, unread = summary[CURRENCIES + self._journals : CELLS + self._journals]
        return currencies, missing, unread


def _first_day(a: list[int], b: list[int]) -> list[int]:
    if not a or not b:
        return a or b
    return [a[0], a[1] + b[1]] if a[0] == b[0] else min(a, b)


def _of_base(of: str) -> Value:
    """A reader of what a cell keeps of a base: its stamp, an amount, or an extra value (n: as a number)."""
    if of not in _FIELDS:
        at = EXTRA + int(of[1:])
        return (lambda entry: kept_number(entry[at])) if of[0] == "n" else itemgetter(at)
    return itemgetter(_FIELDS[of])


_FIELDS: Final = {"us": US, "own": OWN, "amt": BASE}


def _stamped(value: Value) -> Value:
    """The value preceded by its stamp; None if there is no value."""

    def stamped(entry: list[Any]) -> Any:
        found = value(entry)
        return None if found is None else [entry[US], entry[KEY], found]

    return stamped


def _put(kind: SlotKind) -> Put:
    assert kind.put is not None, f"{kind.name} takes values in generated code alone"
    return kind.put


def _take(kind: SlotKind) -> Put:
    assert kind.take is not None, f"nothing is taken from a slot of {kind.name}"
    return kind.take
