"""The Parquet files of an archive: written, merged, read by row group, and passed to SQL as one Arrow dataset."""

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from infra.adapters.archive.files import hash_of
from infra.adapters.archive.proofs import Stat, stat_of
from infra.adapters.machine.private_files import open_private
from schemas.archive import ArchiveFile, chained
from schemas.errors import ArchiveDamaged, Problem
from schemas.event_columns import SCHEMA

GROUP_ROWS: Final = 20_000  # per row group: the unit that is read, decoded and cached
_GROUP_BYTES: Final = 32 * 2**20  # of Arrow data, after which a merge ends a row group early: bounds memory
_FOOTER_GUESS: Final = 16_384  # bytes; a row group takes about 6 kB of a footer
_OPTIONS: Final[Mapping[str, Any]] = {"compression": "zstd", "compression_level": 3, "write_page_checksum": True}


class Made(NamedTuple):
    """A written file, as its entry describes it."""

    rows: int
    offsets: tuple[int, int] | None  # first and last
    size: int  # bytes
    sha256: str
    footer_sha256: str
    digest: bytes
    groups: tuple[int, ...]


def parquet_of(rows: pa.Table) -> bytes:
    """A small file, in memory."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=GROUP_ROWS, **_OPTIONS)
    return bytes(sink.getvalue())


def groups_of(rows: pa.Table) -> tuple[int, ...]:
    """The first offset of each row group of `parquet_of`, except the first."""
    return tuple(cast(int, rows.column("offset")[at].as_py()) for at in range(GROUP_ROWS, rows.num_rows, GROUP_ROWS))


def columns_of(rows: pa.Table) -> tuple[list[int], list[bytes]]:
    """Offsets and `record` bytes."""
    return cast(list[int], rows.column("offset").to_pylist()), cast(list[bytes], rows.column("record").to_pylist())


def footer_of(data: bytes | memoryview) -> bytes:
    """The Parquet footer with its length and magic, from a file or its end. Raises ArchiveDamaged."""
    if len(data) < 12 or bytes(data[-4:]) != b"PAR1":
        raise ArchiveDamaged("not a Parquet file")
    length = int.from_bytes(data[-8:-4], "little") + 8
    return bytes(data[-length:])


# ---------------------------------------------------------------- merging


class _Hashing:
    """A file that is hashed while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = sha256()
        self.closed = False

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()


def merge_into(
    path: Path,
    run: Sequence[ArchiveFile],
    read: Callable[[ArchiveFile], bytes],
    remake: Callable[[pa.Table], pa.Table] = lambda table: table,
) -> Made:
    """Write the rows of adjacent files into one, synced. Holds one input and one row group in memory.

    `remake`: recomputes columns of some rows; their records stay.

    Raises ArchiveDamaged, naming the input, if one is not what the manifest says.
    """
    digest = bytes.fromhex(run[0].digest_before)
    rows, first, last = 0, None, -1
    groups: list[int] = []
    with open_private(path) as file:
        hashing = _Hashing(file)
        with pq.ParquetWriter(pa.PythonFile(cast(Any, hashing), "w"), SCHEMA, **_OPTIONS) as writer:
            for table in map(remake, _regrouped(_rows_of(run, read))):
                offsets, records = columns_of(table)
                digest = chained(digest, zip(offsets, records, strict=True))
                if first is None:
                    first = offsets[0]
                else:
                    groups.append(offsets[0])
                rows, last = rows + len(offsets), offsets[-1]
                writer.write_table(table, row_group_size=table.num_rows)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    return Made(
        rows,
        None if first is None else (first, last),
        size,
        hashing.hash.hexdigest(),
        sha256(_footer_at(path, size)).hexdigest(),
        digest,
        tuple(groups),
    )


def _rows_of(run: Sequence[ArchiveFile], read: Callable[[ArchiveFile], bytes]) -> Iterator[pa.Table]:
    """Every row; each file is verified first."""
    for entry in run:
        data = read(entry)
        if sha256(data).hexdigest() != entry.sha256:
            raise damaged(entry)
        digest = bytes.fromhex(entry.digest_before)
        for table in groups_in(pa.BufferReader(data)):
            digest = chained(digest, zip(*columns_of(table), strict=True))
            yield table
        if digest.hex() != entry.digest:
            raise damaged(entry)


