"""Everything that is read says the same, whether the log is Kafka or PostgreSQL's."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer

from infra.adapters.archive.store import ParquetArchive
from infra.adapters.kafka import topics as kafka_topics
from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.log import KafkaLog
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.log import PARTITIONS
from infra.app.adapters import build
from infra.app.checks import Finding
from infra.app.doctor import on_session as doctor_on
from infra.app.drain import drain
from infra.app.operations import operations_of
from infra.app.session import Session
from infra.app.settings import load
from infra.app.vault import vault_of
from infra.cli.status import measure
from infra.drivers.http.health import Health
from infra.drivers.sql.process import run_sql
from processors.archive.archiver import Archiver
from schemas.errors import NotFound, StoreUnavailable
from schemas.reads import Deployment
from schemas.topics import EVENTS
from tests.conftest import new_databases
from tests.kafka_broker import Cluster, Kafka
from tests.reading_world import DEPLOYMENT, NOW, ReadingWorld, reading_world

ADA = [("user_id", "ada"), ("email", "ada@example.com"), ("phone", "+14155552671")]
BEN = [("user_id", "ben")]
PAGES = 200  # of Ada's


class Sided(NamedTuple):
    """A world, its session, and its archive."""

    world: ReadingWorld
    here: Session
    archive: Path

    def sql(self, statement: str) -> list[list[Any]]:
        found = run_sql(
            statement,
            dsn=self.here.dsn,
            archive_folder=self.archive,
            kafka=self.here.adapters.kafka,
            now=self.world.clock.now(),
        )
        return list(found.rows())


def session_of(world: ReadingWorld, data: Path, kafka: KafkaAccess | None) -> Session:
    environment = {"TOUCHFOLD_MASTER_KEY": bytes(32).hex()}
    if kafka is not None:
        environment |= {
            "TOUCHFOLD_LOG": "kafka",
            "TOUCHFOLD_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "TOUCHFOLD_KAFKA_PREFIX": kafka.prefix,
            "TOUCHFOLD_KAFKA_INSECURE": "1",
        }
    settings = load(environment, data=data)
    adapters = build(settings)
    adapters.folder.make()
    main, vault = world.databases
    session = Session(settings, adapters, main, vault, "http://127.0.0.1:1", Deployment(**DEPLOYMENT))
    if kafka is not None:
        session.resources.once("kafka log", lambda: KafkaLog(kafka))  # without an archive before it
    return session


@pytest.fixture
def access(kafka: Kafka) -> KafkaAccess:
    """A topic of events of as many partitions as the tables."""
    access = KafkaAccess(kafka.bootstrap, prefix=kafka.prefix(), insecure=True)
    make_topic(access)
    return access


def make_topic(access: KafkaAccess) -> None:
    environment = {"TOUCHFOLD_KAFKA_PARTITIONS": str(PARTITIONS), "TOUCHFOLD_KAFKA_REPLICATION": "1"}
    kafka_topics.apply(access, load(environment, data=Path("none")))


@pytest.fixture
def sides(server: EmbeddedPostgres, access: KafkaAccess, tmp_path: Path) -> Iterator[tuple[Sided, Sided]]:
    """The same story told to a log in PostgreSQL's tables and to one in Kafka, folded and decided."""
    with ExitStack() as opened:
        made = []
        for name, kafka in (("tables", None), ("kafka", access)):
            world = opened.enter_context(reading_world(new_databases(server), kafka))
            here = opened.enter_context(closing(session_of(world, tmp_path / name, kafka)))
            tell(world)
            made.append(Sided(world, here, tmp_path / name / "archive"))
        yield made[0], made[1]


def tell(world: ReadingWorld) -> None:
    names = {"first_name": "Ada", "last_name": "Lovelace"}
    world.send(ADA, type_="profile.identified", sealed={"traits": names}, message_id="who", at=NOW - timedelta(days=40))
    for number in range(PAGES):
        at = NOW - timedelta(days=30) + timedelta(minutes=number * 37 % 30_000)
        received = NOW - timedelta(days=2) + timedelta(seconds=number)
        world.send(ADA[:1], at=at, received_at=received, message_id=f"page-{number}", properties={"page": number})
    world.purchase(ADA[:1], "o1", "40.00", 9)
    world.purchase(ADA[1:2], "o2", "100.00", 3)
    world.purchase(BEN, "o3", "7.50", 1)
    world.send(BEN, message_id="twice", at=NOW - timedelta(days=1))
    world.send(BEN, message_id="twice", at=NOW - timedelta(days=1))
    world.settle()


def without_ids(item: Mapping[str, Any]) -> dict[str, Any]:
    """What of an answer is not random."""
    return {name: value for name, value in item.items() if name not in ("id", "profile_id")}


