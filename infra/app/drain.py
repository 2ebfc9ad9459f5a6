"""Waits until everything accepted is applied and decided, or does that work here. For commands, not the worker loop."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from infra.adapters.archive.reading_log import Tails, accepted_ends
from infra.adapters.machine.disk import WORKER
from infra.adapters.postgres.applied import Applied, look, waiting_now
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database
from infra.app.first_start import Say, quiet
from infra.app.log import log_of
from infra.app.vault import vault_of
from schemas.errors import StoreUnavailable
from schemas.waits import Waiting, open_transaction

if TYPE_CHECKING:
    from infra.app.session import Session
    from processors.live.feeder import LogFeeder

LOOK_S: Final = 0.03
PATIENCE_S: Final = 120.0  # without progress: the worker is missing or stuck
FULL_S: Final = 2.0  # without progress on a full disk: the worker has stopped, and says so
ROUNDS: Final = 3  # a decision may add work items (a new shared identifier unlinks others); these are waited for too
_ALL: Final = 2**62


def drain(session: "Session", progress: Say = quiet) -> list[Waiting]:
    """Return when everything accepted before the call is applied and decided, and no revision is being built.

    Runs the worker here, or waits for the one of the running `up` or of the cluster. Partitions blocked by a record
    that cannot be read yet are not waited for: they are reported as progress, and returned. Raises StoreUnavailable
    after two minutes without progress, DiskFull if that is the cause.
    """
    _drain(session, progress)
    with closing(Database(session.dsn, "touchfold drain")) as database:
        found = waiting_now(database)
    for each in found:
        progress(f"{each.line()}. To fix it: {each.remedy}")
    return found


def _drain(session: "Session", progress: Callable[[str], None]) -> None:
    if session.joined or (session.adapters.kafka is not None and _a_worker_lives(session)):
        _await(session, progress)
    else:
        _work_here(session, progress)


@contextmanager
def _feeder(session: "Session") -> "Iterator[LogFeeder]":
    """Another worker may run in this process next, so this one leaves no lock or connection behind."""
    from infra.app.worker import worker_of  # noqa: PLC0415  # 0.5 s that a joined session can skip
    from processors.live.feeder import LogFeeder  # noqa: PLC0415  # the same

    vault_of(session).hold_lease()  # otherwise every key is read again
    feeder = LogFeeder(worker_of(session))
    try:
        yield feeder
        feeder.release()
    finally:
        feeder.worker.upkeep.builder.resign()
        feeder.worker.services.store.close()


def _a_worker_lives(session: "Session") -> bool:
    """Whether a worker of the cluster is running on any machine."""
    from infra.adapters.postgres.presence import present  # noqa: PLC0415  # clusters only

    with closing(Database(session.dsn, "touchfold drain", Lane.WORK)) as database:
        return any(each.role == "worker" for each in present(database))


def _work_here(session: "Session", progress: Callable[[str], None]) -> None:
    """As the only worker: every partition is ours until everything is applied and decided."""
    with closing(Database(session.dsn, "touchfold drain", Lane.WORK)) as database, _feeder(session) as feeder:
        log = feeder.worker.services.log

        def work() -> None:
            while feeder.step():
                progress(look(database, 0).line(sum(log.ends())))

        if session.adapters.kafka is None:
            work()
            return
        ends, tails = accepted_ends(log), Tails(log)

        def done(_state: Applied) -> bool:
            work()
            tails.cut(ends, look(database, 0).folded)
            return not tails.held

        _until(database, _ALL, done, lambda seen: progress(seen.line(sum(ends))), lambda: None, tails)


def _await(session: "Session", progress: Callable[[str], None]) -> None:
    """Positions first, then the work items they left: one statement sees both at the same instant."""
    with closing(Database(session.dsn, "touchfold drain", Lane.WORK)) as database:
        log = log_of(session)
        ends = accepted_ends(log)
        total = sum(ends)
        tails = None if session.adapters.kafka is None else Tails(log)

        def folded(state: Applied) -> bool:
            if state.building is not None:
                return False
            wanted = ends if tails is None else tails.cut(ends, state.folded)
            # a topic may gain partitions meanwhile: an earlier look covers fewer, and the added ones were empty then
            places = enumerate(zip_longest(state.folded, wanted, fillvalue=0))
            return all(at >= end or partition in state.waits for partition, (at, end) in places)

        check_room = partial(session.disk.check, WORKER)
        state = _until(database, _ALL, folded, lambda seen: progress(seen.line(total)), check_room, tails)
        for _ in range(ROUNDS):
            if state.newest == 0:
                return
            state = _until(database, state.newest, _is_decided, lambda _seen: None, check_room)


def _is_decided(state: Applied) -> bool:
    return not state.waiting or state.refolds_wait


def _until(
    database: Database,
    up_to: int,
    done: Callable[[Applied], bool],
    tell: Callable[[Applied], None],
    check_room: Callable[[], None],
    tails: Tails | None = None,
) -> Applied:
    last: Applied | None = None
    since = time.monotonic()
    while True:
        state = look(database, up_to)
        if done(state):
            return state
        if state != last:
            last, since = state, time.monotonic()
            tell(state)
        elif time.monotonic() - since > FULL_S:
            check_room()
        if time.monotonic() - since > PATIENCE_S:
            held = () if tails is None else sorted(tails.held.items())
            waits = [open_transaction(partition, *place) for partition, place in held]
            why = "; ".join(f"{each.line()}. To fix it: {each.remedy}" for each in waits)
            raise StoreUnavailable(
                f"nothing was applied for {PATIENCE_S:.0f} s: "
                + (why or "check the worker's lines in the log of touchfold up")
            )
        time.sleep(LOOK_S)
