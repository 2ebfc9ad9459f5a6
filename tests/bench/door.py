"""The door over HTTP, reads while events arrive, and memory, all measured on a real `touchfold up`."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.bench import baselines, http_load
from tests.bench.http_load import Plan, Result
from tests.bench.measure import Table, command_of, pss_bytes, tree
from tests.checker.product import Product

SECTION = "Door"
READS = "Profile by identifier"
MEMORY = "Memory"
GATEWAY = "known gateway"
GATEWAY_REQUESTS, GATEWAY_P50_MS, GATEWAY_P99_MS, GATEWAY_EVENTS = 3_400, 18, 39, 28_000


class Size(NamedTuple):
    """Amounts to send."""

    single: int  # requests of one event
    batched: int  # requests of 100 events
    customers: int
    events: int  # in the log when memory is measured
    read_s: float


QUICK = Size(500, 20, 200, 3_000, 2)
FULL = Size(50_000, 2_000, 100_000, 1_000_000, 20)


@contextmanager
def product(doors: int = 1) -> Iterator[tuple[Product, str]]:
    """A fresh `touchfold up` with one source, and its write key."""
    with tempfile.TemporaryDirectory(prefix="touchfold-bench-") as folder:
        running = Product(Path(folder), {"TOUCHFOLD_DOORS": str(doors)})
        try:
            running.up()
            yield running, running.source("bench")
        finally:
            running.stop()


def measure(table: Table, size: Size) -> None:
    """One and two door processes at 1 and 100 events per request; with two, also reads and memory."""
    bare = baselines.append_and_sync(Plan(0, "track", 1, min(size.batched, 300), 100, customers=size.customers))
    with baselines.empty_server() as port:
        empty = http_load.run(Plan(port, "empty", 32, size.single, customers=size.customers))
    for doors in (1, 2):
        with product(doors) as (running, key):
            with suspended(running, "worker", "archive"):
                single = _single(running.port, key, size, doors, "alone")
                batched = _batched(running.port, key, size, doors, "alone")
            _report(table, f"{_doors(doors)} alone", single, batched, bare, empty)
            single = _single(running.port, key, size, doors, "beside")
            batched = _batched(running.port, key, size, doors, "beside")
            _report(table, f"{_doors(doors)} beside the worker", single, batched, bare, empty)
            if doors == 1:
                _reads(table, running, key, size)
                _memory(table, running, key, size)


@contextmanager
def suspended(running: Product, *roles: str) -> Iterator[None]:
    """Suspend these roles: a gateway does not fold either, and there are only two cores."""
    processes = [each for role in roles for each in running.processes()[role]]
    for each in processes:
        each.suspend()
    try:
        yield
    finally:
        for each in processes:
            each.resume()


def _doors(count: int) -> str:
    return f"{count} door process{'es' if count > 1 else ''}"


def _single(port: int, key: str, size: Size, doors: int, prefix: str) -> Result:
    return http_load.run(Plan(port, "track", 32 * doors, size.single, 1, key, size.customers, prefix=f"1{prefix}"))


def _batched(port: int, key: str, size: Size, doors: int, prefix: str) -> Result:
    """Always sixteen connections, whatever the number of doors."""
    plan = Plan(port, "track", 16, size.batched, 100, key, size.customers, prefix=f"{doors}x100{prefix}")
    return http_load.run(plan)


def _report(table: Table, word: str, single: Result, batched: Result, bare: float, empty: Result) -> None:
    for result in (single, batched):
        if result.ok != result.requests:
            table.note(f"{word}: not every answer was 200: {result.statuses}")
    events = batched.per_second * 100
    table.add(
        SECTION,
        f"{word}, 100 events a request, 16 connections",
        f"{events:,.0f} events/s (p50 {batched.p50_ms:.1f} ms, p99 {batched.p99_ms:.1f} ms)",
        f"decode, seal, append, fdatasync in one process: {bare:,.0f} events/s",
        ratio=events / bare,
        target="≥ 0.4",
        met=events / bare >= 0.4,
    )
    what = f"{word}, 100 events a request, against the {GATEWAY}"
    ratio = events / GATEWAY_EVENTS
    table.add(SECTION, what, f"{events:,.0f} events/s", f"{GATEWAY_EVENTS:,} events/s", ratio, "> 1", ratio > 1)
    ratio = single.per_second / empty.per_second
    figure = f"{single.per_second:,.0f} requests/s (p50 {single.p50_ms:.1f} ms, p99 {single.p99_ms:.1f} ms)"
    table.add(
        SECTION,
        f"{word}, 1 event a request, 32 connections a door",
        figure,
        f"same server, empty raw handler: {empty.per_second:,.0f} requests/s (p99 {empty.p99_ms:.1f} ms)",
        ratio=ratio,
        target="≥ 0.2",
        met=ratio >= 0.2,
    )
    ratio = single.per_second / GATEWAY_REQUESTS
    known = f"{GATEWAY_REQUESTS:,} requests/s (p50 {GATEWAY_P50_MS} ms, p99 {GATEWAY_P99_MS} ms)"
    met = ratio > 1 and single.p99_ms < GATEWAY_P99_MS
    what = f"{word}, 1 event a request, against the {GATEWAY}"
    table.add(SECTION, what, figure, known, ratio, "> 1", met)


def _reads(table: Table, running: Product, key: str, size: Size) -> None:
    """Profiles at 200 per second, alone and while 1,000 events per second arrive."""
    running.settle(1_200)
    token = str(running.ask("token", "create", "--role", "admin")["token"])
    count = int(200 * size.read_s)
    plan = Plan(running.port, "profile", 32, count, key=token, customers=size.customers, rate=200)
    quiet = http_load.run(plan)
    writes = Plan(*(running.port, "track", 4, int(50 * size.read_s), 20, key, size.customers), rate=50, prefix="beside")
    with http_load.start(writes) as process:
        busy = http_load.run(plan)
        http_load.finish(process)
    for result in (quiet, busy):
        found = result.ok + result.statuses.get("404", 0)
        if found != result.requests:
            table.note(f"reads: not every answer was 200 or 404: {result.statuses}")
    table.add(
        READS,
        "200 requests/s while 1,000 events/s arrive: p99",
        f"{busy.p99_ms:.1f} ms (p50 {busy.p50_ms:.1f} ms)",
        f"without events p99 {quiet.p99_ms:.1f} ms",
        ratio=busy.p99_ms / quiet.p99_ms,
        target="p99 < 10 ms",
        met=busy.p99_ms < 10,
    )


def _memory(table: Table, running: Product, key: str, size: Size) -> None:
    """Proportional memory of each of our processes, at the given log size."""
    before = _shares(running)
    have = int(running.ask("status")["accepted"])
    if have < size.events:
        requests = (size.events - have) // 100
        plan = Plan(running.port, "track", 8, requests, 100, key, size.customers, prefix="fill")
        http_load.run(plan)
    running.settle(3_600)
    after = _shares(running)
    total, was = sum(after.values()), sum(before.values())
    parts = ", ".join(f"{role} {share / 2**20:.0f}" for role, share in after.items())
    events = int(running.ask("status")["accepted"])
    table.add(
        MEMORY,
        f"all our processes with {events:,} events, {size.customers:,} customers (PSS, MiB: {parts})",
        f"{total / 2**20:.0f} MiB",
        f"with {have:,} events {was / 2**20:.0f} MiB",
        ratio=total / was,
        target="< 1024 MiB",
        met=total < 2**30,
    )


def _shares(running: Product) -> dict[str, int]:
    """Bytes by role; PostgreSQL includes all its backends."""
    shares: dict[str, int] = {}
    for role, processes in running.processes().items():
        pids = [pid for each in processes for pid in (_own(each, role))]
        shares[role] = sum(pss_bytes(pid) for pid in pids)
    return shares


def _own(process: psutil.Process, role: str) -> list[int]:
    """The process and its children; for `up` only itself, since its children are the other roles."""
    if role == "up":
        return [process.pid]
    return [pid for pid in tree(process.pid) if command_of(pid) or pid == process.pid]
