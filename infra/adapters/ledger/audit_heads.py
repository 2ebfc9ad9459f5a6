"""The audit log's ends in the ledger's folder, outside every database: they reveal entries cut off at the end.

One line per hour: each commit of entries overwrites the newest, older ones stay. Lines have a fixed width, so a crash
in the middle of one spoils no other. The code in a line shows whether we wrote it.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from infra.adapters.machine.durable_files import sync_folder
from infra.adapters.machine.private_files import make_folder
from schemas.audit import HEAD, Head, head_code

NAME: Final = "audit_heads.jsonl"
WIDTH: Final = 320  # bytes of a line including its end; content takes about 240


class Noted(NamedTuple):
    """The file's content: heads that we wrote, ascending, and the numbers (from 1) of lines that we did not."""

    heads: list[Head]
    wrong: list[int]


class AuditHeads:
    """Any number of processes write. Nothing is opened before the first call.

    `alone`: everything that writes entries writes here; False if each machine of a cluster has its own ledger.
    """

    def __init__(self, path: Path, *, alone: bool = True) -> None:
        self._path = path
        self.alone = alone

    @classmethod
    def of(cls, folder: Path, *, alone: bool = True) -> "AuditHeads":
        """The heads of a ledger in its folder."""
        return cls(folder / NAME, alone=alone)

    def put(self, key: bytes, head: Head) -> None:
        """Durable when it returns; a head older than the newest changes nothing. Raises OSError."""
        make_folder(self._path.parent)
        is_new = not self._path.exists()
        with self._locked() as handle:
            size = os.fstat(handle).st_size
            end = size - size % WIDTH  # anything beyond was torn by a crash
            newest = _read(key, os.pread(handle, WIDTH, end - WIDTH)) if end else None
            if newest is not None and newest.seq >= head.seq:
                return
            if end and (newest is None or _hour(newest.at) == _hour(head.at)):  # None: torn while being overwritten
                end -= WIDTH
            os.pwrite(handle, _line(key, head), end)
            os.ftruncate(handle, end + WIDTH)
            os.fsync(handle)
        if is_new:
            sync_folder(self._path.parent)

    def read(self, key: bytes) -> Noted:
        """Everything it holds; nothing if there is no file. A torn end is skipped."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Noted([], [])
        found = [_read(key, data[at : at + WIDTH]) for at in range(0, len(data) - WIDTH + 1, WIDTH)]
        wrong = [number for number, head in enumerate(found[:-1], 1) if head is None]
        return Noted(sorted(head for head in found if head is not None), wrong)

    def newest(self, key: bytes) -> Head | None:
        """The one with the highest number."""
        heads = self.read(key).heads
        return heads[-1] if heads else None

    @contextmanager
    def _locked(self) -> Iterator[int]:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)


def _line(key: bytes, head: Head) -> bytes:
    told = {"kind": HEAD, "seq": head.seq, "hash": head.hash.hex(), "at": head.at.isoformat()}
    text = json.dumps({**told, "code": head_code(key, head).hex()})
    return text.ljust(WIDTH - 1).encode() + b"\n"


def _read(key: bytes, line: bytes) -> Head | None:
    """The head in a line; None if the line was not written under this key."""
    try:
        told = json.loads(line)
        head = Head(int(told["seq"]), bytes.fromhex(told["hash"]), datetime.fromisoformat(told["at"]))
        return head if bytes.fromhex(told["code"]) == head_code(key, head) else None
    except (ValueError, TypeError, KeyError):
        return None


def _hour(at: datetime) -> str:
    return at.isoformat()[:13]
