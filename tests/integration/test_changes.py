"""The change feed for readers: in order, whole, once, and soon; whatever order batches commit in."""

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

from infra.adapters.postgres.feed_notifier import FeedNotifier
from infra.adapters.postgres.reads import PostgresReads
from infra.adapters.postgres.store import PostgresStore
from query.changes import Changes
from query.cursors import END_OF_BATCH, FeedPlace, feed_cursor
from tests.api_server import ApiServer
from tests.conftest import Databases
from tests.reading_world import ReadingWorld

WAIT_S = 30.0  # how long a test waits before it calls something lost


class Batch:
    """A batch of the feed in a transaction of its own, open until `commit`."""

    def __init__(self, dsn: str, names: list[str], type_: str = "segment") -> None:
        self._connection = psycopg2.connect(dsn)
        with self._connection.cursor() as cursor:
            cursor.execute("insert into feed_batches default values returning batch")
            ((batch,),) = cursor.fetchall()
            for idx, name in enumerate(names):
                cursor.execute(
                    "insert into changes (batch, idx, id, type, profile_id, version, name, old, new, at_us, cause)"
                    " values (%s, %s, %s::uuid, %s, %s::uuid, 1, %s, 'false', 'true', 0, 'timer')",
                    (batch, idx, str(uuid4()), type_, str(uuid4()), name),
                )

    def commit(self) -> None:
        self._connection.commit()
        self._connection.close()


