"""The first and the last value by stamp: [occurred_us, order, value] or None, in total or by local day. Pure."""

from typing import Any, Final

from projections.slots.base import SlotKind, SlotNeed, Step, StepCode, unkeyed
from projections.slots.cells import Cells, cell_at, merge_by_day, window_of
from projections.slots.extremes import (
    GREATEST_INLINE,
    LEAST_INLINE,
    greatest,
    least,
    none,
    put_greatest,
    put_least,
)


def _step(sign: str) -> Step:
    def step(code: StepCode, need: SlotNeed, at: str, pinned: bool) -> list[str]:
        value = code.kept(unkeyed(need), pinned)
        return [
            f"if {value} is not None:",
            f"    c = [us, key, {value}]",
            f"    if {at} is None or c {sign} {at}: {at} = c",
        ]

    return step


def add_earliest(cells: list[Any], day: int, stamped: list[Any]) -> None:
    i = cell_at(cells, day, 4, stamped)
    cells[i : i + 3] = min(cells[i : i + 3], stamped)


def add_latest(cells: list[Any], day: int, stamped: list[Any]) -> None:
    i = cell_at(cells, day, 4, stamped)
    cells[i : i + 3] = max(cells[i : i + 3], stamped)


def _step_earliest_of_day(code: StepCode, need: SlotNeed, at: str, pinned: bool) -> list[str]:
    value = code.kept(unkeyed(need), pinned)
    return [f"if {value} is not None: {code.use(add_earliest)}({at}, {code.day()}, [us, key, {value}])"]


def _step_latest_of_day(code: StepCode, need: SlotNeed, at: str, pinned: bool) -> list[str]:
    value = code.kept(unkeyed(need), pinned)
    return [f"if {value} is not None: {code.use(add_latest)}({at}, {code.day()}, [us, key, {value}])"]


def _put_earliest_of_day(slots: list[Any], i: int, day: int, stamped: list[Any]) -> None:
    add_earliest(slots[i], day, stamped)


def _put_latest_of_day(slots: list[Any], i: int, day: int, stamped: list[Any]) -> None:
    add_latest(slots[i], day, stamped)


DAY_FIRST: Final = Cells(
    name="day_first", empty=list, merge=merge_by_day(4, min), step=_step_earliest_of_day, put=_put_earliest_of_day,
    stamped=True, stride=4, window=window_of(4, None, lambda v, c: c if v is None else min(v, c)),
)  # fmt: skip
DAY_LAST: Final = Cells(
    name="day_last", empty=list, merge=merge_by_day(4, max), step=_step_latest_of_day, put=_put_latest_of_day,
    stamped=True, stride=4, window=window_of(4, None, lambda v, c: c if v is None else max(v, c)),
)  # fmt: skip
FIRST: Final = SlotKind(
    name="first",
    empty=none,
    merge=least,
    step=_step("<"),
    put=put_least,
    stamped=True,
    inline=LEAST_INLINE,
    by_day=DAY_FIRST,
)
LAST: Final = SlotKind(
    name="last",
    empty=none,
    merge=greatest,
    step=_step(">"),
    put=put_greatest,
    stamped=True,
    inline=GREATEST_INLINE,
    by_day=DAY_LAST,
)
