"""The inbox on a real broker: what producers write arrives once, and what is wrong is set aside and found again."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.adapters.kafka import topics as kafka_topics
from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.postgres.dead_letters import PostgresDeadLetters
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.migrate import migrate
from infra.adapters.postgres.sources import PostgresSources
from infra.app import bootstrap
from infra.app.log import log_of
from infra.app.retrying import Retrying
from infra.app.session import Session
from infra.app.settings import load
from infra.app.vault import vault_of
from infra.drivers.stream import inbox_role
from infra.drivers.stream.inbox_role import InboxDoor
from ingest.requests.inbox import Message, Opened, Refusal, message_again, message_of, open_message
from processors.erase.dead_letters import mentions
from schemas.dead_letters import DeadLetter
from schemas.errors import NotFound, StoreUnavailable
from schemas.ports import OpenIdentifier
from schemas.record import Record, Stored, decode, event_key, uuid_text
from schemas.sources import source_of
from schemas.topics import INBOX
from tests.conftest import Databases
from tests.kafka_broker import Cluster, Kafka, kafka_jars

ROOT = Path(__file__).parents[2]
KEY = bytes(range(32))
DEADLINE_S = 40.0
PARTITIONS = 2
CHILD = """
import sys, threading
from infra.app.bootstrap import session
from infra.drivers.stream import inbox_role
with session(sys.argv[1], role="inbox") as here:
    inbox_role.run(here, threading.Event(), lambda: print("ready", flush=True))
"""


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


class Role:
    """The inbox role in a thread of ours, with a session and data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._stop = threading.Event()
        self._ready = threading.Event()
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(folder,), daemon=True)
        self._thread.start()
        until(lambda: self._ready.is_set() or not self._thread.is_alive(), "the role is ready")

    def _run(self, folder: Path) -> None:
        try:
            with bootstrap.session(folder, role="inbox") as here:
                inbox_role.run(here, self._stop, self._ready.set)
        except BaseException as err:
            self.failed = err

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """As SIGTERM does."""
        self._stop.set()
        self._thread.join(10.0)
        assert not self._thread.is_alive(), "it did not end within 10 s"
        assert self.failed is None, repr(self.failed)


