"""A change as the contract has it, for the API and the topics alike. Pure."""

from typing import Any

from schemas.answers import iso_us
from schemas.reads import ChangeRow
from schemas.record import uuid_text


def change_body(row: ChangeRow) -> dict[str, Any]:
    """A change without its cursor: that is a place in the API's feed, and no place in a topic."""
    return {
        "id": uuid_text(row.id),
        "type": row.type,
        "profile_id": uuid_text(row.profile_id),
        "version": row.version,
        "name": row.name,
        "old": row.old,
        "new": row.new,
        "at": iso_us(row.at_us),
        "cause": {
            "kind": row.cause,
            "event_id": None if row.cause_event is None else uuid_text(row.cause_event),
            "definition_version": row.cause_definition,
        },
    }
