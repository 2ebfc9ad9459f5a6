"""A profile that grew by its new events alone is the profile summed anew: states, decisions and feed."""

from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, TypeVar

import pytest

from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.rebuild import PostgresRebuild
from processors.live.decide_batch import Outcome
from processors.live.delta_cache import DeltaCache
from processors.live.feeder import LogFeeder
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from projections.fold.state import ORDER_CAP, State
from schemas.record import Record, to_us
from schemas.store import DecideTx
from schemas.store_rows import NO_EVENT, NewWorkItem
from tests.conftest import new_databases
from tests.integration.test_fold_decide import World, new_world
from tests.records import START, purchase, record, token

Step = Callable[[World], None]
PEOPLE = 6


def records_of(rng: Random, first: int, count: int) -> list[Record]:
    """Visits, orders, returns, complaints and logins of a few people, late ones among them."""
    found = []
    for number in range(first, first + count):
        person = rng.randrange(PEOPLE)
        visitor, user = ("anonymous_id", f"a{person}-{rng.randrange(3)}"), ("user_id", f"u{person}")
        ids = rng.choice([[visitor], [user], [user], [user, visitor], [user, ("email", f"e{rng.randrange(8)}")]])
        at = START + timedelta(minutes=number * 90 - rng.choice((0, 0, 0, 5_000, 200_000)))
        order = f"o{rng.randrange(max(1, number // 2))}"
        kind = rng.randrange(8)
        if kind < 3:
            amount = f"{rng.randrange(100, 40_000) / 100:.2f}"
            found.append(purchase(ids, order, amount, at, message_id=f"m{number}"))
        elif kind == 3:
            values = {"order_id": order, "revenue": "5.00", "currency": "USD"}
            found.append(record(ids, f"m{number}", type_="order.refunded", at=at, properties=values))
        elif kind == 4:
            type_ = rng.choice(["complaint.opened", "complaint.resolved"])
            found.append(record(ids, f"m{number}", type_=type_, at=at, properties={"complaint_id": f"c{number // 4}"}))
        elif kind == 5:
            if rng.random() < 0.4:
                kept = {"city": "Bern"} if rng.random() < 0.7 else {}
                found.append(record(ids, f"c{number}", type_="trait.corrected", at=at, traits=kept, name="city"))
            traits = {"city": rng.choice(["Graz", "Linz"]), "plan": None if rng.random() < 0.3 else number}
            found.append(record(ids, f"m{number}", type_="profile.identified", at=at, traits=traits))
        else:
            found.append(record(ids, f"m{number}", at=at))
        if rng.random() < 0.1:
            found.append(found[-1])
    return found


def steps_of(seed: int) -> list[Step]:
    """What happens, in order; the same in every world."""
    rng = Random(seed)
    steps: list[Step] = []
    sent = 0
    for _ in range(25):
        kind = rng.randrange(10)
        if kind < 6:
            batch = records_of(rng, sent, rng.choice((1, 3, 20)))
            sent += len(batch)
            steps.append(lambda world, batch=batch: world.send(*batch))  # type: ignore[misc]
            steps.append(_settle if rng.random() < 0.6 else _fold_only)
        elif kind == 6:
            days = rng.choice((1, 20, 60))
            steps.append(lambda world, days=days: _later(world, days))  # type: ignore[misc]
        elif kind == 7:
            steps.append(_refold_everybody)
        elif kind == 8:
            steps.append(_decide_somebody_anew)
        else:
            steps.append(_restart)
    return [*steps, _settle]


def _settle(world: World) -> None:
    world.settle()


def _fold_only(world: World) -> None:
    """One FOLD whose marks wait for a later DECIDE."""
    decide = world.worker.deciding.run
    world.worker.deciding.run = lambda *_, **__: False  # type: ignore[method-assign]
    world.feeder.fold(to_us(world.clock.now()))
    world.worker.deciding.run = decide  # type: ignore[method-assign]


def _later(world: World, days: int) -> None:
    world.clock.at += timedelta(days=days)
    world.settle()


def _refold_everybody(world: World) -> None:
    _mark(world, "refold", [row[0] for row in world.query("select signature from evidence order by 1")])
    world.settle()


def _decide_somebody_anew(world: World) -> None:
    """Another mark for signatures whose events may wait: the long way, and no event twice after it."""
    found = world.query("select signature from evidence order by 1 limit 5")
    _mark(world, "decide", [row[0] for row in found])


def _mark(world: World, kind: str, identifier_sets: list[object]) -> None:
    if identifier_sets:
        newest = {
            identifier_set: (0, NO_EVENT) for identifier_set in identifier_sets if isinstance(identifier_set, bytes)
        }
        with world.services.store.decide() as tx:
            tx.add_work([NewWorkItem(1, 0, kind, newest)])


def _restart(world: World) -> None:
    world.feeder = LogFeeder(Worker(world.services, Builder(world.services, PostgresRebuild(world.databases.main))))
    prepare(world)


