"""What a deployment recorded about itself in `meta` at its first start, and its first revision."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from infra.adapters.postgres.control import add_partitions, insert_revision
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.locks import LAYOUT_LOCK
from schemas.errors import Problem, ServiceFailed, SettingsInvalid

ARCHIVED: Final = "archived"  # the row of meta that says how far files have been written


def is_made(database: Database) -> bool:
    """Whether the tables exist."""
    row = database.one("select to_regclass('meta') is not null")
    return bool(row and row[0])


def is_used(database: Database) -> bool:
    """Whether a first start has completed. The tables must exist."""
    row = database.one("select exists (select from meta where key = 'deployment')")
    return bool(row and row[0])


def note_once(database: Database, facts: Mapping[str, str]) -> dict[str, str]:
    """Record the deployment facts unless there are some already; returns what is recorded now."""
    with database.transaction() as cursor:
        cursor.execute("insert into meta values ('deployment', %s) on conflict (key) do nothing", (json.dumps(facts),))
        cursor.execute("select value from meta where key = 'deployment'")
        row = cursor.fetchone()
        assert row is not None, "meta lost the row it just had"
    return dict(row[0])


# --- which log ---------------------------------------------------------------------------------------------------


def kafka_topic(database: Database) -> str | None:
    """The topic that is this data's log; None if the log is in PostgreSQL."""
    row = database.one("select value ->> 'topic' from meta where key = 'kafka_topic'")
    return None if row is None else str(row[0])


def known_partitions(database: Database) -> int:
    """The topic's partition count when last seen; 0 before the first start with Kafka."""
    row = database.one("select count(*) from log_head where exists (select from meta where key = 'kafka_topic')")
    return int(row[0]) if row else 0


def log_generation(database: Database) -> int:
    """Rises each time one log replaces another."""
    row = database.one("select value from meta where key = 'log_generation'")
    return int(row[0]) if row else 1


def note_topic(database: Database, topic: str, topic_id: str, partitions: int) -> None:
    """Record once which topic is this data's log; partitions added later are included.

    Any number of roles may do it at the same time. Raises SettingsInvalid (another log), ServiceFailed (another topic
    of the same name).
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
                f"the topic {topic} was deleted and recreated (its id was {row[1]}, now {topic_id}): offsets in the "
                "new one mean other events. Bring the old topic back, or restore database and archive from a backup"
            )
        add_partitions(cursor, partitions)


def grow(database: Database, partitions: int) -> None:
    """Record that the topic now has this many partitions."""
    with database.transaction() as cursor:
        add_partitions(cursor, partitions)


# --- the first revision ------------------------------------------------------------------------------------------


def has_revision(database: Database) -> bool:
    return database.one("select 1 from revisions limit 1") is not None


def insert_first_revision(
    database: Database,
    definitions: Mapping[str, Any],
    content_hash: str,
    at: datetime,
    segment_hashes: Mapping[str, str],
) -> bool:
    """Insert revision 1, live, with its tables and progress at 0; False if there already is a revision."""
    with database.transaction() as cursor:
        cursor.execute("lock table revisions in share row exclusive mode")
        cursor.execute("select 1 from revisions limit 1")
        if cursor.fetchone() is not None:
            return False
        insert_revision(cursor, 1, "live", "initial", definitions, content_hash, at)
        for name, content in segment_hashes.items():
            cursor.execute("insert into segment_versions values (%s, 1, %s)", (name, content))
    return True


@contextmanager
def layout_lock(database: Database) -> Iterator[None]:
    """One process at a time checks the states' layout, because a cluster's roles start together."""
    with database.transaction() as cursor:
        cursor.execute("select pg_advisory_xact_lock(%s)", (LAYOUT_LOCK,))
        yield


def is_folded_by(database: Database, version: int) -> bool:
    """Whether the live states were folded with this layout or a later one, or nothing is live."""
    row = database.one(
        "select exists (select from revisions where state = 'live') and not exists ("
        "select from meta where key = 'layout' and (value ->> 'version')::integer >= %s)",
        (version,),
    )
    return not (row and row[0])


# --- how far the archive was written -----------------------------------------------------------------------------


def archived_offsets(database: Database) -> list[tuple[int, int]]:
    """(partition, offset) up to which the archiver has written files, as it noted."""
    row = database.one("select value from meta where key = %s", (ARCHIVED,))
    return list(enumerate(int(at) for at in row[0])) if row else []


def note_archived(database: Database, offsets: Sequence[int]) -> None:
    """Record how far files have been written, so that their loss is noticed."""
    with database.transaction() as cursor:
        cursor.execute(
            "insert into meta values (%s, %s) on conflict (key) do update set value = excluded.value",
            (ARCHIVED, json.dumps(list(offsets))),
        )
