"""Defines an aggregate: the slots it needs, the check of its definition, how to read its value, its wording. Pure.

One module per aggregate; `registry` finds it. Steps, merges and pruning belong to the kinds of slots.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from projections.aggregates.order_loop import OrderTrait
from projections.generated import Source
from projections.slots.base import SlotKind, SlotNeed, indented
from projections.slots.cells import Cells
from schemas.conditions import Kind
from schemas.definitions import MAX_WINDOW_DAYS, ComputedTrait
from schemas.errors import Problem


@dataclass(frozen=True, slots=True)
class Reading:
    """One trait as generated code reads it.

    `due`: whether to compute when the trait may change; `marks`: the full-day counts at which a condition changes.
    """

    src: Source
    spec: ComputedTrait
    due: bool = False
    marks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a slot is: its expression and its kind.

    `stamped`: first and last hold their stamp with the value. `leaving`: counts by day of everything that may leave the
    window, if the slot itself does not show it; None: it does.
    """

    at: str
    kind: SlotKind
    stamped: bool = True
    leaving: tuple["Place", ...] | None = None


class Aggregate(ABC):
    """An aggregate. Most have one slot and only define which one, and their wording.

    `meaning`: for the schema of definitions and the docs. `slot`: the kind over a lifetime. `of_nothing`: the value of
    no events. `takes_value`: it is of a property; `numeric`: which is read as a number; `takes_times`: which may be
    `occurred_at`. `windows`: it may have `window_days`. `ages`: full days since an instant, so that it changes by time
    alone. `less_refunds`: over orders, money subtracts the refunds named.
    """

    name: ClassVar[str]
    meaning: ClassVar[str]
    slot: ClassVar[SlotKind]
    of_nothing: ClassVar[int | None] = None
    takes_value: ClassVar[bool] = False
    takes_times: ClassVar[bool] = True
    numeric: ClassVar[bool] = False
    windows: ClassVar[bool] = True
    ages: ClassVar[bool] = False
    less_refunds: ClassVar[bool] = False

    @abstractmethod
    def kind(self, spec: ComputedTrait) -> Kind:
        """The kind of its values."""

    def unit(self, spec: ComputedTrait) -> str:
        """How its values are shown: money, days, time, number or any."""
        kind = self.kind(spec)
        if spec.of == "revenue" and kind == "decimal":
            return "money"
        return kind if kind in {"time", "any"} else "number"

    @abstractmethod
    def words(self, spec: ComputedTrait) -> str:
        """Its description in plain English: "number of orders in the last 30 days"."""

    # -- definition

    def check(self, path: str, spec: ComputedTrait) -> Iterator[Problem]:
        """Problems with a definition of it, beyond those of any computed trait."""
        yield from self._check_events(path, spec)
        yield from self._check_value(path, spec)
        if spec.window_days is not None:
            if not self.windows:
                yield Problem(f"{path}.window_days", f"{self.name} has no window; remove it")
            elif not 1 <= spec.window_days <= MAX_WINDOW_DAYS:
                yield Problem(f"{path}.window_days", f"must be 1 to {MAX_WINDOW_DAYS}")

    def _check_events(self, path: str, spec: ComputedTrait) -> Iterator[Problem]:
        if not spec.events:
            yield Problem(f"{path}.events", 'is missing; list event types, or ["*"] for every event')
        for key in ("key", "opens", "closes"):
            if getattr(spec, key):
                yield Problem(f"{path}.{key}", "belongs only to an open_count; remove it")

    def _check_value(self, path: str, spec: ComputedTrait) -> Iterator[Problem]:
        if not self.takes_value:
            if spec.of is not None:
                yield Problem(f"{path}.of", f"{self.name} has no value to take; remove it")
        elif spec.of is None:
            yield Problem(f"{path}.of", f"is missing; say which property {self.name} is of (revenue, occurred_at, …)")
        elif spec.of == "occurred_at" and not self.takes_times:
            yield Problem(f"{path}.of", f"{self.name} does not work on times; use min, max, first or last")

    # -- state

    def slots(self, spec: ComputedTrait) -> list[SlotNeed]:
        """The slots it needs in a state, over events that are not orders."""
        return [SlotNeed(self.slot if spec.window_days is None else self.slot.windowed, spec.of)]

    def order_slots(self, spec: ComputedTrait) -> list[SlotNeed]:
        """The slots it needs in a summary of many orders (`orders.summary`); `read` gets them in this order."""
        return self.slots(spec)

    # -- value, as generated lines

    def read(self, code: Reading, places: Sequence[Place], var: str) -> list[str]:
        """Lines that put its value in a local, and lower `due` (µs) or `due_day` to when it may change with time."""
        (place,) = places
        days = code.spec.window_days
        if days is None:
            return self.lifetime(code, place, var)
        lines = [f"{var}, old = {_window(code, place, days)}"]
        if code.due and place.leaving is None:
            lines.append(_leaves(days))
        lines += self.finish(code, var, var, stamped=place.stamped)
        found = [f"if {place.at}:", *indented(lines), f"else: {var} = {self.of_nothing}"]
        for each in place.leaving or () if code.due else ():
            found += [f"if {each.at}:", f"    _, old = {_window(code, each, days)}", f"    {_leaves(days)}"]
        return found

    def lifetime(self, code: Reading, place: Place, var: str) -> list[str]:
        """The value of a slot without window."""
        return self.finish(code, place.at, var, stamped=place.stamped)

    def finish(self, code: Reading, raw: str, var: str, *, stamped: bool = True) -> list[str]:
        """Lines that turn the content of a slot or window into the value."""
        return [f"{var} = {raw}"] if var != raw else []

    @abstractmethod
    def over_orders(self, code: OrderTrait, var: str) -> None:
        """Add its part to the pass over the order map, which visits each order once."""


def _window(code: Reading, place: Place, days: int) -> str:
    assert isinstance(place.kind, Cells), "windows are read from days"
    return f"{code.src.use(place.kind.window, f'window_{place.kind.name}')}({place.at}, today - {days - 1})"


def _leaves(days: int) -> str:
    return f"if old is not None and old + {days} < due_day: due_day = old + {days}"