class World:
    """Topics, databases, a producer and a reader of their own."""

    def __init__(self, bootstrap_servers: str, prefix: str, databases: Databases, folder: Path) -> None:
        self.access = KafkaAccess(bootstrap_servers, prefix=prefix, insecure=True)
        self.folder = folder
        self.databases = databases
        self.environment = {
            "TOUCHFOLD_LOG": "kafka",
            "TOUCHFOLD_KAFKA_BOOTSTRAP": bootstrap_servers,
            "TOUCHFOLD_KAFKA_PREFIX": prefix,
            "TOUCHFOLD_KAFKA_INSECURE": "1",
            "TOUCHFOLD_KAFKA_PARTITIONS": str(PARTITIONS),
            "TOUCHFOLD_KAFKA_REPLICATION": "1",
            "TOUCHFOLD_DATABASE": databases.main,
            "TOUCHFOLD_VAULT": databases.vault,
            "TOUCHFOLD_MASTER_KEY": KEY.hex(),
        }
        self.opened = ExitStack()
        self._before = {name: value for name, value in os.environ.items() if name.startswith("TOUCHFOLD_")}
        for name in self._before:
            del os.environ[name]
        os.environ.update(self.environment)
        self.admin = AdminClient(self.access.confluent())
        self.topic = self.access.topic(INBOX)
        kafka_topics.apply(self.access, load(os.environ))
        self.producer = Producer({**self.access.confluent(), "linger.ms": 5})
        self.here: Session = self.opened.enter_context(bootstrap.session(folder / "reader"))
        self.sources = self.opened.enter_context(closing(PostgresSources(self.here.dsn)))
        self.letters = self.opened.enter_context(closing(PostgresDeadLetters(self.here.dsn)))
        self.log = log_of(self.here)
        self.key = self.sources.create("till", datetime.now(UTC))
        self.roles: list[Role] = []

    def role(self) -> Role:
        role = Role(self.folder / f"role{len(self.roles)}")
        self.roles.append(role)
        return role

    def close(self) -> None:
        for role in self.roles:
            if role.runs:
                role.stop()
        self.opened.close()
        for name in self.environment:
            del os.environ[name]
        os.environ.update(self._before)

    # ------------------------------------------------------------ producing

    def send(self, value: bytes | None, partition: int = 0, **headers: str) -> None:
        self.produce(value, headers or {"writekey": self.key}, partition)

    def produce(self, value: bytes | None, headers: Mapping[str, str], partition: int = 0) -> None:
        self.producer.produce(self.topic, value, partition=partition, headers=dict(headers))

    def track(self, number: int, partition: int = 0, **more: object) -> None:
        item = {"type": "track", "event": "Sold", "userId": f"user-{number}", "messageId": f"m-{number}", **more}
        self.send(json.dumps(item).encode(), partition)

    def flush(self) -> None:
        assert self.producer.flush(DEADLINE_S) == 0

    # ------------------------------------------------------------ looking

    def stored(self) -> list[Stored]:
        return [each for p in range(self.log.partitions) for each in self.log.read(p, 0, 1_000_000)]

    def records(self) -> list[Record]:
        return [decode(each.value) for each in self.stored()]

    def distinct(self) -> set[str]:
        return {record.id for record in self.records()}

    def wait_for(self, count: int) -> list[Record]:
        """Until so many different events are in the log; all records of it."""
        until(lambda: len(self.distinct()) >= count, f"{count} events in the log")
        return self.records()

    def wait_for_dead_letters(self, count: int) -> list[DeadLetter]:
        until(lambda: self.letters.count() >= count, f"{count} dead letters")
        return self.letters.list()

    def opened_dead_letter(self, letter: DeadLetter) -> bytes:
        found = self.letters.get(letter.id)
        assert found is not None
        [plain] = vault_of(self.here).open_many([(found[0].seal_key, found[0].sealed, letter.id)])
        assert plain is not None
        return plain

    def group(self) -> Consumer:
        """A client that asks for the group's offsets and is no member."""
        return Consumer({**self.access.confluent(), "group.id": f"{self.access.prefix}-inbox"})

    def committed(self) -> list[int]:
        with closing(self.group()) as client:
            places = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
            return [each.offset for each in client.committed(places, timeout=DEADLINE_S)]

    def set_back(self, offsets: Sequence[int]) -> None:
        """Commit other offsets for the group, which has no members now."""
        with closing(self.group()) as client:
            places = [TopicPartition(self.topic, p, offset) for p, offset in enumerate(offsets)]
            client.commit(offsets=places, asynchronous=False)


@pytest.fixture
def world(kafka: Kafka, databases: Databases, tmp_path: Path) -> Iterator[World]:
    made = World(kafka.bootstrap, kafka.prefix(), databases, tmp_path)
    try:
        yield made
    finally:
        made.close()


# ---------------------------------------------------------------- what producers send


def test_every_form_of_a_message_arrives_as_the_events_of_its_source(world: World) -> None:
    item = {"event": "Sold", "userId": "ada", "messageId": "a"}
    world.send(json.dumps({**item, "type": "track"}).encode())
    world.send(json.dumps({**item, "messageId": "b"}).encode(), WriteKey=world.key, path="/v1/track")
    world.send(json.dumps({**item, "messageId": "c"}).encode(), writekey=world.key, call="track")
    batch = {
        "writeKey": world.key,
        "context": {"channel": "server"},
        "batch": [
            {**item, "type": "track", "messageId": "d"},
            {"type": "identify", "userId": "ada", "traits": {"email": "ada@example.com"}, "messageId": "e"},
            {"type": "alias", "userId": "ada", "previousId": "guest-1", "messageId": "f"},
        ],
    }
    world.send(json.dumps(batch).encode(), 1, other="header")
    world.send(gzip.compress(json.dumps({**item, "type": "page", "messageId": "g"}).encode()), 1)
    world.flush()
    world.role()
    records = world.wait_for(7)
    assert sorted(str(record.message_id) for record in records) == list("abcdefg")
    assert {record.source for record in records} == {"till"}
    assert {record.context.get("channel") for record in records if record.message_id in ("d", "e", "f")} == {"server"}
    assert b"ada@example.com" not in b"".join(each.value for each in world.stored())
    assert world.letters.list() == []


