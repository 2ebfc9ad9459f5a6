"""Customers whom an address of an earlier build may have made of two people: for the doctor, a remark."""

from contextlib import closing
from typing import Final

from infra.adapters.postgres.ambiguous import AmbiguousTokens
from infra.app.checks import Finding
from schemas.record import uuid_text

LISTED: Final = 10
_NAME: Final = "old addresses"
_FIX: Final = (
    "look at each with touchfold profile profile:ID. Which of the two was sent is not known, so no command parts them; "
    "new events with either address are told apart. erase removes such a customer with all events of both. A customer "
    "leaves this list when an event shows that it is one person: a login or device seen with both parts"
)


def old_addresses(dsn: str) -> Finding:
    """Never BAD: nobody can repair it. No personal values, profile ids alone."""
    with closing(AmbiguousTokens(dsn)) as tokens:
        found = tokens.joined()
    if not found:
        return Finding(
            _NAME, True, "no customer is joined only by an address that an earlier build may have made of two"
        )
    shown = ", ".join(map(uuid_text, found[:LISTED]))
    more = f" and {len(found) - LISTED:,} more" if len(found) > LISTED else ""
    customers = "customer" if len(found) == 1 else "customers"
    detail = (
        f"{len(found):,} {customers} may be two people, joined by an e-mail address that an earlier build made of two "
        f"(straße and strasse): {shown}{more}"
    )
    return Finding(_NAME, True, detail, _FIX)
