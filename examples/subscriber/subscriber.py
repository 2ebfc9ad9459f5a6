"""Keeps a table of who is in which segment, up to date and exactly once, from Touchfold's topics. See README.md.

    python subscriber.py --bootstrap localhost:9092 --database members.sqlite
    sqlite3 members.sqlite "select * from segment_members where segment = 'vip'"

Needs kafka-python. Exactly once: what a batch of messages does and the offsets after it are one SQLite transaction, and
a message that comes again is known by its version.
"""

import argparse
import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from kafka import KafkaConsumer, TopicPartition

TABLES = """
create table if not exists offsets (topic text, partition integer, next integer, primary key (topic, partition));
create table if not exists profiles (profile_id text primary key, version integer);  -- all up to here is in `members`
create table if not exists members (
    profile_id text, segment text, version integer, member integer, primary key (profile_id, segment));
create view if not exists segment_members as select segment, profile_id from members where member;
"""


class Members:
    """The table. `apply` is one transaction."""

    def __init__(self, path: str) -> None:
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.executescript(TABLES)

    def offsets(self) -> dict[TopicPartition, int]:
        rows = self.database.execute("select topic, partition, next from offsets")
        return {TopicPartition(topic, partition): next_ for topic, partition, next_ in rows}

    def clear(self) -> None:
        self.database.executescript("begin; delete from members; delete from profiles; commit")

    def apply(self, messages: Iterable[Any], after: dict[TopicPartition, int]) -> None:
        """Take messages and the offsets to go on from. All of it or, if this process dies, nothing."""
        self.database.execute("begin immediate")
        for message in messages:
            value: Any = None if message.value is None else json.loads(message.value)
            if message.topic.endswith(".profiles"):
                self._state(message.key.decode(), value)
            elif value["type"] == "segment":
                self._moved(value)
            elif value["type"] == "erased" or value["name"] == "merged_into":
                self._ended(value["profile_id"], value["version"])
        rows = [(place.topic, place.partition, next_) for place, next_ in after.items()]
        self.database.executemany("insert or replace into offsets values (?, ?, ?)", rows)
        self.database.execute("commit")

    def _state(self, profile_id: str, state: dict[str, Any] | None) -> None:
        """The latest state of a profile, at the first start alone; None: it is no more."""
        self.database.execute("delete from members where profile_id = ?", (profile_id,))
        self.database.execute("delete from profiles where profile_id = ?", (profile_id,))
        if state is not None:
            version = state["version"]
            self.database.execute("insert into profiles values (?, ?)", (profile_id, version))
            rows = [(profile_id, segment, version) for segment in state["segments"]]
            self.database.executemany("insert into members values (?, ?, ?, true)", rows)

    def _moved(self, change: dict[str, Any]) -> None:
        """A profile entered or left a segment; a version that is not newer than what is known came before."""
        profile_id, segment, version = change["profile_id"], change["name"], change["version"]
        if version > self._known(profile_id):
            self.database.execute(
                "insert into members values (?, ?, ?, ?) on conflict (profile_id, segment) do update"
                " set version = excluded.version, member = excluded.member where excluded.version > version",
                (profile_id, segment, version, change["new"]),
            )

    def _ended(self, profile_id: str, version: int) -> None:
        """Erased or merged away. Changes of before may still come by the other topic: `profiles` refuses them."""
        if version > self._known(profile_id):
            self.database.execute("insert or replace into profiles values (?, ?)", (profile_id, version))
            self.database.execute("delete from members where profile_id = ? and version < ?", (profile_id, version))

    def _known(self, profile_id: str) -> int:
        row = self.database.execute("select version from profiles where profile_id = ?", (profile_id,)).fetchone()
        return row[0] if row else 0


def load(consumer: KafkaConsumer, members: Members, prefix: str, follow: list[TopicPartition]) -> None:
    """At the first start: the states of all profiles, then the changes from where the topics end before that look."""
    start = consumer.end_offsets(follow)
    places = places_of(consumer, f"{prefix}.profiles")
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    members.clear()  # of a first start that did not come to its end
    while any(consumer.position(place) < ends[place] for place in places):
        members.apply([each for batch in consumer.poll(timeout_ms=200).values() for each in batch], {})
    members.apply([], start)


def places_of(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    partitions = consumer.partitions_for_topic(topic)
    if not partitions:
        raise SystemExit(f"there is no topic {topic}")
    return [TopicPartition(topic, partition) for partition in sorted(partitions)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Keeps a table of the members of all segments.")
    parser.add_argument("--bootstrap", required=True, help="host:port of a broker")
    parser.add_argument("--prefix", default="touchfold", help="what the topics' names begin with")
    parser.add_argument("--database", default="members.sqlite", help="SQLite file of the table")
    given = parser.parse_args()
    members = Members(given.database)
    consumer = KafkaConsumer(
        bootstrap_servers=given.bootstrap,
        isolation_level="read_committed",  # what a publisher did not finish is left out
        enable_auto_commit=False,  # our offsets lie beside our table
        auto_offset_reset="none",  # were we away longer than the topics reach back, start with a new table instead
        max_poll_records=1_000,
    )
    follow = [
        place
        for topic in ("profile-changes", "segment-changes")
        for place in places_of(consumer, f"{given.prefix}.{topic}")
    ]
    if not members.offsets():
        load(consumer, members, given.prefix, follow)
    consumer.assign(follow)
    for place, next_ in members.offsets().items():
        consumer.seek(place, next_)
    while True:
        batches = consumer.poll(timeout_ms=500)
        if batches:
            messages = [message for batch in batches.values() for message in batch]
            members.apply(messages, {place: consumer.position(place) for place in batches})


if __name__ == "__main__":
    main()
