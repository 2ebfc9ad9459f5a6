"""The two newest stamps, descending; equal stamps count twice. Pure."""

from typing import Any, Final

from projections.slots.base import SlotKind, SlotNeed, StepCode


def top_two(a: list[int], b: list[int]) -> list[int]:
    return sorted(a + b, reverse=True)[:2]


def add_top(stamps: list[int], at_us: int) -> None:
    """Keep the two largest stamps."""
    stamps.append(at_us)
    stamps.sort(reverse=True)
    del stamps[2:]


def _step(code: StepCode, _need: SlotNeed, at: str, _pinned: bool) -> list[str]:
    return [f"{code.use(add_top)}({at}, us)"]


def _put(slots: list[Any], i: int, _day: int, value: int) -> None:
    add_top(slots[i], value)


TOP_TWO: Final = SlotKind(name="top_two", empty=list, merge=top_two, step=_step, put=_put)
