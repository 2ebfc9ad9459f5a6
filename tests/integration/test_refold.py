"""Making states again from the log: in bounded transactions that a crash does not lose, reading in whole batches."""

import pytest

from infra.adapters.postgres.fold import PostgresFold
from infra.adapters.postgres.rebuild import PostgresRebuild
from processors.erase import refold
from processors.live.feeder import LogFeeder
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from schemas.store_rows import NO_EVENT, NewWorkItem
from tests.conftest import Databases
from tests.integration.test_fold_decide import World, new_world
from tests.records import record

PEOPLE = 12


@pytest.fixture
def world(databases: Databases) -> World:
    world = new_world(databases)
    for person in range(PEOPLE):
        world.send(*(record([("user_id", f"u{person}")], f"m{person}-{number}") for number in range(3)))
    world.settle()
    return world


def mark_all(world: World) -> None:
    """One mark for everybody, over states that are wrong."""
    identifier_sets = [row[0] for row in world.query("select signature from evidence")]
    assert len(identifier_sets) == PEOPLE
    world.query("delete from states_r1 returning 1")
    with world.services.store.decide() as tx:
        tx.add_work([NewWorkItem(1, 0, "refold", {s: (0, NO_EVENT) for s in identifier_sets if isinstance(s, bytes)})])


def waiting(world: World) -> int:
    return world.services.control.open_refolds(1)


def test_a_long_refold_is_many_transactions_bounded_by_signatures_and_records(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_all(world)
    folder = world.worker.folding.folder
    assert folder is not None
    monkeypatch.setattr(refold, "SIGNATURES", 4)
    assert refold.refold_some(folder) == 4
    assert (waiting(world), world.query("select count(*) from states_r1")) == (PEOPLE - 4, [(4,)])
    monkeypatch.setattr(refold, "RECORDS", 7)  # three records each
    assert refold.refold_some(folder) == 2
    monkeypatch.setattr(refold, "RECORDS", 1)  # a single signature is never too large
    assert refold.refold_some(folder) == 1
    assert waiting(world) == PEOPLE - 7
    world.settle()
    assert waiting(world) == 0
    assert world.query("select count(*), sum(event_count) from profiles_r1") == [(PEOPLE, 3 * PEOPLE)]
    assert world.check().equal


def test_a_refold_that_breaks_off_is_taken_up_again_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mark_all(world)
    monkeypatch.setattr(refold, "SIGNATURES", 5)
    folder = world.worker.folding.folder
    assert folder is not None
    assert refold.refold_some(folder) == 5
    with monkeypatch.context() as patch:
        patch.setattr(PostgresFold, "save_states", _broken)
        with pytest.raises(RuntimeError, match="the power is out"):
            refold.refold_some(folder)
    assert waiting(world) == PEOPLE - 5
    world.feeder = LogFeeder(Worker(world.services, Builder(world.services, PostgresRebuild(world.databases.main))))
    world.settle()
    assert waiting(world) == 0
    assert world.check().equal


def _broken(*_: object) -> None:
    raise RuntimeError("the power is out")


def test_a_refold_asks_the_database_by_the_batch_and_not_by_the_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.send(*(record([("user_id", "u0")], f"more{number}") for number in range(200)))
    world.settle()
    mark_all(world)
    asked: list[int] = []
    erased = PostgresFold.erased

    def counted(tx: PostgresFold, tokens: set[bytes]) -> set[bytes]:
        asked.append(len(tokens))
        return erased(tx, tokens)

    monkeypatch.setattr(PostgresFold, "erased", counted)
    folder = world.worker.folding.folder
    assert folder is not None
    assert refold.refold_some(folder) == PEOPLE
    assert asked == [PEOPLE]
