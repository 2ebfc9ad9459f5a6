"""The log in Kafka: what startup checks and records about its topic, and how a session reads and appends."""

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from infra.adapters.archive.archived_log import ArchivedLog
from infra.adapters.archive.reader import ArchiveReader
from infra.adapters.kafka import topics as kafka_topics
from infra.adapters.kafka.access import EVENTS, KafkaAccess
from infra.adapters.kafka.log import KafkaLog
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.deployment import grow, known_partitions, log_generation, note_topic
from infra.app.archive import archive_of
from infra.app.settings import Settings

if TYPE_CHECKING:
    from infra.app.session import Session


def ensure_kafka_log(database: Database, access: KafkaAccess, settings: Settings, say: Callable[[str], None]) -> None:
    """Check the topics, and record progress for every partition of the events topic.

    Raises ServiceFailed if topics are unsafe, missing, or were deleted and recreated; SettingsInvalid if the log of
    this data is in PostgreSQL.
    """
    known = known_partitions(database)
    kafka_topics.ensure(access, settings, known, say)
    topic_id, partitions = kafka_topics.describe(access, access.topic(EVENTS))
    note_topic(database, access.topic(EVENTS), topic_id, partitions)


def retention_s(access: KafkaAccess) -> float | None:
    """How long the events topic keeps a record; None: forever."""
    return kafka_topics.retention_s(access, access.topic(EVENTS))


def open_kafka_log(session: "Session") -> ArchivedLog:
    """A session's log, shared by all its threads; reads the archive before the topic."""
    access, settings = session.adapters.kafka, session.settings
    assert access is not None, "only called when the log is Kafka"
    database = Database(session.dsn, "touchfold log of the session")
    with closing(database):
        partitions, generation = known_partitions(database), log_generation(database)

    def grown(count: int) -> None:
        with closing(Database(session.dsn, "touchfold partitions", Lane.WORK)) as main:
            grow(main, count)

    kafka = KafkaLog(
        *(access, partitions, generation),
        ack_s=settings.kafka_ack_s,
        buffer_mib=settings.kafka_buffer_mib,
        grown=grown,
    )
    # open the archive on first read: a door that only appends need not load the Parquet and S3 libraries
    return ArchivedLog(kafka, ArchiveReader(lambda: archive_of(session, partitions)))
