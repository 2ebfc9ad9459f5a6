"""Tests of the checker: it depends on none of our rooms, finds every planted violation and raises no false alarms."""

import ast
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.checker import check_feed, check_log, check_views, order_life, tables
from tests.checker.archive_files import manifest
from tests.checker.check import DEFINITIONS, SEGMENTS, check
from tests.checker.check_archive import check_archive
from tests.checker.check_topics import STATES, TOPIC_OF, TOPICS, KafkaTopics, TopicsBefore, check_topics
from tests.checker.client import Client
from tests.checker.ledger import ABORTED, COMMITTED, Answer, Direct, Ledger
from tests.checker.load import Traffic
from tests.checker.plant import PLANTS, hold_still
from tests.checker.plant_log import LOG_PLANTS, TOPIC_PLANTS
from tests.checker.product import Product
from tests.checker.sources import KafkaSource, LogRead, Message, ReadBefore, messages
from tests.kafka_broker import Kafka

# kafka-python loads its message schemas by deprecated calls, at import
pytestmark = pytest.mark.filterwarnings("ignore:(open|read)_text is deprecated:DeprecationWarning")

ROOMS = {"schemas", "projections", "ingest", "processors", "query", "infra"}
PLACES = 3  # random places for each kind of violation
ARCHIVE_NOW = """
import sys
from pathlib import Path
from infra.app.bootstrap import session
from infra.drivers.process.archive_role import archiver_of
with session(Path(sys.argv[1])) as here:
    archiver_of(here).flush()
"""


