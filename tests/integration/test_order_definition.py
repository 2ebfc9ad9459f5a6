"""One definition of an order: traits, SQL and the overview's figures against the checker's own slow sums.

Several currencies with dated rates and without, refunds before orders, cancelled orders, the same order from web and
till, late and reordered events, customers who merge, orders of nobody.
"""

from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from infra.adapters.archive.store import ParquetArchive
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.figures import count_anew
from infra.adapters.postgres.rebuild import PostgresRebuild
from infra.app.erasing import eraser
from infra.drivers.http.api.application import sql_runner
from infra.drivers.http.api.core import RunSql
from processors.live.figure_keeper import FigureKeeper
from processors.rebuild.check import Verdict, check
from projections.definitions.files import load_pack, parse_documents
from query.reports.overview import Overview, Reports, windows_of
from schemas.definitions import to_json
from schemas.errors import FiguresPreparing
from schemas.figures import BUCKET_US, PERIODS
from tests.checker.reference import Event, choose, decode, payers, people
from tests.checker.slow_orders import Amount, Money, figures, lifetime, orders_and_refunds
from tests.reading_world import DEPLOYMENT, NOW, ReadingWorld

ZONE = ZoneInfo(DEPLOYMENT["time_zone"])
RATES = """
rates:
  - {currency: EUR, date: "2025-06-01", rate: "1.1037"}
  - {currency: EUR, date: "2026-01-10", rate: "1.0871"}
  - {currency: JPY, date: "2026-01-01", rate: "0.00683"}
sources: {till: {rank: 5}}
"""
MONEY = Money(
    "USD",
    {
        "EUR": [("2025-06-01", Decimal("1.1037")), ("2026-01-10", Decimal("1.0871"))],
        "JPY": [("2026-01-01", Decimal("0.00683"))],
    },
    {"till": 5},
    ZONE,
)
Expected = tuple[list[Event], list[Amount], list[Amount]]


@pytest.fixture
def run_sql(world: ReadingWorld, tmp_path: Path) -> RunSql:
    return sql_runner(world.databases.main, ParquetArchive(tmp_path / "archive"), world.clock)


@pytest.fixture
def reports(world: ReadingWorld) -> Reports:
    return Reports(world.reading.segments.views, world.clock)


def plain(*values: Decimal) -> list[float]:
    return [float(value) for value in values]


def redefine(world: ReadingWorld, text: str, cause: str = "definition") -> None:
    """Put other definitions live, beside those of the pack."""
    definitions = parse_documents([*load_pack("retail"), ("more.yaml", text)])
    content = msgspec.json.decode(to_json(definitions))
    control = world.services.control
    base = control.newest().content_hash
    control.add_revision(cause, content, definitions.content_hash, world.clock.now(), base=base)
    world.settle()


def sold(random: Random) -> dict[str, Any]:
    """The properties of some order event."""
    properties: dict[str, Any] = {"order_id": f"o{random.randrange(30)}"}
    if random.random() < 0.1:
        del properties["order_id"]
    if random.random() < 0.9:
        properties["revenue"] = f"{random.randrange(-5_000, 90_000) / 100:.2f}"
    if random.random() < 0.2:
        properties |= {"refund_id": f"r{random.randrange(3)}", "products": [{"sku": "a"}]}
    currency = random.choice([None, "USD", "USD", "eur", "EUR", "JPY", "GBP", "CHF"])
    return properties if currency is None else {**properties, "currency": currency}


def send_some(world: ReadingWorld, random: Random, count: int) -> None:
    """Events of a dozen customers in any order of time; now and then two identifiers that make two one."""
    kinds = ["purchase.completed"] * 8 + ["pos.purchase"] * 4 + ["purchase.refunded"] * 3 + ["pos.return"]
    kinds += ["purchase.updated", "purchase.cancelled", "web.page_viewed", "email.opened"]
    for _ in range(count):
        who = [
            random.choice([("user_id", f"u{random.randrange(6)}"), ("email", f"c{random.randrange(8)}@example.com")])
        ]
        if random.random() < 0.15:
            who.append(("loyalty_card", f"card-{random.randrange(9)}"))
        type_ = random.choice(kinds)
        at = NOW - timedelta(days=random.random() ** 3 * 760, seconds=1)
        received = NOW - timedelta(seconds=1) if random.random() < 0.5 else None
        source = "till" if type_.startswith("pos") else "web"
        properties = sold(random) if type_.startswith(("purchase", "pos")) else {}
        world.send(who, type_=type_, at=at, received_at=received, properties=properties, source=source)


