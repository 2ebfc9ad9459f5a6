"""The overview's figures against SQL and against what was sent; segments' movement and exports, over real stores."""

import csv
import io
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from infra.adapters.archive.store import ParquetArchive
from infra.drivers.http.api.application import sql_runner
from infra.drivers.http.api.core import RunSql
from query.reports.overview import Reports
from query.segments.exports import Exports
from schemas.errors import NotFound
from tests.reading_world import NOW, ReadingWorld

Rows = list[list[Any]]


def plain(*values: Decimal | int) -> list[float]:
    return [float(value) for value in values]


@pytest.fixture
def run_sql(world: ReadingWorld, tmp_path: Path) -> RunSql:
    return sql_runner(world.databases.main, ParquetArchive(tmp_path / "archive"), world.clock)


@pytest.fixture
def reports(world: ReadingWorld) -> Reports:
    return Reports(world.reading.segments.views, world.clock)


def ada(world: ReadingWorld, first: str = "Ada") -> None:
    ids = [("user_id", "u1"), ("email", "ada@example.com"), ("phone", "+14155552671")]
    world.send(ids, type_="profile.identified", sealed={"traits": {"first_name": first, "last_name": "Lovelace"}})


def refund(world: ReadingWorld, user: str, order: str, amount: str, days_ago: float) -> None:
    properties = {"order_id": order, "revenue": amount, "currency": "USD"}
    at = NOW - timedelta(days=days_ago)
    world.send([("user_id", user)], type_="purchase.refunded", at=at, properties=properties)


@pytest.fixture
def shop(world: ReadingWorld) -> ReadingWorld:
    """Of 7 days: u1 and u2 order, u1 for the second time; before: u1 and u3; on the old days u3, who had ordered."""
    for user, order, revenue, days_ago in (
        ("u3", "o0", "5.00", 25),
        ("u1", "o1", "40.00", 9),
        ("u3", "o2", "20.00", 8),
        ("u1", "o3", "100.00", 3),
        ("u2", "o4", "60.50", 2),
    ):
        world.purchase([("user_id", user)], order, revenue, days_ago)
    refund(world, "u1", "o3", "30.00", 1)
    world.send([("anonymous_id", "visitor-one-of-many")], at=NOW - timedelta(hours=1))
    world.settle()
    return world


def test_the_figures_are_those_of_what_was_sent(shop: ReadingWorld, reports: Reports) -> None:
    found = reports.overview(7)
    assert plain(*found.orders) == [2, 2]
    assert tuple(found.revenue) == (Decimal("130.50"), Decimal("60.00"))  # net of the refund
    assert found.average_order.now == Decimal("65.25")
    assert tuple(found.repeat_rate) == (Decimal("0.5"), Decimal("0.5"))
    assert plain(found.customers, *found.new_customers) == [4, 2, 1]
    assert plain(*found.events) == [4, 2]
    assert dict(found.by_family) == {"purchase": 3, "web": 1}
    days = {day: (orders, amount) for day, orders, amount in found.by_day if orders}
    today = found.period.last
    assert days == {today - timedelta(days=3): (1, Decimal(70)), today - timedelta(days=2): (1, Decimal("60.50"))}
    assert len(found.by_day) == 7


@pytest.mark.parametrize("days", [7, 30])
def test_the_figures_agree_with_sql(shop: ReadingWorld, reports: Reports, run_sql: RunSql, days: int) -> None:
    found = reports.overview(days)
    inside = f"occurred_at >= '{found.period.start.isoformat()}' and occurred_at < '{found.period.end.isoformat()}'"

    def one(statement: str) -> list[Any]:
        rows: Rows = run_sql(statement, 10)["rows"]
        return rows[0]

    orders, net = one(f"select count(*), sum(revenue - coalesce(refunded, 0)) from orders where {inside}")
    net = Decimal(net)
    assert (found.orders.now, found.revenue.now) == (orders, net)
    assert [found.events.now] == one(f"select count(*) from events where {inside}")
    assert [found.customers] == one("select count(*) from profiles")
    assert sum(amount for _, _, amount in found.by_day) == net
    assert sum(count for _, count in found.by_family) == found.events.now


def test_what_lies_between_this_time_of_day_and_the_period_is_not_compared_with(
    world: ReadingWorld, reports: Reports
) -> None:
    world.purchase([("user_id", "u1")], "earlier", "10.00", 7 + 1 / 24)
    world.purchase([("user_id", "u1")], "later", "20.00", 7 - 1 / 24)
    world.settle()
    found = reports.overview(7)
    assert found.period.before_end < found.period.start
    assert plain(found.orders.before, found.revenue.before) == [1, 10]


def test_value_at_risk_is_that_of_profiles_at_risk(shop: ReadingWorld, reports: Reports, run_sql: RunSql) -> None:
    shop.purchase([("user_id", "u9")], "long-ago", "77.00", 200)
    shop.settle()
    sql = "select coalesce(sum(lifetime_revenue), 0) from profiles where risk <> 'low'"
    rows: Rows = run_sql(sql, 1)["rows"]
    assert reports.overview(30).at_risk_value == Decimal(rows[0][0]) >= 77


