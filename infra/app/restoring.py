"""Restores a backup into an empty folder, up to its end or an instant, and repeats erasures made since then."""

import json
import shutil
import tomllib
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from infra.adapters.archive.manifest import MANIFEST, manifest_of
from infra.adapters.archive.store import archive_at
from infra.adapters.backup.base_backup import unpack_base
from infra.adapters.backup.key import NAME as BACKUP_KEY
from infra.adapters.backup.recovery import own, recover
from infra.adapters.backup.store import BackupStore, decompressed
from infra.adapters.ledger.copies import add_copy
from infra.adapters.ledger.erasures import LedgerFile
from infra.adapters.machine.data_folder import RESTORING, DataFolder
from infra.adapters.machine.disk import DOOR, MIB, Disk
from infra.adapters.machine.durable_files import write_whole
from infra.adapters.postgres.deployment import note_archived
from infra.adapters.postgres.migrate import FOLDER
from infra.adapters.vault.keys import opens
from infra.adapters.vault.master_key import NAME as MASTER_KEY
from infra.adapters.vault.master_key import parse, read_key
from infra.app.archive import COPIES
from infra.app.backing_up import open_store
from infra.app.bootstrap import session
from infra.app.databases import database_of
from infra.app.log import log_of
from infra.app.settings import FILE_NAME, Settings
from infra.app.vault import vault_of
from schemas.backups import Reach, choose, time_of, wal_object
from schemas.errors import BackupRefused, MasterKeyWrong, SchemaNewer
from schemas.failpoints import failpoint

if TYPE_CHECKING:
    from infra.app.session import Session

Say = Callable[[str], None]
Tell = Callable[[str, int, int], None]
MAY_BE_THERE: Final = frozenset({MASTER_KEY, BACKUP_KEY, FILE_NAME})
"""What an empty folder may hold: files put there for the restore."""
_WRITTEN_AGAIN: Final = {
    "postgres": "the archive is at {place}: up rewrites it from the restored log",
    "kafka": "the archive is at {place} and stays as it is",
}
_WROTE: Final = ("postgres", "archive", "logs", "backup", "postgres.secret", "touchfold.lock", "run.json")


class Restored(NamedTuple):
    """What was restored. `at`: the instant; `again`: erasures that were repeated; `ledger_until`: how recent the newest
    ledger at hand is, None if there is none.
    """

    reach: Reach
    at: datetime
    events: int
    erasures: int
    again: int
    ledger_until: datetime | None


def restore(settings: Settings, source: str, at: datetime | None, tell: Tell, say: Say) -> Restored:
    """Raises BackupRefused (folder not empty, no such instant), BackupKeyWrong, MasterKeyWrong, SchemaNewer before
    anything is written; BackupDamaged naming the object. Repeat the same command to redo a restore that was killed.
    """
    data = settings.data
    _refuse_full(data)
    store = open_store(settings, source)
    store.prove()
    reach = _chosen(store, at)
    _refuse_newer(reach)
    _prove_master_key(settings, reach)
    elsewhere = _archive_elsewhere(settings, reach)
    if elsewhere is not None:
        _refuse_other_archive(settings, elsewhere)
    _refuse_without_room(data, reach)
    _clear(data)
    data.mkdir(parents=True, exist_ok=True)
    write_whole(data / RESTORING, json.dumps({"from": store.url, "base": reach.base.id}).encode())
    _write_files(data, reach)
    if elsewhere is None:
        _write_archive(data, store, reach, tell)
    else:
        say(_WRITTEN_AGAIN[settings.log].format(place=elsewhere))
    merge_ledgers(DataFolder(data, ledger=settings.ledger).ledger, store)
    _write_cluster(data, store, reach, at, tell)
    (data / RESTORING).unlink()
    return _finish(data, settings, store, reach, at, say)


# ---------------------------------------------------------------- before anything is written


def _refuse_full(data: Path) -> None:
    if not data.exists():
        return
    if not data.is_dir():
        raise BackupRefused(f"{data} is not a folder: give an empty one, or one that does not exist yet")
    if (data / RESTORING).exists():
        return  # left by a restore that was killed
    found = sorted(each.name for each in data.iterdir() if each.name not in MAY_BE_THERE)
    if found:
        raise BackupRefused(
            f"{data} is not empty (it contains {', '.join(found[:3])}{', …' if len(found) > 3 else ''}): restore into "
            f"an empty folder, which may only contain {', '.join(sorted(MAY_BE_THERE))}"
        )


def _clear(data: Path) -> None:
    """Remove what a killed restore has written, and nothing else."""
    if not (data / RESTORING).exists():
        return
    for name in _WROTE:
        path = data / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _chosen(store: BackupStore, at: datetime | None) -> Reach:
    reaches = store.reaches()
    found = choose(reaches, at)
    if found is not None:
        return found
    if not reaches:
        raise BackupRefused(f"there is no complete backup at {store.url}")
    spans = "; ".join(f"{each.since.isoformat()} to {each.until.isoformat()}" for each in reaches[-5:])
    raise BackupRefused(
        f"{at.isoformat() if at else ''} cannot be restored from {store.url}, which has: {spans}. WAL of the last "
        "minute may still be on its way; touchfold backup sends it now"
    )


def _refuse_newer(reach: Reach) -> None:
    base = reach.base
    for which, number in base.migrations.items():
        newest = max(int(path.name[:4]) for path in FOLDER.glob(f"[0-9]*_{which}.sql"))
        if number > newest:
            raise SchemaNewer(
                f"the backup's {which} database is at migration {number}, but this build knows {newest}: restore it "
                f"with the build that made it (touchfold {base.product}) or a newer one"
            )


