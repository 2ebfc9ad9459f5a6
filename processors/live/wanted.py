"""What one run of DECIDE decides, and why; what it reads of a state."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import NamedTuple

from processors.live.delta_cache import Seen
from processors.live.differences import Cause
from processors.live.resolve import Moves
from projections.fold.state import State


class Wanted(NamedTuple):
    """What one run decides. `grown`: by profile, the events that are all its stored state lacks.

    `newest`, `owners`: of the queued identifier sets; `remade`: those whose states may have been folded again from the
    log. `shrunk`: profiles that may have lost something.
    """

    causes: dict[bytes, Cause]
    moves: Moves
    grown: dict[bytes, list[Seen]]
    newest: Mapping[bytes, tuple[int, bytes]]
    owners: Mapping[bytes, bytes]
    remade: AbstractSet[bytes]
    shrunk: AbstractSet[bytes]


def digest_of(packed: bytes) -> int:
    """Equal only for equal states, which then contain the same events."""
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "big", signed=True)


def stamp_us(state: State, slot: int) -> int | None:
    """When the first or last event occurred."""
    return int(state[slot][0]) if state[slot] else None