def test_an_event_sent_over_the_inbox_and_over_http_is_one_event(world: World) -> None:
    item = {"type": "track", "event": "Sold", "userId": "ada", "messageId": "same", "properties": {"total": 5}}
    world.send(json.dumps(item).encode())
    world.flush()
    world.role()
    [record] = world.wait_for(1)
    assert record.id == uuid_text(event_key(vault_of(world.here).hash_key, "till", "same"))
    from infra.app.accepting import acceptor_of  # noqa: PLC0415  # phonenumbers takes 0.1 s to import
    from ingest.accept.calls import SourceRules  # noqa: PLC0415

    rules = SourceRules("till", world.sources.declared())
    accepted = acceptor_of(world.here).accept([item], rules, datetime.now(UTC))
    assert decode(accepted.pending[0].value).digest == record.digest


def test_items_without_a_message_id_count_once_however_often_they_are_delivered(world: World) -> None:
    plain = {"type": "track", "event": "Sold", "userId": "ada"}
    for partition in (0, 1):
        world.send(json.dumps(plain).encode(), partition)
        world.send(json.dumps({"batch": [plain, {**plain, "messageId": ""}, plain]}).encode(), partition)
    world.flush()
    world.role()
    assert len(world.wait_for(8)) == 8
    until(lambda: world.committed() == [2, 2], "the offsets are committed")
    world.roles[0].stop()
    world.set_back([0, 0])
    world.role()
    until(lambda: len(world.records()) == 16, "all are delivered again")
    assert len(world.distinct()) == 8
    assert len({record.digest for record in world.records()}) == 1


def test_a_topic_made_anew_does_not_repeat_the_ids_of_the_old_one() -> None:
    first = Message("t.inbox", 0, 0, 1_750_000_000_000, b"{}")
    assert first.place == first._replace(value=b"[]").place
    assert first.place != first._replace(timestamp_ms=1_750_000_000_001).place


def test_records_of_an_aborted_transaction_do_not_arrive(world: World) -> None:
    conf = {**world.access.confluent(), "transactional.id": f"{world.access.prefix}-producer"}
    producer = Producer(conf)
    producer.init_transactions(DEADLINE_S)
    for number, keep in enumerate((False, True, False, True)):
        producer.begin_transaction()
        item = {"type": "track", "event": "Sold", "userId": "ada", "messageId": f"t-{number}"}
        producer.produce(world.topic, json.dumps(item).encode(), partition=0, headers={"writekey": world.key})
        producer.flush(DEADLINE_S)
        if keep:
            producer.commit_transaction(DEADLINE_S)
        else:
            producer.abort_transaction(DEADLINE_S)
    world.track(9)
    world.flush()
    world.role()
    assert sorted(str(record.message_id) for record in world.wait_for(3)) == ["m-9", "t-1", "t-3"]


# ---------------------------------------------------------------- what is wrong


def _poison(world: World, off: str) -> list[tuple[str, bytes | None, dict[str, str]]]:
    """(rule, value, headers) of messages that the door answers with 4xx."""
    good = b'{"type": "track", "event": "Sold", "userId": "ada"}'
    own = {"writekey": world.key}
    many = json.dumps({"batch": [{}] * 2_501}).encode()
    return [
        ("invalid_json", None, own),
        ("invalid_json", b"", own),
        ("invalid_json", b'{"type": "track", "userId": "ada@example.com"', own),
        ("invalid_json", b"\xff\xfe\x00" * 50, own),
        ("invalid_json", gzip.compress(good)[:-12], own),
        ("bad_request", b'"ada"', own),
        ("bad_request", b'{"batch": 7}', own),
        ("bad_request", good, {**own, "path": "batch"}),
        ("too_large", many, own),
        ("too_large", gzip.compress(b" " * 3_000_000), own),
        ("invalid_write_key", good, {"writekey": "wk_nobody"}),
        ("invalid_write_key", good, {"other": "header"}),
        ("not_found", good, {**own, "path": "/v1/teleport"}),
        ("not_found", good, {**own, "call": "/v1/m"}),
        ("source_off", good, {"writekey": off}),
    ]


