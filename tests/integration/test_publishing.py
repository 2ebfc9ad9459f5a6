"""The change topics against a real broker and a real feed: everything, in order, under the same id, whatever dies."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.changes import KafkaChanges, check_granted
from infra.adapters.postgres.publishing import PostgresPublishing
from infra.app.erasing import eraser
from processors.feed.personal import PersonalValues
from processors.feed.publish import Publisher
from processors.live.compiled import Compiled
from processors.rebuild.definitions import apply_files, start_rebuild
from schemas.errors import ProgressConflict, SettingsInvalid, StoreUnavailable
from schemas.publishing import Message
from schemas.topics import PROFILE_CHANGES, PROFILES, SEGMENT_CHANGES
from tests.kafka_broker import Cluster, Kafka
from tests.reading_world import NOW, ReadingWorld
from tests.topics import CHANGES, Read, end, make_topics, read_topics, start_publisher

ROOT: Final = Path(__file__).parents[2]
WAIT_S: Final = 60.0
ADA: Final = [("user_id", "ada"), ("email", "ada@example.com")]


@pytest.fixture
def access(kafka: Kafka) -> KafkaAccess:
    return KafkaAccess(kafka.bootstrap, prefix=kafka.prefix(), insecure=True)


@pytest.fixture
def topics(access: KafkaAccess) -> KafkaAccess:
    make_topics(access)
    return access


@contextmanager
def publishing(
    world: ReadingWorld, access: KafkaAccess, *, batch: int = 5_000, granted: frozenset[str] = frozenset()
) -> Iterator[Publisher]:
    feed = PostgresPublishing(world.databases.main)

    def compile_(revision: int) -> Compiled:
        services = world.services
        return Compiled.of(services.control.revision(revision), services.time_zone, services.currency)

    personal = PersonalValues(granted, world.services.log, world.vault, world.vault) if granted else None
    with closing(feed), closing(Publisher(feed, KafkaChanges(access), compile_, world.clock, personal, batch)) as made:
        yield made


def publish_all(publisher: Publisher) -> int:
    done = 0
    while published := publisher.run_once():
        done += published
    return done


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"did not come in {WAIT_S:.0f} s: {what}"
        time.sleep(0.05)


def feed_of(world: ReadingWorld) -> list[dict[str, Any]]:
    """The API's feed, without its cursors."""
    found: list[dict[str, Any]] = []
    after = None
    while items := (page := world.reading.changes.page(after, 1_000)).items:
        found += [{key: value for key, value in item.items() if key != "cursor"} for item in items]
        after = page.next
    return found


def published(world: ReadingWorld) -> bool:
    """Whether the publisher's place is the end of the feed."""
    rows = world.execute(
        "select (select (seq, idx) from publishers) = (select (b.seq, c.idx) from changes c join feed_batches b"
        " using (batch) where b.seq is not null order by b.seq desc, c.idx desc limit 1)"
    )
    return bool(rows[0][0])


def firsts(messages: Sequence[Read]) -> list[Read]:
    """Without repeats."""
    seen: dict[str, Read] = {}
    for message in messages:
        seen.setdefault(message.value["id"], message)
    return list(seen.values())


def check_changes(world: ReadingWorld, access: KafkaAccess, *, repeats: bool = False) -> list[Read]:
    """The topics hold the feed: every change, unaltered, in order per profile; returns all messages of changes."""
    messages = read_topics(access, CHANGES)
    feed = {item["id"]: item for item in feed_of(world)}
    for message in messages:
        change = message.value
        assert change == feed[change["id"]]
        assert message.key == change["profile_id"]
        assert message.headers == {"id": change["id"], "type": change["type"], "schema_version": "1"}
    first = firsts(messages)
    assert {message.value["id"] for message in first} == feed.keys()
    assert repeats or len(first) == len(messages)
    homes: dict[str, set[int]] = defaultdict(set)
    for name in CHANGES:
        last: dict[str, int] = {}
        for message in first:
            if message.topic == name:
                assert message.value["version"] > last.get(message.key, 0)
                last[message.key] = message.value["version"]
                homes[message.key].add(message.partition)
    versions: dict[str, list[int]] = defaultdict(list)
    for message in first:
        versions[message.key].append(message.value["version"])
    for found in versions.values():
        assert sorted(found) == list(range(1, len(found) + 1))
    assert all(len(partitions) == 1 for partitions in homes.values())
    return messages