def expected(world: ReadingWorld) -> Expected:
    """The checker's own reading of the log: its events, orders and refunds."""
    log = world.services.log
    stored = [record for p in range(log.partitions) for record in log.read(p, 0, 100_000)]
    events = list(choose(decode((each.partition, each.offset), each.value) for each in stored).values())
    erased = {token.hex() for (token,) in world.execute("select token from erased_tokens")}
    owner = people(events, erased).owner
    payer = payers(events, owner, erased)
    found = orders_and_refunds(events, lambda event: payer[event.key], MONEY)
    return events, *found


def check_sql(world: ReadingWorld, run_sql: RunSql, wanted: Expected) -> None:
    """The tables' rows one by one, and each customer's lifetime by trait and by both tables."""
    _, orders, refunds = wanted

    def rows(statement: str) -> list[list[Any]]:
        found: list[list[Any]] = run_sql(statement, 100_000)["rows"]
        return found

    def text(amount: Decimal | None) -> str | None:
        return None if amount is None else f"{amount:.4f}"

    def plain(customer: str | None) -> str | None:
        return None if customer is None else customer.replace("-", "")

    mine = sorted(
        (each.order, each.customer if each.owned else "", each.source, text(each.own), each.currency, text(each.base))
        for each in orders
    )
    found = rows("select order_id, profile_id, source, revenue, currency, base_revenue from orders")
    assert sorted((row[0], plain(row[1]) or "", *row[2:]) for row in found) == mine
    sums = rows(
        "select profile_id, sum(base_revenue) from orders where profile_id is not null group by 1 union all"
        " select profile_id, -sum(base_amount) from refunds where profile_id is not null group by 1"
    )
    by_sql: dict[str, Decimal] = {}
    for profile, amount in sums:
        by_sql[plain(profile) or ""] = by_sql.get(plain(profile) or "", Decimal(0)) + Decimal(amount or 0)
    slow = lifetime(orders, refunds)
    assert by_sql == slow
    traits = rows("select profile_id, lifetime_revenue, lifetime_orders from profiles")
    assert {plain(row[0]): Decimal(row[1]) for row in traits if plain(row[0]) in slow} == slow
    assert sum(int(row[2]) for row in traits) == sum(each.owned for each in orders)
    matched = {(each.customer, each.order) for each in orders}
    back = sum((each.base for each in refunds if each.base and (each.customer, each.order) in matched), Decimal(0))
    assert [Decimal(row[0] or 0) for row in rows("select sum(base_refunded) from orders")] == [back]
    lacking = [each for each in (*orders, *refunds) if each.lacks_rate]
    alone = [each for each in lacking if (each.customer, each.order) not in matched]
    assert rows("select sum(missing_rate)::bigint from orders") == [[len(lacking) - len(alone)]]


def check_figures(reports: Reports, wanted: Expected) -> None:
    """Every period and the one before it."""
    events, orders, refunds = wanted
    for days in PERIODS:
        found = reports.overview(days)
        for side, window in enumerate(windows_of(found.period)[:2]):
            start, end = window.start * BUCKET_US, window.end * BUCKET_US
            slow = figures(events, orders, refunds, start, end, MONEY)
            assert [found.orders[side], found.revenue[side]] == [Decimal(slow.orders), slow.revenue], (days, side)
            rate = Decimal(slow.repeaters) / slow.buyers if slow.buyers else 0
            assert found.repeat_rate[side] == rate, (days, side)
            assert found.events[side] == slow.events
        assert sum(count for _, count, _ in found.by_day) == found.orders.now
        assert sum(amount for _, _, amount in found.by_day) == found.revenue.now
        assert sum(count for _, count in found.by_family) == found.events.now
        check_missing(found, wanted)


