"""`TopicWriter` on Kafka: one transaction per batch, under a name that only the newest publisher may use.

A transaction costs some 10 ms per batch. It buys fencing: the brokers refuse late messages of a publisher thought dead.
Otherwise its old state of a profile could arrive after that profile's tombstone and stay forever.
"""

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from infra.adapters.kafka.access import KafkaAccess
from schemas.errors import ProgressConflict, SettingsInvalid, StoreUnavailable
from schemas.publishing import Message
from schemas.topics import GRANTABLE, PROFILES, TOPIC_OF

DEADLINE_S: Final = 8.0  # a stop takes 10 s at most
WEEK_MS: Final = 7 * 86_400_000
TOPICS: Final = (*sorted({*TOPIC_OF.values()}), PROFILES)
_FENCED: Final = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)
_log = logging.getLogger("touchfold.publish")


class KafkaChanges:
    """One thread. A producer that failed in any way is discarded, and its unfinished transaction aborted."""

    def __init__(self, access: KafkaAccess, deadline_s: float = DEADLINE_S) -> None:
        self._access = access
        self._deadline_s = deadline_s
        self._producer: Producer | None = None

    @property
    def is_open(self) -> bool:
        return self._producer is not None

    def open(self) -> None:
        producer = Producer(self._config())
        self._producer = producer
        with self._mapped():
            there = producer.list_topics(timeout=self._deadline_s).topics
            missing = [topic for name in TOPICS if (topic := self._access.topic(name)) not in there]
            if missing:
                raise _missing(missing)
            producer.init_transactions(self._deadline_s)

    def publish(self, messages: Sequence[Message]) -> None:
        producer = self._producer
        assert producer is not None, "it was opened"
        topics = {name: self._access.topic(name) for name in {message.topic for message in messages}}
        deadline = time.monotonic() + self._deadline_s
        with self._mapped():
            producer.begin_transaction()
            for message in messages:
                self._produce(producer, topics[message.topic], message, deadline)
            producer.commit_transaction(max(deadline - time.monotonic(), 0.1))

    def _produce(self, producer: Producer, topic: str, message: Message, deadline: float) -> None:
        while True:
            try:
                producer.produce(topic, message.value, message.key, headers=message.headers)
                return
            except BufferError as err:  # 64 MiB are already waiting for the brokers
                if time.monotonic() > deadline:
                    raise StoreUnavailable("Kafka is not accepting messages", retry_after_s=1) from err
                producer.poll(0.05)

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(blocking=False)  # so that its destructor does not wait

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Kafka's errors in our words; after any of them the writer is closed."""
        try:
            yield
        except KafkaException as err:
            self.close()
            error: KafkaError = err.args[0]
            if error.code() in _FENCED:
                raise ProgressConflict("another publisher is writing to the topics") from err
            raise StoreUnavailable(f"Kafka did not acknowledge ({error.name()})", retry_after_s=1) from err
        except BaseException:
            self.close()
            raise

    def _config(self) -> dict[str, Any]:
        wait_ms = int(self._deadline_s * 1_000)
        return self._access.confluent() | {
            "transactional.id": self._access.topic("publish"),  # implies acks=all and idempotence, in order
            "transaction.timeout.ms": max(wait_ms * 2, 10_000),
            "message.timeout.ms": wait_ms,
            "socket.timeout.ms": max(wait_ms, 1_000),
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 1_000,
            "queue.buffering.max.kbytes": 65_536,
            "queue.buffering.max.messages": 200_000,
            "linger.ms": 2,
            "compression.type": "gzip",  # the only one that every client reads without another library
            "compression.level": 1,
            "partitioner": "murmur2_random",  # as in Java's producers: equal keys end up in the same partition
            "log_level": 3,
            "logger": _log,
        }


def _missing(topics: Sequence[str]) -> StoreUnavailable:
    return StoreUnavailable(f"no topic {', '.join(topics)}: run touchfold topics apply", retry_after_s=5)


def check_granted(access: KafkaAccess, granted: Collection[str]) -> None:
    """Refuse personal values in topics that keep them for 7 days or longer. `granted`: short names.

    Raises SettingsInvalid, or StoreUnavailable while the brokers are unavailable.
    """
    refused = sorted(set(granted) - GRANTABLE)
    if refused:
        raise SettingsInvalid(
            f"{', '.join(refused)} cannot carry personal values: only {', '.join(sorted(GRANTABLE))} can (profiles"
            " is compacted and would keep them; the others hold none)"
        )
    for topic, config in _configs(access, sorted(granted)).items():
        retention_ms, segment_ms = int(config["retention.ms"]), int(config["segment.ms"])
        if "compact" in config["cleanup.policy"] or not 0 <= retention_ms < WEEK_MS:
            raise SettingsInvalid(
                f"{topic} may carry personal values but keeps its messages for {_days(retention_ms)}: set its"
                " cleanup.policy to delete and its retention.ms under 7 days, or remove it from the setting"
            )
        if retention_ms + segment_ms >= WEEK_MS:
            _log.warning(
                "%s: brokers may delete a message only %s after it came, because segment.ms is %s; lower that too",
                *(topic, _days(retention_ms + segment_ms), _days(segment_ms)),
            )


def _days(time_ms: int) -> str:
    return "ever" if time_ms < 0 else f"{time_ms / 86_400_000:.3g} days"


def _configs(access: KafkaAccess, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The settings of topics by full name."""
    if not names:
        return {}
    # The import takes 0.3 s, so only if something is granted.
    from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient  # noqa: PLC0415
    from kafka.errors import KafkaError as AdminError  # noqa: PLC0415

    topics = [access.topic(name) for name in names]
    try:
        admin = KafkaAdminClient(**access.kafka_python(), request_timeout_ms=8_000)
        try:
            wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
            answers = admin.describe_configs(wanted, config_filter="all")["topic"]
        finally:
            admin.close()
    except AdminError as err:
        raise StoreUnavailable(
            f"Kafka did not report the topics' retention ({type(err).__name__})", retry_after_s=1
        ) from err
    absent = [topic for topic in topics if not answers.get(topic)]
    if absent:
        raise _missing(absent)
    return {topic: {key: str(entry["value"]) for key, entry in answers[topic].items()} for topic in topics}
