"""The parts of the bench: what is measured against what, in which order, and how it is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from infra.adapters.postgres.embedded import EmbeddedPostgres
from schemas.record import Pending
from tests.bench import http_load
from tests.bench.http_load import Plan
from tests.bench.kafka import agent, door, latency, loops, roles, running, streams
from tests.bench.kafka.pairs import paired
from tests.bench.kafka.sizes import Size
from tests.bench.kafka.topic import PARTITIONS, Broker, Filled, Ran, fill
from tests.bench.measure import Table
from tests.bench.synthetic import Records, definitions_text, utc_now

COUNT_ONLY: Final = "computed_traits:\n  events: {aggregate: count, events: [web.page_viewed]}\n"


class Unfit(Exception):
    """This machine cannot measure it; says why."""


@dataclass
class Bench:
    """The broker, the sizes, the table, and what one part leaves for another."""

    on: Broker
    size: Size
    table: Table
    _filled: Filled | None = None
    ran: dict[str, Ran] = field(default_factory=dict)
    folded: dict[str, running.Folded] = field(default_factory=dict)

    def filled(self) -> Filled:
        """The topic that loops and Streams read, filled once."""
        if self._filled is None:
            self._filled = fill(self.on, Records(self.size.customers, utc_now()).some(self.size.events))
            made = self._filled
            self.table.note(
                f"topic of {made.events:,} records of {made.value_bytes / made.events:.0f} bytes in {PARTITIONS}"
                f" partitions; the broker used {made.broker_cpu_s / made.events * 1e6:.1f} µs for each that came"
            )
        return self._filled

    def world(self) -> tuple[list[Pending], list[Pending]]:
        """One record of every signature, and as many more as the workers are measured with."""
        records = Records(max(1, self.size.customers // 2), utc_now())
        return list(records.first_of_each()), list(records.some(self.size.fold_events))


def measure_streams(bench: Bench) -> None:
    """Kafka Streams over the topic, with one thread and with two."""
    if why := streams.missing():
        raise Unfit(why)
    for threads in (1, 2):
        found = bench.ran[f"streams {threads}"] = streams.run(bench.on, bench.filled(), threads)
        word = f"Kafka Streams count(), RocksDB, exactly_once_v2, {threads} thread{'s' if threads > 1 else ''}"
        bench.table.add("Baselines", word, found.words(), f"{found.per_core:,.0f} events a second and core")


def measure_agent(bench: Bench) -> None:
    """The stock agent over a shorter topic."""
    short = fill(bench.on, Records(bench.size.customers, utc_now()).some(bench.size.agent_events))
    for upsert, word in ((False, "Table alone"), (True, "Table and one upsert an event")):
        found = bench.ran["agent" if upsert else "agent, table"] = agent.run(bench.on, short, upsert)
        short = fill(bench.on, Records(bench.size.customers, utc_now()).some(bench.size.agent_events))
        bench.table.add("Baselines", f"stock Faust agent, {word}", found.words())


def measure_loops(bench: Bench) -> None:
    """Both runners without work against the plain loop."""
    filled = bench.filled()
    plain = bench.ran["plain"] = loops.run(bench.on, filled, "plain")
    bench.table.add("Runner", "plain aiokafka loop", plain.words())
    with TemporaryDirectory(prefix="touchfold-bench-") as folder:
        postgres = EmbeddedPostgres(Path(folder))
        postgres.start()
        try:
            for which in loops.RUNNERS:
                for dsn, word in (("", "no work at all"), (postgres.dsn, "no-op fold, progress in PostgreSQL")):
                    found = loops.run(bench.on, filled, which, dsn, postgres.pid if dsn else 0)
                    ratio = plain.us / found.us  # of CPU: a rate says more of what else runs here
                    goal = ("≥ 0.7", ratio >= 0.7) if dsn else ("", None)
                    bench.table.add("Runner", f"{which}: {word}", found.words(), plain.words(), ratio, *goal)
        finally:
            postgres.stop()


def measure_door(bench: Bench) -> None:
    """The door of `up` while the workers stand still, against the bare process."""
    bench.filled()  # a broker that has just started compiles while it works
    bare = door.run(bench.on, bench.size.requests)
    bench.table.add("Door", "bare process: decode, seal, produce", bare.words())
    for doors in (1, 2):
        with running.up(bench.on, {"TOUCHFOLD_DOORS": str(doors)}) as (ready, key):
            with ready.suspended("worker", "archive", "publish"):
                before = ready.cpu_s("http")
                plan = Plan(ready.product.port, "track", 16, bench.size.requests, 100, key, bench.size.customers)
                result = http_load.run(plan)
                cpu = (ready.cpu_s("http") - before) / (bench.size.requests * 100) * 1e6
            rate = result.per_second * 100
            assert result.ok == result.requests, f"not every answer was 200: {result.statuses}"
            word = f"{doors} door process{'es' if doors > 1 else ''}, 100 events a request, 16 connections, into Kafka"
            figure = f"{rate:,.0f} events/s, {cpu:.1f} µs of CPU an event (p99 {result.p99_ms:.0f} ms)"
            ratio = rate / bare.per_second
            bench.table.add("Door", word, figure, f"{bare.per_second:,.0f} events/s", ratio, "≥ 0.4", ratio >= 0.4)
            if doors == 1:
                what, ratio = "1 door process, CPU an event against the bare process", bare.us / cpu
                bench.table.add("Door", what, f"{cpu:.1f} µs", f"{bare.us:.1f} µs", ratio, "≥ 0.4", ratio >= 0.4)


def measure_fold(bench: Bench) -> None:
    """The whole fold on Kafka against the embedded one; both against the agent and Streams, when those were run."""
    warm, records = bench.world()
    embedded = running.fold_all(None, warm, records, definitions_text())
    bench.table.add("Worker", "embedded: 30 traits, 20 segments", embedded.words())
    for runner in loops.RUNNERS:
        found = running.fold_all(bench.on, warm, records, definitions_text(), {"TOUCHFOLD_WORKER_RUNNER": runner})
        bench.folded[runner] = found
        ratio = embedded.us / found.us
        what = f"Kafka, {runner} runner: 30 traits, 20 segments; per core"
        bench.table.add("Worker", what, found.words(), embedded.words(), ratio, "≥ 0.8", ratio >= 0.8)
    small = bench.folded["one count"] = running.fold_all(bench.on, warm, records, COUNT_ONLY)
    bench.table.add("Worker", "Kafka, faust runner: one count as definition", small.words())
    _against(bench)


def _against(bench: Bench) -> None:
    """What others on the same topic do, where it was measured in this run."""
    full, small = bench.folded["faust"], bench.folded["one count"]
    if stock := bench.ran.get("agent"):
        ratio = full.per_second / stock.per_second
        what = "full fold against the stock Faust agent: events a second"
        bench.table.add("Worker", what, full.words(), stock.words(), ratio, "≥ 10", ratio >= 10)
    counted = bench.ran.get("streams 1")
    if counted is None:
        return
    for word, ours in (("full fold", full), ("one count", small)):
        ratio = 1e6 / ours.us / counted.per_core
        what = f"{word} against Kafka Streams count(): events a second and core, PostgreSQL and Java counted"
        bench.table.add("Worker", what, f"{1e6 / ours.us:,.0f}", f"{counted.per_core:,.0f}", ratio, "> 1", ratio > 1)
    with_broker = 1e6 / (counted.us + counted.broker_us)
    bench.table.note(f"Kafka Streams with what its changelog and transactions cost the broker: {with_broker:,.0f}")


def measure_roles(bench: Bench) -> None:
    """What the capacity model needs, on Kafka and embedded."""
    for on, word in ((None, "embedded"), (bench.on, "Kafka")):
        found = roles.measure(on, bench.size.requests, bench.size.customers)
        for role, cpu in found.roles.items():
            bench.table.add("Roles", f"{word}: {role}, µs of CPU an event", cpu.words())
        for name, amount in found.bytes_of.items():
            unit = "" if name.startswith("number") else " bytes"
            bench.table.add("Roles", f"{word}: {name}", f"{amount:,.2f}" if not unit else f"{amount:,.0f}{unit}")


def measure_latency(bench: Bench) -> None:
    """HTTP send to profile visible, on Kafka and embedded."""
    for on, word in ((None, "embedded"), (bench.on, "Kafka")):
        with running.up(on) as (ready, key):
            new, known = latency.measure(ready, key, bench.size.probes, bench.size.customers)
        for found, whose in ((new, "each of a new customer"), (known, "of known customers")):
            if found is None:
                continue
            met = found.p50_ms <= 25 and found.p99_ms <= 100
            goal = ("p50 ≤ 25, p99 ≤ 100 ms", met) if on else ("", None)
            what = f"{word}: HTTP send to profile visible, {latency.RATE:,} events/s arriving, {whose}"
            bench.table.add("End to end", what, found.words(), "", None, *goal)


def measure_workers(bench: Bench) -> None:
    """One worker and two, on customers that lie in one partition each and on customers that all span both halves.

    A few customers are in every batch of both workers, which decide each of them twice as often; many are not.
    """
    few, many = max(2, bench.size.customers // 10), bench.size.customers
    for customers, counts in ((many, (2,)), (few, (1, 2))):
        rates: dict[tuple[str, int], float] = {}
        for word, apart in (("disjoint", False), ("overlapping", True)):
            warm, records = paired(customers, bench.size.fold_events, apart, PARTITIONS)
            for workers in counts:
                more = {"TOUCHFOLD_WORKERS": str(workers)}
                found = running.fold_all(bench.on, warm, records, definitions_text(), more)
                rates[word, workers] = found.per_second
                bench.table.add("Several workers", f"{workers} on {customers:,} {word} customers", found.words())
            if 1 in counts:
                factor = rates[word, 2] / rates[word, 1]
                what = f"two workers against one, {word} customers, two cores with broker and PostgreSQL on them"
                bench.table.add("Several workers", what, f"{factor:.2f}", "", factor)
        ratio = rates["overlapping", 2] / rates["disjoint", 2]
        what = f"two workers: overlapping against disjoint customers, {customers:,} of them"
        figures = [f"{rates[word, 2]:,.0f} events/s" for word in ("overlapping", "disjoint")]
        bench.table.add("Several workers", what, figures[0], figures[1], ratio, "≥ 0.8", ratio >= 0.8)


PARTS: Final[Mapping[str, Callable[[Bench], None]]] = {
    "streams": measure_streams,
    "agent": measure_agent,
    "loops": measure_loops,
    "door": measure_door,
    "fold": measure_fold,
    "roles": measure_roles,
    "latency": measure_latency,
    "workers": measure_workers,
}
"""By name, in the order they are run: what others are compared with comes first."""