class World(NamedTuple):
    """A small product with a history and nothing left to process."""

    product: Product
    ledger: Ledger


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two sources, about 1,500 events over real HTTP with repeats, conflicts and mistakes; fully archived."""
    folder = tmp_path_factory.mktemp("checked")
    product, ledger = Product(folder / "data"), Ledger(folder / "ledger.jsonl")
    (folder / "checker.yaml").write_text(DEFINITIONS)
    try:
        product.up()
        product.ask("apply", str(folder / "checker.yaml"))
        now = datetime.now(UTC)
        for name in ("web", "till"):
            client = Client(product.port, name, product.source(name), ledger)
            traffic = Traffic(name, seed=1, now=now, customers=150)
            for _ in range(25):
                answer = client.send(traffic.batch(30))
                assert answer.status == 200, answer
            client.close()
        product.settle()
        product.stop()
        subprocess.run([sys.executable, "-c", ARCHIVE_NOW, str(product.data)], check=True, timeout=120)
        product.up()
        product.settle()
        yield World(product, ledger)
    finally:
        product.stop()
        ledger.close()


def test_the_checker_imports_none_of_the_rooms() -> None:
    imported = set()
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert not imported & ROOMS


def test_a_clean_product_has_no_violation(world: World) -> None:
    shown = world.product.shown()
    with world.product.databases() as (main, vault):
        found = check(main, world.ledger, vault=vault, archive=world.product.data / "archive", shown=shown)
    assert found == []


def test_the_history_holds_what_the_checks_are_about(world: World) -> None:
    with world.product.databases() as (main, _):
        facts = check_log.digest(tables.read(main))
    verdicts = {verdict for *_, verdict in facts.tables.not_applied}
    assert verdicts == {tables.DUPLICATE, tables.CONFLICT}
    assert any(letter.rule != "id_reused" for letter in facts.tables.dead_letters)
    assert facts.people.hubs
    assert any(len(members) > 2 for members in facts.people.members.values())
    types = {event.raw["type"] for event in facts.events.values()}
    assert types >= {*order_life.SALES, *order_life.REFUNDS[:1], *order_life.CANCELS}
    totals = list(facts.totals().values())
    for belongs in SEGMENTS.values():
        assert {belongs(each) for each in totals} == {True, False}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_violation_is_found_wherever_it_is(world: World, plant: str) -> None:
    with world.product.databases() as (main, vault):
        for place in range(PLACES):
            hold_still(main)
            spoil, rules = PLANTS[plant]
            spoil(main, Random(f"{plant}/{place}"))
            found = check(main, world.ledger, vault=vault)
            main.rollback()
            assert rules & {violation.rule for violation in found}, f"{plant} at place {place}: {found[:5]}"


@pytest.mark.parametrize("place", range(PLACES))
def test_a_key_lost_without_an_erasure_is_found(world: World, place: int) -> None:
    with world.product.databases() as (main, vault):
        with vault.cursor() as cursor:
            cursor.execute("select token from identifiers order by token")
            (token,) = Random(place).choice(cursor.fetchall())
            cursor.execute("delete from identifiers where token = %s", (token,))
        found = check(main, world.ledger, vault=vault)
        vault.rollback()
    assert {violation.rule for violation in found} == {"I1.vault"}


@pytest.mark.parametrize("place", range(PLACES))
@pytest.mark.parametrize("fault", ["missing row", "altered byte", "doubled row", "missing file"])
def test_a_spoilt_archive_is_found(world: World, tmp_path: Path, fault: str, place: int) -> None:
    random = Random(f"{fault}/{place}")
    folder = tmp_path / "archive"
    shutil.copytree(world.product.data / "archive", folder)
    path = folder / random.choice(manifest(folder))["path"]
    if fault == "missing file":
        path.unlink()
    else:
        pq.write_table(spoilt(pq.read_table(path), fault, random), path)
    with world.product.databases() as (main, _):
        facts = check_log.digest(tables.read(main))
    rules = {violation.rule for violation in check_archive(facts, folder, complete=True)}
    assert rules >= {"missing row": {"I5.missing"}, "altered byte": {"I5.altered"}}.get(fault, {"I5.file"})


def spoilt(rows: pa.Table, fault: str, random: Random) -> pa.Table:
    """The rows of an archive file, with one corrupted."""
    row = random.randrange(len(rows))
    if fault == "missing row":
        return pa.concat_tables([rows.slice(0, row), rows.slice(row + 1)])
    if fault == "doubled row":
        return pa.concat_tables([rows.slice(0, row), rows.slice(row, 1), rows.slice(row)])
    records = [bytes(record.as_py()) for record in rows.column("record")]
    at = random.randrange(len(records[row]))
    records[row] = records[row][:at] + bytes([records[row][at] ^ 1]) + records[row][at + 1 :]
    place = rows.schema.get_field_index("record")
    return rows.set_column(place, rows.schema.field(place), pa.array(records, rows.schema.field(place).type))


# ---------------------------------------------------------------- Kafka


class Copied(NamedTuple):
    """The world's log and feed in a broker, written by the test; the ledger contains two transactions."""

    source: KafkaSource
    topics: KafkaTopics
    ledger: Ledger


@pytest.fixture(scope="module")
def copied(world: World, kafka: Kafka) -> Copied:
    """Topics with the same partitions and offsets as the log table, and aborted records after the committed ones."""
    from kafka import KafkaAdminClient, KafkaProducer  # noqa: PLC0415  # 0.5 s that the other tests need not pay
    from kafka.admin import NewTopic  # noqa: PLC0415

    prefix = kafka.prefix()
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
        names = [f"{prefix}.{name}" for name in ("events", *TOPICS)]
        admin.create_topics([NewTopic(name, 4, 1) for name in names])
        admin.wait_for_topics(names)
    with world.product.databases() as (main, _):
        facts = check_log.digest(tables.read(main))
    ledger = Ledger()
    ledger.requests, ledger.answers = world.ledger.requests, world.ledger.answers
    with closing(KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=prefix)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        for (partition, _), value in sorted(facts.tables.log.items()):
            key = bytes.fromhex(json.loads(value)["route_key"])
            producer.send(f"{prefix}.events", value, key, partition=partition)
        for topic, found in published(facts).items():
            for message in found:
                producer.send(f"{prefix}.{topic}", message.value, message.key)
        producer.commit_transaction()
        producer.begin_transaction()
        for number, event in enumerate(facts.applied[:20]):
            value = json.dumps(event.raw | {"message_id": f"aborted-{number}"}, default=str).encode()
            producer.send(f"{prefix}.events", value, bytes.fromhex(event.route_key), partition=event.position[0])
            ledger.produced(Direct(("web", f"aborted-{number}"), value, ABORTED))
        producer.flush()
        producer.abort_transaction()
    counts = Counter(facts.tables.log.values())  # a repeat within a request is identical to the byte
    values = [facts.tables.log[event.position] for event in facts.applied[:40]]
    for value in (value for value in values if counts[value] == 1):
        ledger.produced(Direct((json.loads(value)["source"], json.loads(value)["message_id"]), value, COMMITTED))
    source = KafkaSource(kafka.bootstrap, f"{prefix}.events")
    return Copied(source, KafkaTopics(kafka.bootstrap, prefix), ledger)


