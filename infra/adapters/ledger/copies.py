"""Copies of the ledger's folder: in a backup, and from before the ledger could be outside the data folder.

Erasures are merged line by line, because each line says whose it is; suppressed hashes found in both keep their mark.
The ends of the audit log are taken if there are none.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from infra.adapters.ledger.audit_heads import NAME as HEADS
from infra.adapters.ledger.erasures import LEDGER, SUPPRESSED, LedgerFile, replace_file, suppressed_in

_FILES: Final = (LEDGER, SUPPRESSED, HEADS)


def ledger_copy(folder: Path) -> bytes:
    """What `add_copy` accepts."""
    return msgspec.msgpack.encode({name: (folder / name).read_bytes() for name in _FILES if (folder / name).exists()})


def ledger_state(folder: Path) -> str:
    """A text that changes when an erasure or a suppression is added."""
    found = [path.stat() for path in (folder / LEDGER, folder / SUPPRESSED) if path.exists()]
    return " ".join(f"{each.st_size} {each.st_mtime_ns}" for each in found) or "none"


def add_copy(folder: Path, copy: bytes) -> None:
    """Durable; nothing already there is lost."""
    if copy:
        _add(folder, msgspec.msgpack.decode(copy, type=dict[str, bytes]))


def bring_ledger(inside: Path, outside: Path) -> None:
    """Moves what was written into the data folder before the ledger could be elsewhere."""
    if inside == outside:
        return
    found = {name: (inside / name).read_bytes() for name in _FILES if (inside / name).exists()}
    _add(outside, found)
    for name in found:
        (inside / name).unlink()


def _add(folder: Path, files: dict[str, bytes]) -> None:
    _merge_lines(folder / LEDGER, files.get(LEDGER, b"").splitlines())
    if SUPPRESSED in files:
        ledger = LedgerFile.of(folder)
        ledger.keep_suppressed({**suppressed_in(files[SUPPRESSED].decode()), **ledger.suppressed()})
    if HEADS in files and not (folder / HEADS).exists():
        replace_file(folder / HEADS, files[HEADS])


def _merge_lines(path: Path, lines: Iterable[bytes]) -> None:
    there = path.read_bytes().splitlines() if path.exists() else []
    known = set(there)
    missing = [line for line in dict.fromkeys(lines) if line and line not in known]
    if missing:
        replace_file(path, b"".join(line + b"\n" for line in (*there, *missing)))
