"""The lines of an archive's manifest, and which entries are live after all of them.

    <16 hex of SHA-256> <JSON>\\n        the header first, then one ArchiveFile per line

A line with `replaces` replaces that many entries covering the same offsets. In a rewritten manifest those entries
are no longer there.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged

MANIFEST: Final = "manifest.jsonl"
HEADER: Final = b'{"touchfold_archive":1}'
HEADER_REPLACES: Final = b'{"touchfold_archive":2}'  # refused by builds that do not know `replaces`
_PATH: Final = re.compile(r"p[0-9]{1,6}/[0-9a-f-]{1,100}\.parquet")
_NAME: Final = re.compile(r"p([0-9]{1,6})/([0-9]+)-([0-9]+)((?:-[0-9a-f]+)*)\.parquet")
_ENTRY: Final = msgspec.json.Decoder(ArchiveFile)


class Named(NamedTuple):
    """What a file's name says."""

    partition: int
    start: int
    next: int
    rest: tuple[str, ...]  # what follows the offsets


class Live:
    """The live entries after the lines read so far, in the order of their lines."""

    def __init__(self) -> None:
        self._entries: dict[tuple[int, ...], ArchiveFile] = {}  # by (partition, start)
        self.lines = 0  # of entries
        self.plain = True  # whether the header promises that nothing is replaced

    def __iter__(self) -> Iterator[ArchiveFile]:
        return iter(self._entries.values())

    def copy(self) -> "Live":
        made = Live()
        made._entries, made.lines, made.plain = dict(self._entries), self.lines, self.plain
        return made

    def take(self, entry: ArchiveFile, where: str) -> None:
        """Apply the next line. Raises ArchiveDamaged if it replaces entries that are not there."""
        self.lines += 1
        key: tuple[int, ...] = (entry.partition, entry.start)
        if entry.replaces and key in self._entries:
            for other in self._replaced(entry, where)[1:]:
                del self._entries[other.partition, other.start]
        elif key in self._entries:  # two lines for one start: `verify` reports it
            key = (*key, self.lines)
        self._entries[key] = entry

    def _replaced(self, entry: ArchiveFile, where: str) -> list[ArchiveFile]:
        found: list[ArchiveFile] = []
        at = entry.start
        while at < entry.next and (other := self._entries.get((entry.partition, at))) is not None:
            found.append(other)
            at = other.next
        if at != entry.next or len(found) != entry.replaces:
            raise ArchiveDamaged(f"{where} replaces entries that are not there: restore the manifest from a backup")
        return found


def line_of(body: bytes) -> bytes:
    """A line, preceded by its checksum."""
    return _check(body) + b" " + body + b"\n"


def body_of(line: bytes, where: str) -> bytes:
    """The body of a line (without newline). Raises ArchiveDamaged, naming `where`."""
    check, _, body = line.partition(b" ")
    if check != _check(body):
        raise ArchiveDamaged(f"{where} is damaged: restore the manifest from a backup")
    return body


def entry_of(line: bytes, where: str) -> ArchiveFile:
    """Raises ArchiveDamaged."""
    try:
        entry = _ENTRY.decode(body_of(line, where))
    except msgspec.MsgspecError as err:
        raise ArchiveDamaged(f"{where} is not an entry this build reads") from err
    if _PATH.fullmatch(entry.path) is None:
        raise ArchiveDamaged(f"{where} names a file outside the archive")
    return entry


def _check(body: bytes) -> bytes:
    return sha256(body).hexdigest()[:16].encode()


def manifest_of(entries: Iterable[ArchiveFile]) -> bytes:
    """A folder's complete manifest."""
    entries = list(entries)
    header = HEADER_REPLACES if any(entry.replaces for entry in entries) else HEADER
    return line_of(header) + b"".join([line_of(msgspec.json.encode(entry)) for entry in entries])


def read_manifest(folder: Path) -> tuple[list[ArchiveFile], int]:
    """The entries, and how many bytes of a half-written last line follow them. Raises ArchiveDamaged.

    A line without a newline is a torn write, which the writer drops; a complete line that is wrong is damage.
    """
    data = manifest_bytes(folder)
    if data is None:
        return [], 0
    live = Live()
    torn = parse(data, 0, folder / MANIFEST, live)
    return list(live), torn


def manifest_bytes(folder: Path) -> bytes | None:
    """None: there is no archive yet. Raises ArchiveDamaged if there are files but no manifest."""
    manifest = folder / MANIFEST
    try:
        return manifest.read_bytes()
    except FileNotFoundError:
        if any(folder.glob("p*/*.parquet")):
            raise ArchiveDamaged(f"{manifest} is missing, but its files exist: restore it from a backup") from None
        return None


def parse(data: bytes, start: int, manifest: Path, into: Live) -> int:
    """Take the lines from byte `start` on; returns the length of a torn last one. Raises ArchiveDamaged."""
    lines = data[start:].split(b"\n")
    torn = len(lines.pop())
    first = data[:start].count(b"\n") + 1
    for number, line in enumerate(lines, start=first):
        where = f"{manifest}: line {number}"
        if number > 1:
            into.take(entry_of(line, where), where)
        elif (header := body_of(line, where)) in (HEADER, HEADER_REPLACES):
            into.plain = header == HEADER
        else:
            raise ArchiveDamaged(f"{manifest} is not an archive manifest this build reads")
    return torn


def start_of(name: str) -> int:
    """The first offset that a file with this name covers."""
    digits = name.partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def named(path: str) -> Named | None:
    """What a file's path says; None: it does not belong to an archive."""
    found = _NAME.fullmatch(path)
    if found is None:
        return None
    return Named(int(found[1]), int(found[2]), int(found[3]), tuple(found[4].split("-")[1:]))


def replaced_by(name: Named, entries: Iterable[ArchiveFile]) -> ArchiveFile | None:
    """The live entry of the partition that has replaced a file with this name."""
    for entry in entries:
        if entry.replaces and entry.start <= name.start and name.next <= entry.next:
            return entry
    return None
