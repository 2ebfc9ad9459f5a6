"""SQL in its disposable process: the tables' contents and types, and that no statement gets out or lives on."""

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pyarrow.parquet as pq
import pytest

from infra.adapters.archive.store import ParquetArchive
from infra.adapters.machine.clock import SystemClock
from infra.adapters.postgres.database import Uuid
from infra.adapters.postgres.log import PostgresLog
from infra.drivers.sql.process import run_sql
from processors.archive.archiver import Archiver
from projections.definitions.files import parse_documents
from projections.fold.fold import compile_fold
from projections.orders.orders import orders_alone
from query.sql.results import SqlResult
from query.sql.statements import TABLES
from schemas.definitions import to_json
from schemas.errors import ArchiveDamaged, SqlLimit, SqlRefused
from schemas.event_columns import SCHEMA
from schemas.record import Record, encode, identifier_set_of, to_us, uuid_text
from tests.archive_data import START, apply_until, deploy, own, pending, raw, record, skip
from tests.conftest import Databases

DEFINITIONS = """
traits: {city: {personal: false}}
sources: {till: {rank: 5}}
computed_traits:
  lifetime_orders: {aggregate: count, events: [purchase.completed, pos.purchase]}
  lifetime_revenue: {aggregate: sum, of: revenue, events: [purchase.completed, pos.purchase]}
  last_order_at: {aggregate: max, of: occurred_at, events: [purchase.completed, pos.purchase]}
  days_since_order: {aggregate: days_since, events: [purchase.completed, pos.purchase]}
  last_channel: {aggregate: last, of: coupon, events: [purchase.completed, pos.purchase]}
segments:
  buyers: {description: Bought once, when: {trait: lifetime_orders, op: gte, value: 1}}
  nobody: {description: Never, when: {trait: lifetime_orders, op: gte, value: 1000000}}
"""


class Data:
    """A deployment filled by raw inserts, and questions to it."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self.log = PostgresLog(dsn)
        self.archive = ParquetArchive(folder)

    def add(self, records: Sequence[Record]) -> list[tuple[int, int]]:
        """Append and call it applied."""
        positions = self.log.append(pending(records))
        apply_until(self.dsn, self.log.ends())
        return positions

    def archiver(self, min_rows: int = 20_000) -> Archiver:
        return Archiver(self.log, self.archive, SystemClock(), self.log.ends, "EUR", min_rows=min_rows)

    def ask(self, statement: str, **options: Any) -> SqlResult:
        return run_sql(statement, dsn=self.dsn, archive_folder=self.folder, **options)

    def rows(self, statement: str, **options: Any) -> list[list[Any]]:
        return list(self.ask(statement, **options).rows())

    def close(self) -> None:
        self.log.close()
        self.archive.close()


@pytest.fixture
def empty(databases: Databases, tmp_path: Path) -> Iterator[Data]:
    data = Data(databases.main, tmp_path / "archive")
    yield data
    data.close()


@pytest.fixture
def data(empty: Data) -> Data:
    deploy(empty.dsn, to_json(parse_documents([("test.yaml", DEFINITIONS)])))
    return empty


# ---------------------------------------------------------------- the tables


def test_a_database_without_anything_has_every_table_with_its_types(empty: Data) -> None:
    for table, columns in TABLES.items():
        found = [(row[0], row[1]) for row in empty.rows(f"describe {table}")]
        assert found == [(column.name, column.type) for column in columns]
    assert empty.rows(" union all ".join(f"select count(*) from {table}" for table in TABLES)) == [[0]] * len(TABLES)


def test_events_are_the_archive_and_the_tail_without_what_is_not_applied(data: Data) -> None:
    records = [record(number, products=[{"product_id": number}], total=f"{number}.25") for number in range(300)]
    positions = data.add(records[:200])
    data.archiver().flush()
    positions += data.add(records[200:])
    own(data.dsn, ["customer 1", "customer 2"])
    left_out = [0, 77, 250]
    for number in left_out:
        skip(data.dsn, *positions[number])
    data.log.append(pending([record(1_000)]))  # in the log, not applied yet
    found = {row["id"]: row for row in data.ask("select * from events").objects()}
    kept = [each for number, each in enumerate(records) if number not in left_out]
    assert set(found) == {each.id for each in kept}
    for number in (1, 2, 5, 199, 201, 299):
        each, row = records[number], found[records[number].id]
        owner = f"customer {number % 10}"
        owned = owner in ("customer 1", "customer 2")
        assert row == {
            "id": each.id,
            "message_id": each.message_id,
            "type": "purchase.completed",
            "name": "Order Completed",
            "occurred_at": each.occurred_at.isoformat().replace("+00:00", "Z"),
            "received_at": each.received_at.isoformat().replace("+00:00", "Z"),
            "source": "shop",
            "profile_id": uuid_text(raw(owner)) if owned else None,
            "signature": uuid_text(identifier_set_of([raw(owner)])) if owned else None,
            "order_id": None,
            "revenue": f"{number}.2500",
            "currency": "EUR",
            "campaign_id": "spring",
            "product_ids": [str(number)],
            "properties": {"products": [{"product_id": number}], "total": f"{number}.25"},
            "context": {"channel": "web", "campaign": {"id": "spring"}},
            "sealed_names": ["context.ip", "traits.email"],
            "n": 0,
            "flags": [],
        }


def test_events_of_nobody_cannot_be_joined_by_what_they_carried(data: Data) -> None:
    """As an erased person's are: who knows one of their orders must not find the others."""
    records = [record(number, "erased", order_id=f"o{number}", revenue="5") for number in range(10)]
    data.add(records[:8])
    data.archiver().flush()
    data.add(records[8:])
    store_states(data.dsn, records, [])
    assert data.rows("select count(*), count(signature), count(distinct order_id) from events") == [[10, 0, 10]]
    assert data.rows("select count(*), count(profile_id) from orders") == [[10, 0]]
    with pytest.raises(SqlRefused, match="no table"):
        data.rows("select signature from _events")


