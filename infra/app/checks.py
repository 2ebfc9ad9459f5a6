"""What can be wrong with a deployment, each check one function with a small plain result.

`/health`, the Health page and `touchfold doctor` show these. A check answers in milliseconds unless it says that it is
only for the doctor. No text holds a secret or personal data: `/health` is public.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from infra.adapters.machine.disk import BUILDING, DOOR, MIB, WORKER, Disk, reserve_bytes
from infra.adapters.postgres.database import Database, connect
from infra.adapters.postgres.deployment import archived_offsets
from infra.adapters.postgres.inspection import (
    checksum_failures,
    damaged,
    finished_erasures,
    knows_identifiers,
    readable_tables,
)
from infra.app.log_lines import described
from schemas.errors import ArchiveDamaged, ConnectionsInUse, TouchfoldError

if TYPE_CHECKING:
    from infra.adapters.archive.store import ParquetArchive
    from infra.adapters.ledger.erasures import LedgerFile
    from infra.adapters.postgres.tokens import TokenRow
    from schemas.waits import Waiting

STANDS_S: Final = 20.0  # without progress although something is waiting; the longest batch takes three seconds
AS_TOLD: Final = "do what the message says"  # the detail already contains the fix, so this is not shown to people
SHOWN: Final = 5  # files or tables of one kind named in a finding
_log = logging.getLogger("touchfold.checks")


UNKNOWN_CLEAR: Final = (
    "TOUCHFOLD_UNKNOWN=clear: numbers, booleans and times that no definition names stay in clear, so birth dates "
    "and locations may be visible in SQL and in the archive"
)


class Finding(NamedTuple):
    """What a check found. `fix`: what to do, empty if all is well; with `ok` it is a remark."""

    check: str
    ok: bool
    detail: str
    fix: str = ""


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """The finding of a check; whatever the check raises becomes its finding, so that the others still run."""
    try:
        return check()
    except TouchfoldError as err:
        return Finding(name, False, err.message, AS_TOLD)
    except Exception as err:  # unexpected: its text may hold anything, its class and location do not
        _log.error("the check %s failed: %s", name, described(err, err.__traceback__))
        detail = f"the check itself failed ({described(err, err.__traceback__)})"
        return Finding(name, False, detail, "read the log, and report this if it does not explain itself")


def records(waits: "Sequence[Waiting]") -> Finding:
    """No partition is blocked by a record that cannot be read yet."""
    if not waits:
        return Finding("records", True, "no partition is waiting at a record that cannot be read yet")
    detail = "; ".join(
        each.line() + (f" (since {each.since:%Y-%m-%d %H:%M:%S})" if each.since is not None else "") for each in waits
    )
    return Finding("records", False, detail, "; ".join(dict.fromkeys(each.remedy for each in waits)))


# --- the machine -------------------------------------------------------------------------------------------------


def disk(found: Disk) -> Finding:
    """Free space, and who has stopped for lack of it."""
    free, total = found.space()
    detail = f"{free // MIB:,} MiB of {total // MIB:,} are free; {reserve_bytes(total) // MIB:,} MiB are kept free"
    if found.has_room(DOOR):
        return Finding("disk", True, detail if found.has_room(BUILDING) else f"{detail}: new revisions are on hold")
    stopped = "the door, imports and the archive are on hold" if found.has_room(WORKER) else "nothing is being applied"
    fix = "make room, or move the data folder to a larger disk: work resumes by itself when there is space"
    return Finding("disk", False, f"{detail}: {stopped}", fix)


# --- PostgreSQL --------------------------------------------------------------------------------------------------


def connections(dsn: str) -> Finding:
    """Whether one more connection can be opened: the only check that covers every limit."""
    try:
        connect(dsn, "touchfold health new").close()
    except ConnectionsInUse as err:
        fix = (
            "restart touchfold up to free the connections its processes hold; close other clients; with your own "
            "PostgreSQL raise max_connections or the role's limit"
        )
        return Finding("connections", False, err.message, fix)
    return Finding("connections", True, "a new connection could be opened")


def checksums(database: Database) -> Finding:
    """Pages that had a wrong checksum when any session read them. PostgreSQL counts them."""
    rows = checksum_failures(database)
    if rows:
        where = ", ".join(f"{count} in {name or 'shared tables'}" for name, count in rows)
        return Finding("pages", False, f"damaged pages were read: {where}", PAGES_FIX)
    return Finding("pages", True, "no damaged page was read")


PAGES_FIX: Final = (
    "the disk has altered PostgreSQL's files: stop touchfold, check the disk, restore the data folder from a backup "
    "(touchfold doctor names the tables; after a manual repair, reset the count with: select pg_stat_reset())"
)


class Advance:
    """Whether waiting records get applied. Remembers when one last was; one thread at a time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._applied = -1
        self._since = 0.0
        self._waited = False  # at the last look

    def look(self, waiting: int, applied: int) -> Finding:
        """Counted in log records. `waiting`: those that could be applied; `records` reports blocked partitions."""
        now = self._monotonic()
        if applied != self._applied or not (waiting and self._waited):
            self._since = now
        self._applied, self._waited = applied, waiting > 0
        stood_s = now - self._since
        if stood_s < STANDS_S:
            return Finding("work", True, f"{waiting:,} records are waiting" if waiting else NOTHING_WAITS)
        detail = f"{waiting:,} records are waiting, and nothing was applied for {stood_s:.0f} s"
        return Finding("work", False, detail, WORK_FIX)


