"""`touchfold up`: the whole platform on one machine, until Ctrl-C or SIGTERM."""

from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import DATA, say

if TYPE_CHECKING:
    from pathlib import Path

PORT = Annotated[int | None, typer.Option(help="the port to listen on; 0 picks a free one")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("up")(up)
    app.command("ingest")(ingest)
    app.command("worker")(worker)
    app.command("publish")(publish)
    app.command("serve")(serve)


def up(
    data: DATA = None,
    port: PORT = None,
) -> None:
    """Run PostgreSQL, the door, the worker and the archiver; prints `ready http://HOST:PORT` when all are ready.

    With TOUCHFOLD_LOG=kafka, runs all cluster roles on one machine, against your brokers.

    Examples: touchfold up     touchfold up --data /srv/touchfold --port 8800
    """
    run_role("up", data, port)


def ingest(data: DATA = None, port: PORT = None) -> None:
    """Cluster role: the door and the inbox topic. Run any number of them behind a load balancer.

    Example: TOUCHFOLD_LOG=kafka TOUCHFOLD_KAFKA_BOOTSTRAP=broker:9093 TOUCHFOLD_DATABASE=… touchfold ingest --port 8700
    """
    run_role("ingest", data, port)


def worker(
    data: DATA = None,
    processes: Annotated[int | None, typer.Option(min=1, max=64, help="worker processes on this machine")] = None,
) -> None:
    """Cluster role: folds events into profiles and decides. Partitions are shared among all running workers.

    Example: TOUCHFOLD_LOG=kafka TOUCHFOLD_KAFKA_BOOTSTRAP=… TOUCHFOLD_DATABASE=… touchfold worker --processes 2
    """
    run_role("worker", data, None, workers=processes)


def publish(data: DATA = None) -> None:
    """Cluster role: publishes changes of profiles, segments and risk to topics. One publishes, the others stand by.

    Example: TOUCHFOLD_LOG=kafka TOUCHFOLD_KAFKA_BOOTSTRAP=… TOUCHFOLD_DATABASE=… touchfold publish
    """
    run_role("publish", data, None)


def serve(data: DATA = None, port: PORT = None) -> None:
    """Cluster role: the API and the pages. Run any number of them behind a load balancer with sticky sessions.

    Example: TOUCHFOLD_LOG=kafka TOUCHFOLD_KAFKA_BOOTSTRAP=… TOUCHFOLD_DATABASE=… touchfold serve --port 8700
    """
    run_role("serve", data, port)


def run_role(command: str, data: "Path | None", port: int | None, workers: int | None = None) -> None:
    """Run a role until Ctrl-C or SIGTERM."""
    import os

    from infra.app import log_lines
    from infra.app.settings import load
    from infra.app.stop_signals import ENDING, stop_at
    from infra.drivers.process.supervisor import Supervisor

    stop = stop_at(*ENDING)
    log_lines.configure(command)
    environ = os.environ if workers is None else {**os.environ, "TOUCHFOLD_WORKERS": str(workers)}
    settings = load(environ, data=data, port=port)
    Supervisor(settings, stop, say, command).run(lambda url: _ready(url or command))
    say("stopped")


def _ready(what: str) -> None:
    import sys

    typer.echo(f"ready {what}")
    sys.stdout.flush()
