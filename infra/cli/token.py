"""`touchfold token create|list|revoke`: tokens of the API."""

import json
from typing import Annotated, Literal

import typer

from infra.cli.options import DATA, JSON

Role = Literal["admin", "marketer", "analyst", "staff", "privacy", "service"]  # schemas.roles.ROLES


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="Tokens of the API, each with a role.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_tokens)
    group.command("revoke")(revoke)
    app.add_typer(group, name="token")


def create(
    role: Annotated[Role, typer.Option("--role", help="what it may do")],
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Make a token. It is shown once and stored as its hash alone.

    Example: touchfold token create --role analyst
    """
    from contextlib import closing

    from infra.adapters.postgres_tokens import PostgresTokens
    from infra.auditing import note_command
    from infra.bootstrap import session

    with session(data) as here, closing(PostgresTokens(here.dsn)) as tokens:
        name, token = tokens.create(role, here.clock.now())
        note_command(here, "token.created", token=name, for_role=role)
    if as_json:
        typer.echo(json.dumps({"token": token, "role": role, "id": name}))
    else:
        typer.echo(token)
        typer.echo(f"role {role}, id {name}; it is not shown again. Send it as Authorization: Bearer TOKEN", err=True)


def list_tokens(data: DATA = None, as_json: JSON = False) -> None:
    """List the tokens by id, without their secrets.

    Example: touchfold token list
    """
    from contextlib import closing

    from infra.adapters.postgres_tokens import PostgresTokens
    from infra.bootstrap import session
    from query.answers import iso

    with session(data) as here, closing(PostgresTokens(here.dsn)) as tokens:
        found = [
            {
                "id": row.id,
                "role": row.role,
                "created_at": iso(row.created_at),
                "revoked_at": None if row.revoked_at is None else iso(row.revoked_at),
            }
            for row in tokens.overview()
        ]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for each in found:
        state = f"revoked {each['revoked_at']}" if each["revoked_at"] else "valid"
        typer.echo(f"{each['id']}  {each['role']:<9} created {each['created_at']}  {state}")


def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="the token's id, or the token itself")],
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Refuse a token from now on (a running `up` may take a second).

    Example: touchfold token revoke 3f9a01bc
    """
    from contextlib import closing

    from infra.adapters.postgres_tokens import PostgresTokens
    from infra.auditing import note_command
    from infra.bootstrap import session

    with session(data) as here, closing(PostgresTokens(here.dsn)) as tokens:
        name = tokens.revoke(token, here.clock.now())
        note_command(here, "token.revoked", token=name)
    typer.echo(json.dumps({"id": name, "revoked": True}) if as_json else f"token {name} is revoked")