def published(facts: check_log.Facts) -> dict[str, list[Message]]:
    """What a publisher writes: every change once, some twice, and states from a first one up to the last."""
    found: dict[str, list[Message]] = {topic: [] for topic in TOPICS}
    for change in check_feed.in_order(facts.tables.changes):
        message = Message(0, 0, text(change.profile), json.dumps(said(change)).encode())
        found[TOPIC_OF[change.type]] += [message] * (2 if change.version % 7 == 0 else 1)
        found[STATES].append(Message(0, 0, text(change.profile), b'{"version": 0}'))
    names = sorted(facts.tables.definitions["segments"])
    for change in facts.tables.changes:
        row = facts.tables.profiles.get(change.profile)
        mask = facts.tables.segment_masks.get(change.profile, 0)
        state = row and {
            "profile_id": str(UUID(change.profile)),
            "version": row.version,
            "lifecycle": row.lifecycle,
            "risk": {"level": row.risk},
            "segments": [name for index, name in enumerate(names) if mask >> index & 1],
        }
        found[STATES].append(Message(0, 0, text(change.profile), json.dumps(state).encode() if state else None))
    return found


def said(change: tables.ChangeRow) -> dict[str, Any]:
    """A change as in its topic."""
    event = None if change.cause_event is None else str(UUID(change.cause_event))
    return {
        "id": str(UUID(change.id)),
        "profile_id": str(UUID(change.profile)),
        "cause": {"kind": change.cause, "event_id": event, "definition_version": None},
        **{name: getattr(change, name) for name in ("type", "version", "name", "old", "new")},
    }


def text(profile: str) -> bytes:
    return str(UUID(profile)).encode()


def test_a_clean_log_and_clean_topics_in_kafka_have_no_violation(world: World, copied: Copied) -> None:
    with world.product.databases() as (main, vault):
        archive = world.product.data / "archive"
        found = check(*(main, copied.ledger), vault=vault, archive=archive, source=copied.source, topics=copied.topics)
        read = copied.source.read(main)
    assert found == []
    assert not read.gapless
    assert any(read.heads[partition] > offset + 2 for partition, offset in read.records), "no markers behind the log"
    assert [each.offset for each in messages(copied.source.bootstrap, copied.source.topic)] != []


def test_what_retention_removed_of_the_topic_is_read_from_the_archive(world: World, copied: Copied) -> None:
    from kafka import KafkaAdminClient, TopicPartition  # noqa: PLC0415  # as above

    with world.product.databases() as (main, vault):
        before = copied.source.read(main)
        removed = {TopicPartition(copied.source.topic, number): 40 + number for number in before.heads}
        short = KafkaSource(copied.source.bootstrap, copied.source.topic + "-short")
        shortened(before, short, removed)
        with closing(KafkaAdminClient(bootstrap_servers=short.bootstrap)) as admin:
            admin.delete_records({TopicPartition(short.topic, part.partition): to for part, to in removed.items()})
        rules = {violation.rule for violation in check(main, copied.ledger, source=short)}
        assert "I1.missing" in rules
        whole = KafkaSource(short.bootstrap, short.topic, world.product.data / "archive")
        assert check(main, copied.ledger, vault=vault, source=whole) == []


