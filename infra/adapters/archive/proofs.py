"""Which files of an archive folder were verified, and their state then: files are hashed once, not per statement.

    proofs.jsonl    <16 hex of SHA-256> <JSON of Proof>\\n        beside the manifest; the last line of a path counts

A proof covers a file's size, change time and inode; once the file is touched it no longer counts. It is a cache, not
a source: torn, damaged or missing lines only mean that a file is hashed again.
"""

import os
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from infra.adapters.archive.files import FolderFiles, hash_of
from infra.adapters.archive.manifest import body_of, line_of
from infra.adapters.machine.durable_files import write_whole
from infra.adapters.machine.private_files import open_private
from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged, Problem

PROOFS: Final = "proofs.jsonl"
AGAIN_S: Final = 86_400.0  # every file is read again after a day: bit rot does not alter the change time
DAMAGED_AGAIN_S: Final = 600.0  # a damaged one sooner: it may have been repaired
_SETTLED_NS: Final = 1_000_000_000  # a file changed this recently could change again without a new timestamp
_SPARE: Final = 256  # obsolete lines, from which on the file is rewritten

Stat = tuple[int, int, int]  # bytes, change time in ns, inode


class Proof(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Whether a file's SHA-256 was the manifest's."""

    path: str
    sha256: str  # in the manifest
    stat: Stat
    at: int  # Unix seconds
    good: bool


_DECODER: Final = msgspec.json.Decoder(Proof)


def stat_of(path: Path) -> Stat | None:
    """None: the file does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


class Proofs:
    """The proofs of one folder. Any thread reads, one process writes."""

    def __init__(self, files: FolderFiles, now: Callable[[], float] = time.time) -> None:
        self._files = files
        self._path = files.folder / PROOFS
        self._now = now
        self._stamp: Hashable = None
        self._known: dict[str, Proof] = {}
        self._lines = 0

    def good(self, entries: Sequence[ArchiveFile]) -> dict[str, Stat]:
        """The state of each file whose bytes were right, by path, if the manifest still says the same."""
        known = self._look()
        found = {entry.path: known.get(entry.path) for entry in entries}
        return {
            entry.path: proof.stat
            for entry in entries
            if (proof := found[entry.path]) is not None and proof.good and proof.sha256 == entry.sha256
        }

    def problems(self) -> list[Problem]:
        """Listed files that were damaged when last read."""
        known = self._look()
        if all(proof.good for proof in known.values()):
            return []
        listed = {entry.path for entry in self._files.entries()}
        return [_damaged(proof.path) for proof in known.values() if not proof.good and proof.path in listed]

    def due(self, entries: Sequence[ArchiveFile]) -> list[ArchiveFile]:
        """Files to read: never read, touched since, or last read a day ago."""
        known, now = self._look(), self._now()
        return [entry for entry in entries if self._is_due(entry, known.get(entry.path), now)]

    def prove(self, entries: Sequence[ArchiveFile]) -> list[Problem]:
        """Read these files completely and note the result; returns the damaged ones. One that just changed waits."""
        proofs = [proof for entry in entries if (proof := self._proved(entry)) is not None]
        if proofs:
            self._write(proofs)
        return [_damaged(proof.path) for proof in proofs if not proof.good]

    def _is_due(self, entry: ArchiveFile, proof: Proof | None, now: float) -> bool:
        stat = stat_of(self._files.path(entry))
        if stat is not None and abs(now * 1e9 - stat[1]) < _SETTLED_NS:
            return False
        if proof is None or proof.sha256 != entry.sha256 or proof.stat != (stat or (0, 0, 0)):
            return True
        return abs(now - proof.at) >= (AGAIN_S if proof.good else DAMAGED_AGAIN_S)

    def _proved(self, entry: ArchiveFile) -> Proof | None:
        """None: it is no longer listed, or changed while it was being read."""
        path = self._files.path(entry)
        before = stat_of(path)
        try:
            with self._files.open(entry) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                digest = hash_of(file, sha256()).hexdigest()
        except (ArchiveDamaged, OSError):
            digest = ""
        if stat_of(path) != before or (not digest and entry not in self._files.entries()):
            return None
        good = digest == entry.sha256
        stat = before or (0, 0, 0)
        return Proof(path=entry.path, sha256=entry.sha256, stat=stat, at=int(self._now()), good=good)

    def _look(self) -> Mapping[str, Proof]:
        stamp = stat_of(self._path)
        if stamp != self._stamp or stamp is None:
            self._known, self._lines = self._read()
            self._stamp = stamp
        return self._known

    def _read(self) -> tuple[dict[str, Proof], int]:
        try:
            lines = self._path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return {}, 0
        known: dict[str, Proof] = {}
        for line in lines:
            try:
                proof = _DECODER.decode(body_of(line, PROOFS))
            except (ArchiveDamaged, msgspec.MsgspecError):
                continue
            known[proof.path] = proof
        return known, len(lines)

    def _write(self, proofs: Sequence[Proof]) -> None:
        known = dict(self._look()) | {proof.path: proof for proof in proofs}
        if self._lines + len(proofs) > 2 * len(known) + _SPARE or _is_torn(self._path):
            listed = {entry.path for entry in self._files.entries()}
            write_whole(self._path, _lines(proof for path, proof in known.items() if path in listed))
            return
        with open_private(self._path, os.O_APPEND) as file:  # not synced: after a crash, files are just read again
            file.write(_lines(proofs))


def within(entries: Sequence[ArchiveFile], most_bytes: int) -> list[ArchiveFile]:
    """The first of them, up to about this many bytes; at least one."""
    found: list[ArchiveFile] = []
    for entry in entries:
        if most_bytes <= 0:
            break
        found.append(entry)
        most_bytes -= entry.bytes
    return found


def _lines(proofs: Iterable[Proof]) -> bytes:
    return b"".join([line_of(msgspec.json.encode(proof)) for proof in proofs])


def _is_torn(path: Path) -> bool:
    """Whether the last line has no newline: anything appended to it would be lost with it."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except FileNotFoundError:
        return False


def _damaged(path: str) -> Problem:
    return Problem(path, f"{path} does not match its manifest: restore it from a backup")
