"""The disposable process of one SQL statement: `python -m infra.drivers.sql.child`. sql_process starts it.

Safeguards, outermost first: killed by its parent at the deadline, or when the parent dies (PDEATHSIG); address space,
CPU and written bytes limited; the statement checked against allowlists before anything is loaded; the data passed to
DuckDB as Arrow from files opened beforehand, the connections to PostgreSQL and Kafka closed; DuckDB locked, without
external access; and from then on no file or socket can be opened at all (RLIMIT_NOFILE 0). Nothing spills to disk:
running out of memory is an error.
"""

import gc
import json
import os
import re
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from io import IOBase
from pathlib import Path
from typing import IO, Any, Final, cast

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.dataset as ds

from infra.adapters.archive.store import dataset, next_offsets_of, read_manifest
from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.postgres import sql_snapshot
from infra.drivers.process.parent import die_with
from query.sql import clear as sql_clear
from query.sql import statements as sql
from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged, LogTruncated, SqlLimit, SqlRefused, TouchfoldError
from schemas.event_columns import EVENT_SCHEMA, originals, readable_table
from schemas.ports import EventLog
from schemas.record import CURRENT, Reader
from schemas.waits import Wait

FAILED: Final = 3  # exit status; the last line of stderr is JSON {"code", "message"}
_NICE: Final = 10  # analytics yield to worker and doors: a tenth of the CPU when those want all of it
_BATCH: Final = 10_000  # rows per record batch
_LOADING_BYTES: Final = 1536 * 2**20  # address space for Arrow's buffers, stacks and arenas, on top of DuckDB's limit
_ODD: Final = ("INTERVAL", "BIT", "TIME WITH TIME ZONE", "UNION", "VARIANT", "GEOMETRY", "BIGNUM", "VARINT", "UHUGEINT")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The parent's request, one JSON object on stdin."""

    parent: int
    dsn: str
    archive: str
    files: list[ArchiveFile] | None = None  # the files in the archive's manifest; None: read it
    proved: dict[str, tuple[int, int, int]] = msgspec.field(default_factory=dict)  # as archive_proofs.Proofs.good
    kafka: KafkaAccess | None = None  # if the log is in Kafka
    statement: str
    limit: int | None
    at_us: int
    memory_bytes: int
    cpu_s: int


def main() -> None:
    """Answer the request on stdin: a line of JSON with the columns on stdout, then an Arrow stream."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request, dec_hook=lambda path, text: path(text))
    die_with(request.parent)
    os.nice(_NICE)
    gc.disable()  # not worth it in a short-lived process: reading 100,000 states would take half as long again
    try:
        _limit(request)
        _answer(request, sys.stdout.buffer)
    except (TouchfoldError, duckdb.Error, MemoryError, pa.ArrowException, OSError) as err:
        known = _known(err)
        sys.stderr.write("\n" + json.dumps({"code": known.code, "message": known.message}) + "\n")
        sys.stderr.flush()
        os._exit(FAILED)
    sys.stdout.buffer.flush()
    os._exit(0)  # nothing to clean up, and no destructor that may need a file


def _limit(request: Request) -> None:
    """Limits that apply from the start; open files are still needed for a little longer."""
    with Path("/proc/self/statm").open() as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    space = used + request.memory_bytes + _LOADING_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CPU, (request.cpu_s, request.cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one for each archive file


def connection(memory_bytes: int) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory, without files, extensions or replacement scans."""
    made = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            "python_enable_replacements": "false",
            "temp_directory": "",
            # Arrow gives DuckDB no row counts: it would take the archive for the smaller side and hold all of it in
            # memory to join it with owners. With this, the right side of a join is the one held.
            "disabled_optimizers": "build_side_probe_side",
            "memory_limit": f"{memory_bytes // 2**20}MiB",
            "threads": str(min(4, os.cpu_count() or 1)),
        },
    )
    made.execute("set TimeZone = 'UTC'").fetchall()
    return made


