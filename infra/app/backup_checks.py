"""Whether there are backups, new enough and none too old: for /health, the Health page and `touchfold doctor`."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from infra.adapters.backup.notes import BackupNotes, Note
from infra.adapters.backup.places import place_text
from infra.app.backing_up import next_at, open_store
from infra.app.checks import SHOWN, Finding
from schemas.backups import ends_at
from schemas.errors import TouchfoldError

if TYPE_CHECKING:
    from infra.adapters.postgres.database import Database
    from infra.app.bootstrap import Session
    from infra.app.settings import Settings

LATE: Final = timedelta(hours=6)  # after it was due
WAL_LATE: Final = timedelta(minutes=15)  # of a minute
_REMOVE: Final = "run touchfold backup DEST --prune; if the place was deleted, touchfold backup DEST --forget"


def backups(vault: "Database", settings: "Settings", time_zone: str, now: datetime, *, runs: bool) -> Finding:
    """As far as the notes tell; asks no destination. `runs`: an `up` is there, which should send WAL."""
    notes = BackupNotes(vault).read()
    to = place_text(settings.backup_to) if settings.backup_to is not None else None
    for problem in (_overdue(notes, now), _troubled(notes), _late(notes, settings, to, time_zone, now, runs=runs)):
        if problem is not None:
            return problem
    if not notes:
        return Finding("backups", True, "none was made; TOUCHFOLD_BACKUP_TO makes one a day")
    newest = notes[0]
    last = "never" if newest.last_at is None else f"{newest.last_at:%Y-%m-%d %H:%M}"
    return Finding("backups", True, f"the newest: {last}, {newest.destination}")


def _overdue(notes: Sequence[Note], now: datetime) -> Finding | None:
    old = [
        f"{each.destination} has one of {each.oldest_at:%Y-%m-%d}, kept for {each.days} days at most"
        for each in notes
        if each.oldest_at is not None and now >= ends_at(each.oldest_at, each.days, each.days)
    ]
    if not old:
        return None
    return Finding("backups", False, "copies are older than they may be: " + "; ".join(old), _REMOVE)


def _troubled(notes: Sequence[Note]) -> Finding | None:
    trouble = [f"{each.destination}: {each.trouble}" for each in notes if each.trouble is not None]
    if not trouble:
        return None
    fix = "see that the place is mounted or can be reached; it goes on by itself"
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
        detail = f"the newest backup at {to} is of {note.last_at:%Y-%m-%d %H:%M}"
        return Finding("backups", False, detail, "read the backup process's lines in the log of touchfold up")
    if note.until_at is not None and now > note.until_at + WAL_LATE:
        detail = f"{to} has WAL up to {note.until_at:%Y-%m-%d %H:%M}, and should have that of a minute ago"
        return Finding("backups", False, detail, "read the backup process's lines in the log of touchfold up")
    return None


def copies(here: "Session", now: datetime) -> Finding:
    """For the doctor: looks into every destination for what is too old."""
    notes = BackupNotes(here.vault_database("touchfold doctor")).read()
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
        detail = f"{len(old)} copies are older than they may be: {', '.join(old[:SHOWN])}{more}"
        return Finding("copies", False, detail, _REMOVE)
    if away:
        return Finding(
            "copies", False, "; ".join(away), "see that the place is there; whether copies are too old is not known"
        )
    return Finding("copies", True, f"none of {len(notes)} places has one that is too old")
