"""On a file system of 300 MB, filled by events and by somebody else: nothing is lost, nothing doubled, all resumes."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.adapters.machine.disk import MIB, reserve_bytes
from ingest.files.importer import BATCH_EVENTS
from tests.integration.running import Up, command, result, until
from tests.integration.test_import import CDNOW, PURCHASES

SIZE_MIB = 300
BATCH = 200


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("a file system can only be mounted as root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class Sender:
    """Sends orders, and knows which were acknowledged."""

    def __init__(self, up: Up, key: str) -> None:
        self._up, self._key = up, key
        self.acknowledged = 0

    def send(self, count: int = BATCH) -> int:
        """The HTTP status; 0 where nobody answered."""
        batch = [self._item(self.acknowledged + number) for number in range(count)]
        try:
            status = self._up.send(self._key, "batch", {"batch": batch}).status
        except OSError:
            return 0
        self.acknowledged += count if status == 200 else 0
        return status

    def _item(self, number: int) -> dict[str, object]:
        properties = {"order_id": f"o-{number}", "revenue": 10, "currency": "USD", "note": "x" * 1_500}
        return {
            **{"type": "track", "userId": f"u-{number % 500}", "messageId": f"m-{number}"},
            **{"event": "Order Completed", "properties": properties},
        }


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _ballast(folder: Path, leave: int) -> Path:
    """A file that leaves so many bytes, or fills the disk for `leave` = 0."""
    path = folder / "ballast"
    taken, step = 0, _free(folder) - leave
    with path.open("wb") as file:
        while step:  # others write meanwhile: what is left is taken in ever smaller steps
            try:
                os.posix_fallocate(file.fileno(), taken, step)
            except OSError:
                step //= 2
            else:
                taken += step
                step = min(step, max(0, _free(folder) - leave))
    return path


def _all_is_well(data: Path, sender: Sender, imported: int = 0) -> None:
    """`imported`: events of whole batches that an import had appended before it was stopped."""
    status = result("status", "--wait", "--data", str(data))
    assert (status["accepted"], status["lag"], status["dead_letters"]) == (sender.acknowledged + imported, 0, 0)
    counted = result("sql", "select count(*) n, count(distinct id) ids from events", "--data", str(data))
    assert counted == [{"n": sender.acknowledged + imported, "ids": sender.acknowledged + imported}]
    assert result("rebuild", "--check", "--data", str(data))["equal"]


def test_all_writers_stop_at_the_reserve_and_go_on_when_there_is_room(small: Path) -> None:
    data = small / "data"
    up = Up(data)
    try:
        up.wait_ready()
        sender = Sender(up, result("source", "create", "shop", "--data", str(data))["write_key"])
        assert [sender.send() for _ in range(5)] == [200] * 5
        ballast = _ballast(small, reserve_bytes(SIZE_MIB * MIB) + 6 * MIB)
        until(lambda: sender.send() == 503, "the door to stop at the reserve")
        assert _free(small) > reserve_bytes(SIZE_MIB * MIB) // 2
        health = up.get("/health")
        assert (health.status, health.body["ready"]) == (503, True)
        (problem,) = [each for each in health.body["problems"] if each["check"] == "disk"]
        assert "make room" in problem["fix"]
        assert result("status", "--data", str(data))["accepted"] == sender.acknowledged
        shown = command("status", "--data", str(data)).stdout
        assert "running, but not ready\ndisk: " in shown, "it said: not running"
        assert "do: make room" in shown
        assert result("profile", "user_id:u-1", "--data", str(data))["event_count"] >= 2
        assert result("erase", "user_id:u-2", "--yes", "--data", str(data))["found"]
        imported = command("import", str(PURCHASES), "--mapping", str(CDNOW), "--data", str(data))
        assert (imported.returncode, "kept free: make room" in imported.stderr) == (1, True)
        appended = result("status", "--data", str(data))["accepted"] - sender.acknowledged  # the erasure made room
        assert appended % BATCH_EVENTS == 0

        ballast.unlink()
        until(lambda: sender.send(1) == 200, "the door to take events again")
        _all_is_well(data, sender, appended)
        assert not [line for line in up.errors if "PostgreSQL ended" in line]
    finally:
        assert up.stop() == 0


def test_postgres_that_ends_on_a_full_disk_comes_back_by_itself_when_there_is_room(small: Path) -> None:
    data = small / "data"
    up = Up(data)
    try:
        up.wait_ready()
        sender = Sender(up, result("source", "create", "shop", "--data", str(data))["write_key"])
        assert [sender.send() for _ in range(5)] == [200] * 5
        ballast = _ballast(small, 0)
        up.kill("postgres")
        until(lambda: "waiting for room" in up.log, "up to say what it waits for")
        assert "make room" in up.log
        assert sender.send() == 503
        assert up.process.poll() is None
        ballast.unlink()
        until(lambda: "there is room again" in up.log, "PostgreSQL to run again")
        until(lambda: sender.send(1) == 200, "the door to take events again")
        _all_is_well(data, sender)
        assert "Traceback" not in up.log
    finally:
        assert up.stop() == 0


def test_up_waits_at_its_start_for_room_and_a_command_says_what_to_do(small: Path) -> None:
    data = small / "data"
    ballast = _ballast(small, 0)
    alone = command("status", "--data", str(data))
    assert (alone.returncode, "Traceback" in alone.stderr) == (1, False)
    assert "make room" in alone.stderr
    up = Up(data)
    try:
        until(lambda: "waiting for room" in up.log, "up to say what it waits for")
        ballast.unlink()
        up.wait_ready()
        assert json.loads((data / "run.json").read_text())["url"] == up.url
        assert "Traceback" not in up.log
    finally:
        assert up.stop() == 0
