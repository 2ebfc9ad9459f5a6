"""`touchfold doctor`: every check on one line, with what to do when it fails."""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import typer

from infra.cli.options import DATA, JSON

if TYPE_CHECKING:
    from pathlib import Path

    from infra.adapters.postgres import Database
    from infra.bootstrap import Session

CLOCK_OFF_S: Final = 5.0
_HEADS: Final = """
select h.partition, h.next_offset, count(l."offset"), coalesce(max(l."offset") + 1, 0)
from log_head h left join event_log l on l.partition = h.partition
group by h.partition, h.next_offset order by h.partition
"""
_PROGRESS: Final = "select revision, partition, next_offset from progress order by 1, 2"


class Finding(NamedTuple):
    """One check. `fix`: what to do, empty when it holds."""

    check: str
    ok: bool
    detail: str
    fix: str = ""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("doctor")(doctor)


def doctor(data: DATA = None, as_json: JSON = False) -> None:
    """Check the installation, the data folder, the databases, the vault, the log and the archive.

    Exit status 1 when a check fails; each line then says what to do. Example: touchfold doctor
    """
    import os

    from infra.settings import load

    settings = load(os.environ, data=data)
    findings: list[Finding] = []
    for finding in examine(settings.data):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{'ok ' if finding.ok else 'BAD'} {finding.check}: {finding.detail}")
            if finding.fix:
                typer.echo(f"    do: {finding.fix}")
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def examine(data: "Path") -> Iterator[Finding]:
    """Every check, as it is done. Checks behind a failed start are not done."""
    from infra.bootstrap import session
    from schemas.errors import TouchfoldError

    yield _python()
    if not data.is_dir():
        yield Finding(
            "data folder", False, f"{data} is not there", "touchfold up makes it; or give another with --data"
        )
        return
    try:
        with session(data) as here:
            yield from _on(here)
    except TouchfoldError as err:
        yield Finding("start", False, err.message, "see the message")


def _on(here: "Session") -> Iterator[Finding]:
    from schemas.errors import TouchfoldError

    holder = f"touchfold up runs at {here.url}" if here.joined else "free; taken by this command"
    yield Finding("lock", True, holder)
    if here.joined:
        yield _answers(here)
    database = here.database("touchfold doctor")
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("disk", lambda: _disk(here)),
        ("database", lambda: _database(database)),
        ("migrations", lambda: _migrations(here)),
        ("vault", lambda: _vault(here)),
        ("clock", lambda: _clock(here, database)),
        ("log", lambda: _log(database) if here.adapters.kafka is None else _topic(here)),
        ("progress", lambda: _progress(here, database)),
        ("erasures", lambda: _erasures(database)),
        ("archive", lambda: _archive(here)),
    ]
    for name, check in checks:
        try:
            yield check()
        except TouchfoldError as err:
            yield Finding(name, False, err.message, "see the message")


def _python() -> Finding:
    import sys
    from importlib.util import find_spec

    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    missing = [name for name in ("venv", "ensurepip") if find_spec(name) is None]
    if missing:
        return Finding(
            "python", False, f"{version} without {', '.join(missing)}: make install cannot make .venv",
            "install python3-venv (Debian: apt-get install python3-venv)",
        )  # fmt: skip
    return Finding("python", True, f"{version}, python3-venv is there")


def _answers(here: "Session") -> Finding:
    from infra.cli.status import answers

    assert here.url is not None, "asked only when joined"
    if answers(here.url):
        return Finding("http", True, f"{here.url}/health is ok")
    return Finding("http", False, f"{here.url}/health is not ok", f"curl {here.url}/health, and read the lines of up")


def _disk(here: "Session") -> Finding:
    from infra.adapters.disk import RESERVED

    free = here.disk.free()
    detail = f"{free:.1%} free"
    if free < RESERVED:
        return Finding("disk", False, detail, f"make room: below {RESERVED:.0%} the door answers 503")
    return Finding("disk", True, detail)


def _database(database: "Database") -> Finding:
    with database.transaction() as cursor:
        cursor.execute("select current_setting('server_version'), pg_size_pretty(pg_database_size(current_database()))")
        row = cursor.fetchone()
    assert row is not None, "a select of settings gave no row"
    return Finding("database", True, f"PostgreSQL {row[0]}, {row[1]}")


def _migrations(here: "Session") -> Finding:
    from contextlib import closing

    from infra.adapters.migrations import FOLDER
    from infra.adapters.postgres import Database

    found = []
    for which, dsn in (("main", here.dsn), ("vault", here.vault_dsn)):
        newest = max(int(path.name[:4]) for path in FOLDER.glob(f"[0-9]*_{which}.sql"))
        with closing(Database(dsn, "touchfold doctor")) as database, database.transaction() as cursor:
            cursor.execute("select coalesce(max(number), 0) from migrations")
            row = cursor.fetchone()
        at = int(row[0]) if row else 0
        found.append(f"{which} {at} of {newest}")
        if at != newest:
            fix = "start this build's touchfold up once" if at < newest else "use the newer build that migrated it"
            return Finding("migrations", False, f"{which} is at {at}, this build at {newest}", fix)
    return Finding("migrations", True, ", ".join(found))


