"""Several workers on one PostgreSQL: each folds its partitions, all decide; the end is what a rebuild says."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import pytest

from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.log import PostgresLog
from infra.adapters.postgres.rebuild import PostgresRebuild
from infra.adapters.postgres.store import PostgresStore
from infra.app.worker import check_name
from infra.drivers.process.worker_role import await_name
from processors.live.decide_batch import Outcome
from processors.live.feeder import LogFeeder
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from processors.rebuild.definitions import apply_files, start_rebuild
from projections.fold.state import EVENT_COUNT
from schemas.errors import Disposition, ProgressConflict, ServiceFailed, TouchfoldError
from schemas.record import Record, to_us
from schemas.work import Fetched
from tests.conftest import Databases
from tests.integration.test_fold_decide import World, new_world
from tests.integration.test_grown_profiles import states_differ
from tests.records import START, purchase, record

PARTITIONS = range(4)
DEADLINE_S = 120.0


@dataclass
class Pump:
    """A worker with a reader of the log in place of a runner. One thread at a time."""

    world: World
    number: int
    batch: int = 200
    next: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dsn = self.world.databases.main
        self._store, self._control, self._log = PostgresStore(dsn), PostgresControl(dsn), PostgresLog(dsn)
        self._rebuild = PostgresRebuild(dsn)
        services = replace(self.world.services, store=self._store, control=self._control, log=self._log)
        self.worker = Worker(services, Builder(services, self._rebuild), owner=f"worker {self.number}", shared=True)

    def claim(self, partitions: Sequence[int]) -> None:
        self.next |= self.worker.claim(partitions)

    def step(self) -> bool:
        """One fetch of every partition that is ours, then what idle finds; False when there was nothing."""
        before = to_us(self.world.clock.now())
        batches = self._fetched()
        caught_up = {p: before for p in self.next if not any(b.partition == p for b in batches)}
        try:
            if batches:
                self.worker.apply(batches)
                self.next |= {each.partition: each.end for each in batches}
            return self.worker.idle(caught_up) or bool(batches)
        except TouchfoldError as err:
            if err.disposition is not Disposition.RETRY:
                raise
            if isinstance(err, ProgressConflict) and self.next:
                self.claim(list(self.next))
            return True  # a deadlock: again

    def fold(self, *, decide: bool) -> None:
        """One fetch of every partition that is ours; its marks, or those of others, wait for whoever decides."""
        batches = self._fetched()
        if not batches:
            return
        try:
            if decide:
                self.worker.apply(batches)
            else:
                self.worker.folding.fold(batches)
        except ProgressConflict:  # evidence was withdrawn: everybody claims again
            self.claim(list(self.next))
        else:
            self.next |= {each.partition: each.end for each in batches}

    def _fetched(self) -> list[Fetched]:
        found = []
        for partition, start in self.next.items():
            records = self._log.read(partition, start, self.batch)
            if records:
                found.append(Fetched(partition, start, records[-1].offset + 1, records, None))
        return found

    def close(self) -> None:
        for each in (self._store, self._control, self._log, self._rebuild):
            each.close()


@contextmanager
def pumps(world: World, count: int, batch: int = 200) -> Iterator[list[Pump]]:
    made = [Pump(world, number, batch) for number in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.close()


def run_all(pumps: Sequence[Pump], done: Callable[[], bool]) -> None:
    """Each in a thread of its own, until `done` and all are idle."""
    failures: list[BaseException] = []
    stop = threading.Event()

    def run(pump: Pump) -> None:
        idle = 0
        try:
            while not stop.is_set() and idle < 20:
                if pump.step():
                    idle = 0
                elif done():
                    idle += 1
                else:
                    stop.wait(0.01)
        except BaseException as err:
            failures.append(err)
            stop.set()

    threads = [threading.Thread(target=run, args=(pump,)) for pump in pumps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "a worker never came to rest"
    if failures:
        raise failures[0]


def crowd(rng: Random, count: int, people: int) -> list[Record]:
    """Customers seen under several identifiers, so that their signatures lie in several partitions; some shared."""
    batch = rng.randrange(10**9)
    kinds = ("user_id", "email", "phone", "device_id", "anonymous_id")
    found = []
    for number in range(count):
        person = rng.randrange(people)
        ids = [(kind, f"{kind}{person}-{rng.randrange(2)}") for kind in rng.sample(kinds, rng.randint(1, 3))]
        if rng.random() < 0.03:
            ids = [each for each in ids if each[0] != "device_id"] + [("device_id", f"kiosk{rng.randrange(3)}")]
        at = START + timedelta(minutes=rng.randrange(40_000))
        if rng.random() < 0.5:
            found.append(purchase(ids, f"o{batch}-{number}", f"{rng.randrange(1, 90)}.00", at))
        else:
            found.append(record(ids, f"m{batch}-{number}", at=at, received_after=timedelta(minutes=rng.randrange(60))))
        if rng.random() < 0.03:
            found.append(found[-1])
    return found


def folded(world: World) -> Callable[[], bool]:
    ends = sum(world.services.log.ends())

    def done() -> bool:
        with closing(PostgresControl(world.databases.main)) as control:  # asked by every worker's thread
            live = control.live().revision
            return (
                control.building() is None
                and sum(each.next_offset for each in control.progress(live)) == ends
                and control.open_work(live) == 0
            )

    return done


def check_all(world: World) -> None:
    """The functional state is what a rebuild makes; the feed's versions have no hole and end as the tables say."""
    verdict = world.check()
    assert verdict.equal, verdict.differences[:5]
    holes = world.query(
        "select profile_id, count(*), min(version), max(version) from changes group by 1"
        " having count(*) <> max(version) or min(version) <> 1"
    )
    assert holes == []
    order = world.query(
        "select c.profile_id from (select profile_id, version, lag(version) over (partition by profile_id"
        " order by b.seq, idx) was from changes join feed_batches b using (batch)) c where was is not null"
        " and version <> was + 1"
    )
    assert order == []
    sizes = world.query(
        "select (select count(*) from (select profile_id, name from changes where type = 'segment' and not exists"
        " (select from changes e where e.profile_id = changes.profile_id and e.name = 'merged_into'"
        " and e.version > changes.version) group by 1, 2 having"
        " sum(case when new = 'true' then 1 else -1 end) = 1) s) - (select count(*) from memberships_r1)"
    )
    assert sizes == [(0,)]