def test_what_the_door_would_refuse_is_set_aside_whole_and_holds_nobody_up(world: World) -> None:
    off = world.sources.create("off", datetime.now(UTC), {"enabled": False})
    poison = _poison(world, off)
    for _, value, headers in poison:
        world.produce(value, headers)
    world.track(1)
    world.flush()
    world.role()
    [record] = world.wait_for(1)
    assert record.message_id == "m-1"
    letters = world.wait_for_dead_letters(len(poison))
    assert {letter.stage for letter in letters} == {"inbox"}
    by_offset = {message_again(world.opened_dead_letter(each)).offset: each for each in letters}
    assert [by_offset[offset].rule for offset in range(len(poison))] == [rule for rule, _, _ in poison]
    for offset, (_, value, headers) in enumerate(poison):
        message = message_again(world.opened_dead_letter(by_offset[offset]))
        assert message.value == (value or b"")
        assert message.write_key == headers.get("writekey")
    assert {by_offset[offset].source for offset in range(10)} == {"till"}
    assert [by_offset[offset].source for offset in (10, 11, 14)] == ["", "", "off"]
    assert all("ada" not in letter.reason for letter in letters)
    until(lambda: world.committed()[0] == len(poison) + 1, "the offsets are committed")
    world.roles[0].stop()
    world.set_back([0, 0])
    world.role()
    until(lambda: len(world.records()) == 2, "all are delivered again")
    assert world.letters.count() == len(poison)


def test_items_that_are_refused_are_dead_letters_of_their_own_and_the_others_arrive(world: World) -> None:
    hostile = {"type": "track", "event": "Sold", "userId": "ada", "properties": {"a\0b": "x" * 33_000}}
    batch = [{"type": "track", "userId": "ada"}, {"type": "teleport"}, 7, hostile]
    good = {"type": "track", "event": "Sold", "userId": "ada", "messageId": "good"}
    world.send(json.dumps({"batch": [*batch, good]}).encode())
    world.track(2)
    world.flush()
    world.role()
    assert {record.message_id for record in world.wait_for(2)} == {"good", "m-2"}
    letters = world.wait_for_dead_letters(4)
    assert {(letter.stage, letter.source) for letter in letters} == {("door", "till")}
    assert {letter.rule for letter in letters} == {"missing_field", "unknown_type", "wrong_type", "string_too_long"}


def test_a_letter_holds_the_message_so_that_an_erasure_finds_the_person(world: World) -> None:
    phone = lambda _text: None  # noqa: E731
    person = [OpenIdentifier(b"t" * 16, "email", "ada@example.com")]
    inside = json.dumps({"type": "track", "traits": {"email": "Ada@Example.com"}}).encode()
    for value in (inside, gzip.compress(inside), inside[:-1], inside + b"\xff", gzip.compress(inside)[:-6], b"nobody"):
        world.send(value, writekey="wk_nobody")
    world.flush()
    world.role()
    letters = world.wait_for_dead_letters(6)
    found = {}
    for letter in letters:
        plain = world.opened_dead_letter(letter)
        found[message_again(plain).offset] = mentions(plain, person, phone)
    assert found == {0: True, 1: True, 2: True, 3: True, 4: True, 5: False}


# ---------------------------------------------------------------- sending again


