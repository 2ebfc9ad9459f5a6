"""The part of `rebuild --check` for the overview's figures: sums every cell again from the log's orders."""

from collections.abc import Iterable

from projections.days import LocalDays
from projections.decide.figures import add_nobody, add_profile, roll_up
from projections.fold.state import State
from schemas.figures import Cells, Counted, Key, add
from schemas.store_rows import ProfileRow

Unequal = tuple[str, str, str]  # cell, stored value, summed value


class FigureSums:
    """Adds up profiles one by one; memory is only that of the cells."""

    def __init__(self, days: LocalDays) -> None:
        self._days = days
        self._cells: Cells = {}

    def add(self, row: ProfileRow, state: State) -> None:
        """Add a profile. `state`: with all its orders, whatever the cap."""
        counted = Counted(row.profile_id, b"", row.first_us, row.risk, row.lifecycle)
        add_profile(self._cells, counted, self._days, state=state)

    def unequal(self, stored: Cells, deltas: Cells, nobody: Iterable[bytes]) -> list[Unequal]:
        """The stored cells that differ from the sum over profiles and over orders without a customer."""
        for orders in nobody:
            add_nobody(self._cells, orders)
        found = []
        kept = roll_up(deltas, self._days)
        for key, (n, amount) in stored.items():
            add(kept, key, n, amount)
        summed = roll_up(self._cells, self._days)
        for key in sorted(kept.keys() | summed.keys()):
            mine, theirs = _plain(kept, key), _plain(summed, key)
            if mine != theirs:
                found.append((str(key), str(mine), str(theirs)))
        return found


def _plain(cells: Cells, key: Key) -> tuple[int, int]:
    n, amount = cells.get(key, (0, 0))
    return n, amount
