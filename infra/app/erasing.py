"""Puts an eraser together, for the command, the API and `up`, which finishes what a crash or a restore left undone."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.adapters.ledger.erasures import LedgerFile
from infra.adapters.phones import Phones
from infra.adapters.postgres.erasure import PostgresErasures
from infra.adapters.vault.erasure import PostgresVaultRows
from infra.adapters.vault.vault import PostgresVault
from processors.erase.eraser import Eraser
from schemas.errors import DiskFull

if TYPE_CHECKING:
    from infra.app.bootstrap import Session

UNSETTLED: Final = (
    "the disk is full, so the newest events were not looked at, and may name further identifiers of this person: erase "
    "again when there is room"
)


@contextmanager
def eraser(
    dsn: str, vault_dsn: str, vault: PostgresVault, ledger_folder: Path, region: str, now: Callable[[], datetime]
) -> Iterator[Eraser]:
    """An eraser with connections of its own, closed at the end. `now`: the clock of receipts."""
    store, rows = PostgresErasures(dsn), PostgresVaultRows(vault_dsn)
    with closing(store), closing(rows):
        yield Eraser(
            store=store,
            vault=vault,
            sealer=vault,
            vault_rows=rows,
            ledger=LedgerFile.of(ledger_folder),
            phone=Phones(region),
            now=now,
            new_id=lambda: secrets.token_bytes(16),
            hash_of=vault.hash_of,
        )


def erase_person(
    session: "Session", kind: str, value: str, *, force: bool = False, suppress: bool = False
) -> dict[str, Any]:
    """Erase by any identifier, or by `profile` and an id; the JSON of contracts. Takes some seconds.

    On a full disk it erases what is known so far, and `note` says so: a right to be forgotten does not wait for a
    larger disk. `waiting`, where partitions wait at a record: what was seen of the person only behind it is not
    known; erase again when they go on. Raises BadRequest, ErasureRefused.
    """
    parts = (session.dsn, session.vault_dsn, session.vault(), session.ledger_folder, session.region)
    note = settle_or_note(session)
    with eraser(*parts, session.door_clock.now) as erase:
        done = erase.erase(kind, value, force=force, suppress=suppress)
    note |= settle_or_note(session)  # what a full disk leaves is to count segments without the person
    return done._asdict() | note


def settle_or_note(session: "Session") -> dict[str, Any]:
    """Settle; what to tell whoever erases: `note` on a full disk, `waiting` for partitions that wait at a record."""
    try:
        waiting = session.settle()
    except DiskFull:
        return {"note": UNSETTLED}
    return {"waiting": [each.answer() for each in waiting]} if waiting else {}


def told(note: Mapping[str, Any]) -> list[str]:
    """The same as lines for people."""
    lines = [str(note["note"])] if "note" in note else []
    return lines + [
        f"partition {each['partition']} waits at offset {each['offset']}: identifiers seen only behind it are not "
        "known; erase again when it goes on"
        for each in note.get("waiting", ())
    ]


def resume_jobs(
    dsn: str, vault_dsn: str, vault: PostgresVault, ledger_folder: Path, region: str, now: Callable[[], datetime]
) -> int:
    """Finish erasures that were begun, and do again what a restore has undone; before anything is served.

    Returns how many. Raises StoreUnavailable, or KeyMissing where the vault was lost.
    """
    with eraser(dsn, vault_dsn, vault, ledger_folder, region, now) as erase:
        return erase.resume()
