"""How many records of the inbox topic are still unread. Joins no group."""

from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.offsets import Offsets
from infra.adapters.kafka.trouble import Trouble, shared_config, unavailable
from schemas.topics import INBOX

ASK_S: Final = 5.0


class InboxLag:
    """One thread. Opens nothing before the first question."""

    def __init__(self, access: KafkaAccess) -> None:
        self._access = access
        self._topic = access.topic(INBOX)
        self._offsets = Offsets(access.confluent(), self._topic)
        self._trouble = Trouble()
        self._consumer: Consumer | None = None

    def __call__(self) -> int:
        """Raises StoreUnavailable. If the group has committed nothing yet, everything the topic holds counts."""
        partitions = range(self._offsets.count())
        starts, ends = self._offsets.starts(partitions), self._offsets.high_watermarks(partitions)
        taken = self._committed(partitions)
        return sum(max(0, ends[each] - max(starts[each], taken[each])) for each in partitions)

    def _committed(self, partitions: range) -> dict[int, int]:
        if self._consumer is None:
            group = {"group.id": f"{self._access.prefix}-inbox", "enable.auto.commit": False}
            config = {**shared_config(), **self._access.confluent(), **group, "error_cb": self._trouble}
            self._consumer = Consumer(config)
        try:
            found = self._consumer.committed([TopicPartition(self._topic, each) for each in partitions], timeout=ASK_S)
        except KafkaException as err:
            raise unavailable(err.args[0], self._topic, self._trouble) from err
        return {each.partition: each.offset for each in found}  # below 0 where nothing is committed

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