def _answer(request: Request, out: IO[bytes]) -> None:
    statement = sql.statement_of(request.statement)
    database = connection(request.memory_bytes)
    use = judged(database, statement)
    bases, left_out, warnings = _bases(request, use)
    for name, rows in bases.items():
        database.register(name, rows)
    for view in sql.view_statements(use):
        database.execute(view).fetchall()
    database.execute("set lock_configuration = true").fetchall()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    _stream(database.sql(statement.prefix + statement.body), request.limit, out, left_out, warnings)


def judged(database: duckdb.DuckDBPyConnection, statement: sql.Statement) -> sql.Use:
    """The tables a statement reads. Raises SqlRefused."""
    found = database.execute(sql.SERIALISE, [statement.body]).fetchall()
    return sql.check(str(found[0][0]))


def _bases(request: Request, use: sql.Use) -> tuple[dict[str, Any], list[Wait], list[str]]:
    """Its Arrow tables, the places from which records are left out as unreadable by this build, and warnings.

    The manifest is read before the snapshot, so that no row falls in between.
    """
    wanted = sql.bases_of(use)
    if not wanted:
        return {}, [], []
    folder = Path(request.archive)
    with _log(request, wanted) as log:
        archived, snapshot, entries = _consistent(request, folder, wanted, log)
    made: dict[str, Any] = {
        "_archive": archived if archived is not None else EVENT_SCHEMA.empty_table(),
        "_tail": pa.concat_tables([snapshot.tail, *restored_rows(archived, snapshot)]),
        "_owners": snapshot.owners,
        "_not_applied": snapshot.not_applied,
    }
    if wanted & {"_orders", "_refunds"}:
        made |= _orders(snapshot, sql.order_columns(use))
    if wanted & {"_profiles", "_segments", "_memberships"}:
        made |= _people(snapshot, request.at_us, use.columns)
    return {name: made[name] for name in wanted}, snapshot.left_out, _warnings(request, use, snapshot, entries)


def _warnings(
    request: Request, use: sql.Use, snapshot: sql_snapshot.Snapshot, entries: Sequence[ArchiveFile]
) -> list[str]:
    """Warnings about fields declared clear that are still sealed in some files."""
    if snapshot.newest is None or not entries:
        return []
    definitions, applied_at = snapshot.newest
    rules = [sql_clear.Rules(*row) for row in snapshot.clear_rules]
    return sql_clear.warnings(request.statement, use.columns, entries, json.loads(definitions), applied_at, rules)


def restored_rows(
    archived: ds.FileSystemDataset | None, snapshot: sql_snapshot.Snapshot, reader: Reader = CURRENT
) -> list[pa.Table]:
    """Rows for records that count now but were set aside when their file was written, which has only their bytes."""
    found: list[pa.Table] = []
    if archived is None:
        return found
    for partition, offset in snapshot.restored:
        place = (ds.field("partition") == partition) & (ds.field("offset") == offset) & ds.field("id").is_null()
        rows = archived.to_table(filter=place)
        table, wait = readable_table(
            *(originals(rows), snapshot.currency, lambda _wait: False),
            originals=False,
            reader=reader,
            decimals=snapshot.decimals,
        )
        found.append(table)
        if wait is not None:
            snapshot.left_out.append(wait)
    return found


def _consistent(
    request: Request, folder: Path, wanted: frozenset[str], log: EventLog | None
) -> tuple[ds.FileSystemDataset | None, sql_snapshot.Snapshot, Sequence[ArchiveFile]]:
    """The archive's files, opened, a snapshot that starts where they end, and their entries."""
    tries = 3
    listed = request.files
    while True:
        entries: list[ArchiveFile] = []
        if "_archive" in wanted:
            entries = read_manifest(folder)[0] if listed is None else listed
        try:
            archived = dataset(folder, entries, request.proved) if entries else None
            return archived, sql_snapshot.load(request.dsn, wanted, next_offsets_of(entries), log), entries
        except (LogTruncated, ArchiveDamaged) as err:
            # since the manifest was read, retention removed newly archived records, or a replaced file was removed
            tries -= 1
            listed = None
            if not tries or (isinstance(err, ArchiveDamaged) and read_manifest(folder)[0] == entries):
                raise


