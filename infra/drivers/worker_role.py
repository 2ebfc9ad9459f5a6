"""The worker process: makes the processors' services from a session and runs their loop."""

import gc
import threading
from typing import TYPE_CHECKING

from infra.adapters.postgres_control import PostgresControl
from infra.adapters.postgres_rebuild import PostgresRebuild
from infra.adapters.postgres_search import PostgresSearch
from infra.adapters.postgres_store import PostgresStore
from processors.dead_letters import letter_maker
from processors.rebuild import Builder
from processors.search_index import SearchIndexer
from processors.worker import Services, Worker

if TYPE_CHECKING:
    from infra.bootstrap import Session


def services_of(session: "Session") -> Services:
    """Connections of their own for everything the loop touches."""
    vault = session.vault()
    clock = session.clock
    return Services(
        log=session.log(),
        store=PostgresStore(session.dsn),
        control=PostgresControl(session.dsn, "touchfold worker control"),
        sealer=vault,
        letter=letter_maker(vault, lambda: vault.daily_token(clock.now().date()), clock),
        clock=clock,
        time_zone=session.time_zone,
        currency=session.currency,
    )


def worker_of(session: "Session") -> Worker:
    """A worker with its builder of revisions."""
    services = services_of(session)
    vault = session.vault()
    index = SearchIndexer(PostgresSearch(session.dsn), vault, vault, services.log)
    return Worker(services, Builder(services, PostgresRebuild(session.dsn)), index)


def run(session: "Session", stop: threading.Event) -> None:
    """Until `stop`. What is alive after the first step stays alive: the collector need not look at it again."""
    worker = worker_of(session)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # states by the thousand make the default threshold double the cost
    worker.run(stop)
