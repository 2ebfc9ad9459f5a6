"""An archive in an S3-compatible object store, through boto3 (docs/decisions/0011-archive-on-s3.md).

    PREFIX/manifest/archive.json               one line that identifies the archive, with a unique id
    PREFIX/manifest/p0/<start>.json            one entry, created with If-None-Match: *, so only one ever per start
    PREFIX/p0/<start>-<next>-<hash>.parquet    put before its entry; no two writers use the same name
    PREFIX/replaced/p0/<number>.json           one entry that replaces several, created with If-None-Match: *
    PREFIX/p0/<start>-<next>-<number>-<hash>.parquet    its file

Replaced entries and their files are removed after GRACE_S (s3_manifest determines which are live).

A writer that loses the race for an entry leaves a file that no entry lists; the next `recover` removes it. A store
that does not honour If-None-Match is refused.
"""

import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

import msgspec

from infra.adapters.archive.copies import FRESH_S, MOST_BYTES, Copies
from infra.adapters.archive.files import REFRESH_S, FolderFiles, hash_of
from infra.adapters.archive.grace import GRACE_S, Grace
from infra.adapters.archive.manifest import Named, body_of, entry_of, line_of, named, start_of
from infra.adapters.archive.s3_manifest import Partition
from infra.adapters.archive.s3_objects import AT_ONCE, S3Place
from infra.adapters.machine.durable_files import write_whole
from infra.adapters.machine.private_files import make_folder
from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged, Problem, ProgressConflict, SettingsInvalid, StoreUnavailable
from schemas.failpoints import failpoint

_HEADER: Final = "manifest/archive.json"
_KNOWN: Final = "entries.jsonl"  # entries never change, so each is fetched once
_SAVE: Final = 500  # number of new entries after which they are saved
_TRIES: Final = 3  # to read a partition while objects of it are being removed
_ABANDONED_S: Final = 86_400.0  # an older scratch file of a merge belongs to no process
_NEW: Final = b"2 "  # before the header of an archive with replaced entries


