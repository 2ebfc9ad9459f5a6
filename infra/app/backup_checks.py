"""Whether backups exist, are recent and have not outlived their limit: for /health, the Health page and the doctor."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from infra.adapters.backup.notes import BackupNotes, Note
from infra.adapters.backup.places import place_text
from infra.app.backing_up import next_at, open_store
from infra.app.checks import SHOWN, Finding
from infra.app.databases import vault_database_of
from schemas.backups import ends_at
from schemas.errors import TouchfoldError

if TYPE_CHECKING:
    from infra.adapters.postgres.database import Database
    from infra.app.session import Session
    from infra.app.settings import Settings

LATE: Final = timedelta(hours=6)  # past the due time
WAL_LATE: Final = timedelta(minutes=15)  # WAL should be a minute old
_REMOVE: Final = "run touchfold backup DEST --prune; if the destination was deleted, touchfold backup DEST --forget"


def backups(vault: "Database", settings: "Settings", time_zone: str, now: datetime, *, runs: bool) -> Finding:
    """As far as the notes go; no destination is contacted. `runs`: an `up` is running, which should be shipping WAL."""
    notes = BackupNotes(vault).read()
    to = place_text(settings.backup_to) if settings.backup_to is not None else None
    for problem in (_overdue(notes, now), _troubled(notes), _late(notes, settings, to, time_zone, now, runs=runs)):
        if problem is not None:
            return problem
    if not notes:
        return Finding("backups", True, "none yet; TOUCHFOLD_BACKUP_TO makes one every day")
    newest = notes[0]
    last = "never" if newest.last_at is None else f"{newest.last_at:%Y-%m-%d %H:%M}"
    return Finding("backups", True, f"newest: {last}, {newest.destination}")


def _overdue(notes: Sequence[Note], now: datetime) -> Finding | None:
    old = [
        f"{each.destination} has one from {each.oldest_at:%Y-%m-%d}, but the limit is {each.days} days"
        for each in notes
        if each.oldest_at is not None and now >= ends_at(each.oldest_at, each.days, each.days)
    ]
    if not old:
        return None
    return Finding("backups", False, "backups past their age limit: " + "; ".join(old), _REMOVE)


def _troubled(notes: Sequence[Note]) -> Finding | None:
    trouble = [f"{each.destination}: {each.trouble}" for each in notes if each.trouble is not None]
    if not trouble:
        return None
    fix = "check that the destination is mounted and can be reached; backups then resume by themselves"
    return Finding("backups", False, "; ".join(trouble), fix)


def _late(
    notes: Sequence[Note], settings: "Settings", to: str | None, time_zone: str, now: datetime, *, runs: bool
) -> Finding | None:
    note = next((each for each in notes if each.destination == to), None)
    if to is None or not runs:
        return None
    if note is None or note.last_at is None:
        return None  # it is being made
    if now > next_at(note.last_at, settings.backup_at, time_zone, now) + LATE:
        detail = f"the newest backup at {to} is from {note.last_at:%Y-%m-%d %H:%M}"
        return Finding("backups", False, detail, "read the backup process's lines in the log of touchfold up")
    if note.until_at is not None and now > note.until_at + WAL_LATE:
        detail = f"{to} has WAL only up to {note.until_at:%Y-%m-%d %H:%M}; it should be at most a minute behind"
        return Finding("backups", False, detail, "read the backup process's lines in the log of touchfold up")
    return None


def copies(here: "Session", now: datetime) -> Finding:
    """For the doctor: looks in every destination for expired backups."""
    notes = BackupNotes(vault_database_of(here, "touchfold doctor")).read()
    old, away = [], []
    for note in notes:
        try:
            store = open_store(here.settings, note.destination)
            found = store.overdue(now, note.days)
        except TouchfoldError as err:
            away.append(f"{note.destination}: {err.message}")
        else:
            old += [f"{note.destination}/{name}" for name in found]
    if old:
        more = f", and {len(old) - SHOWN} more" if len(old) > SHOWN else ""
        detail = f"{len(old)} backups are past their age limit: {', '.join(old[:SHOWN])}{more}"
        return Finding("copies", False, detail, _REMOVE)
    if away:
        return Finding(
            "copies", False, "; ".join(away), "check that the destination is there; expired backups cannot be ruled out"
        )
    return Finding("copies", True, f"no expired backups in {len(notes)} destinations")