@pytest.mark.parametrize("seed", [1, 2])
def test_two_workers_with_overlapping_customers_end_as_a_rebuild_does(databases: Databases, seed: int) -> None:
    world = new_world(databases)
    rng = Random(seed)
    with pumps(world, 2) as (one, two):
        one.claim([0, 2])
        two.claim([1, 3])
        for _ in range(3):
            world.send(*crowd(rng, 700, 60))
            run_all([one, two], folded(world))
            world.clock.at += timedelta(days=rng.choice([0, 3, 40]))
        run_all([one, two], folded(world))
    check_all(world)


def test_workers_without_a_partition_decide_what_others_marked(databases: Databases) -> None:
    world = new_world(databases)
    world.send(*crowd(Random(5), 600, 50))
    with pumps(world, 6) as all_:
        for number in PARTITIONS:
            all_[number].claim([number])
        run_all(all_, folded(world))
    check_all(world)


def test_a_partition_that_was_claimed_by_another_is_folded_by_that_one_alone(databases: Databases) -> None:
    world = new_world(databases)
    world.send(*crowd(Random(7), 300, 30))
    with pumps(world, 2, batch=50) as (one, two):
        one.claim(list(PARTITIONS))
        assert one.step()
        two.claim(list(PARTITIONS))  # as after a rebalance that the first has not heard of
        stale = [Fetched(0, one.next[0], one.next[0] + 1, two._log.read(0, one.next[0], 1), None)]
        with pytest.raises(ProgressConflict):
            one.worker.apply(stale)
        one.next.clear()
        run_all([two], folded(world))
    check_all(world)


def test_definitions_change_while_several_workers_fold(databases: Databases) -> None:
    world = new_world(databases)
    rng = Random(9)
    world.send(*crowd(rng, 500, 50))
    with pumps(world, 3) as all_:
        for number, pump in enumerate(all_):
            pump.claim([partition for partition in PARTITIONS if partition % 3 == number])
        run_all(all_, folded(world))
        text = (
            "segments:\n  buyers_of_many:\n    description: more than two orders\n"
            "    when: {trait: lifetime_orders, op: gt, value: 2}\n"
        )
        apply_files(world.services.control, [("more.yaml", text)], world.clock.now())
        world.send(*crowd(rng, 900, 50))
        run_all(all_, folded(world))
        assert world.services.control.live().revision == 2
        start_rebuild(world.services.control, world.clock.now())
        world.send(*crowd(rng, 600, 60))
        run_all(all_, folded(world))
        assert world.services.control.live().revision == 3
    verdict = world.check()
    assert verdict.equal, verdict.differences[:5]


def counted_twice(world: World) -> list[object]:
    """Profiles with more events than their signatures' states: a later sum would hide it.

    None while an event that was taken back waits for its profile's decision.
    """
    if world.query("select from marks where kind <> 'fold'"):
        return []
    fold = world.worker.compiled.fold
    rows = world.query(
        "select p.profile_id, p.event_count, array_agg(s.state) from profiles_r1 p join evidence e using (profile_id)"
        " join states_r1 s using (signature) group by 1, 2"
    )
    found: list[object] = []
    for profile_id, count, states in rows:
        assert isinstance(states, list)
        if int(str(count)) > sum(fold.unpack(bytes(state))[EVENT_COUNT] for state in states):
            found.append(profile_id)
    return found


def visits(rng: Random, count: int) -> list[Record]:
    """Of customers who are known by several identifiers, under one at a time: from several partitions."""
    found = []
    for _ in range(count):
        person, at = rng.randrange(8), START + timedelta(minutes=rng.randrange(40_000))
        ids = [("user_id", f"user_id{person}-0"), ("email", f"email{person}-0"), ("phone", f"phone{person}-0")]
        seen = ids if rng.random() < 0.1 else [rng.choice(ids)]
        found.append(record(seen, f"v{rng.randrange(10**12)}", at=at))
    return found


