"""Turns KIND:VALUE, as people type it in commands, into a token."""

from uuid import UUID

from infra.adapters.phones import Phones
from schemas.errors import BadRequest, Problem
from schemas.identifiers import examine, parse_selector
from schemas.ports import Vault


def token_of(identifier: str, region: str, vault: Vault) -> bytes | None:
    """The token of an identifier, None if there is none. A profile id is its own token. Raises BadRequest."""
    kind, raw = parse_selector(identifier)
    if kind == "profile":
        try:
            return UUID(raw).bytes
        except ValueError as err:
            raise BadRequest("not a profile id", [Problem("", "write profile:UUID, as `profile` prints it")]) from err
    normal = examine(kind, raw, phone=Phones(region, looking_up=True))
    if normal.value is None:
        raise BadRequest(f"this {kind} has no usable form: {normal.reason}", [Problem("", normal.reason)])
    return vault.find(kind, normal.value)