class Feed:
    """A feed without deciders: batches by hand, the product's sequencer and reader."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.store = PostgresStore(dsn)
        self.reads = PostgresReads(dsn)
        self.changes = Changes(self.reads)
        self.notifier = FeedNotifier(dsn)

    def add(self, *names: str, type_: str = "segment") -> None:
        Batch(self.dsn, list(names), type_).commit()
        self.store.number_feed()

    def names(self, after: str | None = None, limit: int = 100, types: tuple[str, ...] = ()) -> list[str]:
        return [item["name"] for item in self.changes.page(after, limit, types).items]

    def close(self) -> None:
        self.notifier.close()
        self.reads.close()
        self.store.close()


@pytest.fixture
def feed(databases: Databases) -> Iterator[Feed]:
    feed = Feed(databases.main)
    yield feed
    feed.close()


def test_a_batch_that_commits_late_comes_after_what_was_read_before(feed: Feed) -> None:
    late = Batch(feed.dsn, ["late 1", "late 2"])
    feed.add("early")
    page = feed.changes.page(None, 10)
    assert [item["name"] for item in page.items] == ["early"]
    late.commit()
    assert feed.names(page.next) == []  # not numbered yet: nobody sees it
    feed.store.number_feed()
    assert feed.names(page.next) == ["late 1", "late 2"]
    assert feed.names() == ["early", "late 1", "late 2"]


def test_every_change_is_read_once_while_batches_commit_in_any_order(feed: Feed) -> None:
    random = Random(7)
    done = threading.Event()
    written: list[str] = []

    def write(writer: int) -> None:
        chance = Random(writer)
        held: list[Batch] = []
        for number in range(25):
            names = [f"{writer}.{number}.{place}" for place in range(chance.randint(1, 4))]
            written.extend(names)
            held.append(Batch(feed.dsn, names))
            if len(held) > 3:
                held.pop(chance.randrange(len(held))).commit()
        while held:
            held.pop(chance.randrange(len(held))).commit()

    def number() -> None:
        store = PostgresStore(feed.dsn)
        while not done.is_set():
            store.number_feed()
        store.number_feed()
        store.close()

    with ThreadPoolExecutor(4) as pool:
        numbering = pool.submit(number)
        writing = [pool.submit(write, writer) for writer in range(3)]
        seen: list[str] = []
        cursor: str | None = None
        while not all(each.done() for each in writing):
            page = feed.changes.page(cursor, random.randint(1, 7))
            seen += [item["name"] for item in page.items]
            cursor = page.next
        done.set()
        numbering.result()
        for each in writing:
            each.result()
    while items := feed.changes.page(cursor, 5).items:
        seen += [item["name"] for item in items]
        cursor = items[-1]["cursor"]
    assert len(seen) == len(set(seen))
    assert set(seen) == set(written)
    assert seen == feed.names(limit=1_000)  # what a reader saw live is what the feed says ever after


def test_pages_of_any_size_give_the_same_feed(feed: Feed) -> None:
    feed.add("a", "b", "c")
    feed.add("d")
    feed.add("e", "f")
    for limit in range(1, 8):
        seen, cursor = [], None
        while (page := feed.changes.page(cursor, limit)).items:
            seen += [item["name"] for item in page.items]
            cursor = page.next
        assert seen == list("abcdef")


def test_each_change_carries_the_cursor_that_goes_on_after_it(feed: Feed) -> None:
    feed.add("a", "b")
    feed.add("c")
    items = feed.changes.page(None, 10).items
    for place, item in enumerate(items):
        assert feed.names(item["cursor"]) == ["a", "b", "c"][place + 1 :]


def test_a_reader_of_one_type_moves_on_past_all_others(feed: Feed) -> None:
    feed.add("a", "b", type_="risk")
    feed.add("c", type_="segment")
    feed.add("d", type_="risk")
    assert feed.names(types=("segment",)) == ["c"]
    assert feed.names(types=("segment", "risk")) == ["a", "b", "c", "d"]
    page = feed.changes.page(None, 10, ("lifecycle",))
    assert (page.items, page.next) == ([], feed_cursor(FeedPlace(3, END_OF_BATCH)))
    assert feed.names(page.next) == []


def test_a_cursor_of_the_future_waits_there(feed: Feed) -> None:
    feed.add("a")
    ahead = feed_cursor(FeedPlace(9, 0))
    page = feed.changes.page(ahead, 10)
    assert (page.items, page.next) == ([], ahead)


def count(notifier: FeedNotifier, seen: int) -> None:
    assert notifier.wait(seen, WAIT_S), "the bell did not ring"


def test_the_bell_rings_for_numbered_changes_with_and_without_a_notification(feed: Feed) -> None:
    count(feed.notifier, 0)  # its first look
    seen = feed.notifier.count
    feed.add("a")
    count(feed.notifier, seen)
    seen = feed.notifier.count
    Batch(feed.dsn, ["b"]).commit()
    with psycopg2.connect(feed.dsn) as connection, connection.cursor() as cursor:
        cursor.execute("update feed_batches set seq = 2 where seq is null")  # as if the notification were lost
    connection.close()
    count(feed.notifier, seen)
    assert feed.names() == ["a", "b"]


def test_the_bell_rings_again_after_its_connection_was_lost(feed: Feed) -> None:
    count(feed.notifier, 0)
    seen = feed.notifier.count
    with psycopg2.connect(feed.dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like %s", ("%bell",)
        )
        assert cursor.fetchall()
    connection.close()
    feed.add("a")
    count(feed.notifier, seen)


def test_a_follower_gets_what_is_there_and_what_comes(feed: Feed) -> None:
    feed.add("a")
    pages = feed.changes.follow(feed.notifier, None)
    assert [item["name"] for item in next(pages).items] == ["a"]
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pages)
        feed.add("b", "c")
        assert [item["name"] for item in coming.result(WAIT_S).items] == ["b", "c"]


# --- over HTTP, of real decisions ---------------------------------------------------------------------------------

ADA = [("user_id", "ada"), ("email", "ada@example.com")]


def test_a_change_has_exactly_the_fields_of_the_contract(world: ReadingWorld, client: ApiServer) -> None:
    event = world.send(ADA, type_="profile.identified", traits={"city": "London"}, sealed={"traits": {"name": "Ada"}})
    order = world.purchase(ADA, "o1", "20.00")
    world.settle()
    answer = client.get("/changes?limit=1000")
    assert answer.status == 200
    assert answer.body.keys() == {"items", "next"}
    items = answer.body["items"]
    for item in items:
        assert list(item) == [
            *("id", "type", "profile_id", "version", "name", "old", "new", "at", "cursor", "cause"),
        ]
        assert item["cause"].keys() == {"kind", "event_id", "definition_version"}
        assert item["at"].endswith("Z")
    owner = client.get("/profiles/user_id/ada").body["id"]
    assert {item["profile_id"] for item in items} == {owner}
    assert [item["version"] for item in items] == list(range(1, len(items) + 1))
    (city,) = [item for item in items if item["name"] == "city"]
    assert (city["type"], city["old"], city["new"]) == ("profile", None, "London")
    (name,) = [item for item in items if item["name"] == "name"]
    assert (name["old"], name["new"]) == (None, {"personal": True})
    assert {item["cause"]["kind"] for item in items} == {"event"}
    assert {item["cause"]["event_id"] for item in items} <= {event, order}
    assert {item["type"] for item in items} >= {"profile", "segment", "lifecycle"}
    only = client.get("/changes?type=segment,lifecycle").body["items"]
    assert only == [item for item in items if item["type"] in {"segment", "lifecycle"}]
    assert client.get("/changes?type=segment&type=lifecycle").body["items"] == only
    assert client.get(f"/changes?after={answer.body['next']}").body == {"items": [], "next": answer.body["next"]}


def test_a_long_poll_wakes_when_something_changes(world: ReadingWorld, client: ApiServer) -> None:
    start = client.get("/changes").body["next"]
    with ThreadPoolExecutor(12) as pool:  # more than the API has threads: a waiting poll holds none
        waiting = [pool.submit(client.get, f"/changes?after={start}&wait_s=60") for _ in range(12)]
        assert client.get("/segments").status == 200
        world.purchase(ADA, "o1", "20.00")
        world.settle()
        for each in waiting:
            answer = each.result(WAIT_S)  # half of what the poll would wait
            assert answer.body["items"]


def test_a_long_poll_that_hears_nothing_answers_empty_with_a_cursor_to_go_on(
    world: ReadingWorld, client: ApiServer
) -> None:
    answer = client.get("/changes?wait_s=0.3").body
    assert answer["items"] == []
    world.purchase(ADA, "o1", "20.00")
    world.settle()
    assert client.get(f"/changes?after={answer['next']}").body["items"]


class Stream:
    """A client of the stream that reads events one by one."""

    def __init__(
        self, client: ApiServer, query: str = "", headers: dict[str, str] | None = None, token: str = ""
    ) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=WAIT_S)
        headers = {"Authorization": f"Bearer {token or client.tokens['service']}", **(headers or {})}
        self._connection.request("GET", f"/api/v1/changes/stream{query}", headers=headers)
        self.response = self._connection.getresponse()

    def next(self) -> tuple[str, dict[str, Any]] | None:
        """(id, data) of the next event; None when the stream ended."""
        cursor = ""
        while line := self.response.readline().decode():
            if line.startswith("id: "):
                cursor = line[4:].strip()
            elif line.startswith("data: "):
                return cursor, json.loads(line[6:])
        return None

    def close(self) -> None:
        self._connection.close()


def test_the_stream_tells_what_was_and_what_comes_and_goes_on_after_a_reconnect(
    world: ReadingWorld, client: ApiServer
) -> None:
    world.purchase(ADA, "o1", "20.00")
    world.settle()
    before = client.get("/changes?limit=1000").body["items"]
    stream = Stream(client)
    assert stream.response.status == 200
    assert stream.response.headers["Content-Type"].startswith("text/event-stream")
    told = [stream.next() for _ in before]
    assert told == [(item["cursor"], item) for item in before]
    world.purchase(ADA, "o2", "30.00")
    world.settle()
    fresh = stream.next()
    stream.close()
    after = client.get(f"/changes?after={before[-1]['cursor']}").body["items"]
    assert fresh == (after[0]["cursor"], after[0])
    again = Stream(client, headers={"Last-Event-ID": before[-1]["cursor"]})
    assert again.next() == fresh
    again.close()
    only = Stream(client, "?type=lifecycle")
    first = only.next()
    only.close()
    assert first is not None
    assert first[1]["type"] == "lifecycle"


def test_a_stream_ends_when_its_token_is_revoked(
    world: ReadingWorld, client: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.drivers.http.api.changes.STREAM_QUIET_S", 0.05)
    name, token = client.api.tokens.create("service", world.clock.now())
    stream = Stream(client, token=token)
    assert stream.response.readline() == b"retry: 2000\n"
    client.api.tokens.revoke(name, world.clock.now())
    assert stream.next() is None
    stream.close()
