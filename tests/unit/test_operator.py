"""Small parts of the operator's side: disk reserve, clock, log lines, the note of a running `up`."""

import errno
import logging
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn

from infra.adapters.machine.clock import SystemClock
from infra.adapters.machine.data_folder import DataFolder, Running
from infra.adapters.machine.disk import BUILDING, MIB, WORKER, Disk, Space, reserve_bytes, room_needed, space, wal_bytes
from infra.app.log_lines import OneLine
from schemas.errors import DatabaseDamaged, DiskFull, NotFound, SettingsInvalid

GIB = 2**30


@pytest.mark.parametrize(
    ("total", "reserve", "wal"),
    [
        (100 * MIB, 25 * MIB, 32 * MIB),  # a quarter: a reserve of more would leave nothing to fill
        (300 * MIB, 64 * MIB, 32 * MIB),
        (2 * GIB, 2 * GIB // 20, 48 * MIB),
        (40 * GIB, 2 * GIB, 1024 * MIB),
        (10_000 * GIB, 5 * GIB, 1024 * MIB),
    ],
)
def test_the_reserve_is_a_share_with_a_floor_and_a_ceiling_and_holds_the_wal(
    total: int, reserve: int, wal: int
) -> None:
    assert (reserve_bytes(total), wal_bytes(total)) == (reserve, wal)


def test_building_stops_before_the_door_and_the_door_before_the_worker(tmp_path: Path) -> None:
    def at(free: int) -> Disk:
        return Disk(tmp_path, measure=lambda _path: Space(free, 300 * MIB))

    at(128 * MIB).check(BUILDING)
    with pytest.raises(DiskFull, match="make room"):
        at(128 * MIB - 1).check(BUILDING)
    at(64 * MIB).check()
    with pytest.raises(DiskFull, match="63 MiB left of 300, and the last 64 MiB are kept free") as caught:
        at(64 * MIB - 1).check()
    assert (caught.value.status, caught.value.retry_after_s) == (503, 30)
    assert at(64 * MIB - 1).has_room(WORKER)
    assert not at(32 * MIB - 1).has_room(WORKER)


def test_the_disk_is_looked_at_ten_times_a_second_at_most(tmp_path: Path) -> None:
    looks: list[Path] = []
    now = [0.0]

    def measure(path: Path) -> Space:
        looks.append(path)
        return Space(50 * GIB, 100 * GIB)

    disk = Disk(tmp_path, measure=measure, monotonic=lambda: now[0])
    for at in (0.0, 0.05, 0.09, 0.1, 0.15):
        now[0] = at
        disk.check()
    assert looks == [tmp_path, tmp_path]
    assert 0 < space(tmp_path).share <= 1


def test_an_error_of_a_disk_without_room_is_disk_full_and_another_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="make room"), room_needed(tmp_path / "not" / "yet"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), room_needed(tmp_path):
        raise OSError(errno.EACCES, "Permission denied")


def test_the_clock_is_utc_shifted_and_never_goes_back() -> None:
    clock = SystemClock(86_400)
    first, second = clock.now(), clock.now()
    assert first <= second
    assert first.tzinfo is UTC
    assert abs(first - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)


def _line(err: Exception | None, message: str = "could not") -> str:
    try:
        if err is not None:
            raise err
    except Exception:
        info = sys.exc_info()
    else:
        info = (None, None, None)
    record = logging.LogRecord("touchfold.door", logging.ERROR, "f.py", 1, message, (), info if err else None)
    return OneLine("http").format(record)


def test_a_log_line_is_one_line_with_its_role_and_without_the_text_of_a_foreign_error() -> None:
    line = _line(ValueError("ada@example.com is not\na number"))
    assert "ada@example.com" not in line
    assert "ValueError at test_operator.py:" in line
    assert "there is none" in _line(NotFound("there is none"))
    ours = RuntimeError("begun already")
    ours.__cause__ = DatabaseDamaged("invalid page in block 100")
    assert "RuntimeError from DatabaseDamaged: invalid page in block 100 at" in _line(ours)
    ours.__cause__ = ValueError("ada@example.com")
    assert "ada@example.com" not in _line(ours)
    plain = _line(None, "two\nlines")
    assert plain.endswith("http ERROR touchfold.door: two lines")


def test_the_note_of_an_up_counts_only_while_that_process_owns_the_folder(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    assert folder.running() is None
    mine = Running(os.getpid(), "http://127.0.0.1:1", "dbname=main host=here", "dbname=vault host=here")
    folder.write_running(mine)
    assert folder.running() is None  # nobody holds the lock
    folder.lock_file.write_text(f"process {os.getpid()}")
    assert folder.running() == mine
    assert folder.owner() == os.getpid()
    folder.lock_file.write_text("process 1")
    assert folder.running() is None
    folder.lock_file.write_text(f"process {os.getpid()}")
    folder.run_file.write_text("torn")
    assert folder.running() is None
    folder.clear_running()
    folder.clear_running()
    assert folder.running() is None


def test_the_note_holds_no_password_and_who_joins_adds_the_one_that_they_have(tmp_path: Path) -> None:
    def noted(own: tuple[str, str] | None) -> None:
        folder = DataFolder(tmp_path, own)
        folder.lock_file.write_text(f"process {os.getpid()}")
        folder.write_running(Running(os.getpid(), "", *secret))
        assert "hunter" not in folder.run_file.read_text()

    secret = "host=db dbname=main password=hunter2", "host=db dbname=vault password=hunter3 sslpassword='hunter 4'"
    noted(None)
    (tmp_path / "postgres.secret").write_text("hunter2\n")
    found = DataFolder(tmp_path).running()
    assert found is not None
    assert parse_dsn(found.vault_dsn) == {"host": "db", "dbname": "vault", "password": "hunter2"}
    noted(secret)
    found = DataFolder(tmp_path, secret).running()
    assert found is not None
    assert [parse_dsn(dsn) for dsn in (found.dsn, found.vault_dsn)] == [parse_dsn(dsn) for dsn in secret]
    with pytest.raises(SettingsInvalid, match="give this command the same TOUCHFOLD_DATABASE"):
        DataFolder(tmp_path).running()
    assert DataFolder(tmp_path).owner() == os.getpid()
