"""The bytes of a file, unpacked: plain, gzip, bzip2 or xz, and the members of a zip archive. A little at a time."""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BufferedIOBase, BufferedReader, BytesIO
from pathlib import Path
from typing import IO, Any, Final, cast

from schemas.errors import BadRequest, Problem

_ZIP: Final = b"PK\x03\x04"
_EMPTY_ZIP: Final = b"PK\x05\x06"
_OLD_OFFICE: Final = b"\xd0\xcf\x11\xe0"
_BUFFER: Final = 262_144
_MOST_IN_MEMORY: Final = 1_000_000_000  # of a workbook or Parquet file inside an archive
_PACKED: Final[Mapping[bytes, Callable[[Any], Any]]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
_OTHER_PACKERS: Final = {b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"\x28\xb5\x2f\xfd": "zstd"}
_DAMAGED: Final = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile)


def unreadable(name: str, reason: str) -> BadRequest:
    """The error of a file that cannot be read."""
    return BadRequest(f"{name} cannot be read: {reason}", [Problem(Path(name).name, reason)])


class Part:
    """A file, or a member of a zip archive. `name`: for people, `sales.zip/may.csv`; `size`: of its packed bytes."""

    def __init__(self, path: Path, member: str | None = None) -> None:
        self.path = path
        self.member = member
        self.name = str(path) if member is None else f"{path}/{member}"
        self.size = max(1, path.stat().st_size)
        if member is not None:
            with zipfile.ZipFile(path) as archive:
                self.size = max(1, archive.getinfo(member).compress_size)
        self._raw: IO[bytes] | None = None
        self._began = 0

    def done(self) -> float:
        """The share of the packed bytes that the latest `open` has read, 0..1."""
        raw = self._raw
        if raw is None:
            return 0.0
        return 1.0 if raw.closed else min(1.0, max(0, raw.tell() - self._began) / self.size)

    @contextmanager
    def open(self) -> Iterator[BufferedReader]:
        """The unpacked bytes. Raises BadRequest."""
        try:
            with ExitStack() as stack:
                raw = stack.enter_context(self.path.open("rb"))
                self._raw, self._began = raw, 0
                inner: Any = raw
                if self.member is not None:
                    inner = BufferedReader(cast("Any", self._member(stack, raw)), _BUFFER)
                    self._began = raw.tell()
                yield self._unpacked(stack, inner)
        except _DAMAGED as err:
            kind = "zip" if self.member is not None else "gzip" if self.head(2) == b"\x1f\x8b" else "packed"
            reason = f"the {kind} file is truncated or damaged: get it again, then import it again"
            raise unreadable(self.name, reason) from err
        except OSError as err:
            raise unreadable(self.name, err.strerror or str(err) or type(err).__name__) from err

    def _member(self, stack: ExitStack, raw: IO[bytes]) -> BufferedIOBase:
        archive = stack.enter_context(zipfile.ZipFile(raw))
        assert self.member is not None, "only members come from an archive"
        try:
            return cast("BufferedIOBase", stack.enter_context(archive.open(self.member)))
        except (NotImplementedError, RuntimeError) as err:  # a method of packing that Python has not; a password
            raise unreadable(self.name, f"{err}: unpack it first") from err

    def _unpacked(self, stack: ExitStack, raw: BufferedReader) -> BufferedReader:
        start = raw.peek(8)[:8]
        for mark, name in _OTHER_PACKERS.items():
            if start.startswith(mark):
                raise unreadable(self.name, f"it is packed with {name}: unpack it first")
        for mark, unpack in _PACKED.items():
            if start.startswith(mark):
                return BufferedReader(stack.enter_context(unpack(raw)), _BUFFER)
        return raw

    def head(self, size: int) -> bytes:
        """The first bytes, as they are in the file."""
        with self.path.open("rb") as raw:
            return raw.read(size)

    def sample(self, size: int) -> bytes:
        """The first unpacked bytes. Raises BadRequest."""
        with self.open() as raw:
            parts, missing = [], size
            while missing > 0:
                part = raw.read(missing)
                if not part:
                    break
                parts.append(part)
                missing -= len(part)
        return b"".join(parts)

    @contextmanager
    def seekable(self) -> Iterator[IO[bytes]]:
        """The unpacked bytes for readers that jump about; those of a packed file are held in memory."""
        if self.member is None and not self.head(6).startswith(tuple(_PACKED)):
            with self.path.open("rb") as raw:
                yield raw
            return
        content = self.sample(_MOST_IN_MEMORY + 1)
        if len(content) > _MOST_IN_MEMORY:
            raise unreadable(self.name, "it is too large to be read inside an archive: unpack it first")
        yield BytesIO(content)


def parts_of(path: Path) -> tuple[Sequence[Part], str]:
    """The parts of a file, and what it is if it is an archive ("zip"), else "". Raises BadRequest."""
    if not path.is_file():
        raise BadRequest(f"there is no file {path}")
    with path.open("rb") as raw:
        if raw.read(4) not in (_ZIP, _EMPTY_ZIP):
            return (Part(path),), ""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError) as err:
        raise unreadable(str(path), "the zip file is truncated or damaged: get it again") from err
    if is_workbook([info.filename for info in infos]):
        return (Part(path),), ""
    own = [info for info in infos if _is_wanted(info)]
    if not own:
        raise unreadable(str(path), "the zip archive has no files")
    if any(info.flag_bits & 1 for info in own):
        raise unreadable(str(path), "the zip archive has a password: unpack it first")
    return [Part(path, info.filename) for info in own], "zip"


def is_workbook(names: Sequence[str]) -> bool:
    """Whether the members of a zip archive are those of a spreadsheet."""
    return "xl/workbook.xml" in names or "xl/workbook.bin" in names or ("content.xml" in names and "mimetype" in names)


def _is_wanted(info: zipfile.ZipInfo) -> bool:
    name = Path(info.filename).name
    return not (info.is_dir() or info.filename.startswith("__MACOSX/") or name.startswith((".", "~")))


def form_of(part: Part) -> str:
    """The format by content: parquet, xlsx (any workbook), jsonl or csv. Raises BadRequest."""
    start = part.sample(4_096)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith((_ZIP, _OLD_OFFICE)):
        return "xlsx"
    text = start.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    return "jsonl" if text.lstrip()[:1] in (b"{", b"[") else "csv"
