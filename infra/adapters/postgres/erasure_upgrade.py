"""Separates what earlier builds stored together about an erasure: hashes of identifiers next to tokens of the log.

Ledger lines and jobs had both (until decision 0027). Each part is written to its new place before it is removed from
the old one, so a crash in between loses nothing: the next start repeats it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from psycopg2.extensions import cursor as Cursor

from infra.adapters.ledger.erasures import LedgerFile, replace_file
from infra.adapters.postgres.connection_pool import Lane
from infra.adapters.postgres.database import Database
from infra.adapters.vault.rewrite import end_wal, is_ours
from infra.adapters.vault.suppressed import SuppressedList

_MARK: Final = b'"hashes"'  # in every old line, in no new one
_JOBS: Final = "select payload, finished_at is null from jobs where kind = 'erase' and payload ? 'hashes'"
_TAKEN: Final = "'{at,hashes,kinds,events,suppress}'::text[]"
_NEW_JOBS: Final = f"""
insert into jobs (id, kind, step, payload, created_at, finished_at)
select id, kind, step,
    case when kind = 'erase' and payload ? 'hashes' then (payload - {_TAKEN}) || jsonb_build_object(
        'on', to_char((payload ->> 'at')::timestamptz at time zone 'UTC', 'YYYY-MM-DD')) else payload end,
    case when kind = 'erase' then date_trunc('day', created_at, 'UTC') else created_at end,
    case when kind = 'erase' then date_trunc('day', finished_at, 'UTC') else finished_at end
from kept order by id
"""
Old = Mapping[str, Any]


def part_hashes_from_tokens(dsn: str, vault_dsn: str, ledger: Path) -> int:
    """Upgrade an earlier build's ledger and jobs; returns how many erasures were changed.

    `ledger`: the file of erasures. Runs at every start: if there is nothing to do, it only looks.
    """
    with closing(Database(dsn, "touchfold upgrade", Lane.WORK)) as database:
        with database.reading() as cursor:
            cursor.execute(_JOBS)
            jobs: list[tuple[Old, bool]] = [(row[0], bool(row[1])) for row in cursor.fetchall()]
        lines = _old_lines(ledger)
        if not jobs and not lines:
            return 0
        begun = [old for old, is_open in jobs if is_open and old.get("suppress")]
        _group_suppressed(vault_dsn, LedgerFile(ledger), [*lines, *(old for old, _ in jobs)], begun)
        if lines:
            replace_file(ledger, b"".join(_new_line(line) for line in ledger.read_bytes().splitlines(keepends=True)))
        if jobs:
            _rewrite_jobs(database)
    return len({old["id"] for old in (*lines, *(old for old, _ in jobs))})


def _old_lines(ledger: Path) -> list[Old]:
    try:
        data = ledger.read_bytes()
    except FileNotFoundError:
        return []
    if _MARK not in data:
        return []
    return [old for line in data.splitlines() if (old := _old(line)) is not None]


def _old(line: bytes) -> Old | None:
    """A line from an earlier build; None for any other, including torn ones."""
    if _MARK in line:
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and {"id", "at", "tokens", "profiles", "hashes"} <= found.keys():
                return found
    return None


def _new_line(line: bytes) -> bytes:
    old = _old(line)
    if old is None:
        return line
    on = datetime.fromisoformat(str(old["at"])).astimezone(UTC).date().isoformat()
    new = {"id": old["id"], "on": on, "tokens": old["tokens"], "profiles": old["profiles"]}
    return json.dumps(new, separators=(",", ":")).encode() + b"\n"


def _group_suppressed(vault_dsn: str, ledger: LedgerFile, erasures: Iterable[Old], begun: Sequence[Old]) -> None:
    """People suppressed together keep a mark together. `begun`: whom an open job was yet to suppress."""
    with closing(SuppressedList(vault_dsn)) as listed:
        listed.add([_hashes(old) for old in begun])
        listed.group([_hashes(old) for old in erasures])
        ledger.keep_suppressed({**ledger.suppressed(), **listed.read()})


def _hashes(old: Old) -> list[bytes]:
    return [bytes.fromhex(each) for each in old["hashes"]]


def _rewrite_jobs(database: Database) -> None:
    """Into new files: otherwise the old content of a row stays in its table's pages."""
    with database.transaction() as cursor:
        cursor.execute("lock table jobs in exclusive mode")
        cursor.execute("create temporary table kept on commit drop as select * from jobs")
        ours = is_ours(cursor)
        cursor.execute("truncate jobs" if ours else "delete from jobs")
        cursor.execute(_NEW_JOBS)
        cursor.execute("update facts set at = date_trunc('day', at, 'UTC') where type = 'person.erased'")
    with database.reading() as cursor:
        _forget_pages(cursor, ours=ours)


def _forget_pages(cursor: Cursor, *, ours: bool) -> None:
    if not ours:
        cursor.execute("vacuum (truncate false, index_cleanup on) jobs")
        return
    end_wal(cursor)
