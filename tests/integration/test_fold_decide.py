"""FOLD and DECIDE over a real PostgreSQL: from appended records to profiles, memberships and changes."""

from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import msgspec
import pytest

from infra.adapters.postgres.control import PostgresControl, insert_revision
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.log import PostgresLog
from infra.adapters.postgres.rebuild import PostgresRebuild
from infra.adapters.postgres.store import PostgresStore
from processors.live.applied import Batch
from processors.live.compiled import Compiled, folder_of
from processors.live.dead_letters import dead_letter_maker
from processors.live.feeder import LogFeeder
from processors.live.services import Services
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from processors.rebuild.bulk_fold import BulkFold
from processors.rebuild.check import Verdict, check
from processors.rebuild.definitions import apply_files, start_rebuild
from projections.definitions.files import load_pack, parse_documents
from projections.fold.state import ORDER_CAP
from schemas.definitions import to_json
from schemas.record import CURRENT, Identifier, Pending, Reader, Record, encode, partition_of
from tests.conftest import Databases
from tests.reading_world import HandClock
from tests.records import START, pending, purchase, record, token


class NoSealer:
    """Nothing in these records is sealed; what is sealed for a dead letter is not looked at."""

    def seal(self, token: bytes, plain: bytes, aad: bytes) -> bytes:
        return plain

    def open_many(self, sealed: object) -> list[bytes | None]:
        raise AssertionError("nothing here is sealed")


@dataclass
class World:
    databases: Databases
    clock: HandClock
    services: Services
    feeder: LogFeeder

    @property
    def worker(self) -> Worker:
        return self.feeder.worker

    def send(self, *records: Record) -> None:
        self.services.log.append(pending(records))

    def settle(self) -> None:
        while self.feeder.step():
            pass

    def query(self, sql: str) -> list[tuple[object, ...]]:
        database = Database(self.databases.main)
        with database.transaction() as cursor:
            cursor.execute(sql)
            rows = cursor.fetchall()
        database.close()
        return rows

    def check(self, reader: Reader = CURRENT) -> Verdict:
        live = self.services.control.live()
        rebuild = PostgresRebuild(self.databases.main)
        with closing(rebuild), rebuild.snapshot(live.revision, timeout_s=20) as snapshot:
            return check(self.services, Compiled.of(live, "UTC", "USD", self.services.order_cap, reader), snapshot)

    def rebuilding(self) -> PostgresRebuild:
        """A store of its own for a builder of this world."""
        return PostgresRebuild(self.databases.main)


@pytest.fixture
def world(databases: Databases) -> World:
    return new_world(databases)


def new_world(databases: Databases, order_cap: int | None = ORDER_CAP) -> World:
    """The retail pack live over empty databases."""
    definitions = parse_documents(load_pack("retail"))
    database = Database(databases.main)
    with database.transaction() as cursor:
        content = msgspec.json.decode(to_json(definitions))
        insert_revision(cursor, 1, "live", "initial", content, definitions.content_hash, START)
    database.close()
    clock = HandClock(START + timedelta(days=30))
    sealer = NoSealer()
    services = Services(
        log=PostgresLog(databases.main),
        store=PostgresStore(databases.main),
        control=PostgresControl(databases.main),
        sealer=sealer,
        letter=dead_letter_maker(sealer, lambda: bytes(16), clock),
        clock=clock,
        time_zone="UTC",
        currency="USD",
        order_cap=order_cap,
    )
    worker = Worker(services, Builder(services, PostgresRebuild(databases.main)))
    return World(databases, clock, services, LogFeeder(worker))


ADA = [("user_id", "ada")]


def test_a_check_holds_no_transaction_while_it_folds(world: World) -> None:
    """An idle snapshot was ended by the server after two minutes, and held back vacuum until then."""
    world.send(purchase(ADA, "o1", "20.00", START + timedelta(days=29)))
    world.settle()
    rebuild = PostgresRebuild(world.databases.main)
    with rebuild.snapshot(1, timeout_s=20) as snapshot:
        others = "select state from pg_stat_activity where datname = current_database() and xact_start is not null"
        assert world.query(f"{others} and pid <> pg_backend_pid() and backend_type = 'client backend'") == []
        world.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%snapshot%'")
        assert len(list(snapshot.states())) == len(list(snapshot.states())) == 1
        assert len(list(snapshot.profiles())) == len(list(snapshot.evidence())) == 1
    rebuild.close()


