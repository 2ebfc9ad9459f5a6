"""The archive process: moves applied records from the log to Parquet files in the background."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.adapters.archive.store import give_back_memory
from infra.adapters.machine.disk import room_needed
from infra.adapters.postgres.archive_turns import PostgresTurns
from infra.adapters.postgres.clear import PostgresClearRules
from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.dead_letters import PostgresDeadLetters
from infra.adapters.postgres.deployment import note_archived
from infra.adapters.postgres.erased_tokens import ErasedTokens
from infra.adapters.postgres.records import PostgresRecords
from infra.adapters.postgres.sources import PostgresSources
from infra.app.archive import archive_of, disk_of
from infra.app.databases import database_of
from infra.app.log import log_of
from infra.app.rotating import LeftRotation
from infra.app.vault import vault_of
from infra.drivers.process.archive_upkeep import Rewriting, Upkeep
from processors.archive.archiver import Archiver
from schemas.clear_rules import Declared
from schemas.clear_view import ClearView
from schemas.errors import ArchiveDamaged, Disposition, FolderLocked, StoreUnavailable, TouchfoldError
from schemas.waits import ARCHIVE, Wait

if TYPE_CHECKING:
    from infra.adapters.archive.store import ParquetArchive
    from infra.app.session import Session

PAUSE_S: Final = 1.0
DAMAGED_S: Final = 10.0  # between checks whether a damaged archive has been repaired
LAG_S: Final = 60.0  # between checks how far the archive is behind
KEEP_LETTERS: Final = timedelta(days=30)  # what is sealed under a daily key can be opened for this long
_log = logging.getLogger("touchfold.archive")


def archiver_of(
    session: "Session", stop: Callable[[], bool] = lambda: False, archive: "ParquetArchive | None" = None
) -> Archiver:
    """The archiver of a session's log and archive. `archive`: the session's, if it is already open."""
    control = PostgresControl(session.dsn, "touchfold archive")
    log = log_of(session)

    def applied_until() -> list[int]:
        """By partition; those that a topic was given later have no progress yet, and nothing applied."""
        progress = {each.partition: each.next_offset for each in control.progress(control.live().revision)}
        return [progress.get(partition, 0) for partition in range(max(progress, default=-1) + 1)]

    records = PostgresRecords(database_of(session, "touchfold archive records"))
    declared = declared_of(session)

    def waits(wait: Wait) -> None:
        _log.error("%s is waiting; the other partitions are being archived: %s", wait.place, wait.reason)
        control.note_wait(ARCHIVE, wait, session.door_clock.now())

    for partition in range(log.partitions):
        control.end_wait(ARCHIVE, partition)  # from an earlier process; recorded again if it is still waiting
    return Archiver(
        log,
        archive or archive_of(session),
        session.door_clock,
        applied_until,
        session.currency,
        gaps=session.adapters.kafka is not None,
        turns=PostgresTurns(session.dsn),
        stop=stop,
        set_aside=lambda wait: records.place(wait.partition, wait.offset).verdict is not None,
        waits=waits,
        goes_on=lambda partition: control.end_wait(ARCHIVE, partition),
        view=lambda: ClearView(declared()),
        check_room=disk_of(session).check,
    )


def declared_of(session: "Session") -> Callable[[], Declared]:
    """The current declarations, less than a second old; stored once for readers of the archive."""
    sources = PostgresSources(session.dsn, unknown=session.unknown_clear)
    rules = PostgresClearRules(database_of(session, "touchfold archive rules"))

    def declared() -> Declared:
        found = sources.declared()
        rules.note(found)
        return found

    return declared


def rewriting_of(session: "Session") -> Rewriting:
    """What rewriting files needs from a session."""
    return Rewriting(declared_of(session), vault_of(session).open_many, ErasedTokens(session.dsn), session.currency)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turn errors of a full, read-only or missing disk into an error that is waited out.

    The log keeps what is in no file yet, and a process that exited would only be restarted.
    """
    try:
        with room_needed(path):
            yield
    except OSError as err:
        raise StoreUnavailable(f"nothing is archived: the disk of {path} cannot be written to: {err}") from err


def forget_old_dead_letters(session: "Session", today: date) -> None:
    """Once a day, delete dead letters under daily keys older than 30 days, and then these keys."""
    before = today - KEEP_LETTERS
    letters = PostgresDeadLetters(session.dsn)
    try:
        letters.delete_without_tokens(before)
    finally:
        letters.close()
    vault_of(session).expire_daily_keys(before)


def run(session: "Session", stop: threading.Event, ready: Callable[[], None], retention_s: float | None = None) -> None:
    """Until `stop`, write the files that are due. Outages and a damaged archive are waited out.

    Everything else continues meanwhile: the log keeps and serves what is in no file yet (ArchivedLog).

    `retention_s`: how long the log keeps a record; a warning is logged when half of that has passed.
    """
    vault_of(session)  # reads the master key now: losing the file later does not matter until the next start
    archive = archive_of(session)
    archiver = archiver_of(session, stop.is_set, archive)
    notes, rotation = database_of(session, "touchfold archive notes"), LeftRotation(session)
    disk = disk_of(session)
    upkeep = Upkeep(archive, archiver.turns, disk, stop.is_set, rewriting_of(session))
    ready()
    swept: date | None = None
    worked, waits, told = True, False, ""
    looked_at = time.monotonic()
    while not stop.is_set():
        try:
            today = session.door_clock.now().date()
            if today != swept:
                forget_old_dead_letters(session, today)
                swept = today
            rotation.turn()
            if retention_s is not None and time.monotonic() - looked_at > LAG_S:
                looked_at = time.monotonic()
                warn_of_lag(archiver, retention_s)
            with _writable(disk.path):
                archived = archiver.run_once()
                busy = bool(archived) or upkeep.run_once()
            told = ""
            if archived:
                note_archived(notes, [archiver.store.next_offset(each) for each in range(archiver.log.partitions)])
            if busy:
                worked = True
                continue
            if worked:
                give_back_memory()
                worked = False
        except FolderLocked as err:
            if not waits:
                _log.info("waiting: %s", err.message)
            waits = True
        except ArchiveDamaged as err:
            archiver.forget()
            _log.error("nothing is archived until this is repaired (see touchfold doctor): %s", err.message)
            stop.wait(DAMAGED_S)
        except TouchfoldError as err:
            if err.disposition is not Disposition.RETRY:
                raise
            if err.code != told:  # once: a full disk may last for days
                _log.warning("waiting: %s", err.message)
            told = err.code
            archiver.forget()  # a file may be left half-written
        stop.wait(PAUSE_S)


def warn_of_lag(archiver: Archiver, retention_s: float) -> None:
    """Warn before retention removes records that are in no file yet."""
    age_s = archiver.oldest_age_s()
    if age_s > retention_s / 2:
        _log.warning(
            "the oldest record that is not archived is %.0f minutes old, and the log keeps records for %.0f: start more"
            " archive processes, check why workers do not apply records, or raise the topic's retention",
            age_s / 60,
            retention_s / 60,
        )
