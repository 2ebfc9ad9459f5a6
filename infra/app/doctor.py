"""What `touchfold doctor` checks: installation, data folder, databases, vault, log and archive."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from infra.adapters.ledger.erasures import LedgerFile
from infra.adapters.machine.data_folder import DataFolder, Running
from infra.adapters.machine.private_files import open_to_others
from infra.adapters.postgres.applied import applied_offsets, waiting_now
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.inspection import (
    heads,
    live_revisions,
    migration,
    progress_rows,
    server,
    server_time,
    unfinished_jobs,
)
from infra.adapters.postgres.migrate import FOLDER
from infra.adapters.vault.master_key import read_key
from infra.adapters.vault.proof import sample_of
from infra.app import checks
from infra.app.archive import archive_of
from infra.app.backup_checks import backups, copies
from infra.app.bootstrap import session
from infra.app.checks import NOTHING_WAITS, PAGES_FIX, SHOWN, UNKNOWN_CLEAR, WORK_FIX, Finding, guarded, whole_archive
from infra.app.databases import database_of, vault_database_of
from infra.app.lags import Lags, lags_of, missing
from infra.app.log import log_of
from infra.app.log_lines import described
from infra.app.old_addresses import old_addresses
from infra.app.running import health_of, readiness_of
from infra.app.session import Session
from infra.app.settings import Settings
from infra.app.vault import vault_of
from schemas.errors import FolderLocked, TouchfoldError
from schemas.merge_plan import waiting as waiting_files
from schemas.waits import applicable

CLOCK_OFF_S: Final = 5.0
MERGES_LEFT: Final = 256  # files; a partition may briefly have a few due
MERGED_S: Final = 3_600.0
WORK_S: Final = 5.0  # time for one batch to be applied; the longest takes three seconds


def examine(settings: "Settings") -> Iterator[Finding]:
    """Every check, as it is done. Creates no data folder. Database checks are skipped if no database starts."""
    yield _python()
    folder = DataFolder(settings.data, ledger=settings.ledger)
    found = guarded("data folder", lambda: _folder(folder, own_database=settings.database is not None))
    yield found
    if not found.ok:
        return
    for name, check in _of_files(settings, folder):
        yield guarded(name, check)
    try:
        with session(settings.data) as here:
            yield from on_session(here)
    except TouchfoldError as err:
        yield Finding("start", False, err.message, "do what the message says; the database checks were skipped")
    except Exception as err:
        detail = f"it failed unexpectedly ({described(err, err.__traceback__)})"
        yield Finding("start", False, detail, "read logs/postgres.log in the data folder, and report this")


def _folder(folder: "DataFolder", *, own_database: bool) -> Finding:
    path = folder.path
    name, fix = "data folder", "touchfold up creates one; or give another with --data"
    if not path.exists():
        return Finding(name, False, f"{path} does not exist", fix)
    if not path.is_dir():
        return Finding(name, False, f"{path} is not a folder", fix)
    if not folder.is_one() and not own_database:
        return Finding(name, False, f"{path} contains no Touchfold data", fix)
    return Finding(name, True, str(path))


def _of_files(settings: "Settings", folder: "DataFolder") -> list[tuple[str, Callable[[], Finding]]]:
    """What can be checked without a database."""
    found: list[tuple[str, Callable[[], Finding]]] = [
        ("private files", lambda: _private(settings)),
        ("unknown fields", lambda: Finding("unknown fields", True, _unknown(settings))),
        ("ledger file", lambda: _ledger_file(folder)),
    ]
    if settings.master_key is None and settings.database is None:
        found.append(("master key", lambda: _master_key(folder)))
    if settings.database is None:
        found.append(("pages on disk", lambda: _pages_on_disk(settings.data)))
    return found


def _private(settings: "Settings") -> Finding:
    """Whether only the account we run as may read its files, including an archive elsewhere."""
    roots = [settings.data]
    if settings.archive is not None and "://" not in settings.archive:
        roots.append(Path(settings.archive))
    found = list(open_to_others(*roots))
    if found:
        shown = ", ".join(map(str, found[:SHOWN])) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        fix = f"start touchfold up once, or: chmod -R go= {' '.join(map(str, roots))}"
        return Finding("private files", False, f"other accounts can read or enter {shown}", fix)
    return Finding("private files", True, "folders are 0700, files 0600")


def _unknown(settings: "Settings") -> str:
    return UNKNOWN_CLEAR if settings.unknown == "clear" else "fields that no list or definition names are sealed"


def _master_key(folder: "DataFolder") -> Finding:
    if not folder.master_key_file.exists() and not (folder.path / "postgres" / "cluster").exists():
        return Finding("master key", True, "not created yet")
    read_key(folder.path)
    return Finding("master key", True, "the file is readable")


def _ledger_file(folder: "DataFolder") -> Finding:
    if not folder.ledger.is_dir():
        fix = "put it back from its backup: a restored database would bring erased people back"
        return Finding("ledger file", False, f"the folder {folder.ledger} is missing", fix)
    return Finding("ledger file", True, f"{len(LedgerFile.of(folder.ledger).read())} erasures")


def _pages_on_disk(data: "Path") -> Finding:
    """Every page of every file, indexes included, if no server is running; else tables are read through the server."""
    server = EmbeddedPostgres(data)
    try:
        server.lock()
    except FolderLocked:
        return Finding("pages on disk", True, "PostgreSQL is running: its tables are read below")
    try:
        wrong = server.damaged_pages()
    finally:
        server.stop()
    if wrong is None:
        return Finding("pages on disk", True, "not checked: PostgreSQL was not stopped cleanly, or does not exist yet")
    if wrong:
        return Finding("pages on disk", False, f"{len(wrong)} are damaged: {'; '.join(wrong[:SHOWN])}", PAGES_FIX)
    return Finding("pages on disk", True, "every checksum is correct")


def on_session(here: "Session") -> Iterator[Finding]:
    holder = "no touchfold up is running; locked by this command"
    if here.joined:
        command = "up" if here.running is None else here.running.role
        holder = f"touchfold {command} is running at {here.url}" if here.url else f"touchfold {command} is running"
    yield Finding("lock", True, holder)
    told: set[str] = set()
    if here.joined and here.url:
        for finding in _answers(here.url):
            told.add(finding.check)
            yield finding
    if here.running is not None and here.running.probe:
        yield _readiness(here.running)
    database = database_of(here, "touchfold doctor")
    vault_database = vault_database_of(here, "touchfold doctor")
    each: list[tuple[str, Callable[[], Finding]]] = [
        ("disk", lambda: checks.disk(here.disk)),
        ("database", lambda: _database(database)),
        ("connections", lambda: checks.connections(here.dsn)),
        ("migrations", lambda: _migrations(here)),
        ("pages of the main database", lambda: checks.pages("the main database", database)),
        ("pages of the vault", lambda: checks.pages("the vault", vault_database)),
        ("pages", lambda: checks.checksums(database)),
        ("vault", lambda: _vault(here, database, vault_database)),
        ("clock", lambda: _clock(here, database)),
        ("log", lambda: _log(database) if here.adapters.kafka is None else _topic(here)),
        ("progress", lambda: _progress(here, database)),
        ("states", lambda: checks.states(here.dsn)),
        ("work", lambda: _work(here, database)),
        ("records", lambda: checks.records(waiting_now(database))),
        ("erasures", lambda: _erasures(database)),
        ("old addresses", lambda: old_addresses(here.dsn)),
        ("tokens", lambda: _tokens(here)),
        ("merging", lambda: _merging(here)),
        ("archive", lambda: _archive(here, database)),
    ]
    if here.settings.database is None:
        now = here.door_clock.now()
        runs = here.running is not None and here.running.role == "up"
        each.append(("backups", lambda: backups(vault_database, here.settings, here.time_zone, now, runs=runs)))
        each.append(("copies", lambda: copies(here, now)))
    if here.adapters.kafka is None:  # in a cluster each machine has the ledger of its own erasures
        each.append(("ledger", lambda: checks.ledger(database, LedgerFile.of(here.ledger_folder))))
    for name, check in each:
        found = guarded(name, check)
        if found.ok or found.check not in told:  # else /health has already reported it
            yield found
    if here.adapters.kafka is not None:
        yield from _roles(here, database)


def _python() -> Finding:
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    missing = [name for name in ("venv", "ensurepip") if find_spec(name) is None]
    if missing:
        return Finding(
            "python", False, f"{version} without {', '.join(missing)}: make install cannot create .venv",
            "install python3-venv (Debian: apt-get install python3-venv)",
        )  # fmt: skip
    return Finding("python", True, f"{version}, python3-venv is installed")


def _answers(url: str) -> Iterator[Finding]:
    """Whether /health answers, and each problem it reports."""
    found = health_of(url)
    if found is None:
        yield Finding("http", False, f"{url}/health does not answer", "read the log of touchfold up; restart it")
        return
    yield Finding("http", True, f"{url}/health is {found['status']}")
    for each in found.get("problems", []):
        yield Finding(each["check"], False, each["detail"], each["fix"])


def _readiness(running: "Running") -> Finding:
    """What the role's own probe says."""
    found = readiness_of(running.probe)
    if found is None:
        return Finding("ready", False, f"{running.probe}/ready does not answer", "read the role's log; restart it")
    lacks = "; ".join(f"{need}: {why}" for need, why in found.get("problems", {}).items())
    if lacks:
        return Finding("ready", False, lacks, "check that what it needs is running and reachable from here")
    return Finding("ready", True, f"{running.probe}/ready says it is ready")


