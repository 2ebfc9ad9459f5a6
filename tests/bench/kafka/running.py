"""A `touchfold up` to measure, embedded or on Kafka: its processes by role, its progress, its CPU."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psutil
import psycopg2

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.postgres.log import PostgresLog
from schemas.record import Pending
from tests.bench.kafka.topic import PARTITIONS, Broker, fill_at
from tests.bench.measure import cpu_of_tree
from tests.checker.product import Product

APPEND: Final = 5_000
UP_S: Final = 120.0
FOLD_S: Final = 900.0
ROLES: Final = "infra.drivers.process.roles"
_STATE: Final = """
select coalesce(sum(p.next_offset), 0), (select count(*) from marks m where m.revision = r.revision)
from revisions r left join progress p using (revision) where r.state = 'live' group by r.revision
"""


class Up(NamedTuple):
    """The running product. `broker` and `access`: None when it is embedded."""

    product: Product
    broker: Broker | None
    access: KafkaAccess | None

    def pids(self, role: str) -> list[int]:
        """Processes of a role, by what their command line says; "postgres" is the server."""
        found = []
        for child in self.product.processes()["up"][0].children():
            try:
                command = child.cmdline()
            except psutil.Error:
                continue
            after = command[command.index(ROLES) + 1 :] if ROLES in command else []
            if after[:1] == [role] or (role == "postgres" and any(part.endswith("/postgres") for part in command)):
                found.append(child.pid)
        return found

    def cpu_s(self, *roles: str) -> float:
        return sum(cpu_of_tree(pid) for role in roles for pid in self.pids(role))

    @contextmanager
    def suspended(self, *roles: str) -> Iterator[None]:
        """These roles stand still meanwhile."""
        stopped = [psutil.Process(pid) for role in roles for pid in self.pids(role)]
        for each in stopped:
            each.suspend()
        try:
            yield
        finally:
            for each in stopped:
                each.resume()

    @property
    def dsn(self) -> str:
        """Of the main database."""
        return self.product.dsns()[0]

    @property
    def vault_dsn(self) -> str:
        return self.product.dsns()[1]

    def last_words(self) -> str:
        return "\n".join(self.product.log[-20:])


class Folded(NamedTuple):
    """A log drained: from the moment the workers went on to the end of the last decision."""

    events: int
    wall_s: float
    worker_s: float
    postgres_s: float

    @property
    def per_second(self) -> float:
        return self.events / self.wall_s

    @property
    def us(self) -> float:
        return (self.worker_s + self.postgres_s) / self.events * 1e6

    def words(self) -> str:
        worker, postgres = (each / self.events * 1e6 for each in (self.worker_s, self.postgres_s))
        return (
            f"{self.per_second:,.0f} events/s; {self.us:.1f} µs of CPU an event"
            f" (worker {worker:.1f}, PostgreSQL {postgres:.1f})"
        )


def environ_of(access: KafkaAccess | None, more: Mapping[str, str]) -> dict[str, str]:
    """Settings of an `up`; on Kafka when there are brokers."""
    found = {"TOUCHFOLD_UI": "false"}
    if access is not None:
        found |= {
            "TOUCHFOLD_LOG": "kafka",
            "TOUCHFOLD_KAFKA_BOOTSTRAP": access.bootstrap,
            "TOUCHFOLD_KAFKA_INSECURE": "1",
            "TOUCHFOLD_KAFKA_PREFIX": access.prefix,
            "TOUCHFOLD_KAFKA_PARTITIONS": str(PARTITIONS),
            "TOUCHFOLD_KAFKA_REPLICATION": "1",
        }
    return found | dict(more)


@contextmanager
def prepared(on: Broker | None, more: Mapping[str, str] | None = None) -> Iterator[Up]:
    """A data folder (and topics) where `up` was not started yet."""
    access = None if on is None else on.access()
    with tempfile.TemporaryDirectory(prefix="touchfold-bench-") as folder:
        product = Product(Path(folder) / "data", environ_of(access, more or {}))
        if access is not None:
            done = product.run("topics", "apply")
            assert done.status == 0, f"topics apply: {done.err[-2_000:]}"
        try:
            yield Up(product, on, access)
        finally:
            product.stop()


@contextmanager
def up(on: Broker | None, more: Mapping[str, str] | None = None) -> Iterator[tuple[Up, str]]:
    """A fresh `touchfold up` that is ready, and the write key of a source."""
    with prepared(on, more) as ready:
        ready.product.up(timeout_s=UP_S)
        yield ready, ready.product.source("bench")


def definitions_of(ready: Up, text: str) -> None:
    """Apply definitions before anything arrived."""
    path = ready.product.data.parent / "bench.yaml"
    path.write_text(text, encoding="utf-8")
    done = ready.product.run("apply", str(path))
    assert done.status == 0, f"apply: {done.err[-2_000:]}"


def fold_all(
    on: Broker | None,
    warm: Sequence[Pending],
    records: Sequence[Pending],
    text: str,
    more: Mapping[str, str] | None = None,
) -> Folded:
    """Time for the workers to drain a log that was filled while they, the archiver and the publisher stood still.

    `warm` is folded before, unmeasured, so that `records` meet known customers; `text`: the definitions.
    """
    with prepared(on, more) as ready:
        ready.product.up(timeout_s=UP_S)
        definitions_of(ready, text)
        with ready.suspended("archive", "publish"):
            _fill(ready, warm)
            _await(ready, len(warm))
            with ready.suspended("worker"):
                _fill(ready, records)
                worker, postgres = ready.cpu_s("worker"), ready.cpu_s("postgres")
                started = time.monotonic()
            _await(ready, len(warm) + len(records))
            wall_s = time.monotonic() - started
            cpu = ready.cpu_s("worker") - worker, ready.cpu_s("postgres") - postgres
            return Folded(len(records), wall_s, *cpu)


def _fill(ready: Up, records: Sequence[Pending]) -> None:
    if ready.broker is not None and ready.access is not None:
        fill_at(ready.broker, ready.access, records, new=False)
        return
    log = PostgresLog(ready.dsn)
    for start in range(0, len(records), APPEND):
        log.append(records[start : start + APPEND])


def _await(ready: Up, events: int) -> None:
    """Until so many records of the log are folded and nothing waits for its decision."""
    deadline = time.monotonic() + FOLD_S
    connection = psycopg2.connect(ready.dsn)
    connection.autocommit = True
    try:
        while True:
            with connection.cursor() as cursor:
                cursor.execute(_STATE)
                offset, marks = cursor.fetchone() or (0, 0)
            if offset >= events and not marks:
                return
            assert time.monotonic() < deadline, f"{offset} folded, {marks} marks wait\n{ready.last_words()}"
            time.sleep(0.02)
    finally:
        connection.close()
