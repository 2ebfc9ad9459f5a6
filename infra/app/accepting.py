"""Builds an acceptor, for the door, the inbox and commands that accept items."""

from functools import partial
from typing import TYPE_CHECKING

from infra.adapters.crawlers import is_crawler
from infra.adapters.phones import Phones
from infra.adapters.postgres.record_gate import RecordGate
from infra.app.databases import database_of
from infra.app.forms import tell_log
from infra.app.vault import vault_of
from ingest.accept.accept import Acceptor
from schemas.identifiers import normalise

if TYPE_CHECKING:
    from infra.app.session import Session


def acceptor_of(session: "Session") -> Acceptor:
    """An acceptor on the session's vault, holding the vault's lease from now on."""
    vault = vault_of(session)
    vault.hold_lease()
    form = partial(normalise, phone=Phones(session.region))
    gate = RecordGate(database_of(session, "touchfold record gate"))
    tell_log(session, vault, form, gate.version())
    return Acceptor(vault, vault, form, vault.daily_token, version=gate.version, is_crawler=is_crawler)
