"""Backs up a data folder, even while it is in use, keeps shipping its WAL, and removes expired backups.

Log, projections and vault are one cluster with one WAL, so a base and its WAL capture all three at the same instant.
The archive is copied first, following its manifest: everything the manifest lists is in the base's log.
"""

import re
import secrets
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from infra.adapters.backup.base_backup import part_of, stream_base
from infra.adapters.backup.key import backup_key, backup_key_or_new
from infra.adapters.backup.notes import BackupNotes, Note
from infra.adapters.backup.places import FolderObjects, objects_at, place_text
from infra.adapters.backup.store import BackupStore, Pruned
from infra.adapters.backup.wal_spool import Following, Spool
from infra.adapters.ledger.copies import ledger_copy
from infra.adapters.ledger.erasures import LedgerFile
from infra.adapters.machine.data_folder import SECRET_FILE
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.inspection import cluster_bytes, migration
from infra.app.archive import archive_of
from infra.app.databases import database_of, vault_database_of
from infra.app.secret_files import SECRETS
from infra.app.settings import FILE_NAME
from infra.app.vault import vault_of
from schemas.archive import ArchiveFile
from schemas.backups import Base, Part, base_id
from schemas.errors import ArchiveDamaged, BackupRefused, StoreUnavailable, TouchfoldError
from schemas.failpoints import failpoint

if TYPE_CHECKING:
    from infra.adapters.archive.store import ParquetArchive
    from infra.app.session import Session
    from infra.app.settings import Settings

Say = Callable[[str], None]
Tell = Callable[[str, int, int], None]  # (current task, amount done, total; 0: unknown)
LOCK_S: Final = 600.0  # wait for another backup of this folder
SHIP_S: Final = 5.0  # how often WAL is shipped while a base is being copied
_MAKING: Final = "making"  # in DATA/backup: the base in progress
_SECRET_LINE: Final = re.compile(rf"^\s*[\"']?({'|'.join(SECRETS)})[\"']?\s*=.*$", re.MULTILINE)


class Made(NamedTuple):
    """The result of a backup. `bytes`: size of the base at the destination; `archive`: files copied, files in all."""

    base: Base
    bytes: int
    archive: int
    took_s: float
    until: datetime
    pruned: Pruned


def open_store(settings: "Settings", destination: str, *, key: bytes | None = None) -> BackupStore:
    """A destination with the existing backup key. Opens only the key file. Raises BackupKeyWrong."""
    if key is None:
        key = backup_key(settings.data, configured_key(settings))
    return BackupStore(objects_at(place_text(destination), settings.s3_endpoint), key)


def configured_key(settings: "Settings") -> str | None:
    return settings.backup_key.get_secret_value() if settings.backup_key else None


def destination_of(settings: "Settings", given: str | None) -> str:
    """DEST, else the setting, else the destination WAL is shipped to. Raises BackupRefused if there is none."""
    following = Spool(settings.data).following()
    found = given or settings.backup_to or (following.to if following else None)
    if found is None:
        raise BackupRefused("no destination: give a folder or s3://bucket/prefix, or set TOUCHFOLD_BACKUP_TO")
    return place_text(found)


def refuse_other_servers(here: "Session") -> None:
    """We can only copy the cluster in the data folder. Raises BackupRefused."""
    if not isinstance(here.adapters.server, EmbeddedPostgres):
        raise BackupRefused(
            "touchfold backup copies the PostgreSQL in a data folder, but this one uses your own "
            "(TOUCHFOLD_DATABASE): back that up with PostgreSQL's tools; docs/operating.md shows the steps"
        )


def back_up(here: "Session", destination: str, tell: Tell, say: Say, *, wait_s: float = LOCK_S) -> Made:
    """A full backup at the destination; WAL is shipped there from then on. Works with or without a running `up`.

    Raises BackupRefused, BackupKeyWrong, StoreUnavailable, ArchiveDamaged, DatabaseDamaged; the next backup removes
    whatever was left unfinished. FolderLocked: another backup of this folder is still running after `wait_s`.
    """
    refuse_other_servers(here)
    to = place_text(destination)
    if "://" not in to and Path(to).is_relative_to(here.data.resolve()):
        raise BackupRefused(f"{to} is inside the data folder and would be lost with it: choose a place on another disk")
    key = backup_key_or_new(here.data, configured_key(here.settings), say)
    store = BackupStore(objects_at(to, here.settings.s3_endpoint), key)
    spool = Spool(here.data)
    with spool.lock(wait_s=wait_s):
        return _Backup(here, store, spool, to, tell).run()


