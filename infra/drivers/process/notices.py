"""What a start tells people before anything is served: keys, copies, the first admin."""

from collections.abc import Collection, Iterator
from contextlib import closing
from datetime import datetime

from infra.adapters.machine.data_folder import DataFolder
from infra.app.checks import UNKNOWN_CLEAR
from infra.app.settings import Settings


def notices_of(settings: Settings, folder: DataFolder, edges: Collection[str]) -> Iterator[str]:
    """Sentences about what losing the disk or the key would take along. `edges`: what this process serves."""
    where = f"in {folder.master_key_file}" if settings.master_key is None else "in TOUCHFOLD_MASTER_KEY"
    yield (
        f"the master key is {where}. Keep a copy elsewhere: without it every personal value is lost for ever, "
        "and no backup helps"
    )
    if folder.ledger.is_relative_to(folder.path) and "api" in edges:
        yield (
            f"the erasure ledger is in the data folder ({folder.ledger}) and would be lost with it: set "
            "TOUCHFOLD_LEDGER to a folder on another disk, or a restore may bring erased persons back"
        )
    if settings.database is None and not backs_up(settings):
        yield "no backups are made: set TOUCHFOLD_BACKUP_TO, or run touchfold backup DEST once"
    if settings.unknown == "clear":
        yield UNKNOWN_CLEAR


def backs_up(settings: Settings) -> bool:
    """Whether backups are made: by a setting, or because one was made by hand."""
    return settings.backup_to is not None or (settings.data / "backup" / "following.json").exists()


def first_admin_link(dsn: str, now: datetime) -> str | None:
    """There are no default credentials: until somebody has a password, each start shows a link to set one."""
    from infra.adapters.postgres.people import PostgresPeople  # noqa: PLC0415  # argon2 takes 50 ms

    with closing(PostgresPeople(dsn)) as people:
        return people.first_admin_link(now)
