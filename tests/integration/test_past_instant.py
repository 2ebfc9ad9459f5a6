"""A deployment whose clock of decisions is set to a past instant decides as of that instant, whoever folds."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from infra.adapters.postgres.rebuild import PostgresRebuild
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from schemas.record import Record, to_us
from schemas.work import Fetched
from tests.conftest import Databases
from tests.integration.test_fold_decide import World, new_world
from tests.records import purchase

YEARS = timedelta(days=700)  # from the cut to the receipt: by then everybody has lapsed
PEOPLE = 100  # each partition has more records than one batch


def _history(world: World) -> list[Record]:
    """Of each a purchase long before the cut and one 10 days before it, all received two years later."""
    cut = world.clock.now()
    return [
        purchase([("user_id", f"u{number}")], f"o{number}-{days}", "20.00", at, received_after=cut + YEARS - at)
        for number in range(PEOPLE)
        for days in (90, 10)
        for at in (cut - timedelta(days=days),)
    ]


def _embedded(world: World) -> None:
    world.feeder.batch = 2  # always behind: the watermark comes of the next record
    world.settle()


def _shared(world: World) -> None:
    worker = Worker(world.services, Builder(world.services, PostgresRebuild(world.databases.main)), shared=True)
    log = world.services.log
    for partition, start in worker.claim(range(log.partitions)).items():
        records = log.read(partition, start, 1_000)
        worker.apply([Fetched(partition, start, start + len(records), records, None)])  # more waits behind it
    while worker.idle({}):
        pass


@pytest.mark.parametrize("fold", [_embedded, _shared])
def test_customers_of_ten_days_before_the_cut_have_not_lapsed_at_the_cut(
    databases: Databases, fold: Callable[[World], None]
) -> None:
    world = new_world(databases)
    world.send(*_history(world))
    fold(world)
    stages = world.query("select lifecycle, count(*) from profiles_r1 group by 1")
    assert stages == [("repeat", PEOPLE)]  # the pack's word for who is active and bought twice
    cut_us = to_us(world.clock.now())
    assert world.query(f"select count(*) from progress where watermark_us > {cut_us}") == [(0,)]
    assert world.query(f"select count(*) from profiles_r1 where decided_us > {cut_us}") == [(0,)]
    assert world.check().equal
