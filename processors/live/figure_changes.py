"""How one DECIDE changes the overview's figures: the cells of its profiles after it minus those before."""

from collections.abc import Mapping
from typing import NamedTuple

from processors.live.large_profiles import Touched
from projections.decide.figures import Side, add_change, add_profile, spent_of
from projections.fold import state as st
from projections.fold.fold import Fold
from projections.fold.state import State
from projections.orders.orders import of_maps, order_slots, summed_up
from projections.orders.summary import Spent
from schemas.figures import Cells, Counted
from schemas.store_rows import ProfileRow

_NONE = of_maps([])


class _Change(NamedTuple):
    old: ProfileRow
    row: ProfileRow
    before: State  # only its order slots
    after: State


class FigureChanges:
    """Collects changes; `cells` computes the deltas, for profiles that are already counted.

    `touched`: by profile, the changed orders of profiles over the cap.
    """

    def __init__(self, fold: Fold, touched: Mapping[bytes, Touched]) -> None:
        self._fold = fold
        self._touched = touched
        self._new: list[tuple[ProfileRow, State]] = []
        self._changed: list[_Change] = []
        self._ended: list[ProfileRow] = []

    def __bool__(self) -> bool:
        return bool(self._new or self._changed or self._ended)

    def note(self, old: ProfileRow | None, row: ProfileRow, state: State, *, bought: bool) -> None:
        """Add a decided profile with its unpacked state. `bought` False: no order event came since `old`."""
        if old is None:
            self._new.append((row, state))
            return
        same = old.first_us == row.first_us and old.risk == row.risk and old.lifecycle == row.lifecycle
        if same and not bought and row.profile_id not in self._touched:
            return
        before = order_slots(old.state)
        if not same or before[st.ORDERS : st.CANCELS + 1] != state[st.ORDERS : st.CANCELS + 1]:
            self._changed.append(_Change(old, row, before, state))

    def end(self, old: ProfileRow) -> None:
        """Add a profile that no longer exists."""
        self._ended.append(old)

    def cells(self, upto: bytes | None) -> Cells:
        """The deltas of the profiles up to an id (None: all); the rest are counted later, as they are then."""
        cells: Cells = {}
        days, touched = self._fold.days, self._touched
        for row, state in self._new:
            if upto is None or row.profile_id <= upto:
                made = touched[row.profile_id].after if summed_up(state) else state
                add_profile(cells, _counted(row), days, 1, made)
        for each in self._changed:
            if upto is None or each.row.profile_id <= upto:
                self._add_change(cells, each)
        for row in self._ended:
            if upto is None or row.profile_id <= upto:
                gone = touched.get(row.profile_id)
                known = gone is not None and order_slots(row.state)[st.ORDERS] != st.OVERFLOW
                add_profile(cells, _counted(row), days, -1, gone.before if gone is not None and known else None)
        return cells

    def _add_change(self, cells: Cells, each: _Change) -> None:
        touched = self._touched.get(each.row.profile_id)
        orders = (
            self._orders(each.before, None if touched is None else touched.before),
            self._orders(each.after, None if touched is None else touched.after),
        )
        add_change(
            cells,
            Side(_counted(each.old), self._spent(each.before)),
            Side(_counted(each.row), self._spent(each.after)),
            orders,
        )

    def _orders(self, state: State, touched: State | None) -> State:
        """The orders before or after; for a profile over the cap, those of the touched leaves."""
        if state[st.REFUNDS] != st.OVERFLOW:
            return state
        return _NONE if touched is None or state[st.ORDERS] == st.OVERFLOW else touched

    def _spent(self, state: State) -> Spent | None:
        if summed_up(state):
            return self._fold.summaries.spent(state[st.ORDERS])
        return None if state[st.ORDERS] == st.OVERFLOW else spent_of(state, self._fold.days)


def _counted(row: ProfileRow) -> Counted:
    return Counted(row.profile_id, row.state, row.first_us, row.risk, row.lifecycle)