def latest(access: KafkaAccess) -> dict[str, Any]:
    return {message.key: message.value for message in read_topics(access, [PROFILES])}


STATE: Final = ("version", "traits", "segments", "lifecycle", "risk")


def check_states(world: ReadingWorld, access: KafkaAccess, names: Sequence[str] = STATE) -> None:
    """The compacted topic holds what the API says of each profile, and a tombstone of all others it ever held."""
    states = latest(access)
    living = {str(row[0].hex()) for row in world.execute("select profile_id from profiles_r1")}
    assert {key.replace("-", "") for key, state in states.items() if state is not None} == living
    for key, state in states.items():
        if state is None:
            continue
        shown = world.reading.profiles.details(bytes.fromhex(key.replace("-", "")), personal=False)
        expected = {name: shown[name] for name in names}
        assert {name: state[name] for name in expected} == expected
        assert state["profile_id"] == key


def populate(world: ReadingWorld, people: int = 12) -> None:
    """Customers who identify themselves, buy, and some of whom turn out to be one."""
    for number in range(people):
        anonymous, known = ("anonymous_id", f"a{number}"), ("user_id", f"u{number}")
        world.send([anonymous], traits={"city": "London", "age_band": number})
        world.settle()
        world.purchase([("loyalty_card", f"c{number}")], f"o{number}", f"{number * 90}.00", days_ago=3)
        world.settle()
        sealed = {"traits": {"name": f"Person {number}", "mail": world.ref("email", f"p{number}@example.com")}}
        world.send([known, anonymous], type_="profile.identified", sealed=sealed)
        world.settle()
        if number % 2:
            world.purchase([known, ("loyalty_card", f"c{number}")], f"p{number}", "600.00")
            world.settle()


def test_every_change_is_on_its_topic_once_and_every_profile_as_it_is(world: ReadingWorld, topics: KafkaAccess) -> None:
    with publishing(world, topics, batch=7) as publisher:
        populate(world)
        count = publish_all(publisher)
        messages = check_changes(world, topics)
        assert count == len(messages)
        assert {message.value["type"] for message in messages} >= {"profile", "segment", "lifecycle", "identity"}
        check_states(world, topics, [*STATE, "computed"])  # by the same clock
        merged = [each.value for each in messages if each.value["name"] == "merged_into"]
        assert merged
        states = latest(topics)
        for change in merged:
            assert states[change["profile_id"]] is None
            assert change["new"][0] in states  # it lives, or was merged too
        assert publisher.run_once() == 0
        world.purchase(ADA, "one-more", "20.00")
        world.settle()
        assert publish_all(publisher)
        check_changes(world, topics)
        check_states(world, topics)


def test_no_topic_holds_a_direct_personal_value(world: ReadingWorld, topics: KafkaAccess) -> None:
    populate(world, 2)
    with publishing(world, topics) as publisher:
        publish_all(publisher)
    messages = read_topics(topics)
    said = [message.value["new"] for message in messages if message.value and message.value.get("name") == "name"]
    assert len(said) >= 2
    assert all(new == {"personal": True} for new in said)
    text = repr(messages)
    assert "Person" not in text
    assert "example.com" not in text


def test_a_publisher_that_dies_before_it_notes_what_was_acknowledged_repeats_it_under_the_same_ids(
    world: ReadingWorld, topics: KafkaAccess, tmp_path: Path
) -> None:
    populate(world, 4)
    dying = start_publisher(world.databases, topics, tmp_path, FAILPOINT="publish.after_ack")
    assert dying.wait(WAIT_S) == -signal.SIGKILL
    dying.communicate()
    once = read_topics(topics, CHANGES)
    assert world.execute("select seq, idx from publishers") == [(0, -1)]
    other = start_publisher(world.databases, topics, tmp_path)
    until(lambda: published(world), "the rest of the feed")
    end(other, signal.SIGTERM)
    assert other.returncode == 0
    messages = check_changes(world, topics, repeats=True)
    assert len(messages) == 2 * len(once)
    check_states(world, topics)


