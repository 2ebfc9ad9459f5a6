"""Puts an importer's services together from a session."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from infra.accepting import acceptor_of
from infra.adapters.postgres_dead_letters import PostgresDeadLetters
from infra.adapters.postgres_imports import PostgresImports
from infra.adapters.postgres_sources import PostgresSources
from ingest.importer import Services

if TYPE_CHECKING:
    from infra.bootstrap import Session


@contextmanager
def services_of(session: "Session") -> Iterator[Services]:
    """Connections of their own, closed at the end; with them goes the import's lock."""
    vault = session.vault()
    with (
        closing(PostgresImports(session.dsn)) as store,
        closing(PostgresDeadLetters(session.dsn)) as letters,
        closing(PostgresSources(session.dsn)) as sources,
    ):
        yield Services(
            acceptor=acceptor_of(session),
            vault=vault,
            sealer=vault,
            log=session.log(),
            store=store,
            letters=letters,
            clock=session.door_clock,
            daily_token=vault.daily_token,
            declared=sources.declared(),
            check_disk=session.disk.check,
        )