def test_an_unreadable_record_is_in_the_archive_and_in_no_table(data: Data) -> None:
    bad = record(1)
    data.log.append([pending([bad])[0]._replace(value=b'{"v":1,"id":"half a record'), *pending([record(2)])])
    apply_until(data.dsn, data.log.ends())
    assert data.rows("select count(*) from events") == [[1]]
    data.archiver().flush()
    assert data.rows("select count(*) from events") == [[1]]
    assert b'{"v":1,"id":"half a record' in [r.value for p in range(4) for r in data.archive.read_records(p, 0)]


def test_every_filter_and_order_works_on_every_column(data: Data) -> None:
    data.add([record(number, products=[{"product_id": "a"}], revenue="1.5") for number in range(40)])
    data.archiver().flush()
    data.add([record(number, revenue="2.5") for number in range(40, 50)])
    every = [column.name for column in TABLES["events"]]
    counts = [
        f"select count(*) from events where {name} >= (select min({name}) from events) or {name} is null"
        for name in every
    ]
    assert data.rows(" union all ".join(counts)) == [[50]] * len(every)
    names = ", ".join(column.name for column in TABLES["events"])
    assert len(data.rows(f"select id from events order by {names} limit 7")) == 7
    statement = (
        "select count(*) from events where product_ids = ['a'] and revenue in (1.5, 7) and type like 'purch%'"
        " and occurred_at between '2024-01-01' and '2024-01-02' and sealed_names <> []"
        " and properties->>'$.revenue' > '1'"
    )
    assert data.rows(statement) == [[40]]


def store_states(dsn: str, records: Sequence[Record], owners: Sequence[str]) -> None:
    """What the worker makes of the records: a state for each owner, of the others' orders one as nobody's."""
    fold = compile_fold(parse_documents([("test.yaml", DEFINITIONS)]), time_zone="UTC", currency="EUR")
    states: dict[bytes, list[Any]] = {}
    for each in records:
        token = bytes.fromhex(each.ids[0].token)
        fold.apply(fold.decode(encode(each)), states.setdefault(token, fold.new_state()), None)
    known = {raw(owner) for owner in owners}
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        for token, state in states.items():
            if token in known:
                cursor.execute(
                    "insert into profiles_r1 values"
                    " (%s, 1, %s, 0, null, false, 0, 0, 1, '\\x', 'active', 'low', 0, '[]')",
                    (Uuid(token), fold.pack(state)),
                )
            else:
                packed = fold.pack(orders_alone(state))
                cursor.execute("insert into nobody values (1, %s, %s)", (Uuid(identifier_set_of([token])), packed))


