"""`touchfold source create|list|rotate|revoke`: who may send touchpoints."""

import json
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.options import DATA, JSON, say

if TYPE_CHECKING:
    from infra.bootstrap import Session

NAME = Annotated[str, typer.Argument(help="the source's name, such as web or till-export", show_default=False)]
_EXAMPLE: Final = (
    '{"userId": "ada-1", "event": "Order Completed", '
    '"properties": {"order_id": "O-1", "revenue": 42.5, "currency": "USD"}}'
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="Make and end the write keys of those who send touchpoints.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_sources)
    group.command("rotate")(rotate)
    group.command("revoke")(revoke)
    app.add_typer(group, name="source")


def create(name: NAME, data: DATA = None, as_json: JSON = False) -> None:
    """Make a source; its write key is shown this once.

    Example: touchfold source create web
    """
    _key_command(name, data, as_json, rotating=False)


def rotate(name: NAME, data: DATA = None, as_json: JSON = False) -> None:
    """Give a source a new write key; the old ones end within 5 seconds.

    Example: touchfold source rotate web
    """
    _key_command(name, data, as_json, rotating=True)


def _key_command(name: str, data: DATA, as_json: bool, *, rotating: bool) -> None:
    from contextlib import closing

    from infra.adapters.postgres_sources import PostgresSources
    from infra.auditing import note_command
    from infra.bootstrap import session

    with session(data, say=say) as here, closing(PostgresSources(here.dsn)) as sources:
        make = sources.rotate if rotating else sources.create
        key = make(name, here.door_clock.now())
        note_command(here, "source.rotated" if rotating else "source.created", source=name)
        curl = curl_line(here, key)
    if as_json:
        typer.echo(json.dumps({"name": name, "write_key": key, "curl": curl}))
        return
    typer.echo(f"write key of {name} (not shown again): {key}\n\nTry it:\n  {curl}")


def curl_line(here: "Session", key: str) -> str:
    """A shell command that sends one touchpoint. `touchfold up` need not run yet."""
    url = here.url or f"http://{here.settings.host}:{here.settings.port}"
    return f"curl -sS {url}/v1/track -u {key}: -H 'Content-Type: application/json' -d '{_EXAMPLE}'"


def list_sources(data: DATA = None, as_json: JSON = False) -> None:
    """List the sources and how many write keys of each work.

    Example: touchfold source list
    """
    from contextlib import closing

    from infra.adapters.postgres_sources import PostgresSources
    from infra.bootstrap import session

    with session(data, say=say) as here, closing(PostgresSources(here.dsn)) as sources:
        rows = sources.list()
    if as_json:
        found = [
            {
                "name": row.name,
                "created_at": row.created_at.isoformat().replace("+00:00", "Z"),
                "keys": row.keys,
                "settings": row.settings,
            }
            for row in rows
        ]
        typer.echo(json.dumps(found))
        return
    for row in rows:
        typer.echo(f"{row.name}: {row.keys} write key{'' if row.keys == 1 else 's'}, since {row.created_at:%Y-%m-%d}")
    if not rows:
        typer.echo("no source yet: touchfold source create web")


def revoke(name: NAME, data: DATA = None, as_json: JSON = False) -> None:
    """End all write keys of a source within 5 seconds; what it sent stays.

    Example: touchfold source revoke old-shop
    """
    from contextlib import closing

    from infra.adapters.postgres_sources import PostgresSources
    from infra.auditing import note_command
    from infra.bootstrap import session

    with session(data, say=say) as here, closing(PostgresSources(here.dsn)) as sources:
        count = sources.revoke(name, here.door_clock.now())
        note_command(here, "source.revoked", source=name)
    typer.echo(json.dumps({"name": name, "revoked": count}) if as_json else f"{count} write keys of {name} ended")
