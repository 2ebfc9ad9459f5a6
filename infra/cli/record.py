"""`touchfold record show|set-aside PARTITION OFFSET`: inspect a log record, or set it aside to unblock a partition."""

import json
import sys
from typing import Annotated

import typer

from infra.cli.options import DATA, JSON, say

PARTITION = Annotated[int, typer.Argument(min=0, show_default=False, help="as shown by status and doctor")]
OFFSET = Annotated[int, typer.Argument(min=0, show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="Inspect a record of the log; set aside one that cannot be read.", no_args_is_help=True)
    group.command("show")(show)
    group.command("set-aside")(set_aside)
    group.command("versions")(versions)
    app.add_typer(group, name="record")


def show(
    partition: PARTITION,
    offset: OFFSET,
    raw: Annotated[
        bool, typer.Option("--raw", help="write its bytes to stdout; personal data in it stays encrypted")
    ] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Show what is known about a record: version, size, why it cannot be read. Its content only with --raw.

    Example: touchfold record show 2 17
    """
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.app.record_places import shown, stored_at

    with session(data, say=say) as here:
        if raw:
            record = stored_at(here, partition, offset)
            note_command(here, "record.read", partition=partition, offset=offset)
            sys.stdout.buffer.write(record.value)
            sys.stdout.buffer.flush()
            return
        found = shown(here, partition, offset)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        typer.echo(f"{name.replace('_', ' '):13}{'-' if value is None else value}")


def set_aside(
    partition: PARTITION,
    offset: OFFSET,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Set aside the record a partition waits at: it becomes a dead letter, and the records after it are applied.

    After an upgrade that can read it, `touchfold dead-letters retry` applies it.

    Example: touchfold record set-aside 2 17
    """
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.app.drain import drain
    from infra.app.record_places import set_aside as pass_over
    from infra.app.record_places import shown

    with session(data, say=say) as here:
        if not yes:
            reason = shown(here, partition, offset)["reason"]
            typer.echo(f"partition {partition} offset {offset}: {reason or 'it can be read'}", err=True)
            typer.confirm("Set it aside?", abort=True, err=True)
        wait = pass_over(here, partition, offset, "command")
        note_command(here, "record.set_aside", partition=partition, offset=offset, code=wait.code)
        drain(here, say)
    typer.echo(json.dumps(wait._asdict()) if as_json else f"{wait.place} has been set aside as a dead letter")


def versions(
    allow: Annotated[
        int | None, typer.Option("--allow", min=1, help="allow records of this version to be written")
    ] = None,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Show which record version may be written, and which version each running process can read.

    After a rolling upgrade, once everything that reads the log is upgraded, --allow permits writing the new version.

    Example: touchfold record versions --allow 2
    """
    from infra.adapters.postgres.presence import present
    from infra.adapters.postgres.record_gate import floor_of, raise_floor
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.app.databases import database_of
    from schemas.record import VERSION

    with session(data, say=say) as here:
        database = database_of(here, "touchfold record gate")
        if allow is not None:
            before = raise_floor(database, allow)
            note_command(here, "record.version_allowed", version=allow, before=before)
        processes = [{"role": each.role, "host": each.host, "pid": each.pid, "reads": each.reads}
                     for each in present(database)]  # fmt: skip
        found = {"allowed": floor_of(database), "reads": VERSION, "processes": processes}
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"allowed {found['allowed']}, this build reads up to {VERSION}")
    for each in processes:
        typer.echo(f"{each['role']} on {each['host']} (process {each['pid']}) reads up to {each['reads']}")
