"""`touchfold capacity`: the hardware that an event rate needs, computed from measured figures."""

import json
from typing import Annotated

import typer

from infra.cli.options import JSON


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("capacity")(capacity)


def capacity(
    events_per_second: Annotated[float, typer.Option("--events-per-second", help="the peak rate to sustain")],
    customers: Annotated[
        int | None, typer.Option(help="number of customers (default: 1,000 per event/s)", show_default=False)
    ] = None,
    retention_days: Annotated[float, typer.Option(help="days Kafka keeps the log; the archive keeps everything")] = 7,
    event_bytes: Annotated[
        float | None,
        typer.Option(help="compressed size of an event in Kafka (default: as measured)", show_default=False),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Size the doors, workers, partitions, brokers, PostgreSQL and archive for an event rate.

    Needs no data folder and connects to nothing. docs/scaling.md explains the parts; --json gives each figure's source.

    \b
    Examples:
      touchfold capacity --events-per-second 5000
      touchfold capacity --events-per-second 20000 --customers 3000000 --retention-days 3
      touchfold capacity --events-per-second 1e5 --event-bytes 800 --json
    """
    from infra.cli.capacity_model import ask_of, plan, read_figures
    from infra.cli.capacity_tables import as_json as whole
    from infra.cli.capacity_tables import lines
    from schemas.errors import BadRequest

    figures = read_figures()
    try:
        made = plan(figures, ask_of(figures, events_per_second, customers, retention_days, event_bytes))
    except ValueError as err:
        raise BadRequest(str(err)) from err
    if as_json:
        typer.echo(json.dumps(whole(made, figures)))
        return
    for line in lines(made):
        typer.echo(line)