def test_of_two_publishers_one_works_and_the_other_goes_on_when_it_is_killed(
    world: ReadingWorld, topics: KafkaAccess, tmp_path: Path
) -> None:
    one = start_publisher(world.databases, topics, tmp_path)
    populate(world, 2)
    until(lambda: published(world), "the first changes")
    other = start_publisher(world.databases, topics, tmp_path)
    populate(world, 3)
    until(lambda: published(world), "more changes")
    assert world.execute("select epoch from publishers") == [(1,)]
    end(one, signal.SIGKILL)
    populate(world, 5)
    until(lambda: published(world), "the changes after the kill")
    assert world.execute("select epoch from publishers") == [(2,)]
    errors = end(other, signal.SIGTERM)
    assert other.returncode == 0, errors
    check_changes(world, topics, repeats=True)
    check_states(world, topics)


def test_a_publisher_that_was_thought_dead_can_write_no_more(world: ReadingWorld, topics: KafkaAccess) -> None:
    """It hangs with a state in hand, another one writes the tombstone, and it wakes."""
    old, new = KafkaChanges(topics), KafkaChanges(topics)
    stale = Message(PROFILES, b"ada", b"{}", [("type", "state")])
    with closing(old), closing(new):
        old.open()
        new.open()
        new.publish([stale._replace(value=None)])
        with pytest.raises(ProgressConflict):
            old.publish([stale])
        assert not old.is_open
    assert latest(topics) == {"ada": None}


def test_a_silent_publisher_loses_its_claim_and_cannot_move_the_place(world: ReadingWorld) -> None:
    populate(world, 1)
    old, new = PostgresPublishing(world.databases.main, silence_s=1), PostgresPublishing(world.databases.main)
    with closing(old), closing(new):
        assert old.claim()
        assert not new.claim()
        until(new.claim, "the end of the claim of one who says nothing")
        with pytest.raises(StoreUnavailable):
            old.changes(old_place := new.place(), 1)
        assert not old.claimed
        old._epoch = 1  # as if it had not found out yet
        with pytest.raises(ProgressConflict):
            old.advance(old_place._replace(seq=9))
        assert new.place() == old_place


def test_a_broker_that_hangs_is_waited_out(world: ReadingWorld, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "kafka")
    try:
        cluster.start()
        access = KafkaAccess(cluster.bootstrap, insecure=True)
        make_topics(access)
        process = start_publisher(world.databases, access, tmp_path, KAFKA_ACK_S="2")
        populate(world, 1)
        until(lambda: published(world), "changes before the outage")
        cluster.pause(cluster.nodes[0])
        populate(world, 3)
        lines = process.stderr
        assert lines is not None
        assert "waiting: Kafka" in next(line for line in lines if "waiting" in line)
        assert not published(world)
        cluster.go_on(cluster.nodes[0])
        until(lambda: published(world), "changes after the outage")
        end(process, signal.SIGTERM)
        assert process.returncode == 0
        check_changes(world, access, repeats=True)
        check_states(world, access)
    finally:
        cluster.stop()


def test_a_lost_connection_to_the_database_is_made_anew(world: ReadingWorld, topics: KafkaAccess) -> None:
    with publishing(world, topics, batch=5) as publisher:
        populate(world, 2)
        assert publisher.run_once() == 5
        gone = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'touchfold publish'"
        assert world.execute(gone + " and datname = current_database()") == [(True,)]
        with pytest.raises(StoreUnavailable):
            publisher.run_once()
        assert publish_all(publisher)
        assert world.execute("select epoch from publishers") == [(2,)]
    check_changes(world, topics)


