"""`touchfold up`: the whole platform on one machine, until Ctrl-C or SIGTERM."""

from typing import Annotated

import typer

from infra.cli.options import DATA, say


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("up")(up)


def up(
    data: DATA = None,
    port: Annotated[int | None, typer.Option(help="the port to listen on; 0 takes a free one")] = None,
) -> None:
    """Run PostgreSQL, the door, the worker and the archiver; prints `ready http://HOST:PORT` when all answer.

    Examples: touchfold up     touchfold up --data /srv/touchfold --port 8800
    """
    import os
    import signal
    import threading

    from infra import log_lines
    from infra.drivers.supervisor import Supervisor
    from infra.settings import load

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    log_lines.configure("up")
    settings = load(os.environ, data=data, port=port)
    Supervisor(settings, stop, say).run(_ready)
    say("stopped")


def _ready(url: str) -> None:
    import sys

    typer.echo(f"ready {url}")
    sys.stdout.flush()