class _Backup:
    def __init__(self, here: "Session", store: BackupStore, spool: Spool, to: str, tell: Tell) -> None:
        self._here = here
        self._store = store
        self._spool = spool
        self._to = to
        self._tell = tell
        self._days = here.settings.backup_days
        self._vault = vault_database_of(here, "touchfold backup")
        self._notes = BackupNotes(self._vault)
        self._shipped_at = time.monotonic()

    def run(self) -> Made:
        begun = time.monotonic()
        self._store.begin()
        if isinstance(self._store.objects, FolderObjects):
            self._store.objects.clear_asides()
        self._notes.write(self._to, self._days)  # from here on, receipts count this destination
        self._following = self._follow()
        with self._making() as id_:
            entries, copied = self._copy_archive()
            failpoint("backup.archive_copied")
            base = self._copy_base(id_, entries)
            self._store.finish(base)
            failpoint("backup.finished")
        put_ledger(self._here, self._store)
        until = base.ended_at
        if self._following is not None:
            until = self._spool.flush(self._vault, self._store, self._following).at
        pruned = self._store.prune(self._now(), self._days, growing=base.chain)
        size, took_s = sum(part.bytes for part in base.parts), time.monotonic() - begun
        self._notes.write(
            self._to,
            self._days,
            **{"last_at": base.started_at, "took_s": took_s, "bytes": size, "until_at": until},
            **{"oldest_at": pruned.oldest, "looked_at": self._now(), "trouble": None},
        )
        return Made(base, size, copied, took_s, until, pruned)

    def _now(self) -> datetime:
        return self._here.door_clock.now()

    def _follow(self) -> Following | None:
        """Where WAL goes while this base is copied. None: the settings send it elsewhere, so this base stands alone."""
        found, by_itself = self._spool.keep_days(self._days), self._here.settings.backup_to
        if found is None or found.to != self._to:
            if by_itself is not None and place_text(by_itself) != self._to:
                return None
            found = self._spool.follow(self._to, self._days)
        return found

    @contextmanager
    def _making(self) -> Iterator[str]:
        """A new base's id; one left by a killed process is removed first."""
        note = self._here.data / "backup" / _MAKING
        if note.exists():
            left = note.read_text()
            if left not in self._store.whole_ids(list(self._store.objects.names(f"bases/{left}/"))):
                self._store.remove_base(left)
        id_ = base_id(self._now(), self._days, secrets.token_hex(6))
        note.write_text(id_)
        self._store.announce(id_)
        yield id_
        note.unlink()

    def _copy_archive(self) -> tuple[list[ArchiveFile], int]:
        """Copy what the destination lacks, until one look at the manifest finds it all there."""
        archive = archive_of(self._here)
        there = self._store.archive_names()
        copied = 0
        while True:
            entries = archive.files()
            missing = [entry for entry in entries if entry.sha256 not in there]
            if not missing:
                return entries, copied
            for done, entry in enumerate(missing):
                self._tell("archive files copied", done, len(missing))
                data = _read_whole(archive, entry)
                if data is None:
                    break  # it was merged with others in the meantime: look again
                self._store.put_archive(entry, data)
                there.add(entry.sha256)
                copied += 1
                self._ship()

    def _copy_base(self, id_: str, entries: list[ArchiveFile]) -> Base:
        total = cluster_bytes(self._vault)

        def put(number: int, data: bytes) -> Part:
            part = part_of(f"bases/{id_}/part-{number:05d}", data)
            self._store.put(part.name, data)
            failpoint("backup.part_put")
            self._ship()
            return part

        def passed(plain: int) -> None:
            self._tell("bytes of the database copied", plain, max(plain, total))

        span, parts, plain = stream_base(self._here.dsn, put, passed)
        return Base(
            id=id_,
            chain=self._following.chain if self._following is not None else secrets.token_hex(6),
            started_at=span.started_at,
            ended_at=span.ended_at,
            days=self._days,
            first_segment=span.first_segment,
            product=version("touchfold"),
            postgres=(self._here.data / "postgres" / "cluster" / "PG_VERSION").read_text().strip(),
            migrations=self._migrations(),
            master_checks=vault_of(self._here).key_checks(),
            parts=parts,
            plain_bytes=plain,
            archive=entries,
            files=_files(self._here.data),
            erasures=LedgerFile.of(self._here.ledger_folder).count(),
        )

    def _ship(self) -> None:
        """Keep WAL flowing while a base is copied; if the destination goes down, the copy itself fails."""
        if self._following is not None and time.monotonic() - self._shipped_at > SHIP_S:
            self._spool.take(self._following, self._store.key)
            self._spool.send(self._store)
            self._shipped_at = time.monotonic()

    def _migrations(self) -> dict[str, int]:
        """The migration each of the two databases is at."""
        return {"main": migration(database_of(self._here, "touchfold backup")), "vault": migration(self._vault)}


