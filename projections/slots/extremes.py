"""The smallest and the greatest number, None if there is none, in total or by local day. Pure."""

from typing import Any, Final

from projections.slots.base import Slot, SlotKind, SlotNeed, Step, StepCode, unkeyed
from projections.slots.cells import Cells, cell_at, merge_by_day, window_of


def least(a: Slot, b: Slot) -> Slot:
    """The smaller of two; None means nothing. Stamped values are lists that begin (occurred_us, order)."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def greatest(a: Slot, b: Slot) -> Slot:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)


def none() -> None:
    """The empty value of slots that keep one value of many."""
    return


LEAST_INLINE: Final = "({a} if {b} is None else {b} if {a} is None or {b} < {a} else {a})"
GREATEST_INLINE: Final = "({a} if {b} is None else {b} if {a} is None or {b} > {a} else {a})"


def put_least(slots: list[Any], i: int, _day: int, value: Any) -> None:
    slots[i] = least(slots[i], value)


def put_greatest(slots: list[Any], i: int, _day: int, value: Any) -> None:
    slots[i] = greatest(slots[i], value)


def _step(sign: str) -> Step:
    def step(code: StepCode, need: SlotNeed, at: str, pinned: bool) -> list[str]:
        value = code.number(unkeyed(need), pinned)
        return [f"if {value} is not None and ({at} is None or {value} {sign} {at}): {at} = {value}"]

    return step


def add_least(cells: list[Any], day: int, value: int) -> None:
    i = cell_at(cells, day, 2, (value,))
    cells[i] = min(cells[i], value)


def add_greatest(cells: list[Any], day: int, value: int) -> None:
    i = cell_at(cells, day, 2, (value,))
    cells[i] = max(cells[i], value)


def _step_least_of_day(code: StepCode, need: SlotNeed, at: str, pinned: bool) -> list[str]:
    value = code.number(unkeyed(need), pinned)
    return [f"if {value} is not None: {code.use(add_least)}({at}, {code.day()}, {value})"]


def _step_greatest_of_day(code: StepCode, need: SlotNeed, at: str, pinned: bool) -> list[str]:
    value = code.number(unkeyed(need), pinned)
    return [f"if {value} is not None: {code.use(add_greatest)}({at}, {code.day()}, {value})"]


def _put_least_of_day(slots: list[Any], i: int, day: int, value: int) -> None:
    add_least(slots[i], day, value)


def _put_greatest_of_day(slots: list[Any], i: int, day: int, value: int) -> None:
    add_greatest(slots[i], day, value)


DAY_MIN: Final = Cells(
    name="day_min", empty=list, merge=merge_by_day(2, min), step=_step_least_of_day, put=_put_least_of_day,
    stride=2, window=window_of(2, None, lambda v, c: c[0] if v is None else min(v, c[0])),
)  # fmt: skip
DAY_MAX: Final = Cells(
    name="day_max", empty=list, merge=merge_by_day(2, max), step=_step_greatest_of_day, put=_put_greatest_of_day,
    stride=2, window=window_of(2, None, lambda v, c: c[0] if v is None else max(v, c[0])),
)  # fmt: skip
MIN: Final = SlotKind(
    name="min", empty=none, merge=least, step=_step("<"), put=put_least, inline=LEAST_INLINE, by_day=DAY_MIN
)
MAX: Final = SlotKind(
    name="max", empty=none, merge=greatest, step=_step(">"), put=put_greatest, inline=GREATEST_INLINE, by_day=DAY_MAX
)
