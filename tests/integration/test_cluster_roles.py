"""The roles of a cluster as processes of their own on one Kafka and one PostgreSQL, each with its own data folder."""

import json
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.topics import apply
from infra.app.adapters import kafka_access
from infra.app.settings import load
from schemas.topics import INBOX, SEGMENT_CHANGES
from tests.conftest import Databases
from tests.integration.running import Up, command, result, until
from tests.integration.test_probes import probe
from tests.kafka_broker import Kafka, free_port
from tests.secure_kafka import SecureCluster

KAFKA_MD = Path(__file__).parents[2] / "docs" / "kafka.md"
ROLES = ("ingest", "worker", "archive", "publish", "serve")
PROBED = ("ingest", "worker", "publish")  # the others show what is told without a probe


def settings_of(kafka: Kafka, databases: Databases) -> dict[str, str]:
    """What all roles share."""
    return {
        **{"LOG": "kafka", "KAFKA_BOOTSTRAP": kafka.bootstrap, "KAFKA_INSECURE": "1", "KAFKA_PREFIX": kafka.prefix()},
        **{"KAFKA_PARTITIONS": "3", "KAFKA_REPLICATION": "1", "UI": "off"},
        **{"DATABASE": databases.main, "VAULT": databases.vault, "MASTER_KEY": secrets.token_hex(32)},
    }


def access_of(settings: dict[str, str]) -> KafkaAccess:
    """The topics are there afterwards."""
    loaded = load({f"TOUCHFOLD_{name}": value for name, value in settings.items()})
    access = kafka_access(loaded)
    assert access is not None
    apply(access, loaded)
    return access


@pytest.fixture
def cluster(
    kafka: Kafka, databases: Databases, tmp_path: Path
) -> Iterator[tuple[dict[str, Up], dict[str, str], KafkaAccess]]:
    settings = settings_of(kafka, databases) | {"ARCHIVE": str(tmp_path / "archive"), "DOORS": "1"}
    access = access_of(settings)
    running = {
        role: Up(tmp_path / role, role=role, **settings, **({"PROBE_PORT": str(free_port())} if role in PROBED else {}))
        for role in ROLES
    }
    try:
        for each in running.values():
            each.wait_ready()
        yield running, settings, access
    finally:
        for each in running.values():
            each.stop()


def test_what_one_role_accepts_another_folds_a_third_publishes_and_a_fourth_answers(
    cluster: tuple[dict[str, Up], dict[str, str], KafkaAccess], tmp_path: Path
) -> None:
    roles, settings, access = cluster
    at = ("--data", str(tmp_path / "serve"))
    key = result("source", "create", "web", *at, **settings)["write_key"]
    for number in range(30):
        item = {
            "userId": f"u{number % 10}",
            "event": "Order Completed",
            "properties": {"order_id": f"o{number}", "revenue": 90},
        }
        assert roles["ingest"].send(key, "track", item).status == 200
    command("status", "--wait", *at, **settings)
    profile = result("profile", "user_id:u3", *at, **settings)
    assert (profile["event_count"], profile["computed"]["lifetime_revenue"]) == (3, "270.0000")
    status = result("status", *at, **settings)
    assert (status["accepted"], status["applied"], status["lag"]) == (30, 30, 0)
    assert result("sql", "select count(*) as n from events", *at, **settings) == [{"n": 30}]
    assert roles["serve"].get("/health").body["status"] == "ok"
    until(lambda: {change["name"] for change in published(access)} >= {"reachable_customers"}, "segment changes")
    assert result("rebuild", "--check", *at, **settings)["equal"] is True


