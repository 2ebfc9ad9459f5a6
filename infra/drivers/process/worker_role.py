"""The worker process: runs the loop until it is stopped."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from infra.adapters.kafka.access import EVENTS
from infra.adapters.postgres.store import PostgresStore
from infra.app.worker import check_name, worker_of
from infra.drivers.process.memory import tune_memory
from infra.drivers.stream.life import Subscription
from processors.live.feeder import LogFeeder
from schemas.errors import ServiceFailed, StoreUnavailable
from schemas.work import PartitionWork

if TYPE_CHECKING:
    from infra.app.session import Session

Runner = Callable[[PartitionWork, Subscription, threading.Event], None]  # of aiokafka_runner and faust_runner
_log = logging.getLogger("touchfold.worker")
NAME_S: Final = 20.0


def member_name(session: "Session", number: int) -> str:
    """The name of a worker process in the group: the same after a restart on this machine and data folder."""
    name = session.settings.worker_id
    if name is None:
        folder = blake2b(str(session.data.resolve()).encode(), digest_size=4).hexdigest()
        name = f"{socket.gethostname()}-{folder}"
    return f"{name}-{number}"


def await_name(store: PostgresStore, member: str, stop: threading.Event) -> None:
    """Call before joining the group. A killed process keeps its name until PostgreSQL notices: wait for that."""
    deadline = time.monotonic() + NAME_S
    while not stop.is_set():
        try:
            check_name(store, member)
            return
        except ServiceFailed:
            if time.monotonic() > deadline:
                raise
        except StoreUnavailable as err:
            _log.warning("waiting: %s", err.message)
        stop.wait(0.5)


def run(session: "Session", stop: threading.Event, number: int = 0) -> None:
    """Run until `stop`. `number`: of this process among the workers of its supervisor.

    Objects alive after the first step stay alive: the garbage collector need not look at them again.
    """
    if session.adapters.kafka is None:
        feeder = LogFeeder(worker_of(session))
        tune_memory()
        feeder.run(stop)
        return
    member = member_name(session, number)
    work = worker_of(session, member)
    assert isinstance(work.services.store, PostgresStore), "services_of makes it"
    await_name(work.services.store, member, stop)
    if session.settings.worker_runner == "faust":
        from infra.drivers.stream.faust_runner import run as run_faust  # noqa: PLC0415  # 0.6 s

        runner: Runner = run_faust
    else:
        from infra.drivers.stream.aiokafka_runner import run as run_aiokafka  # noqa: PLC0415

        runner = run_aiokafka
    access = session.adapters.kafka
    reads = Subscription(
        *(access, f"{access.prefix}-worker", access.topic(EVENTS), session.clock, work.services.log.read),
        member=member,
        unclaimed=lambda: (work.services.log.partitions > 0) and work.services.control.has_unclaimed(),
    )
    tune_memory()
    runner(work, reads, stop)
