"""Counts: how many events, in total or by local day. Pure."""

from typing import Any, Final

from projections.slots.base import SlotKind, SlotNeed, StepCode
from projections.slots.cells import Cells, cell_at, merge_by_day


def add(a: int, b: int) -> int:
    return a + b


def _step(_code: StepCode, _need: SlotNeed, at: str, _pinned: bool) -> list[str]:
    return [f"{at} += 1"]


def _put(slots: list[Any], i: int, _day: int, _value: Any) -> None:
    slots[i] += 1


def add_count(cells: list[int], day: int) -> None:
    cells[cell_at(cells, day, 2, (0,))] += 1


def window_count(cells: list[int], first: int) -> tuple[int, int | None]:
    """A window of counts, the most common window, without a call per cell."""
    if cells[0] >= first:
        return sum(cells[1::2]), cells[0]
    i = len(cells) - 2
    while i >= 0 and cells[i] >= first:
        i -= 2
    return sum(cells[i + 3 :: 2]), cells[i + 2] if i + 2 < len(cells) else None


def _step_day(code: StepCode, _need: SlotNeed, at: str, _pinned: bool) -> list[str]:
    day = code.day()
    return [f"c = {at}", f"if c and c[-2] == {day}: c[-1] += 1", f"else: {code.use(add_count)}(c, {day})"]


def _put_day(slots: list[Any], i: int, day: int, _value: Any) -> None:
    add_count(slots[i], day)


DAY_COUNT: Final = Cells(
    name="day_count", empty=list, merge=merge_by_day(2, lambda a, b: [a[0] + b[0]]), step=_step_day, put=_put_day,
    stride=2, window=window_count,
)  # fmt: skip
COUNT: Final = SlotKind(name="count", empty=int, merge=add, step=_step, put=_put, inline="{a} + {b}", by_day=DAY_COUNT)
