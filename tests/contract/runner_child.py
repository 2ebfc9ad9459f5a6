"""A small real `PartitionWork` over PostgreSQL, and a process that runs a runner with it (`python -m … spec.json`).

Per partition a chain: digest = H(digest + value), advanced in the transaction of the progress. Equal chains mean that
every record was applied once and in order.
"""

import importlib
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.machine.clock import SystemClock
from infra.adapters.postgres.connect import connect
from infra.adapters.postgres.database import mapped
from infra.app.stop_signals import stop_at
from infra.drivers.stream.life import Subscription
from infra.drivers.stream.pace import Pace
from schemas.errors import ProgressConflict, StoreUnavailable
from schemas.record import Stored
from schemas.work import Fetched

POISON = b"poison"  # cannot be folded
NEWER = b"newer"  # cannot be read yet: its partition waits, until the switch "upgraded"
STUCK = b"stuck"  # a call that does not come back
TABLES = """
create table test_chain (
    partition int primary key, next_offset bigint not null default 0, epoch bigint not null default 0,
    records bigint not null default 0, letters bigint not null default 0, digest bytea not null default ''
);
create table test_caught_up (partition int primary key, at_us bigint not null);
create table test_switches (name text primary key);
"""


def link(digest: bytes, value: bytes) -> bytes:
    return blake2b(digest + value, digest_size=16).digest()


class ChainWork:
    """Counts what was asked of it; `before_commit` is called inside the transaction."""

    def __init__(self, dsn: str, before_commit: Callable[[Sequence[Fetched]], None] | None = None) -> None:
        self._dsn = dsn
        self._connection: Connection | None = None
        self._epochs: dict[int, int] = {}
        self._before_commit = before_commit
        self.claims: list[set[int]] = []
        self.released: list[set[int]] = []
        self.applied: list[Sequence[Fetched]] = []
        self.isolated: list[Fetched] = []
        self.idles: list[dict[int, int]] = []
        self.conflicts = 0
        self.outages = 0

    def claim(self, partitions: Collection[int]) -> Mapping[int, int]:
        with mapped(), self._open() as connection, connection.cursor() as cursor:
            starts = {}
            for partition in sorted(partitions):
                cursor.execute(
                    "insert into test_chain (partition, epoch) values (%s, 1) on conflict (partition)"
                    " do update set epoch = test_chain.epoch + 1 returning next_offset, epoch",
                    (partition,),
                )
                row = cursor.fetchone()
                assert row is not None
                starts[partition], self._epochs[partition] = int(row[0]), int(row[1])
        self.claims.append(set(partitions))
        return starts

    def release(self, partitions: Collection[int]) -> None:
        for partition in partitions:
            self._epochs.pop(partition, None)
        self.released.append(set(partitions))

    def apply(self, batches: Sequence[Fetched]) -> Mapping[int, int]:
        waits = self._transact(batches, isolate=False)
        self.applied.append(batches)
        return waits

    def isolate(self, batch: Fetched) -> Mapping[int, int]:
        waits = self._transact([batch], isolate=True)
        self.isolated.append(batch)
        return waits

    def watched_by(self, excuse: Callable[[], None]) -> None:
        """No piece of work takes long."""

    def idle(self, caught_up: Mapping[int, int]) -> bool:
        with mapped(), self._open() as connection, connection.cursor() as cursor:
            self._switched(cursor)
            for partition, at_us in caught_up.items():
                cursor.execute(
                    "insert into test_caught_up values (%s, %s) on conflict (partition)"
                    " do update set at_us = greatest(test_caught_up.at_us, excluded.at_us)",
                    (partition, at_us),
                )
        self.idles.append(dict(caught_up))
        return False

    def _transact(self, batches: Sequence[Fetched], *, isolate: bool) -> dict[int, int]:
        waits: dict[int, int] = {}
        with mapped(), self._open() as connection, connection.cursor() as cursor:
            self._switched(cursor)
            cursor.execute("select 1 from test_switches where name = 'upgraded'")
            newer = () if cursor.fetchone() else (NEWER,)
            for whole in sorted(batches):
                batch = whole
                at = next((each.offset for each in whole.records if each.value in newer), None)
                if at is not None:
                    waits[whole.partition] = at
                    batch = whole._replace(end=at, records=[each for each in whole.records if each.offset < at])
                cursor.execute(
                    "update test_chain set next_offset = %s where partition = %s and epoch = %s and next_offset = %s"
                    " returning digest",
                    (batch.end, batch.partition, self._epochs.get(batch.partition), batch.start),
                )
                row = cursor.fetchone()
                if row is None:
                    self.conflicts += 1
                    raise ProgressConflict(f"partition {batch.partition} at {batch.start}")
                digest, letters = bytes(row[0]), 0
                for record in batch.records:
                    if record.value == POISON and not isolate:
                        raise ValueError("a poison record")
                    if record.value == STUCK:
                        cursor.execute("select pg_sleep(600)")
                    letters += record.value == POISON
                    digest = link(digest, record.value)
                cursor.execute(
                    "update test_chain set records = records + %s, letters = letters + %s, digest = %s"
                    " where partition = %s",
                    (len(batch.records), letters, digest, batch.partition),
                )
            if self._before_commit is not None:
                self._before_commit(batches)
        return waits

    def _switched(self, cursor: "psycopg2.extensions.cursor") -> None:
        cursor.execute("select 1 from test_switches where name = 'outage'")
        if cursor.fetchone():
            self.outages += 1
            raise StoreUnavailable("PostgreSQL is away, says the test")

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._dsn, "runner test")
            with self._connection, self._connection.cursor() as cursor:
                cursor.execute("set idle_in_transaction_session_timeout = '5s'; set lock_timeout = '20s'")
        return self._connection


def run(name: str) -> Callable[..., None]:
    """The runner of that name: aiokafka or faust."""
    runner: Callable[..., None] = importlib.import_module(f"infra.drivers.stream.{name}_runner").run
    return runner


def older_of(records: Mapping[int, Sequence[bytes]]) -> Callable[[int, int, int], Sequence[Stored]]:
    """An archive that holds these values from offset 0."""

    def older(partition: int, start: int, limit: int) -> Sequence[Stored]:
        values = records[partition][start : start + limit]
        return [Stored(partition, start + i, value) for i, value in enumerate(values)]

    return older


def main(path: str) -> None:
    spec = json.loads(Path(path).read_text())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    stop = stop_at(signal.SIGTERM, signal.SIGINT)
    delay_s = spec.get("delay_s", 0.0)

    def before_commit(batches: Sequence[Fetched]) -> None:
        Path(spec["busy"]).write_text(str(batches[0].end))
        time.sleep(delay_s)

    work = ChainWork(spec["dsn"], before_commit if delay_s else None)
    access = KafkaAccess(spec["bootstrap"], prefix=spec["prefix"], insecure=True)
    pace = Pace(**spec.get("pace", {}))
    run(spec["runner"])(work, Subscription(access, spec["prefix"], spec["topic"], SystemClock(), None, pace), stop)


if __name__ == "__main__":
    main(sys.argv[1])