def _roles(here: "Session", database: "Database") -> Iterator[Finding]:
    """Which roles of a cluster have work waiting but no live process."""
    lags: list[Lags] = []

    def ask() -> Finding:
        lags.append(lags_of(here, database))
        return Finding("roles", True, "")

    asked = guarded("roles", ask)
    if not asked.ok:
        yield asked
    for each in lags:
        yield from missing(each)


def _work(here: "Session", database: "Database") -> Finding:
    """With a running `up`: whether everything that can be applied is. Looks for as long as it takes."""
    deadline = time.monotonic() + WORK_S
    first = applied_offsets(database)
    while True:
        applied = applied_offsets(database)
        waiting = applicable(log_of(here).ends(), applied, waiting_now(database))
        if not waiting:
            return Finding("work", True, NOTHING_WAITS)
        if not here.joined:
            return Finding("work", True, f"{waiting:,} records are waiting for touchfold up")
        if applied != first:
            return Finding("work", True, f"{waiting:,} records are waiting, and some were applied while we watched")
        if time.monotonic() > deadline:
            return Finding(
                "work", False, f"{waiting:,} records are waiting; none was applied in {WORK_S:.0f} s", WORK_FIX
            )
        time.sleep(0.1)


def _database(database: "Database") -> Finding:
    version, size = server(database)
    return Finding("database", True, f"PostgreSQL {version}, {size}")


