"""The live path: CPU of FOLD and DECIDE per event against the bare path, on the same records of the same log."""

import gc
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from infra.adapters.machine.clock import SystemClock
from infra.adapters.postgres.control import PostgresControl, insert_revision
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.log import PostgresLog
from infra.adapters.postgres.migrate import migrate
from infra.adapters.postgres.store import PostgresStore
from processors.live.applied import Batch
from processors.live.compiled import Compiled, decider_of, epochs_of, folder_of
from processors.live.decide_batch import Decider
from processors.live.delta_cache import DeltaCache
from processors.live.fold_batch import Folder
from processors.live.services import Services
from schemas.dead_letters import DeadLetter
from schemas.definitions import to_json
from schemas.ports import Sealer
from schemas.record import Pending, Stored, decode, to_us
from tests.bench.bare import BarePath
from tests.bench.measure import Cpu, Table, cpu_now, rss_bytes
from tests.bench.synthetic import Records, definitions, utc_now

SECTION = "Live path"
APPEND = 5_000
GOAL = 4.0


class Size(NamedTuple):
    """Amounts to measure."""

    customers: int
    events: int  # per line of the table
    log: int  # events in the rebuild


QUICK = Size(1_000, 4_000, 8_000)
FULL = Size(100_000, 100_000, 1_000_000)


class NothingSealed:
    """The synthetic records need nothing opened: if a fold asks, the bench is wrong."""

    def seal(self, token: bytes, plain: bytes, aad: bytes) -> bytes:
        raise AssertionError("the bench seals nothing")

    def open_many(self, sealed: Sequence[tuple[bytes, bytes, bytes]]) -> list[bytes | None]:
        raise AssertionError(f"the bench's definitions open nothing, but {len(sealed)} were asked for")


def _no_letter(record: Stored, rule: str, reason: str, _applied: object) -> DeadLetter:
    raise AssertionError(f"{rule} at {record.partition}:{record.offset}: {reason}")


class Bench(NamedTuple):
    """A separate database with the bench's definitions live."""

    postgres: EmbeddedPostgres
    services: Services
    compiled: Compiled

    def cpu(self) -> Cpu:
        return cpu_now(self.postgres.pid)

    def renewed(self) -> "Bench":
        """The same with the current live revision."""
        return self._replace(compiled=Compiled.of(self.services.control.live(), "UTC", "USD"))

    def append(self, records: Iterator[Pending]) -> int:
        count = 0
        while batch := list(islice(records, APPEND)):
            self.services.log.append(batch)
            count += len(batch)
        return count


@contextmanager
def database() -> Iterator[Bench]:
    """A PostgreSQL server in a temporary folder, as `touchfold up` starts it."""
    folder = Path(tempfile.mkdtemp(prefix="touchfold-bench-"))
    postgres = EmbeddedPostgres(folder)
    try:
        postgres.start()
        migrate(postgres.dsn, "main")
        control = PostgresControl(postgres.dsn)
        made = definitions()
        with Database(postgres.dsn).transaction() as cursor:
            values = (json.loads(to_json(made)), made.content_hash, utc_now())
            insert_revision(cursor, 1, "live", "initial", *values)
        services = services_of(postgres.dsn)
        yield Bench(postgres, services, Compiled.of(control.live(), "UTC", "USD"))
    finally:
        postgres.stop()
        shutil.rmtree(folder)


def services_of(dsn: str) -> Services:
    """The processors' services, without a vault."""
    sealer: Sealer = NothingSealed()
    return Services(
        *(PostgresLog(dsn), PostgresStore(dsn), PostgresControl(dsn), sealer, _no_letter, SystemClock(), "UTC", "USD")
    )


class Cost(NamedTuple):
    """CPU cost of one stretch of the log."""

    events: int
    fold: Cpu
    decide: Cpu

    @property
    def total(self) -> Cpu:
        return self.fold.plus(self.decide)

    @property
    def us(self) -> float:
        return self.total.total_s / self.events * 1e6