def test_a_message_set_aside_can_be_sent_again_once_its_source_is_on(world: World) -> None:
    off = world.sources.create("off", datetime.now(UTC), {"enabled": False})
    item = {"type": "track", "event": "Sold", "userId": "ada"}
    world.send(json.dumps({"batch": [item, item, {"type": "teleport"}]}).encode(), writekey=off)
    world.flush()
    world.role()
    [letter] = world.wait_for_dead_letters(1)
    with closing(Retrying(world.here)) as retrying:
        assert retrying.run([dead_letter_of(world, letter)])["accepted"] == 0
        world.sources.change("off", {"enabled": True})
    with closing(Retrying(world.here)) as retrying:
        outcome = retrying.run([dead_letter_of(world, letter)])
        (told,) = outcome.pop("remedies")
        assert told.startswith("unknown_type (door): "), "it is no more for its source that it is refused"
        assert outcome == {"accepted": 0, "refused": [uuid_text(letter.id)], "gone": 0}  # one of its items still is
        assert len(world.distinct()) == 2
        [left] = world.letters.list()
        assert (left.stage, left.rule, left.source) == ("door", "unknown_type", "off")
        retrying.run([dead_letter_of(world, letter)])
    assert len(world.distinct()) == 2


def test_a_message_with_a_strange_key_can_be_given_to_a_source(world: World) -> None:
    world.send(b'{"type": "track", "event": "Sold", "userId": "ada"}', writekey="wk_nobody")
    world.send(b"no JSON", writekey="wk_nobody")
    world.flush()
    world.role()
    letters = [dead_letter_of(world, each) for each in world.wait_for_dead_letters(2)]
    with closing(Retrying(world.here)) as retrying:
        assert retrying.run(letters)["accepted"] == 0
        with pytest.raises(NotFound):
            retrying.run(letters, "nobody")
        assert retrying.run(letters, "till")["accepted"] == 1
    [record] = world.records()
    assert record.source == "till"
    [left] = world.letters.list()
    assert left.rule == "invalid_json"


def dead_letter_of(world: World, letter: DeadLetter) -> DeadLetter:
    """With its sealed bytes."""
    found = world.letters.get(letter.id)
    assert found is not None
    return found[0]


# ---------------------------------------------------------------- clocks


def test_the_time_in_the_topic_is_no_error_of_the_senders_clock(world: World) -> None:
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    sent = now - timedelta(hours=3)
    item = {"type": "track", "event": "Sold", "userId": "ada", "timestamp": sent.isoformat()}
    body = json.dumps({**item, "sentAt": sent.isoformat()}).encode()
    stamp = int(sent.timestamp() * 1_000)
    source = source_of("till", {})
    from infra.app.accepting import acceptor_of  # noqa: PLC0415  # phonenumbers takes 0.1 s to import

    def times(message: Message) -> tuple[datetime, datetime, str]:
        opened = open_message(message, world.sources, now, source=source)
        assert isinstance(opened, Opened)
        record = decode(acceptor_of(world.here).accept_many([opened.call])[0].pending[0].value)
        assert record.known_at == record.received_at == now
        return record.occurred_at, record.received_at, record.clock_rule

    assert times(Message("t", 0, 0, stamp, body)) == (sent, now, "original")
    assert times(Message("t", 0, 0, stamp, b'{"type":"page","userId":"a"}'))[0] == sent
    assert times(Message("t", 0, 0, 0, body))[2] == "corrected"  # a clock that was never set is not asked
    assert times(Message("t", 0, 0, stamp + 86_400_000, body))[2] == "corrected"
    assert times(Message("t", 0, 0, None, body))[2] == "corrected"


def test_headers_are_read_in_any_case_and_the_first_of_two_counts() -> None:
    pairs: list[tuple[str, str | bytes | None]] = [("WriteKey", b""), ("WRITEKEY", b" one "), ("writekey", "two")]
    message = message_of("t", 0, 0, None, None, [*pairs, ("Path", b"track"), ("other", b"\xff")])
    assert (message.write_key, message.path, message.value) == ("one", "track", b"")


@pytest.fixture
def jars() -> Path:
    return kafka_jars()