def test_a_missing_topic_is_named_and_the_feed_waits_for_it(world: ReadingWorld, access: KafkaAccess) -> None:
    populate(world, 1)
    with publishing(world, access) as publisher:
        with pytest.raises(StoreUnavailable, match=r"profile-changes.*touchfold topics apply"):
            publisher.run_once()
        make_topics(access)
        assert publish_all(publisher)
    check_changes(world, access)


def test_an_erased_profile_ends_with_erased_and_a_tombstone(
    world: ReadingWorld, topics: KafkaAccess, tmp_path: Path
) -> None:
    world.purchase(ADA, "o1", "700.00")
    world.send(ADA, type_="profile.identified", traits={"city": "London"}, sealed={"traits": {"name": "Ada"}})
    world.purchase([("user_id", "bob")], "o2", "20.00")
    world.settle()
    ada = world.reading.profiles.by_identifier("user_id", "ada")["id"]
    with publishing(world, topics) as publisher:
        publish_all(publisher)
        before = read_topics(topics, CHANGES)
        assert latest(topics)[ada] is not None
        parts = (world.databases.main, world.databases.vault, world.vault, tmp_path, "US", lambda: NOW)
        with eraser(*parts) as erasing:
            assert erasing.erase("user_id", "ada").found
        world.settle()
        publish_all(publisher)
        after = read_topics(topics, CHANGES)
    new = [each for each in after if each not in before]
    assert [(each.key, each.value["type"]) for each in new] == [(ada, "erased")]
    of_ada = [each.value["version"] for each in after if each.key == ada]
    assert new[0].value["version"] == max(of_ada) == len(of_ada)
    states = latest(topics)
    assert states.pop(ada) is None
    assert None not in states.values()
    assert "Ada" not in repr(after)


DEFINITIONS: Final = """
computed_traits:
  biggest_order: {aggregate: max, of: revenue, events: [purchase.completed], description: the biggest}
segments:
  spent_forty: {description: big, when: {trait: biggest_order, op: gte, value: 40}}
"""


def test_a_rebuild_publishes_nothing_and_new_definitions_only_what_differs(
    world: ReadingWorld, topics: KafkaAccess
) -> None:
    for number in range(5):
        world.purchase([("user_id", f"u{number}")], f"o{number}", f"{number * 20}.00")
    world.settle()
    with publishing(world, topics) as publisher:
        publish_all(publisher)
        before = read_topics(topics)
        start_rebuild(world.services.control, world.clock.now())
        world.settle()
        assert world.services.control.live().revision == 2
        assert publish_all(publisher) == 0
        assert read_topics(topics) == before
        assert apply_files(world.services.control, [("more.yaml", DEFINITIONS)], world.clock.now()).revision == 3
        world.settle()
        assert world.services.control.live().revision == 3
        assert publish_all(publisher) == 3
    new = [each for each in read_topics(topics) if each not in before]
    changes = [each.value for each in new if each.topic != PROFILES]
    assert [(each["name"], each["new"], each["cause"]["kind"]) for each in changes] == [
        ("spent_forty", True, "definition")
    ] * 3
    assert len(new) == 6
    for each in new:
        if each.topic == PROFILES:
            assert "spent_forty" in each.value["segments"]
            assert float(each.value["computed"]["biggest_order"]) >= 40


DAY_MS: Final = 86_400_000


