"""`touchfold demo` and `demo-score` with a small shop, in real processes; one is killed while it loads."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from infra.demo.folder import DemoFolder
from infra.demo.history import Plan, simulate
from schemas.touchpoints import CALL_TYPES, type_of
from tests.integration.running import DEADLINE_S, Up, environment, result, runs, until

UNTIL = "2026-05-01"


class Demo:
    """A `touchfold demo` whose output goes to files."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self._out = data.with_name(data.name + ".out")
        self._err = data.with_name(data.name + ".err")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli.main", "demo", "--data", str(data), "--port", "0", *arguments],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_ready(self) -> None:
        until(lambda: "Ctrl-C stops" in self.out or self.process.poll() is not None, "the welcome of the demo")
        assert self.process.poll() is None, self.err

    def word(self, name: str) -> str:
        found = re.search(rf"^{name} (\S+)$", self.out, re.MULTILINE)
        assert found is not None, self.out
        return found[1]

    def stop(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@contextmanager
def demo(data: Path, *arguments: str) -> Iterator[Demo]:
    running = Demo(data, *arguments)
    try:
        yield running
    finally:
        running.stop()


def counts(plan: Plan) -> Counter[str]:
    """Events by type, as the simulator makes them."""
    found: Counter[str] = Counter()
    for event in simulate(plan).events:
        item: dict[str, Any] = json.loads(event.body)
        found[type_of(item["event"]) if item["type"] == "track" else CALL_TYPES[item["type"]]] += 1
    return found


def stored(data: Path) -> Counter[str]:
    rows = result("sql", "select type, count(*) as n from events group by 1", "--data", str(data))
    return Counter({row["type"]: int(row["n"]) for row in rows})


@pytest.mark.kill
def test_a_demo_killed_while_it_loads_goes_on_where_it_was_and_knows_its_customers(tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder = DemoFolder(data)
    arguments = ("--customers", "300", "--rate", "0")  # until today: the flags are those of now
    with demo(data, *arguments) as first:
        look = threading.Event()
        while folder.sent() < 3:
            assert first.process.poll() is None, first.err
            look.wait(0.005)
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not folder.loaded(), "the kill came too late to test anything"
    with demo(data, *arguments) as second:
        second.wait_ready()
        score = result("demo-score", "--data", str(data))
        applied = stored(data)
        assert result("dead-letters", "list", "--data", str(data)) == []
        token = second.word("token")
        assert second.stop() == 0, second.err
    plan = folder.plan()
    assert plan is not None
    assert plan.customers == 300
    assert applied == counts(plan)
    assert score["identity"]["precision"] >= 0.99
    assert score["identity"]["recall"] >= 0.9
    assert score["identity"]["unknown_identifiers"] == 0
    assert score["churn"]["precision"] > 0.4
    assert score["churn"]["recall"] > 0.7
    assert 0 < score["churn"]["lead_days"]["flagged"] <= score["churn"]["left"]
    assert folder.token_file.stat().st_mode & 0o777 == 0o600
    assert folder.token() == token


def test_a_demo_is_live_ends_cleanly_and_goes_on_with_the_same_plan(tmp_path: Path) -> None:
    data = tmp_path / "data"
    total = counts(Plan(seed=5, until=date.fromisoformat(UNTIL), customers=60)).total()
    with demo(data, "--seed", "5", "--customers", "60", "--until", UNTIL, "--rate", "50") as first:
        first.wait_ready()
        until(lambda: result("status", "--data", str(data))["accepted"] > total + 20, "live events")
        request = Request(
            f"{first.word('ready')}/api/v1/segments", headers={"Authorization": f"Bearer {first.word('token')}"}
        )
        with build_opener(ProxyHandler({})).open(request, timeout=DEADLINE_S) as answer:
            assert answer.status == 200
        pid = first.process.pid
        assert first.stop() == 0, first.err
    assert not runs(pid)
    assert first.err.endswith("stopped\n")
    assert "Traceback" not in first.err
    with demo(data, "--rate", "0") as second:
        second.wait_ready()
        assert "the history is already loaded" in second.err
        assert second.word("token") == first.word("token")
        assert second.stop() == 0, second.err
    with demo(data, "--seed", "6") as third:
        assert third.process.wait(DEADLINE_S) == 1
        assert "--seed 5" in third.err


def test_a_demo_plays_into_a_running_up(tmp_path: Path) -> None:
    data = tmp_path / "data"
    up = Up(data)
    try:
        up.wait_ready()
        with demo(data, "--customers", "20", "--until", UNTIL, "--rate", "0") as shop:
            shop.wait_ready()
            assert shop.word("ready") == up.url
            applied = stored(data)
            assert shop.stop() == 0, shop.err
        assert up.process.poll() is None
        assert result("status", "--data", str(data))["ready"]
        assert applied == counts(Plan(seed=7, until=date.fromisoformat(UNTIL), customers=20))
    finally:
        assert up.stop() == 0, up.log


def test_a_folder_with_real_data_is_refused_and_not_touched(tmp_path: Path) -> None:
    data = tmp_path / "data"
    up = Up(data)
    try:
        up.wait_ready()
        key = result("source", "create", "web", "--data", str(data))["write_key"]
        up.send_until_accepted(key, "track", {"userId": "u-1", "event": "Signed Up", "messageId": "m-1"})
        refused = Demo(data, "--customers", "5")
        assert refused.process.wait(DEADLINE_S) == 1
        assert "holds 1 events that are not the demo's" in refused.err
        assert "--yes" in refused.err
        assert [source["name"] for source in result("source", "list", "--data", str(data))] == ["web"]
        with demo(data, "--customers", "5", "--until", UNTIL, "--rate", "0", "--yes") as mixed:
            mixed.wait_ready()
    finally:
        up.stop()
