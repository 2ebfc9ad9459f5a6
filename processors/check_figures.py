"""The part of `rebuild --check` for the overview's figures: every cell summed anew from its profiles."""

from projections.figures import add_nobody, add_profile
from projections.state import LocalDays
from schemas.figures import Cells, Counted, Key
from schemas.store import Snapshot

Unequal = tuple[str, str, str]  # which cell, what is kept, what was summed


def unequal_figures(snapshot: Snapshot, days: LocalDays) -> list[Unequal]:
    """The cells that are not the sum over profiles; none while an earlier version's folder is counted."""
    kept = snapshot.figures()
    if kept is None:
        return []
    summed: Cells = {}
    for row in snapshot.profiles():
        add_profile(summed, Counted(row.profile_id, row.state, row.first_us, row.risk, row.lifecycle), days)
    for orders in snapshot.nobody():
        add_nobody(summed, orders)
    found = []
    for key in sorted(kept.keys() | summed.keys()):
        mine, theirs = _plain(kept, key), _plain(summed, key)
        if mine != theirs:
            found.append((str(key), str(mine), str(theirs)))
    return found


def _plain(cells: Cells, key: Key) -> tuple[int, int]:
    n, amount = cells.get(key, (0, 0))
    return n, amount