@contextmanager
def _log(request: Request, wanted: frozenset[str]) -> Iterator[EventLog | None]:
    """The log, if it is in Kafka and its tail is needed. Its sockets are closed before the statement runs."""
    if request.kafka is None or "_tail" not in wanted:
        yield None
        return
    from infra.adapters.kafka.log import KafkaLog  # noqa: PLC0415  # 0.1 s that others need not pay

    with closing(KafkaLog(request.kafka)) as log:
        yield log


def _people(snapshot: sql_snapshot.Snapshot, at_us: int, columns: frozenset[str] | None) -> dict[str, pa.Table]:
    from query.sql import tables as sql_tables  # noqa: PLC0415  # the definitions' models take 0.3 s to import

    reader = None
    if snapshot.definitions is not None:
        reader = sql_tables.compile_reader(
            snapshot.definitions, time_zone=snapshot.time_zone, currency=snapshot.currency
        )
    profiles = [sql_tables.StoredProfile(*row) for row in snapshot.profiles]
    return {
        "_profiles": sql_tables.profiles_table(reader, profiles, at_us, columns),
        "_segments": sql_tables.segments_table(reader, snapshot.sizes, snapshot.versions),
        "_memberships": sql_tables.memberships_table(reader, snapshot.memberships, snapshot.versions),
    }


def _orders(snapshot: sql_snapshot.Snapshot, columns: frozenset[str] | None) -> dict[str, pa.Table]:
    from query.sql import orders as sql_orders  # noqa: PLC0415  # the projections take 0.1 s to import

    orders, refunds = sql_orders.order_tables(snapshot.orders, snapshot.leaves, columns)
    return {"_orders": orders, "_refunds": refunds}


def _stream(
    relation: duckdb.DuckDBPyRelation,
    limit: int | None,
    out: IO[bytes],
    left_out: Sequence[Wait],
    warnings: Sequence[str],
) -> None:
    """Write the columns, then the rows: at most one more than `limit`, which tells the parent that there are more."""
    names = _unique(relation.columns)
    types = [str(type_) for type_ in relation.types]
    odd = [type_.startswith(_ODD) for type_ in types]
    if any(odd) and len(set(relation.columns)) == len(
        names
    ):  # types that Arrow or JSON cannot represent are sent as text
        quoted = ['"' + name.replace('"', '""') + '"' for name in relation.columns]
        relation = relation.project(
            ", ".join(
                f"{name}::varchar as {name}" if is_odd else name for name, is_odd in zip(quoted, odd, strict=True)
            )
        )
    head: dict[str, Any] = {
        "columns": list(zip(names, types, strict=True)),
        "left_out": [each._asdict() for each in left_out],
    }
    head["warnings"] = list(warnings)
    out.write(json.dumps(head).encode() + b"\n")
    reader = relation.to_arrow_reader(_BATCH)
    left = None if limit is None else limit + 1
    with pa.ipc.new_stream(pa.PythonFile(cast(IOBase, out), "w"), reader.schema) as stream:
        for batch in reader:
            part = batch if left is None else batch.slice(0, left)
            stream.write_batch(part)
            left = None if left is None else left - part.num_rows
            if left == 0:
                break


def _unique(names: list[str]) -> list[str]:
    """Unique names for JSON keys: a second `a` becomes `a_1`."""
    made: list[str] = []
    for name in names:
        number, free = 0, name
        while free in made:
            number += 1
            free = f"{name}_{number}"
        made.append(free)
    return made


def _known(err: BaseException) -> TouchfoldError:
    """Any error as one of ours, with a message an analyst can act on."""
    if isinstance(err, TouchfoldError):
        return err
    text = str(err).strip()
    if isinstance(err, MemoryError | duckdb.OutOfMemoryException) or _TOO_LARGE.search(text):
        return SqlLimit("the statement needs more memory than it may have: filter or aggregate earlier")
    if "registered as '_archive' failed" in text and "NotImplemented" not in text:
        told = text.splitlines()[0][:200]
        return ArchiveDamaged(f"a file of the archive cannot be read ({told}): run touchfold doctor")
    return SqlRefused(text)  # the statement's own error; while streaming rows it arrives as an OSError of Arrow


_TOO_LARGE: Final = re.compile("^Out of Memory|Arrow Appender|std::bad_alloc|^malloc of size")


if __name__ == "__main__":
    main()