def _read_whole(archive: "ParquetArchive", entry: ArchiveFile) -> bytes | None:
    """None: the manifest no longer lists it. Raises ArchiveDamaged."""
    try:
        data = archive.store.read(entry, copies=False)
    except ArchiveDamaged:
        if entry in archive.store.every_entry():
            raise
        return None
    if sha256(data).hexdigest() != entry.sha256:
        raise ArchiveDamaged(f"{entry.path} does not match its manifest, so it is not backed up")
    return data


def _files(data: Path) -> dict[str, bytes]:
    """Small files from the data folder."""
    found = {SECRET_FILE: (data / SECRET_FILE).read_bytes()}
    if (data / FILE_NAME).exists():
        found[FILE_NAME] = without_secrets((data / FILE_NAME).read_text(encoding="utf-8")).encode()
    return found


def without_secrets(text: str) -> str:
    """A settings file without its keys: no backup may hold one. A file that hides a secret is left out whole."""
    text = _SECRET_LINE.sub(r"# \1 = … was left out of the backup: set it again", text)
    try:
        hidden = set(SECRETS) & tomllib.loads(text).keys()  # a value over several lines, or a dotted key
    except tomllib.TOMLDecodeError:
        hidden = set(SECRETS)
    return "# left out of the backup because it held secrets\n" if hidden else text


def put_ledger(here: "Session", store: BackupStore) -> None:
    """The newest copy of the ledger, kept beside the bases for a restore that has no other."""
    store.put_ledger(here.door_clock.now(), ledger_copy(here.ledger_folder))


def send_wal(here: "Session", destination: str) -> datetime:
    """Ship everything written so far; returns the time it reaches up to. Raises BackupRefused: WAL goes elsewhere."""
    refuse_other_servers(here)
    spool = Spool(here.data)
    following = spool.following()
    if following is None or following.to != destination:
        raise BackupRefused(f"WAL is not sent to {destination}: make a backup there first (touchfold backup DEST)")
    store = open_store(here.settings, destination)
    with spool.lock(wait_s=LOCK_S):
        until = spool.flush(vault_database_of(here, "touchfold backup"), store, following)
        put_ledger(here, store)
    notes = BackupNotes(vault_database_of(here, "touchfold backup"))
    notes.write(destination, following.days, until_at=until.at, trouble=None)
    return until.at


def seal_rest(settings: "Settings") -> None:
    """After PostgreSQL has stopped, seal the WAL it finished, so that none stays readable in the folder.

    The next process to start ships it. Raises BackupKeyWrong.
    """
    spool = Spool(settings.data)
    following = spool.following()
    if following is not None:
        with spool.lock():
            spool.take(following, backup_key(settings.data, configured_key(settings)))


# ---------------------------------------------------------------- removing, everywhere


def prune_all(here: "Session") -> list[Note]:
    """Remove expired backups from every place this vault was ever copied to; returns the notes afterwards.

    A place that cannot be reached is noted as trouble and does not hold up the others.
    """
    notes, now, days = (
        BackupNotes(vault_database_of(here, "touchfold backup")),
        here.door_clock.now(),
        here.settings.backup_days,
    )
    following = Spool(here.data).following()
    for note in notes.read():
        growing = following.chain if following is not None and following.to == note.destination else None
        try:
            store = open_store(here.settings, note.destination)
            if not store.exists():
                raise StoreUnavailable(f"{store.url} no longer holds a backup, or is not mounted", retry_after_s=60)
            pruned = store.prune(now, days, growing=growing)
        except TouchfoldError as err:
            notes.write(note.destination, days, trouble=err.message)
        else:
            notes.write(note.destination, days, oldest_at=pruned.oldest, looked_at=now, trouble=None)
    return notes.read()


def next_at(last: datetime | None, at: str, time_zone: str, now: datetime) -> datetime:
    """When the next automatic backup is due: the first set time of day after the last one, or now if there is none."""
    if last is None:
        return now
    zone = ZoneInfo(time_zone)
    hour, minute = (int(each) for each in at.split(":"))
    local = last.astimezone(zone)
    due = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return due if due > local else due + timedelta(days=1)
