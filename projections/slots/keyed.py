"""Sorted lists of entries [key, …] in which the greater entry of a key wins; over a cap they are kept beside the state.

A list over its cap becomes the absorbing OVERFLOW, and its entries are in a tree (`orders.tree`). Traits, orders,
refunds and cancellations are lists of this kind too. Pure.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from projections.slots.base import Merge, Slot, SlotKind, SlotNeed, StepCode
from projections.slots.values import text_id

OVERFLOW: Final = -1


Join = Callable[[list[Any], list[Any]], list[Any]]
"""What two entries of one key become; commutative and associative. Mostly the greater one."""


@cache
def merge_keyed(cap: int | None, join: Join = max) -> Callable[[Slot, Slot], Slot]:
    """The merge of two lists under a cap on entries."""

    def merge(a: Slot, b: Slot) -> Slot:
        if type(a) is int or type(b) is int:
            return OVERFLOW
        if not a or not b:
            return a or b
        entries = {entry[0]: entry for entry in a}
        for entry in b:
            mine = entries.get(entry[0])
            entries[entry[0]] = entry if mine is None else join(mine, entry)
        return sorted(entries.values()) if cap is None or len(entries) <= cap else OVERFLOW

    return merge


def put(entries: list[list[Any]], entry: list[Any], join: Join = max) -> bool:
    """Insert an entry, or join it with the one of its key, in place; True if the list grew."""
    i = bisect_left(entries, entry[:1])
    if i < len(entries) and entries[i][0] == entry[0]:
        entries[i] = join(entries[i], entry)
        return False
    entries.insert(i, entry)
    return True


@dataclass(frozen=True, eq=False, kw_only=True)
class Keyed(SlotKind):
    """A kind by key, which a fold keeps in a tree if it is over the cap. `number`: the number that its entries give."""

    number: Callable[[list[list[Any]]], int]

    def merger(self, cap: int | None) -> Merge:
        return merge_keyed(cap)


def _step_open(code: StepCode, need: SlotNeed, at: str, _pinned: bool) -> list[str]:
    opens = 1 if code.name in need.opens else 0
    value = code.value(need.key or "")
    return [f"{code.use(put)}({at}, [{code.use(text_id)}({value}) or '', us, key, {opens}])"]


def _open(entries: list[list[Any]]) -> int:
    return sum(entry[3] for entry in entries)


OPEN: Final = Keyed(name="open", empty=list, merge=merge_keyed(None), step=_step_open, number=_open)
"""Entries [key, occurred_us, order of the event, whether the event opens]"""
