"""What an event rate needs, computed from measured figures: cores, processes, partitions, disks, network.

A linear model: twice the events, twice the work. It leaves out what grows faster (contention on one PostgreSQL, a
customer with a large share of all events); docs/scaling.md says where that matters. Pure except for `read_figures`,
which reads a table in the package.
"""

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from typing import Any, Final, NamedTuple

DAY_S: Final = 86_400
YEAR_DAYS: Final = 365
PARTITION_STEP: Final = 12  # divides evenly among 2, 3, 4, 6 and 12 workers
SOURCES: Final = ("kafka", "embedded", "assumed")
MOST_EVENTS: Final = 10_000_000.0
MOST_CUSTOMERS: Final = 100_000_000_000
LEAST_DAYS: Final = 1 / 24
MOST_DAYS: Final = 36_500
LEAST_BYTES: Final = 100
MOST_BYTES: Final = 1 << 20
CUSTOMERS_AN_EVENT_A_SECOND: Final = 1_000
"""Default number of customers per event/s: 86 events a day each, so few for the rate."""


class Figure(NamedTuple):
    """One measured or assumed number, and its source."""

    name: str
    value: float
    unit: str
    source: str  # one of SOURCES
    at: date
    bench: str


class Figures:
    """The immutable table of figures; `figures["fold_cpu"]` is a value."""

    def __init__(self, listed: Sequence[Figure]) -> None:
        self.listed = tuple(listed)
        self._values = {figure.name: figure.value for figure in listed}

    def __getitem__(self, name: str) -> float:
        return self._values[name]


def parse_figures(text: str) -> Figures:
    """The table from its TOML. Raises ValueError for a figure that is incomplete or not positive."""
    entries: Mapping[str, Any] = tomllib.loads(text)
    listed = []
    for name, entry in entries.items():
        if name == "hardware":
            continue
        figure = Figure(name, entry["value"], entry["unit"], entry["from"], entry["date"], entry["bench"])
        if not (figure.value > 0 and figure.source in SOURCES and figure.unit and figure.bench):
            raise ValueError(f"figure {name} is incomplete: {entry}")
        listed.append(figure)
    return Figures(listed)


def read_figures() -> Figures:
    """The table of this release."""
    return parse_figures(files("infra").joinpath("deploy/figures.toml").read_text(encoding="utf-8"))


class Ask(NamedTuple):
    """The load to plan for. `events_per_second`: the peak rate to sustain, not a daily mean."""

    events_per_second: float
    customers: int
    retention_days: float  # of the log in Kafka; the archive keeps everything
    event_bytes: float  # of a record in Kafka, compressed


def ask_of(
    figures: Figures,
    events_per_second: float,
    customers: int | None = None,
    retention_days: float = 7,
    event_bytes: float | None = None,
) -> Ask:
    """The load with defaults filled in. Raises ValueError with a sentence for values that make no sense."""
    _check("events per second", events_per_second, 0.001, MOST_EVENTS)
    if customers is None:
        customers = max(1, round(events_per_second * CUSTOMERS_AN_EVENT_A_SECOND))
    if event_bytes is None:
        event_bytes = figures["record_bytes"]
    _check("customers", customers, 1, MOST_CUSTOMERS)
    _check("retention days", retention_days, LEAST_DAYS, MOST_DAYS)
    _check("event bytes", event_bytes, LEAST_BYTES, MOST_BYTES)
    return Ask(events_per_second, customers, retention_days, event_bytes)