def check_missing(found: Overview, wanted: Expected) -> None:
    events, orders, refunds = wanted
    told: dict[tuple[str, bool], int] = {}
    for window in windows_of(found.period)[:2]:
        slow = figures(events, orders, refunds, window.start * BUCKET_US, window.end * BUCKET_US, MONEY)
        for key, count in slow.unrated.items():
            told[key] = told.get(key, 0) + count
    assert {(each.currency, False): each.orders for each in found.missing_rates if each.orders} | {
        (each.currency, True): each.refunds for each in found.missing_rates if each.refunds
    } == told


def cells(world: ReadingWorld) -> dict[tuple[Any, ...], tuple[int, int]]:
    """All cells that are not zero, of the live revision and of events."""
    compact(world)
    rows = world.execute(
        "select revision = 0, kind, place, other, label, n, amount from figures"
        " where revision in (0, (select revision from revisions where state = 'live')) and (n <> 0 or amount <> 0)"
    )
    return {tuple(row[:5]): (int(row[5]), int(row[6])) for row in rows}


def compact(world: ReadingWorld) -> None:
    """As the worker does every few seconds."""
    FigureKeeper(world.services).compact(world.worker.compiled)
    assert world.execute("select count(*) from figure_deltas") == [(0,)]


def erase(world: ReadingWorld, kind: str, value: str, tmp_path: Path) -> None:
    parts = (world.databases.main, world.databases.vault, world.vault, tmp_path, DEPLOYMENT["region"])
    with eraser(*parts, world.clock.now) as found:
        assert found.erase(kind, value, force=True).found
    world.settle()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("world", [None, 2], indirect=True, ids=["uncapped", "capped"])
def test_traits_sql_and_overview_are_the_slow_sums(
    world: ReadingWorld, reports: Reports, run_sql: RunSql, seed: int
) -> None:
    """With a cap, the orders of most customers are in trees (decision 0020)."""
    random = Random(seed)
    redefine(world, RATES)
    for _ in range(6):
        send_some(world, random, 50)
        world.settle()
        check_figures(reports, expected(world))  # some of it in deltas still
    compact(world)
    check_figures(reports, expected(world))
    check_sql(world, run_sql, expected(world))


def test_an_erased_customers_orders_stay_as_nobodys(
    world: ReadingWorld, reports: Reports, run_sql: RunSql, tmp_path: Path
) -> None:
    redefine(world, RATES)
    send_some(world, Random(5), 150)
    world.settle()
    customers = reports.overview(30).customers
    erase(world, "email", "c1@example.com", tmp_path)
    wanted = expected(world)
    assert any(not each.owned for each in wanted[1])
    assert reports.overview(30).customers < customers
    check_figures(reports, wanted)
    check_sql(world, run_sql, wanted)
    redefine(world, RATES, "rebuild")  # another revision counts them again
    check_figures(reports, wanted)
    check_sql(world, run_sql, wanted)


def test_a_new_rate_counts_what_lacked_one(world: ReadingWorld, reports: Reports) -> None:
    world.send(
        [("user_id", "u1")], type_="pos.purchase", properties={"order_id": "a", "revenue": "10", "currency": "EUR"}
    )
    world.send(
        [("user_id", "u2")], type_="pos.purchase", properties={"order_id": "b", "revenue": "4", "currency": "CHF"}
    )
    world.purchase([("user_id", "u3")], "c", "7.00")
    world.settle()
    found = reports.overview(7)
    assert plain(found.orders.now, found.revenue.now, found.average_order.now) == [3, 7, 7]
    assert [(each.currency, each.orders, float(each.amount)) for each in found.missing_rates] == [
        ("CHF", 1, 4),
        ("EUR", 1, 10),
    ]
    redefine(world, RATES)
    found = reports.overview(7)
    assert (found.revenue.now, found.average_order.now) == (Decimal("17.871"), Decimal("17.871") / 2)
    assert [each.currency for each in found.missing_rates] == ["CHF"]


