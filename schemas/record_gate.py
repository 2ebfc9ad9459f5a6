"""Which record version may be written: one that all who read the log can read. Pure.

A build can read its own version and all before. Two things hold a newer version back: a process that lives and reads
less, and the floor, a stored fact that says what every reader of this log is known to read, those included that are
stopped just now. The floor rises by an act of people alone (decision 0021).
"""

from collections.abc import Iterable
from typing import Final

FIRST: Final = 1


def version_to_write(own: int, floor: int, readers: Iterable[int]) -> int:
    """The highest version that we can write (`own`), that the floor allows and that all who live can read."""
    return max(FIRST, min([own, floor, *readers]))


def lacking(wanted: int, readers: Iterable[tuple[str, int]]) -> list[str]:
    """Of (name, version it reads) those that keep the floor below `wanted`."""
    return sorted(name for name, reads in readers if reads < wanted)
