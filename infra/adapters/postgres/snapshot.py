"""`Snapshot` of the live revision: copied out of one short transaction into unnamed files, and read from there.

So the transaction lasts as long as the copy (seconds; at two million events about half a minute), and not as long as
what is done with it. A killed process leaves neither a file nor a lock behind.
"""

import errno
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final

import psycopg2.errors
from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import COPY_HEADER, Dedicated, int8, mapped
from infra.adapters.postgres.figures import all_cells
from infra.adapters.postgres.locks import ERASURE_LOCK
from infra.adapters.postgres.rows import EVIDENCE, PROFILES, evidence_row, profile_row
from schemas.errors import DiskFull, StoreUnavailable
from schemas.figures import Cells
from schemas.store_rows import EvidenceRow, ProfileRow

Tell = Callable[[str, int, int], None]  # (current task, amount done, total; 0: unknown)

GATE_S: Final = 5  # FOLD is paused for at most this long before it goes on for a while and we try again
IDLE_S: Final = 15  # our sessions end this long after the last query of a process that was suspended
_PART_BYTES: Final = 64_000_000  # of a table; larger ones are sorted and copied in parts
_PARTS: Final = 256
_BUFFER: Final = 1 << 20
_COUNT: Final = struct.Struct("!h")
_LENGTH: Final = struct.Struct("!i")
Row = tuple[bytes | None, ...]


class PostgresSnapshot:
    """`Snapshot` in files. One thread; one reader at a time for each kind of row."""

    def __init__(self, cursor: Cursor, revision: int, folder: Path | None, tell: Tell, open_: ExitStack) -> None:
        """Copies everything; `cursor`: in a repeatable-read transaction. The files last as long as `open_`."""
        self._cursor = cursor
        self._folder = folder
        self._tell = tell
        self._open = open_
        number = int(revision)
        progress = self._rows(
            "select next_offset, watermark_us from progress where revision = %s order by partition", number
        )
        self.next_offsets: Sequence[int] = [int(row[0]) for row in progress]
        self.watermark_us = min((int(row[1]) for row in progress), default=0)
        self._erased = {row[0] for row in self._rows("select token from erased_tokens")}
        self._unnamed = {row[0] for row in self._rows("select token from unnamed_tokens")}
        skipped = 'select partition, "offset" from not_applied order by partition, "offset"'
        self._skipped = self._copied([skipped], "not applied")
        states, profiles = f"states_r{number}", f"profiles_r{number}"
        self._states = self._table(states, "signature", "signature, partition, state", "signature, partition")
        self._evidence = self._table("evidence", "signature", EVIDENCE.names, "signature")
        self._profiles = self._table(profiles, "profile_id", PROFILES.names, "profile_id")
        self._figures = all_cells(cursor, number)
        self._nobody = self._copied([f"select state from nobody where revision = {number}"], "orders of nobody")

    def skipped(self) -> Iterator[tuple[int, int]]:
        return ((int8(row[0]), int8(row[1])) for row in _rows(self._skipped))

    def erased(self) -> set[bytes]:
        return set(self._erased)

    def unnamed(self) -> set[bytes]:
        return set(self._unnamed)

    def states(self) -> Iterator[tuple[bytes, int, bytes]]:
        return ((row[0] or b"", int8(row[1]), row[2] or b"") for row in _rows(self._states))

    def evidence(self) -> Iterator[EvidenceRow]:
        return map(evidence_row, _rows(self._evidence))

    def profiles(self) -> Iterator[ProfileRow]:
        return map(profile_row, _rows(self._profiles))

    def figures(self) -> tuple[Cells, Cells] | None:
        return self._figures

    def nobody(self) -> Iterator[bytes]:
        return (row[0] or b"" for row in _rows(self._nobody))

    def _rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        self._cursor.execute(query, params)
        return self._cursor.fetchall()

    def _table(self, table: str, key: str, columns: str, order: str) -> IO[bytes]:
        """A table in the order of its primary key, copied in parts small enough to be sorted in memory."""
        ((size,),) = self._rows("select pg_table_size(%s::regclass)", table)
        if size <= _PART_BYTES:
            return self._copied([f"select {columns} from {table} order by {order}"], table)
        self._cursor.execute("set local enable_seqscan = off")
        bounds = [f"'{start:02x}{'0' * 30}'::uuid" for start in range(_PARTS)]
        wanted = [f"{key} >= {low} and {key} < {high}" for low, high in pairwise(bounds)]
        wanted.append(f"{key} >= {bounds[-1]}")
        return self._copied([f"select {columns} from {table} where {part} order by {order}" for part in wanted], table)

    def _copied(self, queries: Sequence[str], what: str) -> IO[bytes]:
        made = tempfile.TemporaryFile(dir=self._folder, buffering=_BUFFER)  # noqa: SIM115  # closed by `open_`
        file = self._open.enter_context(made)
        sink = _Sink(file)
        for number, query in enumerate(queries):
            self._tell(f"copying {what.rpartition('_r')[0] or what}", number, len(queries))
            self._cursor.copy_expert(f"COPY ({query}) TO STDOUT BINARY", sink)
        sink.flush()
        return file