def test_an_event_makes_a_profile_with_its_stage_and_changes(world: World) -> None:
    world.send(purchase(ADA, "o1", "20.00", START + timedelta(days=29)))
    world.settle()
    ((profile_id, lifecycle, count),) = world.query("select profile_id, lifecycle, event_count from profiles_r1")
    assert (profile_id, lifecycle, count) == (token("user_id", "ada"), "new", 1)
    changes = world.query("select type, name, version from changes order by version")
    assert ("lifecycle", None, 1) in changes or ("lifecycle", None) in [change[:2] for change in changes]
    assert [change[2] for change in changes] == list(range(1, len(changes) + 1))
    assert world.query("select count(*) from feed_batches where seq is null") == [(0,)]
    assert world.check().equal


def test_a_repeat_is_a_duplicate_and_another_body_a_conflict(world: World) -> None:
    one = purchase(ADA, "o1", "20.00", message_id="m1")
    other = purchase(ADA, "o2", "99.00", message_id="m1")
    world.send(one, one)
    world.settle()
    world.send(one, other)
    world.settle()
    assert world.query("select verdict, count(*) from not_applied group by 1 order by 1") == [(1, 2), (2, 1)]
    assert world.query("select stage, rule from dead_letters") == [("fold", "id_reused")]
    assert world.query("select event_count from profiles_r1") == [(1,)]
    assert world.check().equal


def test_a_retry_that_is_stamped_anew_is_a_duplicate_and_the_first_copy_counts(world: World) -> None:
    hour = timedelta(hours=1)
    one = purchase(ADA, "o1", "20.00", message_id="m1")
    stamped = purchase(ADA, "o1", "20.00", at=START + hour, message_id="m1")
    assert one.digest != stamped.digest
    world.send(one)
    world.settle()
    world.send(stamped, purchase(ADA, "o1", "20.00", at=START + 2 * hour, message_id="m1"))
    world.settle()
    world.send(purchase(ADA, "o1", "21.00", at=START + hour, message_id="m1"))
    world.settle()
    assert world.query("select verdict, count(*) from not_applied group by 1 order by 1") == [(1, 2), (2, 1)]
    assert world.query("select rule from dead_letters") == [("id_reused",)]
    assert world.query("select event_count from profiles_r1") == [(1,)]
    assert world.check().equal


def test_a_login_joins_the_anonymous_visits_and_the_old_id_says_where_it_went(world: World) -> None:
    later = START + timedelta(hours=1)
    world.send(record([("anonymous_id", "a1")], "v1"), record([("anonymous_id", "a1")], "v2", at=later))
    world.settle()
    world.send(record([("user_id", "ada"), ("anonymous_id", "a1")], "v3", at=START + timedelta(hours=2)))
    world.settle()
    world.send(record([("user_id", "bob")], "v4", at=START + timedelta(hours=3)))
    world.send(record([("user_id", "ada"), ("email", "a@x")], "v5", at=START + timedelta(hours=4)))
    world.settle()
    rows = world.query("select profile_id, event_count from profiles_r1 order by event_count desc")
    assert rows == [(token("anonymous_id", "a1"), 4), (token("user_id", "bob"), 1)]
    assert world.query(f"select profile_id from tokens where token = '{token('user_id', 'ada').hex()}'") == [
        (token("anonymous_id", "a1"),)
    ]
    assert world.check().equal


def test_two_known_profiles_merge_and_the_later_one_ends(world: World) -> None:
    hour = timedelta(hours=1)
    world.send(purchase(ADA, "o1", "20.00"), purchase([("loyalty_card", "77")], "o2", "30.00", START + hour))
    world.settle()
    both = [("user_id", "ada"), ("loyalty_card", "77")]
    world.send(purchase(both, "o2", "30.00", START + 2 * hour, type_="pos.purchase"))
    world.settle()
    assert world.query("select profile_id, event_count from profiles_r1") == [(token("user_id", "ada"), 3)]
    merged = world.query("select profile_id, new from changes where name = 'merged_into'")
    assert len(merged) == 1
    assert merged[0][0] == token("loyalty_card", "77")
    assert world.check().equal


