"""`EventLog` in a Kafka topic. Offsets rise per partition, with gaps where transactions of other producers ended."""

from collections.abc import Callable, Iterable, Sequence

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.growth import PartitionCount
from infra.adapters.kafka.offsets import Offsets
from infra.adapters.kafka.producing import AckedProducer, Placed
from infra.adapters.kafka.reading import TopicReader
from schemas.failpoints import failpoint
from schemas.record import Pending, Stored, partition_of
from schemas.topics import EVENTS


class KafkaLog:
    """Any thread may call any method. Opens nothing before it is needed: a reader has no producer.

    partitions: as the database knows them; None asks the brokers. Either way they are checked again, and `grown(count)`
    is called before the first use of a partition that the topic has gained. generation: see the port.
    ack_s: how long an append waits for the brokers. buffer_mib: memory for records that they have not taken.
    """

    def __init__(
        self,
        access: KafkaAccess,
        partitions: int | None = None,
        generation: int = 1,
        *,
        ack_s: float = 8.0,
        buffer_mib: int = 64,
        grown: Callable[[int], None] = lambda _count: None,
    ) -> None:
        config, topic = access.confluent(), access.topic(EVENTS)
        self._generation = generation
        self._offsets = Offsets(config, topic)
        self._reader = TopicReader(config, topic, self._offsets)
        self._producer = AckedProducer(config, topic, ack_s, buffer_mib * 2**20)
        self._grown = grown
        self._count = PartitionCount(partitions, self._offsets.count, self._make_ready)

    @property
    def partitions(self) -> int:
        return self._count.known()

    def _make_ready(self, count: int) -> None:
        self._grown(count)
        self._producer.learn_partitions()

    @property
    def generation(self) -> int:
        return self._generation

    def append(self, batch: Sequence[Pending]) -> list[tuple[int, int]]:
        """See the port. StoreUnavailable: none, some or all of the batch may be in the log, now or within ack_s.

        Also raises TooLarge: a record is larger than the topic takes; nothing was appended.
        """
        if not batch:
            return []
        partitions = self.partitions
        records = [Placed(partition_of(key, partitions), key, value) for key, value in batch]
        failpoint("log.before_reserve")
        positions = self._producer.append(records)
        failpoint("log.after_commit")
        return positions

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        """See the port. Raises LogTruncated if retention has removed `start`."""
        return self._reader.read(partition, start, limit)

    def fetch(self, positions: Iterable[tuple[int, int]]) -> list[Stored]:
        groups: dict[int, list[int]] = {}
        for partition, offset in positions:
            groups.setdefault(partition, []).append(offset)
        return self._reader.fetch(groups)

    def starts(self) -> list[int]:
        """By partition, the first offset that retention has left."""
        partitions = range(self._count.fresh())
        found = self._offsets.starts(partitions)
        return [found[partition] for partition in partitions]

    def ends(self) -> list[int]:
        """See the port: the last stable offsets."""
        partitions = range(self._count.fresh())
        found = self._offsets.ends(partitions)
        return [found[partition] for partition in partitions]

    def high_ends(self) -> list[int]:
        """The high watermarks: `ends` plus what another producer's open transaction keeps from being read."""
        found = self._offsets.high_watermarks(range(self.partitions))
        return [found[partition] for partition in range(self.partitions)]

    def warm_up(self) -> None:
        """Start connecting the producer, to save the first append half a second. Does not wait."""
        self._producer.open()

    def waiting_bytes(self) -> int:
        """Memory used by records that the brokers have not acknowledged."""
        return self._producer.waiting_bytes()

    def close(self) -> None:
        """Waiting appends fail. Idempotent."""
        self._producer.close()
        self._reader.close()
