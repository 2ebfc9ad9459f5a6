"""The event log of a session."""

from typing import TYPE_CHECKING

from infra.adapters.postgres.log import PostgresLog
from infra.app.session import Session
from schemas.ports import EventLog

if TYPE_CHECKING:
    from infra.adapters.archive.archived_log import ArchivedLog


def log_of(session: Session) -> EventLog:
    """A log for one thread: PostgreSQL's has its own connection; Kafka's is shared by all threads."""
    if session.adapters.kafka is None:
        return session.resources.keep(PostgresLog(session.dsn))
    return _kafka_log(session)


def warm_up(session: Session) -> None:
    """Make the log ready for appends: on Kafka a process's first append takes 0.5 to 1 s longer."""
    if session.adapters.kafka is not None:
        _kafka_log(session).warm_up()


def _kafka_log(session: Session) -> "ArchivedLog":
    from infra.app.cluster import open_kafka_log  # noqa: PLC0415  # Kafka's clients take 0.5 s to import

    return session.resources.once("kafka log", lambda: open_kafka_log(session))
