"""Keeps the overview's figures complete, in the worker's pauses (decision 0018).

DECIDE and FOLD write their own changes. This module does the rest: it counts profiles and events older than the
figures, counts the orders of erased people, and adds deltas up into cells.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from processors.erase.refold import chunks_at
from processors.live.compiled import Compiled, folder_of
from processors.live.services import Services
from projections.decide.figures import add_events, add_nobody, add_profile, roll_up
from projections.orders.orders import orders_alone
from schemas.errors import RecordUnreadable
from schemas.figures import EVENTS, Cells
from schemas.log_range import records_between
from schemas.store import DecideTx

PROFILES: Final = 5_000  # counted in one transaction: a tenth of a second
RECORDS: Final = 10_000
SIGNATURES: Final = 100
DELTAS: Final = 500  # transactions, with some hundred cells each
COMPACT_S: Final = 5.0


@dataclass
class FigureKeeper:
    """`step` does a slice; `compact` is cheap enough to call in any pause."""

    services: Services
    monotonic: Callable[[], float] = time.monotonic
    _compacted_at: float = float("-inf")

    def step(self, compiled: Compiled) -> bool:
        """Count a slice of what waits in a revision; True if there was any."""
        with self.services.store.decide() as tx:
            return self._nobody(tx, compiled) or self._profiles(tx, compiled) or self._events(tx, compiled)

    def compact(self, compiled: Compiled) -> bool:
        """Add up the deltas gathered since the last time, at most every few seconds; True if there are more."""
        now = self.monotonic()
        if now - self._compacted_at < COMPACT_S:
            return False
        with self.services.store.decide() as tx:
            more = tx.compact_figures(DELTAS, lambda cells: roll_up(cells, compiled.fold.days)) >= DELTAS
        if not more:
            self._compacted_at = now
        return more

    def _nobody(self, tx: DecideTx, compiled: Compiled) -> bool:
        """Fold the orders of erased people from the log again, each identifier set by itself."""
        revision = compiled.revision.revision
        due = tx.take_nobody(revision, SIGNATURES)
        if not due:
            return False
        cells: Cells = {}
        made = self._orders_of(tx, compiled, due)
        for identifier_set, before in due.items():
            if before is not None:
                add_nobody(cells, before, -1)
            if made[identifier_set]:
                add_nobody(cells, made[identifier_set])
        tx.save_nobody(revision, made)
        tx.add_figures(revision, cells)
        return True

    def _orders_of(
        self, tx: DecideTx, compiled: Compiled, identifier_sets: dict[bytes, bytes | None]
    ) -> dict[bytes, bytes]:
        """The packed orders of each, empty if it has none."""
        services = self.services
        fold, folder = compiled.fold, folder_of(services, compiled, {})
        states = {identifier_set: fold.new_state() for identifier_set in identifier_sets}
        owned = tx.owned_order_sets(identifier_sets)
        for chunk in chunks_at(folder, tx.positions_of_nobody(identifier_sets)):
            for each in chunk:  # nothing is laid off, whatever the cap
                if each.of_order is not None and each.of_order.order_set in owned:
                    continue  # a profile has what it does to its order
                fold.apply(each.event, states[each.identifier_set], None)  # sealed parts can no longer be opened
        alone = {identifier_set: orders_alone(state) for identifier_set, state in states.items()}
        return {identifier_set: fold.pack(state) if any(state[4:6]) else b"" for identifier_set, state in alone.items()}

    def _profiles(self, tx: DecideTx, compiled: Compiled) -> bool:
        revision = compiled.revision.revision
        rows = tx.next_uncounted(revision, PROFILES)
        if rows is None:
            return False
        cells: Cells = {}
        for row in rows:
            add_profile(cells, row, compiled.fold.days)
        tx.add_figures(revision, cells)
        return True

    def _events(self, tx: DecideTx, compiled: Compiled) -> bool:
        following = tx.next_events()
        if following is None:
            return False
        partition, start, until = following
        records = next(records_between(self.services.log, partition, start, until, RECORDS), [])
        end = records[-1].offset + 1 if records else until
        skipped = tx.skipped(partition, start, end)
        events = []
        for record in records:
            if record.offset in skipped:
                continue
            try:
                event = compiled.fold.decode(record.value)
            except RecordUnreadable:
                continue  # it is in no table either
            events.append((event.type, event.occurred_us))
        cells: Cells = {}
        add_events(cells, events, compiled.fold.days)
        tx.add_figures(EVENTS, cells)
        tx.events_counted(partition, end)
        return True
