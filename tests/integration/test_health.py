"""/health and `touchfold doctor` say what is wrong and what to do, and a start refuses to hide a loss."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from infra.adapters.machine.data_folder import DataFolder
from infra.adapters.postgres.deployment import note_archived
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.app.bootstrap import session
from infra.app.checks import AS_TOLD, STANDS_S, Advance
from infra.app.databases import database_of
from infra.app.log import log_of
from infra.drivers.process.archive_role import archiver_of
from schemas.record import Pending, encode
from tests.integration.running import Up, command, result, until
from tests.records import key_of_partition, purchase

PEOPLE = 300


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in use: events, files of the archive, an erasure; stopped in order."""
    data = tmp_path_factory.mktemp("health") / "data"
    up = Up(data)
    up.wait_ready()
    key = result("source", "create", "shop", "--data", str(data))["write_key"]
    items = [
        {"type": "track", "userId": f"u-{number}", "event": "Product Viewed", "messageId": f"m-{number}"}
        for number in range(PEOPLE)
    ]
    assert up.send(key, "batch", {"batch": items}).status == 200
    assert result("erase", "user_id:u-1", "--yes", "--data", str(data))["found"]
    assert up.stop() == 0
    with session(data) as here:
        archiver = archiver_of(here)
        assert archiver.flush() == PEOPLE
        partitions = range(archiver.log.partitions)
        with closing(database_of(here, "test")) as database:
            note_archived(database, [archiver.store.next_offset(each) for each in partitions])
    return data


