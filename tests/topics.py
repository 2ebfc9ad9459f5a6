"""Our topics for tests that publish: created and read with kafka-python, and a publisher in its own process."""

import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from infra.adapters.kafka.access import KafkaAccess
from schemas.topics import MODELS, PROFILES, TOPIC_OF
from tests.conftest import Databases
from tests.integration.running import environment

with warnings.catch_warnings():  # it loads its message schemas by two deprecated calls
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
    from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

CHANGES: Final = tuple(sorted(set(TOPIC_OF.values())))
OUT: Final = (*CHANGES, PROFILES)
PARTITIONS: Final = 3
WAIT_S: Final = 60.0


def make_topics(access: KafkaAccess, configs: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Create the four change topics; they exist when it returns. `configs` by short name."""
    given = {PROFILES: {"cleanup.policy": "compact"}} | dict(configs or {})
    with closing(KafkaAdminClient(**access.kafka_python())) as admin:
        admin.create_topics(
            [NewTopic(access.topic(name), PARTITIONS, 1, topic_configs=dict(given.get(name, {}))) for name in OUT]
        )
        wanted = [ConfigResource(ConfigResourceType.TOPIC, access.topic(name)) for name in OUT]
        deadline = time.monotonic() + WAIT_S
        while not all(admin.describe_configs(wanted, config_filter="all")["topic"].values()):
            assert time.monotonic() < deadline, "the topics are not there"


class Read(NamedTuple):
    """A message as a subscriber gets it; `value` is decoded by its model, complete."""

    topic: str  # short
    partition: int
    offset: int
    key: str
    value: Any
    headers: dict[str, str]


def read_topics(access: KafkaAccess, names: Iterable[str] = OUT) -> list[Read]:
    """Every committed message, by topic and partition, in order."""
    found: list[Read] = []
    consumer = KafkaConsumer(**access.kafka_python(), isolation_level="read_committed", enable_auto_commit=False)
    with closing(consumer):
        for name in names:
            places = [TopicPartition(access.topic(name), partition) for partition in range(PARTITIONS)]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            ends = consumer.end_offsets(places)
            batch: list[Any] = []
            while any(consumer.position(place) < ends[place] for place in places):
                batch += [each for part in consumer.poll(timeout_ms=100).values() for each in part]
            batch.sort(key=lambda each: (each.partition, each.offset))
            found += [_read(name, each) for each in batch]
    return found


def _read(name: str, message: Any) -> Read:
    headers = {key: value.decode() for key, value in message.headers}
    value = None
    if message.value is not None:
        value = msgspec.json.decode(message.value)
        kept = msgspec.json.decode(message.value, type=MODELS[name])
        assert msgspec.to_builtins(kept) == value, f"{name} holds what its schema does not say"
    return Read(name, message.partition, message.offset, message.key.decode(), value, headers)


def start_publisher(
    databases: Databases, access: KafkaAccess, data: Path, *arguments: str, **settings: str
) -> "subprocess.Popen[str]":
    """Start the publish role and wait until it is ready; `settings` by name without TOUCHFOLD_."""
    given = {
        "LOG": "kafka",
        "KAFKA_BOOTSTRAP": access.bootstrap,
        "KAFKA_PREFIX": access.prefix,
        "KAFKA_INSECURE": "1",
        "DATA": str(data),
        "MASTER_KEY": "00" * 32,
        "TEST": "1",
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.publisher_process", databases.main, databases.vault, *arguments],
        env=environment(**given),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != "ready\n":
        process.kill()
        raise AssertionError(process.communicate()[1])
    return process


def end(process: "subprocess.Popen[str]", number: int) -> str:
    """Send a signal and wait for the end; returns its stderr."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return errors
