"""A rebuild, and its check, beside an archive that is rewritten for a declaration, also by a writer that is killed."""

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from infra.adapters.archive.archived_log import ArchivedLog
from infra.adapters.archive.files import FolderFiles
from infra.adapters.archive.reader import ArchiveReader
from infra.adapters.archive.store import ParquetArchive
from infra.adapters.postgres.rebuild import PostgresRebuild
from processors.archive.archiver import Archiver
from processors.live.compiled import Compiled
from processors.live.feeder import LogFeeder
from processors.live.services import Services
from processors.live.worker import Worker
from processors.rebuild.builder import Builder
from processors.rebuild.check import Verdict, check
from processors.rebuild.definitions import start_rebuild
from schemas.clear_rules import Declared
from tests.integration.running import Up, command, result, until
from tests.integration.test_archive_commands import data, kept  # noqa: F401  # fixtures
from tests.integration.test_archive_rewriting import HIDDEN_ORDER_ID, rewriter
from tests.reading_world import ReadingWorld

ROOT = Path(__file__).resolve().parents[2]
ROWS = 5  # in a file
KILLED = """
import sys
from pathlib import Path
from infra.adapters.archive.store import ParquetArchive
from schemas.clear_rules import Declared
from schemas.failpoints import arm
from tests.integration.running import Up, command, result, until
from tests.integration.test_archive_commands import data, kept  # noqa: F401  # fixtures
from tests.integration.test_archive_rewriting import rewriter

arm(sys.argv[2])
archive = ParquetArchive(Path(sys.argv[1]))
archive.recover()
while rewriter(archive, Declared({"*": {"order_id": sys.argv[3] == "hidden"}}, frozenset())).run_once():
    pass
"""
POINTS = ["archive.rewrite_written", "archive.rewrite_put", "archive.rewrite_listed"]


class Rewriting:
    """Three files are rewritten at each call, and what they replace goes at once, as if it had been read for hours.

    The declaration changes when all are. `point`: where a rewriter is killed at the second call.
    """

    def __init__(self, folder: Path, point: str | None) -> None:
        self.folder, self._point = folder, point
        self.calls = self.rewritten = self.removed = 0
        self._declared = HIDDEN_ORDER_ID
        self._archive = self._opened()

    def _opened(self) -> ParquetArchive:
        archive = ParquetArchive(FolderFiles(self.folder, grace_s=0.0))
        archive.recover()
        return archive

    def __call__(self, *_told: object) -> None:
        self.calls += 1
        if self._point is not None and self.calls == 2:
            self._archive.close()
            self._killed(self._point)
            self._archive = self._opened()
        for _ in range(3):
            if rewriter(self._archive, self._declared).run_once():
                self.rewritten += 1
                continue
            hidden = self._declared == HIDDEN_ORDER_ID
            self._declared = Declared({"*": {"order_id": False}}, frozenset()) if hidden else HIDDEN_ORDER_ID
        self.removed += sum(self._archive.retire(partition) for partition in range(4))

    def close(self) -> None:
        self._archive.close()

    def _killed(self, point: str) -> None:
        hidden = "hidden" if self._declared == HIDDEN_ORDER_ID else "shown"
        found = subprocess.run([sys.executable, "-c", KILLED, str(self.folder), point, hidden], cwd=ROOT, check=False)
        assert found.returncode == -signal.SIGKILL


def shop(world: ReadingWorld) -> None:
    for number in range(60):
        who = [("user_id", f"u{number % 9}"), ("email", f"u{number % 9}@example.com")]
        world.purchase(who, f"o{number}", f"{number}.50", days_ago=number)
        world.send(who, sealed={"traits": {"name": f"Name {number}"}, "properties": {"note": "gift"}})
    world.settle()