def _vault(here: "Session") -> Finding:
    from contextlib import closing

    from infra.adapters.postgres import Database

    vault = here.vault()
    _ = vault.hash_key  # raises MasterKeyWrong
    with closing(Database(here.vault_dsn, "touchfold doctor")) as database, database.transaction() as cursor:
        cursor.execute("select count(*) from identifiers")
        row = cursor.fetchone()
        cursor.execute("select token from identifiers limit 20")
        tokens = [token for (token,) in cursor.fetchall()]
    if len(vault.open(tokens)) != len(tokens):
        return Finding("vault", False, "some rows do not open", "restore the vault from its backup")
    return Finding("vault", True, f"the master key opens it; {row[0] if row else 0} identifiers")


def _clock(here: "Session", database: "Database") -> Finding:
    from datetime import UTC, datetime

    with database.transaction() as cursor:
        cursor.execute("select clock_timestamp()")
        row = cursor.fetchone()
    assert row is not None, "the database has no clock"
    off = abs((datetime.now(UTC) - row[0]).total_seconds())
    detail = f"{off:.1f} s from the database's; decisions in {here.time_zone}"
    if off > CLOCK_OFF_S:
        return Finding("clock", False, detail, "let both machines follow a time server (chrony, systemd-timesyncd)")
    return Finding("clock", True, detail)


def _log(database: "Database") -> Finding:
    """Gapless, and as many rows as the heads say. One statement: one snapshot, also while `up` appends."""
    with database.transaction() as cursor:
        cursor.execute(_HEADS)
        rows = [tuple(int(value) for value in row) for row in cursor.fetchall()]
    wrong = [
        f"partition {partition}: head {head}, {count} rows up to {end}"
        for partition, head, count, end in rows
        if not head == count == end
    ]
    if wrong:
        return Finding("log", False, "; ".join(wrong), "records are missing: restore the last backup")
    return Finding("log", True, f"{sum(row[1] for row in rows):,} records, no gap")


def _topic(here: "Session") -> Finding:
    """Its topics are as safe as they must be, and it answers."""
    from infra.adapters.kafka_topics import check

    access = here.adapters.kafka
    assert access is not None, "asked only where the log is Kafka"
    grave = [each for each in check(access) if not (each.forgiven and access.insecure)]
    if grave:
        detail = "; ".join(f"{each.topic}: {each.reason}" for each in grave)
        return Finding("log", False, detail, "; ".join(dict.fromkeys(each.fix for each in grave)))
    ends = here.log().ends()
    detail = f"{sum(ends):,} offsets in {len(ends)} partitions of {access.topic('events')}"
    return Finding("log", True, detail)


def _progress(here: "Session", database: "Database") -> Finding:
    """Read before the log's ends, it is behind them."""
    with database.transaction() as cursor:
        cursor.execute(_PROGRESS)
        rows = [(int(revision), int(partition), int(at)) for revision, partition, at in cursor.fetchall()]
        cursor.execute("select revision from revisions where state = 'live'")
        live = [row[0] for row in cursor.fetchall()]
    ends = dict(enumerate(here.log().ends()))
    ahead = [
        f"revision {revision} partition {partition}: {at} of {ends.get(partition, 'no such partition')}"
        for revision, partition, at in rows
        if partition not in ends or at > ends[partition]
    ]
    if ahead:
        return Finding("progress", False, "ahead of the log: " + "; ".join(ahead), "restore log and states together")
    if len(live) != 1:
        return Finding("progress", False, "no live revision", "restore the last backup")
    lacking = ends.keys() - {partition for revision, partition, _ in rows if revision == live[0]}
    if lacking:
        detail = f"nothing is folded of partition {', '.join(map(str, sorted(lacking)))}"
        return Finding(
            "progress",
            False,
            detail,
            "partitions were added to the topic: a worker that runs takes them up",
        )
    return Finding("progress", True, f"revision {live[0]} is live and behind the log's end")


def _erasures(database: "Database") -> Finding:
    with database.transaction() as cursor:
        cursor.execute("select count(*) from jobs where finished_at is null")
        row = cursor.fetchone()
    if row is not None and row[0]:
        return Finding("erasures", False, f"{row[0]} are unfinished", "start touchfold up: it finishes them")
    return Finding("erasures", True, "none is unfinished")


def _archive(here: "Session") -> Finding:
    from infra.archives import archive_of

    store = archive_of(here)
    wrong = store.verify()
    if wrong:
        detail = "; ".join(f"{problem.path}: {problem.reason}" for problem in wrong[:5])
        return Finding("archive", False, detail, "restore these files from the backup of the archive")
    archived = store.next_offsets()
    if any(at > end for at, end in zip(archived, here.log().ends(), strict=False)):
        return Finding("archive", False, "it is ahead of the log", "restore log and archive from the same backup")
    return Finding("archive", True, f"{len(store.files())} files, {sum(archived):,} records, all as the manifest says")
