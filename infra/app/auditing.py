"""A session's audit log, and entries by commands: whoever can read the data folder counts as a nameless admin."""

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from infra.adapters.ledger.audit_heads import AuditHeads
from infra.adapters.postgres.audit import AuditRow, PostgresAudit
from infra.app.vault import vault_of
from schemas.audit import audit_key
from schemas.search_words import searched

if TYPE_CHECKING:
    from infra.app.session import Session
    from query.people.listing import Wanted

WHO = "command"


def audit_of(here: "Session") -> PostgresAudit:
    """The log of a session; `close` it before the session ends."""
    heads = AuditHeads.of(here.ledger_folder, alone=here.adapters.kafka is None)
    return PostgresAudit(here.dsn, here.door_clock.now, lambda: audit_key(vault_of(here).hash_key), heads)


def coded(here: "Session", text: str) -> list[str]:
    """The words of a search as the audit log has them: hashes under the day's key.

    The key is destroyed after 30 days, and by each erasure.

    Never stored with the profile that was found: a hash and a guessed name would identify it.
    """
    day = here.door_clock.now().date()
    return vault_of(here).daily_codes(searched(text), day)[day]


def searches_for(
    here: "Session", audit: PostgresAudit, text: str, before: int | None = None, limit: int = 100
) -> list[AuditRow]:
    """Entries of searches for one of these words, on days whose key still exists; newest first."""
    codes = vault_of(here).daily_codes(searched(text))
    return audit.page(before, limit, words=sorted({code for each in codes.values() for code in each}))


def listed_detail(wanted: "Wanted", found: Mapping[str, Any]) -> dict[str, object]:
    """The criteria customers were listed by. Attributes are not personal."""
    names = {"segment": wanted.segment, "stage": wanted.stage, "risk": wanted.risk}
    detail: dict[str, object] = {name: value for name, value in names.items() if value is not None}
    if wanted.attributes:
        detail["attributes"] = sorted(wanted.attributes)
    return detail | {"shown": len(found["items"])}


def note_command(here: "Session", action: str, profile_id: bytes | None = None, /, **detail: object) -> None:
    """Committed when it returns: call it before printing anything. `detail` holds no personal value."""
    with closing(audit_of(here)) as audit:
        audit.note(WHO, "admin", action, profile_id, detail)
