"""Builds an importer's services from a session."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from infra.adapters.postgres.control import PostgresControl
from infra.adapters.postgres.dead_letters import PostgresDeadLetters
from infra.adapters.postgres.imports import PostgresImports
from infra.adapters.postgres.sources import PostgresSources
from infra.app.accepting import acceptor_of
from infra.app.log import log_of
from infra.app.vault import vault_of
from ingest.files.importer import Services
from ingest.files.notes import Note
from processors.rebuild.definitions import apply_files, stored
from schemas.definitions import Definitions
from schemas.errors import DefinitionsInvalid, Problem
from schemas.mapping import FileMapping

if TYPE_CHECKING:
    from infra.app.session import Session


@contextmanager
def services_of(session: "Session") -> Iterator[Services]:
    """Separate connections, closed at the end; the import's lock is released with them."""
    vault = vault_of(session)
    with (
        closing(PostgresImports(session.dsn)) as store,
        closing(PostgresDeadLetters(session.dsn)) as letters,
        closing(PostgresSources(session.dsn, unknown=session.unknown_clear)) as sources,
    ):
        yield Services(
            acceptor=acceptor_of(session),
            vault=vault,
            sealer=vault,
            log=log_of(session),
            store=store,
            letters=letters,
            clock=session.door_clock,
            daily_token=vault.daily_token,
            declared=sources.declared(),
            check_disk=session.disk.check,
        )


def declare(session: "Session", mapping: FileMapping, name: str) -> bool:
    """Declare which fields a mapping says are personal; True if that was not defined before.

    Raises DefinitionsInvalid if definitions disagree: a person decides, not the most recent file.
    """
    patch = mapping.declared()
    if not patch:
        return False
    with closing(PostgresControl(session.dsn)) as control:
        problems = _contradictions(stored(control.newest()), patch)
        if problems:
            raise DefinitionsInvalid(f"{name}: {problems[0].path} {problems[0].reason}", problems)
        return apply_files(control, [(name, json.dumps(patch))], session.clock.now()).revision is not None


def _contradictions(defs: Definitions, patch: dict[str, dict[str, Any]]) -> list[Problem]:
    """Where a mapping and the definitions disagree."""
    found: list[Problem] = []
    for event, own in patch.get("properties", {}).items():
        known = defs.properties.get(event, {})
        for prop, each in own.items():
            said = known[prop].personal if prop in known else None
            if said is not None and said != each["personal"]:
                found.append(_other(f"properties.{event}.{prop}", said))
    for trait, each in patch.get("traits", {}).items():
        if trait in defs.traits and defs.traits[trait].personal != each["personal"]:
            found.append(_other(f"traits.{trait}", defs.traits[trait].personal))
    return found


def _other(path: str, personal: bool) -> Problem:
    said = "personal" if personal else "not personal"
    return Problem(path, f"is already defined as {said}: correct the mapping, or change the definition first")


def without_rate(session: "Session", currencies: Mapping[str, Sequence[Any]]) -> list[Note]:
    """Which of the imported amounts (currency → [events, the earliest]) have no rate to the base currency."""
    base = session.currency
    if not currencies.keys() - {base}:
        return []
    with closing(PostgresControl(session.dsn)) as control:
        rates = stored(control.newest()).rates
    found: list[Note] = []
    for currency, (count, earliest) in currencies.items():
        first = min((rate.date for rate in rates if rate.currency == currency), default="")
        if currency != base and (not first or earliest.date().isoformat() < first):
            since = f" before {first}" if first else ""
            remedy = f"define rates: {{currency: {currency}, date: …, rate: …}}, or set TOUCHFOLD_CURRENCY={currency}"
            message = f"amounts in {currency} have no rate to {base}{since}, so they count in no total: {remedy}"
            found.append(Note("missing_rate", message, count))
    return found
