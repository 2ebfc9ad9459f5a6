"""Builds the processors' services and the worker from a session."""

import os
import secrets
import socket
from functools import partial
from typing import Final

from infra.adapters.archive.reading_log import CachedLog
from infra.adapters.machine.disk import BUILDING, WORKER, reserve_bytes
from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.rebuild import PostgresRebuild
from infra.adapters.postgres.search import PostgresSearch
from infra.adapters.postgres.store import PostgresStore
from infra.app.identity import rules_in
from infra.app.log import log_of
from infra.app.session import Session
from infra.app.vault import vault_of
from processors.live.dead_letters import dead_letter_maker
from processors.live.figure_keeper import FigureKeeper
from processors.live.search_index import SearchIndexer
from processors.live.services import BATCH, Services
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from schemas.errors import ServiceFailed

RECORD_BYTES: Final = 4_096  # written to fold and decide one record, WAL included; about 2,500 for new customers
SHARED_IDLE_S: Final = 10.0  # how long a worker stopped inside a transaction keeps its locks, as with its group session


def services_of(session: Session, *, shared: bool = False) -> Services:
    """Separate connections for everything the loop touches. `shared`: other workers wait for our locks."""
    vault = vault_of(session)
    receipts = session.door_clock  # dead letters' keys are kept for 30 days of real time
    return Services(
        log=CachedLog(log_of(session)) if shared else log_of(session),  # records that hold direct traits are read often
        store=PostgresStore(session.dsn, idle_s=SHARED_IDLE_S if shared else None),
        control=PostgresControl(session.dsn, "touchfold worker control"),
        sealer=vault,
        letter=dead_letter_maker(vault, lambda: vault.daily_token(receipts.now().date()), receipts),
        clock=session.clock,
        time_zone=session.time_zone,
        currency=session.currency,
        rules=rules_in(session.dsn),
        check_room=partial(session.disk.check, WORKER) if _shares_the_disk(session) else lambda: None,
        batch=_batch(session.disk.space().total) if _shares_the_disk(session) else BATCH,
    )


def _shares_the_disk(session: Session) -> bool:
    """Whether PostgreSQL writes to the data folder's disk: true for our own server, false for yours."""
    return isinstance(session.adapters.server, EmbeddedPostgres)


def _batch(disk: int) -> int:
    """Records of a partition in one transaction: what all four write must fit in a quarter of the reserve."""
    return max(100, min(BATCH, reserve_bytes(disk) // 4 // (4 * RECORD_BYTES)))


def _builder_of(session: Session, services: Services) -> Builder:
    has_room = partial(session.disk.has_room, BUILDING) if _shares_the_disk(session) else lambda: True
    return Builder(services, PostgresRebuild(session.dsn), has_room)


def worker_of(session: Session, member: str | None = None) -> Worker:
    """A worker with its revision builder: one of several when the log is Kafka, otherwise the only one.

    `member`: its name in the group, which must be unique.
    """
    shared = session.adapters.kafka is not None
    services = services_of(session, shared=shared)
    vault, store = vault_of(session), services.store
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


def check_name(store: PostgresStore, member: str) -> None:
    """Raises ServiceFailed if another process has this name: the brokers would keep switching between the two."""
    if not store.hold(f"touchfold worker {member}"):
        raise ServiceFailed(
            f"another worker is already running under the name {member}, and the brokers identify workers by name: "
            "give each machine its own TOUCHFOLD_WORKER_ID, or unset it"
        )