def reusing(rng: Random) -> list[Record]:
    """Message ids that were used for somebody else, received in any order."""
    at = START + timedelta(minutes=rng.randrange(40_000))
    return [record([("user_id", f"user_id{rng.randrange(8)}-0")], f"again{rng.randrange(12)}", at=at)]


def interleaved(databases: Databases, seed: int) -> int:
    """Three workers, step by step in a drawn order, runs of DECIDE that leave marks; returns how many profiles grew."""
    world = new_world(databases)
    rng = Random(seed)
    grew = 0

    def noting(pump: Pump) -> None:
        nonlocal grew
        decider = pump.worker.deciding.decider
        assert decider is not None
        grow = decider._grown_states

        def noted(*arguments: Any) -> Any:
            nonlocal grew
            found = grow(*arguments)
            grew += len(found[0])
            return found

        decider._grown_states = noted  # type: ignore[assignment, method-assign]
        decider.run = partial(_with_few_marks, decider.run, rng)  # type: ignore[method-assign]

    with pumps(world, 3, batch=15) as all_:
        for number, pump in enumerate(all_):
            pump.claim([partition for partition in PARTITIONS if partition % 3 == number])
            noting(pump)
        for _ in range(40):
            world.send(*visits(rng, rng.choice([1, 5, 20])))
            if rng.random() < 0.15:
                world.send(*crowd(rng, 2, 8), *reusing(rng))
            for _ in range(rng.randrange(6)):
                pump = rng.choice(all_)
                pump.step() if rng.random() < 0.3 else pump.fold(decide=rng.random() < 0.6)
                assert counted_twice(world) == []
            if rng.random() < 0.1:
                world.clock.at += timedelta(days=rng.choice([1, 40]))
            if rng.random() < 0.1:  # partitions change hands
                shift = rng.randrange(3)
                for number, pump in enumerate(all_):
                    pump.next.clear()
                    pump.claim([partition for partition in PARTITIONS if (partition + shift) % 3 == number])
        run_all(all_, folded(world))
    check_all(world)
    assert states_differ(world) == []
    return grew


def _with_few_marks(run: Callable[..., Outcome], rng: Random, watermark_us: int, **more: Any) -> Outcome:
    few = {"items": 0} if more.get("items") == 0 else {"items": rng.choice([1, 2, 64])}
    return run(watermark_us, **more | few)


@pytest.mark.parametrize("seed", range(4))
def test_profiles_that_grow_beside_others_hold_every_event_once(databases: Databases, seed: int) -> None:
    grew = interleaved(databases, seed)
    assert grew > 3, f"{grew}: the short way was hardly gone"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_more_profiles_that_grow_beside_others(databases: Databases, seed: int) -> None:
    interleaved(databases, seed)


def test_who_resolves_what_is_connected_says_that_it_is_alive(databases: Databases) -> None:
    world = new_world(databases)
    told = []
    with pumps(world, 1) as (pump,):
        pump.worker.watched_by(lambda: told.append(1))
        pump.claim(list(PARTITIONS))
        world.send(record([("user_id", "ada"), ("anonymous_id", "a1")], "m1"))
        run_all([pump], folded(world))
        assert not told, "the short way takes no time"
        earlier = START - timedelta(days=1)
        world.send(record([("anonymous_id", "a1"), ("email", "ada@x")], "m2", at=earlier))
        world.query(
            "insert into marks (revision, shard, kind, signatures, newest_us, newest_events) select 1, 0,"
            " 'identity', array_agg(signature), array_agg(0), array_agg(signature) from evidence returning 1"
        )
        run_all([pump], folded(world))
    assert told
    check_all(world)


def test_who_resigns_lets_the_next_build_at_once(world: World) -> None:
    """A command that drains the log in one process, twice: the second builds what came between, too."""
    control, now = world.services.control, world.clock.now()
    made = []
    for expected in (2, 3):
        start_rebuild(control, now)
        builder = Builder(world.services, PostgresRebuild(world.databases.main))
        feeder = LogFeeder(Worker(world.services, builder, shared=True))
        made.append(feeder)  # the first one and its connections are still there when the second builds
        while feeder.step():
            pass
        builder.resign()
        assert control.live().revision == expected


def test_a_second_worker_under_one_name_refuses_and_may_have_it_when_the_first_is_gone(databases: Databases) -> None:
    with closing(PostgresStore(databases.main)) as one, closing(PostgresStore(databases.main)) as two:
        for _ in range(2):  # at the start, and again with each claim
            check_name(one, "w-0")
        check_name(two, "w-1")
        with pytest.raises(ServiceFailed, match=r"is already running under the name w-0.*TOUCHFOLD_WORKER_ID"):
            check_name(two, "w-0")
        one.close()
        await_name(two, "w-0", threading.Event())
