"""What a command did, written into the audit log: whoever can read the data folder is admin, and has no name."""

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.bootstrap import Session

WHO = "command"


def note_command(here: "Session", action: str, **detail: object) -> None:
    """Committed when it returns. `detail` holds no personal value."""
    _note(here, action, None, detail)


def note_command_about(here: "Session", action: str, profile_id: bytes) -> None:
    """The same for what concerns one profile."""
    _note(here, action, profile_id, {})


def _note(here: "Session", action: str, profile_id: bytes | None, detail: Mapping[str, object]) -> None:
    from infra.adapters.postgres_audit import PostgresAudit  # noqa: PLC0415

    with closing(PostgresAudit(here.dsn, here.door_clock.now)) as audit:
        audit.note(WHO, "admin", action, profile_id, detail)