def test_a_hub_is_seen_when_it_comes_one_event_at_a_time(world: World) -> None:
    for number in range(7):
        both = [("user_id", f"u{number}"), ("anonymous_id", "kiosk")]
        world.send(record(both, f"m{number}", at=START + timedelta(minutes=number)))
        world.settle()
    assert world.query("select kind from tokens where hub") == [("anonymous_id",)]
    assert world.query("select count(*) from profiles_r1") == [(7,)]
    assert world.check().equal


def test_a_profile_that_comes_back_goes_on_with_its_versions(world: World) -> None:
    """An e-mail joins two customers' devices; as a hub it joins nobody, and the one that ended lives again."""
    hour = timedelta(hours=1)
    world.send(record([("anonymous_id", "a")], "m0"), record([("anonymous_id", "b")], "m1", at=START + hour))
    world.settle()
    for number, other in enumerate(("a", "b")):
        ids = [("email", "shared"), ("anonymous_id", other)]
        world.send(record(ids, f"link{number}", at=START + (2 + number) * hour))
        world.settle()
    assert world.query("select count(*) from profiles_r1") == [(1,)]
    for number in range(7):
        ids = [("user_id", f"u{number}"), ("email", "shared")]
        world.send(record(ids, f"hub{number}", at=START + (5 + number) * hour))
        world.settle()
    assert world.query(f"select 1 from profiles_r1 where profile_id = '{token('anonymous_id', 'b').hex()}'") == [(1,)]
    repeats = world.query("select profile_id, version from changes group by 1, 2 having count(*) > 1")
    assert repeats == []
    assert world.check().equal


def test_a_rebuild_that_flushes_often_says_the_same(world: World) -> None:
    people = [
        purchase([("user_id", f"u{n % 37}")], f"o{n}", f"{n}.00", START + timedelta(minutes=n)) for n in range(300)
    ]
    world.send(*people)
    world.settle()
    before = world.check()
    live = world.worker
    start_rebuild(world.services.control, world.clock.now())
    compiled = Compiled.of(world.services.control.revision(2), "UTC", "USD")
    epochs = dict.fromkeys(range(4), 1)
    bulk = BulkFold(folder_of(world.services, compiled, epochs, live=False, adds_work=False), [0, 0, 0, 0], held=5)
    for partition, end in enumerate(live.next_offsets):
        for start in range(0, end, 9):
            stop = min(end, start + 9)
            records = world.services.log.read(partition, start, stop - start)
            bulk.add(Batch(partition, start, stop, records, 0))
    bulk.flush()
    world.settle()
    assert world.services.control.live().revision == 2
    after = world.check()
    assert (after.equal, after.hash) == (True, before.hash)


@pytest.mark.parametrize(
    "wrong",
    [
        {"digest": "not hex"},
        {"digest": "abcd"},
        {"route_key": "zz"},
        {"route_key": "abcd"},
        {"ids": [Identifier("user_id", "zz")]},
        {"ids": [Identifier("user_id", "abcd")]},
        {"id": "no uuid"},
    ],
    ids=str,
)
def test_what_cannot_be_folded_is_set_aside_and_stops_no_building_revision(world: World, wrong: dict[str, Any]) -> None:
    world.send(purchase(ADA, "o1", "20.00"))
    order = purchase(ADA, "o2", "20.00")
    broken = encode(msgspec.structs.replace(order, **wrong))
    world.services.log.append([Pending(bytes.fromhex(order.route_key), broken)])
    world.settle()
    assert world.query("select count(*) from dead_letters") == [(1,)]
    start_rebuild(world.services.control, world.clock.now())
    compiled = Compiled.of(world.services.control.revision(2), "UTC", "USD")
    folder = folder_of(world.services, compiled, dict.fromkeys(range(4), 1), live=False, adds_work=False)
    bulk = BulkFold(folder, [0, 0, 0, 0])
    for partition, end in enumerate(world.worker.next_offsets):
        bulk.add(Batch(partition, 0, end, world.services.log.read(partition, 0, end), 0))
    world.settle()
    assert world.services.control.live().revision == 2
    assert world.check().equal


def test_time_alone_moves_a_customer_to_at_risk_and_lapsed(world: World) -> None:
    world.send(*[purchase(ADA, f"o{day}", "20.00", START + timedelta(days=day)) for day in (0, 10, 20)])
    world.settle()
    stages = [world.query("select lifecycle from profiles_r1")[0][0]]
    for _ in range(40):
        world.clock.at += timedelta(days=15)
        world.settle()
        (stage,) = world.query("select lifecycle from profiles_r1")[0]
        if stage != stages[-1]:
            stages.append(stage)
    assert stages[-1] == "lapsed"
    assert "at_risk" in stages
    assert world.query("select count(*) from changes where type = 'lifecycle' and cause = 'timer'")[0][0] == 2
    assert world.check().equal


