"""Which local days had an event: a sorted bitmap of 60 days a word, read whole or by window. Pure."""

from typing import Any, Final

from projections.slots.base import SlotNeed, StepCode
from projections.slots.cells import Cells, cell_at, merge_by_day

DAYS_A_WORD: Final = 60


def add_day(words: list[int], day: int) -> None:
    """Set a day's bit."""
    words[cell_at(words, day // DAYS_A_WORD, 2, (0,))] |= 1 << day % DAYS_A_WORD


def window_days(words: list[int], first: int) -> tuple[int, int | None]:
    """How many bits are set from a day on, and the oldest of those days."""
    count, oldest = 0, None
    for i in range(0, len(words), 2):
        begin = words[i] * DAYS_A_WORD
        bits = words[i + 1] >> max(0, first - begin) << max(0, first - begin)
        if bits and oldest is None:
            oldest = begin + (bits & -bits).bit_length() - 1
        count += bits.bit_count()
    return count, oldest


def days_of(words: list[int]) -> list[int]:
    """The days in a bitmap, ascending."""
    return [
        word * DAYS_A_WORD + bit
        for word, bits in zip(words[::2], words[1::2], strict=True)
        for bit in range(DAYS_A_WORD)
        if bits >> bit & 1
    ]


def _step(code: StepCode, _need: SlotNeed, at: str, _pinned: bool) -> list[str]:
    return [f"{code.use(add_day)}({at}, {code.day()})"]


def _put(slots: list[Any], i: int, day: int, _value: Any) -> None:
    add_day(slots[i], day)


DAYS: Final = Cells(
    name="days", empty=list, merge=merge_by_day(2, lambda a, b: [a[0] | b[0]]), step=_step, put=_put,
    stride=2, window=window_days, days_a_cell=DAYS_A_WORD,
)  # fmt: skip
