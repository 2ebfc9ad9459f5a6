"""Topics: planned, made, checked. Against a real broker, and the command in this process."""

import json
import time
import warnings
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from typer.testing import CliRunner

from infra.adapters.kafka import topics as kafka_topics
from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.log import KafkaLog
from infra.adapters.kafka.topics import DAY_MS, Finding, Step
from infra.app.settings import Settings, load
from infra.cli.main import build_app, run
from schemas.errors import ServiceFailed, StoreUnavailable
from schemas.record import Pending
from schemas.topics import EVENTS, INBOX, PROFILE_CHANGES, PROFILES, TOPICS
from tests.kafka_broker import Kafka

with warnings.catch_warnings():  # it loads its message schemas by an old call
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

WAIT_S = 30.0
WEEK_MS = 7 * DAY_MS


@pytest.fixture
def access(kafka: Kafka) -> KafkaAccess:
    return KafkaAccess(kafka.bootstrap, prefix=kafka.prefix(), insecure=True)


def settings(access: KafkaAccess, **more: object) -> Settings:
    environ = {
        "TOUCHFOLD_LOG": "kafka",
        "TOUCHFOLD_KAFKA_BOOTSTRAP": access.bootstrap,
        "TOUCHFOLD_KAFKA_PREFIX": access.prefix,
        "TOUCHFOLD_KAFKA_INSECURE": "1",
        "TOUCHFOLD_KAFKA_PARTITIONS": "2",
        "TOUCHFOLD_KAFKA_REPLICATION": "1",
    }
    return load(environ | {f"TOUCHFOLD_{key.upper()}": str(value) for key, value in more.items()})


def states(steps: list[Step], access: KafkaAccess) -> dict[str, str]:
    return {step.topic.removeprefix(access.prefix + "."): step.state for step in steps}


def step_of(steps: list[Step], access: KafkaAccess, name: str) -> Step:
    [found] = [step for step in steps if step.topic == access.topic(name)]
    return found


def alter(access: KafkaAccess, name: str, config: Mapping[str, str]) -> None:
    with closing(KafkaAdminClient(**access.kafka_python())) as admin:
        told = admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, access.topic(name), dict(config))])
    assert told["topic"] == {access.topic(name): "OK"}


def config_of(access: KafkaAccess, name: str) -> dict[str, str]:
    topic = access.topic(name)
    with closing(KafkaAdminClient(**access.kafka_python())) as admin:
        told = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    return {key: entry["value"] for key, entry in told["topic"][topic].items()}


def reasons(findings: list[Finding], access: KafkaAccess, name: str) -> list[str]:
    return [each.reason for each in findings if each.topic == access.topic(name)]


def grave(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if not each.forgiven]


# --- plan and apply ----------------------------------------------------------------------------------------------


def test_a_plan_of_nothing_makes_all_and_then_nothing_is_left_to_do(access: KafkaAccess) -> None:
    chosen = settings(access)
    planned = kafka_topics.plan(access, chosen)
    assert states(planned, access) == dict.fromkeys(TOPICS, "missing")
    assert states(kafka_topics.plan(access, chosen), access) == dict.fromkeys(TOPICS, "missing"), "a plan makes nothing"
    assert kafka_topics.apply(access, chosen) == planned
    assert states(kafka_topics.plan(access, chosen), access) == dict.fromkeys(TOPICS, "ok")
    assert states(kafka_topics.apply(access, chosen), access) == dict.fromkeys(TOPICS, "ok")
    for name in TOPICS:
        made = config_of(access, name)
        assert made["unclean.leader.election.enable"] == "false"
        for change in step_of(planned, access, name).changes:
            assert made[change.what] == change.wants, f"{change.what} of {name}"


def test_topics_keep_what_is_written_of_them(access: KafkaAccess) -> None:
    kafka_topics.apply(access, settings(access))
    events, inbox, changes, profiles = (config_of(access, name) for name in (EVENTS, INBOX, PROFILE_CHANGES, PROFILES))
    assert int(events["retention.ms"]) == 30 * DAY_MS
    assert int(inbox["retention.ms"]) + int(inbox["segment.ms"]) <= DAY_MS / 2, "clear text stays for hours"
    assert int(changes["retention.ms"]) + int(changes["segment.ms"]) < WEEK_MS, "personal values may be granted to it"
    assert profiles["cleanup.policy"] == "compact"