class LivePath:
    """FOLD and DECIDE for everything new in the log, in batches of a given size."""

    def __init__(self, bench: Bench, starts: Sequence[int] = ()) -> None:
        self._bench = bench
        epochs = epochs_of(bench.services.control.progress(bench.compiled.revision.revision))
        deltas = DeltaCache()  # as in the worker's live loop
        self._folder: Folder = folder_of(bench.services, bench.compiled, epochs, deltas=deltas)
        self._decider: Decider = decider_of(bench.services, bench.compiled, deltas=deltas)
        self._next = list(starts) or [0] * bench.services.log.partitions

    @property
    def next_offsets(self) -> list[int]:
        return list(self._next)

    def read(self, size: int) -> list[list[Stored]]:
        """New records by partition; at most `size` in total."""
        part = size // len(self._next)
        return [self._bench.services.log.read(p, start, part) for p, start in enumerate(self._next)]

    def run(self, size: int) -> Cost:
        """Process everything new; reading the log is not counted."""
        events, fold, decide = 0, Cpu(0, 0), Cpu(0, 0)
        while any(parts := self.read(size)):
            batches = [
                Batch(p, self._next[p], records[-1].offset + 1, records, to_us(decode(records[-1].value).received_at))
                for p, records in enumerate(parts)
                if records
            ]
            lowest = min(batch.watermark_us for batch in batches)
            start = self._bench.cpu()
            self._folder.run(batches, lowest)
            folded = self._bench.cpu()
            while True:
                outcome = self._decider.run(lowest)
                if outcome.items == outcome.profiles == 0:
                    break
            self._bench.services.store.number_feed()
            decided = self._bench.cpu()
            fold, decide = fold.plus(folded - start), decide.plus(decided - folded)
            for batch in batches:
                self._next[batch.partition] = batch.end
                events += len(batch.records)
        return Cost(events, fold, decide)


def run_bare(bench: Bench, bare: BarePath, starts: Sequence[int], size: int) -> Cost:
    """Run the bare path over the log from `starts` on, in the same batches."""
    events, cpu, following = 0, Cpu(0, 0), list(starts)
    part = size // len(following)
    while any(parts := [bench.services.log.read(p, start, part) for p, start in enumerate(following)]):
        records = [record for each in parts for record in each]
        start = bench.cpu()
        bare.run(records)
        cpu = cpu.plus(bench.cpu() - start)
        events += len(records)
        following = [each[-1].offset + 1 if each else following[p] for p, each in enumerate(parts)]
    return Cost(events, cpu, Cpu(0, 0))


def measure(table: Table, size: Size) -> float:
    """The four lines of the live path; returns events per second and core for the largest batches, uniform."""
    rate = 0.0
    with database() as bench:
        live, bare = LivePath(bench), BarePath(bench.postgres.dsn)
        records = Records(size.customers, utc_now())
        bench.append(records.first_of_each())
        _steady(bench, live, bare)
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)  # as the worker process does
        for label, customers in (("uniform customers", None), ("repeating customers", size.customers // 40)):
            for batch in (2_000, 20_000):
                starts = bench.services.log.ends()
                bench.append(records.some(size.events, customers))
                plain = run_bare(bench, bare, starts, batch)
                cost = live.run(batch)
                _report(table, f"{label}, batches of {batch:,}", cost, plain)
                if customers is None:
                    rate = 1e6 / cost.us
        table.note(f"memory of the bench's own worker after the live path: {rss_bytes() / 2**20:.0f} MiB")
        bare.close()
    return rate


def _steady(bench: Bench, live: LivePath, bare: BarePath) -> None:
    """Warm up, unmeasured: every customer once, and PostgreSQL's statistics and maps brought up to date."""
    run_bare(bench, bare, [0] * bench.services.log.partitions, 20_000)
    live.run(20_000)
    with Database(bench.postgres.dsn).transaction() as cursor:
        cursor.execute("analyze")
        cursor.execute("select pg_stat_force_next_flush()")


def _split(cpu: Cpu, events: int) -> str:
    """Microseconds per event: total (Python/PostgreSQL)."""
    python, postgres = cpu.python_s / events * 1e6, cpu.postgres_s / events * 1e6
    return f"{python + postgres:.1f} ({python:.1f}/{postgres:.1f})"


def _report(table: Table, what: str, cost: Cost, plain: Cost) -> None:
    goal = 25_000 if what.startswith("repeating") else 10_000
    ratio = cost.us / plain.us
    parts = f"{_split(cost.fold, cost.events)} + {_split(cost.decide, cost.events)}"
    table.add(
        SECTION,
        f"{what}: µs of CPU an event, FOLD + DECIDE (Python/PostgreSQL)",
        f"{parts} = {cost.us:.1f}",
        f"bare path {_split(plain.fold, plain.events)}",
        ratio=ratio,
        target=f"≤ {GOAL:.0f}",
        met=ratio <= GOAL,
    )
    rate, bare_rate = 1e6 / cost.us, f"bare path {1e6 / plain.us:,.0f}"
    what = f"{what}: events a second and core"
    table.add(SECTION, what, f"{rate:,.0f}", bare_rate, target=f"hoped {goal:,}", met=rate >= goal)
