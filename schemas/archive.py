"""The archive's language: manifest entry, port, how a record is split into two columns, the chained digest. Pure.

A record is kept as `record` (its bytes without the `sealed` member, still one JSON object) and `sealed` (the bytes cut
out). `join` gives the original back byte for byte; dropping `sealed` later (design C12, step 7) leaves a readable
record, and the digest, which covers `record` alone, still holds.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from schemas.record import Stored

if TYPE_CHECKING:  # pyarrow's 60 MB are for who makes or reads tables
    import pyarrow as pa

NO_DIGEST: Final = bytes(32)
_CUT: Final = b',"sealed":{'


class ArchiveFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of the manifest: one immutable Parquet file that covers the offsets [start, next) of a partition.

    Offsets it covers and has no row of hold no record (Kafka: markers of transactions, aborted records). Without any
    row `first_offset` is `start` and `last_offset` is `start` - 1.
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
    footer_sha256: str  # of the Parquet footer alone: cheap to prove at every query; pages carry their own CRC
    digest_before: str
    digest: str  # chained over the file's records after `digest_before`
    groups: tuple[int, ...] = ()  # the first offset of each row group but the first, where there are several
    replaces: int = 0  # how many entries it stands for, which covered the same offsets; 0: an archiver wrote it
    replaced_at: int = 0  # Unix seconds when it took their place: their files stay a while for who reads them
    clear: str = ""  # by which declarations its columns are made (schemas.clear_view); "": not known
    seq: int = 0  # in an object store: the number of this replacement in its partition, from 1


class ArchiveStore(Protocol):
    """Where archived records are. Readers need no lock; of two who write at the same place one is refused."""

    def recover(self) -> list[str]:
        """Become a writer: drop a torn manifest tail, remove orphan files; returns their names.

        Raises FolderLocked when a folder has another writer, ArchiveDamaged when the manifest is lost or altered.
        """

    def files(self) -> list[ArchiveFile]:
        """What the manifest lists, in order of each partition. Raises ArchiveDamaged."""

    def next_offset(self, partition: int) -> int:
        """The first offset that is not archived, as far as this writer knows."""

    def refresh(self, partition: int) -> None:
        """Learn what other writers have added to a partition."""

    def add(self, partition: int, next_offset: int, generation: int, rows: "pa.Table", clear: str = "") -> ArchiveFile:
        """Durably add the rows (schemas.event_columns.SCHEMA) that reach from the partition's end to `next_offset`.

        Only after `recover`. Raises ArchiveDamaged when the rows do not fit there, ProgressConflict when another
        writer has added there: nothing of ours is listed; `refresh` and go on.
        """

    def read_records(self, partition: int, start: int) -> Iterator[Stored]:
        """The original records with offset >= `start`, ascending; each file proved by its SHA-256 first."""


class MergingStore(Protocol):
    """A store whose files can be put together. Only after `recover`, and in the partition's turn."""

    def known(self) -> list[ArchiveFile]:
        """What the manifest lists, in order of each partition, as far as this writer knows. Asks no object store."""

    def refresh(self, partition: int) -> None:
        """Learn what other writers have changed in a partition."""

    def merge(self, run: Sequence[ArchiveFile], check: Callable[[], None] = lambda: None) -> ArchiveFile:
        """Replace adjacent files of a partition by one with the same records; the old files stay until `retire`.

        `check` is called right before the new entry is made, and may raise. Raises ArchiveDamaged with the path of a
        damaged input, ProgressConflict when another writer has replaced one of them: nothing is changed.
        """

    def rewrite(
        self,
        entry: ArchiveFile,
        clear: str,
        remake: "Callable[[pa.Table], pa.Table]",
        check: Callable[[], None] = lambda: None,
    ) -> ArchiveFile:
        """Replace a file by one with the same records whose columns `remake` makes, a table at a time; see `merge`.

        Where nothing changes, the file stays and its entry alone says `clear`.
        """

    def retire(self, partition: int) -> int:
        """Remove files that were replaced long enough ago, once what replaced them is proved; returns how many."""


class Turns(Protocol):
    """Who writes: one process at a time for each partition, whatever machines they run on. A courtesy that saves work:

    two writers at once are told apart by the store.
    """

    def take(self, partition: int) -> bool:
        """Whether it is our turn until `give` or until we lose it; False: another process has it."""

    def check(self) -> None:
        """Raises StoreUnavailable when the turn may be another's by now: write nothing more in it."""

    def give(self, partition: int) -> None:
        """Never fails: a turn that is lost needs no giving back."""


class _SealedOnly(msgspec.Struct):
    sealed: dict[str, Any]


_SEALED: Final = msgspec.json.Decoder(_SealedOnly)


class Parts(NamedTuple):
    """The two columns of a record."""

    record: bytes
    sealed: bytes | None


def split(value: bytes) -> Parts:
    """Cut the `sealed` member off. It is the last one in the bytes the door writes; other bytes stay whole."""
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
    """The original bytes; without their sealed part when it was dropped."""
    return record if sealed is None else record[:-1] + sealed + b"}"


def chained(digest: bytes, records: Iterable[tuple[int, bytes]]) -> bytes:
    """SHA-256 chained over (offset, `record` column): d = SHA-256(d, offset as 8 bytes big-endian, record)."""
    for offset, record in records:
        digest = sha256(digest + offset.to_bytes(8, "big") + record).digest()
    return digest