def shortened(log: LogRead, to: KafkaSource, removed: dict[Any, int]) -> None:
    """Write a second topic with the same records, for a test that removes some."""
    from kafka import KafkaAdminClient, KafkaProducer  # noqa: PLC0415  # as above
    from kafka.admin import NewTopic  # noqa: PLC0415

    with closing(KafkaAdminClient(bootstrap_servers=to.bootstrap)) as admin:
        admin.create_topics([NewTopic(to.topic, len(log.heads), 1)])
        admin.wait_for_topics([to.topic])
    with closing(KafkaProducer(bootstrap_servers=to.bootstrap)) as producer:
        for (partition, offset), value in sorted(log.records.items()):
            producer.send(to.topic, value, log.keys[partition, offset], partition=partition)


class Read(NamedTuple):
    """Both places, read once, for tests that corrupt copies."""

    tables: tables.Tables
    log: LogRead
    facts: check_log.Facts
    topics: dict[str, list[Message]]


@pytest.fixture(scope="module")
def read(world: World, copied: Copied) -> Read:
    with world.product.databases() as (main, _):
        log = copied.source.read(main)
        found = tables.read(main, ReadBefore(log))
    topics = {topic: list(copied.topics.read(topic)) for topic in TOPICS}
    return Read(found, log, check_log.digest(found), topics)


@pytest.mark.parametrize("plant", LOG_PLANTS)
def test_a_violation_planted_into_the_topic_of_events_is_found(read: Read, copied: Copied, plant: str) -> None:
    spoil, rules = LOG_PLANTS[plant]
    for place in range(PLACES):
        log = LogRead(dict(read.log.records), dict(read.log.heads), dict(read.log.keys), gapless=False)
        spoil(log, Random(f"{plant}/{place}"), copied.ledger)
        facts = check_log.digest(replace(read.tables, log=log.records, heads=log.heads, keys=log.keys))
        found = {*check_log.check_ledger(facts, copied.ledger), *check_log.check_register(facts)}
        assert rules & {violation.rule for violation in found}, f"{plant} at place {place}: {list(found)[:5]}"


@pytest.mark.parametrize("plant", TOPIC_PLANTS)
def test_a_violation_planted_into_the_topics_of_changes_is_found(read: Read, plant: str) -> None:
    spoil, rules = TOPIC_PLANTS[plant]
    for place in range(PLACES):
        topics = {topic: list(found) for topic, found in read.topics.items()}
        spoil(topics, Random(f"{plant}/{place}"))
        found = {violation.rule for violation in check_topics(read.facts, TopicsBefore(topics))}
        assert rules & found, f"{plant} at place {place}: {found}"


# ---------------------------------------------------------------- ledger


def test_a_refused_event_in_the_log_is_found(world: World) -> None:
    """The same log, but the sender remembers a 401 where the answer was 200."""
    altered = Ledger()
    altered.requests, altered.answers = world.ledger.requests, dict(world.ledger.answers)
    altered.answers[0] = Answer(401)
    with world.product.databases() as (main, _):
        rules = {violation.rule for violation in check(main, altered)}
    assert rules == {"I1.rejected"}


def test_a_wrong_sum_in_the_shown_profiles_is_found(world: World) -> None:
    shown = world.product.shown()
    profile = Random(0).choice(sorted(shown))
    row = shown[profile]
    cases = {
        "I3.revenue": row._replace(revenue=(row.revenue or Decimal(0)) + 1),
        "I3.orders": row._replace(orders=(row.orders or 0) + 1),
        "I3.count": row._replace(event_count=row.event_count + 1),
    }
    with world.product.databases() as (main, _):
        facts = check_log.digest(tables.read(main))
    for rule, altered in cases.items():
        assert {violation.rule for violation in check_views.check_shown(facts, shown | {profile: altered})} == {rule}


def test_the_ledger_is_read_back_as_it_was(world: World, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number, request in enumerate(world.ledger.requests):
        assert ledger.asked(request.source, request.items) == number
        ledger.answered(number, world.ledger.answers[number])
    ledger.close()
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"asked": 99999, "sour')  # torn by a kill
    again = Ledger.read(tmp_path / "ledger.jsonl")
    assert again.requests == world.ledger.requests
    assert again.outcomes() == world.ledger.outcomes()
