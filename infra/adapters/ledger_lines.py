"""Two ledgers of erasures made one, line by line: a line is a fact, and says whose it is by itself."""

from collections.abc import Iterable
from pathlib import Path

from infra.adapters.archive_files import write_whole


def merge_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Append the lines that the ledger at `path` lacks; returns how many. Durable; nothing that is there is lost."""
    there = path.read_bytes().splitlines() if path.exists() else []
    known = set(there)
    missing = [line for line in dict.fromkeys(lines) if line and line not in known]
    if missing:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, b"".join(line + b"\n" for line in (*there, *missing)))
        path.chmod(0o600)
    return len(missing)


def bring_ledger(inside: Path, outside: Path) -> int:
    """What was written into the data folder before the ledger had a place outside of it goes there too."""
    if not inside.exists() or inside == outside:
        return 0
    return merge_lines(outside, inside.read_bytes().splitlines())
