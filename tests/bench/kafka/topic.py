"""A broker for the benches, topics filled with synthetic records, and the CPU of the broker."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra.adapters.kafka.access import KafkaAccess
from schemas.record import Pending, partition_of
from schemas.topics import EVENTS
from tests.bench.measure import cpu_of_tree
from tests.kafka_broker import Cluster, Node

PARTITIONS: Final = 4
MAX_BYTES: Final = 8 << 20
_NUMBERS: Final = count(1)


class BenchCluster(Cluster):
    """One broker with 1 GiB of heap and Java's own choice of collector and compilers, as a company would run it."""

    def _java(self, node: Node, main: str, *arguments: str) -> "subprocess.Popen[bytes]":
        options = ["-Xmx1g", "-Xms1g", f"-Dlog4j2.configurationFile={node.folder / 'log4j2.properties'}"]
        command = ["setpriv", "--pdeathsig", "KILL", "java", *options, "-cp", f"{self._jars}/*", main, *arguments]
        with (node.folder / "out.log").open("ab") as out:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)


class Broker(NamedTuple):
    """A running broker and where its jars lie."""

    cluster: Cluster
    jars: Path

    @property
    def bootstrap(self) -> str:
        return self.cluster.bootstrap

    def access(self, prefix: str | None = None) -> KafkaAccess:
        """Topics of its own for each use."""
        return KafkaAccess(self.bootstrap, prefix=prefix or f"bench{os.getpid()}x{next(_NUMBERS)}", insecure=True)

    def cpu_s(self) -> float:
        process = self.cluster.nodes[0].process
        assert process is not None, "it runs"
        return cpu_of_tree(process.pid)

    def data_bytes(self, topic: str) -> int:
        """On disk, of one topic."""
        folder = self.cluster.nodes[0].folder / "data"
        return sum(path.stat().st_size for path in folder.glob(f"{topic}-*/*.log"))


@contextmanager
def broker() -> Iterator[Broker]:
    """A broker in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="touchfold-bench-kafka-"))
    cluster = BenchCluster(folder / "kafka")
    try:
        cluster.start()
        yield Broker(cluster, cluster._jars)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def create(access: KafkaAccess, name: str = EVENTS, partitions: int = PARTITIONS) -> str:
    """A topic; its full name."""
    topic = access.topic(name)
    admin = AdminClient(access.confluent())  # kept: its requests end with it
    for done in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        done.result(30)
    return topic


def producer(access: KafkaAccess, **more: Any) -> Producer:
    """As the product's door is told to produce: every replica, no doubles, in order."""
    return Producer(
        {
            **access.confluent(),
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            **more,
        }
    )


class Filled(NamedTuple):
    """A topic with records; CPU of the broker while they came."""

    access: KafkaAccess
    topic: str
    events: int
    value_bytes: int
    broker_cpu_s: float


def fill(on: Broker, records: Iterable[Pending], partitions: int = PARTITIONS, *, new: bool = True) -> Filled:
    """Produce records to the partitions the product would choose, into a topic of their own."""
    return fill_at(on, on.access(), records, partitions, new=new)


def fill_at(
    on: Broker, access: KafkaAccess, records: Iterable[Pending], partitions: int = PARTITIONS, *, new: bool = True
) -> Filled:
    """The same under given names; `new`: make the topic first."""
    topic = create(access, partitions=partitions) if new else access.topic(EVENTS)
    started = on.cpu_s()
    sending = producer(access)
    events = size = 0
    for record in records:
        while True:
            try:
                sending.produce(
                    topic, record.value, record.key, partition_of(record.key, partitions), on_delivery=_told
                )
                break
            except BufferError:
                sending.poll(0.1)
        events, size = events + 1, size + len(record.value)
        if events % 1_000 == 0:
            sending.poll(0)
    assert sending.flush(120) == 0, "the broker does not take the records"
    return Filled(access, topic, events, size, on.cpu_s() - started)


def _told(error: KafkaError | None, _message: Message) -> None:
    assert error is None, error


class Ran(NamedTuple):
    """What a child said, and what it used from the first record to the last."""

    events: int
    wall_s: float
    cpu_s: float  # of the child alone
    broker_s: float
    other_s: float = 0.0  # PostgreSQL, for those who use one

    @property
    def per_second(self) -> float:
        return self.events / self.wall_s

    @property
    def per_core(self) -> float:
        """Events a second of CPU of the child alone."""
        return self.events / max(self.cpu_s, 1e-9)

    @property
    def us(self) -> float:
        return self.cpu_s / self.events * 1e6

    @property
    def broker_us(self) -> float:
        return self.broker_s / self.events * 1e6

    @property
    def other_us(self) -> float:
        return self.other_s / self.events * 1e6

    def words(self) -> str:
        """For the table."""
        other = f" + PostgreSQL {self.other_us:.1f}" if self.other_s else ""
        return f"{self.per_second:,.0f} events/s, {self.us:.1f}{other} µs of CPU an event (broker {self.broker_us:.1f})"


def result_of(process: "subprocess.Popen[str]", timeout_s: float) -> dict[str, Any]:
    """The last line of JSON that a child printed; raises with its last words when it failed."""
    out, err = process.communicate(timeout=timeout_s)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if process.returncode != 0 or not lines:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {(out + err)[-3_000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