def published(access: KafkaAccess) -> list[dict[str, Any]]:
    """Every segment change on the topic so far."""
    from kafka import KafkaConsumer, TopicPartition  # noqa: PLC0415

    with closing(KafkaConsumer(**access.kafka_python(), isolation_level="read_committed")) as consumer:
        parts = [TopicPartition(access.topic(SEGMENT_CHANGES), number) for number in range(3)]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        ends = consumer.end_offsets(parts)
        found = []
        while any(consumer.position(part) < ends[part] for part in parts):
            for records in consumer.poll(timeout_ms=500).values():
                found += [json.loads(record.value) for record in records]
    return found


def test_every_role_can_be_asked(cluster: tuple[dict[str, Up], dict[str, str], KafkaAccess], tmp_path: Path) -> None:
    roles, settings, _ = cluster
    result("source", "create", "web", "--data", str(tmp_path / "serve"), **settings)
    with ThreadPoolExecutor(3) as pool:
        told = dict(zip(ROLES, pool.map(lambda role: command(*asked(tmp_path, role), **settings), ROLES), strict=True))
        doctors = pool.map(lambda role: command("doctor", *asked(tmp_path, role)[1:], **settings), ROLES)
        examined = dict(zip(ROLES, doctors, strict=True))
    for role in ROLES:
        assert told[role].returncode == 0, (role, told[role].stderr)
        assert json.loads(told[role].stdout)["ready"] is True, role
        findings = {each["check"]: each for each in json.loads(examined[role].stdout)}
        assert f"touchfold {role} is running" in findings["lock"]["detail"]
        assert [each for each in findings.values() if not each["ok"]] == [], role
        assert examined[role].returncode == 0, role
        assert ("ready" in findings) == (role in PROBED)
    for role in PROBED:
        note = json.loads((tmp_path / role / "run.json").read_text())
        assert note["role"] == role
        port = int(note["probe"].rpartition(":")[2])
        until(lambda port=port: probe(port, "/ready")[0] == 200, f"{role} to be ready")  # type: ignore[misc]
        assert probe(port, "/live") == (200, {"live": True, "role": role, "problems": []})
        assert f'touchfold_role_ready{{command="{role}"}} 1' in probe(port, "/metrics")[1]
    roles["publish"].stop()
    assert result("status", *asked(tmp_path, "publish")[1:-1], **settings)["ready"] is False, "it does not run"


def asked(tmp_path: Path, role: str) -> tuple[str, ...]:
    return ("status", "--data", str(tmp_path / role), "--json")


def test_each_edge_says_where_the_other_one_is(cluster: tuple[dict[str, Up], dict[str, str], KafkaAccess]) -> None:
    roles, _, _ = cluster
    assert "touchfold ingest" in roles["serve"].send("key", "track", {}).body["message"]
    answer = roles["ingest"].get("/api/v1/segments")
    assert (answer.status, "touchfold serve" in answer.body["message"]) == (404, True)


def test_a_worker_that_dies_is_replaced_by_another_machine_s(
    cluster: tuple[dict[str, Up], dict[str, str], KafkaAccess], tmp_path: Path
) -> None:
    roles, settings, _ = cluster
    at = ("--data", str(tmp_path / "serve"))
    key = result("source", "create", "web", *at, **settings)["write_key"]
    other = Up(tmp_path / "worker2", role="worker", **settings)
    try:
        other.wait_ready()
        roles["worker"].process.kill()
        for number in range(20):
            item = {"userId": f"w{number}", "event": "Visited"}
            assert roles["ingest"].send(key, "track", item).status == 200
        until(lambda: result("status", *at, **settings)["lag"] == 0, "the other worker to fold everything")
        assert result("rebuild", "--check", *at, **settings)["equal"] is True
    finally:
        other.stop()


def test_a_role_without_what_it_needs_says_what(tmp_path: Path) -> None:
    for role in ROLES:
        told = command(role, "--data", str(tmp_path))
        assert (told.returncode, "TOUCHFOLD_LOG=kafka" in told.stderr) == (1, True)
    told = command("worker", "--data", str(tmp_path), LOG="kafka", KAFKA_BOOTSTRAP="localhost:1")
    assert (told.returncode, "TOUCHFOLD_DATABASE" in told.stderr) == (1, True)


