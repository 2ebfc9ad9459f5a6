"""Customers over the cap of orders: the same decisions and feed as without a cap, at a bounded cost an event."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from infra.adapters.postgres import database as postgres
from infra.adapters.postgres import decide as postgres_decide
from infra.adapters.postgres import fold as postgres_fold
from infra.adapters.postgres import orders as postgres_orders
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.figures import count_anew
from infra.adapters.postgres.log import PostgresLog
from processors.live.figure_keeper import FigureKeeper
from processors.rebuild.definitions import apply_files, start_rebuild
from projections.decide.evaluator import TraitValue
from projections.fold import state as st
from projections.orders import summary as order_summary
from schemas.figures import Kind
from schemas.record import Record
from schemas.store_rows import NO_EVENT, NewWorkItem
from tests.conftest import new_databases
from tests.integration.test_fold_decide import World, new_world
from tests.integration.test_grown_profiles import FewMarks, LongWay, feed, made, steps_of
from tests.records import START, purchase, record, token

ADA = [("user_id", "ada")]
CAP = 3


def small(server: EmbeddedPostgres) -> World:
    return new_world(new_databases(server), CAP)


def orders(first: int, count: int, ids: list[tuple[str, str]] = ADA, hours: float = 1) -> list[Record]:
    """Numbered orders, so many hours apart."""
    return [
        purchase(
            ids, f"o{number}", "10.00", START + timedelta(hours=number * hours), message_id=f"{ids[0][1]}-{number}"
        )
        for number in range(first, first + count)
    ]


def values(world: World) -> dict[bytes, dict[str, TraitValue]]:
    """Every computed trait of every profile, and its amounts."""
    compiled = world.worker.compiled
    found = {}
    for profile_id, state, decided_us in world.query(
        f"select profile_id, state, decided_us from profiles_r{compiled.revision.revision}"
    ):
        assert isinstance(profile_id, bytes)
        assert isinstance(state, memoryview)
        assert isinstance(decided_us, int)
        unpacked = compiled.fold.unpack(bytes(state))
        found[profile_id] = compiled.evaluator.values(unpacked, decided_us)
        found[profile_id]["amounts"] = str(compiled.evaluator.revenue_by_currency(unpacked))
        found[profile_id]["missing"] = compiled.evaluator.missing_rate(unpacked)
    return found


def summed_up(world: World) -> int:
    """How many profiles hold a summary in the place of their orders; each has a tree, and no other has one."""
    compiled = world.worker.compiled
    fold, number = compiled.fold, compiled.revision.revision
    large = {
        profile_id
        for profile_id, state in world.query(f"select profile_id, state from profiles_r{number}")
        if isinstance(state, memoryview) and fold.summed_up(fold.unpack(bytes(state)))
    }
    assert {row[0] for row in world.query(f"select distinct profile_id from order_nodes_r{number}")} == large
    return len(large)


def value(world: World, name: str, user: str = "ada") -> TraitValue:
    return values(world)[token("user_id", user)][name]


def _text(world: World, query: str) -> str:
    rows = world.query(f"{query} from profiles_r1 order by 1")
    return str([[bytes(each) if isinstance(each, memoryview) else each for each in row] for row in rows])


def same_as_uncapped(server: EmbeddedPostgres, seed: int, kind: type[World] = World) -> None:
    free, capped = made(server, kind, None), made(server, kind, 2)
    for step in steps_of(seed):
        step(free)
        step(capped)
    if kind is not FewMarks:  # the long way also sees events whose marks wait
        assert feed(capped) == feed(free)
        decided = "select profile_id, version, decided_us, due_us, event_count, segments, lifecycle, risk, reasons"
        assert len({_text(world, decided) for world in (free, capped)}) == 1
    assert values(capped) == values(free)
    assert summed_up(capped) > 0
    assert capped.check().equal


@pytest.mark.parametrize(("seed", "kind"), [(0, World), (1, World), (2, FewMarks), (3, LongWay)])
def test_histories_over_the_cap_say_the_same_as_without_a_cap(
    server: EmbeddedPostgres, seed: int, kind: type[World]
) -> None:
    same_as_uncapped(server, seed, kind)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200, 240))
def test_many_more_histories_over_the_cap(server: EmbeddedPostgres, seed: int) -> None:
    same_as_uncapped(server, seed, (World, FewMarks, LongWay)[seed % 3])


def test_an_order_from_web_and_till_counts_once_though_years_and_the_cap_lie_between(server: EmbeddedPostgres) -> None:
    world = small(server)
    world.send(*orders(0, 10))
    world.settle()
    assert summed_up(world) == 1
    late = purchase(ADA, "o4", "70.00", START + timedelta(days=900), message_id="late")
    gone = record(ADA, "gone", type_="purchase.cancelled", at=START + timedelta(days=1), properties={"order_id": "o5"})
    refund = {"order_id": "o6", "revenue": "4.00", "currency": "USD"}
    back = record(ADA, "back", type_="purchase.refunded", at=START + timedelta(days=1), properties=refund)
    world.clock.at += timedelta(days=1_000)
    world.send(late, gone, back, back)
    world.settle()
    assert value(world, "lifetime_orders") == 9
    assert str(value(world, "lifetime_revenue")) == "146.0000"
    assert world.check().equal


def test_a_merge_adds_and_a_rebuild_and_new_definitions_keep(server: EmbeddedPostgres) -> None:
    world = small(server)
    visitor = [("anonymous_id", "v")]
    world.send(*orders(0, 8), *orders(6, 6, visitor))
    world.settle()
    assert summed_up(world) == 2
    world.send(record([*ADA, *visitor], "login"))
    world.settle()
    assert summed_up(world) == 1
    assert value(world, "lifetime_orders") == 12
    start_rebuild(world.services.control, world.clock.at)
    world.settle()
    assert (value(world, "lifetime_orders"), summed_up(world)) == (12, 1)
    more = (
        "computed_traits:\n"
        "  big_orders: {aggregate: count, events: [purchase.completed],"
        " where: {property: revenue, op: gte, value: 10}}\n"
        "segments:\n  fans: {when: {trait: big_orders, op: gte, value: 12}}\n"
    )
    apply_files(world.services.control, [("more.yaml", more)], world.clock.at)
    world.settle()
    assert value(world, "big_orders") == 12
    world.send(*orders(20, 2))
    world.settle()
    assert (value(world, "big_orders"), value(world, "lifetime_orders")) == (14, 14)
    assert world.check().equal


def as_of_before(world: World, change: Callable[[list[Any]], None]) -> None:
    """Write the profile as an earlier build did, without a tree, and count the figures as an upgrade does."""
    fold = world.worker.compiled.fold
    ((packed,),) = world.query("select state from profiles_r1")
    assert isinstance(packed, memoryview)
    state = fold.unpack(bytes(packed))
    change(state)
    ((identifier_set,),) = world.query("select signature from evidence")
    assert isinstance(identifier_set, bytes)
    world.query(f"update profiles_r1 set state = '\\x{fold.pack(state).hex()}' returning 1")
    world.query("delete from order_nodes_r1 returning 1")
    with world.services.store.decide() as tx:
        tx.add_work([NewWorkItem(1, 0, "refold", {identifier_set: (0, NO_EVENT)})])  # as the migrations do
    with postgres.Database(world.databases.main).transaction() as cursor:
        count_anew(cursor, 1)
    world.worker.forget()  # it starts anew
    keeper = FigureKeeper(world.services)
    while keeper.step(world.worker.compiled):
        pass
    assert unknown(world) == 1


def unknown(world: World) -> int:
    """Customers whose orders the overview does not know."""
    FigureKeeper(world.services).compact(world.worker.compiled)
    ((found,),) = world.query(f"select coalesce(sum(n), 0)::int from figures where kind = {Kind.UNKNOWN}")
    assert isinstance(found, int)
    return found


@contextmanager
def nothing_refolded(world: World) -> Iterator[None]:
    refold = world.worker.deciding.refold
    world.worker.deciding.refold = lambda: False  # type: ignore[method-assign]
    yield
    assert world.query("select count(*) from marks where kind = 'refold'") == [(1,)]
    world.worker.deciding.refold = refold  # type: ignore[method-assign]


def test_states_of_an_older_build_are_read_from_the_log_until_they_are_made_again(server: EmbeddedPostgres) -> None:
    world = small(server)
    world.send(*orders(0, 8))
    world.settle()
    world.query("delete from laid_off_r1 returning 1")  # it was in the log alone, and there was no tree
    as_of_before(world, lambda state: state.__setitem__(st.ORDERS, st.OVERFLOW))
    with nothing_refolded(world):
        world.send(*orders(8, 1))
        world.settle()
        assert value(world, "lifetime_orders") == 9
    world.settle()
    assert value(world, "lifetime_orders") == 9
    assert world.query("select count(*) from laid_off_r1") == [(1,)]
    assert world.check().equal


def test_a_summary_of_an_older_build_keeps_its_traits_and_is_made_again(server: EmbeddedPostgres) -> None:
    """It lacks what the overview's figures ask: they say that a customer is unknown until it has it."""
    world = small(server)
    world.send(*orders(0, 8))
    world.settle()

    def first_form(state: list[Any]) -> None:
        state[st.ORDERS] = [1, *state[st.ORDERS][1 : -order_summary.TAIL]]

    as_of_before(world, first_form)
    with nothing_refolded(world):
        world.settle()
        assert value(world, "lifetime_orders") == 8
        assert unknown(world) == 1
    world.settle()
    assert unknown(world) == 0
    assert value(world, "lifetime_orders") == 8
    assert world.check().equal


