"""`touchfold source create|list|set|rotate|revoke`: who may send touchpoints, and how much."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.options import DATA, JSON, say

if TYPE_CHECKING:
    from infra.app.session import Session

NAME = Annotated[str, typer.Argument(help="the source's name, such as web or till-export", show_default=False)]
_EXAMPLE: Final = (
    '{"userId": "ada-1", "event": "Order Completed", '
    '"properties": {"order_id": "O-1", "revenue": 42.5, "currency": "USD"}}'
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="Sources that send touchpoints, and their write keys.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_sources)
    group.command("set")(set_source)
    group.command("rotate")(rotate)
    group.command("revoke")(revoke)
    app.add_typer(group, name="source")


def create(name: NAME, data: DATA = None, as_json: JSON = False) -> None:
    """Create a source. Its write key is shown only once.

    Example: touchfold source create web
    """
    _key_command(name, data, as_json, rotating=False)


def set_source(
    name: NAME,
    rate: Annotated[float | None, typer.Option(help="events per second, over all doors together")] = None,
    burst: Annotated[
        float | None, typer.Option(help="events accepted in one burst (default: two seconds' worth)")
    ] = None,
    no_rate: Annotated[bool, typer.Option("--no-rate", help="remove rate and burst")] = False,
    origin: Annotated[list[str] | None, typer.Option(help="an origin whose pages may send; repeat for more")] = None,
    any_origin: Annotated[bool, typer.Option("--any-origin", help="let pages of any origin send")] = False,
    trusted_clock: Annotated[
        bool | None, typer.Option("--trusted-clock/--no-trusted-clock", help="do not correct its timestamps")
    ] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="accept or refuse its events")] = None,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Change a source's settings; they take effect within a second. Options not given stay as they are.

    Example: touchfold source set web --rate 100 --origin https://shop.example
    """
    given = {"events_per_s": rate, "burst": burst, "origins": origin, "trusted_clock": trusted_clock}
    changes: dict[str, object] = {key: value for key, value in given.items() if value is not None}
    changes |= {} if enabled is None else {"enabled": enabled}
    changes |= {"events_per_s": None, "burst": None} if no_rate else {}
    changes |= {"origins": None} if any_origin else {}
    if not changes or (no_rate and (rate or burst)) or (any_origin and origin):
        raise typer.BadParameter(
            "give at least one setting, and no setting together with the option that removes it: see --help"
        )
    from contextlib import closing

    from infra.adapters.postgres.sources import PostgresSources
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session

    with session(data, say=say) as here, closing(PostgresSources(here.dsn)) as sources:
        settings = sources.change(name, changes)
        note_command(here, "source.changed", source=name, settings=sorted(changes))
    typer.echo(json.dumps({"name": name, "settings": settings}) if as_json else f"{name}: {_told(settings)}")


def _told(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items()) or "default settings"


def rotate(name: NAME, data: DATA = None, as_json: JSON = False) -> None:
    """Give a source a new write key; the old ones stop working within a second.

    Example: touchfold source rotate web
    """
    _key_command(name, data, as_json, rotating=True)


def _key_command(name: str, data: DATA, as_json: bool, *, rotating: bool) -> None:
    from contextlib import closing

    from infra.adapters.postgres.sources import PostgresSources
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session

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
    """A shell command that sends one touchpoint. `touchfold up` need not be running yet."""
    url = (
        here.url
        or f"{'http' if here.settings.tls_cert is None else 'https'}://{here.settings.host}:{here.settings.port}"
    )
    return f"curl -sS {url}/v1/track -u {key}: -H 'Content-Type: application/json' -d '{_EXAMPLE}'"


def list_sources(data: DATA = None, as_json: JSON = False) -> None:
    """List the sources and how many valid write keys each has.

    Example: touchfold source list
    """
    from contextlib import closing

    from infra.adapters.postgres.sources import PostgresSources
    from infra.app.bootstrap import session

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
        typer.echo(
            f"{row.name}: {row.keys} write key{'' if row.keys == 1 else 's'}, since {row.created_at:%Y-%m-%d}"
            + (f"; {_told(row.settings)}" if row.settings else "")
        )
    if not rows:
        typer.echo("no source yet: touchfold source create web")


def revoke(name: NAME, data: DATA = None, as_json: JSON = False) -> None:
    """Revoke all write keys of a source, within a second. What it has sent stays.

    Example: touchfold source revoke old-shop
    """
    from contextlib import closing

    from infra.adapters.postgres.sources import PostgresSources
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session

    with session(data, say=say) as here, closing(PostgresSources(here.dsn)) as sources:
        count = sources.revoke(name, here.door_clock.now())
        note_command(here, "source.revoked", source=name)
    typer.echo(
        json.dumps({"name": name, "revoked": count})
        if as_json
        else f"revoked {count} write key{'' if count == 1 else 's'} of {name}"
    )
