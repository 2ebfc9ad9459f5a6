"""Where a topic's partitions begin and end, according to the brokers that lead them."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # type: ignore[attr-defined]  # without `as` in their stubs

from infra.adapters.kafka.trouble import NO_TOPIC, Trouble, shared_config, unavailable

OffsetSpec: Final[Any] = _OffsetSpec  # its methods have no types
OFFSETS_S: Final = 5.0
_RETRY_S: Final = 0.05
_NEW_S: Final = 1.0  # until every broker knows a newly created topic
_SOON: Final = frozenset(  # errors that pass by themselves while leaders change
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError._WAIT_CACHE,
        KafkaError._ALL_BROKERS_DOWN,
    }
)


class Offsets:
    """Where partitions begin and end. Any thread; opens nothing before first use."""

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self._config = config
        self._topic = topic
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        self._trouble = Trouble()

    def starts(self, partitions: Sequence[int]) -> dict[int, int]:
        """The first retained offset of each."""
        return self._ask(partitions, OffsetSpec.earliest())

    def ends(self, partitions: Sequence[int]) -> dict[int, int]:
        """The last stable offset of each: after the last readable record, before any open transaction."""
        return self._ask(partitions, OffsetSpec.latest())

    def high_watermarks(self, partitions: Sequence[int]) -> dict[int, int]:
        """The end of each, including what open transactions hold back, which cannot be read yet."""
        return self._ask(partitions, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)

    def count(self) -> int:
        """How many partitions the topic has."""
        client = self._client()
        try:
            found = client.list_topics(self._topic, OFFSETS_S).topics[self._topic]
        except KafkaException as err:
            client.poll(0)  # calls `_trouble` with what happened meanwhile
            raise unavailable(err.args[0], self._topic, self._trouble) from err
        if found.error is not None:
            raise unavailable(found.error, self._topic, self._trouble)
        return len(found.partitions)

    def _client(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                config: dict[str, Any] = {
                    **shared_config(),
                    **self._config,
                    "socket.timeout.ms": int(OFFSETS_S * 1_000),
                    "error_cb": self._trouble,
                }
                self._admin = AdminClient(config)
            return self._admin

    def _ask(
        self, partitions: Sequence[int], spec: Any, isolation: IsolationLevel = IsolationLevel.READ_COMMITTED
    ) -> dict[int, int]:
        """One request to each leader. Waits briefly while leaders change."""
        wanted = {TopicPartition(self._topic, partition): spec for partition in partitions}
        found: dict[int, int] = {}
        began = time.monotonic()
        while True:
            client = self._client()
            waited = time.monotonic() - began
            errors = self._gather(client, wanted, max(OFFSETS_S - waited, 0.5), found, isolation)
            wanted = {where: spec for where in wanted if where.partition not in found}
            if not wanted:
                return found
            waited = time.monotonic() - began
            soon = _SOON | NO_TOPIC if waited < _NEW_S else _SOON
            hard = next((error for error in errors if error.code() not in soon), None)
            self._forget(client)
            if hard is not None or waited > OFFSETS_S:
                client.poll(0)  # calls `_trouble` with what happened meanwhile
                raise unavailable(hard or errors[0], self._topic, self._trouble)
            time.sleep(_RETRY_S)

    @staticmethod
    def _gather(
        client: AdminClient,
        wanted: dict[TopicPartition, Any],
        left_s: float,
        found: dict[int, int],
        isolation: IsolationLevel,
    ) -> list[KafkaError]:
        """Add the answers to `found`; returns the errors of the rest."""
        errors: list[KafkaError] = []
        try:
            futures = client.list_offsets(wanted, isolation_level=isolation, request_timeout=left_s)
        except KafkaException as err:
            return [err.args[0]]
        for where, future in futures.items():
            try:
                offset = future.result(left_s + 1.0).offset
            except KafkaException as err:
                errors.append(err.args[0])
            except TimeoutError:
                errors.append(KafkaError(KafkaError._TIMED_OUT))
            else:
                if offset < 0:  # librdkafka 2.16 returns this, without an error, if a broker did not answer in time
                    errors.append(KafkaError(KafkaError._TIMED_OUT))
                else:
                    found[where.partition] = offset
        return errors

    def _forget(self, client: AdminClient) -> None:
        """librdkafka 2.16 never refreshes: it asks with the leader epoch it once learnt, and forever reports "unknown"
        for partitions missing from its first answer (a broker that has just started leaves some out).
        """
        with self._lock:
            if self._admin is client:
                self._admin = None
