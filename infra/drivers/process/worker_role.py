"""The worker process: makes the processors' services from a session and runs their loop."""

import gc
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from infra.adapters.archive.reading_log import CachedLog
from infra.adapters.kafka.access import EVENTS
from infra.adapters.machine.disk import BUILDING, WORKER, reserve_bytes
from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.rebuild import PostgresRebuild
from infra.adapters.postgres.search import PostgresSearch
from infra.adapters.postgres.store import PostgresStore
from infra.drivers.stream.life import Subscription
from processors.live.dead_letters import letter_maker
from processors.live.feeder import LogFeeder
from processors.live.figure_keeper import FigureKeeper
from processors.live.search_index import SearchIndexer
from processors.live.services import BATCH, Services
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from schemas.errors import ServiceFailed, StoreUnavailable
from schemas.work import PartitionWork

if TYPE_CHECKING:
    from infra.app.bootstrap import Session

Runner = Callable[[PartitionWork, Subscription, threading.Event], None]  # of aiokafka_runner and faust_runner
_log = logging.getLogger("touchfold.worker")
NAME_S: Final = 20.0
RECORD_BYTES: Final = 4_096  # what folding and deciding a record writes, WAL included; about 2,500 of new customers
SHARED_IDLE_S: Final = 10.0  # a worker stopped inside a transaction holds its locks so long, as its group session


def services_of(session: "Session", *, shared: bool = False) -> Services:
    """Connections of their own for everything the loop touches. `shared`: other workers wait for our locks."""
    vault = session.vault()
    receipts = session.door_clock  # the keys of letters are kept for 30 days of real time
    return Services(
        log=CachedLog(session.log())
        if shared
        else session.log(),  # records that hold direct traits are asked for often
        store=PostgresStore(session.dsn, idle_s=SHARED_IDLE_S if shared else None),
        control=PostgresControl(session.dsn, "touchfold worker control"),
        sealer=vault,
        letter=letter_maker(vault, lambda: vault.daily_token(receipts.now().date()), receipts),
        clock=session.clock,
        time_zone=session.time_zone,
        currency=session.currency,
        check_room=partial(session.disk.check, WORKER) if _shares_the_disk(session) else lambda: None,
        batch=_batch(session.disk.space().total) if _shares_the_disk(session) else BATCH,
    )


def _shares_the_disk(session: "Session") -> bool:
    """Whether what PostgreSQL writes goes to the data folder's disk: its own server's, and not one of yours."""
    return isinstance(session.adapters.server, EmbeddedPostgres)


def _batch(disk: int) -> int:
    """Records of a partition in one transaction: what all four write fits into a quarter of the reserve."""
    return max(100, min(BATCH, reserve_bytes(disk) // 4 // (4 * RECORD_BYTES)))


def _builder_of(session: "Session", services: Services) -> Builder:
    has_room = partial(session.disk.has_room, BUILDING) if _shares_the_disk(session) else lambda: True
    return Builder(services, PostgresRebuild(session.dsn), has_room)


def worker_of(session: "Session", member: str | None = None) -> Worker:
    """A worker with its builder of revisions: among others where the log is Kafka, else alone.

    `member`: its name in the group, which it alone may have.
    """
    shared = session.adapters.kafka is not None
    services = services_of(session, shared=shared)
    vault, store = session.vault(), services.store
    assert isinstance(store, PostgresStore), "services_of makes it"
    return Worker(
        services,
        _builder_of(session, services),
        SearchIndexer(PostgresSearch(session.dsn), vault, vault, services.log),
        FigureKeeper(services),
        owner=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
        shared=shared,
        check_in=(lambda: None) if member is None else partial(check_name, store, member),
    )


def member_name(session: "Session", number: int) -> str:
    """Of a worker process in the group: the same after a restart on this machine and data folder."""
    name = session.settings.worker_id
    if name is None:
        folder = blake2b(str(session.data.resolve()).encode(), digest_size=4).hexdigest()
        name = f"{socket.gethostname()}-{folder}"
    return f"{name}-{number}"


def check_name(store: PostgresStore, member: str) -> None:
    """Raises ServiceFailed when another process has this name: the brokers would take turns between the two."""
    if not store.hold(f"touchfold worker {member}"):
        raise ServiceFailed(
            f"another worker runs under the name {member}, and the brokers know workers by it: give each machine its "
            "own TOUCHFOLD_WORKER_ID, or unset it"
        )


def await_name(store: PostgresStore, member: str, stop: threading.Event) -> None:
    """Before the group is joined. A process that was killed has its name until PostgreSQL noticed: wait for that."""
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
    """Until `stop`. `number`: of this process among the workers of its supervisor.

    What is alive after the first step stays alive: the collector need not look at it again.
    """
    if session.adapters.kafka is None:
        feeder = LogFeeder(worker_of(session))
        _settle_memory()
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
    _settle_memory()
    runner(work, reads, stop)


def _settle_memory() -> None:
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # states by the thousand make the default threshold double the cost