def test_what_differs_is_named_and_put_right(access: KafkaAccess) -> None:
    chosen = settings(access)
    kafka_topics.apply(access, chosen)
    alter(access, EVENTS, {"cleanup.policy": "compact", "unclean.leader.election.enable": "true"})
    alter(access, INBOX, {"retention.ms": "-1"})
    planned = kafka_topics.plan(access, chosen)
    assert states(planned, access) == dict.fromkeys(TOPICS, "ok") | {EVENTS: "differing", INBOX: "differing"}
    events = {change.what: (change.has, change.wants) for change in step_of(planned, access, EVENTS).changes}
    assert events == {
        "cleanup.policy": ("compact", "delete"),
        "unclean.leader.election.enable": ("true", "false"),
    }
    assert [change.what for change in step_of(planned, access, INBOX).changes] == ["retention.ms"]
    assert reasons(grave(kafka_topics.check(access)), access, EVENTS)
    kafka_topics.apply(access, chosen)
    assert states(kafka_topics.plan(access, chosen), access) == dict.fromkeys(TOPICS, "ok")
    assert grave(kafka_topics.check(access)) == []


@pytest.mark.parametrize("retention_ms", [-1, DAY_MS, 90 * DAY_MS])
def test_a_longer_or_shorter_life_of_the_log_is_the_operators_choice(access: KafkaAccess, retention_ms: int) -> None:
    chosen = settings(access)
    kafka_topics.apply(access, chosen)
    alter(access, EVENTS, {"retention.ms": str(retention_ms)})
    assert step_of(kafka_topics.apply(access, chosen), access, EVENTS).state == "ok"
    assert config_of(access, EVENTS)["retention.ms"] == str(retention_ms)
    assert grave(kafka_topics.check(access)) == []


def test_events_and_inbox_grow_and_topics_of_profiles_never(access: KafkaAccess) -> None:
    kafka_topics.apply(access, settings(access))
    more = settings(access, kafka_partitions=5)
    planned = kafka_topics.plan(access, more)
    grown = {EVENTS: "differing", INBOX: "differing"}
    assert states(planned, access) == dict.fromkeys(TOPICS, "ok") | grown
    [change] = step_of(planned, access, EVENTS).changes
    assert (change.what, change.has, change.wants) == ("partitions", "2", "5")
    kafka_topics.apply(access, more)
    sizes = {name: kafka_topics.describe(access, access.topic(name))[1] for name in TOPICS}
    assert sizes == dict.fromkeys(TOPICS, 2) | {EVENTS: 5, INBOX: 5}
    assert states(kafka_topics.plan(access, settings(access)), access) == dict.fromkeys(TOPICS, "ok"), "never fewer"
    with closing(KafkaLog(access, 5, 1)) as log:
        assert log.append([Pending(bytes([0, 0, 0, 4]) + bytes(12), b"x")]) == [(4, 0)]


def test_more_replicas_than_brokers_is_an_error_and_more_than_a_topic_has_is_work_by_hand(access: KafkaAccess) -> None:
    with pytest.raises(ServiceFailed, match=r"replication factor of 3|Replication"):
        kafka_topics.apply(access, settings(access, kafka_replication=3))
    kafka_topics.apply(access, settings(access))
    events = step_of(kafka_topics.apply(access, settings(access, kafka_replication=3)), access, EVENTS)
    assert (events.state, events.by_hand) == ("differing", True)
    assert [change.what for change in events.changes if change.by_hand] == ["replication"]


# --- every start -------------------------------------------------------------------------------------------------


def test_a_start_refuses_missing_topics_and_says_what_to_run(access: KafkaAccess) -> None:
    with pytest.raises(ServiceFailed, match="touchfold topics apply") as caught:
        kafka_topics.ensure(access, settings(access), 0, print)
    assert {problem.path for problem in caught.value.problems} == {access.topic(name) for name in TOPICS}


