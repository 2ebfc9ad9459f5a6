"""What the vault's database knows of its backups, one row per destination: for receipts, Health and metrics."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import Database

_COLUMNS: Final = "destination, days, last_at, took_s, bytes, until_at, oldest_at, looked_at, trouble"


class Note(NamedTuple):
    """One destination. None: never, or unknown."""

    destination: str
    days: int
    last_at: datetime | None
    took_s: float | None
    bytes: int | None
    until_at: datetime | None
    oldest_at: datetime | None
    looked_at: datetime | None
    trouble: str | None


class BackupNotes:
    """In the vault's database."""

    def __init__(self, vault: Database) -> None:
        self._vault = vault

    def read(self) -> list[Note]:
        with self._vault.reading() as cursor:
            return notes_of(cursor)

    def write(self, destination: str, days: int, **found: object) -> None:
        """Write some of the columns; always `days`, since receipts are computed from it."""
        names = ["destination", "days", *found]
        values = [destination, days, *found.values()]
        updates = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        with self._vault.transaction() as cursor:
            cursor.execute(
                f"insert into backups ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})"
                f" on conflict (destination) do update set {updates}",
                values,
            )

    def forget(self, destination: str) -> bool:
        with self._vault.transaction() as cursor:
            cursor.execute("delete from backups where destination = %s", (destination,))
            return bool(cursor.rowcount)


def notes_of(cursor: Cursor) -> list[Note]:
    """All notes, the most recently used destination first."""
    cursor.execute(f"select {_COLUMNS} from backups order by last_at desc nulls last, destination")
    return [Note(*row) for row in cursor.fetchall()]


def gone_at(notes: Sequence[Note], now: datetime) -> datetime | None:
    """When the last copy of data deleted now will be gone; None if there is no destination."""
    if not notes:
        return None
    return now.astimezone(UTC) + timedelta(days=max(note.days for note in notes))
