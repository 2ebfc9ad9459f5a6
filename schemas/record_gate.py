"""Which record version may be written: one that every reader of the log can read. Pure.

A build can read its own version and all earlier ones. Two things hold a newer version back: a running process that
cannot read it, and the floor, a stored fact that says which version every reader of this log can read, including those
stopped at the moment. Only people raise the floor (decision 0021).
"""

from collections.abc import Iterable
from typing import Final

FIRST: Final = 1


def version_to_write(own: int, floor: int, readers: Iterable[int]) -> int:
    """The highest version that we can write (`own`), the floor allows and all running processes can read."""
    return max(FIRST, min([own, floor, *readers]))


def lacking(wanted: int, readers: Iterable[tuple[str, int]]) -> list[str]:
    """The names, from (name, version it reads), that keep the floor below `wanted`."""
    return sorted(name for name, reads in readers if reads < wanted)
