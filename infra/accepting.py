"""Puts an acceptor together, for commands that accept items without the door."""

from functools import partial
from typing import TYPE_CHECKING

from infra.adapters.phones import Phones
from ingest.accept import Acceptor
from schemas.identifiers import normalise

if TYPE_CHECKING:
    from infra.bootstrap import Session


def acceptor_of(session: "Session") -> Acceptor:
    """An acceptor on the session's vault, whose lease is held from now on."""
    vault = session.vault()
    vault.hold_lease()
    return Acceptor(vault, vault, partial(normalise, phone=Phones(session.region)), vault.daily_token)