def test_orders_follow_the_order_rule(data: Data) -> None:
    ada, bob = "ada", "bob"
    lines = [
        {"product_id": "p1", "sku": "s1", "name": "Cup", "category": "c", "brand": "b", "price": "2.50", "quantity": 2},
        {"product_id": 2, "amount": "7.00", "price": "9"},
        {"product_id": "p3"},
    ]
    records = [
        record(1, ada, order_id="A", revenue="10"),
        record(2, ada, order_id="A", revenue="11", coupon="X", products=lines),  # later stamp, same rank: holds
        record(3, ada, "pos.purchase", source="till", order_id="B", revenue="20", minutes=1),  # the rank holds
        record(4, ada, order_id="B", revenue="99"),
        record(5, ada, "purchase.refunded", order_id="A", revenue="-3"),
        record(6, ada, "pos.return", order_id="A", revenue="1.5"),
        record(7, ada, order_id="C", revenue="5"),
        record(8, ada, "purchase.cancelled", order_id="C"),
        record(9, bob, order_id="A", revenue="8", currency="usd"),  # another customer's order of the same number
        record(10, bob, order_id=None, revenue="4"),
        record(11, bob, "purchase.updated", order_id="A", note="no amount: does not replace"),
        record(12, ada, "purchase.refunded", order_id="Z", revenue="1"),  # without a base: in no order
        record(13, "carl", order_id="A", revenue="6"),  # nobody's profile: its signature is the customer
    ]
    data.add(records)
    own(data.dsn, [ada, bob])
    store_states(data.dsn, records, [ada, bob])
    found = data.rows(
        "select order_id, profile_id, source, revenue, refunded, currency, items, coupon, base_revenue, base_refunded,"
        " missing_rate from orders order by revenue"
    )
    a, b = uuid_text(raw(ada)), uuid_text(raw(bob))
    assert found == [
        [uuid_text(raw("event 10")), b, "shop", "4.0000", "0.0000", "EUR", 0, None, "4.0000", "0.0000", 0],
        ["A", None, "shop", "6.0000", "0.0000", "EUR", 0, None, "6.0000", "0.0000", 0],
        ["A", b, "shop", "8.0000", "0.0000", "USD", 0, None, None, "0.0000", 1],  # USD has no rate into EUR
        ["A", a, "shop", "11.0000", "4.5000", "EUR", 3, "X", "11.0000", "4.5000", 0],
        ["B", a, "till", "20.0000", "0.0000", "EUR", 0, None, "20.0000", "0.0000", 0],
    ]
    assert data.rows("select order_id, amount, base_amount, of_order from refunds order by amount") == [
        ["Z", "1.0000", "1.0000", False],
        ["A", "1.5000", "1.5000", True],
        ["A", "3.0000", "3.0000", True],
    ]
    assert data.rows("select count(*), sum(base_revenue) from orders") == [[5, "41.0000"]]  # of no event
    assert data.rows("select * from order_lines order by line") == [
        ["A", 1, "p1", "s1", "Cup", "c", "b", "2.5000", "2.0000", "5.0000"],
        ["A", 2, "2", None, None, None, None, "9.0000", "1.0000", "7.0000"],
        ["A", 3, "p3", None, None, None, None, None, "1.0000", None],
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "select c from orders as o(a, b, c, d, e) where e > 0",
        "select o.source from orders o",
        'select "SOURCE" from orders',
        "with w as (select * from orders) select source from w",
        "select source from orders natural join (select 'A' as order_id)",
        "select (o).source from orders o",
        "select x.source from (from orders) x",
        "select columns('sour.*') from orders",
    ],
)
def test_a_column_is_read_however_it_is_named(data: Data, statement: str) -> None:
    """Only what a statement needs is made of orders."""
    records = [record(1, "ada", "pos.purchase", source="till", order_id="A", revenue="20")]
    data.add(records)
    own(data.dsn, ["ada"])
    store_states(data.dsn, records, ["ada"])
    assert data.rows(statement) == [["till"]]