@pytest.fixture
def data(kept: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    subprocess.run(["cp", "-a", str(kept), str(tmp_path / "data")], check=True)
    return tmp_path / "data"


@pytest.fixture
def up(data: Path) -> Iterator[Up]:
    running = Up(data)
    running.wait_ready()
    yield running
    assert running.stop() == 0


def _problems(up: Up) -> dict[str, dict[str, str]]:
    return {each["check"]: each for each in up.get("/health").body["problems"]}


def _doctor(data: Path) -> dict[str, dict[str, Any]]:
    """The bad findings."""
    done = command("doctor", "--data", str(data), "--json")
    assert "Traceback" not in done.stderr
    found = {each["check"]: each for each in json.loads(done.stdout) if not each["ok"]}
    assert done.returncode == (1 if found else 0)
    assert all(each["detail"] and each["fix"] for each in found.values())
    return found


def _page_of(data: Path, table: str) -> Path:
    """The file of a table of a stopped server."""
    server = EmbeddedPostgres(data)
    server.start()
    with closing(psycopg2.connect(server.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("select pg_relation_filepath(%s), current_setting('data_checksums')", (table,))
        row = cursor.fetchone()
    server.stop()
    assert row is not None
    assert row[1] == "on"
    return server.cluster / str(row[0])


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4_000)
        file.write(b"\xa5" * 1_000)


# --- /health -----------------------------------------------------------------------------------------------------


def test_health_names_files_that_are_gone_while_all_goes_on(up: Up, data: Path, tmp_path: Path) -> None:
    assert (up.get("/health").status, up.get("/health").body["problems"]) == (200, [])
    file = next(data.glob("archive/p*/*.parquet"))
    for each in (file, data / "master.key", data / "ledger"):
        each.rename(tmp_path / each.name)
    until(lambda: set(_problems(up)) == {"archive", "vault", "ledger"}, "the three to be missed")
    answer = up.get("/health")
    assert (answer.status, answer.body["status"], answer.body["ready"]) == (503, "degraded", True)
    told = _problems(up)
    assert file.name in told["archive"]["detail"]
    assert "put the file back" in told["vault"]["detail"]
    assert "backup" in told["ledger"]["fix"]
    assert str(data) not in json.dumps(answer.body)  # it is open to all
    found = _doctor(data)
    assert {"archive", "vault", "ledger", "master key", "ledger file"} <= set(found)
    people = command("doctor", "--data", str(data)).stdout
    assert "put the file back" in people
    assert AS_TOLD not in people
    asked = command("sql", "select count(*) from events", "--data", str(data))
    assert asked.returncode == 1
    assert f"{file.name} cannot be read (No such file or directory): restore it from a backup" in asked.stderr
    for each in (file, data / "master.key", data / "ledger"):
        (tmp_path / each.name).rename(each)
    until(lambda: up.get("/health").status == 200, "all to be well again")


def test_health_and_doctor_tell_when_no_connection_is_left(up: Up, data: Path) -> None:
    running = DataFolder(data).running()
    assert running is not None
    with ExitStack() as held:
        for _ in range(200):
            try:
                held.callback(psycopg2.connect(running.dsn).close)
            except psycopg2.OperationalError:
                break
        until(lambda: "connections" in _problems(up), "the want of connections")
        assert up.get("/health").status == 503
        assert "restart touchfold up" in _problems(up)["connections"]["fix"]
        found = _doctor(data)
        assert "no free connections" in found["start"]["detail"]
    until(lambda: up.get("/health").status == 200, "all to be well again")


def test_doctor_tells_when_nothing_is_applied_and_not_for_what_lies_behind_a_record_that_waits(data: Path) -> None:
    with session(data) as here:
        newer = encode(purchase([("user_id", "new")], "o1", "20.00")).replace(b'"v":1', b'"v":3')
        log_of(here).append([Pending(key_of_partition(2), newer)])
    up = Up(data)
    try:
        up.wait_ready()
        until(lambda: set(_problems(up)) == {"records"}, "the wait")
        assert set(_doctor(data)) == {"records"}
        key = result("source", "create", "late", "--data", str(data))["write_key"]
        items = [{"type": "track", "userId": f"late-{n}", "event": "Product Viewed"} for n in range(50)]
        (pid,) = up.pids("worker")
        os.kill(pid, signal.SIGSTOP)
        try:
            assert up.send(key, "batch", {"batch": items}).status == 200
            found = _doctor(data)
        finally:
            os.kill(pid, signal.SIGCONT)
    finally:
        assert up.stop() == 0
    assert set(found) == {"records", "work"}
    assert "records are waiting; none was applied" in found["work"]["detail"]
    assert "worker" in found["work"]["fix"]
    assert int(found["work"]["detail"].split()[0]) < len(items), "what lies behind the record is not the worker's"


def test_work_stands_when_what_waits_is_not_applied_for_a_while() -> None:
    now = [0.0]
    advance = Advance(lambda: now[0])
    assert advance.look(6, 4).ok
    now[0] = STANDS_S - 1
    assert advance.look(8, 4).ok
    now[0] = STANDS_S
    stands = advance.look(8, 4)
    assert not stands.ok
    assert "8 records are waiting, and nothing was applied for 20 s" in stands.detail
    assert advance.look(7, 5).ok  # one was
    now[0] = 10 * STANDS_S
    assert not advance.look(7, 5).ok
    assert advance.look(0, 5).ok
    now[0] = 20 * STANDS_S
    assert advance.look(1, 5).ok  # nothing waited until now


# --- doctor ------------------------------------------------------------------------------------------------------


def test_doctor_finds_a_damaged_page_and_what_is_missing_and_does_every_other_check(data: Path) -> None:
    _overwrite(_page_of(data, "tokens"))
    shutil.rmtree(data / "ledger")
    shutil.rmtree(data / "archive")
    found = _doctor(data)
    assert {"pages on disk", "pages of the main database", "pages", "ledger", "archive"} <= set(found)
    assert (
        "public.tokens: PostgreSQL cannot read its own data: invalid page in block 0"
        in (found["pages of the main database"]["detail"])
    )
    assert f"it lacks {PEOPLE} records that were archived" in found["archive"]["detail"]
    told = {each["check"] for each in json.loads(command("doctor", "--data", str(data), "--json").stdout)}
    assert {"clock", "log", "progress", "erasures"} <= told


def test_a_damaged_page_sets_no_event_aside_and_health_tells(data: Path) -> None:
    _overwrite(_page_of(data, "evidence"))
    up = Up(data)
    try:
        up.wait_ready()
        key = result("source", "create", "more", "--data", str(data))["write_key"]
        item = {"userId": "u-2", "event": "Product Viewed", "messageId": "after"}
        assert up.send(key, "track", item).status == 200
        until(lambda: "pages" in _problems(up), "the damage to be seen")
        assert up.get("/health").status == 503
        assert result("status", "--data", str(data))["dead_letters"] == 0
        assert "is set aside" not in up.log
    finally:
        assert up.stop() == 0


def test_doctor_makes_nothing_in_a_folder_that_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_text("x")
    for name, says in (
        ("photos", "contains no Touchfold data"),
        ("file", "is not a folder"),
        ("none", "does not exist"),
    ):
        assert says in _doctor(tmp_path / name)["data folder"]["detail"]
    assert not list((tmp_path / "photos").iterdir())
    assert not (tmp_path / "none").exists()


# --- losses that a start refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a cluster without its version"])
def test_a_folder_whose_database_is_gone_is_refused_with_what_to_do(data: Path, left: str) -> None:
    if left == "a cluster without its version":
        (data / "postgres" / "cluster" / "PG_VERSION").unlink()
    else:
        shutil.rmtree(data / "postgres")
    if left == "an empty folder":
        (data / "postgres").mkdir()
    before = sorted(data.rglob("*"))
    done = command("status", "--data", str(data))
    assert done.returncode == 1
    assert "Nothing was changed" in done.stderr
    assert "backup" in done.stderr
    assert sorted(data.rglob("*")) == before
    assert "start" in _doctor(data)


def test_a_vault_or_a_main_database_that_is_gone_is_refused(data: Path) -> None:
    for name, says in (("touchfold_vault", "the vault is lost"), ("touchfold", "is lost")):
        server = EmbeddedPostgres(data)
        server.start()
        with closing(psycopg2.connect(server.dsn.replace("dbname=touchfold", "dbname=postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"alter database {name} rename to aside")
        server.stop()
        for _ in range(2):  # the empty one that the first try left is no vault either
            done = command("status", "--data", str(data))
            assert (done.returncode, says in done.stderr) == (1, True), done.stderr
        server.start()
        with closing(psycopg2.connect(server.dsn.replace("dbname=touchfold", "dbname=postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"drop database {name}")
                cursor.execute(f"alter database aside rename to {name}")
        server.stop()
    assert result("status", "--data", str(data))["accepted"] == PEOPLE


def test_a_key_that_was_put_into_a_new_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "master.key").write_text("ab" * 32 + "\n")
    assert result("status", "--data", str(tmp_path))["accepted"] == 0
    assert (tmp_path / "master.key").read_text().strip() == "ab" * 32