NOTHING_WAITS: Final = "everything that can be read is applied"
WORK_FIX: Final = (
    "the worker is dead, stuck or waiting: read its lines in the log of touchfold up (or of the worker role), then "
    "restart that process; nothing is lost, and waiting records are applied then"
)


def states(dsn: str) -> Finding:
    """The live states have this build's layout, or a revision that folds them again is being built."""
    from infra.adapters.postgres.control import PostgresControl  # noqa: PLC0415

    with closing(PostgresControl(dsn, "touchfold check")) as control:
        since, live, newest = control.layout().since, control.live().revision, control.newest_of_all()
    if live >= since:
        return Finding("states", True, f"revision {live} has this build's layout")
    older = f"an earlier build folded revision {live}"
    if newest.state == "building":
        return Finding("states", True, f"{older}; revision {newest.revision} folds the log again: {newest.done:.0%}")
    why = f"revision {newest.revision}, which folds the log again, has failed: {newest.message}"
    fix = "run touchfold rebuild; until then some traits are as that build computed them"
    return Finding("states", False, f"{older}, and {why}", fix)


# --- tokens ------------------------------------------------------------------------------------------------------

SOON: Final = timedelta(days=7)


def tokens(rows: "Iterable[TokenRow]", now: datetime) -> Finding:
    """No token expires within a week, as its user gets no warning before it is refused. Not for /health: the platform
    itself is well.
    """
    soon = sorted(
        (row.expires_at, row.id, row.role)
        for row in rows
        if row.expires_at is not None and row.state(now) == "valid" and row.expires_at - now < SOON
    )
    if not soon:
        return Finding("tokens", True, f"none expires within {SOON.days} days")
    shown = ", ".join(f"{name} ({role}, {at:%Y-%m-%d %H:%M} UTC)" for at, name, role in soon[:SHOWN])
    fix = "create new ones (touchfold token create --role ROLE --expires 90d), hand them out, revoke the old ones"
    return Finding("tokens", False, f"{len(soon)} expire within {SOON.days} days: {shown}", fix)


# --- what a data folder must hold --------------------------------------------------------------------------------


