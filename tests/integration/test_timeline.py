"""A long timeline: each page exact whatever came late, without reading all of it."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random

import pytest

from query.people import timeline
from schemas.record import Stored
from tests.conftest import Databases
from tests.reading_world import NOW, ReadingWorld, reading_world

EVENTS = timeline.SHORT + 300
DEVICES = [("anonymous_id", f"device-{number}") for number in range(3)]
ADA = ("user_id", "ada")
TYPES = ("web.page_viewed", "web.page_viewed", "purchase.completed", "email.opened")
Sent = tuple[tuple[datetime, datetime], str, str]  # ((occurred at, received at), id, type)


@pytest.fixture(params=[False, True], ids=["ordered-by-sql", "ordered-from-the-log"])
def world(databases: Databases, request: pytest.FixtureRequest) -> Iterator[ReadingWorld]:
    with reading_world(databases, remote=request.param) as world:
        yield world


def send(world: ReadingWorld, count: int, rng: Random) -> list[Sent]:
    """Events over the last 20 days as they came; every seventh happened up to nine days earlier, some at once."""
    sent = []
    for number in range(count):
        received = NOW - timedelta(days=20) + number * timedelta(days=20) / count
        late = rng.choice((0, 3_600, 9 * 86_400)) * rng.random() if number % 7 == 0 else 0.0
        at = (received - timedelta(seconds=late)).replace(minute=0, second=0, microsecond=number % 2 * 500_000)
        type_ = rng.choice(TYPES)
        ids = [rng.choice(DEVICES)] if number else [ADA, *DEVICES]
        sent.append(((at, received), world.send(ids, type_=type_, at=at, received_at=received), type_))
    world.settle()
    return sent


def pages(world: ReadingWorld, profile_id: bytes, limit: int, types: frozenset[str] | None = None) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = world.reading.timeline.page(profile_id, cursor, limit, personal=False, types=types)
        found += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            return found


def test_every_page_of_a_long_timeline_is_in_the_order_of_occurrence(world: ReadingWorld) -> None:
    sent = send(world, EVENTS, Random(4))
    (ada,) = world.reading.reads.owners(world.vault.tokens([ADA]))
    newest_first = sorted(sent, reverse=True)
    assert pages(world, ada, 97) == [id_ for _, id_, _ in newest_first]
    for types in (frozenset({"purchase.completed"}), frozenset({"email.opened", "web.page_viewed"}), frozenset({"x"})):
        assert pages(world, ada, 200, types) == [id_ for _, id_, type_ in newest_first if type_ in types]


def test_the_first_page_reads_only_the_last_records(world: ReadingWorld) -> None:
    sent = send(world, EVENTS, Random(5))
    (ada,) = world.reading.reads.owners(world.vault.tokens([ADA]))
    read: list[Stored] = []
    fetch = world.reading.log.fetch
    world.reading.log.fetch = lambda positions: read.extend(fetch(positions)) or read  # type: ignore[method-assign,func-returns-value]
    found = world.reading.timeline.page(ada, None, 50, personal=False)["items"]
    assert [item["id"] for item in found] == [id_ for _, id_, _ in sorted(sent, reverse=True)[:50]]
    assert len(read) <= 4 * timeline.DEPTH


def test_an_event_that_waited_long_before_it_was_received_is_where_it_occurred(world: ReadingWorld) -> None:
    early = world.send([ADA], at=NOW - timedelta(days=300), received_at=NOW - timedelta(days=299))
    newest = world.send([ADA], at=NOW - timedelta(days=1))
    last = world.send([ADA], at=NOW - timedelta(days=301), received_at=NOW)
    world.settle()
    (ada,) = world.reading.reads.owners(world.vault.tokens([ADA]))
    assert pages(world, ada, 1) == [newest, early, last]
