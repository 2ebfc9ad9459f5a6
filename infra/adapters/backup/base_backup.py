"""The running cluster of a data folder as one stream: read with pg_basebackup, passed on in compressed parts.

The stream contains the WAL it needs, so a base can be restored alone. Until it ends, a temporary replication slot
keeps that WAL from being removed; the slot ends with the session, even if this process is killed.
"""

import os
import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from hashlib import sha256
from io import RawIOBase
from pathlib import Path
from typing import IO, Final, NamedTuple

import pyarrow as pa
from psycopg2.extensions import make_dsn, parse_dsn

from infra.adapters.postgres.database import Dedicated
from infra.adapters.postgres.embedded import binaries
from schemas.backups import Part
from schemas.errors import BackupDamaged, DatabaseDamaged, ServiceFailed

PART_BYTES: Final = 32 * 2**20  # of compressed data; in memory twice while it is sealed
_PIECE: Final = 2**20


class Span(NamedTuple):
    """What a stream covers. Instants by the database's clock."""

    started_at: datetime
    ended_at: datetime
    first_segment: str  # of WAL; the stream may end anywhere after it


def stream_base(
    dsn: str, put: Callable[[int, bytes], Part], passed: Callable[[int], None]
) -> tuple[Span, list[Part], int]:
    """Read the whole cluster; `put` gets each part, `passed` the uncompressed bytes so far. Also returns those.

    Raises DatabaseDamaged for a page with a wrong checksum, ServiceFailed with pg_basebackup's message.
    """
    with closing(Dedicated(dsn, "touchfold backup")) as session:
        with session.reading() as cursor:
            cursor.execute(
                "select pg_create_physical_replication_slot(%s, true, true)", (f"backup_{secrets.token_hex(6)}",)
            )
            cursor.execute("select clock_timestamp(), pg_walfile_name(pg_current_wal_insert_lsn())")
            started_at, first = _row(cursor.fetchone())
        sink = _Parts(put)
        plain = _copy(dsn, sink, passed)
        with session.reading() as cursor:
            cursor.execute("select clock_timestamp(), pg_walfile_name(pg_current_wal_insert_lsn())")
            ended_at, _ = _row(cursor.fetchone())
    return Span(started_at, ended_at, first), sink.parts, plain


def _row(row: tuple[datetime, str] | None) -> tuple[datetime, str]:
    assert row is not None, "a select without a table gives a row"
    return row


def _copy(dsn: str, sink: "_Parts", passed: Callable[[int], None]) -> int:
    parts = parse_dsn(dsn)
    password = parts.pop("password", "")
    parts.pop("dbname", None)
    command = [
        *(str(binaries() / "pg_basebackup"), "--dbname", str(make_dsn(**parts))),
        *("-D", "-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--manifest-checksums=SHA256"),
        *("--label=touchfold", "--no-password"),
    ]
    env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "PGPASSWORD": password}
    with tempfile.TemporaryFile() as told:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=told, env=env)
        try:
            assert child.stdout is not None, "its output is a pipe"
            plain = _compress(child.stdout, sink, passed)
            status = child.wait()
        finally:
            child.kill()
            child.wait()
        if status:
            told.seek(0)
            raise _failed(told.read().decode(errors="replace").strip())
    return plain


def _compress(source: IO[bytes], sink: "_Parts", passed: Callable[[int], None]) -> int:
    plain = 0
    with pa.output_stream(sink, compression="zstd") as out:
        while piece := source.read(_PIECE):
            out.write(piece)
            plain += len(piece)
            passed(plain)
    sink.end()
    return plain


def _failed(told: str) -> Exception:
    last = told[-1_000:]
    if "checksum" in told:
        return DatabaseDamaged(f"PostgreSQL's files are damaged and were not backed up: {last}")
    return ServiceFailed(f"pg_basebackup failed: {last}")


class _Parts(RawIOBase):
    """A writable file that passes on its contents, one part at a time."""

    def __init__(self, put: Callable[[int, bytes], Part]) -> None:
        self._put = put
        self._held = bytearray()
        self.parts: list[Part] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]  # whatever has a buffer
        self._held += view
        while len(self._held) >= PART_BYTES:
            self._give(PART_BYTES)
        return len(view)

    def end(self) -> None:
        if self._held:
            self._give(len(self._held))

    def _give(self, size: int) -> None:
        part = bytes(self._held[:size])
        del self._held[:size]
        self.parts.append(self._put(len(self.parts), part))


def part_of(name: str, data: bytes) -> Part:
    return Part(name, len(data), sha256(data).hexdigest())


# ---------------------------------------------------------------- restoring


class _Joined(RawIOBase):
    """The concatenated parts, as a readable file."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: object) -> int:
        target = memoryview(into).cast("B")  # type: ignore[arg-type]  # whatever has a buffer
        while not self._held:
            following = next(self._parts, None)
            if following is None:
                return 0
            self._held = memoryview(following)
        size = min(len(target), len(self._held))
        target[:size] = self._held[:size]
        self._held = self._held[size:]
        return size


def unpack_base(parts: Sequence[Part], read: Callable[[str], bytes], into: Path, passed: Callable[[int], None]) -> None:
    """Unpack the parts into the cluster's folder. `passed`: compressed bytes so far. Raises BackupDamaged."""

    def proved() -> Iterator[bytes]:
        done = 0
        for part in parts:
            data = read(part.name)
            if sha256(data).hexdigest() != part.sha256:
                raise BackupDamaged(f"{part.name} does not match its base")
            done += len(data)
            yield data
            passed(done)

    into.mkdir(mode=0o700)
    with (
        pa.input_stream(_Joined(proved()), compression="zstd") as plain,
        tarfile.open(fileobj=plain, mode="r|", bufsize=_PIECE) as archive,
    ):
        for member in archive:
            archive.extract(member, into, filter="data")