class LongWay(World):
    """A world whose profiles are always summed anew."""


class FewMarks(World):
    """A world whose runs take few marks, so that some wait while others of the same profile are decided."""


def _few(run: Callable[..., Outcome], watermark_us: int, **more: Any) -> Outcome:
    return run(watermark_us, **more | {"items": min(3, more["items"])})


def prepare(world: World) -> None:
    """What is special about a world, at every start of its worker."""
    live = world.worker
    assert live.compiled is not None
    folder, decider = live.folding.folder, live.deciding.decider
    assert folder is not None
    assert decider is not None
    if isinstance(world, FewMarks):
        decider.run = partial(_few, decider.run)  # type: ignore[method-assign]
    if isinstance(world, LongWay):
        folder.deltas = decider.deltas = None


W = TypeVar("W", bound=World)


def made(server: EmbeddedPostgres, kind: type[W], order_cap: int | None = ORDER_CAP) -> W:
    plain = new_world(new_databases(server), order_cap)
    world = kind(plain.databases, plain.clock, plain.services, plain.feeder)
    prepare(world)
    return world


def states_differ(world: World) -> list[object]:
    """Profiles whose stored state is not the sum of their signatures' states."""
    compiled = world.worker.compiled
    fold, revision = compiled.fold, compiled.revision.revision
    at_us = to_us(START + timedelta(days=40_000))  # all that a clock may prune is pruned
    wrong: list[object] = []
    for profile_id, stored in world.query(f"select profile_id, state from profiles_r{revision}"):
        assert isinstance(profile_id, bytes)
        assert isinstance(stored, memoryview)
        rows = world.query(
            f"select s.state from states_r{revision} s join evidence e using (signature)"
            f" where e.profile_id = '{profile_id.hex()}'"
        )
        summed = fold.merge([fold.unpack(bytes(row[0])) for row in rows if isinstance(row[0], memoryview)])
        if fold.canonical(summed, at_us) != fold.canonical(fold.unpack(bytes(stored)), at_us):
            wrong.append(profile_id)
    return wrong


def feed(world: World) -> list[tuple[object, ...]]:
    return world.query(
        "select profile_id, version, type, name, old, new, at_us, cause, cause_event from changes order by 1, 2"
    )


def same_as_summed(server: EmbeddedPostgres, seed: int) -> None:
    grown, summed = made(server, World), made(server, LongWay)
    for step in steps_of(seed):
        step(grown)
        step(summed)
    assert grown.query("select count(*) from profiles_r1") != [(0,)]
    assert states_differ(grown) == []
    assert feed(grown) == feed(summed)
    assert grown.check().equal


def sum_of_events(server: EmbeddedPostgres, seed: int) -> None:
    world = made(server, FewMarks)
    for step in steps_of(seed):
        step(world)
    assert states_differ(world) == []
    assert world.check().equal


@pytest.mark.parametrize("seed", range(4))
def test_the_short_way_and_the_long_way_say_the_same(server: EmbeddedPostgres, seed: int) -> None:
    same_as_summed(server, seed)


@pytest.mark.parametrize("seed", range(6))
def test_no_event_is_lost_or_doubled_where_marks_wait(server: EmbeddedPostgres, seed: int) -> None:
    sum_of_events(server, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_more_histories(server: EmbeddedPostgres, seed: int) -> None:
    same_as_summed(server, seed)
    sum_of_events(server, seed)


def test_most_profiles_of_a_known_customer_do_grow(server: EmbeddedPostgres) -> None:
    world = new_world(new_databases(server))
    world.send(record([("user_id", "ada")], "m1"))
    world.settle()
    read: list[object] = []
    decider = world.worker.deciding.decider
    assert decider is not None
    summed = decider._states

    def noted(
        tx: DecideTx, profile_ids: Collection[bytes], wanted: Any, before: Any, watermark_us: int
    ) -> dict[bytes, State]:
        read.extend(profile_ids)
        return summed(tx, profile_ids, wanted, before, watermark_us)

    decider._states = noted  # type: ignore[method-assign]
    world.send(record([("user_id", "ada")], "m2"), record([("user_id", "bob")], "m3"))
    world.settle()
    assert read == [token("user_id", "bob")]
    assert world.query("select event_count from profiles_r1 order by 1 desc") == [(2,), (1,)]


def test_a_mark_whose_signature_was_summed_anew_has_no_delta() -> None:
    deltas = DeltaCache()
    deltas.add([(1, {b"s": []}), (2, {b"t": []})])
    deltas.spoil([b"s"])
    assert deltas.of(1, [b"s"]) is None
    assert deltas.of(2, [b"t"]) == {b"t": []}
    deltas.decided([1, 2])
    deltas.add([(3, {b"s": []})])
    assert deltas.of(3, [b"s"]) == {b"s": []}