def test_the_producers_of_the_page_are_understood(world: World, jars: Path) -> None:
    page = (ROOT / "docs" / "topics-inbox.md").read_text()
    python, shell = re.findall(r"```(?:python|sh)\n(.*?)```", page, re.DOTALL)
    python = python.replace('bootstrap_servers="broker:9093", security_protocol="SSL"', "**ACCESS")
    python = python.replace("touchfold.inbox", world.topic).replace("wk_…", world.key)
    exec(compile(python, "topics-inbox.md", "exec"), {"ACCESS": world.access.kafka_python()})
    body = re.findall(r"echo '(.*)'", shell)[0].replace("wk_…", world.key)
    options = shell.split("kafka-console-producer.sh")[1].split()
    options[options.index("broker:9093")] = world.access.bootstrap
    options[options.index("touchfold.inbox")] = world.topic
    (world.folder / "client.properties").write_text("acks=all\n")
    tool = ["java", "-cp", f"{jars}/*", "org.apache.kafka.tools.ConsoleProducer", *options]
    page_view = '{"type":"page","userId":"user-17","messageId":"page-1"}'
    lines = f"other:header\t{body}\nwritekey:{world.key}\t{page_view}\n"
    given = [*tool, "--reader-property", "parse.headers=true"]  # as the page says; without it a line is the body
    done = subprocess.run(
        given, input=lines.encode(), cwd=world.folder, capture_output=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    world.role()
    records = world.wait_for(3)
    assert {record.message_id for record in records} == {"till-4-000812", "crm-1", "page-1"}
    assert {record.type for record in records} >= {"purchase.completed"}
    assert world.letters.list() == []


def test_a_refusal_names_what_is_wrong_and_never_what_was_sent(world: World) -> None:
    message = Message("t", 0, 0, None, b'{"batch": "ada@example.com"}', world.key)
    refusal = open_message(message, world.sources, datetime.now(UTC))
    assert isinstance(refusal, Refusal)
    assert (refusal.source, refusal.rule, refusal.path) == ("till", "bad_request", "batch")
    assert "ada" not in refusal.reason


# ---------------------------------------------------------------- what ends, and goes on


def child(world: World, **settings: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **{f"TOUCHFOLD_{name}": value for name, value in settings.items()}}
    folder = world.folder / f"child{time.monotonic_ns()}"
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], env=environment, cwd=ROOT)


def test_a_kill_between_append_and_commit_repeats_and_nothing_counts_twice(world: World) -> None:
    for number in range(500):
        world.track(number, number % PARTITIONS)
    world.send(b"no JSON")
    world.flush()
    killed = child(world, TEST="1", FAILPOINT="inbox@inbox.after_append")
    assert killed.wait(DEADLINE_S) == -signal.SIGKILL
    before = len(world.records())
    assert before > 0
    assert world.committed() == [-1001, -1001]
    world.role()
    world.wait_for(500)
    until(lambda: world.committed() == [251, 250], "the offsets are committed")
    assert len(world.records()) == 500 + before
    assert len(world.distinct()) == 500
    assert world.letters.count() == 1


