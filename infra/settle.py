"""Wait until all that was accepted is applied and decided, or do it here. For commands; no loop of the worker's."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from infra.adapters.postgres_control import PostgresControl
from infra.drivers.worker_role import worker_of
from schemas.errors import StoreUnavailable

if TYPE_CHECKING:
    from infra.bootstrap import Session

LOOK_S: Final = 0.03
PATIENCE_S: Final = 120.0  # without any advance: the worker is not there or cannot go on


def settle(session: "Session", progress: Callable[[str], None]) -> None:
    """See `Session.settle`. Raises StoreUnavailable when nothing moves for two minutes."""
    if session.joined:
        _await(session, progress)
        return
    worker = worker_of(session)
    control = PostgresControl(session.dsn, "touchfold settle")
    log = session.log()
    session.vault().hold_lease()  # else every key is read again
    try:
        while worker.step():
            progress(_how_far(control, sum(log.ends())))
    finally:
        control.close()


def _await(session: "Session", progress: Callable[[str], None]) -> None:
    database = session.database("touchfold settle")
    ends = session.log().ends()
    control = PostgresControl(session.dsn, "touchfold settle")
    last: object = None
    deadline = time.monotonic() + PATIENCE_S
    newest_mark: int | None = None
    while True:
        revision = control.live().revision
        behind = [max(0, end - at.next_offset) for end, at in zip(ends, control.progress(revision), strict=True)]
        building = control.building()
        marks = 0
        if not any(behind):
            with database.transaction() as cursor:
                if newest_mark is None:  # marks of what was folded by now; later ones are later events'
                    cursor.execute("select coalesce(max(id), 0) from marks where revision = %s", (revision,))
                    row = cursor.fetchone()
                    newest_mark = int(row[0]) if row else 0
                cursor.execute("select count(*) from marks where revision = %s and id <= %s", (revision, newest_mark))
                row = cursor.fetchone()
                marks = int(row[0]) if row else 0
            if not marks and building is None:
                control.close()
                return
        seen = (revision, sum(behind), marks, building and (building.revision, building.done))
        if seen != last:
            last, deadline = seen, time.monotonic() + PATIENCE_S
            progress(_how_far(control, sum(ends)))
        elif time.monotonic() > deadline:
            control.close()
            raise StoreUnavailable(
                f"nothing was applied for {PATIENCE_S:.0f} s: look at the worker's lines in the log of touchfold up"
            )
        time.sleep(LOOK_S)


def _how_far(control: PostgresControl, total: int) -> str:
    building = control.building()
    if building is not None:
        return f"building revision {building.revision}: {building.done:.0%}"
    folded = sum(each.next_offset for each in control.progress(control.live().revision))
    return f"applied {min(folded, total)} of {total}"