def _migrations(here: "Session") -> Finding:

    found = []
    for which, dsn in (("main", here.dsn), ("vault", here.vault_dsn)):
        newest = max(int(path.name[:4]) for path in FOLDER.glob(f"[0-9]*_{which}.sql"))
        with closing(Database(dsn, "touchfold doctor")) as database:
            at = migration(database)
        found.append(f"{which} {at} of {newest}")
        if at != newest:
            fix = "start touchfold up from this build once" if at < newest else "use the newer build that migrated it"
            return Finding("migrations", False, f"{which} is at {at}, this build at {newest}", fix)
    return Finding("migrations", True, ", ".join(found))


def _vault(here: "Session", database: "Database", vault_database: "Database") -> Finding:
    """As /health checks it, plus opening some values."""

    key = None if here.settings.master_key else partial(read_key, here.data)
    found = checks.vault(database, vault_database, key)
    if not found.ok:
        return found
    vault = vault_of(here)
    _ = vault.hash_key  # raises MasterKeyWrong if the settings hold the wrong key
    count, tokens = sample_of(vault_database)
    if len(vault.open(tokens)) != len(tokens):
        return Finding("vault", False, "some rows cannot be opened", "restore the vault from its backup")
    return Finding("vault", True, f"the master key opens it; {count} identifiers")


