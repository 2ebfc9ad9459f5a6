"""`touchfold up` as a process: start, refusals, kills, stop."""

import json
import os
import re
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import psycopg2
import pytest

from infra.adapters.postgres.embedded import EmbeddedPostgres
from tests.conftest import PASSWORD, Databases
from tests.integration.running import Up, command, environment, result, runs, until

_NUMBERS = count(1)
ROLES = ("http", "worker", "archive", "postgres")


@pytest.fixture
def ups() -> Iterator[Callable[..., Up]]:
    """Starts `up`s that the test's end stops."""
    started: list[Up] = []

    def start(data: Path, *arguments: str, **settings: str) -> Up:
        started.append(Up(data, *arguments, **settings))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.stop()


def _order(number: int) -> dict[str, object]:
    return {
        "userId": "ada",
        "messageId": f"m-{number}",
        "event": "Order Completed",
        "properties": {"order_id": f"o-{number}", "revenue": 10, "currency": "USD"},
    }


def _runs(up: Up, role: str, number: int) -> bool:
    return len(up.pids(role)) == number


def _orders(data: Path, **settings: str) -> object:
    return result("profile", "user_id:ada", "--data", str(data), **settings)["computed"]["lifetime_orders"]


def test_up_is_ready_on_a_new_folder_keeps_it_to_itself_and_stops_in_order(
    tmp_path: Path, ups: Callable[..., Up]
) -> None:
    data = tmp_path / "deep" / "data"
    up = ups(data)
    url = up.wait_ready()
    health = up.get("/health")
    assert (health.status, health.body["status"]) == (200, "ok")
    assert b"Touchfold" in up.get("/").body
    missing = up.get("/api/v1/nowhere")
    assert (missing.status, missing.body["code"], missing.body["success"]) == (404, "not_found", False)
    assert str(data / "master.key") in up.log
    assert "lost for ever" in up.log
    for secret in ("master.key", "run.json", "postgres.secret"):
        assert stat.S_IMODE((data / secret).stat().st_mode) == 0o600
    assert json.loads((data / "run.json").read_text())["url"] == url
    second = ups(data)
    assert second.wait_end() == 1
    assert f"process {up.process.pid}, {url}" in second.log
    pids = up.all_pids()
    assert len(pids) >= len(ROLES)
    assert up.stop() == 0
    assert not [pid for pid in pids if runs(pid)]
    assert not (data / "run.json").exists()
    assert "Traceback" not in up.log


@pytest.mark.parametrize("own", [False, True])
def test_no_password_is_in_the_note_nor_in_any_process_s_arguments_or_environment(
    own: bool, tmp_path: Path, ups: Callable[..., Up], databases: Databases
) -> None:
    settings = {}
    secrets = {"postgres.secret": tmp_path / "data" / "postgres.secret"}
    if own:
        secrets = {"DATABASE": tmp_path / "database", "VAULT": tmp_path / "vault", "MASTER_KEY": tmp_path / "key"}
        secrets["DATABASE"].write_text(databases.main + "\n")
        secrets["VAULT"].write_text(databases.vault + "\n")
        secrets["MASTER_KEY"].write_text("0a" * 32 + "\n")
        settings = {f"{name}_FILE": str(path) for name, path in secrets.items()}
    at = ("--data", str(tmp_path / "data"))
    up = ups(tmp_path / "data", **settings)
    up.wait_ready()
    words = [PASSWORD, "0a" * 32] if own else [secrets["postgres.secret"].read_text().strip()]
    seen = [(tmp_path / "data" / "run.json").read_text(), up.log]
    for pid in (up.process.pid, *up.all_pids()):
        seen += [Path(f"/proc/{pid}/{name}").read_bytes().decode() for name in ("cmdline", "environ")]
    assert len(seen) > 8
    assert not [word for word in words if any(word in text for text in seen)]
    key = result("source", "create", "web", *at, **settings)["write_key"]  # a command joins
    up.send_until_accepted(key, "identify", {"userId": "ada", "messageId": "m1"})
    assert command("status", "--wait", *at, **settings).returncode == 0
    assert result("sql", "select count(*) as n from events", *at, **settings) == [{"n": 1}]
    if own:
        without = command("status", *at)
        assert (without.returncode, "the same TOUCHFOLD_DATABASE" in without.stderr) == (1, True)


