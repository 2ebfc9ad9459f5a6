"""What each role costs an event and where its bytes go: the figures behind `touchfold capacity`.

The roles work one after the other over the same events, each while the others stand still, so that the CPU of
PostgreSQL and of the broker can be told apart by role. Sent over HTTP: sealed parts are real and do not compress.
"""

import json
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

import psycopg2

from tests.bench import http_load
from tests.bench.http_load import Plan
from tests.bench.kafka.running import Up, definitions_of, up
from tests.bench.kafka.topic import Broker
from tests.bench.synthetic import definitions_text

EVENTS_A_REQUEST: Final = 100
DEADLINE_S: Final = 900.0
ANSWER_S: Final = 120.0
BACKGROUND: Final = ("worker", "archive", "publish")
_SIZES: Final = """
select c.relname, pg_total_relation_size(c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname = 'public'
"""
_BY_EVENT: Final = ("register", "not_applied", "segment_days")
_BY_CHANGE: Final = ("changes", "feed_batches")


class Cpu(NamedTuple):
    """Microseconds an event: of the role's own processes, of PostgreSQL, of the broker."""

    own: float
    postgres: float
    broker: float

    def words(self) -> str:
        return f"{self.own:.1f} own, {self.postgres:.1f} PostgreSQL, {self.broker:.1f} broker"


class Found(NamedTuple):
    """All of it. Bytes by what they grow with."""

    events: int
    customers: int
    roles: dict[str, Cpu]
    bytes_of: dict[str, float]


class _Meter:
    """CPU since the last look."""

    def __init__(self, ready: Up) -> None:
        self._ready = ready

    def now(self, role: str) -> tuple[float, float, float]:
        broker = self._ready.broker
        return self._ready.cpu_s(role), self._ready.cpu_s("postgres"), 0.0 if broker is None else broker.cpu_s()

    def since(self, role: str, before: tuple[float, float, float], events: int) -> Cpu:
        return Cpu(*((now - then) / events * 1e6 for now, then in zip(self.now(role), before, strict=True)))


def measure(on: Broker | None, requests: int, customers: int, more: Mapping[str, str] | None = None) -> Found:
    """Every customer is met in a first round that is not measured."""
    with up(on, more) as (ready, key):
        definitions_of(ready, definitions_text())
        meet = max(1, customers // EVENTS_A_REQUEST)
        _send(ready, key, meet, customers, "meet")
        _settle(ready)
        events, meter, roles = requests * EVENTS_A_REQUEST, _Meter(ready), {}
        wals, changes = [_wal(ready)], _changes(ready)
        before = _archived(ready)
        with ready.suspended(*BACKGROUND):
            then = meter.now("http")
            _send(ready, key, requests, customers, "load")
            roles["door"] = meter.since("http", then, events)
            sent = meet * EVENTS_A_REQUEST + events
            wals.append(_wal(ready))
        with ready.suspended("archive", "publish"):
            then = meter.now("worker")
            _settle(ready)
            roles["fold and decide"] = meter.since("worker", then, events)
            wals.append(_wal(ready))
        then, published = meter.now("archive"), meter.now("publish")
        _until_archived(ready, sent)
        roles["archive"] = meter.since("archive", then, sent - before)
        made = _changes(ready) - changes
        if on is not None and made:
            roles["publish, a change"] = meter.since("publish", published, made)
        sizes = _sizes(ready, sent, customers)
        sizes["WAL an event, door"] = (wals[1] - wals[0]) / events
        sizes["WAL an event, worker"] = (wals[2] - wals[1]) / events
        sizes["number of changes an event"] = made / events
        return Found(sent, customers, roles, sizes)


def _send(ready: Up, key: str, requests: int, customers: int, word: str) -> None:
    plan = Plan(ready.product.port, "track", 16, requests, EVENTS_A_REQUEST, key, customers, prefix=word)
    result = http_load.run(plan)
    assert result.ok == result.requests, f"not every answer was 200: {result.statuses}"


def _archived(ready: Up) -> int:
    """Asked again and again while a busy machine does not answer in time."""
    deadline = time.monotonic() + ANSWER_S
    while (done := ready.product.run("status", "--json")).status != 0:
        assert time.monotonic() < deadline, done.err
        time.sleep(1)
    return int(json.loads(done.out)["archived"])


def _settle(ready: Up) -> None:
    deadline = time.monotonic() + ANSWER_S
    while (done := ready.product.run("status", "--wait", "--json", timeout_s=DEADLINE_S)).status != 0:
        assert time.monotonic() < deadline, done.err
        time.sleep(1)


def _until_archived(ready: Up, events: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while _archived(ready) < events:
        assert time.monotonic() < deadline, "the archiver does not keep up"
        time.sleep(1)


def _query(ready: Up, statement: str, *, vault: bool = False) -> list[tuple[str, int]]:
    connection = psycopg2.connect(ready.vault_dsn if vault else ready.dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return [(str(name), int(value)) for name, value in cursor.fetchall()]
    finally:
        connection.close()


def _wal(ready: Up) -> int:
    return _query(ready, "select 'wal', pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")[0][1]


def _changes(ready: Up) -> int:
    return _query(ready, "select 'changes', count(*) from changes")[0][1]


def _sizes(ready: Up, events: int, customers: int) -> dict[str, float]:
    """Bytes an event (register, log, Parquet), a change, a customer (everything else; the vault)."""
    tables = dict(_query(ready, _SIZES))
    log = sum(size for name, size in tables.items() if name.startswith("event_log"))
    register = sum(size for name, size in tables.items() if name in _BY_EVENT)
    changes = sum(size for name, size in tables.items() if name in _BY_CHANGE)
    rest = sum(tables.values()) - log - register - changes
    vault = sum(size for _, size in _query(ready, _SIZES, vault=True))
    archive = sum(path.stat().st_size for path in (ready.product.data / "archive").rglob("*.parquet"))
    found = {
        "register an event": register / events,
        "a change": changes / max(1, _changes(ready)),
        "archive an event": archive / events,
        "profile a customer": rest / customers,
        "vault a customer": vault / customers,
    }
    if ready.broker is not None and ready.access is not None:
        found["kafka an event"] = ready.broker.data_bytes(ready.access.topic("events")) / events
    else:
        found["event_log an event"] = log / events
    return found
