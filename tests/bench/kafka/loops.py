"""What a worker costs before it folds anything: a plain aiokafka loop, and our runners over work that does nothing.

`python -m tests.bench.kafka.loops WHICH BOOTSTRAP PREFIX PARTITIONS EVENTS DSN` is the child that consumes; WHICH is
plain, aiokafka or faust. With a DSN the work of a runner moves its progress in PostgreSQL, one transaction a batch.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.machine.clock import SystemClock
from infra.adapters.postgres.database import Database
from infra.drivers.stream.life import Subscription
from schemas.topics import EVENTS
from schemas.work import Fetched
from tests.bench.kafka.topic import PARTITIONS, Broker, Filled, Ran, result_of
from tests.bench.measure import cpu_of_tree

RUNNERS: Final = ("aiokafka", "faust")
FETCH_BYTES: Final = 8 << 20
_PROGRESS: Final = """
create table if not exists bench_progress (which text, partition smallint, next_offset bigint not null,
    primary key (which, partition))
"""
_MOVE: Final = """
insert into bench_progress values (%s, %s, %s)
on conflict (which, partition) do update set next_offset = excluded.next_offset
"""


class Meter:
    """Starts when partitions were assigned, prints at the last record and ends the process there."""

    def __init__(self, events: int) -> None:
        self._left, self._started, self._cpu = events, 0.0, 0.0

    def begin(self) -> None:
        """Fetching can begin; the first call counts."""
        if not self._started:
            self._started, self._cpu = time.monotonic(), time.process_time()

    def done(self, count: int) -> None:
        """So many are finished."""
        self._left -= count
        if self._left <= 0:
            found = {"wall_s": time.monotonic() - self._started, "cpu_s": time.process_time() - self._cpu}
            os.write(1, ("\n" + json.dumps(found) + "\n").encode())
            os._exit(0)  # an orderly leave is not what is measured


class NoWork:
    """`PartitionWork` that folds nothing."""

    def __init__(self, which: str, meter: Meter, dsn: str) -> None:
        self._which, self._meter = which, meter
        self._database = Database(dsn, "bench no work") if dsn else None
        self._next: dict[int, int] = {}
        if self._database is not None:
            with self._database.transaction() as cursor:
                cursor.execute(_PROGRESS)

    def claim(self, partitions: Collection[int]) -> Mapping[int, int]:
        self._meter.begin()
        return {partition: self._next.get(partition, 0) for partition in partitions}

    def release(self, partitions: Collection[int]) -> None:
        """Nobody else comes."""

    def apply(self, batches: Sequence[Fetched]) -> None:
        if self._database is not None:
            with self._database.transaction() as cursor:
                for batch in batches:
                    cursor.execute(_MOVE, (self._which, batch.partition, batch.end))
        self._next |= {batch.partition: batch.end for batch in batches}
        self._meter.done(sum(len(batch.records) for batch in batches))

    def isolate(self, batch: Fetched) -> None:
        raise AssertionError(f"nothing fails here, but partition {batch.partition} did")

    def watched_by(self, excuse: Callable[[], None]) -> None:
        """No piece of work takes long."""

    def idle(self, caught_up: Mapping[int, int]) -> bool:
        """Nothing waits."""
        del caught_up
        return False


def run(on: Broker, filled: Filled, which: str, dsn: str = "", postgres_pid: int = 0, timeout_s: float = 300) -> Ran:
    """One loop over the topic in a process of its own."""
    broker, server = on.cpu_s(), cpu_of_tree(postgres_pid) if postgres_pid else 0.0
    arguments = (which, on.bootstrap, filled.access.prefix, str(PARTITIONS), str(filled.events), dsn)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.kafka.loops", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    found = result_of(process, timeout_s)
    other = cpu_of_tree(postgres_pid) - server if postgres_pid else 0.0
    return Ran(filled.events, found["wall_s"], found["cpu_s"], on.cpu_s() - broker, other)


async def _plain(access: KafkaAccess, meter: Meter) -> None:
    """The loop everybody writes: fetch, look at every record, go on."""

    class Assigned(ConsumerRebalanceListener):  # type: ignore[misc]  # the library is not typed
        async def on_partitions_revoked(self, revoked: Any) -> None:
            """Nobody else comes."""

        async def on_partitions_assigned(self, assigned: Any) -> None:
            meter.begin()

    consumer = AIOKafkaConsumer(
        **access.aiokafka(),
        group_id=f"{access.prefix}-plain-{os.getpid()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    consumer.subscribe([access.topic(EVENTS)], listener=Assigned())
    await consumer.start()
    size = 0
    while True:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            size += sum(len(record.value) for record in records)
            meter.done(len(records))


def _runner(which: str, access: KafkaAccess, meter: Meter, dsn: str) -> None:
    runner: Any = import_module(f"infra.drivers.stream.{which}_runner")
    work = NoWork(which, meter, dsn)
    group = f"{access.prefix}-{which}-{os.getpid()}"
    runner.run(work, Subscription(access, group, access.topic(EVENTS), SystemClock()), threading.Event())


def main(which: str, bootstrap: str, prefix: str, partitions: str, events: str, dsn: str) -> None:
    """Consume until everything was seen."""
    del partitions
    access, meter = KafkaAccess(bootstrap, prefix=prefix, insecure=True), Meter(int(events))
    if which == "plain":
        asyncio.run(_plain(access, meter))
    else:
        _runner(which, access, meter, dsn)


if __name__ == "__main__":
    main(*sys.argv[1:])
