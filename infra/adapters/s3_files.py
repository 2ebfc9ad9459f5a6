"""An archive in an S3-compatible object store, through boto3 (docs/decisions/0011-archive-on-s3.md).

    PREFIX/manifest/archive.json               a line that says what this is, with an id of its own
    PREFIX/manifest/p0/<start>.json            one entry, made with If-None-Match: *: at a start one for ever
    PREFIX/p0/<start>-<next>-<hash>.parquet    put before its entry; two writers' files never share a name

Who loses the race for an entry has put a file that no entry lists; the next `recover` removes it. A store that does
not honour If-None-Match is refused.
"""

import threading
import time
from base64 import b64encode
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from infra.adapters.archive_copies import FRESH_S, MOST_BYTES, Copies
from infra.adapters.archive_files import REFRESH_S, body_of, entry_of, line_of, start_of, write_whole
from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged, ProgressConflict, SettingsInvalid, StoreUnavailable
from schemas.failpoints import failpoint

_HEADER: Final = "manifest/archive.json"
_KNOWN: Final = "entries.jsonl"  # entries never change: those seen once need not be fetched again
_SAVE: Final = 500  # new entries after which they are written down
_AT_ONCE: Final = 16
_TAKEN: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_MISSING: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_REFUSED: Final = frozenset(
    {
        *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket", "PermanentRedirect"),
        *("InvalidBucketName", "AuthorizationHeaderMalformed", "403", "NotImplemented"),
    }
)


