"""`touchfold rebuild --check` beside a running platform: it answers in every case, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from infra.adapters.machine.data_folder import DataFolder
from infra.adapters.postgres.locks import ERASURE_LOCK
from tests.integration.running import DEADLINE_S, Up, command, environment, result, until

SESSIONS = "select count(*) from pg_stat_activity where application_name like 'touchfold snapshot%'"


class Running:
    """An `up` with some customers."""

    def __init__(self, up: Up, data: Path) -> None:
        self.up = up
        self.data = data
        self.at = ("--data", str(data))
        found = DataFolder(data).running()
        assert found is not None
        self.dsn = found.dsn

    def rows(self, query: str, *params: object) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(query, params or None)
                return cursor.fetchall() if cursor.description else []

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "infra.cli.main", "rebuild", "--check", "--json", *self.at],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def waits(self) -> bool:
        return self.rows(SESSIONS.replace("count(*)", "count(*) filter (where wait_event_type = 'Lock')")) == [(1,)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("checked") / "data"
    up = Up(data)
    up.wait_ready()
    key = result("source", "create", "web", "--data", str(data))["write_key"]
    for number in range(5):
        ids = {"userId": f"u{number}", "messageId": f"m{number}", "event": "Order Completed"}
        order = {"order_id": f"o{number}", "total": 12, "currency": "USD"}
        up.send_until_accepted(key, "track", {**ids, "properties": order})
    assert command("status", "--wait", "--data", str(data)).returncode == 0
    yield Running(up, data)
    up.stop()


def test_two_checks_at_once_find_the_same_and_leave_nothing(running: Running) -> None:
    files = sorted(path.name for path in running.data.iterdir())
    checks = [running.start() for _ in range(2)]
    found = [(each.communicate(timeout=DEADLINE_S), each.returncode) for each in checks]
    verdicts = [json.loads(out) for (out, _), _ in found]
    assert [status for _, status in found] == [0, 0]
    assert verdicts[0]["equal"] is verdicts[1]["equal"] is True
    assert verdicts[0]["profiles"] == 5
    assert verdicts[0]["differences"] == []
    assert verdicts[0]["difference_count"] == 0
    assert "folding the log again: 5 of 5" in found[0][0][1] or "copying" in found[0][0][1], "progress is on stderr"
    assert running.rows(SESSIONS) == [(0,)]
    assert sorted(path.name for path in running.data.iterdir()) == files


def test_what_differs_is_counted_and_listed(running: Running) -> None:
    one = "(select min(profile_id::text)::uuid from profiles_r1)"
    running.rows(f"update profiles_r1 set points = points + 7 where profile_id = {one}")
    try:
        done = command("rebuild", "--check", "--json", *running.at)
    finally:
        running.rows(f"update profiles_r1 set points = points - 7 where profile_id = {one}")
    found = json.loads(done.stdout)
    assert (done.returncode, found["equal"], found["difference_count"]) == (1, False, 1)
    assert [each["what"] for each in found["differences"]] == ["profile"]


@pytest.mark.parametrize("how", ["interrupted", "terminated", "unavailable"])
def test_a_check_that_cannot_end_says_so_in_json(running: Running, how: str) -> None:
    with closing(psycopg2.connect(running.dsn)) as holder, holder.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(%s)", (ERASURE_LOCK,))  # the check waits at its gate
        check = running.start()
        until(running.waits, "the check at its gate")
        if how == "unavailable":
            running.rows(SESSIONS.replace("count(*)", "pg_terminate_backend(pid)"))
        else:
            check.send_signal(signal.SIGINT if how == "interrupted" else signal.SIGTERM)
        out, err = check.communicate(timeout=DEADLINE_S)
    found = json.loads(out)
    assert found["equal"] is None
    assert found["code"] == ("unavailable" if how == "unavailable" else "interrupted")
    assert check.returncode == (1 if how == "unavailable" else 130)
    assert "Traceback" not in err
    until(lambda: running.rows(SESSIONS) == [(0,)], "the end of its sessions")


def test_a_check_that_is_killed_leaves_no_session_and_no_lock(running: Running) -> None:
    with closing(psycopg2.connect(running.dsn)) as holder, holder.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(%s)", (ERASURE_LOCK,))
        check = running.start()
        until(running.waits, "the check at its gate")
        os.kill(check.pid, signal.SIGKILL)
        check.communicate(timeout=DEADLINE_S)
        until(lambda: running.rows(SESSIONS) == [(0,)], "the end of its sessions, though it waited for a lock")
    assert result("rebuild", "--check", *running.at)["equal"] is True


def test_a_folder_that_is_none_is_answered_in_json_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    done = command("rebuild", "--check", "--json", "--data", str(path))
    assert (done.returncode, json.loads(done.stdout)["equal"]) == (1, None)
    assert json.loads(done.stdout)["code"] == json.loads(done.stderr.splitlines()[-1])["code"]
