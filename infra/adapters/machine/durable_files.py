"""Files and names that survive a power failure."""

import os
from pathlib import Path

from infra.adapters.machine.private_files import open_private
from schemas.failpoints import failpoint


def write_whole(path: Path, data: bytes, point: str | None = None) -> None:
    """Durable and atomic: written to a temporary file, then renamed. `point`: a failpoint between the two."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open_private(aside) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if point is not None:
        failpoint(point)
    aside.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
