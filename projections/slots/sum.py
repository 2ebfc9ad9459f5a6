"""Sums: [how many values, their sum], in total or by local day; a mean is read from the same slot. Pure."""

from typing import Any, Final

from projections.slots.base import SlotKind, SlotNeed, StepCode, unkeyed
from projections.slots.cells import Cells, cell_at, merge_by_day, window_of


def add_pair(a: list[int], b: list[int]) -> list[int]:
    return [a[0] + b[0], a[1] + b[1]]


def _step(code: StepCode, need: SlotNeed, at: str, pinned: bool) -> list[str]:
    value = code.number(unkeyed(need), pinned)
    return [f"if {value} is not None:", f"    c = {at}", "    c[0] += 1", f"    c[1] += {value}"]


def _put(slots: list[Any], i: int, _day: int, value: int) -> None:
    slots[i][0] += 1
    slots[i][1] += value


def _take(slots: list[Any], i: int, _day: int, value: int) -> None:
    slots[i][1] -= value


def add_sum(cells: list[int], day: int, amount: int) -> None:
    i = cell_at(cells, day, 3, (0, 0))
    cells[i] += 1
    cells[i + 1] += amount


def _step_day(code: StepCode, need: SlotNeed, at: str, pinned: bool) -> list[str]:
    value = code.number(unkeyed(need), pinned)
    return [f"if {value} is not None: {code.use(add_sum)}({at}, {code.day()}, {value})"]


def _put_day(slots: list[Any], i: int, day: int, value: int) -> None:
    add_sum(slots[i], day, value)


def _take_day(slots: list[Any], i: int, day: int, value: int) -> None:
    sums = slots[i]
    sums[cell_at(sums, day, 3, (0, 0)) + 1] -= value


DAY_SUM: Final = Cells(
    name="day_sum", empty=list, merge=merge_by_day(3, add_pair), step=_step_day, put=_put_day, take=_take_day,
    stride=3, window=window_of(3, (0, 0), lambda v, c: (v[0] + c[0], v[1] + c[1])),
)  # fmt: skip
SUM: Final = SlotKind(
    name="sum", empty=lambda: [0, 0], merge=add_pair, step=_step, put=_put, take=_take,
    inline="[{a}[0] + {b}[0], {a}[1] + {b}[1]]", by_day=DAY_SUM,
)  # fmt: skip
