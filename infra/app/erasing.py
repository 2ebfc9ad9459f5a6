"""Builds an eraser, for the command, the API and `up`, which finishes what a crash or a restore left undone."""

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
from infra.app.drain import drain
from infra.app.identity import rules_in
from infra.app.vault import vault_of
from processors.erase.eraser import Eraser
from schemas.errors import DiskFull

if TYPE_CHECKING:
    from infra.app.session import Session

NOT_DRAINED: Final = (
    "the disk is full, so the newest events were not checked and may name further identifiers of this person: erase "
    "again once there is space"
)
OF_OTHERS: Final = (
    "texts of other people's events may still name this person, such as a gift's recipient: nobody can search them, "
    "and they go when those people are erased"
)


@contextmanager
def eraser(
    dsn: str, vault_dsn: str, vault: PostgresVault, ledger_folder: Path, region: str, now: Callable[[], datetime]
) -> Iterator[Eraser]:
    """An eraser with its own connections, closed at the end. `now`: the clock of receipts."""
    store, rows = PostgresErasures(dsn), PostgresVaultRows(vault_dsn)
    with closing(store), closing(rows):
        yield Eraser(
            store=store,
            vault=vault,
            sealer=vault,
            vault_rows=rows,
            ledger=LedgerFile.of(ledger_folder),
            phone=Phones(region, looking_up=True),
            now=now,
            new_id=lambda: secrets.token_bytes(16),
            hash_of=vault.hash_of,
            rules=rules_in(dsn),
        )


def erase_person(
    session: "Session", kind: str, value: str, *, force: bool = False, suppress: bool = False
) -> dict[str, Any]:
    """Erase by any identifier, or by `profile` and an id; the JSON of contracts. Takes some seconds.

    On a full disk it erases what is known so far, and `note` says so: the right to be forgotten does not wait for a
    larger disk. `waiting` is set when a record blocks a partition: identifiers that appear only after it are not known
    yet, so erase again once it is unblocked. `others`: what an erasure does not reach. Raises BadRequest,
    ErasureRefused.
    """
    parts = (session.dsn, session.vault_dsn, vault_of(session), session.ledger_folder, session.region)
    note = drain_or_note(session)
    with eraser(*parts, session.door_clock.now) as erase:
        done = erase.erase(kind, value, force=force, suppress=suppress)
    note |= drain_or_note(session)  # what a full disk leaves undone is recounting segments without the person
    return done._asdict() | ({"others": OF_OTHERS} if done.found else {}) | note


def drain_or_note(session: "Session") -> dict[str, Any]:
    """Drain; what to tell whoever erases: `note` on a full disk, `waiting` for partitions blocked by a record."""
    try:
        waiting = drain(session)
    except DiskFull:
        return {"note": NOT_DRAINED}
    return {"waiting": [each.answer() for each in waiting]} if waiting else {}


def told(note: Mapping[str, Any]) -> list[str]:
    """The same as lines for people."""
    lines = [str(note["note"])] if "note" in note else []
    return lines + [
        f"partition {each['partition']} is waiting at offset {each['offset']}: identifiers seen only after it are not "
        "known yet; erase again once it moves on"
        for each in note.get("waiting", ())
    ]


def resume_jobs(
    dsn: str, vault_dsn: str, vault: PostgresVault, ledger_folder: Path, region: str, now: Callable[[], datetime]
) -> int:
    """Finish erasures that were begun, and repeat those that a restore has undone, before anything is served.

    Returns how many. Raises StoreUnavailable, or KeyMissing if the vault was lost.
    """
    with eraser(dsn, vault_dsn, vault, ledger_folder, region, now) as erase:
        return erase.resume()
