"""The ledger of erasures: files beside the databases, which no restore overwrites.

Two files with nothing in common (decision 0027). erasures.jsonl: a line for each erased person with their tokens, the
ids of their profiles and the day; a restore destroys these tokens again. suppressed.txt: the keyed hashes of people
whose events are refused, sorted, each with its person's mark. Unknown lines in erasures.jsonl are left alone.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from infra.adapters.machine.durable_files import sync_folder, write_whole
from infra.adapters.machine.private_files import make_folder
from schemas.erasures import Erasure

LEDGER: Final = "erasures.jsonl"
SUPPRESSED: Final = "suppressed.txt"


class LedgerFile:
    """`Ledger` in two files. `path`: the first; the other is next to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counted: tuple[tuple[int, int], int] | None = None

    @classmethod
    def of(cls, folder: Path) -> "LedgerFile":
        """The ledger in its folder."""
        return cls(folder / LEDGER)

    def count(self) -> int:
        """The number of erasures; rereads the file if it has changed. 0 if there is none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return 0
        state = (found.st_mtime_ns, found.st_size)
        if self._counted is None or self._counted[0] != state:
            self._counted = (state, len({each.id for each in self.erasures()}))
        return self._counted[1]

    def append(self, erasures: Sequence[Erasure]) -> None:
        known = {each.id for each in self.erasures()}
        new = b"".join(msgspec.json.encode(each) + b"\n" for each in erasures if each.id not in known)
        if not new:
            return
        make_folder(self._path.parent)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                new = b"\n" + new  # a line torn by a crash stays on its own, and is skipped when reading
            while new:
                new = new[os.write(handle, new) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        sync_folder(self._path.parent)

    def read(self) -> list[Erasure]:
        return list(self.erasures())

    def erasures(self) -> Iterator[Erasure]:
        """What a restore has to repeat, in order: for each erased person their tokens, and the day.

        A line torn by a crash is skipped: its erasure was not acknowledged, and its job is open.
        """
        with suppress(FileNotFoundError), self._path.open("rb") as lines:
            for line in lines:
                with suppress(msgspec.MsgspecError):
                    yield msgspec.json.decode(line, type=Erasure)

    def keep_suppressed(self, marks: Mapping[bytes, bytes]) -> None:
        lines = "".join(f"{hashed.hex()} {mark.hex()}\n" for hashed, mark in sorted(marks.items()))
        replace_file(self._path.with_name(SUPPRESSED), lines.encode())

    def suppressed(self) -> dict[bytes, bytes]:
        """Keyed hash -> its person's mark."""
        try:
            return suppressed_in(self._path.with_name(SUPPRESSED).read_text())
        except FileNotFoundError:
            return {}


def suppressed_in(text: str) -> dict[bytes, bytes]:
    """Keyed hash -> mark, from the file's content."""
    pairs = (line.split() for line in text.splitlines())
    return {bytes.fromhex(hashed): bytes.fromhex(mark) for hashed, mark in pairs}


def replace_file(path: Path, data: bytes) -> None:
    """The new content or the old, whatever happens meanwhile; private to us, durable when it returns."""
    make_folder(path.parent)
    write_whole(path, data)
