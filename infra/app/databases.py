"""The two databases of a session, closed with it."""

from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database
from infra.app.session import Session


def database_of(session: Session, name: str, lane: Lane = Lane.READ) -> Database:
    """The main database; `name` appears in pg_stat_activity."""
    return session.resources.keep(Database(session.dsn, name, lane))


def vault_database_of(session: Session, name: str) -> Database:
    """The vault's database."""
    return session.resources.keep(Database(session.vault_dsn, name))