def test_a_granted_topic_holds_the_values_while_the_profile_has_them(world: ReadingWorld, access: KafkaAccess) -> None:
    make_topics(access, {PROFILE_CHANGES: {"retention.ms": str(DAY_MS), "segment.ms": str(DAY_MS)}})
    check_granted(access, {PROFILE_CHANGES})
    sealed = {"traits": {"name": "Ada", "second_mail": world.ref("email", "second@example.com")}}
    world.send(ADA, type_="profile.identified", traits={"city": "London"}, sealed=sealed)
    world.purchase(ADA, "o1", "700.00")
    world.settle()
    with publishing(world, access, granted=frozenset({PROFILE_CHANGES})) as publisher:
        publish_all(publisher)
    messages = read_topics(access)
    news = {each.value["name"]: each.value["new"] for each in messages if each.topic == PROFILE_CHANGES}
    assert news["name"] == {"personal": True, "value": "Ada"}
    assert news["second_mail"] == {"personal": True, "value": "second@example.com"}
    assert news["identifiers"] == {
        "personal": True,
        "kinds": ["email", "user_id"],
        "identifiers": [{"kind": "user_id", "value": "ada"}, {"kind": "email", "value": "ada@example.com"}],
    }
    assert news["city"] == "London"
    others = repr([each for each in messages if each.topic != PROFILE_CHANGES])
    assert "Ada" not in others
    assert "example.com" not in others


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"retention.ms": str(7 * DAY_MS)}, "for 7 days"),
        ({"retention.ms": "-1"}, "for ever"),
        ({"retention.ms": str(DAY_MS), "cleanup.policy": "compact,delete"}, "cleanup.policy"),
        ({}, "for 7 days"),
    ],
    ids=["seven days", "for ever", "compacted", "as the brokers have it"],
)
def test_personal_values_are_refused_where_they_would_stay(
    access: KafkaAccess, config: dict[str, str], said: str
) -> None:
    make_topics(access, {PROFILE_CHANGES: config})
    with pytest.raises(SettingsInvalid, match=said):
        check_granted(access, {PROFILE_CHANGES})


def test_the_role_refuses_to_run_with_a_grant_that_may_not_be(
    world: ReadingWorld, topics: KafkaAccess, tmp_path: Path
) -> None:
    process = start_publisher(world.databases, topics, tmp_path, PROFILE_CHANGES)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert "SettingsInvalid" in errors
    assert "retention.ms under 7 days" in errors


@pytest.mark.parametrize("topic", [PROFILES, SEGMENT_CHANGES, "events"])
def test_no_other_topic_can_be_granted(topics: KafkaAccess, topic: str) -> None:
    with pytest.raises(SettingsInvalid, match=topic):
        check_granted(topics, {topic})


def _grew(members: Callable[[], set[tuple[str, str]]], seen: set[tuple[str, str]]) -> bool:
    return bool(members() - seen)


def test_the_example_subscriber_killed_in_the_middle_ends_with_the_members(
    world: ReadingWorld, topics: KafkaAccess, tmp_path: Path
) -> None:
    table = tmp_path / "members.sqlite"
    command = [
        *(sys.executable, str(ROOT / "examples" / "subscriber" / "subscriber.py"), "--bootstrap", topics.bootstrap),
        *("--prefix", topics.prefix, "--database", str(table)),
    ]

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def members() -> set[tuple[str, str]]:
        if not table.exists():
            return set()
        with closing(sqlite3.connect(table, timeout=20)) as database:
            try:
                return set(database.execute("select segment, profile_id from segment_members"))
            except sqlite3.OperationalError:  # it has not made its tables yet
                return set()

    def wanted() -> set[tuple[str, str]]:
        names = world.worker.compiled.evaluator.segment_names
        rows = world.execute("select segment, profile_id::text from memberships_r1")
        return {(names[index], profile) for index, profile in rows}

    with publishing(world, topics, batch=5) as publisher:
        populate(world, 4)
        publish_all(publisher)
        subscriber = start()  # loads the states, then follows
        until(lambda: members() == wanted(), "the first members")
        for number in range(4, 7):
            seen = members()
            world.purchase([("user_id", f"u{number}")], f"q{number}", "900.00")
            world.settle()
            publish_all(publisher)
            until(partial(_grew, members, seen), "a new member")
            world.purchase([("user_id", f"v{number}")], f"w{number}", "900.00")
            world.settle()
            publish_all(publisher)  # and while it reads this
            subscriber.kill()
            subscriber.wait(WAIT_S)
            subscriber = start()
        subscriber.kill()
        subscriber.wait(WAIT_S)
        populate(world, 9)
        publish_all(publisher)
        world.execute("update publishers set seq = 3, idx = -1 returning 1")  # much comes once more, as after a crash
        publisher.topics.close()
        assert publish_all(publisher)
        subscriber = start()
        until(lambda: members() == wanted(), "the members")
        subscriber.kill()
        subscriber.wait(WAIT_S)
    assert members() == wanted()