def test_changed_definitions_are_built_beside_and_swapped_in(world: World) -> None:
    world.send(*[purchase([("user_id", f"u{n}")], f"o{n}", f"{n}.00") for n in range(50)])
    world.settle()
    text = """
computed_traits:
  biggest_order: {aggregate: max, of: revenue, events: [purchase.completed], description: the biggest}
segments:
  spent_forty: {description: big, when: {trait: biggest_order, op: gte, value: 40}}
"""
    applied = apply_files(world.services.control, [("more.yaml", text)], world.clock.now())
    assert applied.revision == 2
    world.settle()
    assert world.services.control.live().revision == 2
    names = world.worker.compiled.evaluator.segment_names
    bit = names.index("spent_forty")
    assert world.query(f"select count(*), count(since_us) from memberships_r2 where segment = {bit}") == [(10, 0)]
    changes = world.query("select count(*) from changes where name = 'spent_forty' and cause = 'definition'")
    assert changes == [(10,)]
    assert world.check().equal
    world.send(purchase([("user_id", "u3")], "o99", "44.00", START + timedelta(days=1)))
    world.settle()
    assert world.query(f"select count(*), count(since_us) from memberships_r2 where segment = {bit}") == [(11, 1)]


def test_a_rebuild_emits_nothing_and_changes_nothing(world: World) -> None:
    world.send(*[purchase([("user_id", f"u{n % 7}")], f"o{n}", f"{n}.00") for n in range(50)])
    world.settle()
    before = world.query("select count(*) from changes")
    first = world.check()
    start_rebuild(world.services.control, world.clock.now())
    world.settle()
    assert world.services.control.live().revision == 2
    assert world.query("select count(*) from changes") == before
    assert world.check().hash == first.hash


def test_a_planted_difference_is_found(world: World) -> None:
    world.send(purchase(ADA, "o1", "20.00"))
    world.settle()
    world.query("update profiles_r1 set lifecycle = 'lapsed' returning 1")
    verdict = world.check()
    assert not verdict.equal
    assert verdict.differences[0].what == "profile"


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_arrival_and_batching_ends_in_what_a_rebuild_says(world: World, seed: int) -> None:
    random = Random(seed)
    people = [f"u{n}" for n in range(6)]
    records = []
    for number in range(120):
        person = random.choice(people)
        ids = {("user_id", person)} if random.random() < 0.5 else set()
        ids.add(("anonymous_id", f"{person}-{random.randrange(3)}"))
        if random.random() < 0.2:
            ids.add(("email", random.choice(["shared@x", f"{person}@x"])))
        if random.random() < 0.2:
            ids.add(("device_id", "kiosk"))
        at = START + timedelta(minutes=number)
        type_ = random.choice(["purchase.completed", "pos.purchase"])
        records.append(purchase(ids, f"o{random.randrange(80)}", "5.00", at, type_=type_, message_id=f"m{number}"))
    random.shuffle(records)
    records += random.sample(records, 20)
    while records:
        size = random.randrange(1, 30)
        world.send(*records[:size])
        del records[:size]
        world.feeder.batch = random.choice([2, 5, 5_000])
        world.settle() if random.random() < 0.7 else world.feeder.step()
    world.settle()
    verdict = world.check()
    assert verdict.equal, verdict.differences[:3]
    assert sum(int(str(row[0])) for row in world.query("select event_count from profiles_r1")) == 120


