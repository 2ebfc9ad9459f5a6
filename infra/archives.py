"""The archive that the settings choose: a folder, by default in the data folder, or an object store."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from infra.adapters.parquet_archive import ParquetArchive
    from infra.bootstrap import Session

COPIES: Final = "archive-copies"  # in the data folder: of an object store's files, for SQL


def archive_of(session: "Session", partitions: int = 4) -> "ParquetArchive":
    """The session's archive. Opens nothing; keep it, for it remembers what it has read of the manifest.

    `partitions`: how many `next_offsets` gives at least. Raises SettingsInvalid.
    """
    from infra.adapters.parquet_archive import archive_at  # noqa: PLC0415  # pyarrow's 60 MB

    return archive_at(
        session.settings.archive or session.archive_folder,
        copies=session.data / COPIES,
        endpoint=session.settings.s3_endpoint,
        partitions=partitions,
    )