def test_an_empty_shop_has_figures_of_nothing(world: ReadingWorld, reports: Reports) -> None:
    found = reports.overview(30)
    assert plain(found.customers, *found.orders, *found.revenue, *found.repeat_rate) == [0] * 7
    assert found.revenue.change is None
    assert [orders for _, orders, _ in found.by_day] == [0] * 30


def test_what_is_decided_is_in_the_next_answer(world: ReadingWorld, reports: Reports) -> None:
    assert reports.overview(7).orders.now == 0
    world.purchase([("user_id", "u1")], "o1", "9.00")
    world.settle()
    assert reports.overview(7).orders.now == reports.overview(365).orders.now == 1


# --- segments --------------------------------------------------------------------------------------------------------


def test_who_entered_and_left_today_is_listed_newest_first(shop: ReadingWorld) -> None:
    segments = shop.reading.segments
    shown = segments.show("repeat_customers")
    moves = segments.moves("repeat_customers")
    assert shown["entered_today"] == len([each for each in moves if each["entered"]]) == shown["size"] == 2
    assert {each["id"] for each in moves} == {
        each["id"] for each in segments.members("repeat_customers", None, 9)["items"]
    }
    shop.clock.at += timedelta(days=1)
    assert segments.moves("repeat_customers") == []


def test_a_trend_ends_with_the_size_of_today_and_begins_with_the_first_move(shop: ReadingWorld) -> None:
    segments = shop.reading.segments
    assert [size for _, size in segments.trends(30)["repeat_customers"]] == [2]
    shop.clock.at += timedelta(days=40)  # nobody moves: the line is flat, and as long as it was asked for
    trend = segments.trends(30)["repeat_customers"]
    assert [size for _, size in trend] == [2] * 30
    assert trend[-1][0] == (NOW + timedelta(days=40)).date().isoformat()


# --- exports ---------------------------------------------------------------------------------------------------------


def test_an_export_holds_each_member_and_no_formula(world: ReadingWorld) -> None:
    ada(world, first='=HYPERLINK("http://evil.example","Ada")')
    for number in range(2):
        world.purchase([("user_id", "u1")], f"o{number}", "5.00")
    world.settle()
    exports = Exports(world.reading.segments, world.reading.search)
    text = b"".join(exports.chunks("repeat_customers", "csv", personal=True)).decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["name"].startswith("'=HYPERLINK")
    assert (row["phone"], row["email"]) == ("'+14155552671", "ada@example.com")
    assert row["id"] == world.reading.segments.members("repeat_customers", None, 2)["items"][0]["id"]
    table = pq.read_table(io.BytesIO(b"".join(exports.chunks("repeat_customers", "parquet", personal=True))))
    assert table.column("phone").to_pylist() == ["+14155552671"]  # no spreadsheet: as it is


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_an_export_without_the_right_has_no_personal_column(world: ReadingWorld, format_: str) -> None:
    ada(world)
    for number in range(2):
        world.purchase([("user_id", "u1")], f"o{number}", "5.00")
    world.settle()
    exports = Exports(world.reading.segments, world.reading.search)
    content = b"".join(exports.chunks("repeat_customers", format_, personal=False))
    assert b"Lovelace" not in content
    assert b"ada@" not in content
    if format_ == "parquet":
        columns = pq.read_table(io.BytesIO(content)).column_names
    else:
        columns = next(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    assert columns == ["id", "since", "lifecycle", "risk", "last_purchase_at", "last_seen_at"]


def test_an_export_goes_over_pages_and_names_everybody_once(
    world: ReadingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query.segments.exports.PAGE", 3)
    for number in range(7):
        for order in range(2):
            world.purchase([("user_id", f"u{number}")], f"o{number}-{order}", "5.00")
    world.settle()
    exports = Exports(world.reading.segments, world.reading.search)
    chunks = list(exports.chunks("repeat_customers", "csv", personal=True))
    assert len(chunks) == 4, "three pages and the end"
    content = b"".join(chunks).decode("utf-8-sig")
    ids = [row["id"] for row in csv.DictReader(io.StringIO(content))]
    assert len(ids) == len(set(ids)) == 7


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_an_export_is_given_while_it_is_read(
    world: ReadingWorld, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    """The first chunk comes before the second page is asked for: nothing holds the whole."""
    monkeypatch.setattr("query.segments.exports.PAGE", 2)
    monkeypatch.setattr("query.segments.exports.ROW_GROUP", 2)
    for number in range(6):
        for order in range(2):
            world.purchase([("user_id", f"u{number}")], f"o{number}-{order}", "5.00")
    world.settle()
    chunks = Exports(world.reading.segments, world.reading.search).chunks("repeat_customers", format_, personal=False)
    first = next(chunks)
    world.execute("delete from memberships_r1")
    rest = b"".join(chunks)
    if format_ == "csv":
        assert len((first + rest).splitlines()) == 1 + 2
    else:
        assert pq.read_table(io.BytesIO(first + rest)).num_rows == 2


def test_there_is_no_export_of_a_segment_that_is_not(world: ReadingWorld) -> None:
    with pytest.raises(NotFound):
        next(Exports(world.reading.segments, world.reading.search).chunks("nothing", "csv", personal=False))
