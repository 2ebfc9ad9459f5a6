"""Roles and what each may do: one table for the API, the UI and the commands (contracts, "API authentication")."""

from collections.abc import Mapping
from typing import Final, Literal, get_args

Role = Literal["admin", "marketer", "analyst", "staff", "privacy", "service"]
ROLES: Final[tuple[str, ...]] = get_args(Role)

READ: Final = "read"  # profiles, segments, changes, events
PERSONAL: Final = "personal"  # personal values in the clear; without it they are masked
SQL: Final = "sql"
ACT: Final = "act"  # note, call, complaint, correction on a customer
EXPORT: Final = "export"  # members of a segment as a file
OPERATE: Final = "operate"  # health in detail, live events, dead letters
RECORDS: Final = "records"  # let a partition pass a record that cannot be read
ERASE: Final = "erase"
DISCLOSE: Final = "disclose"  # everything that is kept of one person, for them
SOURCES: Final = "sources"
TOKENS: Final = "tokens"
PEOPLE: Final = "people"
AUDIT: Final = "audit"

RIGHTS: Final[Mapping[str, frozenset[str]]] = {
    READ: frozenset(ROLES),
    PERSONAL: frozenset(ROLES) - {"analyst"},
    SQL: frozenset({"analyst", "admin"}),
    ACT: frozenset({"admin", "staff", "service"}),
    EXPORT: frozenset({"admin", "marketer", "analyst", "service"}),
    OPERATE: frozenset({"admin", "analyst", "marketer"}),
    RECORDS: frozenset({"admin"}),
    ERASE: frozenset({"admin", "privacy"}),
    DISCLOSE: frozenset({"admin", "privacy"}),
    SOURCES: frozenset({"admin"}),
    TOKENS: frozenset({"admin"}),
    PEOPLE: frozenset({"admin"}),
    AUDIT: frozenset({"admin", "privacy"}),
}


def may(role: str, right: str) -> bool:
    """Whether a role has a right."""
    return role in RIGHTS[right]
