"""Manual maintenance of the archive: merge its small files now, and verify every file."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from infra.adapters.machine.disk import DOOR, Disk, room_needed
from infra.adapters.postgres.archive_turns import PostgresTurns
from infra.adapters.postgres.deployment import archived_offsets
from infra.app.archive import archive_of, disk_of
from infra.app.databases import database_of
from infra.app.log import log_of
from processors.archive.merge import Merger, Step
from schemas.errors import ArchiveDamaged, FolderLocked, Problem

if TYPE_CHECKING:
    from infra.adapters.archive.store import ParquetArchive
    from infra.app.session import Session

Tell = Callable[[str, int, int], None]  # (current task, amount done, total)


class Merged(NamedTuple):
    """What merging did. `waiting`: files still due, because one is damaged or another process is merging."""

    files_before: int
    files: int
    merges: int
    waiting: int
    problems: list[Problem]


class Verified(NamedTuple):
    """What the archive holds. `next_offsets`: by partition, the first offset that no file covers."""

    files: int
    records: int
    bytes: int
    next_offsets: list[int]
    problems: list[Problem]


def merge(session: "Session", tell: Tell) -> Merged:
    """Merge until nothing is due. Raises FolderLocked if another process is writing the archive, and DiskFull."""
    disk = disk_of(session)
    with closing(archive_of(session)) as archive, closing(PostgresTurns(session.dsn)) as turns:
        try:
            archive.recover()
        except FolderLocked as err:
            text = "another process is writing this archive and merges it in the background (touchfold status: files"
            raise FolderLocked(f"{text} waiting); stop it to merge by hand") from err
        before = len(archive.known())
        reasons: list[str] = []
        merger = Merger(archive, turns, time.monotonic, reasons.append, lambda size: disk.check(DOOR, size))
        merges, step = _merge(merger, disk, tell)
        problems = [Problem(path, reason) for path, reason in zip(merger.bad, reasons, strict=True)]
        return Merged(before, len(archive.known()), merges, step.waiting, problems)


def _merge(merger: Merger, disk: Disk, tell: Tell) -> tuple[int, Step]:
    """(number of merges done, the last look)."""
    merges = done = 0
    while True:
        known_bad = len(merger.bad)
        with room_needed(disk.path):
            step = merger.run_once()
        if step.merged:
            merges, done = merges + 1, done + step.merged
            tell("merging small files", done, done + step.waiting)
        elif len(merger.bad) == known_bad:  # else the files before and after a damaged one still need merging
            return merges, step


def verify(session: "Session", tell: Tell) -> Verified:
    """Verify each file against the manifest and its hash chain, and the files' ends against log and archiver's note."""
    archive = archive_of(session)
    problems = archive.verify(lambda done, total: tell("reading files", done, total))
    try:
        entries = archive.files()
    except ArchiveDamaged:  # already in `problems`
        return Verified(0, 0, 0, [], problems)
    problems += _ends(session, archive)
    records, size = sum(entry.rows for entry in entries), sum(entry.bytes for entry in entries)
    return Verified(len(entries), records, size, archive.next_offsets(), problems)


def _ends(session: "Session", archive: "ParquetArchive") -> list[Problem]:
    with closing(database_of(session, "touchfold archive")) as database:
        noted = dict(archived_offsets(database))
    held = dict(enumerate(archive.next_offsets()))
    ends = dict(enumerate(log_of(session).ends()))
    lost = [
        Problem("", f"partition {partition}: offsets [{held.get(partition, 0)}, {at}) were archived but are in no file")
        for partition, at in noted.items()
        if held.get(partition, 0) < at
    ]
    ahead = [
        Problem("", f"partition {partition}: the files reach offset {at}, but the log ends at {ends.get(partition, 0)}")
        for partition, at in held.items()
        if at > ends.get(partition, 0)
    ]
    return lost + ahead


def described(found: Merged | Verified) -> dict[str, Any]:
    """The JSON of contracts."""
    problems = [each._asdict() for each in found.problems]
    return {"ok": not problems, **found._asdict(), "problems": problems}
