"""`touchfold doctor`: one line per check, with what to do when it fails."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import DATA, JSON

if TYPE_CHECKING:
    from infra.app.checks import Finding
    from infra.app.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("doctor")(doctor)


def doctor(
    drill: Annotated[
        bool, typer.Option("--drill", help="restore the newest backup to a temporary folder and compare")
    ] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    """Check the installation, the data folder, the databases, the vault, the log and the archive.

    With --drill, the newest backup is restored into a temporary folder next to the data folder, its log is folded
    again and compared, and the time this took is printed.

    Exits with status 1 if a check fails, and says what to do about it. Example: touchfold doctor
    """
    import os

    from infra.app.checks import AS_TOLD
    from infra.app.doctor import examine
    from infra.app.settings import load

    settings = load(os.environ, data=data)
    findings: list[Finding] = []
    for finding in chain(examine(settings), _drilled(settings) if drill else ()):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{'ok ' if finding.ok else 'BAD'} {finding.check}: {finding.detail}")
            if finding.fix not in ("", AS_TOLD):
                typer.echo(f"    do: {finding.fix}")
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _drilled(settings: "Settings") -> Iterator["Finding"]:
    from infra.app.checks import guarded
    from infra.app.drilling import drill
    from infra.cli.options import say

    yield guarded("drill", lambda: drill(settings, say))