def test_up_is_stopped_by_ctrl_c_before_it_is_ready(tmp_path: Path, ups: Callable[..., Up]) -> None:
    up = ups(tmp_path)
    until(lambda: "creating a new database" in up.log, "the start of PostgreSQL")
    assert up.stop(signal.SIGINT) == 0
    assert "Traceback" not in up.log


def test_a_port_in_use_is_named_with_the_way_out(tmp_path: Path, ups: Callable[..., Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = ups(tmp_path, "--port", str(port))
        assert up.wait_end() == 1
    assert f"port {port} on 127.0.0.1 is in use" in up.log
    assert "--port" in up.log


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"TIMEZONE": "UTC"}, "did you mean TOUCHFOLD_TIME_ZONE?"),
        ({"HOST": "no.such.host.invalid"}, "not an address of this machine"),
        ({"DATABASE": "postgresql://nobody@127.0.0.1:1/x"}, "TOUCHFOLD_DATABASE does not answer"),
    ],
)
def test_a_wrong_setting_ends_up_with_its_name(
    settings: dict[str, str], says: str, tmp_path: Path, ups: Callable[..., Up]
) -> None:
    up = ups(tmp_path, **settings)
    assert up.wait_end() == 1
    assert says in up.log
    assert "Traceback" not in up.log