def timeline(side: Sided, limit: int, types: frozenset[str] | None = None) -> list[dict[str, Any]]:
    reading = side.world.reading
    (ada,) = reading.reads.owners(side.world.vault.tokens(ADA[:1]))
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = reading.timeline.page(ada, cursor, limit, personal=True, types=types)
        found += [without_ids(item) for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            return found


def archived(side: Sided) -> list[int]:
    """All that is applied into the archive; where that ends."""
    with closing(ParquetArchive(side.archive)) as store:
        log = side.world.services.log
        Archiver(log, store, side.world.clock, log.ends, "USD", gaps=side.here.adapters.kafka is not None).flush()
        return store.next_offsets()


def aborted(access: KafkaAccess, partition: int) -> None:
    """Records of a transaction that was taken back: offsets that nobody ever sees a record at."""
    producer = Producer(access.confluent() | {"transactional.id": f"{access.prefix}-aborted"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(3):
        producer.produce(access.topic(EVENTS), b'{"never": %d}' % number, bytes(16), partition)
    producer.flush(30)
    producer.abort_transaction(30)


EVENTS_SQL = "select message_id, type, revenue, order_id, occurred_at from events order by 1, 2"
ORDERS_SQL = "select order_id, revenue, refunded, occurred_at, items from orders order by 1"
COUNTS_SQL = "select count(*), count(distinct profile_id), count(distinct id) from events"


def test_sql_says_the_same_of_the_tail_the_archive_and_both(sides: tuple[Sided, Sided], access: KafkaAccess) -> None:
    for partition in range(PARTITIONS):
        aborted(access, partition)
    for _ in ("all in the tail", "all archived", "some in each"):
        tables, kafka = ([side.sql(each) for each in (EVENTS_SQL, ORDERS_SQL)] for side in sides)
        assert tables == kafka
        assert tables[0], "there are events"
        for side in sides:
            assert archived(side) >= side.world.reading.reads.next_offsets(1)
            side.world.purchase(BEN, f"after-{side.world.execute('select count(*) from register')[0][0]}", "3.25", 0.5)
            side.world.settle()
    assert sides[1].sql(COUNTS_SQL) == [[PAGES + 5 + 3, 2, PAGES + 5 + 3]]


def test_an_analyst_reads_no_broker_and_is_told_when_it_is_away(sides: tuple[Sided, Sided], tmp_path: Path) -> None:
    kafka = sides[1]
    assert kafka.sql("select count(*) from profiles") == [[2]]
    nowhere = KafkaAccess("127.0.0.1:1", insecure=True)
    away = Sided(kafka.world, session_of(kafka.world, tmp_path / "away", nowhere), tmp_path / "away" / "archive")
    with closing(away.here):
        assert away.sql("select count(*) from profiles") == [[2]], "nothing of the log is asked for"
        with pytest.raises(StoreUnavailable):
            away.sql("select count(*) from events")


def test_the_timeline_is_the_same(sides: tuple[Sided, Sided]) -> None:
    tables, kafka = (timeline(side, 50) for side in sides)
    assert tables == kafka
    assert len(tables) == PAGES + 3
    assert tables[-1]["traits"] == {"first_name": "Ada", "last_name": "Lovelace"}
    only = frozenset({"purchase.completed"})
    assert timeline(sides[0], 1, only) == timeline(sides[1], 1, only)


def test_a_profile_and_its_details_are_the_same_with_direct_traits(sides: tuple[Sided, Sided]) -> None:
    tables, kafka = (without_ids(side.world.reading.profiles.by_selector("email:ada@example.com")) for side in sides)
    assert tables == kafka
    assert tables["traits"]["first_name"] == "Ada"
    for side in sides:
        (ada,) = side.world.reading.reads.owners(side.world.vault.tokens(ADA[:1]))
        details = side.world.reading.profiles.details(ada, personal=True)
        assert details["trait_details"]["first_name"]["source"] == "web"
        hits = side.world.reading.search.find("ada")
        assert [hit["name"] for hit in hits["items"]] == ["Ada Lovelace"]


def test_an_event_is_found_whatever_became_of_it(sides: tuple[Sided, Sided], access: KafkaAccess) -> None:
    for side in sides:
        status = side.world.reading.events.status
        assert status("who")["status"] == "applied"
        assert (status("twice")["status"], status("twice")["duplicates"]) == ("applied", 1)
        side.world.send(BEN, message_id="waits")
    aborted(access, 0)
    for side in sides:
        status = side.world.reading.events.status
        assert status("waits")["status"] == "pending"
        with pytest.raises(NotFound):
            status("never")
        side.world.settle()
        assert status("waits")["status"] == "applied"


def test_operators_see_the_same(sides: tuple[Sided, Sided], access: KafkaAccess) -> None:
    for partition in range(PARTITIONS):
        aborted(access, partition)
    states, arrivals = [], []
    for side in sides:
        with closing(operations_of(side.here, ParquetArchive(side.archive))) as operations:
            state = operations.state(NOW)
            states.append({name: state[name] for name in ("accepted", "applied", "waiting", "profiles", "archived")})
            ends = operations.ends()
            arrived = operations.arrived([max(0, end - 10) for end in ends], 10)
            arrivals.append([each.message_id for each in arrived])
            assert all(each.applied for each in arrived)
            side.world.send(BEN, message_id="new", received_at=NOW)
            (new,) = operations.arrived(ends, 10)
            assert (new.message_id, new.applied) == ("new", False)
            side.world.settle()
    assert states[0]["waiting"] == states[1]["waiting"] == 0
    assert states[0]["profiles"] == states[1]["profiles"] == 2
    assert [state["accepted"] - state["applied"] for state in states] == [0, 0]
    assert arrivals[0], "something arrived"
    assert set(arrivals[0]) & set(arrivals[1])


def test_health_status_doctor_and_settle_agree_on_the_lag(sides: tuple[Sided, Sided], access: KafkaAccess) -> None:
    for side in sides:
        health = Health(side.here)
        drain(side.here, lambda _line: None)
        looked = health.look()
        assert (looked["database"], looked["log"], looked["lag"]) == ("ok", "ok", 0)
        side.world.send(BEN, message_id="later")
        told = measure(side.here)
        assert (told["ready"], told["lag"], told["archived"]) == (False, 1, 0)
        eventually(health, "lag", 1)
        side.world.settle()
    for partition in range(PARTITIONS):
        aborted(access, partition)
    for side in sides:
        drain(side.here, lambda _line: None)
        assert measure(side.here)["lag"] == 0
        archived(side)
        found = {each.check: each for each in doctor_on(side.here)}
        for check in ("log", "progress", "archive"):
            assert found[check].ok, found[check]


def test_the_doctor_says_which_topic_is_not_safe(sides: tuple[Sided, Sided]) -> None:
    access = sides[1].here.adapters.kafka
    assert access is not None
    with closing(session_of(sides[1].world, sides[1].archive / "other", replace(access, prefix="nobody"))) as here:
        found: dict[str, Finding] = {each.check: each for each in doctor_on(here)}
    assert not found["log"].ok
    assert "nobody.events" in found["log"].detail
    assert "touchfold topics apply" in found["log"].fix


def test_the_doctor_names_progress_that_is_ahead_of_the_log(sides: tuple[Sided, Sided]) -> None:
    for side in sides:
        side.world.execute("update progress set next_offset = next_offset + 1000000 where partition = 2")
        found: dict[str, Finding] = {each.check: each for each in doctor_on(side.here)}
        assert not found["progress"].ok
        assert "partition 2" in found["progress"].detail


def eventually(health: Health, name: str, value: object) -> None:
    """What was just looked at is told for a moment longer."""
    deadline = time.monotonic() + 30
    while (found := health.look())[name] != value:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_health_says_that_the_brokers_are_away_and_when_they_are_back(server: EmbeddedPostgres, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster")
    cluster.start()
    try:
        access = KafkaAccess(cluster.bootstrap, insecure=True)
        make_topic(access)
        with (
            reading_world(new_databases(server), access) as world,
            closing(session_of(world, tmp_path / "data", access)) as here,
        ):
            vault_of(here).hold_lease()
            health = Health(here, grace_s=4.0)
            eventually(health, "status", "ok")
            cluster.pause(cluster.nodes[0])
            eventually(health, "log", StoreUnavailable.code)
            assert health.look()["ready"], "for a moment it may be a change of leaders"
            assert (health.look()["accepted"], health.look()["lag"]) == (None, None)
            eventually(health, "status", "unavailable")
            assert health.look()["database"] == "ok"
            serves = Health(here, "api")
            eventually(serves, "status", "degraded")
            assert serves.look()["ready"], "the API goes on without Kafka"
            assert serves.answer()[0] == 200
            cluster.go_on(cluster.nodes[0])
            eventually(health, "status", "ok")
    finally:
        cluster.stop()


def test_another_producer_s_open_transaction_is_lag_and_ends_no_wait(
    sides: tuple[Sided, Sided], access: KafkaAccess
) -> None:
    side = sides[1]
    producer = Producer(access.confluent() | {"transactional.id": f"{access.prefix}-open"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for partition in range(PARTITIONS):
        producer.produce(access.topic(EVENTS), b'{"never": 1}', bytes(16), partition)
    producer.flush(30)
    side.world.send(BEN, message_id="behind")  # acknowledged, and nobody can read it yet
    side.world.settle()
    told = measure(side.here)
    assert told["lag"] >= 1
    assert {each["code"] for each in told["waiting"]} == {"open_transaction"}
    assert all(each["since"] is None and "transaction.timeout.ms" in each["remedy"] for each in told["waiting"])
    waits = threading.Thread(target=drain, args=(side.here, lambda _line: None))
    waits.start()
    waits.join(2)
    assert waits.is_alive(), "it would say that all is applied"
    producer.abort_transaction(30)
    deadline = time.monotonic() + 60
    while waits.is_alive():
        side.world.settle()
        assert time.monotonic() < deadline
        waits.join(0.1)
    told = measure(side.here)
    assert (told["lag"], told["waiting"]) == (0, [])
    assert side.world.reading.events.status("behind")["status"] == "applied"
