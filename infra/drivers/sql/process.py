"""Runs each SQL statement in its own process, and kills it at the deadline. For the API and the CLI."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import pyarrow as pa

from infra.adapters.kafka.access import KafkaAccess
from query.sql.results import SqlResult
from query.sql.statements import statement_of
from schemas import errors
from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged, SqlLimit, SqlRefused, TouchfoldError
from schemas.record import to_us
from schemas.waits import Wait

if TYPE_CHECKING:
    from infra.adapters.archive.store import ParquetArchive

CHILD: Final = ("-m", "infra.drivers.sql.child")
DEADLINE_S: Final = 60.0
API_DEADLINE_S: Final = 30.0
MEMORY_BYTES: Final = 2**30  # DuckDB's own limit; the process may use 1.5 GiB of address space on top
RESULT_BYTES: Final = 2**30
API_RESULT_BYTES: Final = 64 * 2**20
_ROOT: Final = Path(__file__).resolve().parents[3]
_FAILED: Final = 3
_CHUNK: Final = 2**16
_CODES: Final = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TouchfoldError)
}


def run_sql(
    statement: str,
    *,
    dsn: str,
    archive_folder: Path | None = None,
    archive: "ParquetArchive | None" = None,
    kafka: KafkaAccess | None = None,
    limit: int | None = None,
    now: datetime | None = None,
    deadline_s: float = DEADLINE_S,
    memory_bytes: int = MEMORY_BYTES,
    result_bytes: int = RESULT_BYTES,
) -> SqlResult:
    """The rows of one read-only statement over `query.sql.statements.TABLES`. `now`: the time for computed traits.

    The archive is a folder, or an archive whose files are fetched to a folder first (keep the object: it caches).
    `kafka`: where the log is, if it is not in PostgreSQL.
    Raises SqlRefused (not allowed, or an error in the statement), SqlLimit (time, memory, size), ArchiveDamaged,
    StoreUnavailable. Blocks; call it from a thread that outlives the call: the process dies with the thread.
    """
    statement_of(statement)  # cheap checks need no process
    deadline = time.monotonic() + deadline_s
    listed: list[ArchiveFile] | None = None
    proved: Mapping[str, tuple[int, int, int]] = {}
    if archive is not None:  # the process that runs the statement has no credentials, and opens no socket for files
        files = archive.local(deadline_s)
        archive_folder = files.folder
        try:
            listed = files.entries()  # parsed once instead of by each statement
            proved = archive.proved(files, listed)
        except ArchiveDamaged:
            listed = None  # the process reports it if the statement reads events
    assert archive_folder is not None, "either the folder or the archive is given"
    request = {
        "parent": os.getpid(),
        "dsn": dsn,
        "archive": str(archive_folder),
        "files": listed,
        "proved": proved,
        "kafka": kafka,
        "statement": statement,
        "limit": limit,
        "at_us": to_us(now or datetime.now(UTC)),
        "memory_bytes": memory_bytes,
        "cpu_s": int(deadline_s * 4) + 2,
    }
    message = msgspec.json.encode(request, enc_hook=lambda path: str(path.resolve()))
    process = subprocess.Popen(
        [sys.executable, *CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=_environment(),
        start_new_session=True,
        close_fds=True,
    )
    try:
        out, err = _exchange(process, message, deadline, result_bytes)
    except TimeoutError:
        raise SqlLimit(f"the statement ran longer than {deadline_s:g} seconds: filter or aggregate earlier") from None
    finally:
        _end(process)
    if process.returncode != 0:
        raise _failure(process.returncode, err)
    return _result(out, limit)


def _environment() -> dict[str, str]:
    """An environment without DSN or master key. Few malloc arenas, since each reserves address space."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": str(_ROOT),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "MALLOC_ARENA_MAX": "2",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "OMP_NUM_THREADS": "1",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever is still running in its session, and reap it."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _exchange(
    process: subprocess.Popen[bytes], request: bytes, deadline: float, most_bytes: int
) -> tuple[bytearray, bytearray]:
    """Write the request, then read stdout and stderr to the end. Raises TimeoutError or SqlLimit."""
    assert process.stdin is not None, "a pipe"
    assert process.stdout is not None, "a pipe"
    assert process.stderr is not None, "a pipe"
    out, err = bytearray(), bytearray()
    sinks = {process.stdout.fileno(): (out, most_bytes), process.stderr.fileno(): (err, 2**20)}
    pending = memoryview(request)
    with selectors.DefaultSelector() as selector:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        for pipe in (process.stdout, process.stderr):
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            events = selector.select(max(0.0, deadline - time.monotonic()))
            if not events and time.monotonic() >= deadline:
                raise TimeoutError
            for key, _ in events:
                if key.fileobj is process.stdin:
                    pending = _write(process, pending)
                    if not pending:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                data = os.read(key.fd, _CHUNK)
                sink, most = sinks[key.fd]
                sink += data
                if not data:
                    selector.unregister(key.fileobj)
                elif len(sink) > most:
                    raise SqlLimit(f"the result is larger than {most // 2**20} MiB: add a LIMIT or aggregate")
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return out, err


def _write(process: subprocess.Popen[bytes], pending: memoryview) -> memoryview:
    assert process.stdin is not None, "a pipe"
    try:
        return pending[os.write(process.stdin.fileno(), pending[:_CHUNK]) :]
    except BrokenPipeError:  # it has already ended; its exit status tells why
        return pending[:0]


def _failure(status: int, err: bytearray) -> TouchfoldError:
    """Why a process died without answering."""
    lines = bytes(err).decode(errors="replace").strip().splitlines()
    if status == _FAILED and lines:
        try:
            told = json.loads(lines[-1])
            return _CODES.get(told["code"], SqlRefused)(told["message"])
        except (ValueError, KeyError):
            return SqlRefused(lines[-1])
    if status == -signal.SIGXCPU:
        return SqlLimit("the statement used more processor time than it may have: filter or aggregate earlier")
    if status in (-signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS):
        return SqlLimit("the statement needs more memory than it may have: filter or aggregate earlier")
    last = lines[-1] if lines else f"status {status}"
    if last.startswith("MemoryError"):
        return SqlLimit("the statement needs more memory than it may have: filter or aggregate earlier")
    return errors.ServiceFailed(f"the SQL process failed: {last[:300]}")


def _result(out: bytearray, limit: int | None) -> SqlResult:
    end = out.index(b"\n")
    head = json.loads(bytes(out[:end]))
    columns = [(str(name), str(type_)) for name, type_ in head["columns"]]
    with pa.ipc.open_stream(pa.py_buffer(memoryview(out)[end + 1 :])) as reader:
        table = reader.read_all()
    table = table.rename_columns([name for name, _ in columns])
    truncated = limit is not None and table.num_rows > limit
    left_out = [Wait(**each) for each in head["left_out"]]
    return SqlResult(columns, table.slice(0, limit) if truncated else table, truncated, left_out, head["warnings"])
