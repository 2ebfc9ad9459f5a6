"""`/metrics`: what it says, who may read it, and that counts of many processes are one."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infra.adapters.machine.meter import EDGES, Meter
from infra.drivers.http.api.application import Api, api_of
from infra.drivers.http.metrics import HELP, Metrics
from tests.api_server import session_of
from tests.reading_world import NOW, ReadingWorld

_LINE = re.compile(r'touchfold_[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? -?[0-9.e+-]+')


@pytest.fixture
def api(world: ReadingWorld, tmp_path: Path) -> Iterator[Api]:
    api = api_of(session_of(world, tmp_path), world.reading)
    yield api
    api.close()


def values_of(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}


def test_the_text_is_prometheus_and_tells_lag_sizes_and_counts(world: ReadingWorld, api: Api, tmp_path: Path) -> None:
    world.purchase([("user_id", "ada")], "o1", "20.00")
    world.settle()
    world.purchase([("user_id", "ada")], "o2", "20.00")
    world.execute(
        "insert into dead_letters (id, stage, rule, path, reason, source, received_at, seal_key, sealed)"
        " values (gen_random_uuid(), 'door', 'too_deep', '', 'x', 'web', now(), gen_random_uuid(), '')"
    )
    with closing(Meter(tmp_path / "meters")) as meter:
        metrics = Metrics(api, meter)
        meter.door[1] += 2
        meter.refuse(EDGES.index("door"), 401)
        meter.observe(EDGES.index("door"), 0.003)
        meter.observe(EDGES.index("door"), 60.0)
        text = metrics.text().decode()
    lines = text.splitlines()
    assert all(_LINE.fullmatch(line) for line in lines if not line.startswith("#"))
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    told = {family.name: family for family in text_string_to_metric_families(text)}
    for name, (kind, _, labels) in HELP.items():
        family = told.get("touchfold_" + name.removesuffix("_total"))
        if family is not None and name != "dead_letters_open":
            assert family.type == kind
            assert {tuple(set(sample.labels) - {"le"}) for sample in family.samples} == {tuple(set(labels))}
    found = values_of(text)
    assert found["touchfold_events_accepted_total"] == 2
    assert found["touchfold_events_applied_total"] == found["touchfold_events_decided_total"] == 1
    assert (found["touchfold_lag_events"], found["touchfold_up"]) == (1, 1)
    assert found['touchfold_dead_letters_open{stage="door"}'] == 1
    lags = [value for name, value in found.items() if name.startswith("touchfold_partition_lag_events{partition=")]
    assert (len(lags), sum(lags)) == (4, 1)
    assert found["touchfold_archive_lag_events"] == 2
    assert "touchfold_archive_lag_seconds" in found
    assert "touchfold_role_processes" not in text, "clusters only"
    assert found["touchfold_worker_heartbeat_age_seconds"] >= 0
    assert found["touchfold_database_bytes"] > 1_000_000
    assert 0 < found["touchfold_database_backends"] <= found["touchfold_database_backends_most"]
    assert found['touchfold_connections_most{database="main"}'] > 0
    assert found['touchfold_connections_waiting{database="main"}'] == 0
    assert 0 < found["touchfold_disk_free_ratio"] <= 1
    assert found['touchfold_door_events_total{result="accepted"}'] == 2
    assert found['touchfold_refused_requests_total{edge="door",status="401"}'] == 1
    assert found['touchfold_request_seconds_bucket{edge="door",le="0.0025"}'] == 0
    assert found['touchfold_request_seconds_bucket{edge="door",le="0.005"}'] == 1
    assert found['touchfold_request_seconds_bucket{edge="door",le="10.0"}'] == 1
    assert found['touchfold_request_seconds_bucket{edge="door",le="+Inf"}'] == 2
    assert found['touchfold_request_seconds_count{edge="door"}'] == 2
    assert found['touchfold_request_seconds_sum{edge="door"}'] == pytest.approx(60.003)


def test_processes_count_beside_each_other_and_the_next_goes_on_where_one_ended(tmp_path: Path) -> None:
    first, second = Meter(tmp_path), Meter(tmp_path)
    first.door[0] += 3
    second.door[0] += 4
    assert first.totals() == second.totals()
    assert first.totals().door["requests"] == 7
    first.close()
    assert second.totals().door["requests"] == 7
    third = Meter(tmp_path)
    third.door[0] += 1
    assert (third.door[0], second.totals().door["requests"]) == (4, 8)
    assert len(list(tmp_path.iterdir())) == 2
    third.close()
    second.close()


def test_a_late_answer_may_count_after_the_close(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    meter.close()
    meter.refuse(0, 503)
    meter.observe(0, 1.0)
    meter.door[0] += 1
    with closing(Meter(tmp_path)) as after:
        assert sum([*after.totals().refused.values(), *after.totals().door.values()]) == 0


async def _ask(metrics: Metrics, authorization: str | None) -> tuple[int, bytes]:
    sent: list[dict[str, object]] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    await metrics.handle({"type": "http", "method": "GET", "path": "/metrics", "headers": headers}, receive, send)
    status, body = sent[0]["status"], sent[1]["body"]
    assert isinstance(status, int)
    assert isinstance(body, bytes)
    return status, body


def test_a_token_of_any_role_may_read_and_nobody_else(api: Api, tmp_path: Path) -> None:
    with closing(Meter(tmp_path / "meters")) as meter:
        metrics = Metrics(api, meter)
        for role in ("service", "staff"):
            token = api.tokens.create(role, NOW)[1]
            status, body = asyncio.run(_ask(metrics, f"Bearer {token}"))
            assert (status, body.startswith(b"# HELP touchfold_up")) == (200, True)
        for wrong in (None, "Bearer tf_wrong", f"Basic {token}", token):
            status, body = asyncio.run(_ask(metrics, wrong))
            assert status == 401
            assert b"touchfold_" not in body


def test_every_metric_stands_in_the_contracts_with_its_labels() -> None:
    contracts = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text()
    written = {name: f"{name}{{{','.join(told.labels)}}}" if told.labels else name for name, told in HELP.items()}
    assert [text for text in written.values() if f"`{text}`" not in contracts] == []
