"""A rebuild of the whole log compared with the live rate, both per core; and whether its memory grows with the log.

The rebuild runs in a separate process (`python -m tests.bench.rebuild DSN`), so that its memory can be measured.
"""

import gc
import json
import resource
import subprocess
import sys
import time

from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.rebuild import PostgresRebuild
from processors.live.feeder import LogFeeder
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from processors.rebuild.definitions import start_rebuild
from tests.bench.live import Bench, LivePath, Size, database, services_of
from tests.bench.measure import Table, cpu_of_tree
from tests.bench.synthetic import Records, utc_now

SECTION = "Rebuild"
GOAL = 4.0


def measure(table: Table, size: Size) -> None:
    """Rebuild a quarter of the log, then all of it."""
    with database() as bench:
        live = LivePath(bench)
        customers = min(size.customers, size.log // 12)
        records = Records(customers, utc_now())
        first = bench.append(records.first_of_each())
        cost = live.run(20_000)
        table.note(f"rebuild: {first:,} events met {customers:,} new customers at {cost.us:.1f} µs of CPU each")
        memories = []
        for total in (size.log // 4, size.log):
            missing = total - sum(bench.services.log.ends())
            if missing > 0:
                bench.append(records.some(missing))
                more = live.run(20_000)
                cost = more if more.events >= 10_000 else cost  # a handful of events says nothing about a rate
            events = sum(bench.services.log.ends())
            memories.append(_measure_one(table, bench, events, cost.us))
            live = _after_swap(bench, live)
        growth = memories[1] / memories[0]
        what = "peak memory of the rebuilding process, whole log against a quarter of it"
        small, large = (f"{memory / 2**20:.0f} MiB" for memory in memories)
        table.add(SECTION, what, large, small, growth, "flat (≤ 1.2)", growth <= 1.2)


def _measure_one(table: Table, bench: Bench, events: int, live_us: float) -> float:
    """One rebuild; returns the peak memory of its process."""
    control = bench.services.control
    start_rebuild(control, utc_now())
    postgres = cpu_of_tree(bench.postgres.pid)
    command = [sys.executable, "-m", "tests.bench.rebuild", bench.postgres.dsn]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    cpu_s = result["cpu_s"] + cpu_of_tree(bench.postgres.pid) - postgres
    us = cpu_s / events * 1e6
    ratio = live_us / us
    table.add(
        SECTION,
        f"{events:,} events: events a second and core",
        f"{1e6 / us:,.0f} ({us:.1f} µs, {result['cpu_s'] / events * 1e6:.1f} of it Python; {result['wall_s']:.1f} s)",
        f"live {1e6 / live_us:,.0f}",
        ratio,
        f"≥ {GOAL:.0f}",
        ratio >= GOAL,
    )
    return float(result["peak_bytes"])


def _after_swap(bench: Bench, before: LivePath) -> LivePath:
    """The live path of the swapped-in revision, from where the previous one had got to."""
    return LivePath(bench.renewed(), before.next_offsets)


def main(dsn: str) -> None:
    """Build the waiting revision, swap it in and print the cost."""
    started, cpu = time.monotonic(), time.process_time()
    services = services_of(dsn)
    feeder = LogFeeder(Worker(services, Builder(services, PostgresRebuild(dsn))))
    gc.set_threshold(50_000, 20, 100)  # as the worker process does
    while PostgresControl(dsn).building() is not None:
        feeder.step()
    result = {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.monotonic() - started,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
