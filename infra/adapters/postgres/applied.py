"""How far the live revision is, for callers waiting until everything accepted is applied and decided."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from infra.adapters.postgres.control import waiting
from infra.adapters.postgres.database import Database
from schemas.errors import StoreUnavailable
from schemas.waits import Waiting

_APPLIED: Final = """
select coalesce(array_agg(next_offset order by partition), '{}') from progress
where revision = (select revision from revisions where state = 'live')
"""
_STATE: Final = """
select (select array_agg(next_offset order by partition) from progress where revision = live.revision),
       (select count(*) from marks where revision = live.revision and id <= %s),
       (select coalesce(max(id), 0) from marks where revision = live.revision),
       (select array[revision, done] from revisions where state = 'building' order by revision limit 1),
       (select array_agg(w.partition) from waiting w join progress p using (partition)
        where w.reader = 'worker' and p.revision = live.revision and p.next_offset = w."offset"),
       exists (select from waiting where reader = 'refold')
from revisions live where state = 'live'
"""


class Applied(NamedTuple):
    """One look: `waiting` work items up to the given id, the `newest` item's id, (revision, share done) being built."""

    folded: list[int]
    waiting: int
    newest: int
    building: tuple[float, float] | None
    waits: frozenset[int] = frozenset()  # partitions blocked by a record that cannot be read yet
    refolds_wait: bool = False

    def line(self, total: int) -> str:
        """For people; `total`: accepted records."""
        if self.building is not None:
            return f"building revision {self.building[0]:.0f}: {self.building[1]:.0%}"
        return f"applied {min(sum(self.folded), total):,} of {total:,}"


def applied_offsets(database: Database) -> list[int]:
    """By partition; empty if nothing is live."""
    row = database.one(_APPLIED)
    return [int(at) for at in row[0]] if row else []


def waiting_now(database: Database) -> list[Waiting]:
    """The partitions blocked by a record that cannot be read yet, and what else is waiting for an upgrade."""
    with database.reading() as cursor:
        return waiting(cursor)


def look(database: Database, up_to: int) -> Applied:
    """Everything at the same instant. `up_to`: the id of a work item."""
    row = database.one(_STATE, (up_to,))
    if row is None:
        raise StoreUnavailable("there is no live revision: see touchfold doctor")
    folded, items, newest, building, waits, refolds_wait = row
    shown: Sequence[float] | None = building
    return Applied(
        *([int(at) for at in folded or ()], int(items), int(newest)),
        None if shown is None else (shown[0], shown[1]),
        frozenset(waits or ()),
        bool(refolds_wait),
    )
