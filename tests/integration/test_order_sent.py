"""The order in which a request, a file or a fetch sent its items decides where nothing else does."""

from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from infra.adapters.postgres.log import PostgresLog
from infra.adapters.postgres.log_order import LogOrder
from infra.adapters.postgres.reads import PostgresReads
from infra.drivers.stream.inbox_role import numbered
from ingest.accept.calls import Call, SourceRules
from ingest.files.importer import BATCH_EVENTS
from ingest.requests.inbox import Message, Opened, Refusal
from projections.fold.state import FORM, NAME, O_OWN, ORDERS, PLAIN, TRAITS, UNSET, VALUE, shown, unpack
from schemas.record import Record, decode, to_us
from schemas.stamps import order_of
from tests.conftest import Databases
from tests.integration.running import result
from tests.integration.test_fold_decide import World, new_world
from tests.integration.test_import import counts, imported
from tests.records import START, purchase, record, token

MESSAGE = Message("inbox", 0, 0, None, b"{}")
PEOPLE = 12
"""A hash would decide each of these by chance: all of them right by luck is one in 4,096."""


@pytest.fixture
def world(databases: Databases) -> World:
    return new_world(databases)


def traits_of(world: World, who: str) -> dict[str, object]:
    """The clear traits of a customer as their profile shows them."""
    ((state,),) = world.query(f"select state from profiles_r1 where profile_id = '{token('user_id', who).hex()}'")
    assert isinstance(state, memoryview)
    entries = shown(unpack(bytes(state))[TRAITS])
    assert {entry[FORM] for entry in entries} <= {PLAIN, UNSET}
    return {entry[NAME]: entry[VALUE] for entry in entries}


def identify(who: str, n: int, **traits: object) -> Record:
    ids = [("user_id", who)]
    return record(ids, f"{who}-{n}", type_="profile.identified", traits=dict(traits), n=n)


def test_the_later_of_two_items_of_one_request_sets_a_trait_or_unsets_it(world: World) -> None:
    sent = []
    for number in range(PEOPLE):
        who = f"u{number}"
        sent += [identify(who, 0, plan="free", city="Graz"), identify(who, 1, plan="pro", city=None)]
    Random(7).shuffle(sent)  # however they arrive
    for each in sent:
        world.send(each)
        world.settle()
    assert [traits_of(world, f"u{n}") for n in range(PEOPLE)] == [{"city": None, "plan": "pro"}] * PEOPLE
    assert world.check().equal


def test_the_later_state_of_an_order_holds(world: World) -> None:
    for number in range(PEOPLE):
        ids = [("user_id", f"u{number}")]
        update = purchase(ids, "o", "7.00", type_="purchase.updated", message_id=f"b{number}", n=1)
        world.send(update, purchase(ids, "o", "10.00", message_id=f"a{number}", n=0))
    world.settle()
    rows = world.query("select state from profiles_r1")
    assert [unpack(bytes(state))[ORDERS][0][O_OWN] for (state,) in rows if isinstance(state, memoryview)] == [
        70_000
    ] * PEOPLE
    assert world.check().equal


def test_the_first_of_two_people_on_a_device_has_it(world: World) -> None:
    """Both in one request: they have one time of receipt."""
    for number in range(PEOPLE):
        device = ("anonymous_id", f"d{number}")
        first = record([("user_id", f"first{number}"), device], f"a{number}", n=0)
        second = record([("user_id", f"second{number}"), device], f"b{number}", n=2)
        world.send(second, record([device], f"c{number}", n=1), first)
    world.settle()
    for number in range(PEOPLE):
        owner = world.query(
            f"select profile_id from tokens where token = '{token('anonymous_id', f'd{number}').hex()}'"
        )
        assert owner == [(token("user_id", f"first{number}"),)]
    places = world.query("select first_n, count(*) from evidence group by 1 order by 1")
    assert places == [(0, PEOPLE), (1, PEOPLE), (2, PEOPLE)]
    assert world.check().equal


def test_an_earlier_receipt_of_the_same_instant_resolves_again(world: World) -> None:
    device = ("anonymous_id", "d")
    world.send(record([("user_id", "second"), device], "b", n=5))
    world.settle()
    world.send(record([("user_id", "first"), device], "a", n=4))
    world.settle()
    assert world.query(f"select profile_id from tokens where token = '{token(*device).hex()}'") == [
        (token("user_id", "first"),)
    ]
    assert world.check().equal


def test_the_copy_that_is_applied_gives_the_stamp(world: World) -> None:
    """A retry in another batch, at another place, changes nothing."""
    world.send(identify("ada", 0, plan="free"), identify("ada", 1, plan="pro"))
    world.settle()
    again = identify("ada", 0, plan="free")
    again.n = 9
    world.send(again)
    world.settle()
    assert traits_of(world, "ada") == {"plan": "pro"}
    assert world.query("select verdict, count(*) from not_applied group by 1") == [(1, 1)]
    assert world.check().equal


@pytest.mark.parametrize("outside", [False, True], ids=["in PostgreSQL", "outside"])
def test_a_timeline_shows_events_of_one_time_in_the_order_sent(world: World, outside: bool) -> None:
    ids = [("user_id", "ada")]
    for n in (3, 0, 11, 1, 2, 10):
        properties = {"n": 99, "digest": '"n":7,'}  # not to be taken for the place
        world.send(record(ids, f"m{n}", n=n, name='\\"n":8,', properties=properties))
    world.settle()
    log = PostgresLog(world.databases.main)
    order = LogOrder(log) if outside else None
    with closing(PostgresReads(world.databases.main, order=order)) as reads:
        who = token("user_id", "ada")
        found = [decode(each.value) for each in log.fetch(reads.newest(who, None, 4, None))]
        assert sorted(each.n for each in found) == [2, 3, 10, 11]
        last = min(found, key=lambda each: each.n)
        key = bytes.fromhex(last.id.replace("-", ""))
        before = to_us(START), order_of(to_us(last.received_at), last.n, key)
        rest = [decode(each.value).n for each in log.fetch(reads.newest(who, before, 4, None))]
        assert sorted(rest) == [0, 1]


def test_places_go_on_through_the_batches_of_an_import(tmp_path: Path) -> None:
    """The last line says which plan holds: all have the day, none the time of day."""
    many = BATCH_EVENTS + 500
    lines = [f"r{number},2024-03-05,ada,plan {number}" for number in range(many)]
    (tmp_path / "plans.csv").write_text("\n".join(["row,day,who,plan", *lines]) + "\n")
    (tmp_path / "map.yaml").write_text(
        "source: plans\nformat: csv\ntype: profile.identified\nid: row\nidentifiers: {user_id: who}\n"
        "occurred_at: {column: day}\ntraits: {plan: {column: plan, personal: false}}\nhistorical: true\n"
    )
    assert counts(imported(tmp_path / "data", tmp_path / "map.yaml", tmp_path / "plans.csv"))[1] == many
    data = ["--data", str(tmp_path / "data")]
    (row,) = result("sql", "select count(*) as right_ones from events where message_id = 'r' || n", *data)
    assert row == {"right_ones": many}
    assert result("profile", "user_id:ada", *data)["traits"] == {"plan": f"plan {many - 1}"}


def test_places_go_on_through_the_messages_of_a_fetch() -> None:
    def opened(items: int) -> Opened:
        return Opened(MESSAGE, Call([{}] * items, SourceRules("web"), START))

    found = numbered([opened(2), Refusal(MESSAGE, "", "invalid_json", "", "no"), opened(3), opened(1)])
    assert [each.call.first_n for each in found if isinstance(each, Opened)] == [0, 2, 5]
