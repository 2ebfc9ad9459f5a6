"""Fields that were sealed because nothing declares them: listing them, and declaring one."""

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from infra.app.log import log_of
from infra.app.session import Session
from infra.app.vault import vault_of
from processors.rebuild.definitions import Applied, apply_files
from query.reports.undeclared import Undeclared, undeclared, yaml_line
from schemas.control import Control
from schemas.errors import BadRequest, Problem


def declare(control: Control, event: str, field: str, now: Any, *, personal: bool) -> Applied:
    """Declare a field. Raises BadRequest, DefinitionsInvalid."""
    if not event or not field:
        raise BadRequest("not a field", [Problem("field", "give an event and a field, such as quiz points")])
    return apply_files(control, [("field", yaml_line(event, field, personal=personal))], now)


def of_session(here: Session, run_sql: Callable[[str, int], Mapping[str, Any]]) -> list[Undeclared]:
    """The undeclared fields of a session."""
    from infra.adapters.postgres.control import PostgresControl  # noqa: PLC0415

    with closing(PostgresControl(here.dsn)) as control:
        definitions = control.newest().definitions
    return undeclared(run_sql, log_of(here), vault_of(here), definitions)