def test_a_topic_that_was_made_anew_is_another_log(kafka: Kafka, databases: Databases, tmp_path: Path) -> None:
    from kafka import KafkaAdminClient  # noqa: PLC0415

    settings = settings_of(kafka, databases)
    access = access_of(settings)
    assert result("status", "--data", str(tmp_path / "one"), **settings)["accepted"] == 0
    with closing(KafkaAdminClient(**access.kafka_python())) as admin:
        admin.delete_topics([access.topic("events")])
    until(lambda: "missing" in command("topics", "plan", **settings).stdout, "the topic to be gone")
    access_of(settings)
    told = command("status", "--data", str(tmp_path / "one"), **settings)
    assert (told.returncode, "was deleted and recreated" in told.stderr) == (1, True), told.stderr
    kept = {name: settings[name] for name in ("DATABASE", "VAULT", "MASTER_KEY")}
    back = command("status", "--data", str(tmp_path / "one"), **kept)
    assert (back.returncode, "set TOUCHFOLD_LOG=kafka" in back.stderr) == (1, True), back.stderr


def test_partitions_that_the_topic_is_given_are_used_by_all_roles_without_a_restart(
    kafka: Kafka, databases: Databases, tmp_path: Path
) -> None:
    settings = settings_of(kafka, databases)
    access = access_of(settings)
    at = ("--data", str(tmp_path / "one"))
    up = Up(tmp_path / "one", **settings)
    try:
        up.wait_ready()
        processes = {role: up.pids(role) for role in ("http", "worker", "archive", "publish", "inbox")}
        key = result("source", "create", "web", *at, **settings)["write_key"]
        sent = 0

        def send_each() -> None:
            """The next event of each of 12 customers."""
            nonlocal sent
            for number in range(12):
                item = {"userId": f"p{number}", "event": f"Step {sent // 12}", "messageId": f"m{sent}"}
                assert up.send(key, "track", item).status == 200
                sent += 1

        send_each()
        access_of(settings | {"KAFKA_PARTITIONS": "7"})

        def spread() -> bool:
            send_each()
            return any(max(numbers) > 2 for numbers in numbers_by_customer(access, 7).values())

        until(spread, "the door to use the new partitions")
        send_each()
        repeat = {"userId": "p0", "event": "Step 0", "messageId": "m0"}
        assert up.send(key, "track", repeat).status == 200  # its first copy is in another partition, perhaps
        assert command("status", "--wait", *at, **settings).returncode == 0
        counted = "select count(*) as n, count(distinct profile_id) as p from events"
        assert result("sql", counted, *at, **settings) == [{"n": sent, "p": 12}]
        assert result("profile", "user_id:p3", *at, **settings)["event_count"] == sent // 12
        assert result("status", *at, **settings)["lag"] == 0
        check_rebuild = result("rebuild", "--check", *at, **settings)
        assert (check_rebuild["equal"], check_rebuild["profiles"]) == (True, 12)
        until(lambda: result("status", *at, **settings)["archived"] > sent, "the archive to have all of them")
        assert result("sql", counted, *at, **settings) == [{"n": sent, "p": 12}]
        for route, numbers in numbers_by_customer(access, 7).items():  # first the old partition, then the new one
            old, new = (int(route[:8], 16) % count for count in (3, 7))
            assert numbers.keys() <= {old, new}
            whole = numbers[old] + (numbers.get(new, []) if new != old else [])
            assert whole == sorted(whole)
        assert {role: up.pids(role) for role in processes} == processes
    finally:
        up.stop()


