"""What one DECIDE changes of the overview's figures: the cells of its profiles after it less those before."""

from projections.figures import add_change, add_profile, same_orders
from projections.orders import order_slots
from projections.state import LocalDays, State
from schemas.figures import Cells, Counted
from schemas.store import ProfileRow


class FigureChanges:
    """Collects; `cells` computes, for the profiles that are counted already."""

    def __init__(self, days: LocalDays) -> None:
        self._days = days
        self._new: list[tuple[Counted, State]] = []
        self._changed: list[tuple[Counted, Counted, State, State]] = []  # row before, after, orders before, after
        self._ended: list[Counted] = []

    def __bool__(self) -> bool:
        return bool(self._new or self._changed or self._ended)

    def note(self, old: ProfileRow | None, row: ProfileRow, state: State, *, bought: bool) -> None:
        """A decided profile with its unpacked state. `bought` False: no event of an order came since `old`."""
        if old is None:
            self._new.append((_counted(row), state))
            return
        same = (old.first_us, old.risk, old.lifecycle) == (row.first_us, row.risk, row.lifecycle)
        if same and not bought:
            return
        before = order_slots(old.state)
        if not same or not same_orders(before, state):
            self._changed.append((_counted(old), _counted(row), before, state))

    def end(self, old: ProfileRow) -> None:
        """A profile that is no more."""
        self._ended.append(_counted(old))

    def cells(self, upto: bytes | None) -> Cells:
        """The deltas of the profiles up to an id, None for all; the others will be counted as they are then."""
        cells: Cells = {}
        days = self._days
        for row, state in self._new:
            if upto is None or row.profile_id <= upto:
                add_profile(cells, row, days, 1, state)
        for old, row, before, after in self._changed:
            if upto is None or row.profile_id <= upto:
                add_change(cells, old, row, before, after, days)
        for row in self._ended:
            if upto is None or row.profile_id <= upto:
                add_profile(cells, row, days, -1)
        return cells


def _counted(row: ProfileRow) -> Counted:
    return Counted(row.profile_id, row.state, row.first_us, row.risk, row.lifecycle)