def test_what_was_fixed_at_the_first_start_is_not_changed_by_a_later_one(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    assert command("status", "--data", str(tmp_path), TIME_ZONE="Europe/Vienna").returncode == 0
    changed = command("status", "--data", str(tmp_path), TIME_ZONE="Europe/Berlin")
    assert changed.returncode == 1
    assert "TOUCHFOLD_TIME_ZONE is Europe/Berlin, but this data was created with Europe/Vienna" in changed.stderr
    assert command("status", "--data", str(tmp_path)).returncode == 0  # unset: what is stored holds

    key = (tmp_path / "master.key").rename(tmp_path / "aside")
    lost = command("status", "--data", str(tmp_path))
    assert lost.returncode == 1
    assert "the master key is lost" in lost.stderr
    other = command("status", "--data", str(tmp_path), MASTER_KEY="ab" * 32)
    assert other.returncode == 1
    assert "not the one this vault was created with" in other.stderr
    key.rename(tmp_path / "master.key")

    server.start()
    connection = psycopg2.connect(server.dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("insert into migrations values (999, '0999_main.sql')")
    connection.close()
    server.stop()
    newer = command("status", "--data", str(tmp_path))
    assert newer.returncode == 1
    assert "start the newer build" in newer.stderr


def test_what_is_killed_starts_again_and_nothing_acknowledged_is_lost_or_doubled(
    tmp_path: Path, ups: Callable[..., Up]
) -> None:
    data = tmp_path / ("d" * 60) / ("e" * 60)  # too deep for a socket: PostgreSQL is on loopback, each time elsewhere
    up = ups(data, DOORS="2", TEST="1", FAILPOINT="worker@fold.before_commit")
    up.wait_ready()
    assert "host=127.0.0.1" in json.loads((data / "run.json").read_text())["dsn"]
    assert len(up.pids("http")) == 2
    key = result("source", "create", "shop", "--data", str(data))["write_key"]
    up.send_until_accepted(key, "track", _order(0))
    until(lambda: "the worker process ended (SIGKILL)" in up.log, "the failpoint")
    for number, role in enumerate(("http", "http", "worker", "archive", "postgres"), 1):
        up.send_until_accepted(key, "track", _order(number))
        killed = up.kill(role)
        until(partial(_runs, up, role, 2 if role == "http" else 1), f"a new {role}")
        assert killed not in up.pids(role)
    up.send_until_accepted(key, "track", _order(6))
    assert result("status", "--wait", "--data", str(data))["lag"] == 0
    assert _orders(data) == 7

    pids = up.all_pids()
    os.kill(up.process.pid, signal.SIGKILL)
    up.wait_end()
    again = ups(data)
    again.wait_ready()
    assert not [pid for pid in pids if runs(pid)]
    status = result("status", "--wait", "--data", str(data))
    assert (status["accepted"] >= 7, status["lag"]) == (True, 0)
    assert _orders(data) == 7
    assert command("doctor", "--data", str(data)).returncode == 0


@pytest.mark.long  # five starts of a role, with pauses between them
def test_a_role_that_cannot_run_ends_up_with_its_reason(tmp_path: Path, ups: Callable[..., Up]) -> None:
    place = tmp_path / "no-folder"
    place.write_text("")
    up = ups(tmp_path / "data", ARCHIVE=str(place))
    assert up.wait_end() == 1
    assert "the archive process cannot run" in up.log
    assert "FileExistsError" in up.log


def test_a_damaged_archive_stops_neither_door_nor_worker(tmp_path: Path, ups: Callable[..., Up]) -> None:
    data, manifest = str(tmp_path), tmp_path / "archive" / "manifest.jsonl"
    up = ups(tmp_path)
    up.wait_ready()
    until(manifest.exists, "the archiver to begin")
    key = result("source", "create", "web", "--data", data)["write_key"]
    whole = manifest.read_bytes()
    manifest.write_bytes(b"this is not a manifest\n")
    up.kill("archive")  # the one that begins anew reads it
    until(lambda: "nothing is archived until this is repaired" in up.log, "the archiver to see it")
    assert up.send(key, "track", _order(1)).status == 200
    until(lambda: _orders(tmp_path) == 1, "the worker to go on")
    told = result("status", "--data", data)
    assert (told["ready"], told["archived"], told["decided"]) == (True, None, 1)
    assert re.search(r"archived +unknown", command("status", "--data", data).stdout)
    manifest.write_bytes(whole)
    assert result("status", "--data", data)["archived"] == 0
    assert len(up.pids("archive")) == 1


def test_a_lost_key_ends_the_archive_process_at_most(tmp_path: Path, ups: Callable[..., Up]) -> None:
    """It cannot start again without the key; door and worker go on with what they have read."""
    data = str(tmp_path / "data")
    up = ups(tmp_path / "data")
    up.wait_ready()
    key = result("source", "create", "web", "--data", data)["write_key"]
    (tmp_path / "data" / "master.key").rename(tmp_path / "elsewhere")
    up.kill("archive")
    until(
        lambda: "nothing is archived, so the log keeps everything" in up.log, "the archive to be given up for a while"
    )
    assert up.send(key, "track", _order(1)).status == 200
    assert up.process.poll() is None
    (tmp_path / "elsewhere").rename(tmp_path / "data" / "master.key")
    until(lambda: len(up.pids("archive")) == 1, "the archive to be back")
    until(lambda: _orders(tmp_path / "data") == 1, "the worker to go on")


@pytest.fixture
def own_database(server: EmbeddedPostgres) -> str:
    """An empty database on a server that `up` does not run; its vault's is missing and is made."""
    name = f"own_{next(_NUMBERS)}"
    connection = psycopg2.connect(server.dsn.replace("dbname=touchfold", "dbname=postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"create database {name}")
    connection.close()
    return server.dsn.replace("dbname=touchfold", f"dbname={name}")


def test_up_and_commands_work_on_a_postgres_of_your_own(
    tmp_path: Path, own_database: str, ups: Callable[..., Up]
) -> None:
    alone = result("source", "create", "shop", "--data", str(tmp_path), DATABASE=own_database)
    up = ups(tmp_path, DATABASE=own_database)
    up.wait_ready()
    assert not up.pids("postgres")
    assert not (tmp_path / "postgres").exists()
    up.kill("worker")
    up.send_until_accepted(alone["write_key"], "track", _order(1))
    result("status", "--wait", "--data", str(tmp_path), DATABASE=own_database)
    assert _orders(tmp_path, DATABASE=own_database) == 1
    assert up.stop() == 0
    settled = result("status", "--wait", "--data", str(tmp_path), DATABASE=own_database)
    assert (settled["accepted"], settled["decided"], settled["ready"]) == (1, 1, False)


def test_no_setting_of_the_caller_reaches_an_up_under_test() -> None:
    assert not [name for name in environment() if name.startswith("TOUCHFOLD_")]
