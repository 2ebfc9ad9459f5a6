"""The archive's language: manifest entry, port, splitting a record into two columns, the chained digest. Pure.

A record is stored as `record` (its bytes without the `sealed` member, still a JSON object) and `sealed` (the bytes cut
out). `join` restores the original byte for byte; dropping `sealed` later (design C12, step 7) leaves a readable
record, and the digest, which covers only `record`, still holds.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from schemas.record import Stored

if TYPE_CHECKING:  # pyarrow's 60 MB are only for code that makes or reads tables
    import pyarrow as pa

NO_DIGEST: Final = bytes(32)
_CUT: Final = b',"sealed":{'


class ArchiveFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of the manifest: an immutable Parquet file that covers the offsets [start, next) of a partition.

    Offsets that it covers without a row hold no record (Kafka: transaction markers, aborted records). Without rows,
    `first_offset` is `start` and `last_offset` is `start` - 1.
    """

    path: str  # relative to the archive's folder or prefix
    partition: int
    generation: int  # of the log these offsets belong to
    start: int
    next: int
    first_offset: int
    last_offset: int
    rows: int
    bytes: int
    sha256: str  # of the whole file
    footer_sha256: str  # of only the Parquet footer: cheap to verify at every query; pages carry their own CRC
    digest_before: str
    digest: str  # chained over the file's records, starting from `digest_before`
    groups: tuple[int, ...] = ()  # the first offset of each row group after the first
    replaces: int = 0  # how many entries for the same offsets it replaced; 0: written by an archiver
    replaced_at: int = 0  # Unix seconds of the replacement: the old files stay a while for those who are reading them
    clear: str = ""  # the declarations its columns follow (schemas.clear_view); "": not known
    seq: int = 0  # in an object store: the number of this replacement in its partition, from 1


class ArchiveStore(Protocol):
    """Where archived records are. Readers need no lock; of two writers at the same place one is refused."""

    def recover(self) -> list[str]:
        """Become a writer: drop a torn manifest tail and remove orphan files; returns their names.

        Raises FolderLocked if a folder has another writer, ArchiveDamaged if the manifest is lost or altered.
        """

    def files(self) -> list[ArchiveFile]:
        """The manifest's entries, in order within each partition. Raises ArchiveDamaged."""

    def next_offset(self, partition: int) -> int:
        """The first offset that is not archived yet, as far as this writer knows."""

    def refresh(self, partition: int) -> None:
        """Read what other writers have added to a partition."""

    def add(self, partition: int, next_offset: int, generation: int, rows: "pa.Table", clear: str = "") -> ArchiveFile:
        """Durably add the rows (schemas.event_columns.SCHEMA) from the partition's end up to `next_offset`.

        Only after `recover`. Raises ArchiveDamaged if the rows do not fit there, ProgressConflict if another writer has
        added there: nothing of ours was added; call `refresh` and continue.
        """

    def read_records(self, partition: int, start: int) -> Iterator[Stored]:
        """The original records with offset >= `start`, ascending; each file is verified by its SHA-256 first."""


class MergingStore(Protocol):
    """A store whose files can be merged. Only after `recover`, and only while holding the partition's turn."""

    def known(self) -> list[ArchiveFile]:
        """The manifest's entries, in order within each partition, as far as this writer knows. Asks no object store."""

    def refresh(self, partition: int) -> None:
        """Read what other writers have changed in a partition."""

    def merge(self, run: Sequence[ArchiveFile], check: Callable[[], None] = lambda: None) -> ArchiveFile:
        """Replace adjacent files of a partition with one that holds the same records; the old ones stay until `retire`.

        `check` is called right before the new entry is written, and may raise. Raises ArchiveDamaged with the path of a
        damaged input, ProgressConflict if another writer has replaced one of them: then nothing is changed.
        """

    def rewrite(
        self,
        entry: ArchiveFile,
        clear: str,
        remake: "Callable[[pa.Table], pa.Table]",
        check: Callable[[], None] = lambda: None,
    ) -> ArchiveFile:
        """Replace a file with one of the same records; `remake` makes its columns, a table at a time. See `merge`.

        If nothing changes, the file stays and only its entry gets the new `clear`.
        """

    def retire(self, partition: int) -> int:
        """Remove files that were replaced long enough ago, once their replacements are verified; returns how many."""


class Turns(Protocol):
    """Who may write: one process at a time for each partition, on whatever machine. A courtesy that saves work:

    if two write at the same time, the store refuses one.
    """

    def take(self, partition: int) -> bool:
        """True if the turn is ours until `give` or until we lose it; False: another process has it."""

    def check(self) -> None:
        """Raises StoreUnavailable if the turn may have passed to another by now: write nothing more in it."""

    def give(self, partition: int) -> None:
        """Never fails: a turn that was lost need not be given back."""


class _SealedOnly(msgspec.Struct):
    sealed: dict[str, Any]


_SEALED: Final = msgspec.json.Decoder(_SealedOnly)


class Parts(NamedTuple):
    """The two columns of a record."""

    record: bytes
    sealed: bytes | None


def split(value: bytes) -> Parts:
    """Cut off the `sealed` member. It is the last one in the bytes that the door writes; other bytes stay whole."""
    at = value.rfind(_CUT)
    if at < 0 or not value.endswith(b"}}"):
        return Parts(value, None)
    sealed = value[at:-1]
    try:
        _SEALED.decode(b"{" + sealed[1:] + b"}")
    except (msgspec.MsgspecError, RecursionError):
        return Parts(value, None)
    return Parts(value[:at] + b"}", sealed)


def join(record: bytes, sealed: bytes | None) -> bytes:
    """The original bytes; without the sealed part if that was dropped."""
    return record if sealed is None else record[:-1] + sealed + b"}"


def chained(digest: bytes, records: Iterable[tuple[int, bytes]]) -> bytes:
    """SHA-256 chained over (offset, `record` column): d = SHA-256(d, offset as 8 bytes big-endian, record)."""
    for offset, record in records:
        digest = sha256(digest + offset.to_bytes(8, "big") + record).digest()
    return digest
