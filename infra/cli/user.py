"""`touchfold user`: people who sign in to the pages; `touchfold audit`: who looked at whom and did what."""

import json
from typing import Annotated

import typer

from infra.cli.options import DATA, JSON
from schemas.roles import Role

NAME = Annotated[str, typer.Argument(metavar="NAME", help="the name they sign in with")]
ROLE = Annotated[Role, typer.Option("--role", help="what they may do")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="People who sign in to the pages, each with a role.", no_args_is_help=True)
    group.command("create")(create)
    group.command("link")(link)
    group.command("list")(list_people)
    group.command("role")(set_role)
    group.command("disable")(disable)
    app.add_typer(group, name="user")
    app.command("audit")(audit)


def _say_link(url: str | None, name: str, role: str | None, secret: str, as_json: bool) -> None:
    address = f"{url or 'http://127.0.0.1:8700'}/welcome/{secret}"
    if as_json:
        typer.echo(json.dumps({"name": name, "role": role, "link": address}))
        return
    typer.echo(address)
    typer.echo(f"{name} sets a password there. The link works once, within 24 hours, and is not shown again", err=True)


def create(name: NAME, role: ROLE, data: DATA = None, as_json: JSON = False) -> None:
    """Create a user, and print the link with which they set their password.

    Example: touchfold user create ada --role marketer
    """
    from contextlib import closing

    from infra.adapters.postgres.people import PostgresPeople
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session

    with session(data) as here, closing(PostgresPeople(here.dsn)) as people:
        secret = people.invite(name, role, here.door_clock.now())
        name = name.strip().lower()
        note_command(here, "person.invited", person=name, as_role=role)
    _say_link(here.url, name, role, secret, as_json)


def link(name: NAME, data: DATA = None, as_json: JSON = False) -> None:
    """Print a new link for somebody who lost theirs or forgot their password.

    Example: touchfold user link ada
    """
    from contextlib import closing

    from infra.adapters.postgres.people import PostgresPeople
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session

    with session(data) as here, closing(PostgresPeople(here.dsn)) as people:
        secret = people.link(name, here.door_clock.now())
        note_command(here, "person.linked", person=name)
    _say_link(here.url, name, None, secret, as_json)


def list_people(data: DATA = None, as_json: JSON = False) -> None:
    """List the users, with their roles and when they were last seen.

    Example: touchfold user list
    """
    from contextlib import closing

    from infra.adapters.postgres.people import PostgresPeople
    from infra.app.bootstrap import session
    from query.answers import iso

    with session(data) as here, closing(PostgresPeople(here.dsn)) as people:
        found = [
            {
                "name": row.name,
                "role": row.role,
                "state": "disabled" if row.disabled_at else "active" if row.has_password else "invited",
                "seen_at": None if row.seen_at is None else iso(row.seen_at),
            }
            for row in people.overview()
        ]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for each in found:
        typer.echo(f"{each['name']:<24} {each['role']:<9} {each['state']:<9} seen {each['seen_at'] or 'never'}")


def set_role(name: NAME, role: ROLE, data: DATA = None) -> None:
    """Change a user's role, effective from their next request.

    Example: touchfold user role ada --role admin
    """
    from contextlib import closing

    from infra.adapters.postgres.people import PostgresPeople
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session

    with session(data) as here, closing(PostgresPeople(here.dsn)) as people:
        people.set_role(name, role)
        note_command(here, "person.role_set", person=name, to=role)
    typer.echo(f"{name} now has the role {role}")


def disable(name: NAME, data: DATA = None) -> None:
    """Stop a user from signing in, and end their sessions.

    Example: touchfold user disable ada
    """
    from contextlib import closing

    from infra.adapters.postgres.people import PostgresPeople
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session

    with session(data) as here, closing(PostgresPeople(here.dsn)) as people:
        people.disable(name, here.door_clock.now())
        note_command(here, "person.disabled", person=name)
    typer.echo(f"{name} can no longer sign in")


def audit(
    verify: Annotated[bool, typer.Option("--verify", help="check that no entry was altered or removed")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="show at most this many, newest first")] = 50,
    words: Annotated[
        str | None,
        typer.Option(
            "--searched",
            metavar="WORDS",
            help="only searches for these words, within 30 days and since the last erasure",
        ),
    ] = None,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Show who looked at whom and who did what, or verify the list, also against the ledger.

    Search words are stored as hashes under a daily key, which is destroyed after 30 days and by each erasure.

    Example: touchfold audit --verify
    """
    from contextlib import closing

    from infra.app.auditing import audit_of, searches_for
    from infra.app.bootstrap import session
    from query.answers import iso

    with session(data) as here, closing(audit_of(here)) as log:
        problems = log.verify() if verify else []
        if verify:
            rows = []
        elif words is not None:
            rows = searches_for(here, log, words, limit=limit)
        else:
            rows = log.page(limit=limit)
    if verify:
        typer.echo(
            json.dumps({"whole": not problems, "problems": problems}) if as_json else "\n".join(problems) or "whole"
        )
        raise typer.Exit(1 if problems else 0)
    found = [{**row._asdict(), "at": iso(row.at)} for row in rows]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for each in found:
        typer.echo(f"{each['at']}  {each['who']:<20} {each['role']:<9} {each['action']:<24} {each['profile_id'] or ''}")
