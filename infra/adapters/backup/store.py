"""A backup destination: its bases, WAL, archive files and ledger, sealed and opened. Knows no database."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from io import BytesIO
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa

from infra.adapters.backup.key import key_id
from infra.adapters.backup.sealing import open_object, seal_object
from schemas.archive import ArchiveFile
from schemas.backups import (
    HEADER,
    Base,
    Objects,
    Reach,
    Until,
    WalName,
    base_of,
    base_time,
    ends_at,
    is_due,
    reach_of,
    superfluous_wal,
    time_text,
    until_object,
    wal_name,
)
from schemas.errors import BackupDamaged, BackupKeyWrong, BackupRefused

FORMAT: Final = 1
_BASE: Final = msgspec.json.Decoder(Base)
_UNTIL: Final = msgspec.json.Decoder(Until)
Tell = Callable[[str, int, int], None]


class Pruned(NamedTuple):
    """What was removed, and the oldest base or WAL left."""

    bases: int
    wal: int
    archive: int
    oldest: datetime | None


class BackupStore:
    """`key`: None to only remove expired backups. Raises StoreUnavailable, SettingsInvalid from `Objects`."""

    def __init__(self, objects: Objects, key: bytes | None) -> None:
        self.objects = objects
        self._key = key

    @property
    def url(self) -> str:
        return self.objects.url

    @property
    def key(self) -> bytes:
        if self._key is None:
            raise BackupKeyWrong("this needs the backup key: set TOUCHFOLD_BACKUP_KEY")
        return self._key

    # ------------------------------------------------------------ identity

    def begin(self) -> None:
        """Turn the place into a destination, or verify that it already is one under this key. Raises BackupRefused."""
        if self.objects.get(HEADER) is None:
            if strangers := sorted(self.objects.names())[:1]:
                raise BackupRefused(
                    f"{self.url} is not empty and is not a backup destination (it contains {strangers[0]}): give a "
                    "folder or prefix of its own"
                )
            header = {"touchfold_backup": FORMAT, "key": key_id(self.key).hex()}
            self.objects.put(HEADER, msgspec.json.encode(header))
        self.prove()

    def exists(self) -> bool:
        return self.objects.get(HEADER) is not None

    def prove(self) -> None:
        """Raises BackupRefused if there is no backup, BackupKeyWrong if it is under another key."""
        data = self.objects.get(HEADER)
        if data is None:
            raise BackupRefused(f"there is no backup at {self.url}: {HEADER} is missing")
        try:
            header = msgspec.json.decode(data, type=dict[str, int | str])
        except msgspec.MsgspecError as err:
            raise BackupDamaged(f"{HEADER} of {self.url} is damaged: it is not JSON") from err
        if header.get("touchfold_backup") != FORMAT:
            raise BackupRefused(f"{HEADER} of {self.url} is damaged, or from a newer build")
        if self._key is not None and header.get("key") != key_id(self._key).hex():
            raise BackupKeyWrong(
                f"{HEADER} says that {self.url} is sealed with another backup key ({header.get('key')}; this one is "
                f"{key_id(self._key).hex()}): give the right one in TOUCHFOLD_BACKUP_KEY, or another destination"
            )

    # ------------------------------------------------------------ objects

    def put(self, name: str, plain: bytes) -> None:
        self.objects.put(name, seal_object(self.key, name, plain))

    def read(self, name: str) -> bytes:
        """Raises BackupDamaged if the object is missing or altered."""
        data = self.objects.get(name)
        if data is None:
            raise BackupDamaged(f"{name} is missing from {self.url}")
        return open_object(self.key, name, data)

    # ------------------------------------------------------------ bases

    def announce(self, id_: str) -> None:
        """Announce a base in progress: nobody removes what it may need."""
        self.objects.put(f"bases/{id_}/begun", b"")

    def finish(self, base: Base) -> None:
        """From here on the base counts as complete."""
        self.put(f"bases/{base.id}/base", msgspec.json.encode(base))

    def base(self, id_: str) -> Base:
        try:
            return _BASE.decode(self.read(f"bases/{id_}/base"))
        except msgspec.MsgspecError as err:
            raise BackupRefused(f"bases/{id_}/base was written by a newer build: restore it with that build") from err

    def whole_ids(self, names: Sequence[str]) -> list[str]:
        """The complete bases among these names, oldest first."""
        return sorted({id_ for name in names if (id_ := base_of(name)) and name.endswith("/base")})

    def bases(self) -> list[Base]:
        """Complete bases, oldest first. Raises BackupDamaged."""
        return [self.base(id_) for id_ in self.whole_ids(list(self.objects.names("bases/")))]

    def remove_base(self, id_: str) -> None:
        """Removes its manifest first, so that what is left does not count as a base."""
        names = self.objects.names(f"bases/{id_}/")
        self.objects.remove([name for name in names if name.endswith("/base")])
        self.objects.remove([name for name in names if not name.endswith("/base")])

    # ------------------------------------------------------------ WAL

    def wal(self) -> list[WalName]:
        return [told for name in sorted(self.objects.names("wal/")) if (told := wal_name(name)) is not None]

    def until(self, chain: str) -> Until | None:
        name = until_object(chain)
        data = self.objects.get(name)
        return None if data is None else _UNTIL.decode(open_object(self.key, name, data))

    def set_until(self, chain: str, until: Until) -> None:
        self.put(until_object(chain), msgspec.json.encode(until))

    def reaches(self) -> list[Reach]:
        """What can be restored, by base, oldest first."""
        bases, wal = self.bases(), self.wal()
        untils = {chain: self.until(chain) for chain in {base.chain for base in bases}}
        return [reach_of(base, wal, untils[base.chain]) for base in bases]

    # ------------------------------------------------------------ archive and ledger

    def archive_names(self) -> set[str]:
        """SHA-256 of the archive files stored here."""
        return {name.rpartition("/")[2] for name in self.objects.names("archive/")}

    def put_archive(self, entry: ArchiveFile, data: bytes) -> None:
        self.put(f"archive/{entry.sha256}", data)

    def read_archive(self, entry: ArchiveFile) -> bytes:
        data = self.read(f"archive/{entry.sha256}")
        if sha256(data).hexdigest() != entry.sha256:
            raise BackupDamaged(f"archive/{entry.sha256} ({entry.path}) is damaged")
        return data

    def put_ledger(self, at: datetime, data: bytes) -> None:
        """Store the newest copy; older ones are removed."""
        before = list(self.objects.names("ledger/"))
        name = f"ledger/{time_text(at)}"
        self.put(name, pa.compress(data, codec="zstd", asbytes=True) if data else b"")
        self.objects.remove([each for each in before if each != name])

    def ledger(self) -> tuple[str, bytes] | None:
        """The time of the newest copy (as in its name), and its bytes."""
        names = sorted(self.objects.names("ledger/"))
        if not names:
            return None
        data = self.read(names[-1])
        plain = decompressed(data) if data else b""
        return names[-1].rpartition("/")[2], plain

    # ------------------------------------------------------------ removing

    def prune(self, now: datetime, days: int, *, growing: str | None = None) -> Pruned:
        """Remove what has expired, and what nothing needs any more.

        While anybody is making a base, objects that no base names may belong to it. `growing`: the chain of WAL in
        use. Without the key, what nothing needs stays until it expires.
        """
        names = list(self.objects.names())
        whole = self.whole_ids(names)
        gone = [id_ for id_ in whole if is_due(*base_time(id_), days, now)]
        begun = {id_ for name in names if (id_ := base_of(name)) is not None} - set(whole)
        abandoned = {id_ for id_ in begun if _abandoned(id_, days, now)}
        for id_ in [*gone, *sorted(abandoned)]:
            self.remove_base(id_)
        left = [id_ for id_ in whole if id_ not in gone]
        told = {name: each for name in names if (each := wal_name(name)) is not None}
        old = [name for name, each in told.items() if is_due(each.at, each.days, days, now)]
        archive: list[str] = []
        if self._key is not None and begun == abandoned:
            bases = [self.base(id_) for id_ in left]
            old = sorted({*old, *superfluous_wal(names, bases, growing)})
            needed = {f"archive/{entry.sha256}" for base in bases for entry in base.archive}
            archive = [name for name in names if name.startswith("archive/") and name not in needed]
        self.objects.remove(old)
        self.objects.remove(archive)
        times = [base_time(id_)[0] for id_ in left] + [each.at for name, each in told.items() if name not in set(old)]
        return Pruned(len(gone), len(old), len(archive), min(times, default=None))

    def overdue(self, now: datetime, days: int) -> list[str]:
        """Names of bases and WAL that should have been removed. Needs no key."""
        names = list(self.objects.names())
        ids = sorted({id_ for name in names if (id_ := base_of(name))})
        found = [f"bases/{id_}" for id_ in ids if now >= ends_at(*base_time(id_), days)]
        told = [(name, each) for name in sorted(names) if (each := wal_name(name)) is not None]
        return found + [name for name, each in told if now >= ends_at(each.at, each.days, days)]

    # ------------------------------------------------------------ verifying

    def verify(self, tell: Tell = lambda _what, _done, _of: None) -> Iterator[str]:
        """Read and open everything; yields each problem with the object's name."""
        try:
            self.prove()
        except BackupDamaged as err:
            yield err.message
        names = sorted(self.objects.names())
        bases: list[Base] = []
        wanted: dict[str, str] = {}  # name -> SHA-256 of its plain bytes
        for id_ in self.whole_ids(names):
            try:
                bases.append(self.base(id_))
            except (BackupDamaged, BackupKeyWrong) as err:
                yield err.message
        for base in bases:
            wanted |= {part.name: part.sha256 for part in base.parts}
            wanted |= {f"archive/{entry.sha256}": entry.sha256 for entry in base.archive}
        yield from (f"{name} is missing from {self.url}" for name in sorted(wanted.keys() - set(names)))
        for done, name in enumerate(names):
            tell("objects verified", done, len(names))
            if name == HEADER or (name.startswith("bases/") and (name.endswith("/base") or name not in wanted)):
                continue
            try:
                plain = self.read(name)
            except (BackupDamaged, BackupKeyWrong) as err:  # its first bytes identify the key
                yield err.message
            else:
                if name in wanted and sha256(plain).hexdigest() != wanted[name]:
                    yield f"{name} does not match its base"
        yield from self._gaps(bases)

    def _gaps(self, bases: Sequence[Base]) -> Iterator[str]:
        wal = self.wal()
        for chain in dict.fromkeys(base.chain for base in bases):
            newest = max((base for base in bases if base.chain == chain), key=lambda base: base.first_segment)
            if gap := reach_of(newest, wal, None).gap_after:
                yield f"wal/{chain} has a gap after {gap}: nothing later can be restored from it"


def decompressed(data: bytes) -> bytes:
    with pa.input_stream(BytesIO(data), compression="zstd") as stream:
        return bytes(stream.read())


def _abandoned(id_: str, days: int, now: datetime) -> bool:
    """Whether no process is still making an incomplete base: it is a day old, or has expired."""
    at, kept = base_time(id_)
    return (now - at).total_seconds() > 86_400 or is_due(at, kept, days, now)