class S3Files:
    """`ArchiveFiles` under s3://bucket/prefix. `copies`: a folder for copies and for what was learnt of the manifest.

    Credentials come from boto3's chain (AWS_… variables, profiles, roles). Any thread. Raises StoreUnavailable when
    the store is away, SettingsInvalid when it refuses us.
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
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._endpoint = endpoint
        self._copies = Copies(copies, copies_bytes)
        self._refresh_s = refresh_s
        self._lock = threading.RLock()  # of what is known
        self._making = threading.Lock()  # of the client, which threads of `_learn` use while that holds the other
        self._made: Any = None
        self._known: dict[int, list[ArchiveFile]] = {}
        self._id = b""  # the header's line, once it was read
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
            return [entry for partition in sorted(self._known) for entry in self._known[partition]]

    def every_entry(self) -> list[ArchiveFile]:
        with self._lock:
            self._known = {}
            self._learn(afresh=True)
            return [entry for partition in sorted(self._known) for entry in self._known[partition]]

    def stamp(self) -> Hashable:
        return int(time.monotonic() / self._refresh_s) if self._refresh_s else object()

    def read(self, entry: ArchiveFile, *, copies: bool = True) -> bytes:
        found = self._copies.read(entry) if copies else None
        if found is None:
            found = self._get(entry.path)
        if found is None:
            raise ArchiveDamaged(f"{entry.path}: it is not in the object store")
        return found

    def local(self, deadline: float) -> Path:
        if not self._copies.fresh():
            self._copies.bring(self.entries(FRESH_S), lambda entry: self.read(entry, copies=False), deadline)
        return self._copies.folder

    def name(self, partition: int, start: int, next_offset: int, digest: str) -> str:
        return f"p{partition}/{start:015d}-{next_offset:015d}-{digest[:32]}.parquet"

    def _learn(self, *, afresh: bool = False) -> None:
        """The entries that are new; of a manifest never seen all of them, but for those this machine has learnt."""
        header = self._get(_HEADER)
        if header is None:
            if self._known or self._list("p", most=1):
                raise ArchiveDamaged(f"{self._url(_HEADER)} is missing, its files are there: restore it from a backup")
            return
        body_of(header.rstrip(b"\n"), self._url(_HEADER))
        if header != self._id:
            self._id = header
            self._known = {} if afresh else self._written_down()
        for partition in self._partitions():
            known = self._known.setdefault(partition, [])
            more = self._after(partition, known[-1].start if known else None)
            known += more
            self._unsaved += len(more)
        if self._unsaved >= _SAVE:
            self._write_down()

    def _partitions(self) -> list[int]:
        start = len(self.prefix) + len("manifest/p")
        with self._answered():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + "manifest/p", Delimiter="/"
            )
            found = [each["Prefix"][start:-1] for page in pages for each in page.get("CommonPrefixes", ())]
        return sorted(int(digits) for digits in found if digits.isdigit())

    def _after(self, partition: int, start: int | None) -> list[ArchiveFile]:
        """Entries of a partition behind the one that starts at `start`; None: all."""
        names = self._list(f"manifest/p{partition}/", None if start is None else _entry_name(partition, start))
        if not names:
            return []
        with ThreadPoolExecutor(min(_AT_ONCE, len(names)), "archive manifest") as pool:
            return list(pool.map(self._entry, names))

    def _entry(self, name: str) -> ArchiveFile:
        line = self._get(name)
        if line is None:
            raise ArchiveDamaged(f"{self._url(name)} is gone: restore the manifest from a backup")
        entry = entry_of(line.rstrip(b"\n"), self._url(name))
        if _entry_name(entry.partition, entry.start) != name:
            raise ArchiveDamaged(f"{self._url(name)} is the entry of another place: restore the manifest from a backup")
        return entry

    def _written_down(self) -> dict[int, list[ArchiveFile]]:
        """What this machine has learnt before of this very archive; nothing of a file that is not whole."""
        try:
            header, *lines = (self._copies.folder / _KNOWN).read_bytes().split(b"\n")
            if header + b"\n" != self._id:
                return {}
            known: dict[int, list[ArchiveFile]] = {}
            for line in lines[:-1]:
                entry = entry_of(line, _KNOWN)
                known.setdefault(entry.partition, []).append(entry)
        except (OSError, ArchiveDamaged):
            return {}
        return known

    def _write_down(self) -> None:
        entries = [entry for partition in sorted(self._known) for entry in self._known[partition]]
        self._copies.folder.mkdir(parents=True, exist_ok=True)
        data = self._id + b"".join([line_of(msgspec.json.encode(entry)) for entry in entries])
        write_whole(self._copies.folder / _KNOWN, data)
        self._unsaved = 0

    # ------------------------------------------------------------ writing

    def recover(self) -> tuple[list[ArchiveFile], list[str]]:
        if self._get(_HEADER) is None and self._list("p", most=1) == []:
            header = msgspec.json.encode({"touchfold_archive": 1, "id": str(uuid4())})
            self._put_new(_HEADER, line_of(header))  # or another writer has, a moment before
        entries = self.entries(0.0)
        if self._put(_HEADER, self._id):
            raise SettingsInvalid(
                f"{self._url('')}: this store replaces objects although If-None-Match: * forbids it, so two archivers"
                " could spoil the archive: use a store with conditional puts, or a folder"
            )
        return entries, self._sweep(entries)

    def newer(self, partition: int, start: int) -> list[ArchiveFile]:
        with self._lock:
            known = self._known.setdefault(partition, [])
            known += self._after(partition, known[-1].start if known else None)
            return [entry for entry in known if entry.start >= start]

    def put(self, name: str, data: bytes) -> None:
        failpoint("archive.before_rename")
        self._put_new(name, data)  # one that is there already has the same bytes: its name holds their hash
        failpoint("archive.after_rename")

    def append(self, entry: ArchiveFile) -> None:
        if not self._put_new(_entry_name(entry.partition, entry.start), line_of(msgspec.json.encode(entry))):
            raise ProgressConflict(
                f"another process archives partition {entry.partition} as well: it was first at offset {entry.start}"
            )
        with self._lock:
            known = self._known.setdefault(entry.partition, [])
            if not known or known[-1].start < entry.start:
                known.append(entry)

    def close(self) -> None:
        with self._making:
            if self._made is not None:
                self._made.close()
                self._made = None

    def _sweep(self, entries: list[ArchiveFile]) -> list[str]:
        """Remove files whose place another file has for good. One that may still be listed by its writer stays."""
        listed = {entry.path for entry in entries}
        starts = {(entry.partition, entry.start) for entry in entries}
        ends = {entry.partition: entry.next for entry in entries}
        swept = []
        for name in self._list("p"):
            folder, _, file = name.partition("/")
            if name in listed or not folder[1:].isdigit():
                continue
            partition, start = int(folder[1:]), start_of(file)
            if (partition, start) in starts:
                with self._answered():
                    self._client.delete_object(Bucket=self.bucket, Key=self.prefix + name)
                swept.append(name)
            elif start < ends.get(partition, 0):
                raise ArchiveDamaged(f"{name} overlaps what the manifest lists: move it away or restore the manifest")
        return swept

    # ------------------------------------------------------------ the store

    @property
    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = boto3.session.Session().client("s3", endpoint_url=self._endpoint, config=_config(self))
            return self._made

    @property
    def path_style(self) -> bool:
        """Only Amazon's has the bucket in the host's name for certain."""
        return self._endpoint is not None

    def _get(self, name: str) -> bytes | None:
        with self._answered():
            try:
                return bytes(self._client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read())
            except ClientError as err:
                if _code(err) in _MISSING:
                    return None
                raise

    def _put(self, name: str, data: bytes) -> bool:
        """Whether it was put; False: the name is taken, or was being taken."""
        check = b64encode(md5(data, usedforsecurity=False).digest()).decode()
        with self._answered():
            try:
                self._client.put_object(
                    Bucket=self.bucket, Key=self.prefix + name, Body=data, ContentMD5=check, IfNoneMatch="*"
                )
            except ClientError as err:
                if _code(err) in _TAKEN:
                    return False
                raise
        return True

    def _put_new(self, name: str, data: bytes) -> bool:
        """Whether the object is there with these bytes, by us (an answer may have been lost on the way) or before."""
        for _ in range(3):
            if self._put(name, data):
                return True
            there = self._get(name)
            if there is not None:
                return there == data
        raise StoreUnavailable(f"{self._url(name)} is neither there nor free", retry_after_s=1)

    def _list(self, start: str, after: str | None = None, most: int | None = None) -> list[str]:
        """Names that begin with `start`, ascending, behind `after`."""
        options: dict[str, Any] = {} if after is None else {"StartAfter": self.prefix + after}
        if most is not None:
            options["MaxKeys"] = most
        with self._answered():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + start, **options
            )
            names: list[str] = []
            for page in pages:
                names += [each["Key"][len(self.prefix) :] for each in page.get("Contents", ())]
                if most is not None and names:
                    break
        return names

    def _url(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{name}"

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Turn what boto3 raises into ours."""
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as err:
            raise SettingsInvalid(
                f"{self._url('')}: there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what"
                " else boto3 looks for"
            ) from err
        except ClientError as err:
            code = _code(err)
            if code in _REFUSED:
                raise SettingsInvalid(
                    f"{self._url('')}: the object store refuses us ({code}): check TOUCHFOLD_ARCHIVE,"
                    " TOUCHFOLD_S3_ENDPOINT and the credentials"
                ) from err
            raise StoreUnavailable(f"the archive's object store answers {code}", retry_after_s=1) from err
        except BotoCoreError as err:
            raise StoreUnavailable(
                f"the archive's object store is away ({type(err).__name__})", retry_after_s=1
            ) from err


def _config(files: S3Files) -> Config:
    """Timeouts and retries; no checksums that Amazon's store alone understands (ours are in the manifest)."""
    return Config(
        connect_timeout=3,
        read_timeout=30,
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=_AT_ONCE + 8,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if files.path_style else "auto"},
    )


def _code(err: ClientError) -> str:
    found = err.response.get("Error", {}).get("Code")
    return str(found or err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "error"))


def _entry_name(partition: int, start: int) -> str:
    return f"manifest/p{partition}/{start:015d}.json"
