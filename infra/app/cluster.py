"""The log in Kafka: what a start checks and writes down of its topic, and how a session reads and appends."""

import json
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from infra.adapters.archive.archived_log import ArchivedLog
from infra.adapters.archive.reader import ArchiveReader
from infra.adapters.kafka import topics as kafka_topics
from infra.adapters.kafka.access import EVENTS, KafkaAccess
from infra.adapters.kafka.log import KafkaLog
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.control import add_partitions
from infra.adapters.postgres.database import Database
from infra.app.settings import Settings
from schemas.errors import Problem, ServiceFailed, SettingsInvalid
from schemas.ports import EventLog

if TYPE_CHECKING:
    from infra.app.bootstrap import Session


def ensure_kafka_log(database: Database, access: KafkaAccess, settings: Settings, say: Callable[[str], None]) -> None:
    """Check the topics, and give every partition of the events topic its progress.

    Raises ServiceFailed: unsafe or missing topics, a topic that was deleted and made anew; SettingsInvalid: this
    data's log is in PostgreSQL.
    """
    known = _known_partitions(database)
    kafka_topics.ensure(access, settings, known, say)
    topic_id, partitions = kafka_topics.describe(access, access.topic(EVENTS))
    note_topic(database, access.topic(EVENTS), topic_id, partitions)


def retention_s(access: KafkaAccess) -> float | None:
    """How long the events topic keeps a record; None: for ever."""
    return kafka_topics.retention_s(access, access.topic(EVENTS))


def _known_partitions(database: Database) -> int:
    """Of the topic when last seen; 0 before the first start with Kafka."""
    with database.reading() as cursor:
        cursor.execute("select count(*) from log_head where exists (select from meta where key = 'kafka_topic')")
        row = cursor.fetchone()
        return int(row[0]) if row else 0


def note_topic(database: Database, topic: str, topic_id: str, partitions: int) -> None:
    """Write down once which topic is this data's log; partitions that it was given later join.

    Any number of roles may do it at once.
    """
    with database.transaction() as cursor:
        cursor.execute("lock table log_head in share row exclusive mode")
        cursor.execute("select value ->> 'topic', value ->> 'id' from meta where key = 'kafka_topic'")
        row = cursor.fetchone()
        if row is None:
            cursor.execute("select exists (select from event_log)")
            used = cursor.fetchone()
            if used is not None and used[0]:
                raise SettingsInvalid(
                    "this data's log is in PostgreSQL and has events: unset TOUCHFOLD_LOG, or start a new data folder "
                    "or database for Kafka",
                    [Problem("TOUCHFOLD_LOG", "must be postgres")],
                )
            value = json.dumps({"topic": topic, "id": topic_id})
            cursor.execute("insert into meta values ('kafka_topic', %s)", (value,))
            cursor.execute("delete from log_head where partition >= %s", (partitions,))
            cursor.execute("delete from progress where partition >= %s", (partitions,))
        elif row[0] != topic:
            raise SettingsInvalid(
                f"TOUCHFOLD_KAFKA_PREFIX makes the log {topic}, but this data's log is the topic {row[0]}: set it back",
                [Problem("TOUCHFOLD_KAFKA_PREFIX", f"must give {row[0]}")],
            )
        elif row[1] != topic_id:
            raise ServiceFailed(
                f"the topic {topic} was deleted and made anew (its id was {row[1]}, is {topic_id}): offsets of the new "
                "one mean other events. Bring the old topic back, or restore database and archive from a backup"
            )
        add_partitions(cursor, partitions)


def warm_up(session: "Session") -> None:
    """Make the log ready for appends: the first of a process takes 0.5 to 1 s more."""
    log = session.log()
    if isinstance(log, ArchivedLog):
        log.warm_up()


def open_kafka_log(session: "Session") -> tuple[EventLog, Callable[[], None]]:
    """The log of a session for all its threads, the archive before the topic; and what closes it."""
    from infra.app.archive import archive_of  # noqa: PLC0415

    access, settings = session.adapters.kafka, session.settings
    assert access is not None, "called where the log is Kafka"
    database = Database(session.dsn, "touchfold log of the session")
    try:
        partitions = _known_partitions(database)
        with database.reading() as cursor:
            cursor.execute("select value from meta where key = 'log_generation'")
            row = cursor.fetchone()
    finally:
        database.close()
    generation = int(row[0]) if row else 1

    def grown(count: int) -> None:
        with closing(Database(session.dsn, "touchfold partitions", Lane.WORK)) as main, main.transaction() as cursor:
            add_partitions(cursor, count)

    kafka = KafkaLog(
        *(access, partitions, generation),
        ack_s=settings.kafka_ack_s,
        buffer_mib=settings.kafka_buffer_mib,
        grown=grown,
    )
    # the archive when it is first read: a door that only appends need not load what reads Parquet and S3
    return ArchivedLog(kafka, ArchiveReader(lambda: archive_of(session, partitions))), kafka.close