@pytest.mark.parametrize("seed", range(6))
def test_an_event_that_an_earlier_receipt_takes_the_place_of_leaves_no_trace(world: World, seed: int) -> None:
    """One message id used for several customers, folded in an order that is not that of receipt."""
    random = Random(seed)
    records = []
    for number in range(60):
        person = f"u{random.randrange(12)}"
        ids = {("user_id", person)} if random.random() < 0.6 else set()
        ids.add(("anonymous_id", f"{person}-{random.randrange(4)}"))
        if random.random() < 0.2:
            ids.add(("device_id", "kiosk"))
        at = START + timedelta(minutes=number)
        records.append(purchase(ids, f"o{number}", "5.00", at, message_id=f"m{random.randrange(25)}"))
    random.shuffle(records)
    while records:
        size = random.randrange(1, 8)
        world.send(*records[:size])
        del records[:size]
        world.settle() if random.random() < 0.7 else world.feeder.step()
    world.settle()
    verdict = world.check()
    assert verdict.equal, verdict.differences[:3]
    counted = sum(int(str(row[0])) for row in world.query("select event_count from profiles_r1"))
    assert counted == world.query("select count(*) from register")[0][0]


def test_a_customer_whose_only_event_was_another_s_ends_and_may_come_later(world: World) -> None:
    place = partition_of(token(*ADA[0]), 4)
    name = next(each for each in map(str, range(100)) if partition_of(token("user_id", each), 4) != place)
    eve, late, early = [("user_id", name)], START + timedelta(hours=2), START
    world.send(purchase(eve, "o1", "7.00", late, message_id="m1"))
    world.settle()
    world.send(purchase(ADA, "o2", "9.00", early, message_id="m1"))
    world.settle()
    profiles = "select profile_id, event_count from profiles_r1 order by event_count"
    assert world.query(profiles) == [(token(*ADA[0]), 1)], "eve's was the later copy of the same message"
    assert world.check().equal
    world.send(purchase(eve, "o3", "7.00", late, message_id="m3"), purchase(eve, "o4", "7.00", late, message_id="m4"))
    world.settle()
    assert world.query(profiles) == [(token(*ADA[0]), 1), (token(*eve[0]), 2)]
    who = token(*eve[0]).hex()
    versions = world.query(f"select version from changes where profile_id = '{who}' order by version")
    assert [row[0] for row in versions] == list(range(1, len(versions) + 1))
    assert world.check().equal


@pytest.mark.parametrize("copied", [False, True])
def test_an_event_that_is_replaced_while_a_revision_is_built_is_in_neither(world: World, copied: bool) -> None:
    place = partition_of(token(*ADA[0]), 4)
    name = next(each for each in map(str, range(100)) if partition_of(token("user_id", each), 4) != place)
    other, late = [("user_id", name)], START + timedelta(hours=2)
    world.send(purchase(other, "o1", "7.00", late, message_id="m1"), purchase(other, "o2", "8.00", late))
    world.settle()
    if copied:  # the same fold: the states are taken over, the segments are new
        text = "segments:\n  some:\n    when: {trait: lifetime_orders, op: gt, value: 0}\n"
    else:
        text = "computed_traits:\n  odd: {aggregate: count, events: [purchase.completed]}\n"
    apply_files(world.services.control, [("more.yaml", text)], world.clock.now())
    folded = "select sum(next_offset) from progress where revision = 2"
    while world.query(folded) == [(0,)] and world.services.control.building() is not None:
        world.worker.upkeep.builder(world.worker)
    assert world.services.control.building() is not None, "folded, and not live yet"
    world.send(purchase(ADA, "o2", "9.00", START, message_id="m1"))
    world.settle()
    assert world.services.control.live().revision == 2
    counts = "select profile_id, event_count from profiles_r2 order by 1"
    assert world.query(counts) == sorted([(token(*ADA[0]), 1), (token(*other[0]), 1)])
    verdict = world.check()
    assert verdict.equal, verdict.differences[:3]


def test_a_token_whose_profile_lost_its_naming_token_is_resolved_anew(world: World) -> None:
    """As an erasure leaves it until its identity mark is drained, or where an event came between its steps."""
    visitor = ("anonymous_id", "a1")
    world.send(record([("user_id", "eve"), visitor], "m1"), record([visitor], "m2"))
    world.settle()
    named = token("user_id", "eve").hex()
    world.query(f"delete from evidence where profile_id = '{named}' returning 1")
    world.query("delete from evidence_tokens returning 1")
    world.query(f"delete from tokens where token = '{named}' returning 1")
    world.send(record([visitor, ("email", "eve@x")], "m3"))
    world.settle()
    ((owner,),) = world.query(f"select distinct profile_id from tokens where token <> '{named}'")
    assert owner in {token(*visitor), token("email", "eve@x")}
    assert world.query(f"select count(*) from profiles_r1 where profile_id = '{bytes(owner).hex()}'") == [(1,)]
