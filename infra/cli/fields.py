"""`touchfold fields`: fields that arrived sealed and undeclared, and deciding what they are."""

import json
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import DATA, JSON, say
from infra.cli.revisions import await_revision_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.app.session import Session
    from query.reports.undeclared import Undeclared

EVENT = Annotated[str, typer.Argument(help="the event's type or name; `traits` for a trait", show_default=False)]
FIELD = Annotated[
    str, typer.Argument(help="the field; products.NAME for a field of the order lines", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(
        help="Fields that arrived sealed and undeclared: decide once whether they are personal.", no_args_is_help=True
    )
    group.command("list")(list_fields)
    group.command("clear")(clear)
    group.command("personal")(personal)
    app.add_typer(group, name="fields")


def list_fields(data: DATA = None, as_json: JSON = False) -> None:
    """List the sealed fields that no built-in list and no definition names, most frequent first.

    Example: touchfold fields list
    """
    from infra.app.bootstrap import session

    with session(data, say=say) as here:
        found = sealed_fields(here)
    if as_json:
        typer.echo(json.dumps([each.answer() for each in found], ensure_ascii=False))
        return
    typer.echo("\n".join(lines_of(found)) if found else "every field that arrived sealed is declared")


def clear(event: EVENT, field: FIELD, data: DATA = None) -> None:
    """Declare that a field is not personal: it becomes readable, in past events too.

    Example: touchfold fields clear "Plan Upgraded" seats
    """
    _declare(event, field, data, is_personal=False)


def personal(event: EVENT, field: FIELD, data: DATA = None) -> None:
    """Declare that a field is personal: it stays sealed and is no longer listed.

    Example: touchfold fields personal call.received remark
    """
    _declare(event, field, data, is_personal=True)


def _declare(event: str, field: str, data: DATA, *, is_personal: bool) -> None:
    from infra.adapters.postgres.control import PostgresControl
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.app.undeclared import declare

    with session(data, say=say) as here, closing(PostgresControl(here.dsn)) as control:
        applied = declare(control, event, field, here.clock.now(), personal=is_personal)
        note_command(here, "field.declared", event=event, field=field, personal=is_personal)
        if applied.revision is not None:
            await_revision_of(here, control, applied.revision)
    said = (
        "personal: it is sealed"
        if is_personal
        else "not personal: it is readable now, and in the archive once `touchfold status` says so"
    )
    typer.echo(f"{field} of {event} is {said}")


def sealed_fields(here: "Session") -> "list[Undeclared]":
    """Of a session, by a statement of its own."""
    from infra.app.archive import archive_of
    from infra.app.undeclared import of_session
    from infra.drivers.http.api.application import sql_runner

    return of_session(here, sql_runner(here.dsn, archive_of(here), here.clock, here.adapters.kafka))


def lines_of(found: "Sequence[Undeclared]") -> list[str]:
    """A table for the terminal."""
    rows = [("EVENT", "FIELD", "KIND", "EVENTS", "FILLED")]
    rows += [(each.event, each.field, each.kind or "-", f"{each.filled:,}", f"{each.share:.0%}") for each in found]
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
