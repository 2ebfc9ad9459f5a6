"""What orders come to, in bounded space: the order traits' values over many orders as mergeable cells.

A profile over the cap keeps this in place of its order map. Orders are first resolved (one base an order id, the
cancelled left out), so only whole orders are summed up: two summaries of different orders merge like any other slots
(`state.MONOIDS`), and traits read the same values, windows and due times from them as from the orders themselves.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple

from projections.fold import state as st
from projections.fold.calls import kept_number
from projections.fold.layout import Plan, TraitPlan
from projections.fold.state import LocalDays
from schemas.definitions import REFUND_TYPES

Maps = list[list[Any]]
"""Sorted keyed lists: bases, refunds, cancels, then the journals of open keys in the order of their slots."""

Summary = list[Any]
"""[form, journals' open keys…, amounts by currency, amounts without a rate, cells…, their sum in base currency, days
with an order, [the first of these, its orders]]; of form 1 without the last three"""

Value = Callable[[list[Any]], Any]
Put = Callable[[list[Any], int, int, Any, list[Any]], None]

FORM: Final = 2  # the first item of a summary: no list of orders begins with an integer
BASES, REFUNDS, CANCELS, JOURNALS = range(4)
CURRENCIES, MISSING, CELLS = range(1, 4)
TAIL: Final = 3  # items behind the cells

_KINDS: Final = {"days_since": "max", "gap_days": "top_two", "distinct_days": "days", "avg": "sum"}


class Spent(NamedTuple):
    """What the figures of the overview ask of all orders of a customer (`projections.decide.figures`)."""

    net: int  # scaled, in base currency, less refunds
    lacking: int  # amounts without a rate, which are not in it
    days: list[int]  # with an order, ascending
    once: bool  # the first day has one order alone


@dataclass(slots=True)
class Cell:
    """One slot of a summary. `value`: of a base; `refund`: of a refund, which a sum subtracts; None: not of those."""

    index: int
    kind: str  # a key of state.MONOIDS
    bit: int
    value: Value | None
    refund: Value | None
    window_days: int = 0


@dataclass(slots=True)
class Places:
    """Where a summary holds what a trait reads. `expiry`: counts by day of all that may leave its window."""

    cell: Cell
    expiry: list[Cell] = field(default_factory=list)


class OrderSummaries:
    """Makes and merges the summaries of one plan."""

    def __init__(self, plan: Plan, days: LocalDays) -> None:
        self._days = days
        self._extras = plan.extras
        self._journals = sum(slot.kind == "open" for slot in plan.slots)
        self.cells: list[Cell] = []
        self._known: dict[tuple[Any, ...], Cell] = {}
        self.places = {plan_.name: self._places(plan_) for plan_ in plan.traits.values() if plan_.bit is not None}
        monoids = [st.MONOIDS[cell.kind] for cell in self.cells]
        self._empties = [monoid.empty for monoid in monoids]
        self._merges: list[Callable[[Any, Any], Any]] = [
            *(st.merge_counts, st.add, *(monoid.merge for monoid in monoids)),
            *(st.add, st.MONOIDS["days"].merge, _first_day),
        ]
        numbered = list(enumerate(self.cells))
        self._of_bases = [(1 << c.bit, i, c.value, _PUTS[c.kind]) for i, c in numbered if c.value is not None]
        self._of_refunds = [
            (1 << c.bit, i, c.refund, _REFUND_PUTS[c.kind]) for i, c in numbered if c.refund is not None
        ]

    # -- which cells there are

    def _places(self, plan: TraitPlan) -> Places:
        spec, bit, window = plan.spec, plan.bit or 0, plan.spec.window_days or 0
        refunds = not set(spec.events).isdisjoint(REFUND_TYPES)
        kind, of = _KINDS.get(spec.aggregate, spec.aggregate), "us"
        if spec.of == "occurred_at":
            kind = {"first": "min", "last": "max"}.get(kind, kind)
        elif spec.aggregate in ("sum", "avg", "min", "max", "first", "last"):
            of = self._value(plan)
        if window and kind != "days":
            kind = f"day_{kind}"
        counted = refunds and spec.aggregate in ("sum", "avg") and of in ("own", "amt")
        places = Places(self._cell(kind, bit, of, window, base=True, refund=counted))
        if window:
            places.expiry.append(self._cell("day_count", bit, "us", window, base=True, refund=False))
            if counted:
                places.expiry.append(self._cell("day_count", bit, "us", window, base=False, refund=True))
        return places

    def _value(self, plan: TraitPlan) -> str:
        if plan.spec.of == "revenue":
            return "own" if plan.pinned else "amt"
        number = "n" if plan.spec.aggregate in ("sum", "avg", "min", "max") else "e"
        return f"{number}{self._extras.index(plan.spec.of or '')}"

    def _cell(self, kind: str, bit: int, of: str, window: int, *, base: bool, refund: bool) -> Cell:
        same = (kind, bit, of, base, refund, bool(window))
        cell = self._known.get(same)
        if cell is None:
            index = CELLS + self._journals + len(self.cells)
            cell = Cell(index, kind, bit, _of_base(of) if base else None, None)
            if refund:
                cell.refund = itemgetter(_REFUND_FIELDS[of])
            self._known[same] = cell
            self.cells.append(cell)
        cell.window_days = max(cell.window_days, window)
        return cell

    # -- making and merging

    def of(self, maps: Maps, today: int) -> Summary:
        """The summary of some orders, whole. `today`: no later decision is of an earlier day."""
        gone = {entry[0] for entry in maps[CANCELS]}
        summary: Summary = [FORM, *(sum(entry[3] for entry in journal) for journal in maps[JOURNALS:])]
        currencies: dict[str, int] = {}
        cells = [empty() for empty in self._empties]
        day_of, missing, net = self._days.day, 0, 0
        on: dict[int, int] = {}
        for sign, entries, id_at, us_at, steps, own_at in (
            (1, maps[BASES], st.O_ID, st.O_US, self._of_bases, st.O_OWN),
            (-1, maps[REFUNDS], st.R_ID, st.R_US, self._of_refunds, st.R_OWN),
        ):
            base_at, bits_at = own_at + 2, own_at + 3
            for entry in entries:
                if entry[id_at] in gone:
                    continue
                own, bits, day = entry[own_at], entry[bits_at], day_of(entry[us_at])
                net += sign * (entry[base_at] or 0)
                if sign > 0:
                    on[day] = on.get(day, 0) + 1
                if own is not None:
                    currency = entry[own_at + 1]
                    currencies[currency] = currencies.get(currency, 0) + sign * own
                    missing += entry[base_at] is None
                for bit, i, value_of, put in steps:
                    if bits & bit and (value := value_of(entry)) is not None:
                        put(cells, i, day, value, entry)
        summary += [[part for currency in sorted(currencies) for part in (currency, currencies[currency])], missing]
        words: list[int] = []
        for day in sorted(on):
            st.add_day(words, day)
        first = min(on, default=None)
        summary += [*cells, net, words, [] if first is None else [first, on[first]]]
        return self.pruned(summary, today)

    def merge(self, summaries: Iterable[Summary], today: int) -> Summary:
        """The summary of all their orders together, which no two of them share."""
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
                first, stride = today - cell.window_days + 1, st.MONOIDS[cell.kind].stride
                if cell.kind == "days":
                    first, stride = first // st.DAYS_A_WORD, 2
                summary[cell.index] = st.drop_before(summary[cell.index], first, stride)
        return summary

    # -- reading

    def spent(self, summary: Summary) -> Spent:
        """Not of form 1."""
        net, words, first = summary[-TAIL:]
        days = [
            word * st.DAYS_A_WORD + bit
            for word, bits in zip(words[::2], words[1::2], strict=True)
            for bit in range(st.DAYS_A_WORD)
            if bits >> bit & 1
        ]
        return Spent(net, summary[MISSING + self._journals], days, first[1:] == [1])

    def amounts(self, summary: Summary) -> tuple[list[Any], int]:
        """[currency, net amount, …] sorted, and how many amounts have no rate."""
        return summary[CURRENCIES + self._journals], summary[MISSING + self._journals]


def _first_day(a: list[int], b: list[int]) -> list[int]:
    if not a or not b:
        return a or b
    return [a[0], a[1] + b[1]] if a[0] == b[0] else min(a, b)


def _of_base(of: str) -> Value:
    """Reads what a cell keeps of a base: its stamp, its amounts, or an extra value (n: as a number)."""
    if of not in _BASE_FIELDS:
        at = st.O_EXTRA + int(of[1:])
        return (lambda entry: kept_number(entry[at])) if of[0] == "n" else itemgetter(at)
    return itemgetter(_BASE_FIELDS[of])


_BASE_FIELDS: Final = {"us": st.O_US, "own": st.O_OWN, "amt": st.O_BASE}
_REFUND_FIELDS: Final = {"us": st.R_US, "own": st.R_OWN, "amt": st.R_BASE}


# ---------------------------------------------------------------- one entry into one cell


def _count(cells: list[Any], i: int, _day: int, _value: Any, _entry: list[Any]) -> None:
    cells[i] += 1


def _day_count(cells: list[Any], i: int, day: int, _value: Any, _entry: list[Any]) -> None:
    st.add_count(cells[i], day)


def _sum(cells: list[Any], i: int, _day: int, value: int, _entry: list[Any]) -> None:
    cells[i][0] += 1
    cells[i][1] += value


def _day_sum(cells: list[Any], i: int, day: int, value: int, _entry: list[Any]) -> None:
    st.add_sum(cells[i], day, value)


def _sum_off(cells: list[Any], i: int, _day: int, value: int, _entry: list[Any]) -> None:
    cells[i][1] -= value


def _day_sum_off(cells: list[Any], i: int, day: int, value: int, _entry: list[Any]) -> None:
    sums = cells[i]
    sums[st.cell_at(sums, day, 3, (0, 0)) + 1] -= value


def _min(cells: list[Any], i: int, _day: int, value: int, _entry: list[Any]) -> None:
    cells[i] = st.least(cells[i], value)


def _max(cells: list[Any], i: int, _day: int, value: int, _entry: list[Any]) -> None:
    cells[i] = st.greatest(cells[i], value)


def _day_min(cells: list[Any], i: int, day: int, value: int, _entry: list[Any]) -> None:
    st.add_least(cells[i], day, value)


def _day_max(cells: list[Any], i: int, day: int, value: int, _entry: list[Any]) -> None:
    st.add_greatest(cells[i], day, value)


def _first(cells: list[Any], i: int, _day: int, value: Any, entry: list[Any]) -> None:
    cells[i] = st.least(cells[i], [entry[st.O_US], entry[st.O_KEY], value])


def _last(cells: list[Any], i: int, _day: int, value: Any, entry: list[Any]) -> None:
    cells[i] = st.greatest(cells[i], [entry[st.O_US], entry[st.O_KEY], value])


def _day_first(cells: list[Any], i: int, day: int, value: Any, entry: list[Any]) -> None:
    st.add_earliest(cells[i], day, [entry[st.O_US], entry[st.O_KEY], value])


def _day_last(cells: list[Any], i: int, day: int, value: Any, entry: list[Any]) -> None:
    st.add_latest(cells[i], day, [entry[st.O_US], entry[st.O_KEY], value])


def _top_two(cells: list[Any], i: int, _day: int, value: int, _entry: list[Any]) -> None:
    st.add_top(cells[i], value)


def _days(cells: list[Any], i: int, day: int, _value: Any, _entry: list[Any]) -> None:
    st.add_day(cells[i], day)


_PUTS: Final[dict[str, Put]] = {
    **{"count": _count, "day_count": _day_count, "sum": _sum, "day_sum": _day_sum, "min": _min, "max": _max},
    **{"day_min": _day_min, "day_max": _day_max, "first": _first, "last": _last, "day_first": _day_first},
    **{"day_last": _day_last, "top_two": _top_two, "days": _days},
}
_REFUND_PUTS: Final[dict[str, Put]] = {"day_count": _day_count, "sum": _sum_off, "day_sum": _day_sum_off}