def numbers_by_customer(access: KafkaAccess, partitions: int) -> dict[str, dict[int, list[int]]]:
    """By route key and partition the numbers of the messages as they lie there; without the one that is repeated."""
    from kafka import KafkaConsumer, TopicPartition  # noqa: PLC0415

    found: dict[str, dict[int, list[int]]] = {}
    with closing(KafkaConsumer(**access.kafka_python(), isolation_level="read_committed")) as consumer:
        parts = [TopicPartition(access.topic("events"), number) for number in range(partitions)]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        ends = consumer.end_offsets(parts)
        while any(consumer.position(part) < ends[part] for part in parts):
            for part, records in consumer.poll(timeout_ms=500).items():
                for value in (json.loads(record.value) for record in records):
                    if value["message_id"] != "m0":
                        numbers = found.setdefault(value["route_key"], {}).setdefault(part.partition, [])
                        numbers.append(int(value["message_id"][1:]))
    return found


@pytest.mark.parametrize("runner", ["faust", "aiokafka"])
def test_every_client_of_ours_shows_a_certificate_logs_in_and_needs_no_right_but_those_told(
    kafka: Kafka, databases: Databases, tmp_path: Path, runner: str
) -> None:
    cluster = SecureCluster(tmp_path / "broker", acls=True)
    cluster.start()
    cluster.grant(runner, told_rights())
    secure, operator = cluster.access(runner), cluster.operator(runner)
    settings = settings_of(kafka, databases) | {
        **{"KAFKA_BOOTSTRAP": secure.bootstrap, "KAFKA_PREFIX": secure.prefix, "WORKER_RUNNER": runner},
        **{"KAFKA_TLS_CA": str(secure.tls_ca), "KAFKA_TLS_CERT": str(secure.tls_cert)},
        **{"KAFKA_TLS_KEY": str(secure.tls_key), "KAFKA_SASL": str(secure.sasl)},
        **{"KAFKA_USERNAME": str(secure.username), "KAFKA_PASSWORD": str(secure.password)},
    }
    at = ("--data", str(tmp_path / "one"))
    try:
        access_of(settings | {"KAFKA_SASL": str(operator.sasl), "KAFKA_USERNAME": str(operator.username)})
        access = secure
        up = Up(tmp_path / "one", **settings)
        try:
            up.wait_ready()
            key = result("source", "create", "web", *at, **settings)["write_key"]
            write_to_inbox(access, key, {"type": "track", "userId": "s1", "event": "Visited", "messageId": "m1"})
            order = {"userId": "s1", "event": "Order Completed", "properties": {"order_id": "o1", "revenue": 900}}
            assert up.send(key, "track", order).status == 200
            until(lambda: result("status", *at, **settings)["applied"] == 2, "both to be folded")
            until(lambda: {change["name"] for change in published(access)} >= {"reachable_customers"}, "the changes")
            assert result("rebuild", "--check", *at, **settings)["equal"] is True
        finally:
            up.stop()
    finally:
        cluster.stop()


def told_rights() -> dict[tuple[str, str], list[str]]:
    """What docs/kafka.md says that our account needs: rights by (kind of resource, beginning of the name)."""
    rows = re.findall(
        r"^\| ([a-z ]+) \| `?([^`|]*?)`? ?\| (`.*`) \|$", KAFKA_MD.read_text().split("### Rights")[1], re.M
    )
    kinds = {"topics": "TOPIC", "groups": "GROUP", "transactional ids": "TRANSACTIONAL_ID"}
    rights = {(kinds[kind], name): re.findall("`([A-Z_]+)`", words) for kind, name, words in rows if kind in kinds}
    assert {kind for kind, _ in rights} == set(kinds.values())
    return rights


def write_to_inbox(access: KafkaAccess, key: str, item: dict[str, Any]) -> None:
    """As a system that writes Kafka instead of HTTP."""
    from kafka import KafkaProducer  # noqa: PLC0415

    with closing(KafkaProducer(**access.kafka_python(), acks="all")) as producer:
        headers = [("writekey", key.encode())]
        producer.send(access.topic(INBOX), json.dumps(item).encode(), b"s1", headers=headers).get(30)
