"""`touchfold token create|list|revoke`: API tokens."""

import json
from typing import Annotated

import typer

from infra.cli.options import DATA, JSON
from schemas.roles import Role


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="API tokens, each with a role.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_tokens)
    group.command("revoke")(revoke)
    app.add_typer(group, name="token")


def create(
    role: Annotated[Role, typer.Option("--role", help="what it may do")],
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="lifetime such as 90d, 12h or 4w (default: never expires)"),
    ] = None,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Create a token. It is shown only once; only its hash is stored.

    Example: touchfold token create --role analyst --expires 90d
    """
    from contextlib import closing

    from infra.adapters.postgres.tokens import PostgresTokens, lifetime
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from query.answers import iso

    lives = None if expires is None else lifetime(expires)
    with session(data) as here, closing(PostgresTokens(here.dsn)) as tokens:
        now = here.door_clock.now()
        name, token = tokens.create(role, now, lives)
        expires_at = None if lives is None else iso(now + lives)
        note_command(here, "token.created", token=name, for_role=role, expires_at=expires_at)
    if as_json:
        typer.echo(json.dumps({"token": token, "role": role, "id": name, "expires_at": expires_at}))
    else:
        typer.echo(token)
        until = f" until {expires_at}" if expires_at else ""
        typer.echo(f"role {role}, id {name}{until}; it is not shown again. Send Authorization: Bearer TOKEN", err=True)


def list_tokens(data: DATA = None, as_json: JSON = False) -> None:
    """List the tokens by id, without their secrets.

    Example: touchfold token list
    """
    from contextlib import closing

    from infra.adapters.postgres.tokens import PostgresTokens
    from infra.app.bootstrap import session
    from query.answers import iso

    with session(data) as here, closing(PostgresTokens(here.dsn)) as tokens:
        found = [
            {
                "id": row.id,
                "role": row.role,
                "created_at": iso(row.created_at),
                "revoked_at": None if row.revoked_at is None else iso(row.revoked_at),
                "expires_at": None if row.expires_at is None else iso(row.expires_at),
                "state": row.state(here.door_clock.now()),
            }
            for row in tokens.overview()
        ]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for each in found:
        until = each["revoked_at"] if each["state"] == "revoked" else each["expires_at"]
        state = f"{each['state']} {'until ' if each['state'] == 'valid' else ''}{until}" if until else each["state"]
        typer.echo(f"{each['id']}  {each['role']:<9} created {each['created_at']}  {state}")


def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="the token's id, or the token itself")],
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Revoke a token (a running `up` may take a second to notice).

    Example: touchfold token revoke 3f9a01bc
    """
    from contextlib import closing

    from infra.adapters.postgres.tokens import PostgresTokens
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session

    with session(data) as here, closing(PostgresTokens(here.dsn)) as tokens:
        name = tokens.revoke(token, here.door_clock.now())
        note_command(here, "token.revoked", token=name)
    typer.echo(json.dumps({"id": name, "revoked": True}) if as_json else f"token {name} has been revoked")