@pytest.mark.parametrize("world", [None, 2], indirect=True, ids=["uncapped", "capped"])
def test_the_cells_are_those_of_a_count_from_nothing(world: ReadingWorld, tmp_path: Path) -> None:
    """Whatever was replaced, merged, split or erased on the way."""
    redefine(world, RATES)
    random = Random(7)
    for _ in range(4):
        send_some(world, random, 40)
        world.settle()
    erase(world, "user_id", "u2", tmp_path)
    assert verdict(world).equal
    kept = cells(world)
    recount(world)
    assert cells(world) == kept
    redefine(world, RATES, "rebuild")
    assert cells(world) == kept


def recount(world: ReadingWorld) -> None:
    """As the folder of an earlier version is counted: profiles and events that were there before the figures."""
    with closing(Database(world.databases.main)) as database, database.transaction() as cursor:
        cursor.execute("select revision from revisions where state = 'live'")
        (revision,) = cursor.fetchone() or (0,)
        count_anew(cursor, revision)
        cursor.execute("delete from figures where revision = 0")
        cursor.execute("delete from figure_deltas where revision = 0")
        cursor.execute(
            "insert into figure_event_fills select partition, 0, next_offset from progress"
            " where revision = %s and next_offset > 0",
            (revision,),
        )
    world.worker.forget()  # it starts with what it finds: that all is counted once stays so
    world.settle()


def test_a_folder_of_an_earlier_version_says_that_figures_are_being_prepared(
    world: ReadingWorld, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is decided meanwhile is counted once, whether its profile was counted already or not."""
    monkeypatch.setattr("processors.live.figure_keeper.PROFILES", 3)
    monkeypatch.setattr("processors.live.figure_keeper.RECORDS", 7)
    redefine(world, RATES)
    send_some(world, Random(11), 60)
    world.settle()
    keeper = FigureKeeper(world.services)
    stop_keeping(world, recount)
    random = Random(12)
    said: list[bool] = []
    while keeper.step(world.worker.compiled):
        said.append(preparing(reports))
        if len(said) % 2 and len(said) < 12:
            send_some(world, random, 4)
            stop_keeping(world, lambda each: each.settle())
    assert len(said) > 12
    assert said == [True] * (len(said) - 1) + [False]  # with the last slice all is counted
    check_figures(reports, expected(world))


def preparing(reports: Reports) -> bool:
    try:
        reports.overview(7)
    except FiguresPreparing as err:
        return "are being prepared" in err.message
    return False


def stop_keeping(world: ReadingWorld, work: Callable[[ReadingWorld], None]) -> None:
    """Do something while the worker does not count."""
    keeps, world.worker.upkeep.figures = world.worker.upkeep.figures, None
    work(world)
    world.worker.upkeep.figures = keeps


def test_days_are_local_and_begin_where_the_figures_do(world: ReadingWorld, reports: Reports) -> None:
    midnight = reports.overview(7).period.midnights[3]
    for order, seconds in (("before", -1), ("after", 1)):
        properties = {"order_id": order, "revenue": "5", "currency": "USD"}
        at = midnight + timedelta(seconds=seconds)
        world.send([("user_id", "u1")], type_="purchase.completed", at=at, properties=properties)
    world.settle()
    found: dict[date, int] = {day: count for day, count, _ in reports.overview(7).by_day if count}
    assert found == {midnight.date() - timedelta(days=1): 1, midnight.date(): 1}


def test_rebuild_check_tells_of_a_figure_that_is_not_its_sum(world: ReadingWorld) -> None:
    world.purchase([("user_id", "u1")], "o1", "9.00")
    world.settle()
    assert verdict(world).equal
    world.execute("insert into figures values (1, 1, 0, 0, '', 1, 90000)")
    (difference,) = verdict(world).differences
    assert (difference.what, difference.live, difference.log) == ("figure", "(1, 90000)", "(0, 0)")


def verdict(world: ReadingWorld) -> Verdict:
    compiled = world.worker.compiled
    with (
        closing(PostgresRebuild(world.databases.main)) as rebuild,
        rebuild.snapshot(compiled.revision.revision) as snapshot,
    ):
        return check(world.services, compiled, snapshot)