def _check(what: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # NaN is in no range
        raise ValueError(f"{what}: {value:g} is not from {least:g} to {most:,.0f}")


class Need(NamedTuple):
    """An amount of something. `name` is stable, for JSON."""

    part: str
    name: str
    what: str
    amount: float
    unit: str


class Limit(NamedTuple):
    """The rate at which one of a resource is saturated, and what to do then. `grows`: adding more is enough."""

    name: str
    what: str
    events_per_second: float
    grows: bool
    then: str


@dataclass(frozen=True)
class Plan:
    """The plan. `limits` are ascending; those up to the requested rate are `reached`."""

    ask: Ask
    needs: tuple[Need, ...]
    limits: tuple[Limit, ...]

    def amount(self, name: str) -> float:
        return next(need.amount for need in self.needs if need.name == name)

    @property
    def reached(self) -> tuple[Limit, ...]:
        return tuple(limit for limit in self.limits if limit.events_per_second <= self.ask.events_per_second)

    @property
    def bottleneck(self) -> Limit | None:
        """The first reached limit that more processes or servers of the same kind do not lift."""
        return next((limit for limit in self.reached if not limit.grows), None)


class _Costs(NamedTuple):
    """Microseconds of CPU per event, by component; bytes per event."""

    door: float
    broker: float
    worker: float
    worker_busy: float  # of one worker's time: its own CPU and the wait for PostgreSQL
    postgres: float
    archive: float
    publish: float
    wal: float
    network: float  # of all brokers together, the busier way
    broker_disk: float


def _costs(figures: Figures, ask: Ask) -> _Costs:
    replicas, readers, changes = figures["replicas"], figures["readers"], figures["changes"]
    consume = figures["broker_consume_cpu"]
    written = ask.event_bytes + changes * figures["message_bytes"]
    worker = figures["runner_cpu"] + figures["fold_cpu"] + figures["decide_cpu"]
    in_postgres = figures["fold_postgres_cpu"] + figures["decide_postgres_cpu"]
    # A follower costs the leader a read, and itself a write, which is assumed to cost as much as a read.
    produced = (1 + changes) * (figures["broker_produce_cpu"] + (replicas - 1) * 2 * consume)
    return _Costs(
        door=figures["door_cpu"],
        broker=produced + readers * consume,
        worker=worker,
        worker_busy=worker + in_postgres,
        postgres=figures["door_postgres_cpu"] + in_postgres,
        archive=figures["archive_cpu"] + figures["runner_cpu"],
        publish=changes * figures["publish_cpu"],
        wal=figures["wal_bytes"],
        network=max(written * replicas, written * (replicas - 1) + ask.event_bytes * readers),
        broker_disk=written * replicas,
    )


def plan(figures: Figures, ask: Ask) -> Plan:
    """What `ask` needs and where it ends."""
    costs = _costs(figures, ask)
    return Plan(ask, (*_processes(figures, ask, costs), *_stores(figures, ask, costs)), _limits(figures, ask, costs))


def _cores(figures: Figures, ask: Ask, us: float) -> float:
    """Cores to plan for, at `us` microseconds per event."""
    return ask.events_per_second * us / 1e6 / figures["core_use"]


def _partitions(workers: int) -> int:
    """Two per worker, so that an extra worker can take some from each."""
    return max(PARTITION_STEP, math.ceil(2 * workers / PARTITION_STEP) * PARTITION_STEP)


def _processes(figures: Figures, ask: Ask, costs: _Costs) -> list[Need]:
    """Needs of our own roles. A process uses one core at most."""
    workers = math.ceil(_cores(figures, ask, costs.worker_busy))
    return [
        Need("door", "doors", "processes", math.ceil(_cores(figures, ask, costs.door)), ""),
        Need("door", "door_cores", "cores", _cores(figures, ask, costs.door), "cores"),
        Need("worker", "workers", "processes", workers, ""),
        Need("worker", "worker_cores", "cores", _cores(figures, ask, costs.worker), "cores"),
        Need("worker", "partitions", "partitions of the events topic", _partitions(workers), ""),
        Need("archive", "archivers", "processes", math.ceil(_cores(figures, ask, costs.archive)), ""),
        Need("archive", "archive_cores", "cores", _cores(figures, ask, costs.archive), "cores"),
        Need("publish", "publish_cores", "cores", _cores(figures, ask, costs.publish), "cores"),
    ]


def _stores(figures: Figures, ask: Ask, costs: _Costs) -> list[Need]:
    """Needs of brokers, PostgreSQL and the archive. A day means a whole day at the requested rate."""
    rate, use = ask.events_per_second, figures["core_use"]
    day = rate * DAY_S
    network, kept = rate * costs.network / 1e6, day * costs.broker_disk * ask.retention_days / 1e12
    brokers = max(
        figures["replicas"],
        math.ceil(_cores(figures, ask, costs.broker) / figures["broker_cores"]),
        math.ceil(network / (figures["broker_network_mb"] * use)),
        math.ceil(kept / (figures["broker_disk_tb"] * use)),
    )
    profiles = ask.customers * figures["profile_bytes"] / 1e9
    grows = day * (figures["register_bytes"] + figures["changes"] * figures["change_bytes"]) / 1e9
    cores, wal = _cores(figures, ask, costs.postgres), rate * costs.wal / 1e6
    memory = profiles * figures["active_share"]
    servers = max(
        math.ceil(cores / figures["postgres_cores"]),
        math.ceil(wal / figures["postgres_wal_mb"]),
        math.ceil(memory / figures["postgres_memory_gb"]),
        math.ceil(profiles / 1_000 / figures["postgres_disk_tb"]),
    )
    full_days = (servers * figures["postgres_disk_tb"] * 1_000 - profiles) / grows
    return [
        Need("Kafka", "brokers", "brokers", brokers, ""),
        Need("Kafka", "broker_cores", "cores of all brokers", _cores(figures, ask, costs.broker), "cores"),
        Need("Kafka", "broker_network_mb", "network of all brokers, each way", network, "MB/s"),
        Need("Kafka", "broker_disk_tb", f"disk for {ask.retention_days:g} days", kept, "TB"),
        Need("PostgreSQL", "postgres_servers", "servers", servers, ""),
        Need("PostgreSQL", "postgres_cores", "cores", cores, "cores"),
        Need("PostgreSQL", "postgres_wal_mb", "WAL", wal, "MB/s"),
        Need("PostgreSQL", "postgres_memory_gb", "memory for active profiles", memory, "GB"),
        Need("PostgreSQL", "postgres_profiles_gb", "disk for profiles", profiles, "GB"),
        Need("PostgreSQL", "postgres_growth_gb", "dedup index and changes, a day", grows, "GB"),
        Need("PostgreSQL", "postgres_full_days", "until these disks are full", full_days, "days"),
        Need("archive", "archive_gb", "Parquet, a day", day * _archive_bytes(figures, ask) / 1e9, "GB"),
    ]


def _archive_bytes(figures: Figures, ask: Ask) -> float:
    """In proportion to the record."""
    return figures["archive_bytes"] * ask.event_bytes / figures["record_bytes"]


def _limits(figures: Figures, ask: Ask, costs: _Costs) -> tuple[Limit, ...]:
    """The rates at which one of each is saturated, ascending."""
    use = figures["core_use"]

    def of_cores(us: float, cores: float = 1) -> float:
        return cores * use * 1e6 / us

    per_customer = ask.customers / ask.events_per_second
    memory = figures["postgres_memory_gb"] * 1e9 / (figures["profile_bytes"] * figures["active_share"])
    grows = figures["register_bytes"] + figures["changes"] * figures["change_bytes"]
    brokers = figures["replicas"]
    rate_of: Callable[[float], float] = lambda mb: mb * 1e6 * use / costs.network  # noqa: E731
    found = [
        Limit(
            *("worker", "one worker process", of_cores(costs.worker_busy), True),
            "start more: each takes partitions from the others",
        ),
        Limit(*("door", "one door process", of_cores(costs.door), True), "start more, on any machine"),
        Limit(
            *("archiver", "one archiver", of_cores(costs.archive), True),
            "start more: they take turns at partitions",
        ),
        Limit(
            *("publisher", "the publisher", of_cores(costs.publish), False),
            "one process numbers and sends all changes in order: publish fewer traits and segments (publishing by"
            " shard of profiles is not built)",
        ),
        Limit(
            *("partitions", f"{figures['partitions_most']:,.0f} partitions, two a worker"),
            of_cores(costs.worker_busy, figures["partitions_most"] / 2),
            False,
            "give each worker one partition (twice this rate); then several deployments, each with its customers",
        ),
        Limit(
            *("postgres_cores", f"{figures['postgres_cores']:.0f} cores of one PostgreSQL"),
            of_cores(costs.postgres, figures["postgres_cores"]),
            False,
            "move reads to replicas first (they are not in this figure), then shard by profile (not built)",
        ),
        Limit(
            *("postgres_wal", f"WAL of one PostgreSQL, {figures['postgres_wal_mb']:.0f} MB/s"),
            figures["postgres_wal_mb"] * 1e6 / costs.wal,
            False,
            "faster disks, checkpoints further apart (fewer whole pages in WAL); then shard by profile",
        ),
        Limit(
            *("postgres_memory", "active profiles in the memory of one PostgreSQL"),
            memory / per_customer,
            False,
            "fewer computed traits, more memory, or slower reads from disk; then shard by profile",
        ),
        Limit(
            *("postgres_disk", "disk of one PostgreSQL: dedup index and changes of a year"),
            figures["postgres_disk_tb"] * 1e12 / (per_customer * figures["profile_bytes"] + grows * DAY_S * YEAR_DAYS),
            False,
            "rows of the dedup index and of changes are never deleted: a larger disk, or a shard, by then",
        ),
        Limit(
            *("broker_cores", f"cores of {brokers:.0f} brokers"),
            of_cores(costs.broker, brokers * figures["broker_cores"]),
            True,
            "add brokers and move partitions to them",
        ),
        Limit(
            *("broker_network", f"network of {brokers:.0f} brokers"),
            rate_of(brokers * figures["broker_network_mb"]),
            True,
            "add brokers, or faster networks",
        ),
        Limit(
            *("broker_disk", f"disks of {brokers:.0f} brokers, {ask.retention_days:g} days"),
            brokers * figures["broker_disk_tb"] * use * 1e12 / (costs.broker_disk * DAY_S * ask.retention_days),
            True,
            "keep fewer days in Kafka (the archive has all), or add brokers",
        ),
    ]
    return tuple(sorted(found, key=lambda limit: limit.events_per_second))
