"""Which statements the SQL process runs, judged by DuckDB's own parser; how values become JSON. No service."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from infra.drivers.sql.child import connection, judged
from query.sql.functions import ALLOWED, ALLOWED_TABLE, DENIED, DENIED_PREFIXES
from query.sql.results import SqlResult, csv_cell, text_table
from query.sql.statements import TABLES, check, statement_of
from schemas.errors import SqlRefused


@pytest.fixture(scope="module")
def parser() -> Iterator[duckdb.DuckDBPyConnection]:
    made = connection(2**28)
    yield made
    made.close()


HOSTILE = """
copy events to '/tmp/x.csv'
copy (select 1) to '/tmp/x.parquet'
copy events from '/etc/passwd'
select * from read_csv('/etc/passwd')
select * from read_text('/etc/passwd')
from read_blob('/proc/self/environ')
select * from '/etc/passwd'
from 'file.parquet'
select * from glob('/**')
select * from parquet_scan('x')
select * from parquet_metadata('x')
select * from sniff_csv('/etc/passwd')
select * from read_json_auto('/etc/passwd')
attach '/tmp/x.db'
attach 'postgres://localhost' as p (type postgres)
detach main
install httpfs
load httpfs
load '/tmp/x.so'
pragma database_list
pragma enable_external_access
call pragma_version()
set enable_external_access = true
set threads = 100
reset lock_configuration
select 1; select 2
select * from events; drop view events
with x as (delete from events returning *) select * from x
with x as (insert into events select * from events returning *) select 1
with x as (update events set name = 'a' returning *) select 1
insert into events values (1)
delete from events
update events set name = 'x'
drop view events
create table t as select 1
create macro f() as 1
create view v as select 1
alter table events add column x int
truncate events
begin
checkpoint
vacuum
analyze
export database '/tmp/x'
import database '/tmp/x'
prepare p as select 1
execute p
use system
explain copy events to '/tmp/x'
explain analyze delete from events
explain (format json) select 1
select current_setting('temp_directory')
select getvariable('x')
select * from duckdb_settings()
select * from duckdb_secrets()
select * from duckdb_databases
select * from duckdb_tables
from information_schema.tables
from pg_catalog.pg_class
from pg_class
from sqlite_master
from pragma_database_list
with duckdb_settings as (select 1) select * from duckdb_settings
with a as (with pg_class as (select 1) select 1) select * from pg_class
show tables
show all tables
show databases
show variables
describe '/etc/passwd'
summarize 'x.csv'
select * from query('select * from duckdb_settings()')
select * from query_table('events')
select json_execute_serialized_sql('{}')
from json_execute_serialized_sql(json_serialize_sql('select 1'))
select json_serialize_sql('select 1')
select * from arrow_scan(1, 2, 3)
select * from arrow_scan_dumb(1, 2, 3)
select * from pandas_scan(140000000)
select * from python_map_function()
select * from seq_scan('x')
select x.read_text() from (select '/etc/passwd' as x)
select '/etc/passwd'.read_text()
select system.main.current_setting('home_directory')
select main.read_csv('x')
select nextval('x')
select write_log('x')
select version()
select pg_sleep(100)
select sleep_ms(100000)
select to_aggregate_state('x')
select finalize(x) from (select 1 as x)
select vector_type(1)
select * from test_all_types()
select * from _archive
select * from _tail
select * from _owners
select * from memory.main._archive
select * from other.events
select getenv('HOME')
select ?
select $1
from histogram(events, 'type')
select * from (pivot events on type)
pivot events on type
select * from e where exists (from read_csv('x'))
select (select content from read_text('/etc/passwd'))
select [c for c in (select list(content) from read_text('/etc/passwd'))]
select 1 order by (select count(*) from glob('*'))
select 1 limit (select count(*) from glob('*'))
select * exclude (a) replace ((from read_text('x')) as b) from events
select case when true then (from read_text('x')) end
select count(*) filter (exists (from glob('*'))) from events
select sum(1) over (order by (select 1 from glob('*'))) from events
select * from events e join lateral (from glob('*')) g on true
values ((select 1 from glob('*')))
select 1 union all from glob('*')
with recursive r as (from glob('*') union all from r) from r
select
;
--
/* only a comment */
selct 1
select * from
""".strip().splitlines()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_statement_is_refused_before_it_is_bound(parser: duckdb.DuckDBPyConnection, text: str) -> None:
    with pytest.raises(SqlRefused) as refused:
        judged(parser, statement_of(text))
    assert refused.value.message


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("select 1", ""),
        ("select count(*) from events", "events"),
        ("FROM Events", "events"),
        ('select * from main."events"', "events"),
        ("select * from events e, orders join order_lines using (order_id)", "events orders order_lines"),
        ("with e as (select * from events), f as (from e) select * from f", "events"),
        ("with events as (select * from events limit 3) select * from events", "events"),
        ("describe profiles", "profiles"),
        ("show profiles", "profiles"),
        ("summarize memberships", "memberships"),
        ("explain select * from segments", "segments"),
        ("EXPLAIN  ANALYZE select * from segments", "segments"),
        ("values (1), (2)", ""),
        ("select * from range(3), generate_series(1, 3) g, unnest([1]) u, json_each('{}')", ""),
        ("select properties->>'a', context->'$.b', product_ids[1], [x * 2 for x in [1, 2]] from events", "events"),
        ("select type, count(*) c from events group by all having c > 1 order by all limit 3 -- note", "events"),
        ("select * from events where id in (select profile_id from memberships)", "events memberships"),
        ("select row_number() over (partition by type order by occurred_at) from events qualify true", "events"),
        ("select quantile_cont(revenue, 0.5), list(id), histogram(type), string_agg(name, ',') from events", "events"),
        ("select date_trunc('month', occurred_at), occurred_at at time zone 'Europe/Berlin' from events", "events"),
        ("select now(), current_date, current_timestamp, interval 3 day, extract(year from now())", ""),
        ("select * from events pivot (count(*) for type in ('a', 'b'))", "events"),
        ("with recursive r(n) as (select 1 union all select n + 1 from r where n < 5) from r", ""),
        ("select * from orders asof join events on orders.occurred_at >= events.occurred_at", "orders events"),
        ("select 1;", ""),
        ("select try_cast('1' as decimal(5, 2)), 1::hugeint, {'a': 1}, map {'k': 2}, null is null", ""),
        ("select columns('.*_at') from profiles", "profiles"),
        ("select substring('abc' from 2 for 1), position('a' in 'b'), trim(both 'x' from 'xax')", ""),
    ],
)  # fmt: skip
def test_what_an_analyst_writes_is_run(parser: duckdb.DuckDBPyConnection, text: str, tables: str) -> None:
    assert judged(parser, statement_of(text)).tables == frozenset(tables.split())


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("select lifecycle, count(*) from profiles where risk = 'high' group by 1", "lifecycle risk"),
        ('select p."Lifetime_Orders" from profiles p', "p lifetime_orders"),
        ("select 1 from profiles join memberships using (profile_id)", "profile_id"),
        ("select * from profiles", None),
        ("select p from profiles p", None),
        ("select profiles from profiles", None),
        ("with a as (from profiles) select count(b) from a as b", None),
        ("select max(columns(*)) from profiles", None),
        ("select 1 from profiles natural join memberships", None),
        ("describe profiles", None),
    ],
)
def test_the_columns_a_statement_names_are_known(
    parser: duckdb.DuckDBPyConnection, text: str, columns: str | None
) -> None:
    found = judged(parser, statement_of(text)).columns
    assert found == (None if columns is None else frozenset(columns.split()))


@pytest.mark.parametrize(
    "text", ["", "  \n", "select '\0'", "select '\ud800'", "select '" + "x" * 65_536 + "'", "sel" + "ö" * 40_000]
)
def test_text_that_is_no_statement_is_refused_before_any_parser(text: str) -> None:
    with pytest.raises(SqlRefused):
        statement_of(text)


@pytest.mark.parametrize(
    "text", ["select " + "(" * 30_000, "select " + "[" * 30_000, "select " + "not " * 15_000 + "1"]
)
def test_deep_nesting_is_refused(parser: duckdb.DuckDBPyConnection, text: str) -> None:
    with pytest.raises(SqlRefused):
        judged(parser, statement_of(text))


def test_a_deep_tree_is_refused_by_name() -> None:
    with pytest.raises(SqlRefused, match="deeply"):
        check('{"a":' * 3_000 + "1" + "}" * 3_000)


def test_every_function_of_duckdbs_catalogue_is_classified(parser: duckdb.DuckDBPyConnection) -> None:
    rows = parser.sql("select distinct function_name, function_type from duckdb_functions()").fetchall()
    unclassified = {
        name
        for name, _ in rows
        if name not in ALLOWED
        and name not in ALLOWED_TABLE
        and name not in DENIED
        and not name.startswith(DENIED_PREFIXES)
    }
    assert unclassified == set(), "a new function of DuckDB: decide in query/sql/functions.py"
    in_from = {name for name, kind in rows if kind in ("table", "table_macro")}
    assert in_from >= ALLOWED_TABLE
    assert not {name for name in ALLOWED if name.startswith(("read_", "duckdb_", "parquet_", "pragma_", "arrow_"))}


def test_no_allowed_name_hides_a_catalogue_view(parser: duckdb.DuckDBPyConnection) -> None:
    views = {name for (name,) in parser.sql("select view_name from duckdb_views() where internal").fetchall()}
    reachable = {name for name in views if not name.startswith(("duckdb_", "pg_", "sqlite_", "pragma_"))}
    schemas = parser.sql(
        "select distinct schema_name from duckdb_views() where internal and not"
        " regexp_matches(view_name, '^(duckdb_|pg_|sqlite_|pragma_)')"
    ).fetchall()
    assert schemas == [("information_schema",)], "only reachable with a schema in front, which is refused"
    assert reachable.isdisjoint(TABLES)


# ---------------------------------------------------------------- results


def result(table: pa.Table, *types: str) -> SqlResult:
    return SqlResult(list(zip(table.column_names, types, strict=True)), table, False)


def test_values_become_json_as_the_contract_says() -> None:
    at = datetime(2024, 5, 1, 12, 30, 0, 250_000, tzinfo=UTC)
    columns: dict[str, Any] = {
        "d": pa.array([Decimal("1234567890.1200")], pa.decimal128(18, 4)),
        "small": pa.array([2**53]),
        "big": pa.array([2**53 + 1]),
        "huge": pa.array([Decimal(7)], pa.decimal128(38, 0)),
        "at": pa.array([at], pa.timestamp("us", tz="UTC")),
        "local": pa.array([at.replace(tzinfo=None)], pa.timestamp("us")),
        "day": pa.array([date(2024, 5, 1)]),
        "json": pa.array(['{"a": [1, 9007199254740993, "x", null]}']),
        "bad": pa.array(["{no json"]),
        "nested": pa.array([[{"k": Decimal("0.5"), "t": at}]]),
        "nan": pa.array([float("nan")]),
        "blob": pa.array([b"\x01\xff"]),
        "null": pa.array([None], pa.string()),
    }
    types = ["DECIMAL(18,4)", "BIGINT", "BIGINT", "HUGEINT", *["TIMESTAMP"] * 2, "DATE", "JSON", "JSON", *["X"] * 4]
    (found,) = result(pa.table(columns), *types).objects()
    assert found == {
        "d": "1234567890.1200",
        "small": 2**53,
        "big": "9007199254740993",
        "huge": 7,
        "at": "2024-05-01T12:30:00.250000Z",
        "local": "2024-05-01T12:30:00.250000",
        "day": "2024-05-01",
        "json": {"a": [1, "9007199254740993", "x", None]},
        "bad": "{no json",
        "nested": [{"k": "0.5", "t": "2024-05-01T12:30:00.250000Z"}],
        "nan": "NaN",
        "blob": "01ff",
        "null": None,
    }


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        ("=1+1", "VARCHAR", "'=1+1"),
        ("@SUM(A1)", "VARCHAR", "'@SUM(A1)"),
        ("\t=1", "VARCHAR", "'\t=1"),
        ("-5", "VARCHAR", "'-5"),
        ("-5.0000", "DECIMAL(18,4)", "-5.0000"),
        (-5, "BIGINT", "-5"),
        (None, "VARCHAR", ""),
        (True, "BOOLEAN", "true"),
        ({"a": 1}, "JSON", '{"a":1}'),
    ],
)
def test_a_csv_cell_is_never_a_formula(value: object, type_: str, expected: str) -> None:
    assert csv_cell(value, type_) == expected


def test_a_text_table_is_aligned_and_shows_no_control_characters() -> None:
    shown = text_table(["name", "n"], [["a\x1b[31m", 5], ["long" * 30, None]])
    assert "\x1b" not in shown
    lines = shown.splitlines()
    assert lines[0].startswith("name")
    assert lines[2].endswith("5")
    assert "…" in lines[3]
    assert text_table(["empty"], []) == "empty\n-----"
