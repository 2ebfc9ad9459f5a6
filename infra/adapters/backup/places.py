"""Where backups are stored: `Objects` in a folder, and whether a destination is a folder or an object store."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infra.adapters.archive.s3_url import s3_place
from infra.adapters.machine.disk import room_needed
from infra.adapters.machine.durable_files import sync_folder, write_whole
from schemas.backups import Objects
from schemas.errors import SettingsInvalid, StoreUnavailable

_ASIDE: Final = ".tmp"  # suffix of incomplete files


def place_text(destination: str) -> str:
    """A destination in normal form: an absolute path, or s3://bucket/prefix. Raises SettingsInvalid."""
    if "://" not in destination:
        return str(Path(destination).expanduser().absolute())
    if s3_place(destination) is None:
        raise SettingsInvalid(f"the backup destination {destination} is neither a folder nor s3://bucket/prefix")
    return destination.rstrip("/")


def objects_at(destination: str, endpoint: str | None = None) -> Objects:
    """The place that a destination (from `place_text`) names. Opens nothing."""
    found = s3_place(destination)
    if found is None:
        return FolderObjects(Path(destination))
    from infra.adapters.archive.s3_objects import S3Objects  # noqa: PLC0415  # boto3 takes 0.2 s that a folder need not pay

    return S3Objects(*found, endpoint, "backup's", "the destination,")


class FolderObjects:
    """Files below a folder, readable only by their owner. Raises StoreUnavailable if the folder is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)

    def put(self, name: str, data: bytes) -> None:
        path = self.folder / name
        try:
            with room_needed(self.folder):
                self._make_folder(path.parent)
                write_whole(path, data)
        except OSError as err:
            raise self._away(err) from err

    def get(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            raise self._away(err) from err

    def names(self, start: str = "") -> dict[str, int]:
        found: dict[str, int] = {}
        root = self.folder / start.rpartition("/")[0]
        try:
            for folder, _, files in os.walk(root, onerror=_raise):
                for each in files:
                    path = Path(folder) / each
                    name = path.relative_to(self.folder).as_posix()
                    if name.startswith(start) and not name.endswith(_ASIDE):
                        found[name] = path.stat().st_size
        except FileNotFoundError:
            return found
        except OSError as err:
            raise self._away(err) from err
        return found

    def remove(self, names: Sequence[str]) -> None:
        try:
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
            for folder in sorted({(self.folder / name).parent for name in names}, reverse=True):
                self._remove_empty(folder)
        except OSError as err:
            raise self._away(err) from err

    def clear_asides(self) -> None:
        """Remove half-written files of killed processes. Call only while nobody else writes."""
        if self.folder.is_dir():
            for path in self.folder.rglob(f"*{_ASIDE}"):
                path.unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.folder and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def _away(self, err: OSError) -> StoreUnavailable:
        what = "is full" if err.errno == errno.ENOSPC else f"does not respond ({err.strerror})"
        return StoreUnavailable(f"the backup destination {self.folder} {what}", retry_after_s=60)


def _raise(err: OSError) -> None:
    raise err