def damaged(entry: ArchiveFile) -> ArchiveDamaged:
    text = f"{entry.path} does not match its manifest: restore it from a backup"
    return ArchiveDamaged(text, [Problem(entry.path, text)])


def _regrouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of GROUP_ROWS, or fewer where rows are large; none is empty."""
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        waiting.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        while rows >= GROUP_ROWS or (rows and size >= _GROUP_BYTES):
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, GROUP_ROWS).combine_chunks()
            rest = whole.slice(GROUP_ROWS).combine_chunks()
            waiting, rows, size = [rest], rest.num_rows, rest.nbytes
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()


def _footer_at(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(size - 8)
        length = int.from_bytes(file.read(4), "little") + 8
        file.seek(size - length)
        return footer_of(file.read())


# ---------------------------------------------------------------- reading


def _format() -> ds.ParquetFileFormat:
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.ParquetFileFormat(default_fragment_scan_options=options)


def _parts(file: pa.NativeFile) -> list[ds.ParquetFileFragment]:
    """One fragment per row group."""
    fragment = cast(ds.ParquetFileFragment, _format().make_fragment(cast(IO[bytes], file)))
    return cast(list[ds.ParquetFileFragment], fragment.split_by_row_group())


def groups_in(file: pa.NativeFile, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """A file's row groups in order, whatever columns its build knew; pages are verified by their CRC."""
    for group in _parts(file):
        yield group.to_table(schema=SCHEMA, columns=None if columns is None else list(columns), use_threads=False)


class Groups:
    """A file whose SHA-256 matched the manifest when it was opened, read by row group. Any thread."""

    def __init__(self, entry: ArchiveFile, file: IO[bytes]) -> None:
        """Raises ArchiveDamaged. Takes over the file."""
        if hash_of(file, sha256()).hexdigest() != entry.sha256:
            file.close()
            raise damaged(entry)
        weakref.finalize(self, file.close)
        self._entry = entry
        self._parts = _parts(pa.PythonFile(cast(Any, file), "r"))

    def table(self, group: int | None, columns: Sequence[str]) -> pa.Table:
        """The rows of a row group; None: of all. Raises ArchiveDamaged if the file has changed since it was opened."""
        parts = self._parts if group is None else self._parts[group : group + 1]
        try:
            tables = [part.to_table(schema=SCHEMA, columns=list(columns), use_threads=False) for part in parts]
        except (OSError, pa.ArrowException) as err:
            raise damaged(self._entry) from err
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table().select(list(columns))


def dataset(
    folder: Path, entries: Sequence[ArchiveFile], proved: Mapping[str, Stat] | None = None
) -> ds.FileSystemDataset:
    """The files as one Arrow dataset. All are opened here: reading it later opens nothing.

    Sizes and footers are verified now, except for files unchanged since they were `proved`; each page's CRC is verified
    when it is read. Raises ArchiveDamaged.
    """
    parquet = _format()
    known = proved or {}
    fragments = [
        parquet.make_fragment(cast(IO[bytes], _opened(folder, entry, known.get(entry.path)))) for entry in entries
    ]
    return ds.FileSystemDataset(fragments, SCHEMA, parquet)


def _opened(folder: Path, entry: ArchiveFile, proved: Stat | None) -> pa.NativeFile:
    path = folder / entry.path
    try:
        file = pa.OSFile(str(path), "rb")
    except OSError as err:
        reason = os.strerror(err.errno or 0)
        raise ArchiveDamaged(f"{entry.path} cannot be read ({reason}): restore it from a backup") from err
    if proved is not None and stat_of(path) == proved:
        return file
    tail = b""
    if file.size() == entry.bytes:
        file.seek(max(0, entry.bytes - _FOOTER_GUESS))
        tail = file.read()
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if _FOOTER_GUESS < length <= entry.bytes:
            file.seek(entry.bytes - length)
            tail = file.read()
    if not tail or sha256(footer_of(tail)).hexdigest() != entry.footer_sha256:
        raise damaged(entry)
    file.seek(0)
    return file