def test_one_replica_is_forgiven_where_insecure_is_told_and_said(access: KafkaAccess) -> None:
    kafka_topics.apply(access, settings(access))
    said: list[str] = []
    kafka_topics.ensure(access, settings(access), 2, said.append)
    assert len(said) == len(TOPICS)
    assert all("replication factor 1" in line for line in said)
    with pytest.raises(ServiceFailed, match=r"replication factor 1[\s\S]*TOUCHFOLD_KAFKA_INSECURE"):
        kafka_topics.ensure(access, settings(access, kafka_insecure=0), 2, said.append)


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        (EVENTS, {"retention.ms": "60000"}, "retention.ms 60000"),
        (EVENTS, {"retention.bytes": "1000000"}, "retention.bytes 1000000"),
        (EVENTS, {"unclean.leader.election.enable": "true"}, "unclean.leader.election.enable true"),
        (EVENTS, {"cleanup.policy": "compact"}, "cleanup.policy compact"),
        (INBOX, {"retention.ms": "-1"}, "retention.ms -1"),
        (PROFILES, {"cleanup.policy": "delete"}, "cleanup.policy delete"),
    ],
)
def test_what_loses_records_is_never_forgiven(
    access: KafkaAccess, name: str, config: dict[str, str], reason: str
) -> None:
    kafka_topics.apply(access, settings(access))
    alter(access, name, config)
    assert reasons(grave(kafka_topics.check(access)), access, name) == [reason]
    with pytest.raises(ServiceFailed, match=reason):
        kafka_topics.ensure(access, settings(access), 0, print)


def test_a_topic_with_fewer_partitions_than_the_database_knows_is_another_topic(access: KafkaAccess) -> None:
    kafka_topics.apply(access, settings(access))
    kafka_topics.ensure(access, settings(access), 2, print)
    with pytest.raises(ServiceFailed, match="this data has 3"):
        kafka_topics.ensure(access, settings(access), 3, print)


def test_a_topic_that_was_made_anew_has_another_id(access: KafkaAccess) -> None:
    kafka_topics.apply(access, settings(access))
    topic = access.topic(EVENTS)
    first = kafka_topics.describe(access, topic)
    assert kafka_topics.describe(access, topic) == first
    admin = AdminClient(access.confluent())
    admin.delete_topics([topic])[topic].result(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while topic in admin.list_topics(timeout=WAIT_S).topics:
        assert time.monotonic() < deadline, "it is not deleted"
    with pytest.raises(ServiceFailed, match=r"no topic .* touchfold topics apply"):
        kafka_topics.describe(access, topic)
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(WAIT_S)
    second = kafka_topics.describe(access, topic)
    assert second[1] == first[1] == 2
    assert second[0] != first[0]


def test_brokers_that_do_not_answer_are_named() -> None:
    nowhere = KafkaAccess("127.0.0.1:1", insecure=True)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        kafka_topics.describe(nowhere, "x")


# --- the command -------------------------------------------------------------------------------------------------


def command(access: KafkaAccess, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    for key, value in settings(access).model_dump(include={"kafka_bootstrap", "kafka_prefix"}).items():
        monkeypatch.setenv(f"TOUCHFOLD_{key.upper()}", value)
    for key, value in (
        ("LOG", "kafka"),
        ("KAFKA_INSECURE", "1"),
        ("KAFKA_REPLICATION", "1"),
        ("KAFKA_PARTITIONS", "2"),
    ):
        monkeypatch.setenv(f"TOUCHFOLD_{key}", value)
    return CliRunner().invoke(build_app(["topics"]), ["topics", *arguments])


def test_the_command_plans_and_applies(access: KafkaAccess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "none"))
    planned = command(access, monkeypatch, "plan", *data)
    assert planned.exit_code == 0, planned.output
    assert f"missing: {access.topic(EVENTS)}: 2 partitions, 1 replica\n" in planned.output
    applied = command(access, monkeypatch, "apply", *data)
    assert f"made: {access.topic(EVENTS)}: 2 partitions, 1 replica\n" in applied.output
    again = command(access, monkeypatch, "plan", *data, "--json")
    told = json.loads(again.stdout)
    assert {each["state"] for each in told["topics"]} == {"ok"}
    assert {each["reason"] for each in told["unsafe"]} == {"replication factor 1"}
    assert not (tmp_path / "none").exists(), "topics need no data folder"


def test_without_kafka_the_command_is_misused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["topics", "plan", "--data", str(tmp_path)]) == 2
    assert "TOUCHFOLD_LOG=kafka" in capsys.readouterr().err


def test_deleted_records_move_the_logs_start_and_the_topic_stays_the_same(access: KafkaAccess) -> None:
    kafka_topics.apply(access, settings(access))
    with closing(KafkaLog(access)) as log:
        log.append([Pending(bytes(16), str(number).encode()) for number in range(10)])
        before = kafka_topics.describe(access, access.topic(EVENTS))
        admin = AdminClient(access.confluent())
        place = TopicPartition(access.topic(EVENTS), 0, 4)
        admin.delete_records([place])[place].result(WAIT_S)
        assert log.starts() == [4, 0]
        assert kafka_topics.describe(access, access.topic(EVENTS)) == before
