"""Slots by local day: flat sorted lists [day, payload…, day, payload…]; windows read the newest cells. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from projections.slots.base import Named, Slot, SlotKind

Window = Callable[[list[Any], int], tuple[Any, int | None]]
"""(non-empty cells, first day) → (value over the cells from that day on, the oldest of these days or None)"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Cells(SlotKind):
    """A kind by day. `stride`: items per cell, its day included. `days_a_cell`: 60 for bitmaps."""

    stride: int
    window: Window
    days_a_cell: int = 1

    @property
    def windowed(self) -> "Cells":
        return self

    def prune(self, slot: Slot, first_day: int) -> Slot:
        return drop_before(slot, first_day // self.days_a_cell, self.stride)

    def prune_lines(self, code: Named, at: str, first_day: str) -> list[str]:
        first = first_day if self.days_a_cell == 1 else f"({first_day}) // {self.days_a_cell}"
        drop = code.use(drop_before)
        return [f"c = {at}", f"if c and c[0] < {first}: {at} = {drop}(c, {first}, {self.stride})"]


def merge_by_day(stride: int, join: Callable[[list[Any], list[Any]], list[Any]]) -> Callable[[Slot, Slot], Slot]:
    """The merge of two lists of cells; `join` joins the payloads of the same day."""

    def merge(a: list[Any], b: list[Any]) -> list[Any]:
        if not a or not b:
            return a or b
        if a[-stride] < b[0]:
            return a + b
        if b[-stride] < a[0]:
            return b + a
        cells = {a[i]: a[i + 1 : i + stride] for i in range(0, len(a), stride)}
        for i in range(0, len(b), stride):
            mine, theirs = cells.get(b[i]), b[i + 1 : i + stride]
            cells[b[i]] = theirs if mine is None else join(mine, theirs)
        return [x for day in sorted(cells) for x in (day, *cells[day])]

    return merge


def window_of(stride: int, start: Any, step: Callable[[Any, list[Any]], Any]) -> Window:
    """A window reader that steps through payloads, newest first."""

    def read(cells: list[Any], first: int) -> tuple[Any, int | None]:
        value, oldest = start, None
        i = len(cells) - stride
        while i >= 0 and cells[i] >= first:
            value, oldest = step(value, cells[i + 1 : i + stride]), cells[i]
            i -= stride
        return value, oldest

    return read


def cell_at(cells: list[Any], day: int, stride: int, empty: Sequence[Any]) -> int:
    """Index of the payload in a day's cell; inserts `empty` if there is no cell."""
    i = len(cells)
    while i and cells[i - stride] > day:
        i -= stride
    if i and cells[i - stride] == day:
        return i - stride + 1
    cells[i:i] = (day, *empty)
    return i + 1


def drop_before(cells: list[Any], day: int, stride: int) -> list[Any]:
    """The cells from `day` on."""
    i = 0
    while i < len(cells) and cells[i] < day:
        i += stride
    return cells[i:] if i else cells