def test_profiles_segments_and_memberships_are_what_was_decided(data: Data) -> None:
    definitions = parse_documents([("test.yaml", DEFINITIONS)])
    fold = compile_fold(definitions, time_zone="UTC", currency="EUR")
    state = fold.new_state()
    for number in (1, 2):
        event = fold.decode(encode(record(number, "ada", order_id=f"o{number}", revenue="4.10", coupon="X")))
        fold.apply(event, state, None)
    with psycopg2.connect(data.dsn) as connection, connection.cursor() as cursor:
        at = to_us(START)
        cursor.execute(
            "insert into profiles_r1 values (%s, 3, %s, 0, null, false, %s, %s, 2, '\\x01', 'active', 'high', 5, %s)",
            (Uuid(raw("ada")), fold.pack(state), at, at + 60_000_000, '[["complaint", 4], ["quiet", 1]]'),
        )
        cursor.execute("insert into memberships_r1 values (0, %s, %s), (0, %s, null)",
                       (Uuid(raw("ada")), at, Uuid(raw("bob"))))  # fmt: skip
        cursor.execute(
            "insert into segment_counts values (1, 0, 0, 2); insert into segment_versions values ('buyers', 4, '')"
        )
    connection.close()
    (profile,) = data.ask("select * from profiles", now=START + timedelta(days=10)).objects()
    ada = uuid_text(raw("ada"))
    assert profile == {
        "profile_id": ada,
        "first_seen_at": "2024-01-01T00:00:00Z",
        "last_seen_at": "2024-01-01T00:01:00Z",
        "event_count": 2,
        "lifecycle": "active",
        "risk": "high",
        "risk_reasons": [{"code": "complaint", "points": 4}, {"code": "quiet", "points": 1}],
        "attributes": {},
        "days_since_order": 9,
        "last_channel": "X",
        "last_order_at": "2024-01-01T00:02:00Z",
        "lifetime_orders": 2,
        "lifetime_revenue": "8.2000",
    }
    assert data.rows("select lifecycle, attributes, count(*) from profiles group by all") == [["active", {}, 1]]
    assert data.rows("select p.lifetime_orders, risk from profiles p where days_since_order > 8") == [[2, "high"]]
    assert len(data.rows("select unnest(p) from profiles p")[0]) == len(profile)
    assert data.rows("select * from segments order by name") == [
        ["buyers", 4, "Bought once", 2],
        ["nobody", 1, "Never", 0],
    ]
    assert data.rows("select * from memberships order by since") == [
        [ada, "buyers", 4, "2024-01-01T00:00:00Z"],
        [uuid_text(raw("bob")), "buyers", 4, None],
    ]


def test_the_limit_cuts_and_says_so(data: Data) -> None:
    data.add([record(number) for number in range(30)])
    cut = data.ask("select * from events", limit=10)
    assert (cut.table.num_rows, cut.truncated) == (10, True)
    whole = data.ask("select * from events", limit=30)
    assert (whole.table.num_rows, whole.truncated) == (30, False)
    same = data.ask("select 1 as a, 2 as a, interval 1 day as i")
    assert same.names == ["a", "a_1", "i"]
    assert data.rows("select interval 1 day as i, '101'::bit as b") == [["1 day", "101"]]


