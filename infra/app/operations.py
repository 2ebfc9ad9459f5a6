"""The operators' view of a session."""

from functools import partial
from typing import TYPE_CHECKING

from infra.adapters.archive.reading_log import ENDS_S, TimelyEnds
from infra.adapters.postgres.operations import Operations
from infra.app.log import log_of
from infra.app.session import Session
from infra.app.vault import vault_of

if TYPE_CHECKING:
    from infra.adapters.archive.store import ParquetArchive


def operations_of(session: Session, archive: "ParquetArchive", ends_s: float = ENDS_S) -> Operations:
    """`ends_s`: how long to wait for the ends of a Kafka log. Close it before the session ends."""
    open_log = partial(log_of, session)
    ends = None if session.adapters.kafka is None else TimelyEnds(open_log, ends_s)
    folder, vault = session.adapters.folder, vault_of(session)
    return Operations(session.dsn, folder, session.disk, vault, archive, open_log, ends)