def _clock(here: "Session", database: "Database") -> Finding:
    off = abs((datetime.now(UTC) - server_time(database)).total_seconds())
    detail = f"{off:.1f} s off the database's clock; decisions in {here.time_zone}"
    if off > CLOCK_OFF_S:
        return Finding("clock", False, detail, "sync both machines with a time server (chrony, systemd-timesyncd)")
    return Finding("clock", True, detail)


def _log(database: "Database") -> Finding:
    """No gaps, and as many rows as the heads say."""
    rows = heads(database)
    wrong = [
        f"partition {partition}: head {head}, {count} rows up to {end}"
        for partition, head, count, end in rows
        if not head == count == end
    ]
    if wrong:
        return Finding("log", False, "; ".join(wrong), "records are missing: restore the latest backup")
    return Finding("log", True, f"{sum(row[1] for row in rows):,} records, no gaps")


def _topic(here: "Session") -> Finding:
    """Its topics are as safe as required, and it answers."""
    from infra.adapters.kafka.topics import check  # noqa: PLC0415  # clusters only

    access = here.adapters.kafka
    assert access is not None, "only called when the log is Kafka"
    grave = [each for each in check(access) if not (each.forgiven and access.insecure)]
    if grave:
        detail = "; ".join(f"{each.topic}: {each.reason}" for each in grave)
        return Finding("log", False, detail, "; ".join(dict.fromkeys(each.fix for each in grave)))
    ends = log_of(here).ends()
    detail = f"{sum(ends):,} offsets in {len(ends)} partitions of {access.topic('events')}"
    return Finding("log", True, detail)


def _progress(here: "Session", database: "Database") -> Finding:
    """Read before the log's ends, so it cannot be ahead of them."""
    rows, live = progress_rows(database), live_revisions(database)
    ends = dict(enumerate(log_of(here).ends()))
    ahead = [
        f"revision {revision} partition {partition}: {at} of {ends.get(partition, 'no such partition')}"
        for revision, partition, at in rows
        if partition not in ends or at > ends[partition]
    ]
    if ahead:
        return Finding("progress", False, "ahead of the log: " + "; ".join(ahead), "restore log and states together")
    if len(live) != 1:
        return Finding("progress", False, "no live revision", "restore the latest backup")
    lacking = ends.keys() - {partition for revision, partition, _ in rows if revision == live[0]}
    if lacking:
        detail = f"nothing has been folded in partition {', '.join(map(str, sorted(lacking)))}"
        return Finding("progress", False, detail, "partitions were added to the topic: start touchfold up once")
    return Finding("progress", True, f"revision {live[0]} is live and not ahead of the log")


def _erasures(database: "Database") -> Finding:
    count = unfinished_jobs(database)
    if count:
        return Finding("erasures", False, f"{count} are unfinished", "start touchfold up, which finishes them")
    return Finding("erasures", True, "all are finished")


def _archive(here: "Session", database: "Database") -> Finding:
    return whole_archive(archive_of(here), log_of(here).ends, database)


def _tokens(here: "Session") -> Finding:
    from infra.adapters.postgres.tokens import PostgresTokens  # noqa: PLC0415  # only needed here

    with closing(PostgresTokens(here.dsn)) as store:
        return checks.tokens(store.overview(), here.door_clock.now())


def _merging(here: "Session") -> Finding:
    """Small archive files get merged; otherwise every statement has to open them all."""
    entries = archive_of(here).files()
    left = waiting_files(entries)
    last = max((entry.replaced_at for entry in entries), default=0)
    if here.joined and left > MERGES_LEFT and time.time() - last > MERGED_S:
        detail = f"{left:,} small archive files are waiting, and none has been merged for an hour"
        return Finding("merging", False, detail, "read what up logs about the archive: a damaged file, or a full disk")
    return Finding("merging", True, f"{len(entries):,} archive files, {left:,} waiting to be merged")
