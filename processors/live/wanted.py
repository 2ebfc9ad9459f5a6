"""What one run of DECIDE decides, and why."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from processors.live.delta_cache import Seen
from processors.live.differences import Cause
from processors.live.resolve import Moves


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