@pytest.fixture
def archived(world: ReadingWorld, tmp_path: Path) -> tuple[Services, Path]:
    """The services of a world whose log is read from an archive of small files."""
    shop(world)
    folder = tmp_path / "archive"
    log = world.services.log
    with closing(ParquetArchive(folder)) as archive:
        Archiver(log, archive, world.clock, log.ends, "USD", min_rows=ROWS).flush()
        assert len(archive.files()) > 15
    return replace(world.services, log=ArchivedLog(log, ArchiveReader(ParquetArchive(folder), kept_bytes=0))), folder


def checked(world: ReadingWorld, services: Services, tell: Callable[..., None]) -> Verdict:
    live = services.control.live()
    rebuild = PostgresRebuild(world.databases.main)
    with closing(rebuild), rebuild.snapshot(live.revision) as snapshot:
        compiled = Compiled.of(live, services.time_zone, services.currency, services.order_cap)
        return check(services, compiled, snapshot, tell)


@pytest.mark.kill
@pytest.mark.parametrize("point", [None, *POINTS])
def test_a_check_says_equal_while_the_files_it_reads_are_rewritten(
    world: ReadingWorld,
    archived: tuple[Services, Path],
    point: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("processors.rebuild.check.CHUNK", ROWS)
    services, folder = archived
    rewriting = Rewriting(folder, point)
    before = checked(world, world.services, lambda *_: None)
    verdict = checked(world, services, rewriting)
    assert (verdict.equal, verdict.hash, verdict.profiles) == (True, before.hash, 9), verdict.differences
    assert rewriting.rewritten > 15
    assert rewriting.removed > 5
    assert not [line for line in caplog.records if line.name == "touchfold.archive"], "the log itself was not needed"
    assert ParquetArchive(folder).verify() == []


@pytest.mark.kill
@pytest.mark.parametrize("point", [None, "archive.rewrite_put"])
def test_a_rebuild_ends_while_the_files_it_reads_are_rewritten(
    world: ReadingWorld,
    archived: tuple[Services, Path],
    point: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("processors.rebuild.builder.SLICE", ROWS)
    monkeypatch.setattr("processors.rebuild.builder.NEAR", 0)
    services, folder = archived
    rewriting = Rewriting(folder, point)
    before = checked(world, world.services, lambda *_: None)
    number = start_rebuild(services.control, world.clock.now())
    rebuild = PostgresRebuild(world.databases.main)
    feeder = LogFeeder(Worker(services, Builder(services, rebuild)))
    with closing(rebuild):
        while feeder.step():
            rewriting()
    assert services.control.live().revision == number
    assert rewriting.rewritten > 15
    assert rewriting.removed > 5
    assert not [line for line in caplog.records if line.name == "touchfold.archive"], "the log itself was not needed"
    after = checked(world, services, rewriting)
    assert (after.equal, after.hash) == (True, before.hash), after.differences
    assert ParquetArchive(folder).verify() == []


@pytest.mark.kill
def test_check_and_rebuild_beside_an_archive_process_that_is_killed_while_it_rewrites(
    data: Path,  # noqa: F811
) -> None:
    at = ("--data", str(data))
    up = Up(data, TEST="1", FAILPOINT="archive@archive.rewrite_put")
    try:
        up.wait_ready()
        until(lambda: bool(up.pids("archive")), "the archive process")
        (first,) = up.pids("archive")
        assert command("fields", "personal", "purchase.completed", "order_id", *at).returncode == 0
        until(lambda: first not in up.pids("archive"), "its end at the first file")
        found = result("rebuild", "--check", *at)
        assert (found["equal"], found["profiles"]) == (True, 1)
        assert result("rebuild", *at)["revision"] > 1
        until(lambda: result("status", *at)["archive_rewrites_waiting"] == 0, "the end of rewriting")
        assert result("rebuild", "--check", *at)["equal"] is True
        assert result("sql", "select count(*) n, count(order_id) shown from events", *at) == [{"n": 19, "shown": 0}]
        assert result("archive", "verify", *at)["ok"] is True
    finally:
        up.stop()