class Counted:
    """What one step reads and writes: rows of trees, bytes of states, records of the log."""

    def __init__(self) -> None:
        self.read = self.written = self.fetched = 0


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    counted = Counted()
    copy_raw, fetch = postgres.copy_raw, PostgresLog.fetch

    def reading(cursor: Any, query: str) -> bytes:
        data = copy_raw(cursor, query)
        counted.read += len(data)
        return data

    def fetching(log: PostgresLog, positions: Any) -> list[Any]:
        found = fetch(log, positions)
        counted.fetched += len(found)
        return found

    save = postgres_orders.OrderTreeRows.save_order_nodes

    def saving(tx: Any, revision: int, profile_id: bytes, rows: Any) -> None:
        counted.written += sum(len(row.summary) + len(row.maps or b"") for row in rows)
        save(tx, revision, profile_id, rows)

    with monkeypatch.context() as patch:
        for module in (postgres, postgres_fold, postgres_decide):
            patch.setattr(module, "copy_raw", reading)
        patch.setattr(PostgresLog, "fetch", fetching)
        patch.setattr(postgres_orders.OrderTreeRows, "save_order_nodes", saving)
        yield counted


def test_an_event_costs_the_same_whatever_the_history(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tree is full from about 8,000 orders on: twice as many read and write about as much."""
    world = new_world(new_databases(server), 100)
    costs = []
    sent = 0
    for size in (8_000, 16_000):
        world.send(*orders(sent, size - sent, hours=0.01))
        world.settle()
        world.send(*orders(size, 1, hours=0.01))
        with counting(monkeypatch) as counted:
            world.settle()
        costs.append(counted)
        sent = size + 1
        world.send(record(ADA, f"visit{size}", at=START + timedelta(days=9)))
        with counting(monkeypatch) as looked:
            world.settle()
        assert looked.written == 0  # an event without an order does not touch the tree
        assert value(world, "lifetime_orders") == sent
    assert [each.fetched for each in costs] == [0, 0]
    assert costs[0].written > 0
    assert costs[1].read < 1.4 * costs[0].read
    assert costs[1].written < 1.4 * costs[0].written
    ((largest,),) = world.query("select max(length(state)) from profiles_r1")
    assert isinstance(largest, int)
    assert largest < 20_000


def test_what_is_kept_of_orders_goes_with_the_profile_and_with_the_states(server: EmbeddedPostgres) -> None:
    world = small(server)
    world.send(*orders(0, 8))
    world.settle()
    assert summed_up(world) == 1
    with world.services.store.decide() as tx:
        tx.delete_profiles(1, [token("user_id", "ada")])
    assert world.query("select count(*) from order_nodes_r1") == [(0,)]
    with world.services.store.fold() as fold_tx:
        fold_tx.delete_states(1, [row[0] for row in world.query("select signature from evidence")])  # type: ignore[misc]
    assert world.query("select count(*) from laid_off_r1") == [(0,)]