class S3Files(S3Place):
    """`ArchiveFiles` under s3://bucket/prefix. `copies`: a folder for copies and for what is known of the manifest.

    Credentials come from boto3's chain (AWS_… variables, profiles, roles). Any thread. Raises StoreUnavailable when
    the store is unavailable, SettingsInvalid when it refuses us.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        copies: Path,
        *,
        endpoint: str | None = None,
        copies_bytes: int = MOST_BYTES,
        refresh_s: float = REFRESH_S,
        grace_s: float = GRACE_S,
    ) -> None:
        super().__init__(bucket, prefix, endpoint)
        self._copies = Copies(copies, copies_bytes)
        self._refresh_s = refresh_s
        self._grace = Grace(grace_s)
        self._lock = threading.RLock()  # guards what is known
        self._known: dict[int, Partition] = {}
        self._id = b""  # the header's line, once read
        self._asked_at: float | None = None
        self._unsaved = 0

    # ------------------------------------------------------------ reading

    def entries(self, max_age_s: float | None = None) -> list[ArchiveFile]:
        most = self._refresh_s if max_age_s is None else min(max_age_s, self._refresh_s)
        with self._lock:
            now = time.monotonic()
            if self._asked_at is None or now - self._asked_at > most:
                self._learn()
                self._asked_at = now
            return self._live()

    def every_entry(self) -> list[ArchiveFile]:
        with self._lock:
            self._known = {}
            self._learn(afresh=True)
            return self._live()

    def known(self) -> list[ArchiveFile]:
        with self._lock:
            return self._live()

    def _live(self) -> list[ArchiveFile]:
        return [entry for partition in sorted(self._known) for entry in self._known[partition].live]

    def stamp(self) -> Hashable:
        return int(time.monotonic() / self._refresh_s) if self._refresh_s else object()

    def read(self, entry: ArchiveFile, *, copies: bool = True) -> bytes:
        found = self._copies.read(entry) if copies else None
        if found is None:
            found = self._get(entry.path)
        if found is None:
            text = f"{entry.path} is not in the object store: restore it from a backup"
            raise ArchiveDamaged(text, [Problem(entry.path, text)])
        return found

    def open(self, entry: ArchiveFile) -> IO[bytes]:
        """A copy if there is one, else the object's bytes in an unnamed file."""
        found = self._copies.open(entry)
        if found is not None:
            return found
        file = self._copies.unnamed()
        file.write(self.read(entry, copies=False))
        file.seek(0)
        return file

    def local(self, deadline: float) -> FolderFiles:
        if not self._copies.fresh():
            self._copies.bring(self.entries(FRESH_S), lambda entry: self.read(entry, copies=False), deadline)
        return self._copies.files

    def name(self, partition: int, start: int, next_offset: int, digest: str, seq: int | None = None) -> str:
        number = "" if seq is None else f"-{seq:010x}"
        return f"p{partition}/{start:015d}-{next_offset:015d}{number}-{digest[:32]}.parquet"

    def _learn(self, *, afresh: bool = False) -> None:
        """Fetch new entries; for a manifest not read before, all entries that this machine has not saved."""
        header = self._get(_HEADER)
        if header is None:
            if self._known or self._list("p", most=1):
                raise ArchiveDamaged(f"{self._url(_HEADER)} is missing, but its files exist: restore it from a backup")
            return
        _header(header, self._url(_HEADER))
        if header != self._id:
            self._id = header
            self._known = {} if afresh else self._written_down()
        for partition in self._partitions():
            self._catch_up(partition)
        if self._unsaved >= _SAVE:
            self._write_down()

    def _partitions(self) -> list[int]:
        found: set[str] = set()
        for start in ("manifest/p", "replaced/p"):
            whole = len(self.prefix) + len(start)
            with self._answered():
                pages = self._client.get_paginator("list_objects_v2").paginate(
                    Bucket=self.bucket, Prefix=self.prefix + start, Delimiter="/"
                )
                found |= {each["Prefix"][whole:-1] for page in pages for each in page.get("CommonPrefixes", ())}
        return sorted(int(digits) for digits in found if digits.isdigit())

    def _catch_up(self, partition: int) -> Partition:
        """Fetch what is new in a partition. Replacements first: they show which entries need not be fetched."""
        for _ in range(_TRIES):
            known = self._known.setdefault(partition, Partition())
            after = _replacement_name(partition, known.seq) if known.seq else None
            more = self._entries(self._list(f"replaced/p{partition}/", after))
            if more is not None:
                known.take(more)
                start = max(known.last_start, known.replaced_until() - 1)
                names = self._list(f"manifest/p{partition}/", None if start < 0 else _entry_name(partition, start))
                added = self._entries([name for name in names if known.covering(_start(name)) is None])
                if added is not None:
                    known.take(added)
                    self._unsaved += len(more) + len(added)
                    return known
            self._known.pop(partition)  # one was replaced and removed after it was listed
        raise ArchiveDamaged(f"{self._url(f'manifest/p{partition}/')} keeps changing while it is read: try again")

    def _entries(self, names: list[str]) -> list[ArchiveFile] | None:
        """None: one of them is gone."""
        if not names:
            return []
        with ThreadPoolExecutor(min(AT_ONCE, len(names)), "archive manifest") as pool:
            found = list(pool.map(self._entry, names))
        return None if None in found else [entry for entry in found if entry is not None]

    def _entry(self, name: str) -> ArchiveFile | None:
        line = self._get(name)
        if line is None:
            return None
        entry = entry_of(line.rstrip(b"\n"), self._url(name))
        if name != _place(entry):
            raise ArchiveDamaged(f"{self._url(name)} is an entry for another place: restore the manifest from a backup")
        return entry

    def _written_down(self) -> dict[int, Partition]:
        """What this machine has saved about this archive; nothing if the file is incomplete."""
        try:
            header, *lines = (self._copies.folder / _KNOWN).read_bytes().split(b"\n")
            if header + b"\n" != self._id:
                return {}
            found: dict[int, list[ArchiveFile]] = {}
            for line in lines[:-1]:
                entry = entry_of(line, _KNOWN)
                found.setdefault(entry.partition, []).append(entry)
        except (OSError, ArchiveDamaged):
            return {}
        known = {partition: Partition() for partition in found}
        for partition, entries in found.items():
            known[partition].take(entries)
        return known

    def _write_down(self) -> None:
        make_folder(self._copies.folder)
        data = self._id + b"".join([line_of(msgspec.json.encode(entry)) for entry in self._live()])
        write_whole(self._copies.folder / _KNOWN, data)
        self._unsaved = 0

    # ------------------------------------------------------------ writing

    def recover(self) -> tuple[list[ArchiveFile], list[str]]:
        if self._get(_HEADER) is None and self._list("p", most=1) == []:
            header = msgspec.json.encode({"touchfold_archive": 1, "id": str(uuid4())})
            self._put_new(_HEADER, line_of(header))  # or another writer did a moment ago
        entries = self.entries(0.0)
        self._copies.forget_scratch(_ABANDONED_S)
        if self._put(_HEADER, self._id):
            raise SettingsInvalid(
                f"{self._url('')}: this store replaces objects even though If-None-Match: * forbids it, so two"
                " archivers could corrupt the archive: use a store with conditional puts, or a folder"
            )
        return entries, self._sweep(entries)

    def newer(self, partition: int) -> list[ArchiveFile]:
        with self._lock:
            return list(self._catch_up(partition).live)

    def put(self, name: str, data: bytes) -> None:
        failpoint("archive.before_rename")
        self._put_new(name, data)  # an existing one has the same bytes: its name holds their hash
        failpoint("archive.after_rename")

    def append(self, entry: ArchiveFile) -> None:
        if not self._put_new(_entry_name(entry.partition, entry.start), line_of(msgspec.json.encode(entry))):
            raise ProgressConflict(
                f"another process is also archiving partition {entry.partition}: it was first at offset {entry.start}"
            )
        self._take(entry)

    def _take(self, entry: ArchiveFile) -> None:
        with self._lock:
            self._known.setdefault(entry.partition, Partition()).take([entry])

    # ------------------------------------------------------------ replacing

    def scratch(self) -> Path:
        return self._copies.scratch()

    def next_seq(self, partition: int) -> int:
        return self._known[partition].seq + 1 if partition in self._known else 1

    def put_file(self, name: str, made: Path) -> None:
        with made.open("rb") as file:
            digest = hash_of(file, md5(usedforsecurity=False)).digest()
            file.seek(0)
            # an existing one has the same bytes: its name holds their hash
            if not self._put(name, file, digest) and not self._list(name, most=1):
                raise StoreUnavailable(f"{self._url(name)} is neither there nor free", retry_after_s=1)
        made.unlink()

    def replace(self, entry: ArchiveFile) -> None:
        self._refuse_older_builds()
        if not self._put_new(_place(entry), line_of(msgspec.json.encode(entry))):
            raise ProgressConflict(f"another process is also merging partition {entry.partition} of the archive")
        self._grace.began(entry)
        self._take(entry)

    def _refuse_older_builds(self) -> None:
        """Make the header unreadable to older builds: once entries are replaced, they would silently miss rows."""
        body, is_new = _header(self._id, self._url(_HEADER))
        if not is_new:
            header = _NEW + line_of(body)
            with self._answered():
                self._client.put_object(Bucket=self.bucket, Key=self.prefix + _HEADER, Body=header)
            with self._lock:
                self._id = header

    def retired(self, partition: int) -> dict[str, ArchiveFile]:
        with self._lock:
            known = self._catch_up(partition)
        listed = {entry.path for entry in known.live}
        found: dict[str, ArchiveFile] = {}
        for name in self._list(f"p{partition}/"):
            told = named(name)
            by = None if told is None or name in listed else known.covering(told.start)
            if told is not None and by is not None and self._grace.is_over(by) and not _is_to_come(told, known):
                found[name] = by
        return found

    def remove(self, partition: int, paths: Sequence[str]) -> None:
        """Remove the files, and the objects of entries that nobody needs any more."""
        known = self._known.get(partition, Partition())
        gone = list(paths)
        for name in self._list(f"manifest/p{partition}/"):
            by = known.covering(_start(name))
            if by is not None and self._grace.is_over(by):
                gone.append(name)
        for entry in list(known.superseded):
            by = known.covering(entry.start)
            if by is not None and self._grace.is_over(by):
                gone.append(_place(entry))
                known.superseded.remove(entry)
        for name in gone:
            self._delete(name)
            failpoint("archive.retired")

    def _delete(self, name: str) -> None:
        with self._answered():
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def _sweep(self, entries: list[ArchiveFile]) -> list[str]:
        """Remove files whose offsets another file covers for good. Keeps one that its writer may still list."""
        listed = {entry.path for entry in entries}
        starts = {(entry.partition, entry.start) for entry in entries}
        ends = {entry.partition: entry.next for entry in entries}
        swept = []
        for name in self._list("p"):
            told = named(name)
            if name in listed or told is None:
                continue
            known = self._known.get(told.partition, Partition())
            if known.covering(told.start) is not None or _is_to_come(told, known):
                continue  # `retired` returns it when its grace period is over; or its merge may still be running
            if (told.partition, told.start) in starts:
                self._delete(name)
                swept.append(name)
            elif told.start < ends.get(told.partition, 0):
                raise ArchiveDamaged(f"{name} overlaps what the manifest lists: move it away or restore the manifest")
        return swept


def _entry_name(partition: int, start: int) -> str:
    return f"manifest/p{partition}/{start:015d}.json"


def _replacement_name(partition: int, seq: int) -> str:
    return f"replaced/p{partition}/{seq:010d}.json"


def _place(entry: ArchiveFile) -> str:
    """The name of an entry's object."""
    if entry.replaces:
        return _replacement_name(entry.partition, entry.seq)
    return _entry_name(entry.partition, entry.start)


def _start(name: str) -> int:
    """The offset in the name of an entry's object."""
    return start_of(name.rpartition("/")[2].replace(".json", "-"))


def _is_to_come(told: Named, known: Partition) -> bool:
    """Whether a file belongs to a merge that may still be listed: its number is not taken."""
    return len(told.rest) == 2 and int(told.rest[0], 16) > known.seq


def _header(line: bytes, where: str) -> tuple[bytes, bool]:
    """The header's JSON, and whether older builds consider it damaged. Raises ArchiveDamaged."""
    is_new = line.startswith(_NEW)
    return body_of(line.removeprefix(_NEW).rstrip(b"\n"), where), is_new
