"""Defines a kind of slot: an empty value, a step, a commutative merge, and what the clock prunes. Pure.

A kind is data: one object in its own module. The fold, order summaries and traits use it; no other code knows what is
inside a slot. Its functions are plain functions, because generated code calls them a million times a second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Slot = Any
Merge = Callable[[Slot, Slot], Slot]
Put = Callable[[list[Any], int, int, Any], None]
"""Folds one value into a slot of a list: (slots, index, local day, value)"""


class Named(Protocol):
    """Gives the name under which generated lines call a function."""

    def use(self, function: Callable[..., Any], name: str = "") -> str: ...


class StepCode(Named, Protocol):
    """The handler of one event name as a step sees it: names of locals, which are created on first use."""

    @property
    def name(self) -> str:
        """Of the event."""

    def day(self) -> str:
        """Its local day."""

    def number(self, of: str, pinned: bool) -> str:
        """A value, scaled (10^4) or in microseconds, or None. `pinned`: money in the stream's only currency."""

    def kept(self, of: str, pinned: bool) -> str:
        """A value as states keep it, or None."""

    def value(self, prop: str) -> str:
        """A property whose value is kept, as it was sent."""


@dataclass(frozen=True, slots=True)
class SlotNeed:
    """What an aggregate needs in a state: a kind of slot and the value it takes; for keyed kinds, the property used as
    the key and the events that open one."""

    kind: "SlotKind"
    of: str | None = None
    key: str | None = None
    opens: tuple[str, ...] = ()


Step = Callable[[StepCode, SlotNeed, str, bool], list[str]]
"""The lines that fold an event in: (handler, need, the slot's expression, pinned)"""


@dataclass(frozen=True, eq=False, kw_only=True)
class SlotKind:
    """A kind of slot.

    `name` is part of the layout's hash: two kinds with one name would be read as each other. `inline`: the merge as an
    expression of locals {a} and {b}, to save a call; it may keep `b` only if that is strictly better. `put` and `take`
    add to and take from a slot outside generated code; `stamped`: values are put with their stamp. `by_day`: the kind
    that windows need.
    """

    name: str
    empty: Callable[[], Slot]
    merge: Merge
    step: Step
    put: Put | None = None
    take: Put | None = None
    stamped: bool = False
    inline: str | None = None
    by_day: "SlotKind | None" = None

    @property
    def windowed(self) -> "SlotKind":
        """The kind that windows read. ValueError if there is none."""
        if self.by_day is None:
            raise ValueError(f"a slot of {self.name} has no days")
        return self.by_day

    def merger(self, cap: int | None) -> Merge:
        """The merge under a cap on entries; only keyed kinds have a cap."""
        return self.merge

    def prune(self, slot: Slot, first_day: int) -> Slot:
        """The slot without days before `first_day`; depends on the clock, never on contents."""
        return slot

    def prune_lines(self, code: Named, at: str, first_day: str) -> list[str]:
        """The same as generated lines, in place, for the slot at an expression."""
        return []


def unkeyed(need: SlotNeed) -> str:
    """The value a slot takes. AssertionError if there is none: `check` refuses such a definition."""
    assert need.of is not None, f"a slot of {need.kind.name} takes a value"
    return need.of


def indented(lines: Sequence[str]) -> list[str]:
    """The lines, indented one level deeper."""
    return [f"    {line}" for line in lines]