class _Sink:
    """The target of COPY. In Python, so that Ctrl-C works between two rows."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        with _room():
            return self._file.write(data)

    def flush(self) -> None:
        with _room():
            self._file.flush()


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        if err.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull("no room for temporary files in the data folder", retry_after_s=30) from err
        raise


def _rows(file: IO[bytes]) -> Iterator[Row]:
    """The rows of several binary COPYs in sequence."""
    file.seek(0)
    read, count_of, length_of = file.read, _COUNT.unpack, _LENGTH.unpack
    while read(len(COPY_HEADER)):
        while (count := count_of(read(2))[0]) >= 0:
            yield tuple([read(length) if (length := length_of(read(4))[0]) >= 0 else None for _ in range(count)])


@contextmanager
def snapshot(dsn: str, revision: int, timeout_s: float, folder: Path | None, tell: Tell) -> Iterator[PostgresSnapshot]:
    """Pause FOLD at a batch boundary, wait until work items and timers are drained, take the view, resume it, copy.

    Somebody else (the worker) drains them. FOLD is paused for at most 5 s at a time, and not while we copy.
    Raises StoreUnavailable if something is still waiting after `timeout_s`, and DiskFull.
    """
    with ExitStack() as files:
        with mapped(), closing(_session(dsn, "touchfold snapshot")) as session:
            connection = session.connection()
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with connection.cursor() as view:
                _begin(dsn, revision, view, timeout_s)
                taken = PostgresSnapshot(view, revision, folder, tell, files)
            connection.rollback()
        yield taken


def _session(dsn: str, name: str) -> Dedicated:
    """A dedicated connection. The server checks whether we are still there while it sorts for us."""
    session = Dedicated(dsn, name)
    with session.reading() as cursor:
        cursor.execute(
            f"set idle_in_transaction_session_timeout = '{IDLE_S}s'; set client_connection_check_interval = '5s'"
        )
    return session


def _begin(dsn: str, revision: int, view: Cursor, timeout_s: float) -> None:
    """Take the view at a moment when nothing is queued or due."""
    deadline = time.monotonic() + timeout_s
    with closing(_session(dsn, "touchfold snapshot gate")) as gate:
        while True:
            with gate.transaction() as cursor:
                if _halted(cursor) and _drained(cursor, revision, deadline):
                    view.execute("select 1")  # the view is fixed at this moment; FOLD may go on
                    return
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"the worker did not decide everything within {timeout_s:.0f} s: is it running?")
            time.sleep(0.1)


def _halted(cursor: Cursor) -> bool:
    """Make FOLD wait at its next batch boundary; False if its batch takes too long, so that it is not held up."""
    cursor.execute(f"set local lock_timeout = '{GATE_S}s'")
    try:
        cursor.execute("select pg_advisory_xact_lock(%s)", (ERASURE_LOCK,))
    except psycopg2.errors.LockNotAvailable:
        cursor.connection.rollback()
        return False
    return True


def _drained(cursor: Cursor, revision: int, deadline: float) -> bool:
    """While FOLD is paused, give DECIDE time to drain what is queued or due."""
    until = min(deadline, time.monotonic() + GATE_S)
    while True:
        cursor.execute(
            "select (select count(*) from marks where revision = %s) +"
            f" (select count(*) from profiles_r{int(revision)} where due_us <="
            " (select min(watermark_us) from progress where revision = %s))",
            (revision, revision),
        )
        row = cursor.fetchone()
        if row is not None and row[0] == 0:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
