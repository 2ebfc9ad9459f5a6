"""Builds the export of one person, for the command, the API and the pages; each is in the audit log first."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infra.adapters.phones import Phones
from infra.adapters.postgres.person import PostgresPerson
from infra.app.vault import vault_of
from query.people.person_export import PersonExport

if TYPE_CHECKING:
    from infra.app.reading import Reading
    from infra.app.session import Session

ACTION = "profile.exported"


@contextmanager
def person_export(session: "Session", reading: "Reading") -> Iterator[PersonExport]:
    """Closed at the end, once its last chunk has been taken."""
    rows = PostgresPerson(session.dsn)
    try:
        vault = vault_of(session)
        yield PersonExport(
            profiles=reading.profiles,
            reads=reading.reads,
            rows=rows,
            vault=vault,
            sealer=vault,
            log=reading.log,
            clock=session.clock,
            phone=Phones(session.region),
        )
    finally:
        rows.close()


def exported(session: "Session", reading: "Reading", profile_id: bytes) -> Iterator[bytes]:
    """The archive as chunks."""
    with person_export(session, reading) as export:
        yield from export.chunks(profile_id)
