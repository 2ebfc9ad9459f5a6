"""Applies numbered migrations under an advisory lock, forward only. Knows files and a version table."""

from pathlib import Path
from typing import Final

from infra.adapters.postgres.database import Database
from schemas.errors import SchemaNewer

FOLDER: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x746F756368  # "touch"


def migrate(dsn: str, which: str, folder: Path = FOLDER) -> list[str]:
    """Bring a database ('main' or 'vault') to this build's version; returns the files applied.

    Raises SchemaNewer if a newer build has already migrated it.
    """
    files = {int(path.name[:4]): path for path in sorted(folder.glob(f"[0-9]*_{which}.sql"))}
    database = Database(dsn, f"touchfold migrate {which}")
    applied: list[str] = []
    try:
        with database.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            cursor.execute("create table if not exists migrations (number integer primary key, file text not null)")
            cursor.execute("select coalesce(max(number), 0) from migrations")
            row = cursor.fetchone()
            done = int(row[0]) if row else 0
            if done > max(files):
                raise SchemaNewer(
                    f"the {which} database is at migration {done}, but this build only knows {max(files)}: "
                    "start the newer build, or restore a backup taken before the upgrade"
                )
            for number in sorted(number for number in files if number > done):
                cursor.execute(files[number].read_text())
                cursor.execute("insert into migrations values (%s, %s)", (number, files[number].name))
                applied.append(files[number].name)
    finally:
        database.close()
    return applied
