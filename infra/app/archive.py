"""The archive that the settings select: a folder, by default in the data folder, or an object store."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.adapters.machine.disk import Disk

if TYPE_CHECKING:
    from infra.adapters.archive.store import ParquetArchive
    from infra.app.session import Session

COPIES: Final = "archive-copies"  # in the data folder: local copies of an object store's files, for SQL


def archive_of(session: "Session", partitions: int = 4) -> "ParquetArchive":
    """The session's archive. Opens nothing; keep it, because it caches what it has read of the manifest.

    `partitions`: the minimum number in `next_offsets`. Raises SettingsInvalid.
    """
    from infra.adapters.archive.store import archive_at  # noqa: PLC0415  # pyarrow's 60 MB

    return archive_at(
        session.settings.archive or session.archive_folder,
        copies=session.data / COPIES,
        endpoint=session.settings.s3_endpoint,
        partitions=partitions,
    )


def disk_of(session: "Session") -> Disk:
    """Where the archive's files go: a folder from the settings may be on a separate disk. S3 needs no space here."""
    archive = session.settings.archive
    return session.disk if archive is None or "://" in archive else Disk(Path(archive))
