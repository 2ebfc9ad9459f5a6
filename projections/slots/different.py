"""Which different values occurred: a keyed list of their texts. Pure.

A state keeps all of them, over its cap in a tree; a summary of orders keeps 1,024, because otherwise every node of a
tree would hold all values below it.
"""

from typing import Any, Final

from projections.slots.base import SlotNeed, StepCode, unkeyed
from projections.slots.keyed import OVERFLOW, Keyed, merge_keyed, put
from projections.slots.values import text_key

MOST: Final = 1_024  # values in a summary of orders: 60 KB for ids of 50 characters


def _step(code: StepCode, need: SlotNeed, at: str, pinned: bool) -> list[str]:
    value = code.kept(unkeyed(need), pinned)
    return [f"c = {code.use(text_key)}({value})", f"if c is not None: {code.use(put)}({at}, [c])"]


def _put(slots: list[Any], i: int, _day: int, value: Any) -> None:
    key = text_key(value)
    if key is None or slots[i] == OVERFLOW:
        return
    put(slots[i], [key])
    if len(slots[i]) > MOST:
        slots[i] = OVERFLOW


DIFFERENT: Final = Keyed(name="different", empty=list, merge=merge_keyed(MOST), step=_step, put=_put, number=len)
"""Entries [text of a value]"""