def _refuse_without_room(data: Path, reach: Reach) -> None:
    needed = reach.base.plain_bytes + sum(entry.bytes for entry in reach.base.archive)
    disk = Disk(data)
    if not disk.has_room(DOOR, needed):
        raise BackupRefused(
            f"the disk of {data} has {disk.space().free // MIB:,} MiB free, but the restored data takes "
            f"{needed // MIB:,} on top of the reserve: restore into a folder on a larger disk"
        )


def _archive_elsewhere(settings: Settings, reach: Reach) -> str | None:
    """Where the restored folder's archive is, if outside it: from a current setting, or the restored settings file."""
    content = None if (settings.data / FILE_NAME).exists() else reach.base.files.get(FILE_NAME)
    kept = {} if content is None else tomllib.loads(content.decode())
    found = settings.archive or kept.get("archive")
    return None if found is None else str(found)


def _refuse_other_archive(settings: Settings, place: str) -> None:
    """Archived events beyond the restored log would be mistaken for other events that later get the same offsets.

    With a log in Kafka the archive stays: that log was not set back.
    """
    if settings.log == "kafka":
        return
    archive = archive_at(place, copies=settings.data / COPIES, endpoint=settings.s3_endpoint)
    with closing(archive):
        found = len(archive.store.every_entry())
    if found:
        raise BackupRefused(
            f"TOUCHFOLD_ARCHIVE is {place}, which already has {found} files, perhaps those of the folder that the "
            "backup was made from. Set it to an empty folder or prefix (up rewrites it from the log), or unset it to "
            "keep the archive in the restored folder. Nothing was changed"
        )


def _prove_master_key(settings: Settings, reach: Reach) -> None:
    """The master key is not in any backup, so it must be supplied. Raises MasterKeyWrong."""
    if settings.master_key is not None:
        key = parse(settings.master_key.get_secret_value(), "TOUCHFOLD_MASTER_KEY")
    elif (settings.data / MASTER_KEY).exists():
        key = read_key(settings.data)
    else:
        raise MasterKeyWrong(
            "a backup does not hold the master key, without which no personal value can be opened: set "
            f"TOUCHFOLD_MASTER_KEY (or TOUCHFOLD_MASTER_KEY_FILE), or put {MASTER_KEY} into {settings.data}, then "
            "restore again"
        )
    if not any(opens(key, check) for check in reach.base.master_checks):
        raise MasterKeyWrong(
            f"the master key is not the one for this backup ({reach.base.id}): use the one that was in use on "
            f"{reach.base.ended_at:%Y-%m-%d}. Nothing was changed"
        )


# ---------------------------------------------------------------- writing


def _write_files(data: Path, reach: Reach) -> None:
    for name, content in reach.base.files.items():
        path = data / name
        if name in MAY_BE_THERE and path.exists():
            continue  # files put there for the restore take precedence
        path.touch(mode=0o600)
        path.write_bytes(content)


def _write_archive(data: Path, store: BackupStore, reach: Reach, tell: Tell) -> None:
    folder, entries = data / "archive", reach.base.archive
    for done, entry in enumerate(entries):
        tell("archive files restored", done, len(entries))
        path = folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, store.read_archive(entry))
    if entries:
        write_whole(folder / MANIFEST, manifest_of(entries))


def _write_cluster(data: Path, store: BackupStore, reach: Reach, at: datetime | None, tell: Tell) -> None:
    base = reach.base
    folder = data / "postgres"
    folder.mkdir()
    own(folder)
    total = sum(part.bytes for part in base.parts)
    unpack_base(
        base.parts, store.read, folder / "cluster", lambda done: tell("bytes of the base restored", done, total)
    )
    failpoint("restore.unpacked")
    times = {each.segment: each for each in store.wal() if each.chain == base.chain}
    behind = sum(each.is_segment and name > base.first_segment for name, each in times.items())

    def wal(name: str) -> bytes | None:
        told = times.get(name)
        if told is None:
            return None
        return decompressed(store.read(wal_object(told.chain, told.segment, told.at, told.days)))

    recover(data, at, wal, lambda _name, done: tell("segments of WAL replayed", done, max(done, behind)))


def merge_ledgers(folder: Path, store: BackupStore) -> None:
    """The ledger at hand, completed with lines from the backup's newest copy."""
    copy = store.ledger()
    if copy is not None:
        add_copy(folder, copy[1])


# ---------------------------------------------------------------- once the databases are running


def _finish(
    data: Path, settings: Settings, store: BackupStore, reach: Reach, at: datetime | None, say: Say
) -> Restored:
    from infra.app.erasing import resume_jobs  # noqa: PLC0415  # loading phone number tables takes 0.1 s

    known = LedgerFile.of(DataFolder(data, ledger=settings.ledger).ledger).read()
    with session(data, say=say) as here:
        vault, now = vault_of(here), here.door_clock.now
        again = resume_jobs(here.dsn, here.vault_dsn, vault, here.ledger_folder, here.region, now)
        _note_archive(here, reach)
        events = sum(log_of(here).ends())
    until = max([datetime.combine(each.on, datetime.min.time(), UTC) for each in known], default=None)
    copy = store.ledger()
    if copy is not None:
        until = max([time_of(copy[0]), *([until] if until else [])])
    return Restored(reach, at or reach.until, events, len(known), again, until)


def _note_archive(here: "Session", reach: Reach) -> None:
    """How far the archive is written now: files newer than the base are rewritten by the next `up`."""
    if here.settings.archive is not None:
        return
    ends: dict[int, int] = {}
    for entry in reach.base.archive:
        ends[entry.partition] = max(ends.get(entry.partition, 0), entry.next)
    with closing(database_of(here, "touchfold restore")) as database:
        note_archived(database, [ends.get(partition, 0) for partition in range(max(ends, default=-1) + 1)])