def test_processes_that_come_and_go_lose_nothing(world: World) -> None:
    sent = 0
    world.role()
    for step in range(6):
        for _ in range(300):
            world.track(sent, sent % PARTITIONS)
            sent += 1
        world.flush()
        if step in (1, 3):
            world.role()
        if step in (2, 4):
            world.roles[step // 2 - 1].stop()
    killed = child(world)
    for _ in range(300):
        world.track(sent, sent % PARTITIONS)
        sent += 1
    world.flush()
    killed.kill()
    killed.wait(DEADLINE_S)
    world.wait_for(sent)
    until(lambda: sum(world.committed()) == sent, "the offsets are committed")
    assert {record.message_id for record in world.records()} == {f"m-{number}" for number in range(sent)}


def test_what_retention_removed_unread_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.track(1)
    world.flush()
    world.role()
    world.wait_for(1)
    until(lambda: world.committed()[0] == 1, "the offset is committed")
    world.roles[0].stop()
    for number in range(2, 12):
        world.track(number)
    world.flush()
    for removed in world.admin.delete_records([TopicPartition(world.topic, 0, 6)]).values():
        removed.result(DEADLINE_S)
    world.role()
    world.wait_for(6)
    told = [entry.getMessage() for entry in caplog.records if "retention" in entry.getMessage()]
    assert told == [f"retention removed up to 5 messages of {world.topic} partition 0 before they were read"]


def committed(world: World) -> list[int]:
    """The group's offsets; none while its coordinator comes up."""
    try:
        return world.committed()
    except KafkaException:
        return [0] * PARTITIONS


def reads(world: World) -> int:
    """How many different events there are; 0 while PostgreSQL comes up."""
    try:
        return len(world.distinct())
    except StoreUnavailable:
        return 0


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop and start again."""
    postgres = EmbeddedPostgres(tmp_path / "server")
    postgres.start()
    migrate(postgres.dsn, "main")
    migrate(postgres.vault_dsn, "vault")
    yield postgres
    postgres.stop(immediate=True)


def test_an_outage_of_postgresql_is_waited_out(kafka: Kafka, own_server: EmbeddedPostgres, tmp_path: Path) -> None:
    world = World(kafka.bootstrap, kafka.prefix(), Databases(own_server.dsn, own_server.vault_dsn), tmp_path)
    try:
        world.track(0)
        world.flush()
        role = world.role()
        world.wait_for(1)
        until(lambda: world.committed()[0] == 1, "the offset is committed")
        os.kill(own_server.pid, signal.SIGQUIT)  # at once, as a crash
        until(lambda: own_server.poll() is not None, "PostgreSQL is gone")
        for number in range(1, 300):
            world.track(number)
        world.flush()
        own_server.start()
        assert role.runs
        until(lambda: reads(world) == 300, "all arrive")
        until(lambda: world.committed()[0] == 300, "the offsets are committed")
    finally:
        world.close()


@pytest.mark.long
def test_a_broker_that_goes_is_waited_for_and_a_stop_does_not_wait(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cluster = Cluster(tmp_path_factory.mktemp("broker"))
    try:
        cluster.start()
        world = World(cluster.bootstrap, "own", databases, tmp_path_factory.mktemp("world"))
        try:
            world.track(1)
            world.flush()
            role = world.role()
            world.wait_for(1)
            cluster.kill(cluster.nodes[0])
            world.track(2)
            cluster.restart(cluster.nodes[0])
            world.flush()
            until(lambda: committed(world)[0] == 2, "the second arrives")
            cluster.kill(cluster.nodes[0])
            role.stop()
        finally:
            world.close()
    finally:
        cluster.stop()


# ---------------------------------------------------------------- poison of our own making


class _Broken:
    """A vault's sealer that has an error of ours on one person."""

    def __init__(self, vault: Any, token: bytes) -> None:
        self._vault = vault
        self._token = token

    def seal(self, token: bytes, plain: bytes, aad: bytes) -> bytes:
        if token == self._token:
            raise ZeroDivisionError("a mistake")
        return bytes(self._vault.seal(token, plain, aad))

    def open_many(self, sealed: Sequence[tuple[bytes, bytes, bytes]]) -> list[bytes | None]:
        found: list[bytes | None] = self._vault.open_many(sealed)
        return found


def test_a_message_on_which_our_code_fails_is_set_aside_and_the_others_arrive(world: World) -> None:
    from functools import partial  # noqa: PLC0415

    from infra.adapters.phones import Phones  # noqa: PLC0415  # 0.1 s
    from ingest.accept.accept import Acceptor  # noqa: PLC0415
    from schemas.identifiers import normalise  # noqa: PLC0415

    vault = vault_of(world.here)
    vault.hold_lease()
    [token] = vault.tokens([("user_id", "user-3")])
    acceptor = Acceptor(vault, _Broken(vault, token), partial(normalise, phone=Phones("US")), vault.daily_token)
    door = InboxDoor(acceptor, vault, world.sources, world.log, world.letters, world.here.door_clock.now)
    messages = []
    for number in range(6):
        item = {"type": "track", "event": "Sold", "userId": f"user-{number}", "properties": {"note": "words"}}
        messages.append(Message("t", 0, number, None, json.dumps(item).encode(), world.key))
    door.take(messages)
    assert len(world.distinct()) == 5
    [letter] = world.letters.list()
    assert (letter.stage, letter.rule) == ("inbox", "internal")
    assert message_again(world.opened_dead_letter(letter)) == messages[3]
    assert b64encode(messages[3].value) not in world.opened_dead_letter(letter)