def test_no_row_is_lost_or_doubled_while_the_archive_grows(data: Data) -> None:
    """Three moves at once: append, apply and archive; every answer is a prefix of each partition."""
    stop = threading.Event()
    failures: list[BaseException] = []
    per_step = 50

    def feed() -> None:
        log, archive = PostgresLog(data.dsn), ParquetArchive(data.folder)
        archiver = Archiver(log, archive, SystemClock(), log.ends, "EUR", min_rows=30)
        try:
            for step in range(2_000):
                if stop.is_set():
                    break
                log.append(pending([record(step * per_step + n, f"c {n}") for n in range(per_step)]))
                apply_until(data.dsn, log.ends())
                archiver.flush()
        except BaseException as err:
            failures.append(err)
            raise
        finally:
            log.close()
            archive.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        seen = 0
        for _ in range(8):
            before = sum(data.log.ends())
            ((count, distinct, newest),) = data.rows(
                "select count(*), count(distinct id), max(substr(message_id, 3)::bigint) from events"
            )
            assert count == distinct >= seen, "no row is doubled, none is gone again"
            assert count >= before - per_step, "what was applied before the question is in the answer"
            assert newest < count + per_step, "nothing before the newest is missing"
            seen = count
    finally:
        stop.set()
        feeder.join(60)
    assert failures == []
    apply_until(data.dsn, data.log.ends())
    assert data.rows("select count(*), count(distinct id) from events") == [[sum(data.log.ends())] * 2]
    assert len(data.archive.files()) > 4


def test_a_damaged_archive_file_is_an_error_never_an_answer(data: Data) -> None:
    data.add([record(number) for number in range(500)])
    data.archiver().flush()
    entry = data.archive.files()[0]
    path = data.archive.path(entry)
    good = path.read_bytes()
    group = pq.read_metadata(path).row_group(0)
    places = {name: index for index, name in enumerate(SCHEMA.names)}
    columns = [group.column(places[name]) for name in ("id", "message_id", "occurred_at")]
    within = [(column.dictionary_page_offset or 0) + column.total_compressed_size // 2 for column in columns]
    for at in [*within, len(good) - 30]:
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(ArchiveDamaged):
            data.ask("select * from events")
    path.unlink()
    with pytest.raises(ArchiveDamaged, match=entry.path):
        data.ask("select count(*) from events")


# ---------------------------------------------------------------- hostile statements

DEADLINE_S = 2.5
RUNAWAYS = {
    "cross joins": "select count(*) from range(1000000) a, range(1000000) b, range(1000000) c where a.range > b.range",
    "a long string": "select length(repeat('a', 2000000000))",
    "strings in strings": "select length(repeat(repeat(repeat('abc', 10000), 10000), 1000))",
    "a list": "select len(list(x)) from range(1000000000) t(x)",
    "a sort": "select x, repeat('x', 100) from range(100000000) t(x) order by hash(x) limit 5 offset 9000000",
    "recursion": "with recursive r(s) as (select 'x' union all select s || s from r) select max(length(s)) from r",
    "endless recursion": "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r",
    "levenshtein": "select levenshtein(repeat('ab', 500000), repeat('ba', 500000))",
    "a wide result": "select x, repeat('y', 10000) from range(100000000) t(x)",
    "many joins": "select count(*) from " + ", ".join(f"range(100) t{n}" for n in range(300)),
    "an aggregate of all pairs": "select mode(a.range * b.range) from range(100000) a, range(100000) b",
}  # fmt: skip


SLOWER = {"levenshtein", "endless recursion", "strings in strings", "a sort"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in SLOWER else n for n in RUNAWAYS])
def test_a_runaway_ends_at_its_deadline_with_a_clear_error(empty: Data, name: str) -> None:
    began = time.monotonic()
    with pytest.raises(SqlLimit, match=r"filter or aggregate earlier|LIMIT"):
        empty.ask(RUNAWAYS[name], deadline_s=DEADLINE_S, memory_bytes=2**28, result_bytes=2**26)
    assert time.monotonic() - began < DEADLINE_S + 1, "the promise itself, not a measurement"
    assert not children(), "nothing of it runs on"


@pytest.mark.parametrize(
    "statement",
    [
        "select case when range = 50000 then error('boom') else range end from range(100000)",
        "select cast('a' || range as int) from range(3)",
        "select nosuch from events",
        "select 1 +",
    ],
)
def test_a_statements_own_error_is_told_as_such(empty: Data, statement: str) -> None:
    with pytest.raises(SqlRefused, match=r"boom|Could not convert|nosuch|syntax"):
        empty.ask(statement)


