"""Keeps our files readable only by their owner: folders 0700, files 0600, whatever the process's umask was."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

UMASK: Final = 0o077
_OTHERS: Final = 0o077


def keep_private() -> None:
    """From here on, everything this process and its children create is private to their owner."""
    os.umask(UMASK)


def make_folder(path: Path) -> None:
    """One of our folders, with missing parents; an existing one is closed to others."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _close(path, path.stat())


def open_private(path: Path, how: int = os.O_TRUNC) -> IO[bytes]:
    """A file to write bytes to, 0600 from the moment it exists. `how`: O_TRUNC or O_APPEND."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600), "wb")


def open_to_others(*roots: Path) -> Iterator[Path]:
    """Files and folders in (and including) these that others may read, write or enter. Links are not followed.

    Other accounts' files are left out: only those accounts may change them (a volume's mount point).
    """
    for path, found in _below(roots):
        if found.st_mode & _OTHERS and found.st_uid in (os.geteuid(), 0) and os.access(path, os.F_OK):
            yield path


def close_to_others(*roots: Path) -> int:
    """Make folders 0700 and files 0600, which earlier builds did not; returns how many were changed."""
    return sum(_close(path, found) for path, found in _below(roots))


def _below(roots: tuple[Path, ...]) -> Iterator[tuple[Path, os.stat_result]]:
    for root in roots:
        for folder, _, names in os.walk(root):
            for path in (Path(folder), *(Path(folder) / name for name in names)):
                with suppress(FileNotFoundError):  # another process removed it
                    found = path.lstat()
                    if not stat.S_ISLNK(found.st_mode):
                        yield path, found


def _close(path: Path, found: os.stat_result) -> bool:
    if not found.st_mode & _OTHERS:
        return False
    try:
        path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
    except (PermissionError, FileNotFoundError):
        return False
    return True
