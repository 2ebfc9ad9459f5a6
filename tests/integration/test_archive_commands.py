"""`touchfold archive merge|verify` on a real data folder: small files, damage, a lost end, beside a running `up`."""

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infra.adapters.archive.manifest import MANIFEST, read_manifest
from infra.adapters.postgres.deployment import note_archived
from infra.app.bootstrap import session
from infra.app.databases import database_of
from infra.app.drain import drain
from infra.app.log import log_of
from infra.app.vault import vault_of
from infra.cli.main import run
from infra.drivers.process.archive_role import archiver_of
from schemas.merge_plan import FAN_IN, waiting
from schemas.record import Pending, encode
from tests.integration.running import Up, command, result
from tests.records import purchase

FILES = 2 * FAN_IN + 3  # of one partition
Answer = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose archive was written in many small slices."""
    data = tmp_path_factory.mktemp("archive") / "data"
    with session(data) as here:
        vault_of(here).hold_lease()
        archiver, log = archiver_of(here), log_of(here)
        for number in range(FILES):
            log.append([Pending(bytes(16), encode(purchase([("user_id", "ada")], f"o{number}", "20.00")))])
            drain(here)
            assert archiver.flush() == 1
        with closing(database_of(here, "test")) as database:
            note_archived(database, [archiver.store.next_offset(each) for each in range(log.partitions)])
    return data


@pytest.fixture
def data(kept: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    subprocess.run(["cp", "-a", str(kept), str(tmp_path / "data")], check=True)
    return tmp_path / "data"


@pytest.fixture
def answer(data: Path, capfd: pytest.CaptureFixture[str]) -> Answer:
    """Runs a command in this process: (exit status, its JSON)."""

    def asked(*words: str) -> tuple[int, Any]:
        status = run([*words, "--data", str(data), "--json"])
        return status, json.loads(capfd.readouterr().out)

    return asked


def test_small_files_are_merged_until_none_is_due_and_hold_the_same(data: Path, answer: Answer) -> None:
    status, before = answer("archive", "verify")
    assert (status, before["ok"], before["files"], before["records"], before["problems"]) == (0, True, FILES, FILES, [])
    status, merged = answer("archive", "merge")
    assert (status, merged["ok"], merged["files_before"], merged["waiting"]) == (0, True, FILES, 0)
    assert merged["merges"] >= 1
    entries = read_manifest(data / "archive")[0]
    assert (len(entries), waiting(entries)) == (merged["files"], 0)
    status, after = answer("archive", "verify")
    assert (status, after["ok"], after["files"]) == (0, True, merged["files"])
    assert (after["records"], after["next_offsets"]) == (before["records"], before["next_offsets"])
    assert answer("archive", "merge")[1]["merges"] == 0
    asked = result("sql", "select count(*) n from orders", "--data", str(data))
    assert asked == [{"n": FILES}]


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_file_is_named_left_alone_and_all_others_are_merged(data: Path, answer: Answer, damage: str) -> None:
    bad = read_manifest(data / "archive")[0][FAN_IN + 1].path
    file = data / "archive" / bad
    if damage == "missing":
        file.unlink()
    else:
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    status, found = answer("archive", "verify")
    assert (status, found["ok"], [each["path"] for each in found["problems"]]) == (1, False, [bad])
    status, merged = answer("archive", "merge")
    assert (status, [each["path"] for each in merged["problems"]]) == (1, [bad])
    assert merged["merges"] == 2, "before and behind it"
    assert bad in [entry.path for entry in read_manifest(data / "archive")[0]]
    people = command("archive", "--data", str(data), "verify")
    assert people.returncode == 1
    assert f"  {bad}: " in people.stdout
    assert "restore these files from a backup of the archive" in people.stderr


def test_an_end_that_was_archived_and_is_gone_and_a_manifest_that_is_none_are_told(data: Path, answer: Answer) -> None:
    manifest = data / "archive" / MANIFEST
    whole = manifest.read_bytes()
    last = read_manifest(data / "archive")[0][-1]
    manifest.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    status, found = answer("archive", "verify")
    told = f"partition {last.partition}: offsets [{last.start}, {last.next}) were archived but are in no file"
    assert (status, found["problems"]) == (1, [{"path": "", "reason": told}])
    manifest.write_bytes(b"not a line of ours\n{}\n")
    status, found = answer("archive", "verify")
    assert (status, found["files"], [each["path"] for each in found["problems"]]) == (1, 0, [MANIFEST])
    manifest.write_bytes(whole)
    assert answer("archive", "verify")[0] == 0


def test_an_archive_that_is_ahead_of_the_log_is_told(data: Path, answer: Answer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with session(other):
        pass
    shutil.copytree(data / "archive", other / "archive", dirs_exist_ok=True)
    done = command("archive", "verify", "--data", str(other), "--json")
    assert done.returncode == 1
    assert "the log ends at 0" in json.loads(done.stdout)["problems"][0]["reason"]


def test_beside_a_running_up_all_is_verified_and_merging_is_left_to_it(data: Path) -> None:
    up = Up(data, UI="off")
    up.wait_ready()
    try:
        assert result("archive", "verify", "--data", str(data))["records"] == FILES
        refused = command("archive", "merge", "--data", str(data))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "merges it in the background" in refused.stderr
    finally:
        assert up.stop() == 0