def vault(main: Database, vault_database: Database, key: Callable[[], bytes] | None) -> Finding:
    """The vault exists, its master key opens it, and it is not empty while the database is in use.

    `key` reads the key that a start would read; None if it is in the settings, where no lost file can affect it.
    """
    from infra.adapters.vault.proof import holds_anyone  # noqa: PLC0415  # cryptography

    if not holds_anyone(vault_database, key() if key is not None else None) and knows_identifiers(main):
        detail = "it is empty, but the database has identifiers"
        return Finding("vault", False, detail, "restore the vault's database from its backup")
    return Finding("vault", True, "the master key opens it")


def ledger(database: Database, file: "LedgerFile") -> Finding:
    """Every finished erasure is in the ledger: after a restore nothing else knows whom to erase again."""
    finished, known = finished_erasures(database), file.count()
    if known < finished:
        detail = f"{finished} people were erased, but the ledger has only {known} of them"
        fix = (
            "put the folder ledger/ back from its backup before restoring anything: a restored database would bring "
            "erased people back"
        )
        return Finding("ledger", False, detail, fix)
    return Finding("ledger", True, f"{known} erasures")


def archive(store: "ParquetArchive", database: Database) -> Finding:
    """The manifest is readable, its files exist in the right sizes, and no file that was written is missing."""
    fix = "restore the archive from its backup; touchfold doctor reads every file and names each damaged one"
    try:
        entries = store.files()
        missing = _not_there(store, ((entry.path, entry.bytes) for entry in entries))
        archived = store.next_offsets()
    except ArchiveDamaged as err:
        return Finding("archive", False, err.message, fix)
    if missing:
        return Finding("archive", False, f"missing or cut short: {', '.join(missing)}", fix)
    noted = archived_offsets(database)
    lost = sum(max(0, at - (archived[partition] if partition < len(archived) else 0)) for partition, at in noted)
    if lost:
        return Finding("archive", False, f"it lacks {lost:,} records that were archived", f"{ARCHIVE_LOST}; {fix}")
    return Finding("archive", True, f"{len(entries)} files, {sum(archived):,} records")


ARCHIVE_LOST: Final = (
    "mount or restore the archive's folder; if the log is in PostgreSQL, it still has all events and restarting "
    "touchfold up writes them again"
)


def _not_there(store: "ParquetArchive", files: Iterable[tuple[str, int]]) -> list[str]:
    """The first few files of a folder that are missing or incomplete; object stores are not checked."""
    from infra.adapters.archive.files import FolderFiles  # noqa: PLC0415  # pyarrow's 60 MB

    if not isinstance(store.store, FolderFiles):
        return []
    found: list[str] = []
    for name, size in files:
        if _size(store.folder / name) != size:
            found.append(name)
            if len(found) == SHOWN:
                break
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


# --- for the doctor only: these read everything ------------------------------------------------------------------


def pages(name: str, database: Database) -> Finding:
    """Reads every page of every table that we may read. For the doctor."""
    check = f"pages of {name}"
    tables = readable_tables(database)
    wrong = [f"{table}: {message}" for table, message in damaged(database, tables)]
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        return Finding(check, False, "; ".join(wrong[:SHOWN]) + more, PAGES_FIX)
    return Finding(check, True, f"all {len(tables)} tables can be read")


def whole_archive(store: "ParquetArchive", ends: Callable[[], Sequence[int]], database: Database) -> Finding:
    """Every file against the manifest, and the archive against the log. For the doctor.

    `ends`: the log's, asked after the archive's: events go on arriving and being archived.
    """
    wrong = store.verify()
    if wrong:
        detail = "; ".join(f"{problem.path}: {problem.reason}" for problem in wrong[:SHOWN])
        return Finding("archive", False, detail, "restore these files from the archive's backup")
    archived = store.next_offsets()
    if any(at > end for at, end in zip(archived, ends(), strict=False)):
        return Finding("archive", False, "it is ahead of the log", "restore log and archive from the same backup")
    found = archive(store, database)
    return found._replace(detail=f"{found.detail}, all matching the manifest") if found.ok else found