def test_thousands_of_conditions_are_answered(empty: Data) -> None:
    assert empty.rows("select 1 where " + " or ".join(f"{n}=1" for n in range(5_800))) == [[1]]


ESCAPES = [
    "copy (select 1) to '{folder}/stolen.csv'",
    "select * from read_text('/etc/passwd')",
    "select * from '{folder}/x.parquet'",
    "attach '{folder}/x.db' as x",
    "install httpfs",
    "set enable_external_access = true",
    "select 1; select 2",
    "with x as (delete from events returning *) select * from x",
    "select getenv('HOME')",
    "select current_setting('temp_directory')",
    "select * from duckdb_settings()",
    "select " + "(" * 30_000,
    "select 1 where " + " or ".join(f"{n}=1" for n in range(200_000)),
]


@pytest.mark.parametrize("statement", ESCAPES, ids=lambda text: text[:30])
def test_an_escape_is_refused_and_leaves_nothing(empty: Data, tmp_path: Path, statement: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SqlRefused):
        empty.ask(statement.replace("{folder}", str(tmp_path)), deadline_s=10)
    assert sorted(tmp_path.rglob("*")) == before


_BEHIND_THE_GATE = """
import sys
import duckdb
from infra.drivers.sql import child as sql_child
from query.sql import statements as sql
sql_child.judged = lambda database, statement: sql.Use(frozenset(), None)  # as if the gate had a hole
sql.statement_of = lambda text: sql.Statement("", text)
sql_child.main()
"""


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_text('/etc/passwd')",
        "copy (select 1) to '{folder}/stolen.csv'",
        "attach '{folder}/x.db' as x",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "select * from glob('/etc/*')",
        "from '/etc/passwd'",
        "create table t as select 1; copy t to '{folder}/stolen.parquet'",
    ],
)
def test_behind_the_gate_stand_more_walls(
    empty: Data, tmp_path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "no_gate.py"
    script.write_text(_BEHIND_THE_GATE)
    monkeypatch.setattr("infra.drivers.sql.process.CHILD", (str(script),))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((SqlRefused, ArchiveDamaged)):
        empty.ask(statement.replace("{folder}", str(tmp_path)), deadline_s=20)
    assert sorted(tmp_path.rglob("*")) == before


def children() -> list[psutil.Process]:
    ours = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]  # of another test
    return [child for child in ours if "infra.drivers.sql.child" in child.cmdline()]


def test_the_process_gets_no_secret_and_a_session_of_its_own(empty: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHFOLD_MASTER_KEY", "a secret of ours")
    runaway = threading.Thread(target=_ignoring, args=(empty, RUNAWAYS["cross joins"]))
    runaway.start()
    deadline = time.monotonic() + 20
    while not (found := children()) or not found[0].environ():
        assert time.monotonic() < deadline
    (child,) = found
    environment, line = child.environ(), " ".join(child.cmdline())
    assert "TOUCHFOLD_MASTER_KEY" not in environment
    assert "password" not in line + str(environment)
    assert os.getsid(child.pid) != os.getsid(os.getpid()), "a session of its own"
    runaway.join(30)
    assert not child.is_running()


def _ignoring(data: Data, statement: str) -> None:
    with pytest.raises(SqlLimit):
        data.ask(statement, deadline_s=DEADLINE_S)


_PARENT = """
import sys
from pathlib import Path
from infra.drivers.sql.process import run_sql
run_sql(sys.argv[1], dsn="", archive_folder=Path("none"))
"""


def test_the_process_ends_with_its_parent() -> None:
    parent = psutil.Popen([sys.executable, "-c", _PARENT, RUNAWAYS["cross joins"]])
    deadline = time.monotonic() + 20
    while not (found := [child for child in parent.children() if "infra.drivers.sql.child" in child.cmdline()]):
        assert time.monotonic() < deadline
    while found[0].num_threads() < 2:  # DuckDB runs: it has asked to end with its parent
        assert time.monotonic() < deadline
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(found, timeout=10)
    assert alive == []
