"""Copies of the ledger's folder: of a backup, and of before the ledger had a place outside of the data folder.

Erasures are merged line by line, for a line says whose it is by itself; of the suppressed a hash that both have keeps
its mark. The ends of the audit log are taken where there are none.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from infra.adapters.ledger.audit_heads import NAME as HEADS
from infra.adapters.ledger.erasures import LEDGER, SUPPRESSED, LedgerFile, replace_file, suppressed_in

_FILES: Final = (LEDGER, SUPPRESSED, HEADS)


def ledger_copy(folder: Path) -> bytes:
    """What `add_copy` takes."""
    return msgspec.msgpack.encode({name: (folder / name).read_bytes() for name in _FILES if (folder / name).exists()})


def ledger_state(folder: Path) -> str:
    """Another text when an erasure or a suppression came."""
    found = [path.stat() for path in (folder / LEDGER, folder / SUPPRESSED) if path.exists()]
    return " ".join(f"{each.st_size} {each.st_mtime_ns}" for each in found) or "none"


def add_copy(folder: Path, copy: bytes) -> None:
    """Durable; nothing that is there is lost."""
    if copy:
        _add(folder, msgspec.msgpack.decode(copy, type=dict[str, bytes]))


def bring_ledger(inside: Path, outside: Path) -> None:
    """What was written into the data folder before the ledger had a place outside of it goes there."""
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
