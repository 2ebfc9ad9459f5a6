"""`touchfold erase` and `touchfold unsuppress`: forgetting a person, and letting them in again."""

import json
from typing import Annotated

import typer

from infra.cli.options import DATA, JSON

IDENTIFIER = Annotated[str, typer.Argument(help="KIND:VALUE, such as email:ada@example.com")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("erase")(erase)
    app.command("unsuppress")(unsuppress)


def erase(
    identifier: IDENTIFIER,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    force: Annotated[bool, typer.Option("--force", help="even if it may be more than one person")] = False,
    suppress: Annotated[bool, typer.Option("--suppress", help="refuse the person's events from now on")] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Erase the customer an identifier belongs to: identifiers, personal values, profile. Cannot be undone.

    Events stay in the totals, without an owner and unreadable. Example: touchfold erase email:ada@example.com
    """
    from infra.auditing import note_command
    from infra.bootstrap import session
    from infra.erasing import eraser, settle_or_note, told
    from schemas.errors import ErasureRefused
    from schemas.identifiers import parse_selector

    kind, value = parse_selector(identifier)
    with session(data) as here:
        note = settle_or_note(here)
        vault, now = here.vault(), here.door_clock.now
        with eraser(here.dsn, here.vault_dsn, vault, here.ledger_folder, here.region, now) as work:
            token = work.find(kind, value)
            if token is not None:
                preview = work.preview(token)
                if preview.problems and not force:
                    raise ErasureRefused("this may be more than one person: look, then use --force", preview.problems)
                if not yes:
                    kinds = ", ".join(f"{count} {name}" for name, count in preview.kinds.items())
                    typer.echo(f"{preview.identifiers} identifiers ({kinds}) are erased.", err=True)
                    typer.echo(f"{preview.events} events lose their owner and cannot be read again.", err=True)
                    typer.confirm("This cannot be undone. Erase?", abort=True, err=True)
            done = work.erase(kind, value, force=force, suppress=suppress)
            counts = {"found": done.found, "identifiers": done.identifiers, "events": done.events}
            note_command(here, "profile.erased", kind=kind, suppress=suppress, **counts)
        note |= settle_or_note(here)
    for line in told(note):
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(done._asdict() | note))
    elif not done.found:
        typer.echo("nobody has this identifier" + ("; it is refused from now on" if suppress else ""))
    else:
        typer.echo(f"erased {done.identifiers} identifiers; {done.events} events have no owner now")
        typer.echo(f"receipt {json.dumps(done.receipt)}")


def unsuppress(identifier: IDENTIFIER, data: DATA = None, as_json: JSON = False) -> None:
    """Take events of an erased and suppressed customer again, as those of a new one.

    Example: touchfold unsuppress email:ada@example.com
    """
    from infra.auditing import note_command
    from infra.bootstrap import session
    from infra.erasing import eraser
    from schemas.identifiers import parse_selector

    kind, value = parse_selector(identifier)
    with session(data) as here:
        vault, now = here.vault(), here.door_clock.now
        with eraser(here.dsn, here.vault_dsn, vault, here.ledger_folder, here.region, now) as work:
            found = work.unsuppress(kind, value)
            note_command(here, "profile.unsuppressed", kind=kind, found=found)
    if as_json:
        typer.echo(json.dumps({"found": found}))
    else:
        typer.echo("this person's events are taken again" if found else "this identifier is not suppressed")
